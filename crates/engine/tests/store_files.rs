//! The files store against real trees: hostile names, links, holes, full disks, reflinks.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use switchback_core::data::{PartChange, StoreKind::Files};
use switchback_engine::store::{self, Progress, Source, StoreError};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A tree with everything that makes copying hard. Returns its root.
fn hostile(at: &Path) -> PathBuf {
    let root = at.join("tree");
    fs::create_dir_all(root.join("a/empty dir")).unwrap();
    fs::write(root.join("a/new\nline;rm -rf $(x)"), "one").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"a/\xff\xfe")), "two").unwrap();
    fs::write(root.join("-rf"), "three").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("big"), vec![42u8; 3_000_000]).unwrap();
    fs::hard_link(root.join("big"), root.join("a/big too")).unwrap();
    symlink("..", root.join("a/loop")).unwrap();
    symlink("/nonexistent\n", root.join("dangling")).unwrap();
    symlink("self", root.join("self")).unwrap();
    let mut sparse = File::create(root.join("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(50 << 20)).unwrap();
    sparse.write_all(b"end").unwrap();
    sparse.set_len(80 << 20).unwrap();
    drop(sparse);
    File::create(root.join("hole")).unwrap().set_len(10 << 20).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    if is_root() {
        std::os::unix::fs::chown(root.join("-rf"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(77), Some(78)).unwrap();
    }
    fs::set_permissions(root.join("-rf"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("a/empty dir"), fs::Permissions::from_mode(0o1555)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567, 89_012_345);
    File::options().write(true).open(root.join("-rf")).unwrap().set_modified(old).unwrap();
    File::open(root.join("a")).unwrap().set_modified(old).unwrap();
    root
}

/// `find -ls`-like listing with everything but inode numbers and access times.
fn listing(root: &Path) -> Vec<String> {
    let mut all: Vec<String> = walkdir::WalkDir::new(root)
        .into_iter()
        .map(|e| {
            let e = e.unwrap();
            let m = e.path().symlink_metadata().unwrap();
            let rel = e.path().strip_prefix(root).unwrap();
            let content = if m.is_file() {
                blake3::hash(&fs::read(e.path()).unwrap()).to_hex().to_string()
            } else {
                String::new()
            };
            let links = if m.is_dir() { 0 } else { m.nlink() };
            let size = if m.is_dir() { 0 } else { m.size() };
            format!(
                "{rel:?} {:o} {}:{} {size} {links} {}.{} {:?} {content}",
                m.mode(),
                m.uid(),
                m.gid(),
                m.mtime(),
                m.mtime_nsec(),
                fs::read_link(e.path()).ok()
            )
        })
        .collect();
    all.sort();
    all
}

fn clone_is_faithful(base: &Path) {
    let src = hostile(base);
    if let Err(e) = xattr::set(src.join("big"), "user.note", b"\0bytes\xff") {
        eprintln!("SKIPPED xattrs: {} refuses them: {e}", base.display());
    }
    let before = listing(&src);
    let dst = base.join("copy");
    let stats = store::clone_cold(Files, &src, &dst, &Progress::none()).unwrap();
    assert_eq!(listing(&dst), before);
    assert_eq!(listing(&src), before, "the source is as it was");
    assert_eq!(
        xattr::get(dst.join("big"), "user.note").unwrap(),
        xattr::get(src.join("big"), "user.note").unwrap()
    );
    assert!(dst.join("sparse").metadata().unwrap().blocks() * 512 < 1 << 20, "holes stay holes");
    assert_eq!(dst.join("hole").metadata().unwrap().blocks(), 0);
    assert_eq!(dst.join("big").metadata().unwrap().ino(), dst.join("a/big too").metadata().unwrap().ino());
    assert!(stats.bytes_written < 4_000_000, "{stats:?}");
    let print = |p: &Path| store::fingerprint(Files, Source::cold(p, base), &Progress::none()).unwrap();
    assert_eq!(print(&src), print(&dst));
    let diff =
        store::diff(Files, Source::cold(&src, base), Source::cold(&dst, base), &Progress::none()).unwrap();
    assert!(diff.is_empty(), "{diff:?}");
    assert!(matches!(
        store::clone_cold(Files, &src, &dst, &Progress::none()),
        Err(StoreError::DstExists { .. })
    ));
    let names: Vec<_> = fs::read_dir(base).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().contains("partial")), "{names:?}");
}

#[test]
fn a_clone_is_the_same_in_every_attribute() {
    let dir = tempfile::tempdir().unwrap();
    clone_is_faithful(dir.path());
}

#[test]
fn a_clone_shares_blocks_where_the_file_system_can() {
    let Some(dir) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR names no folder on XFS or btrfs");
        return;
    };
    let dir = tempfile::tempdir_in(dir).unwrap();
    assert!(store::can_reflink(dir.path(), dir.path()));
    clone_is_faithful(dir.path());
    let src = dir.path().join("blob");
    fs::write(&src, vec![1; 20 << 20]).unwrap();
    let stats = store::clone_live(Files, &src, &dir.path().join("blob2"), &Progress::none()).unwrap();
    assert_eq!((stats.reflinked, stats.bytes_written, stats.bytes), (1, 0, 20 << 20));
}

#[test]
fn a_tree_deeper_than_any_path_or_descriptor_limit_is_cloned_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("deep");
    fs::create_dir(&src).unwrap();
    let mut at = File::open(&src).unwrap();
    for _ in 0..1500 {
        rustix::fs::mkdirat(&at, "0123456789", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "0123456789", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
            .unwrap()
            .into();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    File::from(rustix::fs::openat(&at, "bottom", flags, rustix::fs::Mode::RWXU).unwrap())
        .write_all(b"x")
        .unwrap();
    let dst = dir.path().join("copy");
    let stats = store::clone_cold(Files, &src, &dst, &Progress::none()).unwrap();
    assert_eq!(stats.files, 1);
    let (a, b) = (Source::cold(&src, dir.path()), Source::cold(&dst, dir.path()));
    assert!(store::diff(Files, a, b, &Progress::none()).unwrap().is_empty());
    // A crashed run's leftover of that depth does not stop the next one.
    fs::rename(&dst, dir.path().join(".again.switchback-partial")).unwrap();
    store::clone_cold(Files, &src, &dir.path().join("again"), &Progress::none()).unwrap();
    Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
}

#[test]
fn what_cannot_be_cloned_is_refused_or_noted() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("tree");
    fs::create_dir(&src).unwrap();
    let inside = store::clone_cold(Files, &src, &src.join("copy"), &Progress::none());
    assert!(matches!(inside, Err(StoreError::Nested { .. })), "{inside:?}");
    let _socket = std::os::unix::net::UnixListener::bind(src.join("sock")).unwrap();
    let stats = store::clone_live(Files, &src, &dir.path().join("copy"), &Progress::none()).unwrap();
    assert!(stats.notes[0].contains("1 socket"), "{stats:?}");
    assert!(matches!(
        store::clone_cold(Files, &dir.path().join("none"), &dir.path().join("x"), &Progress::none()),
        Err(StoreError::NotFound { .. })
    ));
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, src.join("null"), kind, rustix::fs::Mode::RWXU, device).unwrap();
        let refused =
            store::clone_cold(Files, &src, &dir.path().join("copy2"), &Progress::none()).unwrap_err();
        assert!(refused.to_string().contains("device node"), "{refused}");
        assert!(!dir.path().join("copy2").exists());
    }
}

#[test]
fn every_kind_of_change_is_named_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (hostile(dir.path()), dir.path().join("after"));
    store::clone_cold(Files, &a, &b, &Progress::none()).unwrap();
    let file = File::options().write(true).open(b.join("big")).unwrap();
    file.write_all_at(b"x", 2_999_999).unwrap();
    fs::set_permissions(b.join("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(b.join("a/loop")).unwrap();
    fs::remove_file(b.join("self")).unwrap();
    symlink("other", b.join("self")).unwrap();
    fs::create_dir_all(b.join("n/e")).unwrap();
    fs::write(b.join(OsStr::from_bytes(b"n/e/\xffw")), "new").unwrap();
    let (old, new) = (Source::cold(&a, dir.path()), Source::cold(&b, dir.path()));
    let diff = store::diff(Files, old, new, &Progress::none()).unwrap();
    let words: Vec<String> =
        diff.parts.iter().map(|p| format!("{} {:?} {:?}", p.name, p.change, p.notes)).collect();
    assert_eq!(
        words,
        [
            r#"a/big too Changed ["content"]"#,
            r#"a/loop Dropped ["symlink"]"#,
            r#"big Changed ["content"]"#,
            r#"empty Changed ["mode 644 -> 600"]"#,
            r#"n Added ["folder"]"#,
            r#"n/e Added ["folder"]"#,
            r#"n/e/\xffw Added ["file"]"#,
            r#"self Changed ["target self -> other"]"#,
        ]
    );
    assert_eq!(diff.lost_or_altered(), 5);
    assert!(diff.parts.iter().all(|p| p.change != PartChange::Unchanged));
    let out = dir.path().join("out");
    let stats = store::export(Files, old, new, &out, &Progress::none()).unwrap();
    assert_eq!(stats.total(), 8);
    assert_eq!(fs::read(out.join(OsStr::from_bytes(b"files/n/e/\xffw"))).unwrap(), b"new");
    assert_eq!(fs::read(out.join("files/big")).unwrap(), fs::read(b.join("big")).unwrap());
    assert_eq!(fs::read_link(out.join("files/self")).unwrap(), Path::new("other"));
    assert!(!out.join("files/-rf").exists() && !out.join("files/sparse").exists());
    let lines = fs::read_to_string(out.join("files.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 8);
    assert_eq!(blake3::hash(lines.as_bytes()).to_hex().as_str(), stats.parts["files"].digest.as_str());
    assert!(out.join("manifest.json").exists());
}

#[test]
fn cancelling_leaves_nothing_and_progress_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::write(&src, vec![3; 64 << 20]).unwrap();
    let (asked, seen) = (AtomicU64::new(0), AtomicU64::new(0));
    let cancel = || asked.fetch_add(1, Ordering::Relaxed) > 3;
    let report = |done, total| seen.store(total - done, Ordering::Relaxed);
    let dst = dir.path().join("dst");
    let stopped = store::clone_cold(Files, &src, &dst, &Progress { cancel: &cancel, report: &report });
    assert!(matches!(stopped, Err(StoreError::Cancelled)), "{stopped:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    store::clone_cold(Files, &src, &dst, &Progress { cancel: &|| false, report: &report }).unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    assert_eq!(fs::read(&src).unwrap(), fs::read(&dst).unwrap());
}

#[test]
fn a_busy_tree_is_cloned_live_and_torn_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("log"), vec![0; 30 << 20]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let log = File::options().write(true).open(src.join("log")).unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                log.write_all_at(&n.to_le_bytes(), n % (30 << 20)).unwrap();
                fs::write(src.join(format!("t{}", n % 50)), "x").unwrap();
                let _ = fs::remove_file(src.join(format!("t{}", (n + 25) % 50)));
                n += 1;
            }
        });
        for i in 0..5 {
            let stats =
                store::clone_live(Files, &src, &dir.path().join(format!("c{i}")), &Progress::none()).unwrap();
            assert!(stats.notes.iter().any(|n| n.starts_with("torn: ") && n.contains("log")), "{stats:?}");
        }
        let cold = store::clone_cold(Files, &src, &dir.path().join("cold"), &Progress::none());
        assert!(matches!(cold, Err(StoreError::Changed { .. })), "{cold:?}");
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_full_disk_is_said_plainly_and_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: cannot mount a tmpfs (needs root)");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        // Refused before the first byte, and running out half-way (many files of one byte).
        fs::write(dir.path().join("big"), vec![1; 3 << 20]).unwrap();
        let early = store::clone_cold(Files, &dir.path().join("big"), &small.join("c"), &Progress::none());
        let many = dir.path().join("many");
        fs::create_dir(&many).unwrap();
        for i in 0..400 {
            fs::write(many.join(i.to_string()), vec![1; 4000]).unwrap();
        }
        fs::write(small.join("filler"), vec![1; 300 << 10]).unwrap();
        let late = (0..2)
            .map(|_| {
                let root = many.clone();
                fs::write(root.join("more"), vec![1; 10]).unwrap();
                store::clone_cold(
                    Files,
                    &root,
                    &small.join("c"),
                    &Progress {
                        cancel: &|| {
                            // Somebody else fills the disk after the check.
                            let _ = fs::write(small.join("filler2"), vec![1; 1 << 20]);
                            false
                        },
                        report: &|_, _| (),
                    },
                )
            })
            .next_back()
            .unwrap();
        let rest = fs::read_dir(&small).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        (early, late, rest)
    });
    Command::new("umount").arg(&small).status().unwrap();
    let (early, late, rest) = result.unwrap();
    assert!(matches!(early, Err(StoreError::NoSpace { .. })), "{early:?}");
    assert!(matches!(late, Err(StoreError::NoSpace { .. })), "{late:?}");
    assert!(!rest.iter().any(|n| n == "c" || n.to_string_lossy().contains("partial")), "{rest:?}");
}
