//! How long does it take to provision a staging environment of n8n from running production, beside the plain start of its
//! services and a plain copy of its files?
//!
//! `cargo bench --bench staging` has the data in the engine's own volumes; `-- --dir /mnt/xfs` in a folder, which may lie on a
//! file system that shares blocks. `REPEAT=3` repetitions, each of them, in turn:
//!
//! - start: production's containers are removed and made again by Compose, until healthy by their own checks and answering the
//!   configured health check for the configured stability time;
//! - killed: the same after production's containers were killed: a copy of what runs is to its services as if they had been killed,
//!   and they recover when they start (n8n waits 10 s then, Postgres replays its log);
//! - copy: `cp -a` of all volumes, made durable, while production runs;
//! - staging: `switchback staging up` beside production, to its end, and `staging down`.
//!
//! It needs the images of `scripts/lib/images.sh --full`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;

use common::docker::{Example, LABEL, Stack, docker};
use samples::{Named, Samples};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As in examples/compose-n8n/switchback.yaml, and the default of the database.
const STABLE: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(600);
const VOLUMES: [&str; 2] = ["db", "n8n"];

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let mut dir = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => dir = args.next().map(PathBuf::from),
            _ => panic!("{arg}: only --dir FOLDER"),
        }
    }
    let repeat = std::env::var("REPEAT").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    let place = dir.as_ref().map_or("the engine's volumes".to_owned(), |d| d.display().to_string());
    println!("Data in {place}; median (fastest–slowest) of {repeat}, s.\n");

    let (stack, data) = stack(dir.as_ref());
    let mut steps = Named::default();
    let [mut start, mut recover, mut copied, mut staging, mut ratio, mut over_recover, mut paused]: [Samples;
        7] = std::array::from_fn(|_| Samples::default());
    for _ in 0..repeat {
        let killed = start_again(&stack, true);
        let plain = start_again(&stack, false);
        let files = copy(&stack);
        let began = Instant::now();
        stack.run(&["staging", "up", "--quiet"]).expect(0);
        let ours = began.elapsed().as_secs_f64();
        let report = stack.report();
        if let Some(ms) = report["times"]["writers_waited_ms"].as_f64() {
            paused.add(ms);
        }
        steps.add_steps(&report);
        stack.run(&["staging", "down", "--yes", "--quiet"]).expect(0);
        start.add(plain);
        recover.add(killed);
        over_recover.add((ours - files) / killed);
        copied.add(files);
        staging.add(ours);
        ratio.add((ours - files) / plain);
    }
    println!(
        "| plain start | start after a kill | plain copy | staging up | (staging up - copy) / plain start | … / start after a kill | writers waited, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        start.show(1),
        recover.show(1),
        copied.show(2),
        staging.show(1),
        ratio.show(2),
        over_recover.show(2),
        paused.show(0)
    );
    println!("\n| step of staging up | s |\n|---|---|");
    for (id, samples) in steps.iter() {
        println!("| {id} | {} |", samples.show(2));
    }
    drop(stack);
    if let Some(data) = data {
        // Clones of volumes lie beside them.
        std::fs::remove_dir_all(&data).expect("removes");
    }
}

/// n8n with its workflows, taken over; and the folder of its data, if that is not the engine's.
fn stack(dir: Option<&PathBuf>) -> (Stack, Option<PathBuf>) {
    let stack = Stack::compose(Example::N8n);
    let data = dir.map(|d| d.join(&stack.project));
    if let Some(data) = &data {
        let mut volumes = "volumes:\n".to_owned();
        for name in VOLUMES {
            let device = data.join(name);
            std::fs::create_dir_all(&device).expect("creates");
            volumes += &format!(
                "  {name}: {{ driver_opts: {{ type: none, o: bind, device: \"{}\" }} }}\n",
                device.display()
            );
        }
        stack.edit("compose.yaml", "volumes:\n  db:\n  n8n:\n", &volumes);
    }
    stack.up();
    stack.seed(&[]);
    stack.run(&["up", "--yes"]).expect(0);
    (stack, data)
}

fn answers(stack: &Stack) -> bool {
    stack.ask("GET", "/healthz/readiness", &[], None).is_ok_and(|a| a.0 == 200)
}

/// Seconds.
fn start_again(stack: &Stack, kill: bool) -> f64 {
    if kill {
        stack.docker_compose(&["kill"]).expect(0);
    }
    stack.docker_compose(&["down"]).expect(0);
    let began = Instant::now();
    stack.docker_compose(&["up", "-d", "--wait", "--no-build"]).expect(0);
    let mut since: Option<Instant> = None;
    loop {
        since = if answers(stack) { since.or_else(|| Some(Instant::now())) } else { None };
        if since.is_some_and(|s| s.elapsed() >= STABLE) {
            return began.elapsed().as_secs_f64();
        }
        assert!(began.elapsed() < SETTLE, "not healthy");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Seconds.
fn copy(stack: &Stack) -> f64 {
    let label = format!("{LABEL}={}", stack.project);
    let kept = format!("{}_copied", stack.project);
    docker(&["volume", "create", "--label", &label, &kept]).expect(0);
    let mounts: Vec<String> =
        VOLUMES.iter().map(|name| format!("{}_{name}:/from/{name}:ro", stack.project)).collect();
    let target = format!("{kept}:/to");
    let mut args = vec!["run", "--rm", "--network", "none", "-v", &target];
    for mount in &mounts {
        args.extend(["-v", mount]);
    }
    args.extend(["--entrypoint", "sh", "sbt/postgres:15", "-c", "cp -a /from/. /to/; sync -f /to"]);
    let began = Instant::now();
    docker(&args).expect(0);
    let took = began.elapsed().as_secs_f64();
    docker(&["volume", "rm", &kept]).expect(0);
    took
}
