//! Copies of mounts whose services run: passes, shared clones, kills, and stores through mappings.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod sync_support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use switchback_engine::store::{self, Progress, StoreError, Writers};
use sync_support::{Copy, Dice, SETTLE, clear, mutate};

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
        finish(&files, &moved);
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
fn finish(files: &[File], moved: &[u8]) {
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
        if round % 6 == 3 {
            // So that the pass that is killed skips files.
            std::thread::sleep(SETTLE);
            copy.pass(Writers::Running);
        }
        for _ in 0..if round % 6 == 3 { 10 } else { 100 } {
            mutate(&mut dice, &copy.src());
        }
        for n in 0..40 {
            if dice.roll(3) == 0 {
                let file = File::options().write(true).open(copy.src().join(format!("blob{n}"))).unwrap();
                file.write_all_at(&dice.bytes(300_000), dice.roll(1_000_000)).unwrap();
            }
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
