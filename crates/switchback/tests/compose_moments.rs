//! Point-in-time recovery of Postgres on a real engine: rows are written all the time, and what comes back is what was acknowledged
//! before a moment, and nothing after it.

mod common;

use common::docker::{Example, Stack, docker};
use common::heard::{Heard, http};
use common::upgrade::{assert_no_secret_is_told, burn_down, staging_left};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Promotes what was not rehearsed.
const WAIVED: [&str; 3] = ["--without-certificate", "--reason", "a test"];

fn now_ms() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    i64::try_from(since.as_millis()).expect("fits")
}

fn utc(ms: i64) -> String {
    let text = Command::new("date")
        .args(["-u", "-d", &format!("@{}.{:03}", ms / 1000, ms % 1000), "+%Y-%m-%dT%H:%M:%S.%3NZ"])
        .output()
        .expect("runs");
    String::from_utf8_lossy(&text.stdout).trim().to_owned()
}

/// A row: its number, when it was asked for, and when it was acknowledged.
type Row = (u64, i64, i64);

/// Writes rows until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    rows: Arc<Mutex<Vec<Row>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(stack: &Stack) -> Self {
        stack.psql("create table if not exists marks (n bigint primary key)");
        let stop = Arc::new(AtomicBool::new(false));
        let rows: Arc<Mutex<Vec<Row>>> = Arc::default();
        let (ended, kept) = (Arc::clone(&stop), Arc::clone(&rows));
        let label = format!("label=com.docker.compose.project={}", stack.project);
        let thread = std::thread::spawn(move || {
            let (mut n, mut id) = (0, String::new());
            while !ended.load(Ordering::Relaxed) {
                n += 1;
                let sent = now_ms();
                if id.is_empty() {
                    let filter = ["--filter", &label, "--filter", "label=com.docker.compose.service=db"];
                    docker(&[&["ps", "-q"][..], &filter].concat()).stdout.trim().clone_into(&mut id);
                }
                let sql = format!("insert into marks values ({n})");
                let psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "ledger", "-c", &sql];
                if docker(&[&["exec", &id][..], &psql].concat()).code == Some(0) {
                    kept.lock().expect("a lock").push((n, sent, now_ms()));
                } else {
                    id.clear();
                }
            }
        });
        Self { stop, rows, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.rows.lock().expect("a lock").len()
    }

    fn stop(mut self) -> Vec<Row> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("it wrote");
        self.rows.lock().expect("a lock").clone()
    }
}

fn wait_for_rows(writer: &Writer, more: usize) {
    let (from, since) = (writer.count(), std::time::Instant::now());
    while writer.count() < from + more {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing is written any more");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every row acknowledged before the moment is there, and none that was asked for after it.
fn assert_as_of(stack: &Stack, rows: &[Row], moment: i64) {
    let found: Vec<u64> =
        stack.psql("select n from marks").lines().map(|l| l.parse().expect("a number")).collect();
    let there = |n: &u64| found.contains(n);
    let lost: Vec<&Row> = rows.iter().filter(|(n, _, acked)| *acked <= moment && !there(n)).collect();
    assert!(lost.is_empty(), "acknowledged before {moment} and lost: {lost:?}");
    let later: Vec<&Row> = rows.iter().filter(|(n, sent, _)| *sent > moment && there(n)).collect();
    assert!(later.is_empty(), "written after {moment}: {later:?}");
    let (before, all) = (rows.iter().filter(|(.., acked)| *acked <= moment).count(), rows.len());
    assert!(before > 0 && before < all, "the moment lies within what was written: {before} of {all}");
}

/// The test archives when it wants to; the keeper once, when it starts.
const BY_HAND: &str = "wal: { every: 24h }";

/// `archiving` is what is said of the logs under `backup`.
fn ledger(repository: &Path, archiving: &str) -> Stack {
    let stack = Stack::compose(Example::Ledger);
    stack.edit("switchback.yaml", "start: 120s", "start: 300s");
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let backup = format!("backup: {{ repository: \"{}\", {archiving} }}", repository.display());
    fs::write(&path, format!("{text}\n{backup}\n")).expect("writes");
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack.run(&["backup", "init"]).expect(0);
    stack
}

fn restore(repository: &Path, key: &Path, into: &Path, at: &str) -> (bool, String) {
    let output = Command::new(common::PROGRAM)
        .args(["restore", "--from"])
        .arg(repository)
        .arg("--key-file")
        .arg(key)
        .arg("--into")
        .arg(into)
        .args(["--at", at])
        .output()
        .expect("runs");
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The windows that can be returned to.
fn windows(stack: &Stack) -> Vec<(i64, i64)> {
    let all = stack.run(&["backup", "list", "--moments", "--json"]).expect(0).json();
    let of = |w: &serde_json::Value, k: &str| w[k].as_i64().expect("a time");
    all.as_array().expect("a list").iter().map(|w| (of(w, "from_ms"), of(w, "until_ms"))).collect()
}

fn copied_key(stack: &Stack, beside: &Path) -> PathBuf {
    let key = beside.join("key");
    fs::copy(stack.root.join(".switchback/backup.key"), &key).expect("copies");
    key
}

#[test]
fn the_moment_before_the_damage_comes_back_on_a_bare_machine() {
    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    let stack = ledger(&repository, BY_HAND);
    let writer = Writer::start(&stack);
    wait_for_rows(&writer, 5);
    let made = stack.run(&["backup", "--json"]).expect(0).json();
    assert!(made["backup"]["snapshot"]["bases"]["db"]["redo"].as_u64().is_some(), "{made}");
    wait_for_rows(&writer, 3);
    stack.run(&["backup", "wal"]).expect(0);
    // Killed between the server and the repository, and after it: nothing is lost, and nothing is in the way.
    for point in ["do:wal-marked:during", "do:wal-archived:during", "do:wal-recorded:during"] {
        wait_for_rows(&writer, 2);
        let ran = stack.run_with(&["backup", "wal"], &[("SWITCHBACK_FAULT", point)]);
        assert_eq!(ran.code, None, "killed at {point}: {}", ran.all());
        wait_for_rows(&writer, 2);
        stack.run(&["backup", "wal"]).expect(0);
    }
    wait_for_rows(&writer, 5);
    let moment = now_ms();
    wait_for_rows(&writer, 5);
    // Not archived yet: the moment is refused, and what is covered is told.
    let early = stack.run(&["restore", "--at", &utc(moment), "--yes"]).expect(3);
    assert!(
        early.all().contains("cannot be returned to") && early.all().contains("covered: "),
        "{}",
        early.all()
    );
    let rows = writer.stop();
    stack.psql("drop table marks");
    stack.run(&["backup", "wal"]).expect(0);
    let covered = windows(&stack);
    assert_eq!(covered.len(), 1, "one window without a gap: {covered:?}");
    assert!((covered[0].0..covered[0].1).contains(&moment), "{moment} in {covered:?}");
    let list = stack.run(&["backup", "list"]).expect(0);
    assert!(list.stdout.contains("any moment of db"), "{}", list.all());
    // What production keeps is bounded, and released.
    let kept = stack.psql("select pg_current_wal_lsn() - restart_lsn < 40000000, current_setting('max_slot_wal_keep_size') from pg_replication_slots where slot_name = 'switchback_wal'");
    assert_eq!(kept, "t|4GB");
    let drill = stack.run(&["drill", "restore"]).expect(0);
    assert!(
        drill.all().contains("equal to what was read") && drill.all().contains("db: as of"),
        "{}",
        drill.all()
    );
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    a_missing_stretch_is_named(&stack, &repository, &utc(moment));
    let key = copied_key(&stack, beside.path());
    burn_down(&stack);
    let (done, told) = restore(&repository, &key, &stack.root, &utc(moment));
    assert!(done, "{told}");
    assert!(
        told.contains("db: as of") && told.contains("as of the backup") && told.contains("books"),
        "{told}"
    );
    stack.run(&["up", "--yes"]).expect(0);
    assert_as_of(&stack, &rows, moment);
    // It goes on: what the restored server writes is a chain of its own.
    stack.run(&["backup"]).expect(0);
    stack.run(&["backup", "wal"]).expect(0);
    let after = windows(&stack);
    assert_eq!(after.len(), 2, "{after:?}");
    fs::remove_file(stack.root.join(".switchback/backup.key")).expect("the restored stack has its key");
    assert_no_secret_is_told(&stack, &[common::docker::DB_PASSWORD]);
}

/// With any snapshot of the repository gone, the way is refused for a reason, or another snapshot has the same.
fn a_missing_stretch_is_named(stack: &Stack, repository: &Path, at: &str) {
    let mut told = String::new();
    for entry in fs::read_dir(repository.join("snapshots")).expect("lists").flatten() {
        let away = repository.with_file_name("away");
        fs::rename(entry.path(), &away).expect("moves");
        let ran = stack.run(&["restore", "--at", at, "--dry-run"]);
        fs::rename(&away, entry.path()).expect("moves");
        told.push_str(&ran.all());
    }
    assert!(told.contains("is missing in the repository") && told.contains("segment 0000"), "{told}");
    stack.run(&["restore", "--at", at, "--dry-run"]).expect(0);
}

/// Those of some rows that are there.
fn alone_in(there: &str, rows: &[Row]) -> Vec<u64> {
    let there: Vec<u64> = there.lines().map(|l| l.parse().expect("a number")).collect();
    rows.iter().map(|(n, ..)| *n).filter(|n| there.contains(n)).collect()
}

/// A stack of nothing but a server, of which there are two versions.
struct Alone {
    stack: Stack,
    image: String,
}

impl Alone {
    fn new(repository: &Path) -> Self {
        let stack = Stack::compose(Example::Ledger);
        let image = format!("{}-db", stack.project);
        for tag in ["1", "2"] {
            let mut build = Command::new("docker")
                .args(["build", "-q", "-t", &format!("{image}:{tag}"), "-"])
                .env("DOCKER_BUILDKIT", "0")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("docker is installed");
            let recipe = format!("FROM sbt/postgres:15\nLABEL of.the.test={tag}\n");
            build.stdin.take().expect("an input").write_all(recipe.as_bytes()).expect("writes");
            assert!(build.wait().expect("ends").success());
        }
        let text = fs::read_to_string(stack.root.join("compose.yaml")).expect("reads");
        let (before, from) = text.split_once("\n  bank:").expect("a service");
        let volumes = from
            .split_once("\nvolumes:")
            .expect("volumes")
            .1
            .replace("  books:\n", "")
            .replace("  receipts:", "");
        let text = format!("{before}\n\nvolumes:{volumes}")
            .replace("${DB_IMAGE:-postgres:15}", "${DB_NAME}:${DB_TAG}");
        fs::write(stack.root.join("compose.yaml"), text).expect("writes");
        stack.set("DB_NAME", &image);
        stack.set("DB_TAG", "1");
        fs::remove_dir_all(stack.root.join("checks")).expect("removes");
        let config = format!(
            "stack: alone\nruntime: compose\ncompose: {{ files: [compose.yaml] }}\nservices: {{ db: {{}} }}\nstores:\n  db: {{ kind: postgres, service: db }}\nrollback: {{ watch: 1h, every: 1s }}\nbackup: {{ repository: \"{}\", wal: {{ every: 24h }} }}\n",
            repository.display()
        );
        fs::write(stack.root.join("switchback.yaml"), config).expect("writes");
        stack.up();
        stack.run(&["up", "--yes"]).expect(0);
        stack.run(&["backup", "init"]).expect(0);
        Self { stack, image }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Its containers go before its images; the stack itself removes what is left.
        let label = format!("label=com.docker.compose.project={}", self.stack.project);
        let all = docker(&["ps", "-aq", "--filter", &label]).stdout;
        for id in all.lines() {
            docker(&["rm", "-f", id]);
        }
        for tag in ["1", "2"] {
            docker(&["image", "rm", &format!("{}:{tag}", self.image)]);
        }
    }
}

/// Generation 1, promoted to 2, rolled back to 1: each moment comes back from the history that was production then.
#[test]
fn moments_before_and_after_a_promotion_and_a_rollback_come_back() {
    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    let alone = Alone::new(&repository);
    let stack = &alone.stack;
    let writer = Writer::start(stack);
    wait_for_rows(&writer, 5);
    stack.run(&["backup"]).expect(0);
    let remember = |writer: &Writer| {
        wait_for_rows(writer, 4);
        let moment = now_ms();
        wait_for_rows(writer, 4);
        moment
    };
    let goes_on = || {
        let shipped = stack.run(&["backup", "wal", "--json"]).expect(0).json();
        assert!(shipped["db"]["note"].is_null() && shipped["db"]["needs_backup"] == false, "{shipped}");
    };
    goes_on();
    // What is written from here to the promotion is archived by the next generation.
    let tail = remember(&writer);
    stack.set("DB_TAG", "2");
    stack.run(&[&["promote", "--yes", "--detach"], &WAIVED[..]].concat()).expect(0);
    let promoted = remember(&writer);
    goes_on();
    let leaving = now_ms();
    stack.run(&["rollback", "--yes"]).expect(0);
    let returned = now_ms();
    goes_on();
    let back = remember(&writer);
    goes_on();
    let rows = writer.stop();
    let covered = windows(stack);
    for moment in [tail, promoted, back] {
        assert!(
            covered.iter().any(|(from, until)| (*from..*until).contains(&moment)),
            "{moment} in {covered:?}"
        );
    }
    // What was written while the other generation was production is not in the one that was returned to.
    let stayed: Vec<Row> =
        rows.iter().filter(|(_, sent, _)| *sent < tail || *sent > returned).copied().collect();
    let during: Vec<Row> =
        rows.iter().filter(|(_, sent, acked)| *sent > promoted && *acked < leaving).copied().collect();
    assert!(!during.is_empty());
    for (moment, rows) in [(tail, &rows), (promoted, &rows), (back, &stayed)] {
        stack.run(&["restore", "--at", &utc(moment), "--yes", "--detach"]).expect(0);
        assert_as_of(stack, rows, moment);
        if moment == back {
            let there = stack.psql("select n from marks");
            let left = alone_in(&there, &during);
            assert!(left.is_empty(), "of the generation that was left: {left:?}");
        }
        stack.run(&["rollback", "--yes"]).expect(0);
    }
}

/// By the clock: a chain that breaks is told, and a new one begins with a backup; a repository that is away is told, and that it is back.
/// About six minutes: nobody is alarmed before five.
#[test]
fn a_log_that_cannot_be_archived_is_told_and_so_is_that_it_can_again() {
    let beside = tempfile::tempdir().expect("tempdir");
    let repository = beside.path().join("repository");
    let stack = ledger(&repository, "wal: { every: 5s }");
    let heard = Heard::default();
    let hook = format!("http://127.0.0.1:{}/hook", heard.serve(http));
    stack.edit("switchback.yaml", "backup: {", &format!("notify: [\"{hook}\"]\nbackup: {{"));
    let told = |event: &str| {
        let all =
            heard.all().into_iter().map(|b| serde_json::from_str::<serde_json::Value>(&b).expect("JSON"));
        all.filter(|v| v["message"]["event"] == event).count()
    };
    let backups = || stack.run(&["backup", "list", "--json"]).expect(0).json().as_array().map_or(0, Vec::len);
    let archived = || windows(&stack).last().map_or(0, |(_, until)| *until);
    stack.run(&["backup"]).expect(0);
    let long = Duration::from_secs(120);
    stack.wait_until("it is archived by the clock", long, || {
        stack.psql("create table if not exists marks (n bigint primary key); insert into marks select coalesce(max(n), 0) + 1 from marks");
        archived() > 0
    });
    let before = backups();

    // Somebody removes what has the server keep its log; its connection may hold it for a moment.
    stack.wait_until("the slot is gone", long, || {
        let drop = "select slot_name, pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'switchback_wal' and not active";
        !stack.psql(drop).is_empty()
    });
    stack.wait_until("it is told that the chain broke", long, || told("wal_broken") > 0);
    stack.wait_until("a backup, from which it goes on", long, || backups() > before);
    let newest = now_ms();
    stack.wait_until("it is archived again", long, || {
        stack.psql("insert into marks select max(n) + 1 from marks");
        archived() > newest
    });

    let away = beside.path().join("away");
    fs::rename(&repository, &away).expect("moves");
    stack.wait_until("it is told that it is late", Duration::from_secs(480), || told("wal_late") > 0);
    assert_eq!(told("wal_well"), 0);
    fs::rename(&away, &repository).expect("moves");
    stack.wait_until("it is told that it is well", long, || told("wal_well") > 0);
    assert_eq!((told("wal_broken"), told("wal_late")), (1, 1));
    assert!(!heard.all().concat().contains(common::docker::DB_PASSWORD));
}
