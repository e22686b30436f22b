//! Is the judge of performance right on a host that is disturbed?
//!
//! `cargo bench --bench performance` compares two identical servers `RUNS=100` times, and one that takes 30 % more as often, while
//! other threads use the processors now and then. Each comparison is the one that rehearsals make. Beside it, in the same run and
//! with as many requests: one server measured after the other, judged by the same statistics.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use switchback_core::check::{CheckResult, Verdict};
use switchback_core::config::PerformanceCheck;
use switchback_core::performance::{Finding, LOOKS, Random, sequential};
use switchback_core::workflow::{Endpoint, Redactor};
use switchback_engine::check::performance::{Sides, run};

/// Work of one request, about 0.4 ms of a processor.
const WORK: u64 = 400_000;
const MARGIN: f64 = 0.10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A server that computes for each request, for so many steps.
fn server(steps: u64) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut writer = stream.try_clone().expect("a second handle");
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" {
                        let mut value = steps;
                        for n in 0..steps {
                            value = black_box(value.rotate_left(7) ^ n);
                        }
                        let body = format!("{value:020}");
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{body}");
                        let _ = writer.write_all(answer.as_bytes());
                    }
                    line.clear();
                }
            });
        }
    });
    Endpoint::new("127.0.0.1", port)
}

/// Uses the processors for moments, as neighbours do.
fn disturb(stop: &Arc<AtomicBool>) {
    for seed in 1..=2 {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut random = Random::new(seed);
            while !stop.load(Ordering::Relaxed) {
                let until = Instant::now() + Duration::from_millis(random.below(400) as u64);
                while Instant::now() < until {
                    black_box(random.number());
                }
                thread::sleep(Duration::from_millis(random.below(900) as u64));
            }
        });
    }
}

fn paired(old: &Endpoint, new: &Endpoint, seed: u64, folder: &Path) -> CheckResult {
    let check: PerformanceCheck = serde_json::from_value(serde_json::json!({
        "name": format!("run-{seed}"), "service": "app", "path": "/", "floor": "0s", "limit": "60s"
    }))
    .expect("a check");
    run(
        &check,
        &Sides {
            old,
            new,
            headers: Vec::new(),
            redactor: Redactor::default(),
            environment: "candidate".to_owned(),
            usage: &|_| None,
            requests: 1,
            run_dir: folder.to_owned(),
            cancelled: &|| false,
            say: &|_| {},
        },
    )
}

/// Times of requests to one server, one after the other, in microseconds.
fn times(of: &Endpoint) -> Vec<u32> {
    let stream = TcpStream::connect((of.host.as_str(), of.default_port)).expect("connects");
    stream.set_nodelay(true).expect("sets");
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    let mut measured = Vec::new();
    for _ in 0..LOOKS[0] {
        let began = Instant::now();
        writer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sends");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("reads");
        }
        let mut body = [0; 20];
        reader.read_exact(&mut body).expect("reads");
        measured.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        thread::sleep(Duration::from_millis(2));
    }
    measured
}

#[derive(Default)]
struct Counts {
    fine: usize,
    slower: usize,
    open: usize,
    pairs: Vec<u64>,
}

impl Counts {
    fn row(&self, name: &str) {
        let mut pairs = self.pairs.clone();
        pairs.sort_unstable();
        let middle = pairs.get(pairs.len() / 2).map_or_else(|| "–".to_owned(), u64::to_string);
        println!("| {name} | {} | {} | {} | {middle} |", self.slower, self.fine, self.open);
    }
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let runs = number("RUNS", 100);
    let folder = std::env::temp_dir().join(format!("switchback-bench-performance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let stop = Arc::new(AtomicBool::new(false));
    disturb(&stop);
    let done = AtomicU64::new(0);
    println!(
        "| {runs} comparisons each | slower | not slower | cannot be said | pairs (median) |\n|---|---|---|---|---|"
    );
    for (name, steps) in [("identical", WORK), ("+30 % work", WORK * 13 / 10)] {
        let (old, new) = (server(WORK), server(steps));
        let (mut pairs, mut after) = (Counts::default(), Counts::default());
        for seed in 0..runs {
            done.fetch_add(1, Ordering::Relaxed);
            let result = paired(&old, &new, seed, &folder);
            match &result.verdict {
                Verdict::Pass => pairs.fine += 1,
                Verdict::Fail { .. } => pairs.slower += 1,
                _ => pairs.open += 1,
            }
            pairs.pairs.extend(result.measured.get("pairs").and_then(|p| p.parse::<u64>().ok()));
            match sequential(&times(&old), &times(&new), MARGIN, seed) {
                Finding::Slower => after.slower += 1,
                Finding::Fine => after.fine += 1,
                Finding::Open => after.open += 1,
            }
        }
        pairs.row(&format!("{name}, in pairs"));
        after.row(&format!("{name}, one after the other"));
    }
    stop.store(true, Ordering::Relaxed);
    let _ = std::fs::remove_dir_all(&folder);
}
