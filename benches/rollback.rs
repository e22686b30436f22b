//! Does the rollback's time grow with the data, and how much is it above the floor?
//!
//! `cargo bench --bench rollback` (all sizes), or `cargo bench --bench rollback -- 10M 100M` (some).
//! Repetitions: `REPEAT=5`. For each size: the example service with a database of that size is promoted and
//! rolled back. Beside each rollback, in the same run: the floor (the same service stopped and started again by
//! hand, until healthy and stable by the same rule) and what a user would do otherwise (copy a backup back).

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;

use assistant::{ReleaseKind, SeedPlan};
use common::Stack;
use samples::Samples;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZES: [(&str, u64); 4] = [("10M", 10 << 20), ("100M", 100 << 20), ("1G", 1 << 30), ("4G", 4 << 30)];
/// The stability time of the configuration below.
const STABLE: Duration = Duration::from_millis(500);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let repeat: usize = std::env::var("REPEAT").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    println!(
        "| data | rollback, ms (median, min–max) | floor, ms | over the floor | outage seen by a client, ms | copy a backup back, ms |"
    );
    println!("|---|---|---|---|---|---|");
    let mut medians = Vec::new();
    for (name, bytes) in SIZES {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let [mut rollback, mut floor, mut ratios, mut outage, mut copy]: [Samples; 5] =
            std::array::from_fn(|_| Samples::default());
        for _ in 0..repeat {
            let case = one(bytes);
            rollback.add(case.rollback);
            floor.add(case.floor);
            ratios.add(case.rollback / case.floor);
            outage.add(case.outage);
            copy.add(case.copy);
        }
        medians.push((name, rollback.median()));
        println!(
            "| {name} | {} | {} | {} | {:.0} | {:.0} |",
            rollback.show(0),
            floor.show(0),
            ratios.show(3),
            outage.median(),
            copy.median(),
        );
    }
    if let (Some(min), Some(max)) = (
        medians.iter().map(|m| m.1).min_by(f64::total_cmp),
        medians.iter().map(|m| m.1).max_by(f64::total_cmp),
    ) {
        println!("\nslowest / fastest size: {:.3}", max / min);
    }
}

struct Case {
    rollback: f64,
    floor: f64,
    outage: f64,
    copy: f64,
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn one(bytes: u64) -> Case {
    let stack = Stack::with(&[ReleaseKind::V2], 10);
    stack.configure("stable: 100ms", "stable: 500ms");
    stack.configure("watch: 2s", "watch: 1h");
    // A migration of gigabytes is not what is measured here.
    stack.configure("migrate_deadline: 30s", "migrate_deadline: 10m");
    std::fs::remove_dir_all(stack.root.join("data")).expect("removes");
    assistant::seed_with(&SeedPlan {
        db: stack.root.join("data/assistant.db"),
        uploads: stack.root.join("data/uploads"),
        notes: 1000,
        uploads_count: 3,
        bytes_total: Some(bytes),
        seed: 1,
    })
    .expect("seeds");
    let backup = stack.root.join("backup.db");
    let floor = floor(&stack);
    stack.run(&["up"]).expect(0);
    stack
        .run(&["promote", "app=2.0.0", "--yes", "--detach", "--without-certificate", "--reason", "benchmark"])
        .expect(0);
    let outage = Outage::watch(stack.port);
    stack.run(&["rollback", "--yes", "--quiet"]).expect(0);
    let outage = outage.end();
    let report = stack.report();
    let rollback = report["times"]["rollback_ms"].as_f64().expect("a time");
    // The alternative: stop, copy the backup back over the data, start. Only the copy is timed.
    let data = stack.root.join("data/assistant.db");
    assert!(Command::new("cp").arg(&data).arg(&backup).status().expect("copies").success());
    let began = Instant::now();
    let restored = stack.root.join("restored.db");
    assert!(Command::new("cp").arg(&backup).arg(&restored).status().expect("copies").success());
    assert!(Command::new("sync").arg(&restored).status().expect("syncs").success());
    Case { rollback, floor, outage, copy: ms(began) }
}

/// Stops and starts the service by hand, on the same data: until the first healthy answer, plus the stability time.
fn floor(stack: &Stack) -> f64 {
    let mut first = serve(stack);
    wait_healthy(stack.port);
    let began = Instant::now();
    terminate(&mut first);
    let mut second = serve(stack);
    wait_healthy(stack.port);
    std::thread::sleep(STABLE);
    let took = ms(began);
    terminate(&mut second);
    took
}

fn serve(stack: &Stack) -> Child {
    let release = stack.root.join("releases/1.0.0");
    Command::new(release.join("bin/assistant"))
        .args(["serve", "--release"])
        .arg(&release)
        .arg("--db")
        .arg(stack.root.join("data/assistant.db"))
        .arg("--uploads")
        .arg(stack.root.join("data/uploads"))
        .args(["--listen", &format!("127.0.0.1:{}", stack.port)])
        .env("ASSISTANT_TOKEN", common::TOKEN)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

fn terminate(child: &mut Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
    child.wait().expect("ends");
}

fn healthy(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}

fn wait_healthy(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !healthy(port) {
        assert!(Instant::now() < deadline, "not healthy");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A client that asks all the time, and says how long it got no answer.
struct Outage {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<f64>,
}

impl Outage {
    fn watch(port: u16) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = 0.0f64;
            let mut last_good = Instant::now();
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                if healthy(port) {
                    longest = longest.max(ms(last_good));
                    last_good = Instant::now();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        Self { stop, thread }
    }

    fn end(self) -> f64 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().expect("joins")
    }
}
