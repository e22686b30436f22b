use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A server that answers after so many microseconds, on connections that stay open. Every n-th answer is an error.
fn server(us: u64, every: u64) -> Endpoint {
    with_tail(us, every, 0)
}

fn with_tail(us: u64, every: u64, tail: u64) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let count = count.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().expect("a second handle");
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" {
                        // Every twelfth is a slow one, where that is asked for.
                        let n = count.fetch_add(1, Ordering::Relaxed) + 1;
                        let late = if tail > 0 && n.is_multiple_of(12) { tail } else { 0 };
                        thread::sleep(Duration::from_micros(us + late));
                        let status = if every > 0 && n.is_multiple_of(every) && n > 150 { 500 } else { 200 };
                        let _ = writer.write_all(
                            format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").as_bytes(),
                        );
                    }
                    line.clear();
                }
            });
        }
    });
    Endpoint::new("127.0.0.1", port)
}

fn check(limit: &str) -> PerformanceCheck {
    serde_json::from_str(&format!(
        r#"{{ "name": "notes ../x", "service": "app", "path": "/", "floor": "0s", "limit": "{limit}" }}"#
    ))
    .expect("a check")
}

fn compared(
    check: &PerformanceCheck,
    old: &Endpoint,
    new: &Endpoint,
    usage: &dyn Fn(bool) -> Option<Usage>,
) -> (CheckResult, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let sides = Sides {
        old,
        new,
        headers: Vec::new(),
        redactor: Redactor::default(),
        environment: "candidate".to_owned(),
        usage,
        requests: 1,
        run_dir: folder.path().to_owned(),
        cancelled: &|| false,
        say: &|_| {},
    };
    (run(check, &sides), folder)
}

#[test]
fn a_server_that_is_half_as_slow_again_fails_and_its_values_are_kept() {
    let (result, folder) = compared(&check("20s"), &server(1500, 0), &server(2300, 0), &|_| None);
    let Verdict::Fail { reasons } = &result.verdict else { panic!("{result:?}") };
    assert!(reasons[0].what.contains("median"), "{reasons:?}");
    let rows = fs::read_to_string(folder.path().join("performance/notes____x.csv")).expect("kept");
    assert!(rows.lines().count() > FEWEST);
    assert!(
        fs::read_to_string(folder.path().join("performance/notes____x.svg")).expect("kept").contains("<svg")
    );
    assert_eq!(result.artefacts.len(), 2);
}

#[test]
fn a_stall_of_the_new_side_is_not_charged_to_the_old_one() {
    let (result, _folder) = compared(&check("30s"), &server(500, 0), &with_tail(500, 0, 100_000), &|_| None);
    let Verdict::Fail { reasons } = &result.verdict else { panic!("{result:?}") };
    assert!(reasons.iter().any(|r| r.what.contains("95th")), "{reasons:?}");
}

#[test]
fn errors_processor_time_and_memory_are_compared_too() {
    let (old, new) = (server(300, 0), server(300, 7));
    let looks = std::cell::Cell::new(0_u64);
    let usage = |new: bool| {
        looks.set(looks.get() + 1);
        let n = looks.get();
        let each = if new { 90 } else { 30 };
        Some(Usage {
            cpu_ms: n * each,
            memory_bytes: if new { n * 20_000_000 } else { 1_000_000 },
            memory_limit_bytes: None,
            transactions: Some(n * CHUNK as u64 * if new { 12 } else { 3 }),
        })
    };
    let (result, _folder) = compared(&check("20s"), &old, &new, &usage);
    let Verdict::Fail { reasons } = &result.verdict else { panic!("{result:?}") };
    for word in ["now and then", "processor time", "memory grows", "more transactions"] {
        assert!(reasons.iter().any(|r| r.what.contains(word)), "{word}: {reasons:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_inconclusive_or_a_failure_of_the_new_version() {
    let gone = Endpoint::new("127.0.0.1", 9);
    let (result, _folder) = compared(&check("5s"), &gone, &server(0, 0), &|_| None);
    assert!(matches!(result.verdict, Verdict::Inconclusive { .. }), "{result:?}");
    let (result, _folder) = compared(&check("5s"), &server(0, 0), &gone, &|_| None);
    assert!(matches!(result.verdict, Verdict::Fail { .. }), "{result:?}");
    let (result, _folder) = compared(&check("1s"), &server(50_000, 0), &server(50_000, 0), &|_| None);
    let Verdict::Inconclusive { why } = &result.verdict else { panic!("{result:?}") };
    assert!(why.contains("are needed"), "{why}");
}
