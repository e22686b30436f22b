//! Copies that others write to between two rounds of passes: whatever happened on either side, they end as the source.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod sync_support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use switchback_engine::store::{self, Progress, Source, StoreError, SyncStats, Writers};
use sync_support::{Copy, Dice, SETTLE, clear, mutate};

/// A round of passes, as a refresh makes them: one while the source changes, one while it does not.
fn round(copy: &Copy, meanwhile: impl FnOnce(&Path) + Send) -> [SyncStats; 2] {
    store::sync_begin(&copy.state()).unwrap();
    let first = std::thread::scope(|scope| {
        let root = copy.src();
        scope.spawn(move || meanwhile(&root));
        copy.pass(Writers::Running)
    });
    let last = copy.pass(Writers::Stopped);
    store::sync_seal(&copy.src(), &copy.dst(), &copy.state()).unwrap();
    [first, last]
}

fn quiet_round(copy: &Copy) -> SyncStats {
    let [first, last] = round(copy, |_| {});
    assert_eq!((last.read, last.written), (0, 0), "{last:?}");
    first
}

/// Changes bytes so that size and modification time stay as they are.
fn edit_secretly(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let before = file.metadata().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xFF], at).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    let after = file.metadata().unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}

#[test]
fn random_changes_on_both_sides_never_leave_a_stale_byte() {
    let one = |seed: u64| {
        let copy = Copy::new();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..60 {
            mutate(&mut dice, &copy.src());
        }
        round(&copy, |_| {});
        copy.assert_same(&format!("seed {seed}, at first"));
        for n in 0..5 {
            if n != 2 {
                std::thread::sleep(SETTLE);
            }
            for _ in 0..dice.roll(12) {
                mutate(&mut dice, &copy.dst());
            }
            for entry in walkdir::WalkDir::new(copy.dst()).into_iter().flatten() {
                if entry.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) && dice.roll(6) == 0 {
                    edit_secretly(entry.path(), dice.roll(entry.metadata().unwrap().len()));
                }
            }
            for _ in 0..dice.roll(12) {
                mutate(&mut dice, &copy.src());
            }
            let changes = if n % 2 == 0 { dice.roll(20) } else { 0 };
            let own = &mut dice;
            round(&copy, move |root| (0..changes).for_each(|_| mutate(own, root)));
            copy.assert_same(&format!("seed {seed}, round {n}"));
        }
        std::thread::sleep(SETTLE);
        quiet_round(&copy);
        let idle = quiet_round(&copy);
        assert_eq!((idle.read, idle.compared, idle.files_copied, idle.removed), (0, 0, 0, 0), "seed {seed}");
        copy.assert_same(&format!("seed {seed}, idle"));
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..=24).map(|seed| scope.spawn(move || one(seed))).collect();
        all.into_iter().for_each(|case| case.join().unwrap());
    });
}

/// What it is called, how many bytes it takes to undo it, and how it is done.
type Way<'a> = (&'static str, u64, Box<dyn Fn() + 'a>);

/// What can be done to a copy, one by one: a round undoes each of them, and only what was touched is read.
#[test]
fn each_way_to_change_a_copy_is_seen_and_undone() {
    let copy = Copy::new();
    let (src, dst) = (copy.src(), copy.dst());
    fs::create_dir_all(src.join("dir/below")).unwrap();
    let big: Vec<u8> = (0..20 << 20).map(|n: u32| (n / 4096 % 251) as u8).collect();
    fs::write(src.join("big"), &big).unwrap();
    for name in ["a", "b", "dir/c", "dir/below/d"] {
        fs::write(src.join(name), vec![7; 50_000]).unwrap();
    }
    fs::hard_link(src.join("a"), src.join("dir/link")).unwrap();
    symlink("a", src.join("symlink")).unwrap();
    std::thread::sleep(SETTLE);
    round(&copy, |_| {});
    let at = |name: &str| dst.join(name);
    let write = |name: &str, bytes: &[u8], offset| {
        File::options().write(true).open(dst.join(name)).unwrap().write_all_at(bytes, offset).unwrap();
    };
    let ways: Vec<Way<'_>> = vec![
        ("nothing", 0, Box::new(|| {})),
        ("one page of a large file", 4096, Box::new(|| write("big", b"x", 9_999_999))),
        ("pages far apart", 5 * 4096, Box::new(|| (0..5).for_each(|n| write("big", b"x", n * 4_100_000)))),
        ("same size, same time", 4096, Box::new(|| edit_secretly(&at("big"), 5))),
        (
            "truncated",
            10 << 20,
            Box::new(|| File::options().write(true).open(at("big")).unwrap().set_len(10 << 20).unwrap()),
        ),
        ("emptied", 50_000, Box::new(|| drop(File::create(at("b")).unwrap()))),
        ("longer", 0, Box::new(|| write("b", b"more", 70_000))),
        ("removed", 50_000, Box::new(|| fs::remove_file(at("dir/c")).unwrap())),
        ("a folder removed", 50_000, Box::new(|| fs::remove_dir_all(at("dir/below")).unwrap())),
        (
            "new files",
            0,
            Box::new(|| {
                fs::create_dir_all(at("new/deep")).unwrap();
                fs::write(at("new/deep/file"), "x").unwrap();
                fs::write(at("dir/new"), "x").unwrap();
            }),
        ),
        (
            "a file became a folder",
            50_000,
            Box::new(|| {
                fs::remove_file(at("b")).unwrap();
                fs::create_dir(at("b")).unwrap();
                fs::write(at("b/in"), "x").unwrap();
            }),
        ),
        (
            "a folder became a link",
            50_000,
            Box::new(|| {
                fs::remove_dir_all(at("dir/below")).unwrap();
                symlink("/etc", at("dir/below")).unwrap();
            }),
        ),
        (
            "a link became a file",
            0,
            Box::new(|| {
                fs::remove_file(at("symlink")).unwrap();
                fs::write(at("symlink"), "x").unwrap();
            }),
        ),
        (
            "a hard link was broken",
            0,
            Box::new(|| {
                fs::remove_file(at("dir/link")).unwrap();
                fs::write(at("dir/link"), vec![8; 50_000]).unwrap();
            }),
        ),
        ("a hard link was made", 0, Box::new(|| fs::hard_link(at("b"), at("dir/c2")).unwrap())),
        (
            "two files swapped",
            0,
            Box::new(|| {
                fs::rename(at("b"), at("tmp")).unwrap();
                fs::rename(at("dir/c"), at("b")).unwrap();
                fs::rename(at("tmp"), at("dir/c")).unwrap();
            }),
        ),
        (
            "another mode",
            0,
            Box::new(|| {
                fs::set_permissions(at("b"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
            }),
        ),
        ("an attribute", 0, Box::new(|| drop(xattr::set(at("b"), "user.x", b"y")))),
        ("a store through a mapping", 4096, Box::new(|| store_through_a_mapping(&at("big")))),
    ];
    for (what, written, change) in ways {
        std::thread::sleep(std::time::Duration::from_millis(30));
        change();
        let done = quiet_round(&copy);
        copy.assert_same(what);
        assert_eq!(done.written, written, "{what}: {done:?}");
        let most = if matches!(what, "nothing") { 0 } else { 20 << 20 };
        assert!(done.read <= most, "{what}: {done:?}");
    }
}

/// In a process of its own, which has ended afterwards.
fn store_through_a_mapping(path: &Path) {
    let code = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[70000]^=255\n";
    let done = Command::new("python3").args(["-c", code]).arg(path).stdin(Stdio::null()).status().unwrap();
    assert!(done.success());
}

#[test]
fn an_interrupted_round_after_which_the_copy_was_used_is_made_good() {
    let copy = Copy::new();
    let mut dice = Dice(77);
    for _ in 0..80 {
        mutate(&mut dice, &copy.src());
    }
    std::thread::sleep(SETTLE);
    round(&copy, |_| {});
    let mut stopped = 0;
    for stop_at in 0..40 {
        mutate(&mut dice, &copy.src());
        mutate(&mut dice, &copy.dst());
        let asked = AtomicU32::new(0);
        let cancel = || asked.fetch_add(1, Ordering::Relaxed) == stop_at;
        let progress = Progress { cancel: &cancel, report: &|_, _| () };
        store::sync_begin(&copy.state()).unwrap();
        let result =
            store::sync_pass(&copy.src(), &copy.dst(), &copy.state(), Writers::Running, None, &progress);
        stopped += u32::from(matches!(result, Err(StoreError::Cancelled)));
        // Staging is started all the same, and the round is repeated later.
        for entry in walkdir::WalkDir::new(copy.dst()).into_iter().flatten() {
            if entry.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) && dice.roll(3) == 0 {
                edit_secretly(entry.path(), 0);
            }
        }
        round(&copy, |_| {});
        copy.assert_same(&format!("stopped at {stop_at}: {result:?}"));
    }
    assert!(stopped > 10, "{stopped}");
}

#[test]
fn a_seal_that_is_damaged_or_of_another_copy_is_not_believed() {
    let copy = Copy::new();
    for n in 0..20 {
        fs::write(copy.src().join(n.to_string()), vec![n; 5000]).unwrap();
    }
    std::thread::sleep(SETTLE);
    round(&copy, |_| {});
    let mut bytes = fs::read(copy.state()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(copy.state(), bytes).unwrap();
    edit_secretly(&copy.dst().join("3"), 7);
    fs::write(copy.dst().join("extra"), "x").unwrap();
    let done = round(&copy, |_| {})[0].clone();
    assert_eq!((done.read, done.written), (100_000, 4096), "{done:?}");
    copy.assert_same("after damage");
    // A copy of the copy in its place.
    let aside = copy.dir.path().join("aside");
    assert!(Command::new("cp").arg("-a").args([copy.dst(), aside.clone()]).status().unwrap().success());
    clear(&copy.dst());
    fs::rename(&aside, copy.dst()).unwrap();
    edit_secretly(&copy.dst().join("4"), 7);
    round(&copy, |_| {});
    copy.assert_same("after the copy was replaced");
    // A pass that was not begun does not rely on a seal that does not fit either.
    edit_secretly(&copy.dst().join("5"), 7);
    copy.pass(Writers::Running);
    copy.assert_same("after a pass on a sealed copy");
}

#[test]
fn a_copy_without_a_record_is_compared_once_it_is_begun() {
    let copy = Copy::new();
    fs::write(copy.src().join("big"), vec![1; 20 << 20]).unwrap();
    fs::write(copy.src().join("other"), "x").unwrap();
    let made = Command::new("cp").arg("-a").args([copy.src(), copy.dst()]).status().unwrap();
    assert!(made.success());
    edit_secretly(&copy.dst().join("big"), 12_345_678);
    fs::write(copy.dst().join("stale"), "x").unwrap();
    let done = round(&copy, |_| {})[0].clone();
    assert_eq!((done.written, done.removed), (4096, 1), "{done:?}");
    copy.assert_same("after the first round");
}

#[test]
fn a_database_is_brought_up_to_date_page_by_page_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("app.db"), dir.path().join("staging.db"));
    for mode in ["wal", "delete"] {
        clear(&src);
        clear(&dst);
        let db = rusqlite::Connection::open(&src).unwrap();
        db.execute_batch(&format!(
            "PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000)
             INSERT INTO t SELECT i, hex(randomblob(100)) FROM n"
        ))
        .unwrap();
        store::clone_live(switchback_core::data::StoreKind::Sqlite, &src, &dst, &Progress::none()).unwrap();
        let staging = rusqlite::Connection::open(&dst).unwrap();
        staging.execute_batch("PRAGMA journal_mode=wal; DELETE FROM t WHERE id%7=0; VACUUM").unwrap();
        std::mem::forget(staging); // killed: its -wal stays
        assert!(dir.path().join("staging.db-wal").exists());
        db.execute_batch("UPDATE t SET v='new' WHERE id BETWEEN 500 AND 520").unwrap();
        let refresh = || store::refresh_sqlite(Source::live(&src), &dst, &Progress::none()).unwrap();
        refresh();
        db.execute_batch("UPDATE t SET v='newer' WHERE id BETWEEN 900 AND 910").unwrap();
        let stats = refresh();
        assert!(stats.bytes_written < 50_000 && stats.bytes > 4_000_000, "{mode}: {stats:?}");
        assert_eq!(stats.bytes_saved, stats.bytes - stats.bytes_written);
        let print = |source| {
            store::fingerprint(switchback_core::data::StoreKind::Sqlite, source, &Progress::none()).unwrap()
        };
        assert_eq!(print(Source::live(&src)).digest, print(Source::cold(&dst, dir.path())).digest, "{mode}");
        drop(db);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| !n.to_string_lossy().contains("fresh")), "{left:?}");
        assert_eq!(dst.metadata().unwrap().nlink(), 1);
    }
}
