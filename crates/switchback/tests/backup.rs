//! Backups of a stack of local processes, with the real program, and restic beside it.

mod common;

use assistant::ReleaseKind;
use common::ssh::SshHost;
use common::{PROGRAM, Ran, Stack};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A stack that runs, and a folder beside it for the repository.
struct Kept {
    stack: Stack,
    beside: tempfile::TempDir,
}

impl Kept {
    fn new(releases: &[ReleaseKind]) -> Self {
        let kept = Self { stack: Stack::new(releases), beside: tempfile::tempdir().expect("tempdir") };
        kept.configure(&kept.repository().display().to_string());
        kept.stack.run(&["up"]).expect(0);
        kept
    }

    fn configure(&self, repository: &str) {
        let text = format!(
            "\nbackup: {{ repository: \"{repository}\", keep: {{ last: 2, daily: 0, weekly: 0, monthly: 0 }} }}\n"
        );
        let path = self.stack.root.join("switchback.yaml");
        let all = fs::read_to_string(&path).expect("reads");
        fs::write(&path, all + &text).expect("writes");
    }

    fn repository(&self) -> PathBuf {
        self.beside.path().join("repository")
    }

    fn key(&self) -> PathBuf {
        self.stack.root.join(".switchback/backup.key")
    }

    fn backup(&self) -> Value {
        self.stack.run(&["backup", "--json"]).expect(0).json()["backup"].clone()
    }

    fn list(&self) -> Vec<Value> {
        self.stack.run(&["backup", "list", "--json"]).expect(0).json().as_array().expect("a list").clone()
    }

    /// What restic says; a test that needs it fails without it.
    fn restic(&self, args: &[&str]) -> Ran {
        let key = fs::read_to_string(self.key()).expect("a key");
        let mut command = Command::new("restic");
        command.arg("-r").arg(self.repository()).arg("--no-cache").args(args);
        command.env("RESTIC_PASSWORD", key.trim()).stdin(Stdio::null());
        let output = command.output().expect("restic is installed (scripts/test installs it)");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Changes a byte in every data file.
    fn spoil(&self) {
        for entry in walk(&self.repository().join("data")) {
            let mut bytes = fs::read(&entry).expect("reads");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::set_permissions(&entry, fs::Permissions::from_mode(0o600)).expect("sets");
            fs::write(&entry, bytes).expect("writes");
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("lists").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(walk(&path)),
            path => found.push(path),
        }
    }
    found
}

fn switchback(args: &[&str]) -> Ran {
    let output = Command::new(PROGRAM).args(args).env("NO_COLOR", "1").output().expect("runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn what_was_backed_up_comes_back_on_a_machine_that_has_nothing_of_it() {
    let kept = Kept::new(&[]);
    let stack = &kept.stack;
    let none = stack.run(&["backup"]).expect(3);
    assert!(none.all().contains("backup init"), "{}", none.all());
    let made = stack.run(&["backup", "init"]).expect(0);
    let key = fs::read_to_string(kept.key()).expect("a key");
    assert!(made.stdout.contains(key.trim()));
    assert_eq!(fs::metadata(kept.key()).expect("there").permissions().mode() & 0o777, 0o600);

    stack.write_note("before the first backup");
    // What cannot be compressed.
    let mut noise = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(stack.root.join("data/uploads/large"), noise).expect("writes");
    let first = kept.backup();
    stack.write_note("between the backups");
    let second = kept.backup();
    let size = |b: &Value| {
        (b["snapshot"]["bytes"].as_u64().expect("n"), b["snapshot"]["added"].as_u64().expect("n"))
    };
    assert!(size(&second).1 * 4 < size(&first).1, "what is the same is stored once: {first} {second}");
    assert_eq!(kept.list().len(), 2);
    assert_eq!(stack.run(&["backup", "check", "--read-data"]).expect(0).all().matches("sound").count(), 1);

    // The key is in no report, journal or list of processes.
    for path in walk(&stack.root.join(".switchback")) {
        let told =
            fs::read(&path).is_ok_and(|b| b.windows(key.trim().len()).any(|w| w == key.trim().as_bytes()));
        assert!(!told || path == kept.key(), "{} holds the key", path.display());
    }

    // Plain restic reads it, and finds what Switchback put there.
    kept.restic(&["check", "--read-data"]).expect(0);
    let out = kept.beside.path().join("by-restic");
    kept.restic(&["restore", "latest", "--target", out.to_str().expect("text")]).expect(0);
    let database = out.join("stores/db/assistant.db");
    let titles =
        Command::new("sqlite3").arg(&database).arg("select title from notes").output().expect("runs");
    let titles = String::from_utf8_lossy(&titles.stdout).into_owned();
    assert!(titles.contains("before the first") && titles.contains("between the backups"), "{titles}");
    assert!(out.join("stack/switchback.yaml").is_file() && !out.join("stack/.switchback").exists());
    assert!(!out.join("stack/data/assistant.db").exists(), "live data is no part of the folder");

    // The machine is lost: what is left is the repository, and a copy of the key.
    let copy = kept.beside.path().join("copy-of-the-key");
    fs::copy(kept.key(), &copy).expect("copies");
    stack.run(&["down", "--yes"]).expect(0);
    let into = kept.beside.path().join("another-machine");
    let repository = kept.repository();
    let args = |into: &Path, key: &Path| -> Vec<String> {
        ["restore", "--from", &repository.to_string_lossy(), "--key-file", &key.to_string_lossy(), "--into"]
            .iter()
            .map(|s| (*s).to_owned())
            .chain([into.to_string_lossy().into_owned()])
            .collect()
    };
    let call = |into: &Path, key: &Path, more: &[&str]| {
        let all = args(into, key);
        switchback(&all.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let wrong = kept.beside.path().join("wrong");
    fs::write(&wrong, "not-the-key\n").expect("writes");
    let refused = call(&into, &wrong, &[]).expect(3);
    assert!(refused.all().contains("the key does not open it"), "{}", refused.all());
    let restored = call(&into, &copy, &["--json"]).expect(0).json();
    assert_eq!(restored["generation"], 1, "{restored}");
    let again = call(&into, &copy, &[]).expect(3);
    assert!(again.all().contains("exists already"), "{}", again.all());
    let root = into.to_str().expect("text");
    switchback(&["-C", root, "up"]).expect(0);
    let count = |database: &Path| {
        let all =
            Command::new("sqlite3").arg(database).arg("select id, title from notes order by id").output();
        String::from_utf8_lossy(&all.expect("runs").stdout).into_owned()
    };
    let (was, is) = (count(&stack.root.join("data/assistant.db")), count(&into.join("data/assistant.db")));
    assert!(was == is && is.lines().count() > 40, "{was}\n{is}");
    assert_eq!(stack.version().as_deref(), Some("1.0.0"), "it answers on the same port");
    // And it goes on from there: the chain of the journal holds, and backups follow the earlier ones.
    switchback(&["-C", root, "audit", "verify"]).expect(0);
    // What was done to the stack that is gone came along.
    let trail = switchback(&["-C", root, "audit", "verify", "--before", "--json"]).expect(0).json();
    assert!(trail["runs"].as_u64().is_some_and(|n| n >= 3), "up and two backups: {trail}");
    switchback(&["-C", root, "backup"]).expect(0);
    switchback(&["-C", root, "down", "--yes"]).expect(0);
    assert_eq!(kept.list().len(), 2, "two are kept");
}

#[test]
fn a_backup_becomes_the_next_generation_of_production_and_the_present_one_can_be_returned_to() {
    let kept = Kept::new(&[ReleaseKind::V2]);
    let stack = &kept.stack;
    stack.run(&["backup", "init"]).expect(0);
    stack.write_note("in the backup");
    kept.backup();
    stack.write_note("later");
    stack.run(&["restore", "--dry-run"]).expect(0);
    stack.run(&["restore", "--yes"]).expect(0);
    let titles = |stack: &Stack| stack.get("/api/notes?limit=200").expect("answers").1;
    assert_eq!(stack.status()["generation"], 2);
    assert!(titles(stack).contains("in the backup") && !titles(stack).contains("later"));
    // Nothing is lost: what was written since is in the generation before.
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(titles(stack).contains("later"));

    // A backup of an older release than the one that runs brings its release back, too.
    stack.run(&["upgrade", "app=2.0.0", "--yes"]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
    let id = kept.list()[0]["id"].as_str().expect("an id")[..8].to_owned();
    stack.run(&["restore", "--snapshot", &id, "--yes"]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    assert!(titles(stack).contains("in the backup"));

    // An environment with its data: migrated, if it is to run a newer version.
    let up = stack.run(&["staging", "up", "from-backup", "app=2.0.0", "--from-backup=latest"]).expect(0);
    assert!(up.all().contains("Migrate the data of app"), "{}", up.all());
    let status = stack.run(&["staging", "status", "from-backup"]).expect(0).stdout;
    assert!(status.contains(&format!("of the backup {id}")), "{status}");
    stack.run(&["staging", "down", "from-backup", "--yes"]).expect(0);
}

#[test]
fn a_drill_tells_a_good_backup_from_a_damaged_one() {
    let kept = Kept::new(&[]);
    let stack = &kept.stack;
    stack.run(&["backup", "init"]).expect(0);
    stack.run(&["drill", "restore"]).expect(3);
    kept.backup();
    let processes = stack.processes();
    let drill = stack.run(&["drill", "restore"]).expect(0);
    assert!(drill.all().contains("can be restored"), "{}", drill.all());
    kept.spoil();
    let check = stack.run(&["backup", "check", "--read-data"]).expect(3);
    assert!(check.all().contains("DAMAGED"), "{}", check.all());
    stack.run(&["drill", "restore"]).expect(3);
    assert_eq!(stack.processes(), processes, "nothing of a drill stays");
    let left: Vec<_> = fs::read_dir(stack.state().join("staging")).expect("lists").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_empty_folder_and_owner_and_mode_of_a_store_come_back() {
    let kept = Kept { stack: Stack::new(&[]), beside: tempfile::tempdir().expect("tempdir") };
    kept.configure(&kept.repository().display().to_string());
    let stack = &kept.stack;
    let uploads = "  uploads: { kind: files, path: data/uploads }";
    stack.configure(uploads, &format!("{uploads}\n  inbox: {{ kind: files, path: data/inbox }}"));
    stack.configure("    stop: {", "    env: { INBOX: \"{store.inbox}\" }\n    stop: {");
    let inbox = stack.root.join("data/inbox");
    fs::create_dir(&inbox).expect("creates");
    // Another user's, where this one may give it away.
    let root = rustix::process::geteuid().is_root();
    let owner = |path: &Path| {
        let found = fs::metadata(path).expect("there");
        (found.uid(), found.gid(), found.permissions().mode() & 0o7777)
    };
    if root {
        std::os::unix::fs::chown(&inbox, Some(4711), Some(4712)).expect("changes");
    }
    fs::set_permissions(&inbox, fs::Permissions::from_mode(0o2750)).expect("sets");
    let uploads = stack.root.join("data/uploads");
    fs::set_permissions(&uploads, fs::Permissions::from_mode(0o1730)).expect("sets");
    let were = [owner(&inbox), owner(&uploads)];
    stack.run(&["up"]).expect(0);
    stack.run(&["backup", "init"]).expect(0);
    kept.backup();
    stack.run(&["drill", "restore"]).expect(0);
    kept.restic(&["ls", "latest", "/stores/inbox"]).expect(0);
    let into = kept.beside.path().join("another-machine");
    let (repository, key) = (kept.repository(), kept.key());
    let [from, key, to] = [&repository, &key, &into].map(|p| p.to_str().expect("text"));
    switchback(&["restore", "--from", from, "--key-file", key, "--into", to]).expect(0);
    let back = into.join("data/inbox");
    assert_eq!([owner(&back), owner(&into.join("data/uploads"))], were);
    assert_eq!(fs::read_dir(&back).expect("lists").count(), 0);
}

#[test]
fn what_is_killed_or_cannot_be_read_is_no_backup() {
    let kept = Kept::new(&[]);
    let stack = &kept.stack;
    stack.run(&["backup", "init"]).expect(0);
    for fault in ["do:snapshot:during", "do:archive:during", "do:archive:before"] {
        let ran = stack.run_with(&["backup"], &[("SWITCHBACK_FAULT", fault)]);
        assert_ne!(ran.code, Some(0), "{fault}: {}", ran.all());
        assert_eq!(kept.list().len(), 0, "{fault}");
        assert_eq!(stack.run(&["resume", "--abort"]).code, Some(3), "{fault}");
        let left: Vec<_> = fs::read_dir(stack.state().join("staging")).expect("lists").flatten().collect();
        assert!(left.is_empty(), "{fault}: {left:?}");
    }
    // Killed in the middle, it goes on.
    let ran = stack.run_with(&["backup"], &[("SWITCHBACK_FAULT", "do:archive:before")]);
    assert_ne!(ran.code, Some(0));
    stack.run(&["resume"]).expect(0);
    assert_eq!(kept.list().len(), 1);
    // The disk with the repository is not there.
    fs::rename(kept.repository(), kept.beside.path().join("away")).expect("renames");
    let gone = stack.run(&["backup"]).expect(3);
    assert!(gone.all().contains("repository"), "{}", gone.all());
    assert_eq!(stack.version().as_deref(), Some("1.0.0"), "production is left alone");
}

#[test]
fn a_backup_that_fails_or_is_missed_is_told() {
    let kept = Kept { stack: Stack::new(&[]), beside: tempfile::tempdir().expect("tempdir") };
    kept.configure(&kept.repository().display().to_string());
    let stack = &kept.stack;
    stack.run(&["up"]).expect(0);
    stack.run(&["backup", "init"]).expect(0);
    // Nobody listens there: the log says what would have been told.
    stack.configure("stores:", "notify: [\"slack+http://127.0.0.1:9/hook\"]\nstores:");
    stack.configure("repository: ", "every: 1m, repository: ");
    let due = || stack.run(&["backup", "--if-due"]);
    let told = |event: &str| {
        let log = fs::read_to_string(stack.state().join("notify.log")).unwrap_or_default();
        log.lines().filter(|l| l.contains(event)).count()
    };
    let late = || stack.run(&["status", "--json"]).expect(0).json()["backup"]["late"]["backup"].clone();
    assert_eq!(late(), false);
    let away = kept.beside.path().join("away");
    fs::rename(kept.repository(), &away).expect("renames");
    due().expect(3);
    assert_eq!((told("backup_failed"), told("backup_missed")), (1, 0));
    // Ten minutes later it is not there either, whatever keeps it from being made.
    let marks = stack.state().join("late.json");
    let mut kept_in_mind: Value =
        serde_json::from_str(&fs::read_to_string(&marks).expect("reads")).expect("JSON");
    let first = kept_in_mind["backup"]["first_ms"].as_i64().expect("a time");
    kept_in_mind["backup"]["first_ms"] = (first - 600_000).into();
    fs::write(&marks, kept_in_mind.to_string()).expect("writes");
    assert_eq!(late(), true);
    assert!(stack.run(&["status"]).expect(0).stdout.contains("LATE"));
    assert!(
        stack.run(&["metrics"]).expect(0).stdout.contains("switchback_backup_late{stack=\"assistant\"} 1")
    );
    for _ in 0..2 {
        due();
    }
    assert_eq!(told("backup_missed"), 1, "once a day");
    fs::rename(&away, kept.repository()).expect("renames");
    kept.backup();
    assert_eq!(late(), false);
}

#[test]
fn rules_and_the_clock_and_the_key() {
    let kept = Kept::new(&[]);
    let stack = &kept.stack;
    stack.configure("repository: ", "every: 1h, drill: 2h, repository: ");
    stack.run(&["backup", "init"]).expect(0);
    // The same folder cannot be made a repository twice, and the key is not replaced.
    let key = fs::read_to_string(kept.key()).expect("a key");
    stack.run(&["backup", "init"]).expect(3);
    assert_eq!(fs::read_to_string(kept.key()).expect("a key"), key);

    // A backup is due, then a drill, then nothing.
    let due = || stack.run(&["backup", "--if-due", "--json"]).expect(0).json()["done"].clone();
    // The keeper may have been quicker with one of them.
    for _ in 0..2 {
        due();
    }
    assert_eq!(due(), Value::Null);
    let history = stack.run(&["history", "--json"]).expect(0).stdout;
    assert!(history.contains("\"backup\"") && history.contains("\"drill\""), "{history}");

    for _ in 0..3 {
        kept.backup();
    }
    assert_eq!(kept.list().len(), 2, "each backup removes what no rule keeps");
    let dry = stack.run(&["backup", "prune", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(
        (dry["kept"].as_array().map(Vec::len), dry["removed"].as_array().map(Vec::len)),
        (Some(2), Some(0))
    );

    let confirm = |text: &str| {
        let mut child = stack
            .command(&["backup", "key", "--confirm"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        child.stdin.take().expect("input").write_all(text.as_bytes()).expect("writes");
        child.wait_with_output().expect("ends").status.code()
    };
    assert!(stack.run(&["backup", "key"]).expect(0).stdout.contains("this machine only"));
    assert_eq!(confirm("wrong\n"), Some(3));
    assert_eq!(confirm(""), Some(2));
    assert!(stack.run(&["backup", "key"]).expect(0).stdout.contains("this machine only"));
    assert_eq!(confirm(&key), Some(0));
    assert!(!stack.run(&["backup", "key"]).expect(0).stdout.contains("this machine only"));
    for bad in ["../../x", "12345", "LATEST"] {
        stack.run(&["restore", "--snapshot", bad]).expect(2);
    }
    stack.run(&["restore", "--snapshot", "abcdef01"]).expect(3);
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_repository_behind_a_rest_server_holds_the_same() {
    let kept = Kept::new(&[]);
    let stack = &kept.stack;
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let folder = kept.beside.path().join("served");
    fs::create_dir(&folder).expect("makes");
    let server = Command::new("rclone")
        .args([
            "serve",
            "restic",
            "--addr",
            &format!("127.0.0.1:{port}"),
            "--user",
            "me",
            "--pass",
            "secret-of-rest",
        ])
        .arg(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rclone is installed (scripts/test installs it)");
    let _server = Server(server);
    stack.wait_until("the server answers", Duration::from_secs(10), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    // With a password in it, the address has a place of its own.
    let address = stack.root.join("address");
    fs::write(&address, format!("rest:http://me:secret-of-rest@127.0.0.1:{port}/pa/\n")).expect("writes");
    stack.configure(
        &format!("repository: \"{}\"", kept.repository().display()),
        "repository: \"file:address\"",
    );
    let made = stack.run(&["backup", "init"]).expect(0);
    assert!(!made.all().contains("secret-of-rest"), "{}", made.all());
    kept.backup();
    stack.write_note("second");
    let ran = stack.run(&["backup"]).expect(0);
    assert!(!ran.all().contains("secret-of-rest"), "{}", ran.all());
    assert_eq!(kept.list().len(), 2);
    stack.run(&["backup", "check", "--read-data"]).expect(0);
    stack.run(&["drill", "restore"]).expect(0);
}

/// SFTP, by way of rclone: a real server, and nobody starts anything by hand.
#[test]
fn a_repository_that_rclone_reaches_needs_no_server_of_the_users() {
    let host = SshHost::start();
    let kept = Kept { stack: Stack::new(&[]), beside: tempfile::tempdir().expect("tempdir") };
    let folder = kept.repository();
    let login = host.login();
    let user = login.split('@').next().expect("a user");
    let options =
        format!("host=127.0.0.1,port={},user={user},key_file={}", host.port(), host.key().display());
    let address = format!("rclone::sftp,{options}:{}", folder.display());
    kept.configure(&address);
    let stack = &kept.stack;
    let rclones = || {
        let all = fs::read_dir("/proc").expect("lists").flatten();
        let lines = all.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
        let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
        lines.filter(|l| l.contains(&folder.display().to_string()) && l.contains("serve")).collect::<Vec<_>>()
    };
    stack.run(&["backup", "init"]).expect(0);
    stack.run(&["up"]).expect(0);
    stack.write_note("over there");
    let ran = stack.run(&["backup"]).expect(0);
    assert!(
        !ran.all().contains("http://"),
        "where it is served meanwhile is nobody's business: {}",
        ran.all()
    );
    stack.run(&["drill", "restore"]).expect(0);
    assert_eq!(kept.list().len(), 1);
    kept.restic(&["check", "--read-data"]).expect(0);
    stack.wait_until("nothing is served", Duration::from_secs(10), || rclones().is_empty());

    // A killed backup leaves no server either.
    let mut child =
        stack.command(&["backup", "-q"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    stack.wait_until("it is served", Duration::from_secs(30), || !rclones().is_empty());
    child.kill().expect("kills");
    child.wait().expect("ends");
    stack.wait_until("its server is gone", Duration::from_secs(20), || rclones().is_empty());

    host.lock_out();
    let refused = stack.run(&["backup", "list"]).expect(3);
    assert!(refused.all().contains("rclone does not serve"), "{}", refused.all());
}
