//! Digests of a copy that are kept from one reading to the next: never those of what somebody wrote to since.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod sync_support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;
use switchback_core::data::{Fingerprint, StoreKind};
use switchback_engine::store::{self, Progress, Source};
use sync_support::{Copy, Dice, mutate};

/// More than a tick of file times.
const TICK: Duration = Duration::from_millis(60);

fn known(root: &Path, memo: &Path) -> Fingerprint {
    store::content_of_copy(Source::cold(root, root), memo, &Progress::none()).unwrap()
}

fn read_anew(root: &Path) -> Fingerprint {
    store::fingerprint(StoreKind::Files, Source::cold(root, root), &Progress::none()).unwrap()
}

/// Bytes that this process has read with system calls.
fn read_so_far() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// One test, as bytes that are read are counted for the whole process.
#[test]
fn what_did_not_change_is_not_read_again_and_what_did_is() {
    let dir = tempfile::tempdir().unwrap();
    let (root, memo) = (dir.path().join("copy"), dir.path().join("digests"));
    fs::create_dir(&root).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(root.join(name), name.repeat(4 << 20)).unwrap();
    }
    let measured = || {
        std::thread::sleep(TICK);
        let before = read_so_far();
        let found = known(&root, &memo);
        let read = read_so_far() - before;
        assert_eq!(found, read_anew(&root));
        read
    };
    let all = 12 << 20;
    assert!(measured() >= all);
    assert!(measured() < 1 << 20, "nothing changed");

    // As long as before, and with the time of before, as some programs leave it.
    let file = File::options().write(true).open(root.join("b")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"another", 1 << 20).unwrap();
    file.set_modified(time).unwrap();
    drop(file);
    let read = measured();
    assert!((4 << 20..5 << 20).contains(&read), "{read}");

    // Another file with this name; one more, which is gone again; rights.
    fs::write(root.join("new"), "c".repeat(4 << 20)).unwrap();
    fs::rename(root.join("new"), root.join("c")).unwrap();
    assert!(measured() >= 4 << 20);
    fs::remove_file(root.join("a")).unwrap();
    measured();
    fs::set_permissions(root.join("b"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    measured();
    assert!(measured() < 1 << 20, "nothing changed");

    // A file of digests that is torn, or of another folder, says nothing.
    let bytes = fs::read(&memo).unwrap();
    fs::write(&memo, &bytes[..bytes.len() - 1]).unwrap();
    assert!(measured() >= 8 << 20);
    let mut bytes = fs::read(&memo).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&memo, &bytes).unwrap();
    assert!(measured() >= 8 << 20);
    fs::rename(&root, dir.path().join("was")).unwrap();
    fs::create_dir(&root).unwrap();
    for name in ["b", "c"] {
        fs::hard_link(dir.path().join("was").join(name), root.join(name)).unwrap();
    }
    assert!(measured() >= 8 << 20);
}

#[test]
fn whoever_writes_to_a_copy_in_whatever_way_its_digests_are_those_of_its_bytes() {
    let one = |seed: u64| {
        let copy = Copy::new();
        let (root, memo) = (copy.src(), copy.src().with_file_name("digests"));
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for round in 0..30 {
            for _ in 0..dice.roll(12) {
                mutate(&mut dice, &root);
            }
            // At once, or after a while.
            std::thread::sleep(Duration::from_millis(dice.roll(40)));
            assert_eq!(known(&root, &memo), read_anew(&root), "seed {seed}, round {round}");
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (1..=16).map(|seed| scope.spawn(move || one(seed))).collect();
        all.into_iter().for_each(|case| case.join().unwrap());
    });
}

/// Stores through a mapping that stays open: the second one to a page does not move the change time by itself.
#[test]
fn stores_through_a_mapping_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (root, memo) = (dir.path().join("copy"), dir.path().join("digests"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("mapped"), vec![0; 1 << 20]).unwrap();
    let child = std::process::Command::new("python3")
        .args(["-c", MAPPED, &root.join("mapped").to_string_lossy()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut store = || {
        std::io::Write::write_all(&mut to, b"\n").unwrap();
        std::io::Read::read_exact(&mut from, &mut [0; 1]).unwrap();
    };
    let mut digests = std::collections::BTreeSet::new();
    for wait in [0, 60, 0, 0, 60, 60, 0, 30, 20, 10] {
        store();
        std::thread::sleep(Duration::from_millis(wait));
        let found = known(&root, &memo);
        assert_eq!(found, read_anew(&root));
        digests.insert(found.digest.to_string());
    }
    assert_eq!(digests.len(), 10, "a store was not seen");
    drop(to);
    child.wait().unwrap();
}

const MAPPED: &str = r"
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    area = mmap.mmap(file.fileno(), 0)
    for _ in iter(lambda: sys.stdin.read(1), ''):
        area[4096] += 1
        sys.stdout.write('.')
        sys.stdout.flush()
";
