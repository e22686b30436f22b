//! What becomes of backups when something is killed, or a byte of the repository turns.

mod common;

use common::{PROGRAM, Ran, Stack};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A stack with two backups, and the folder in which its repository lies.
struct Kept {
    stack: Stack,
    beside: tempfile::TempDir,
}

impl Kept {
    fn new(keep: u32) -> Self {
        let kept = Self { stack: Stack::new(&[]), beside: tempfile::tempdir().expect("tempdir") };
        let path = kept.stack.root.join("switchback.yaml");
        let text = fs::read_to_string(&path).expect("reads");
        let repository = kept.repository();
        let keep = format!("keep: {{ last: {keep}, daily: 0, weekly: 0, monthly: 0 }}");
        let backup = format!("\nbackup: {{ repository: \"{}\", {keep} }}\n", repository.display());
        fs::write(&path, text + &backup).expect("writes");
        kept.stack.run(&["up"]).expect(0);
        kept.stack.run(&["backup", "init"]).expect(0);
        fs::copy(kept.stack.root.join(".switchback/backup.key"), kept.key()).expect("copies");
        kept.stack.write_note("in the first backup");
        kept.stack.run(&["backup"]).expect(0);
        kept.stack.write_note("in the second backup");
        kept.stack.run(&["backup"]).expect(0);
        kept
    }

    fn repository(&self) -> PathBuf {
        self.beside.path().join("repository")
    }

    fn key(&self) -> PathBuf {
        self.beside.path().join("copy-of-the-key")
    }

    fn backups(&self) -> usize {
        let list = self.stack.run(&["backup", "list", "--json"]).expect(0).json();
        list.as_array().expect("a list").len()
    }

    fn check(&self) -> Ran {
        self.stack.run(&["backup", "check", "--read-data"])
    }

    /// `restore --from` into a folder, with a fault or without.
    fn restore(&self, into: &Path, fault: &str, more: &[&str]) -> Ran {
        let mut command = Command::new(PROGRAM);
        command.arg("restore").arg("--from").arg(self.repository()).arg("--key-file").arg(self.key());
        command.arg("--into").arg(into).args(more).env("NO_COLOR", "1").env("SWITCHBACK_FAULT", fault);
        let output = command.stdin(Stdio::null()).output().expect("runs");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Plain restic finds nothing wrong either.
    fn restic_check(&self) {
        let key = fs::read_to_string(self.key()).expect("a key");
        let mut command = Command::new("restic");
        command.arg("-r").arg(self.repository()).args(["--no-cache", "check", "--read-data"]);
        let output = command.env("RESTIC_PASSWORD", key.trim()).output();
        let output = output.expect("restic is installed (scripts/test installs it)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What a database holds.
fn notes(database: &Path) -> String {
    let query = "select id, title, body from notes order by id";
    let output = Command::new("sqlite3").arg(database).arg(query).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("lists").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn a_restore_that_is_killed_begins_anew_and_brings_all_of_it() {
    let kept = Kept::new(5);
    let was = notes(&kept.stack.root.join("data/assistant.db"));
    for point in [
        "restore-begun",
        "restore-folder",
        "restore-data",
        "restore-compared",
        "restore-recorded",
        "restore-done",
    ] {
        let into = kept.beside.path().join(point);
        let killed = kept.restore(&into, &format!("do:{point}:during"), &[]);
        assert_eq!(killed.code, None, "{point}: {}", killed.all());
        // What is half there is not taken for a stack, and nothing is removed that nobody said may be.
        let again = kept.restore(&into, "", &[]).expect(3);
        if point == "restore-done" {
            assert!(again.all().contains("was done already"), "{}", again.all());
        } else {
            assert!(again.all().contains("--start-over"), "{point}: {}", again.all());
            kept.restore(&into, "", &["--start-over"]).expect(0);
        }
        assert_eq!(notes(&into.join("data/assistant.db")), was, "{point}");
        let root = into.to_str().expect("text");
        let audit = Command::new(PROGRAM).args(["-C", root, "audit", "verify"]).output().expect("runs");
        assert!(audit.status.success(), "{point}");
        // A whole one is not started over.
        kept.restore(&into, "", &["--start-over"]).expect(3);
        assert_eq!(notes(&into.join("data/assistant.db")), was, "{point}");
    }
    // Nor is a folder of somebody else.
    let other = kept.beside.path().join("other");
    fs::create_dir(&other).expect("creates");
    fs::write(other.join("mine"), "").expect("writes");
    kept.restore(&other, "", &["--start-over"]).expect(3);
    assert!(other.join("mine").exists());
    assert!(kept.check().all().contains("sound"));
}

#[test]
fn a_pruning_that_is_killed_loses_no_backup_that_is_kept() {
    let kept = Kept::new(1);
    let stack = &kept.stack;
    let text = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
    let rules = |last: u32| {
        let changed = text.replace("last: 1,", &format!("last: {last},"));
        fs::write(stack.root.join("switchback.yaml"), changed).expect("writes");
    };
    // At the point where snapshots are gone, and what only they used is not.
    rules(5);
    stack.run(&["backup"]).expect(0);
    stack.write_note("in the last backup");
    stack.run(&["backup"]).expect(0);
    rules(1);
    let before = kept.backups();
    assert!(before > 1, "{before}");
    let killed = stack.run_with(&["backup", "prune"], &[("SWITCHBACK_FAULT", "do:prune:during")]);
    assert_ne!(killed.code, Some(0), "{}", killed.all());
    // And at any moment, as it comes.
    for ms in [20, 60, 250] {
        rules(5);
        stack.write_note(&format!("killed after {ms} ms"));
        stack.run(&["backup"]).expect(0);
        rules(1);
        let mut child = stack.command(&["backup", "prune", "-q"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(ms));
        child.kill().expect("kills");
        child.wait().expect("ends");
        let sound = kept.check();
        assert!(sound.code == Some(0) && sound.all().contains("sound"), "{ms}: {}", sound.all());
    }
    stack.run(&["backup", "prune"]).expect(0);
    assert_eq!(kept.backups(), 1);
    kept.check().expect(0);
    kept.restic_check();
    let into = kept.beside.path().join("back");
    kept.restore(&into, "", &[]).expect(0);
    assert_eq!(notes(&into.join("data/assistant.db")), notes(&stack.root.join("data/assistant.db")));
}

#[test]
fn a_byte_that_turned_anywhere_in_the_repository_is_told_and_never_brought_back() {
    let kept = Kept::new(5);
    let was = notes(&kept.stack.root.join("data/assistant.db"));
    let uploads = files(&kept.stack.root.join("data/uploads"));
    let all = files(&kept.repository());
    for kind in ["config", "keys", "index", "snapshots", "data"] {
        let folder = kept.repository().join(kind);
        assert!(all.iter().any(|p| p.starts_with(&folder)), "{kind}: {all:?}");
    }
    let full = std::env::var_os("SWITCHBACK_TEST_FULL").is_some();
    for (number, path) in all.iter().enumerate() {
        let good = fs::read(path).expect("reads");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("sets");
        for (nth, at) in [0, good.len() / 2, good.len() - 1].into_iter().enumerate() {
            // Reading it back takes longer; one position of each file will do, and for a short run that is all.
            let chosen = nth == number % 3;
            if !chosen && !full {
                continue;
            }
            let which = format!("{} byte {at} of {}", path.display(), good.len());
            let mut bad = good.clone();
            bad[at] ^= 1 << (number % 8);
            fs::write(path, &bad).expect("writes");
            let found = kept.check();
            assert_ne!(found.code, Some(0), "{which}: {}", found.all());
            if chosen {
                let into = kept.beside.path().join(format!("back-{number}"));
                let back = kept.restore(&into, "", &[]);
                // What was not needed may be damaged, what came back is as it was.
                if back.code == Some(0) {
                    assert_eq!(notes(&into.join("data/assistant.db")), was, "{which}");
                    for upload in &uploads {
                        let name = upload.strip_prefix(&kept.stack.root).expect("below");
                        assert!(fs::read(upload).ok() == fs::read(into.join(name)).ok(), "{which}");
                    }
                } else {
                    assert!(!into.join("data/assistant.db").exists(), "{which}: something is left");
                }
            }
        }
        fs::write(path, &good).expect("writes");
    }
    kept.check().expect(0);
}
