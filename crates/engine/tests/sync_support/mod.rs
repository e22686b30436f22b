//! Random trees, random changes, and what makes two trees the same.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use switchback_core::data::StoreKind::Files;
use switchback_engine::store::{self, Progress, Source, SyncStats, Writers};

/// Longer than the time after which a file is settled.
pub const SETTLE: Duration = Duration::from_millis(5200);

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub struct Copy {
    pub dir: tempfile::TempDir,
}

impl Copy {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Self { dir }
    }
    pub fn src(&self) -> PathBuf {
        self.dir.path().join("src")
    }
    pub fn dst(&self) -> PathBuf {
        self.dir.path().join("dst")
    }
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
    pub fn try_pass(&self, writers: Writers) -> store::Result<SyncStats> {
        store::sync_pass(&self.src(), &self.dst(), &self.state(), writers, None, &Progress::none())
    }
    pub fn pass(&self, writers: Writers) -> SyncStats {
        self.try_pass(writers).unwrap()
    }
    pub fn assert_same(&self, what: &str) {
        assert_same(&self.src(), &self.dst(), what);
    }
}

/// Everything of a tree that a copy keeps: attributes, times, content, and which names are one file.
pub fn listing(root: &Path) -> Vec<String> {
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

pub fn assert_same(src: &Path, dst: &Path, what: &str) {
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
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
    pub fn bytes(&mut self, up_to: u64) -> Vec<u8> {
        let fill = u8::try_from(self.roll(255)).unwrap() + 1;
        let mut bytes = vec![fill; usize::try_from(self.roll(up_to)).unwrap()];
        for byte in bytes.iter_mut().step_by(997) {
            *byte = u8::try_from(self.roll(256)).unwrap();
        }
        bytes
    }
    /// A name in one of a few folders, so that names collide.
    pub fn name(&mut self, root: &Path) -> PathBuf {
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

pub fn clear(path: &Path) {
    match path.symlink_metadata() {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Makes the parent folders of a path, in the place of whatever is there.
pub fn parents(root: &Path, path: &Path) {
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
pub fn mutate(dice: &mut Dice, root: &Path) {
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
