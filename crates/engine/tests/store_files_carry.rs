//! Carrying later writes into another state of a tree of files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use switchback_core::carry::{DIFFERS, ORPHAN, Outcome, Rules, TAKEN, UNKNOWN};
use switchback_core::data::StoreKind;
use switchback_engine::store::{self, Progress, Source};

struct Three(tempfile::TempDir);

fn put(root: &Path, rel: &str, text: &str) {
    let path = root.join(rel);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl Three {
    fn new(make: impl Fn(&Path)) -> Self {
        let three = Self(tempfile::tempdir().unwrap());
        for name in ["before", "after", "target"] {
            make(&three.at(name));
        }
        three
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn carry(&self, rules: &Rules) -> Outcome {
        let (before, after, scratch) = (self.at("before"), self.at("after"), self.at("scratch"));
        fs::create_dir_all(&scratch).unwrap();
        let (old, new) = (Source::cold(&before, &scratch), Source::cold(&after, &scratch));
        let kind = StoreKind::Files;
        store::carry_writes(kind, old, new, &self.at("target"), rules, &Progress::none()).unwrap()
    }
    fn read(&self, rel: &str) -> Option<String> {
        fs::read_to_string(self.at("target").join(rel)).ok()
    }
}

fn why(outcome: &Outcome) -> Vec<(String, String)> {
    let all = outcome.quarantine.iter().map(|q| (q.key["path"].as_str().unwrap().to_owned(), q.why.clone()));
    all.collect()
}

#[test]
fn files_are_carried_where_the_target_still_has_what_was_before() {
    let three = Three::new(|root| {
        for name in ["same", "mine", "theirs", "both", "gone", "gone-but-mine", "old/a", "kept/a", "swap"] {
            put(root, name, "x");
        }
        symlink("same", root.join("link")).unwrap();
    });
    let (after, target) = (three.at("after"), three.at("target"));
    put(&after, "theirs", "new");
    put(&after, "both", "theirs");
    put(&after, "new/deep/file", "n");
    put(&after, "taken", "theirs");
    put(&after, "twice", "equal");
    fs::set_permissions(after.join("new/deep/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(after.join("same"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["gone", "gone-but-mine", "link", "swap"] {
        fs::remove_file(after.join(name)).unwrap();
    }
    symlink("theirs", after.join("link")).unwrap();
    fs::create_dir(after.join("swap")).unwrap();
    put(&after, "swap/inside", "s");
    fs::remove_dir_all(after.join("old")).unwrap();
    fs::remove_dir_all(after.join("kept")).unwrap();
    put(&target, "mine", "mine");
    put(&target, "both", "mine");
    put(&target, "gone-but-mine", "mine");
    put(&target, "taken", "mine");
    put(&target, "twice", "equal");
    put(&target, "kept/b", "mine");
    let outcome = three.carry(&Rules::default());
    assert_eq!(three.read("theirs").as_deref(), Some("new"));
    assert_eq!(three.read("new/deep/file").as_deref(), Some("n"));
    assert_eq!(three.read("swap/inside").as_deref(), Some("s"));
    assert_eq!(three.read("mine").as_deref(), Some("mine"));
    assert_eq!(three.read("both").as_deref(), Some("mine"));
    assert_eq!(three.read("taken").as_deref(), Some("mine"));
    assert_eq!(three.read("kept/b").as_deref(), Some("mine"));
    assert_eq!(three.read("gone-but-mine").as_deref(), Some("mine"));
    assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("theirs"));
    assert!(three.read("gone").is_none() && !target.join("old").exists() && !target.join("kept/a").exists());
    let mode = |rel: &str| fs::metadata(target.join(rel)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("same"), mode("new/deep/file")), (0o600, 0o640));
    let mut found = why(&outcome);
    found.sort();
    let named = |path: &str, why: &str| (path.to_owned(), why.to_owned());
    assert_eq!(
        found,
        [
            named("both", DIFFERS),
            named("gone-but-mine", DIFFERS),
            named("kept", ORPHAN),
            named("taken", TAKEN)
        ]
    );
    assert_eq!(outcome.carried.parts["files"].already, 1);
    let left: Vec<_> = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with(".switchback")), "{left:?}");
}

#[test]
fn a_store_that_is_one_file_is_carried_as_a_whole_or_not_at_all() {
    let three = Three::new(|path| fs::write(path, "x").unwrap());
    fs::write(three.at("after"), "new").unwrap();
    let outcome = three.carry(&Rules::default());
    assert_eq!(outcome.carried.parts["files"].updated, 1);
    assert_eq!(fs::read_to_string(three.at("target")).unwrap(), "new");
    fs::write(three.at("target"), "mine").unwrap();
    assert_eq!(why(&three.carry(&Rules::default()))[0].1, DIFFERS);
    assert_eq!(fs::read_to_string(three.at("target")).unwrap(), "mine");
}

#[test]
fn a_link_in_the_target_does_not_lead_out_of_it() {
    let three = Three::new(|root| put(root, "dir/a", "x"));
    let outside = three.at("outside");
    put(&outside, "a", "x");
    put(&three.at("after"), "dir/a", "new");
    put(&three.at("after"), "dir/b", "new");
    fs::remove_dir_all(three.at("target").join("dir")).unwrap();
    symlink(&outside, three.at("target").join("dir")).unwrap();
    // The link is another kind of entry than the folder: everything below is left alone.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| three.carry(&Rules::default())));
    drop(done);
    assert_eq!(fs::read_to_string(outside.join("a")).unwrap(), "x");
    assert!(!outside.join("b").exists());
}

#[test]
fn nothing_is_carried_where_writes_cannot_be_told_from_the_upgrade() {
    let three = Three::new(|root| put(root, "a", "x"));
    put(&three.at("after"), "a", "new");
    let outcome = three.carry(&Rules { touched: None, before_upgrade: true });
    assert_eq!(why(&outcome), [("a".to_owned(), UNKNOWN.to_owned())]);
    assert_eq!(three.read("a").as_deref(), Some("x"));
}
