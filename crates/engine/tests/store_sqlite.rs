//! The SQLite store against real databases: running writers, leftovers, damage, hostile names.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use switchback_core::data::{PartChange, StoreKind::Sqlite};
use switchback_engine::store::{self, Progress, Source, StoreError};

const ACCOUNTS: i64 = 2000;

fn none() -> Progress<'static> {
    Progress::none()
}

fn make(path: &Path, sql: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

/// Names and contents of all files in a folder.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (blake3::Hash, std::time::SystemTime)> {
    fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .map(|p| {
            (p.clone(), (blake3::hash(&fs::read(&p).unwrap()), p.metadata().unwrap().modified().unwrap()))
        })
        .collect()
}

/// Runs in a process of its own, as real writers do: locks are per process.
#[test]
#[ignore = "a helper started by the clone tests"]
fn accounting_writer() {
    let Some(path) = std::env::var_os("SB_ACCOUNTS").map(PathBuf::from) else { return };
    let stop = path.with_extension("stop");
    std::thread::scope(|scope| {
        for thread in 0..2i64 {
            let (path, stop) = (&path, &stop);
            scope.spawn(move || {
                let conn = Connection::open(path).unwrap();
                conn.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
                conn.execute_batch("PRAGMA synchronous=OFF").unwrap();
                let mut n = 0;
                while !stop.exists() {
                    n += 1;
                    let (a, b) = ((n * 7 + thread) % ACCOUNTS, (n * 13 + 5) % ACCOUNTS);
                    conn.execute_batch(&format!(
                        "BEGIN IMMEDIATE; UPDATE account SET balance=balance-{n} WHERE id={a};
                         UPDATE account SET balance=balance+{n} WHERE id={b};
                         INSERT INTO transfer(a,b,n,pad) VALUES({a},{b},{n},randomblob(40)); COMMIT;"
                    ))
                    .unwrap();
                    if n == 20 {
                        fs::write(path.with_extension(format!("up{thread}")), "").unwrap();
                    }
                }
            });
        }
    });
}

struct Writers(Child, PathBuf);

impl Writers {
    fn start(path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "accounting_writer"])
            .env("SB_ACCOUNTS", path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !(path.with_extension("up0").exists() && path.with_extension("up1").exists()) {
            assert!(std::time::Instant::now() < deadline, "the writers did not start");
            std::thread::yield_now();
        }
        Self(child, path.with_extension("stop"))
    }

    fn stop(mut self) {
        fs::write(&self.1, "").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end; after a failed assertion there is.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn accounting_under_clone(dir: &Path, mode: &str) {
    let path = dir.join("bank.db");
    let conn = make(
        &path,
        &format!(
            "PRAGMA journal_mode={mode};
             CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT);
             CREATE TABLE transfer(a,b,n,pad);
             WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<{ACCOUNTS}-1)
             INSERT INTO account SELECT i,1000 FROM c;
             WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<8000)
             INSERT INTO transfer SELECT 0,0,0,randomblob(900) FROM c;"
        ),
    );
    drop(conn);
    let writers = Writers::start(&path);
    let (mut waited, mut shared, mut seen) = (0, 0, 0);
    for i in 0..20 {
        let dst = dir.join(format!("copy{i}.db"));
        let stats = store::clone_live(Sqlite, &path, &dst, &none()).unwrap();
        (waited, shared) = (stats.writers_waited_ms.max(waited), shared + stats.reflinked);
        assert!(
            !dir.join(format!("copy{i}.db-wal")).exists() && !dir.join(format!("copy{i}.db-shm")).exists()
        );
        let hash = || blake3::hash(&fs::read(&dst).unwrap());
        let before = hash();
        assert_eq!(store::integrity(Sqlite, Source::cold(&dst, dir)).unwrap(), Vec::<String>::new());
        assert_eq!(hash(), before, "a check of a cold copy does not write");
        let copy = Connection::open(&dst).unwrap();
        let (sum, journal): (i64, String) = (
            copy.query_row("SELECT sum(balance) FROM account", [], |r| r.get(0)).unwrap(),
            copy.query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap(),
        );
        assert_eq!((sum, journal.as_str()), (ACCOUNTS * 1000, mode));
        let rows: i64 = copy.query_row("SELECT count(*) FROM transfer", [], |r| r.get(0)).unwrap();
        assert!(rows >= seen, "copies do not go back in time");
        seen = rows;
        drop(copy);
        fs::remove_file(&dst).unwrap();
    }
    // Reading a live database fixes one state too.
    store::fingerprint(Sqlite, Source::live(&path), &none()).unwrap();
    writers.stop();
    assert!(seen > 8001, "the writers wrote while the copies were made");
    assert_eq!(store::integrity(Sqlite, Source::live(&path)).unwrap(), Vec::<String>::new());
    eprintln!("{mode}: 20 copies, {shared} shared, writers waited at most {waited} ms");
}

#[test]
fn a_live_wal_clone_keeps_the_sum() {
    accounting_under_clone(tempfile::tempdir().unwrap().path(), "wal");
}

#[test]
fn a_live_rollback_clone_keeps_the_sum() {
    accounting_under_clone(tempfile::tempdir().unwrap().path(), "delete");
}

#[test]
fn a_live_clone_by_reflink_keeps_the_sum() {
    let Some(base) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR names no folder on XFS or btrfs");
        return;
    };
    for mode in ["wal", "delete"] {
        let dir = tempfile::tempdir_in(&base).unwrap();
        accounting_under_clone(dir.path(), mode);
        let path = dir.path().join("bank.db");
        let stats = store::clone_live(Sqlite, &path, &dir.path().join("last.db"), &none()).unwrap();
        assert_eq!((stats.reflinked, stats.bytes_written), (1, 0));
    }
}

/// A database whose new schema and rows are only in the `-wal`, as after kill -9.
fn with_wal(dir: &Path) -> PathBuf {
    let live = dir.join("live");
    fs::create_dir(&live).unwrap();
    let conn =
        make(&live.join("a.db"), "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1);");
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint=0;").unwrap();
    conn.execute_batch(
        "ALTER TABLE t ADD COLUMN b DEFAULT 'x'; INSERT INTO t VALUES(2,'y'); PRAGMA user_version=9",
    )
    .unwrap();
    let cold = dir.join("cold");
    fs::create_dir(&cold).unwrap();
    for name in ["a.db", "a.db-wal"] {
        fs::copy(live.join(name), cold.join(name)).unwrap();
    }
    cold.join("a.db")
}

#[test]
fn a_wal_left_behind_is_part_of_the_copy_and_the_source_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let src = with_wal(dir.path());
    let before = snapshot(src.parent().unwrap());
    let dst = dir.path().join("copy.db");
    store::clone_cold(Sqlite, &src, &dst, &none()).unwrap();
    let print = store::fingerprint(Sqlite, Source::cold(&src, dir.path()), &none()).unwrap();
    let diff =
        store::diff(Sqlite, Source::cold(&src, dir.path()), Source::cold(&dst, dir.path()), &none()).unwrap();
    assert!(diff.is_empty(), "{diff:?}");
    assert!(store::integrity(Sqlite, Source::cold(&src, dir.path())).unwrap().is_empty());
    assert_eq!(snapshot(src.parent().unwrap()), before);
    let copied = store::fingerprint(Sqlite, Source::cold(&dst, dir.path()), &none()).unwrap();
    assert_eq!((print.digest, print.items), (copied.digest, 2));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no -wal, no -shm, no scratch left");
    let conn = Connection::open(&dst).unwrap();
    assert_eq!(conn.query_row("SELECT b FROM t WHERE a=2", [], |r| r.get::<_, String>(0)).unwrap(), "y");
    assert_eq!(conn.query_row("PRAGMA journal_mode", [], |r| r.get::<_, String>(0)).unwrap(), "wal");
    drop(conn);
    // A leftover -wal beside a free name would be replayed into the copy.
    fs::write(dir.path().join("new.db-wal"), "x").unwrap();
    let refused = store::clone_cold(Sqlite, &src, &dir.path().join("new.db"), &none());
    assert!(matches!(refused, Err(StoreError::DstExists { .. })), "{refused:?}");
}

#[test]
fn a_hot_journal_is_rolled_back_in_the_copy_only() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("a.db");
    let conn =
        make(&live, "CREATE TABLE t(a); INSERT INTO t SELECT zeroblob(2000) FROM pragma_function_list;");
    conn.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=1; BEGIN; UPDATE t SET a=randomblob(2000);")
        .unwrap();
    let cold = dir.path().join("cold");
    fs::create_dir(&cold).unwrap();
    fs::copy(&live, cold.join("a.db")).unwrap();
    fs::copy(dir.path().join("a.db-journal"), cold.join("a.db-journal")).unwrap();
    conn.execute_batch("ROLLBACK").unwrap();
    drop(conn);
    let before = snapshot(&cold);
    let src = cold.join("a.db");
    assert_ne!(fs::read(&src).unwrap(), fs::read(&live).unwrap(), "half of the update is in the main file");
    store::clone_cold(Sqlite, &src, &dir.path().join("copy.db"), &none()).unwrap();
    let print = |p: &Path| store::fingerprint(Sqlite, Source::cold(p, dir.path()), &none()).unwrap().digest;
    assert_eq!(print(&live), print(&dir.path().join("copy.db")));
    assert_eq!(print(&live), print(&src));
    assert_eq!(snapshot(&cold), before);
}

#[test]
fn damage_is_told_and_never_copied() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.db");
    make(
        &good,
        "CREATE TABLE t(a PRIMARY KEY, b); INSERT INTO t SELECT hex(randomblob(20)), randomblob(900) FROM pragma_function_list;",
    );
    let bytes = fs::read(&good).unwrap();
    let len = bytes.len() as u64;
    type Break<'a> = &'a dyn Fn(&fs::File);
    let cases: [(&str, Break<'_>); 4] = [
        ("torn header", &|f| f.set_len(50).unwrap()),
        ("wrong magic", &|f| f.write_all_at(b"PGDMP", 0).unwrap()),
        ("truncated", &|f| f.set_len(len - 8192).unwrap()),
        ("page overwritten", &|f| f.write_all_at(&[0xAA; 4096], len / 4096 / 2 * 4096).unwrap()),
    ];
    for (name, break_it) in cases {
        for live in [false, true] {
            let bad = dir.path().join("bad.db");
            fs::write(&bad, &bytes).unwrap();
            break_it(&fs::File::options().write(true).open(&bad).unwrap());
            let dst = dir.path().join("copy.db");
            let clone = if live { store::clone_live } else { store::clone_cold };
            let result = clone(Sqlite, &bad, &dst, &none());
            assert!(matches!(result, Err(StoreError::Damaged { .. })), "{name}, live {live}: {result:?}");
            assert!(!dst.exists());
            assert!(!store::integrity(Sqlite, Source::cold(&bad, dir.path())).unwrap().is_empty(), "{name}");
        }
    }
    let missing = store::clone_live(Sqlite, &dir.path().join("nothing"), &dir.path().join("x"), &none());
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
}

#[test]
fn the_fingerprint_sees_content_not_layout() {
    let dir = tempfile::tempdir().unwrap();
    let schema = "CREATE TABLE t(a, b REAL); CREATE INDEX i ON t(a); CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
        CREATE VIRTUAL TABLE words USING fts5(w); INSERT INTO words VALUES('hello'); INSERT INTO auto(v) VALUES(1);";
    let (a, b) = (dir.path().join("a.db"), dir.path().join("b.db"));
    let conn = make(&a, schema);
    conn.execute_batch("INSERT INTO t VALUES(1,2),(NULL,0.5),('x',1),('x',1),(x'00',-1); DELETE FROM t WHERE a=1; INSERT INTO t VALUES(1,2); ANALYZE;").unwrap();
    drop(conn);
    let conn = make(&b, schema);
    conn.execute_batch("INSERT INTO t VALUES('x',1),(x'00',-1),('x',1),(1,2),(NULL,0.5);").unwrap();
    let print = |p: &Path| store::fingerprint(Sqlite, Source::cold(p, dir.path()), &none()).unwrap();
    let (pa, pb) = (print(&a), print(&b));
    assert_eq!((&pa.digest, &pa.parts), (&pb.digest, &pb.parts));
    assert!(pa.parts.contains_key("words_content") && pa.parts.contains_key("sqlite_sequence"));
    assert!(!pa.parts.contains_key("words") && !pa.parts.contains_key("sqlite_stat1"));
    make(&a, "VACUUM");
    assert_eq!(print(&a).digest, pb.digest);
    for change in [
        "DELETE FROM t WHERE rowid=(SELECT min(rowid) FROM t WHERE a='x')",
        "UPDATE t SET a=1.0 WHERE a=1",
        "PRAGMA user_version=2",
        "DROP INDEX i",
    ] {
        conn.execute_batch(change).unwrap();
        assert_ne!(print(&b).digest, pb.digest, "{change}");
    }
}

#[test]
fn a_diff_tells_schema_rows_and_orphans() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.db"), dir.path().join("b;'\"%.db"));
    let odd = "we\"ird; DROP TABLE x--\n";
    let setup = format!(
        "CREATE TABLE user(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE);
         CREATE TABLE note(id INTEGER PRIMARY KEY, user_id REFERENCES user(id), body TEXT NOT NULL DEFAULT '');
         CREATE TABLE gone(a); INSERT INTO gone VALUES(1),(2);
         CREATE TABLE nokey(a, b); INSERT INTO nokey VALUES(1,1),(1,1),(2,2);
         CREATE TABLE wr(k TEXT, l INT, v, PRIMARY KEY(l,k)) WITHOUT ROWID; INSERT INTO wr VALUES('a',1,1),('b',1,2),('a',2,3);
         CREATE TABLE nullkey(k TEXT PRIMARY KEY, v); INSERT INTO nullkey VALUES(NULL,1),(NULL,1),('a',1);
         CREATE TABLE {0}(\"co\"\"l\" PRIMARY KEY); INSERT INTO {0} VALUES('x'),(X'00');
         INSERT INTO user VALUES(1,'Ann'),(2,'Bob'),(9223372036854775807,'max');
         INSERT INTO note VALUES(1,1,'a'),(2,2,'b'),(3,2,'c');",
        format_args!("\"{}\"", odd.replace('"', "\"\""))
    );
    make(&a, &setup);
    make(
        &b,
        &format!(
            "{setup} PRAGMA foreign_keys=OFF; DELETE FROM user WHERE id=2; UPDATE user SET name='ANN' WHERE id=1;
             ALTER TABLE note ADD COLUMN mood TEXT DEFAULT 'fine'; DROP TABLE gone; CREATE TABLE fresh(x); INSERT INTO fresh VALUES(1);
             DELETE FROM nokey WHERE rowid=1; UPDATE wr SET v='3' WHERE l=2; DELETE FROM nullkey WHERE rowid=1;
             UPDATE nullkey SET v=NULL WHERE k='a'; CREATE INDEX ix ON note(body);"
        ),
    );
    let diff = store::diff(Sqlite, Source::cold(&a, dir.path()), Source::live(&b), &none()).unwrap();
    let counts: Vec<_> = diff
        .parts
        .iter()
        .map(|p| {
            format!(
                "{} {:?} {}->{} +{} -{} ~{}",
                p.name.escape_debug(),
                p.change,
                p.before,
                p.after,
                p.rows_added,
                p.rows_removed,
                p.rows_changed
            )
        })
        .collect();
    assert_eq!(
        counts,
        [
            "fresh Added 0->1 +1 -0 ~0",
            "gone Dropped 2->0 +0 -2 ~0",
            "nokey Changed 3->2 +0 -1 ~0",
            "note ColumnsAdded 3->3 +0 -0 ~0",
            "nullkey Changed 3->2 +0 -1 ~1",
            "user Changed 3->2 +0 -1 ~1",
            r#"we\"ird; DROP TABLE x--\n Unchanged 2->2 +0 -0 ~0"#,
            "wr Changed 3->3 +0 -0 ~1",
        ]
    );
    assert_eq!(diff.new_orphans, ["note.user_id: 2 rows without parent in user"]);
    assert_eq!(
        diff.schema_changes,
        [
            "index ix added",
            "table fresh added",
            "table gone removed",
            "table note: column mood added (TEXT DEFAULT 'fine')"
        ]
    );
    assert_eq!((diff.unchanged, diff.lost_or_altered()), (1, 8));
    let wr = diff.parts.iter().find(|p| p.name == "wr").unwrap();
    assert_eq!(
        serde_json::to_string(&wr.examples).unwrap(),
        r#"[{"op":"update","key":{"l":2,"k":"a"},"row":{"k":"a","l":2,"v":"3"},"before":{"k":"a","l":2,"v":3}}]"#
    );
    assert!(diff.parts.iter().any(|p| p.change == PartChange::Unchanged));
}

#[test]
fn an_export_holds_every_write_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.db"), dir.path().join("b.db"));
    make(
        &a,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,1),(2,2),(3,3),(4,4);
        CREATE TABLE \"../../etc/x\"(v); CREATE TABLE old(v); INSERT INTO old VALUES(1);",
    );
    store::clone_cold(Sqlite, &a, &b, &none()).unwrap();
    make(&b, "ALTER TABLE t ADD COLUMN n INTEGER NOT NULL DEFAULT '7'; UPDATE t SET n=8 WHERE id=2; UPDATE t SET v=3.0 WHERE id=3;
        DELETE FROM t WHERE id=4; INSERT INTO t VALUES(9007199254740993, 9e999, 7),(-1, CAST(x'ff' AS TEXT), 7),(6, x'00ff', 7);
        INSERT INTO \"../../etc/x\" VALUES('q'); DROP TABLE old; CREATE TABLE new(a PRIMARY KEY, b); INSERT INTO new VALUES('k',NULL);");
    let out = dir.path().join("out");
    let stats =
        store::export(Sqlite, Source::cold(&a, dir.path()), Source::cold(&b, dir.path()), &out, &none())
            .unwrap();
    let file = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(
        file("t.jsonl"),
        r#"{"op":"insert","key":{"id":-1},"row":{"id":-1,"v":{"$text_base64":"/w=="},"n":7}}
{"op":"update","key":{"id":2},"row":{"id":2,"v":2,"n":8},"before":{"id":2,"v":2}}
{"op":"update","key":{"id":3},"row":{"id":3,"v":3.0,"n":7},"before":{"id":3,"v":3}}
{"op":"delete","key":{"id":4},"before":{"id":4,"v":4}}
{"op":"insert","key":{"id":6},"row":{"id":6,"v":{"$blob":"AP8="},"n":7}}
{"op":"insert","key":{"id":9007199254740993},"row":{"id":9007199254740993,"v":{"$real":"inf"},"n":7}}
"#
    );
    assert_eq!(
        file("new.jsonl"),
        "{\"op\":\"insert\",\"key\":{\"a\":\"k\"},\"row\":{\"a\":\"k\",\"b\":null}}\n"
    );
    assert_eq!(
        file("%2E%2E%2F%2E%2E%2Fetc%2Fx.jsonl"),
        "{\"op\":\"insert\",\"key\":{\"rowid\":1},\"row\":{\"v\":\"q\"}}\n"
    );
    assert_eq!(
        (stats.parts["t"].inserted, stats.parts["t"].updated, stats.parts["t"].deleted, stats.total()),
        (3, 2, 1, 8)
    );
    assert_eq!(stats.parts["t"].digest.as_str(), blake3::hash(file("t.jsonl").as_bytes()).to_hex().as_str());
    let manifest: serde_json::Value = serde_json::from_str(&file("manifest.json")).unwrap();
    assert_eq!(manifest["dropped_tables"], serde_json::json!(["old"]));
    let again =
        store::export(Sqlite, Source::cold(&a, dir.path()), Source::cold(&b, dir.path()), &out, &none());
    assert!(matches!(again, Err(StoreError::DstExists { .. })));
}

#[test]
fn a_crashed_run_does_not_stop_the_next_and_attributes_are_carried() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("a.db"), dir.path().join("b.db"));
    make(&src, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    fs::set_permissions(&src, fs::Permissions::from_mode(0o660)).unwrap();
    fs::create_dir(dir.path().join(".b.db.switchback-partial")).unwrap();
    fs::write(dir.path().join(".b.db.switchback-partial/db"), "half").unwrap();
    store::clone_live(Sqlite, &src, &dst, &none()).unwrap();
    assert_eq!(dst.metadata().unwrap().permissions().mode() & 0o7777, 0o660);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert!(matches!(store::clone_live(Sqlite, &src, &dst, &none()), Err(StoreError::DstExists { .. })));
    let stopped = store::clone_live(
        Sqlite,
        &src,
        &dir.path().join("c.db"),
        &Progress { cancel: &|| true, report: &|_, _| () },
    );
    assert!(matches!(stopped, Err(StoreError::Cancelled)), "{stopped:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
