//! How fast the small commands are, and how little the watchdog takes.
//!
//! `cargo bench --bench cli`, and with `-- --compose` also the watchdog of containers.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;

use assistant::ReleaseKind;
use common::Stack;
use common::docker::{Example, Stack as Compose};
use std::time::{Duration, Instant};

fn main() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.configure("watch: 2s, every: 100ms", "watch: 1h, every: 10s");
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "--yes", "--detach", "app=2.0.0"]).expect(0);
    println!("| what | median, ms | min–max, ms | limit |\n|---|---|---|---|");
    for (what, args, limit) in [
        ("--version", vec!["--version"], 10),
        ("status", vec!["status"], 50),
        ("status --json", vec!["status", "--json"], 50),
    ] {
        let mut times: Vec<f64> = (0..50)
            .map(|_| {
                let began = Instant::now();
                stack.run(&args).expect(0);
                began.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("| `switchback {what}` | {:.1} | {:.1}–{:.1} | {limit} |", times[25], times[0], times[49]);
    }
    let watchdog = stack.watchdog().expect("a watchdog");
    println!(
        "\n| watchdog on trial, probing every 10 s | resident, MB | of it its own, not the program's text | processor, % of a core | limits |\n|---|---|---|---|---|"
    );
    line("one local process, an SQLite database", watchdog);
    drop(stack);
    if std::env::args().any(|a| a == "--compose") {
        let stack = Compose::compose(Example::Ledger);
        let rollback = "rollback: { watch: 1h, every: 10s, triggers: { logs: { action: rollback } } }";
        stack.edit("switchback.yaml", "rollback: { watch: 1h, every: 1s }", rollback);
        stack.up();
        stack.run(&["up", "--yes"]).expect(0);
        let args = ["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "bench"];
        stack.run(&args).expect(0);
        line("two containers, every trigger on", common::watchdog_of(&stack.root).expect("a watchdog"));
    }
}

/// What a watchdog takes while it is idle.
fn line(what: &str, watchdog: i32) {
    // Idle: after its first probes.
    std::thread::sleep(Duration::from_secs(15));
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{watchdog}/stat")).expect("reads");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        // With the programs that it ran: they are its work.
        fields[11..15].iter().map(|f| f.parse::<u64>().expect("a time")).sum()
    };
    let (before, began) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(60));
    // USER_HZ is 100 on every Linux that runs here.
    let cpu = (ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64() * 100.0;
    let status = std::fs::read_to_string(format!("/proc/{watchdog}/status")).expect("reads");
    let kib = |key: &str| -> f64 {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .and_then(|l| l.split_whitespace().next())
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0)
    };
    println!(
        "| {what} | {:.1} | {:.1} | {cpu:.2} | 20 MB, 1 % |",
        kib("VmRSS:") * 1024.0 / 1e6,
        kib("RssAnon:") * 1024.0 / 1e6
    );
}
