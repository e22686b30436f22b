//! Measurements of stores, run by hand: `cargo test --release --test store_speed -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use switchback_core::data::StoreKind::{Files, Sqlite};
use switchback_engine::store::{self, Progress, Source, Writers};

#[test]
#[ignore = "a measurement"]
fn cloning_files_against_cp() {
    let base = std::env::var_os("SWITCHBACK_TEST_SPEED_DIR").unwrap_or_else(|| std::env::temp_dir().into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("big"), vec![7; 400 << 20]).unwrap();
    for i in 0..4000 {
        let sub = src.join(format!("d{}", i % 40));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(i.to_string()), vec![8; 20_000]).unwrap();
    }
    rustix::fs::sync();
    for round in 0..3 {
        let (ours, theirs) = (dir.path().join(format!("ours{round}")), dir.path().join(format!("cp{round}")));
        let t = Instant::now();
        let stats = store::clone_cold(Files, &src, &ours, &Progress::none()).unwrap();
        let mine = t.elapsed();
        fs::remove_dir_all(&ours).unwrap();
        rustix::fs::sync();
        let t = Instant::now();
        let script = "cp -a \"$1\" \"$2\" && sync -f \"$2\"";
        let ok = Command::new("sh").args(["-c", script, "sh"]).arg(&src).arg(&theirs).status().unwrap();
        assert!(ok.success());
        let cp = t.elapsed();
        fs::remove_dir_all(&theirs).unwrap();
        rustix::fs::sync();
        eprintln!(
            "480 MB in 4001 files: ours {mine:?} (durable), cp -a + sync -f {cp:?}, reflinked {}",
            stats.reflinked
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn hashing_and_comparing_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.db"), dir.path().join("b.db"));
    let conn = rusqlite::Connection::open(&a).unwrap();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, name TEXT, at REAL);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000000)
         INSERT INTO t SELECT i, i*7, 'name of row ' || i, i/3.0 FROM c;",
    )
    .unwrap();
    let t = Instant::now();
    store::clone_live(Sqlite, &a, &b, &Progress::none()).unwrap();
    eprintln!("clone of {} MB: {:?}", a.metadata().unwrap().len() >> 20, t.elapsed());
    let t = Instant::now();
    store::fingerprint(Sqlite, Source::cold(&a, dir.path()), &Progress::none()).unwrap();
    eprintln!("fingerprint of 2 M rows: {:?}", t.elapsed());
    rusqlite::Connection::open(&b).unwrap().execute_batch("UPDATE t SET name='x' WHERE id%1000=0").unwrap();
    let t = Instant::now();
    let diff =
        store::diff(Sqlite, Source::cold(&a, dir.path()), Source::cold(&b, dir.path()), &Progress::none())
            .unwrap();
    eprintln!("diff of 2 M rows, {} changed: {:?}", diff.parts[0].rows_changed, t.elapsed());
}

/// Times of ours and of another way, in turns, and their medians.
fn in_turns(what: &str, mut ours: impl FnMut() -> Duration, mut other: impl FnMut() -> Duration) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        a.push(ours());
        b.push(other());
    }
    a.sort_unstable();
    b.sort_unstable();
    let share = b[2].as_secs_f64() / a[2].as_secs_f64() * 100.0;
    eprintln!("{what}: ours {:?}, cp {:?}: {share:.0} % of its speed; all {a:?} {b:?}", a[2], b[2]);
}

#[test]
#[ignore = "a measurement"]
fn copying_without_shared_blocks_against_cp() {
    let base = std::env::var_os("SWITCHBACK_TEST_SPEED_DIR").unwrap_or_else(|| std::env::temp_dir().into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let (big, small) = (dir.path().join("big"), dir.path().join("small"));
    fs::create_dir(&big).unwrap();
    fs::write(big.join("file"), vec![7; 2 << 30]).unwrap();
    for i in 0..20_000 {
        let sub = small.join(format!("d{}", i % 200));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(i.to_string()), vec![8; 4096 + i * 37 % 12_000]).unwrap();
    }
    let (dst, state) = (dir.path().join("dst"), dir.path().join("state"));
    let timed = |work: &dyn Fn()| {
        rustix::fs::sync();
        let t = Instant::now();
        work();
        let took = t.elapsed();
        fs::remove_dir_all(&dst).unwrap();
        let _ = fs::remove_file(&state);
        took
    };
    let cp = |src: &Path, script: &str| {
        let ok = Command::new("sh").args(["-c", script, "sh"]).arg(src).arg(&dst).status().unwrap();
        assert!(ok.success());
    };
    for (what, src) in [("one file of 2 GiB", &big), ("20,000 small files", &small)] {
        let pass = || {
            store::sync_pass(src, &dst, &state, Writers::Stopped, None, &Progress::none()).unwrap();
        };
        in_turns(
            &format!("{what}, first pass against cp -a"),
            || timed(&pass),
            || timed(&|| cp(src, "cp -a \"$1\" \"$2\"")),
        );
        let clone = || {
            store::clone_cold(Files, src, &dst, &Progress::none()).unwrap();
        };
        in_turns(
            &format!("{what}, clone_cold against cp -a and sync -f"),
            || timed(&clone),
            || timed(&|| cp(src, "cp -a \"$1\" \"$2\" && sync -f \"$2\"")),
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn passes_over_what_did_not_change() {
    let base = std::env::var_os("SWITCHBACK_TEST_SPEED_DIR").unwrap_or_else(|| std::env::temp_dir().into());
    let dir = tempfile::tempdir_in(base).unwrap();
    let src = dir.path().join("src");
    for i in 0..100_000 {
        let sub = src.join(format!("d{}", i % 500));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(i.to_string()), "content").unwrap();
    }
    fs::write(src.join("big"), vec![7; 1 << 30]).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let (dst, state) = (dir.path().join("dst"), dir.path().join("state"));
    let pass = |writers| store::sync_pass(&src, &dst, &state, writers, None, &Progress::none()).unwrap();
    eprintln!("first: {:?}", pass(Writers::Running));
    for _ in 0..3 {
        eprintln!("nothing changed: {:?}", pass(Writers::Stopped));
    }
    fs::File::options().append(true).open(src.join("big")).unwrap().set_len((1 << 30) + 1).unwrap();
    eprintln!("1 GiB to compare: {:?}", pass(Writers::Stopped));
    eprintln!("state: {} bytes", state.metadata().unwrap().len());
}
