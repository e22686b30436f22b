//! The incremental copy and the shared clone of mounts whose services run.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use switchback_core::data::StoreKind::Files;
use switchback_engine::store::{self, Progress, Source, StoreError, SyncStats, Writers};

/// Longer than the time after which a file is settled.
const SETTLE: Duration = Duration::from_millis(5200);

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Self { dir }
    }
    fn src(&self) -> PathBuf {
        self.dir.path().join("src")
    }
    fn dst(&self) -> PathBuf {
        self.dir.path().join("dst")
    }
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
    fn try_pass(&self, writers: Writers) -> store::Result<SyncStats> {
        store::sync_pass(&self.src(), &self.dst(), &self.state(), writers, None, &Progress::none())
    }
    fn pass(&self, writers: Writers) -> SyncStats {
        self.try_pass(writers).unwrap()
    }
    fn assert_same(&self, what: &str) {
        assert_same(&self.src(), &self.dst(), what);
    }
}

/// Everything of a tree that a copy keeps: attributes, times, content, and which names are one file.
fn listing(root: &Path) -> Vec<String> {
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(|e| {
        let e = e.unwrap();
        let m = e.path().symlink_metadata().unwrap();
        let rel = e.path().strip_prefix(root).unwrap().to_owned();
        let content = if m.is_file() {
            blake3::hash(&fs::read(e.path()).unwrap()).to_hex().to_string()
        } else {
            String::new()
        };
        let xattrs: BTreeMap<_, _> = xattr::list(e.path())
            .map(|names| names.map(|n| (n.clone(), xattr::get(e.path(), &n).unwrap())).collect())
            .unwrap_or_default();
        let same =
            if m.is_file() { first.entry(m.ino()).or_insert(rel.clone()).clone() } else { rel.clone() };
        let size = if m.is_dir() { 0 } else { m.size() };
        let time = (m.mtime(), m.mtime_nsec());
        let (mode, uid, gid) = (m.mode(), m.uid(), m.gid());
        let target = fs::read_link(e.path()).ok();
        format!("{rel:?} {mode:o} {uid}:{gid} {size} {time:?} is {same:?} {target:?} {xattrs:?} {content}")
    });
    entries.collect()
}

fn assert_same(src: &Path, dst: &Path, what: &str) {
    let (expected, got) = (listing(src), listing(dst));
    for (a, b) in expected.iter().zip(&got) {
        assert_eq!(a, b, "{what}");
    }
    assert_eq!(expected.len(), got.len(), "{what}");
    let base = src.parent().unwrap();
    let print = |p: &Path| store::fingerprint(Files, Source::cold(p, base), &Progress::none()).unwrap();
    assert_eq!(print(src), print(dst), "{what}");
    let diff =
        store::diff(Files, Source::cold(src, base), Source::cold(dst, base), &Progress::none()).unwrap();
    assert!(diff.is_empty(), "{what}: {diff:?}");
}

/// A small generator: the same seed makes the same tree and the same changes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
    fn bytes(&mut self, up_to: u64) -> Vec<u8> {
        let fill = u8::try_from(self.roll(255)).unwrap() + 1;
        let mut bytes = vec![fill; usize::try_from(self.roll(up_to)).unwrap()];
        for byte in bytes.iter_mut().step_by(997) {
            *byte = u8::try_from(self.roll(256)).unwrap();
        }
        bytes
    }
    /// A name in one of a few folders, so that names collide.
    fn name(&mut self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        for _ in 0..self.roll(3) {
            path.push(format!("d{}", self.roll(3)));
        }
        path.push(if self.roll(5) == 0 {
            format!("d{}", self.roll(3))
        } else {
            format!("f{}", self.roll(8))
        });
        path
    }
}

fn clear(path: &Path) {
    match path.symlink_metadata() {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes the parent folders of a path, in the place of whatever is there.
fn parents(root: &Path, path: &Path) {
    let mut at = root.to_owned();
    for part in path.parent().unwrap().strip_prefix(root).unwrap() {
        at.push(part);
        if !at.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            clear(&at);
            fs::create_dir(&at).unwrap();
        }
    }
}

/// One random change.
fn mutate(dice: &mut Dice, root: &Path) {
    let path = dice.name(root);
    parents(root, &path);
    let is_file = path.symlink_metadata().is_ok_and(|m| m.is_file());
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    match dice.roll(16) {
        0..=3 => {
            clear(&path);
            fs::write(&path, dice.bytes(300_000)).unwrap();
        }
        4 if is_file => {
            let at = dice.roll(400_000);
            open().write_all_at(&dice.bytes(50_000), at).unwrap();
        }
        5 if is_file => open().set_len(dice.roll(200_000)).unwrap(),
        6 if is_file => {
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(&dice.bytes(100_000)).unwrap();
        }
        7 => {
            clear(&path);
            let file = File::create(&path).unwrap();
            file.write_all_at(&dice.bytes(5000), dice.roll(3_000_000)).unwrap();
            file.set_len(4_000_000).unwrap();
        }
        8 if is_file => {
            let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(open(), hole, dice.roll(100) * 4096, 65536).unwrap();
        }
        9 => {
            clear(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("inside"), dice.bytes(5000)).unwrap();
        }
        10 => {
            clear(&path);
            symlink(format!("target {}", dice.roll(5)), &path).unwrap();
        }
        11 => clear(&path),
        12 | 13 => {
            let to = dice.name(root);
            if !to.starts_with(&path) && !path.starts_with(&to) && path.symlink_metadata().is_ok() {
                parents(root, &to);
                if path.symlink_metadata().is_ok() {
                    clear(&to);
                    if is_file && dice.roll(2) == 0 {
                        fs::hard_link(&path, &to).unwrap();
                    } else {
                        fs::rename(&path, &to).unwrap();
                    }
                }
            }
        }
        14 if path.exists() => {
            let mode = [0o600, 0o644, 0o4755, 0o700, 0o555][usize::try_from(dice.roll(5)).unwrap()];
            let mode = if path.is_dir() { mode | 0o700 } else { mode };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if is_root() {
                let owner = u32::try_from(dice.roll(3)).unwrap();
                std::os::unix::fs::lchown(&path, Some(owner), Some(owner + 1)).unwrap();
            }
        }
        15 if path.exists() => {
            let name = format!("user.{}", dice.roll(2));
            if dice.roll(3) == 0 {
                let _ = xattr::remove(&path, name);
            } else {
                let _ = xattr::set(&path, name, &dice.bytes(200));
            }
        }
        _ => {}
    }
}

#[test]
fn passes_over_a_random_tree_with_random_changes_end_on_the_same_tree() {
    let one = |seed: u64| {
        let copy = Copy::new();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..60 {
            mutate(&mut dice, &copy.src());
        }
        for round in 0..4 {
            if round != 2 {
                std::thread::sleep(SETTLE);
            }
            // Once while the tree is changing, then exactly.
            let changes = dice.roll(30);
            std::thread::scope(|scope| {
                let root = copy.src();
                let dice = &mut dice;
                scope.spawn(move || (0..changes).for_each(|_| mutate(dice, &root)));
                copy.pass(Writers::Running);
            });
            if round % 2 == 1 {
                std::thread::sleep(SETTLE);
                copy.pass(Writers::Running);
            }
            for _ in 0..dice.roll(20) {
                mutate(&mut dice, &copy.src());
            }
            copy.pass(Writers::Stopped);
            copy.assert_same(&format!("seed {seed}, round {round}"));
        }
        // Nothing changed: nothing is read, and the copy stays the same.
        std::thread::sleep(SETTLE);
        copy.pass(Writers::Running);
        let idle = copy.pass(Writers::Stopped);
        assert_eq!((idle.read, idle.written, idle.files_copied, idle.removed), (0, 0, 0, 0), "seed {seed}");
        copy.assert_same(&format!("seed {seed}, idle"));
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..=24).map(|seed| scope.spawn(move || one(seed))).collect();
        all.into_iter().for_each(|case| case.join().unwrap());
    });
}

#[test]
fn only_pages_that_differ_are_written_and_unchanged_files_are_not_read() {
    let copy = Copy::new();
    let big = copy.src().join("big");
    fs::write(&big, vec![1; 32 << 20]).unwrap();
    fs::write(copy.src().join("other"), vec![2; 8 << 20]).unwrap();
    std::thread::sleep(SETTLE);
    let first = copy.pass(Writers::Running);
    assert_eq!((first.bytes, first.read, first.files, first.files_copied), (40 << 20, 40 << 20, 2, 2));
    let file = File::options().write(true).open(&big).unwrap();
    file.write_all_at(b"changed", 12_345_678).unwrap();
    let second = copy.pass(Writers::Stopped);
    assert_eq!((second.read, second.written, second.files_copied), (32 << 20, 4096, 1), "{second:?}");
    copy.assert_same("after a change of one page");
}

/// Only a running process can store through a mapping without unsafe code here: Python does.
fn python(code: &str, arg: &Path) -> Child {
    Command::new("python3")
        .args(["-c", code])
        .arg(arg)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a line and waits for the answer.
fn ask(child: &mut Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
    let mut answer = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut answer).unwrap();
}

#[test]
fn a_store_through_a_mapping_is_seen_by_the_next_pass() {
    let one = |base: PathBuf| {
        let dir = tempfile::tempdir_in(base).unwrap();
        let copy = Copy { dir };
        fs::create_dir(copy.src()).unwrap();
        let file = copy.src().join("mapped");
        fs::write(&file, vec![0; 1 << 20]).unwrap();
        let code = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\n\
                    for line in sys.stdin:\n m[70000]=int(line)\n print('k',flush=True)\n";
        let mut child = python(code, &file);
        // The page is dirty from here on, and stores to it do not move the change time.
        ask(&mut child, "1");
        let dirty = file.metadata().unwrap().ctime_nsec();
        ask(&mut child, "2");
        assert_eq!(file.metadata().unwrap().ctime_nsec(), dirty, "the trap this test is about");
        std::thread::sleep(SETTLE);
        copy.pass(Writers::Running);
        for value in 3..6 {
            ask(&mut child, &value.to_string());
            copy.pass(Writers::Stopped);
            assert_eq!(fs::read(copy.dst().join("mapped")).unwrap()[70000], value);
            std::thread::sleep(SETTLE);
            ask(&mut child, &(value + 100).to_string());
            copy.pass(Writers::Running);
            assert_eq!(fs::read(copy.dst().join("mapped")).unwrap()[70000], value + 100);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        copy.assert_same("after stores through a mapping");
    };
    let mut bases = vec![std::env::temp_dir()];
    bases.extend(std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR").map(PathBuf::from));
    // Without change times that can be relied on, everything is compared.
    bases.extend(Some(PathBuf::from("/dev/shm")).filter(|shm| shm.is_dir()));
    std::thread::scope(|scope| {
        let all: Vec<_> = bases.into_iter().map(|base| scope.spawn(move || one(base))).collect();
        all.into_iter().for_each(|case| case.join().unwrap());
    });
}

const FILES: usize = 5;
const SLOTS: u64 = 4000;
const SUM: i64 = 1_000_000;

/// The process that the accounting test starts: moves amounts between slots of several files, first
/// in a log that tells how to finish, and between rows of a SQLite database.
#[test]
#[ignore = "started by another test"]
fn accounting_process() {
    let Some(root) = std::env::var_os("SYNC_TEST_ROOT").map(PathBuf::from) else { return };
    let files: Vec<File> = (0..FILES)
        .map(|n| File::options().read(true).write(true).open(root.join(format!("slots{n}"))).unwrap())
        .collect();
    let log = File::options().write(true).open(root.join("log")).unwrap();
    let db = rusqlite::Connection::open(root.join("bank.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=50; PRAGMA synchronous=normal")
        .unwrap();
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let mut out = std::io::stdout();
    for round in 0.. {
        let mut moved = [0u8; 48];
        for (n, side) in moved.chunks_exact_mut(24).enumerate() {
            let (file, slot) = (dice.roll(FILES as u64), dice.roll(SLOTS));
            let mut value = [0; 8];
            files[usize::try_from(file).unwrap()].read_exact_at(&mut value, slot * 512).unwrap();
            side[..8].copy_from_slice(&file.to_le_bytes());
            side[8..16].copy_from_slice(&slot.to_le_bytes());
            let amount = if n == 0 { -7 } else { 7 };
            side[16..].copy_from_slice(&(i64::from_le_bytes(value) + amount).to_le_bytes());
        }
        if moved[..16] == moved[24..40] {
            continue;
        }
        log.write_all_at(&moved, 0).unwrap();
        finish(&root, &files, &moved);
        let (from, to) = (dice.roll(100), dice.roll(100));
        db.execute_batch(&format!(
            "BEGIN; UPDATE account SET amount=amount-1 WHERE id={from};
             UPDATE account SET amount=amount+1 WHERE id={to};
             INSERT INTO move(what) VALUES('{from} to {to}'); COMMIT"
        ))
        .unwrap();
        if round % 50 == 0 {
            let temp = root.join("upload.tmp");
            fs::write(&temp, dice.bytes(50_000)).unwrap();
            fs::rename(&temp, root.join(format!("upload{}", dice.roll(20)))).unwrap();
        }
        if round == 0 {
            writeln!(out, "begun").unwrap();
        }
    }
}

/// Carries out what the log says; again is the same.
fn finish(_: &Path, files: &[File], moved: &[u8]) {
    for side in moved.chunks_exact(24) {
        let number = |at: usize| u64::from_le_bytes(side[at..at + 8].try_into().unwrap());
        files[usize::try_from(number(0)).unwrap()].write_all_at(&side[16..], number(8) * 512).unwrap();
    }
}

/// What the files hold after the log was carried out, as the service would do when it starts.
fn balance(root: &Path) -> i64 {
    let mut slots: Vec<Vec<u8>> =
        (0..FILES).map(|n| fs::read(root.join(format!("slots{n}"))).unwrap()).collect();
    for side in fs::read(root.join("log")).unwrap().chunks_exact(24) {
        let number =
            |at: usize| usize::try_from(u64::from_le_bytes(side[at..at + 8].try_into().unwrap())).unwrap();
        slots[number(0)][number(8) * 512..][..8].copy_from_slice(&side[16..]);
    }
    let value = |slot: &[u8]| i64::from_le_bytes(slot[..8].try_into().unwrap());
    slots.iter().flat_map(|file| file.chunks_exact(512)).map(value).sum()
}

/// The rows of a copy of a database, which stays as it is.
fn bank(root: &Path) -> (i64, String) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bank.db", "bank.db-wal"] {
        if root.join(name).exists() {
            fs::copy(root.join(name), dir.path().join(name)).unwrap();
        }
    }
    let db = rusqlite::Connection::open(dir.path().join("bank.db")).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let one = |sql: &str| db.query_row(sql, [], |r| r.get::<_, String>(0)).unwrap();
    let sum = db.query_row("SELECT sum(amount) FROM account", [], |r| r.get(0)).unwrap();
    (sum, one("SELECT group_concat(amount) || '/' || (SELECT count(*) FROM move) FROM account"))
}

fn pause(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::STOP).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let stopped = tasks.into_iter().all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        });
        if stopped {
            return;
        }
        assert!(Instant::now() < deadline, "the writer does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts the accounting in `root` and waits until it moves.
fn start_accounting(root: &Path) -> Child {
    for n in 0..FILES {
        let mut slots = vec![0; usize::try_from(SLOTS * 512).unwrap()];
        if n == 0 {
            slots[..8].copy_from_slice(&SUM.to_le_bytes());
        }
        fs::write(root.join(format!("slots{n}")), slots).unwrap();
    }
    fs::write(root.join("log"), "").unwrap();
    let db = rusqlite::Connection::open(root.join("bank.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=wal;
         CREATE TABLE account(id INTEGER PRIMARY KEY, amount INT); CREATE TABLE move(what TEXT);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<99)
         INSERT INTO account SELECT i, 1000 FROM n;",
    )
    .unwrap();
    drop(db);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["accounting_process", "--exact", "--ignored", "--nocapture"])
        .env("SYNC_TEST_ROOT", root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("begun")), "the writer ended early");
    child
}

/// Stops a process of a test also when the test fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_copy_of_running_accounts_is_ever_torn() {
    let copy = Copy::new();
    let writer = Ends(start_accounting(&copy.src()));
    let mut skipped = 0;
    for round in 0..20 {
        // A new copy now and then, and passes at any distance.
        if round % 5 == 0 {
            clear(&copy.dst());
            let _ = fs::remove_file(copy.state());
        }
        for _ in 0..=round % 3 {
            copy.pass(Writers::Running);
        }
        pause(&writer.0);
        let last = copy.pass(Writers::Stopped);
        skipped += last.files - last.files_copied;
        copy.assert_same(&format!("round {round}"));
        assert_eq!(balance(&copy.dst()), SUM, "round {round}");
        let (sum, rows) = bank(&copy.dst());
        assert_eq!(sum, 100_000, "round {round}");
        assert_eq!(rows, bank(&copy.src()).1, "round {round}");
        kill_process(Pid::from_child(&writer.0), Signal::CONT).unwrap();
        if round % 10 == 9 {
            std::thread::sleep(SETTLE);
        }
    }
    eprintln!("{skipped} files were not read again in paused passes");
}

/// The process that the test of kills starts: one pass.
#[test]
#[ignore = "started by another test"]
fn pass_process() {
    let Some(root) = std::env::var_os("SYNC_TEST_ROOT").map(PathBuf::from) else { return };
    let (src, dst, state) = (root.join("src"), root.join("dst"), root.join("state"));
    store::sync_pass(&src, &dst, &state, Writers::Running, None, &Progress::none()).unwrap();
}

#[test]
fn a_pass_that_is_killed_at_any_moment_leaves_a_base_for_an_exact_one() {
    let copy = Copy::new();
    let mut dice = Dice(4711);
    for n in 0..40 {
        fs::write(copy.src().join(format!("blob{n}")), dice.bytes(2_000_000)).unwrap();
    }
    let mut killed = 0;
    for round in 0..30 {
        for _ in 0..100 {
            mutate(&mut dice, &copy.src());
        }
        for n in 0..40 {
            if dice.roll(3) == 0 {
                let file = File::options().write(true).open(copy.src().join(format!("blob{n}"))).unwrap();
                file.write_all_at(&dice.bytes(300_000), dice.roll(1_000_000)).unwrap();
            }
        }
        if round == 15 {
            std::thread::sleep(SETTLE);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["pass_process", "--exact", "--ignored"])
            .env("SYNC_TEST_ROOT", copy.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(dice.roll(120_000)));
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += u32::from(ended.is_none());
        if round % 3 == 2 {
            copy.pass(Writers::Stopped);
            copy.assert_same(&format!("round {round}"));
        }
    }
    assert!(killed >= 5, "only {killed} passes were killed before they ended");
}

#[test]
fn a_pass_over_its_budget_stops_and_the_copy_stays_a_base() {
    let copy = Copy::new();
    for n in 0..30 {
        fs::write(copy.src().join(n.to_string()), vec![7; 8 << 20]).unwrap();
    }
    let budget = Some(Duration::from_millis(20));
    let (src, dst, state) = (copy.src(), copy.dst(), copy.state());
    let early = Instant::now();
    let result = store::sync_pass(&src, &dst, &state, Writers::Stopped, budget, &Progress::none());
    assert!(matches!(result, Err(StoreError::OverBudget { .. })), "{result:?}");
    assert!(early.elapsed() < Duration::from_secs(2), "{:?}", early.elapsed());
    let stop = AtomicBool::new(true);
    let cancelled = Progress { cancel: &|| stop.load(Ordering::Relaxed), report: &|_, _| () };
    let result = store::sync_pass(&src, &dst, &state, Writers::Running, None, &cancelled);
    assert!(matches!(result, Err(StoreError::Cancelled)), "{result:?}");
    std::thread::sleep(SETTLE);
    let running = copy.pass(Writers::Running);
    assert!(running.estimate_next_ms < 2000, "{running:?}");
    let enough = Some(Duration::from_secs(60));
    let last = store::sync_pass(&src, &dst, &state, Writers::Stopped, enough, &Progress::none()).unwrap();
    assert_eq!(last.read, 0);
    copy.assert_same("after a pass over budget");
    store::make_durable(&dst).unwrap();
}

#[test]
fn a_change_while_writers_should_be_stopped_is_an_error() {
    let copy = Copy::new();
    let file = copy.src().join("file");
    fs::write(&file, vec![1; 64 << 20]).unwrap();
    let asked = AtomicU32::new(0);
    // It is asked once per folder that is listed, and then while the file is copied.
    let cancel = || {
        if asked.fetch_add(1, Ordering::Relaxed) == 3 {
            File::options().write(true).open(&file).unwrap().write_all_at(b"x", 0).unwrap();
        }
        false
    };
    let progress = Progress { cancel: &cancel, report: &|_, _| () };
    let result = store::sync_pass(&copy.src(), &copy.dst(), &copy.state(), Writers::Stopped, None, &progress);
    assert!(asked.load(Ordering::Relaxed) > 4);
    assert!(matches!(result, Err(StoreError::Changed { .. })), "{result:?}");
    copy.pass(Writers::Stopped);
    copy.assert_same("after a change");
}

#[test]
fn a_folder_that_is_no_copy_of_ours_is_never_touched() {
    let copy = Copy::new();
    fs::write(copy.src().join("a"), "a").unwrap();
    fs::create_dir(copy.dst()).unwrap();
    fs::write(copy.dst().join("precious"), "b").unwrap();
    assert!(matches!(copy.try_pass(Writers::Stopped), Err(StoreError::DstExists { .. })));
    fs::write(copy.state(), "something else").unwrap();
    assert!(matches!(copy.try_pass(Writers::Stopped), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read_dir(copy.dst()).unwrap().count(), 1);
    let (src, progress) = (copy.src(), Progress::none());
    for (dst, state) in
        [(src.join("in"), copy.state()), (copy.dst(), src.join("s")), (copy.dst(), copy.dst().join("s"))]
    {
        let result = store::sync_pass(&src, &dst, &state, Writers::Stopped, None, &progress);
        assert!(matches!(result, Err(StoreError::Nested { .. })), "{result:?}");
    }
}

#[test]
fn a_copy_that_was_removed_or_whose_record_is_damaged_is_made_again() {
    let copy = Copy::new();
    fs::create_dir(copy.src().join("d")).unwrap();
    for n in 0..20 {
        fs::write(copy.src().join(format!("d/{n}")), n.to_string()).unwrap();
    }
    std::thread::sleep(SETTLE);
    copy.pass(Writers::Running);
    // Its inode may be used again.
    clear(&copy.dst());
    fs::create_dir(copy.dst()).unwrap();
    copy.pass(Writers::Stopped);
    copy.assert_same("after the copy was removed");
    let mut bytes = fs::read(copy.state()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(copy.state(), bytes).unwrap();
    fs::write(copy.dst().join("d/extra"), "x").unwrap();
    fs::write(copy.dst().join("d/3"), "y").unwrap();
    copy.pass(Writers::Stopped);
    copy.assert_same("after the record was damaged");
}

#[test]
fn a_single_file_is_copied_in_passes_too() {
    let copy = Copy::new();
    let src = copy.src().join("file");
    let pass = || {
        store::sync_pass(&src, &copy.dst(), &copy.state(), Writers::Stopped, None, &Progress::none())
            .unwrap();
        assert_eq!(fs::read(&src).unwrap(), fs::read(copy.dst()).unwrap());
    };
    fs::write(&src, "one").unwrap();
    pass();
    fs::write(&src, "two and more").unwrap();
    pass();
    fs::remove_file(&src).unwrap();
    fs::write(&src, "new").unwrap();
    pass();
}

#[test]
fn a_tree_is_shared_or_refused_and_nothing_is_left() {
    let copy = Copy::new();
    if store::can_reflink(copy.dir.path(), copy.dir.path()) {
        eprintln!("SKIPPED the refusal: {} shares blocks", copy.dir.path().display());
    } else {
        fs::create_dir(copy.src().join("d")).unwrap();
        fs::write(copy.src().join("d/file"), "content").unwrap();
        let result = store::reflink_tree(&copy.src(), &copy.dst(), &Progress::none());
        let Err(StoreError::CannotShare { path, .. }) = &result else { panic!("{result:?}") };
        assert!(path.ends_with("d/file"), "{path:?}");
        assert_eq!(fs::read_dir(copy.dir.path()).unwrap().count(), 1, "only the source");
    }
    let Some(base) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        eprintln!("SKIPPED the sharing: SWITCHBACK_TEST_REFLINK_DIR names no folder on XFS or btrfs");
        return;
    };
    let other = store::reflink_tree(&copy.src(), &Path::new(&base).join("other"), &Progress::none());
    assert!(matches!(other, Err(StoreError::CannotShare { .. })), "{other:?}");
    let copy = Copy { dir: tempfile::tempdir_in(base).unwrap() };
    fs::create_dir(copy.src()).unwrap();
    let mut dice = Dice(99);
    for _ in 0..200 {
        mutate(&mut dice, &copy.src());
    }
    fs::write(copy.src().join("big"), vec![5; 200 << 20]).unwrap();
    store::make_durable(&copy.src()).unwrap();
    store::clear_unfinished(&copy.dst()).unwrap();
    let stats = store::reflink_tree(&copy.src(), &copy.dst(), &Progress::none()).unwrap();
    assert_eq!(stats.bytes_written, 0, "{stats:?}");
    assert!(stats.reflinked > 3 && stats.bytes > 200 << 20, "{stats:?}");
    store::make_durable(&copy.dst()).unwrap();
    copy.assert_same("shared");
    let again = store::reflink_tree(&copy.src(), &copy.dst(), &Progress::none());
    assert!(matches!(again, Err(StoreError::DstExists { .. })), "{again:?}");

    // Accounts while their writer is paused.
    let copy = Copy { dir: tempfile::tempdir_in(copy.dir.path()).unwrap() };
    fs::create_dir(copy.src()).unwrap();
    let writer = Ends(start_accounting(&copy.src()));
    for round in 0..20 {
        clear(&copy.dst());
        store::make_durable(&copy.src()).unwrap();
        pause(&writer.0);
        let stats = store::reflink_tree(&copy.src(), &copy.dst(), &Progress::none()).unwrap();
        let rows = bank(&copy.src()).1;
        kill_process(Pid::from_child(&writer.0), Signal::CONT).unwrap();
        assert_eq!((stats.bytes_written, balance(&copy.dst())), (0, SUM), "round {round}");
        assert_eq!(bank(&copy.dst()), (100_000, rows), "round {round}");
    }
}
