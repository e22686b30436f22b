//! Watching a SQLite database while another process works on it. The worker is `sqlite3`, because locks of one's own process are not seen.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::trace::{Effect, Trace};
use switchback_engine::store;

struct Shell {
    child: Child,
}

impl Shell {
    fn open(path: &Path) -> Self {
        let child = Command::new("sqlite3")
            .arg("-bail")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sqlite3 is installed; scripts/test installs it");
        Self { child }
    }

    fn say(&mut self, sql: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{sql}").expect("writes");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("ends").success());
    }
}

fn made(dir: &Path, sql: &str) -> PathBuf {
    let path = dir.join("a book's.db");
    let mut shell = Shell::open(&path);
    shell.say(sql);
    shell.end();
    path
}

/// Watches while `work` is done.
fn watched(path: &Path, work: impl FnOnce()) -> Trace {
    let (over, ready) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut sees = || ready.store(true, Ordering::SeqCst);
            store::watch_sqlite(path, &|| over.load(Ordering::SeqCst), &mut sees).expect("watches")
        });
        let began = Instant::now();
        while !ready.load(Ordering::SeqCst) {
            assert!(began.elapsed() < Duration::from_secs(20) && !watcher.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
        work();
        // The last look comes after the last write.
        std::thread::sleep(Duration::from_millis(30));
        over.store(true, Ordering::SeqCst);
        watcher.join().expect("ends")
    })
}

const BOOKS: &str = "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT); CREATE TABLE old (x); \
    INSERT INTO books SELECT value, 'title ' || value FROM generate_series(1, 5000);";

fn texts(trace: &Trace) -> Vec<(&str, Effect)> {
    trace.statements.iter().map(|s| (s.text.as_str(), s.effect)).collect()
}

fn migrate(path: &Path) {
    let mut shell = Shell::open(path);
    shell.say("ALTER TABLE books ADD COLUMN author TEXT;");
    std::thread::sleep(Duration::from_millis(200));
    shell.say(
        "BEGIN IMMEDIATE; UPDATE books SET author = 'nobody'; CREATE INDEX by_author ON books (author);",
    );
    std::thread::sleep(Duration::from_millis(400));
    shell.say("DROP TABLE old; COMMIT;");
    std::thread::sleep(Duration::from_millis(200));
    // As SQLite's documentation says it should be done where ALTER TABLE does not suffice.
    shell.say(
        "BEGIN; CREATE TABLE new (id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT); \
         INSERT INTO new SELECT * FROM books; DROP TABLE books; ALTER TABLE new RENAME TO books; COMMIT;",
    );
    shell.end();
}

fn assert_migrated(trace: &Trace) {
    let told = texts(trace);
    let at = |text: &str| {
        told.iter().position(|(t, _)| *t == text).unwrap_or_else(|| panic!("no {text}: {trace:#?}"))
    };
    let added = at("CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, author TEXT)");
    let (index, gone) = (at("CREATE INDEX by_author ON books (author)"), at("drop table old"));
    assert!(added < index && told[gone].1 == Effect::Destroys && told[index].1 == Effect::Adds);
    assert_eq!(trace.statements[index].at_us, trace.statements[gone].at_us, "one transaction: {trace:#?}");
    assert!(trace.statements[index].took_us >= 350_000, "{trace:#?}");
    let rebuilt =
        trace.statements.iter().find(|s| s.rewrote == ["books"]).unwrap_or_else(|| panic!("{trace:#?}"));
    assert!(rebuilt.text.contains("NOT NULL"), "{rebuilt:?}");
    let file = trace.file.expect("a file");
    assert!((3..=6).contains(&file.transactions), "{file:?}");
    assert!(file.longest_write_us >= 350_000 && file.writers_blocked_us >= file.longest_write_us, "{file:?}");
    assert!(file.readers_blocked_us < 350_000, "readers wait only while it is written: {file:?}");
    assert!(trace.notes.is_empty(), "{:?}", trace.notes);
}

#[test]
fn a_migration_with_a_rollback_journal_is_seen() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = made(dir.path(), BOOKS);
    let trace = watched(&path, || migrate(&path));
    assert_migrated(&trace);
    assert!(!trace.file.expect("a file").wal && trace.bytes_after >= trace.bytes_before);
}

#[test]
fn a_migration_with_a_log_is_seen() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = made(dir.path(), &format!("PRAGMA journal_mode = wal; {BOOKS}"));
    // Somebody else keeps it open, as applications do: the log stays.
    let mut other = Shell::open(&path);
    other.say("SELECT count(*) FROM books;");
    let trace = watched(&path, || migrate(&path));
    other.end();
    assert_migrated(&trace);
    let file = trace.file.expect("a file");
    assert!(file.wal && trace.wal_bytes > 0 && file.readers_blocked_us == 0, "{trace:#?}");
}

#[test]
fn an_exclusive_lock_keeps_readers_waiting() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = made(dir.path(), BOOKS);
    let trace = watched(&path, || {
        let mut shell = Shell::open(&path);
        shell.say("BEGIN EXCLUSIVE; DELETE FROM books;");
        std::thread::sleep(Duration::from_millis(300));
        shell.say("COMMIT;");
        shell.end();
    });
    let file = trace.file.expect("a file");
    assert!(file.readers_blocked_us >= 250_000, "{file:?}");
    assert!(trace.statements.is_empty() && !trace.is_empty(), "{trace:#?}");
}

/// Whoever is watched notices nothing: not even one that waits for no lock.
#[test]
fn nobody_is_ever_kept_waiting_by_it() {
    for mode in ["delete", "wal"] {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = made(dir.path(), &format!("PRAGMA journal_mode = {mode}; {BOOKS}"));
        let trace = watched(&path, || {
            let mut shell = Shell::open(&path);
            shell.say(".timeout 0");
            for n in 0..300 {
                shell.say(&format!("CREATE TABLE t{n} (x); INSERT INTO t{n} VALUES (1); DROP TABLE t{n};"));
            }
            // Fails where anybody reads.
            shell.say("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE; COMMIT;");
            shell.end();
        });
        assert!(trace.file.expect("a file").transactions >= 600, "{mode}: {:?}", trace.file);
        // What came and went between two looks leaves nothing.
        assert!(trace.statements.len() <= 301, "{mode}");
    }
}

#[test]
fn what_is_no_database_is_an_error_and_an_empty_one_is_none() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("no.db");
    let watch = |path: &Path| store::watch_sqlite(path, &|| true, &mut || {});
    assert!(watch(&path).is_err());
    std::fs::write(
        &path,
        "this is no database, but long enough to be looked at as if it were one, page by page".repeat(50),
    )
    .expect("writes");
    assert!(watch(&path).is_err());
    std::fs::write(&path, "").expect("writes");
    assert!(watch(&path).expect("empty").is_empty());
}
