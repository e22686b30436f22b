//! Bad input and bad hosts: each is refused with its message and exit code, and production is not touched.

mod common;

use assistant::ReleaseKind;
use common::runbook::Runbook;
use common::{PROGRAM, Ran, Stack};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Runs a command that must fail, and confirms that production is as before: same processes, same data.
#[track_caller]
fn refused(stack: &Stack, args: &[&str], code: i32, says: &str) -> Ran {
    let before = (pids(stack), stack.rows(1), stack.files(1), stack.status()["generation"].clone());
    let ran = stack.run(args);
    assert_eq!(ran.code, Some(code), "{args:?}\n{}", ran.all());
    assert!(ran.all().contains(says), "{args:?} does not say {says:?}:\n{}", ran.all());
    let after = (pids(stack), stack.rows(1), stack.files(1), stack.status()["generation"].clone());
    assert_eq!(before, after, "{args:?} touched production");
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    let staging: Vec<_> = fs::read_dir(stack.state().join("staging")).expect("lists").collect();
    assert!(staging.is_empty(), "{args:?} left staging behind");
    ran
}

fn pids(stack: &Stack) -> Vec<String> {
    let state = stack.state().join("generations/1/services/app/state.json");
    vec![fs::read_to_string(state).expect("reads"), format!("{:?}", stack.processes())]
}

fn up(releases: &[ReleaseKind]) -> Stack {
    let stack = Stack::new(releases);
    stack.run(&["up"]).expect(0);
    stack
}

#[test]
fn mistakes_in_the_configuration_are_named_with_file_line_and_suggestion() {
    let stack = Stack::new(&[]);
    let good = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
    let cases = [
        (
            "    health: {",
            "    helth: {",
            "unknown key \"helth\" in services.app",
            "did you mean \"health\"?",
        ),
        ("    version: 1.0.0\n", "", "the key \"version\" is missing in services.app", "add `version:`"),
        ("kind: sqlite", "kind: sqlit", "unknown value \"sqlit\"", "did you mean \"sqlite\"?"),
        ("{store.db}", "{store.bd}", "unknown placeholder {store.bd}", "known: {release}"),
        (
            "stores:\n",
            "  two: { version: '1', command: [x], ports: { web: PORT }, health: { tcp: web } }\nstores:\n",
            "is already used by services.app.ports.http",
            "its own port",
        ),
    ];
    for (from, to, says, hint) in cases {
        let text = good.replacen(from, &to.replace("PORT", &stack.port.to_string()), 1);
        assert_ne!(text, good, "{from:?} is not in the example");
        fs::write(stack.root.join("switchback.yaml"), text).expect("writes");
        let ran = stack.run(&["rehearse"]).expect(2);
        assert!(ran.stderr.contains("switchback.yaml:"), "no file and line: {}", ran.stderr);
        assert!(ran.stderr.contains(says) && ran.stderr.contains(hint), "{}", ran.stderr);
    }
    assert!(!stack.state().exists(), "a refused configuration made a state folder");
}

#[test]
fn usage_errors_have_exit_code_2() {
    let empty = tempfile::tempdir().expect("tempdir");
    let output = Command::new(PROGRAM).arg("-C").arg(empty.path()).arg("status").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no switchback.yaml"));
    let stack = up(&[ReleaseKind::V2]);
    refused(&stack, &["rehearse", "ap=2.0.0"], 2, "did you mean \"app\"?");
    refused(&stack, &["rehearse", "app"], 2, "is not SERVICE=VERSION");
    refused(&stack, &["rehearse", "app=../../etc"], 2, "is not a version");
    refused(&stack, &["rollback", "--to", "9", "--yes"], 2, "there is no generation 9");
    refused(&stack, &["rollback", "--yes"], 3, "no previous generation");
    refused(&stack, &["promote", "app=2.0.0"], 3, "there is no certificate");
    refused(&stack, &["down"], 2, "nobody to ask");
    refused(&stack, &["report", "ZZZ"], 2, "there is no run ZZZ");
    refused(&stack, &["rehearse", "app=9.9.9"], 3, "installed: 1.0.0, 2.0.0");
    refused(&stack, &["rehearse"], 3, "nothing to upgrade");
    refused(&stack, &["frobnicate"], 2, "unrecognized subcommand");
}

#[test]
fn a_command_that_does_not_exist_is_refused_before_anything_starts() {
    let stack = Stack::new(&[]);
    stack.configure("command: [\"{release}/bin/assistant\"", "command: [\"{release}/bin/nope\"");
    let ran = stack.run(&["up"]);
    assert_eq!(ran.code, Some(3), "{}", ran.all());
    assert!(ran.all().contains("does not exist or is not executable"), "{}", ran.all());
    assert!(stack.processes().is_empty());
    assert!(stack.status()["generation"].is_null(), "a stack that never started has a generation");
}

#[test]
fn upgrades_that_do_not_start_or_migrate_are_refused_by_the_rehearsal() {
    let stack = up(&[
        ReleaseKind::NeverHealthy,
        ReleaseKind::MigrationFails,
        ReleaseKind::MigrationHangs,
        ReleaseKind::MigrationNoop,
        ReleaseKind::StartFailsExit0,
    ]);
    stack.configure("start: 10s", "start: 6s");
    stack.configure("migrate_deadline: 30s", "migrate_deadline: 1s");
    refused(&stack, &["rehearse", "app=2.3.0"], 3, "did not become healthy within 6s");
    refused(&stack, &["rehearse", "app=2.3.1"], 3, "the migration of app failed: exit code 1");
    refused(&stack, &["rehearse", "app=2.3.2"], 3, "did not end within 1s");
    // The noop migration exits 0; what exposes it is that the new version refuses the data.
    refused(&stack, &["rehearse", "app=2.3.3"], 3, "schema mismatch");
    refused(&stack, &["rehearse", "app=2.5.1"], 3, "does not stay up");
}

#[test]
fn a_promotion_that_fails_is_undone_and_production_is_as_before() {
    let stack = up(&[ReleaseKind::NeverHealthy, ReleaseKind::MigrationFails]);
    stack.configure("start: 10s", "start: 2s");
    let (rows, files) = (stack.rows(1), stack.files(1));
    for version in ["app=2.3.0", "app=2.3.1"] {
        let args = ["promote", version, "--yes", "--without-certificate", "--reason", "test"];
        let ran = stack.run(&args).expect(4);
        assert!(ran.stdout.contains("failed and was undone"), "{}", ran.stdout);
        assert_eq!(stack.version().as_deref(), Some("1.0.0"));
        assert_eq!((stack.rows(1), stack.files(1)), (rows.clone(), files.clone()));
        assert_eq!(stack.processes().len(), 1, "{:?}", stack.processes());
        let config = fs::read_to_string(stack.root.join("switchback.yaml")).expect("reads");
        assert!(config.contains("version: 1.0.0"), "the configuration was changed by an undone promotion");
    }
}

#[test]
fn certificates_are_demanded_for_exactly_this_upgrade_and_expire() {
    let stack = up(&[ReleaseKind::V2, ReleaseKind::AutoMigrate]);
    stack.configure("rollback: {", "rehearsal: { valid: 3s, code_only_rollback: false }\nrollback: {");
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    refused(
        &stack,
        &["promote", "app=2.4.0", "--yes"],
        3,
        "there is a certificate, but not for app 1.0.0 -> 2.4.0",
    );
    // The same version with another artefact is another release.
    let page = stack.root.join("releases/2.0.0/web/index.html");
    let text = fs::read_to_string(&page).expect("reads");
    fs::write(&page, format!("{text}<!-- changed -->")).expect("writes");
    refused(&stack, &["promote", "app=2.0.0", "--yes"], 3, "with exactly these artefacts");
    fs::write(&page, text).expect("writes");
    std::thread::sleep(Duration::from_secs(3));
    refused(&stack, &["promote", "app=2.0.0", "--yes"], 3, "has expired");
}

/// What was seen last counts: a certificate is void once the same upgrade did not pass its rehearsal.
#[test]
fn a_rehearsal_that_is_refused_voids_the_certificate_of_an_earlier_one() {
    let stack = up(&[ReleaseKind::V2]);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let fails = stack.root.join("checks/z-fails.yaml");
    let workflow = "name: what fails\nsteps:\n  - name: asks\n    request: { url: \"{{app.url}}/health\" }\n    \
                    expect: { status: 418 }\n";
    fs::write(&fails, workflow).expect("writes");
    let refused_run = stack.run(&["rehearse", "app=2.0.0", "--json"]).expect(3).json();
    fs::remove_file(&fails).expect("removes");
    let ran = stack.run(&["promote", "app=2.0.0", "--yes"]).expect(3);
    let run = refused_run["run"].as_str().expect("a run");
    let said = format!(
        "the rehearsal {run} of app 1.0.0 -> 2.0.0 was refused, after a certificate for it was issued"
    );
    assert!(ran.stderr.contains(&said) && ran.stderr.contains("z-fails"), "{}", ran.stderr);
    assert!(ran.stderr.contains("rehearse again"), "{}", ran.stderr);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes", "--detach"]).expect(0);
}

#[test]
fn a_second_run_at_once_is_told_who_holds_the_lock() {
    let stack = up(&[ReleaseKind::MigrationHangs]);
    let mut first = stack
        .command(&["rehearse", "app=2.3.2"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    stack.wait_until("the first run holds the lock", Duration::from_secs(10), || {
        stack.status()["busy"].as_str().is_some_and(|b| b.contains("rehearse"))
    });
    let ran = stack.run(&["rehearse", "app=2.3.2"]).expect(8);
    assert!(ran.stderr.contains("another run holds the lock: rehearse (process"), "{}", ran.stderr);
    // Ctrl-C is a clean stop that leaves a resumable run and says what to type.
    let pid = rustix::process::Pid::from_raw(first.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
    assert_eq!(first.wait().expect("ends").code(), Some(130));
    let ran = stack.run(&["rehearse", "app=2.3.2"]).expect(3);
    assert!(ran.stderr.contains("switchback resume --abort"), "{}", ran.stderr);
    // What the interrupted run had started in staging is ended; production goes on.
    let ran = stack.run(&["resume", "--abort"]).expect(3);
    assert!(ran.stderr.contains("was undone") || ran.stdout.contains("was undone"), "{}", ran.stderr);
    stack.run(&["doctor"]).expect(0);
    assert!(
        !stack.state().join("staging").read_dir().is_ok_and(|mut d| d.next().is_some()),
        "staging is left"
    );
}

#[test]
fn damaged_and_newer_state_is_reported_and_nothing_is_guessed() {
    let stack = up(&[ReleaseKind::V2]);
    let journal = stack.state().join("journal.db");
    let sound = fs::read(&journal).expect("reads");
    let mut torn = sound.clone();
    torn.truncate(sound.len() / 2);
    fs::write(&journal, &torn).expect("writes");
    let ran = stack.run(&["rehearse", "app=2.0.0"]).expect(5);
    assert!(ran.stderr.contains("is damaged"), "{}", ran.stderr);
    fs::write(&journal, &sound).expect("writes");
    let connection = rusqlite::Connection::open(&journal).expect("opens");
    connection.execute("update meta set value = '99' where key = 'format'", []).expect("updates");
    drop(connection);
    let ran = stack.run(&["status"]).expect(5);
    assert!(ran.stderr.contains("written by a newer Switchback (format 99"), "{}", ran.stderr);
    fs::write(&journal, &sound).expect("writes");
    let pointer = stack.state().join("current.json");
    let text = fs::read_to_string(&pointer).expect("reads");
    fs::write(&pointer, text.replace("\"format\": 1", "\"format\": 2")).expect("writes");
    let ran = stack.run(&["rollback", "--yes"]).expect(5);
    assert!(ran.stderr.contains("newer Switchback"), "{}", ran.stderr);
    fs::write(&pointer, "{").expect("writes");
    let ran = stack.run(&["status"]).expect(5);
    assert!(ran.stderr.contains("current.json is damaged"), "{}", ran.stderr);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

#[test]
fn a_corrupt_database_is_refused() {
    let stack = up(&[ReleaseKind::V2]);
    stack.run(&["down", "--yes"]).expect(0);
    let path = stack.root.join("data/assistant.db");
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xA5);
    fs::write(&path, &bytes).expect("writes");
    let ran = stack.run(&["rehearse", "app=2.0.0"]).expect(3);
    assert!(ran.all().contains("damaged") || ran.all().contains("malformed"), "{}", ran.all());
    assert_eq!(fs::read(&path).expect("reads"), bytes, "the corrupt file was changed");
}

/// A small file system of its own; `None` (said loudly) where mounting is not permitted.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(at: &std::path::Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("creates");
        let option = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(at).status();
        if done.is_ok_and(|s| s.success()) {
            return Some(Self(at.to_owned()));
        }
        assert!(std::env::var_os("CI").is_none(), "a tmpfs cannot be mounted, and in CI it must be");
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (needs root)");
        None
    }
    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(Command::new("mount").args(["-o", &option]).arg(&self.0).status().expect("runs").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_too_full_is_refused_before_anything_is_touched() {
    let stack = up(&[ReleaseKind::V2]);
    stack.run(&["down", "--yes"]).expect(0);
    let Some(mount) = Mount::new(&stack.root.join("staging-disk"), "60m") else { return };
    // The state folder moves to the small disk.
    let state = stack.state();
    let done = Command::new("cp").arg("-a").arg(&state).arg(&mount.0).status().expect("runs");
    assert!(done.success());
    fs::remove_dir_all(&state).expect("removes");
    std::os::unix::fs::symlink(mount.0.join(".switchback"), &state).expect("links");
    stack.run(&["up"]).expect(0);
    refused(&stack, &["rehearse", "app=2.0.0"], 3, "not enough disk space");
    let mut book = Runbook::of("The disk is full");
    book.is_seen(&stack.run(&["rehearse", "app=2.0.0"]).expect(3).all(), &[]);
    book.types(&stack.root, "switchback gc --dry-run", &[]).expect(0);
    book.types(&stack.root, "switchback gc", &[]).expect(0);
    book.ends();
    // Read-only: the message names the folder and the reason.
    stack.run(&["down", "--yes"]).expect(0);
    mount.remount("ro");
    let ran = stack.run(&["rehearse", "app=2.0.0"]);
    assert_eq!(ran.code, Some(5), "{}", ran.all());
    assert!(ran.all().contains("Read-only file system"), "{}", ran.all());
    mount.remount("rw");
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_promotion_is_undone() {
    let stack = up(&[ReleaseKind::V2]);
    stack.run(&["down", "--yes"]).expect(0);
    let Some(mount) = Mount::new(&stack.root.join("small-disk"), "90m") else { return };
    let state = stack.state();
    assert!(Command::new("cp").arg("-a").arg(&state).arg(&mount.0).status().expect("runs").success());
    fs::remove_dir_all(&state).expect("removes");
    std::os::unix::fs::symlink(mount.0.join(".switchback"), &state).expect("links");
    stack.run(&["up"]).expect(0);
    let (rows, files) = (stack.rows(1), stack.files(1));
    stack.configure(
        "migrate: [\"{release}/bin/assistant\", \"migrate\", \"--release\", \"{release}\", \"--db\", \"{store.db}\"]",
        "migrate: [dd, if=/dev/zero, \"of={store.uploads}/big\", bs=1M]",
    );
    let ran = stack.run(&["promote", "app=2.0.0", "--yes", "--without-certificate", "--reason", "test"]);
    assert_eq!(ran.code, Some(4), "{}", ran.all());
    assert!(ran.all().contains("No space left on device"), "{}", ran.all());
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    assert_eq!((stack.rows(1), stack.files(1)), (rows, files));
    assert!(!stack.state().join("generations/2").exists(), "what filled the disk is still there");
    stack.run(&["down", "--yes"]).expect(0);
}

/// A stack on trial with a release, whose state lies on a disk that is then filled to the last byte.
fn on_trial_on_a_full_disk(kind: ReleaseKind) -> Option<(Stack, Mount)> {
    let stack = up(&[kind]);
    stack.run(&["down", "--yes"]).expect(0);
    let mount = Mount::new(&stack.root.join("small-disk"), "120m")?;
    let state = stack.state();
    assert!(Command::new("cp").arg("-a").arg(&state).arg(&mount.0).status().expect("runs").success());
    fs::remove_dir_all(&state).expect("removes");
    std::os::unix::fs::symlink(mount.0.join(".switchback"), &state).expect("links");
    stack.configure("watch: 2s", "watch: 1h");
    stack.configure("failures: 3", "failures: 8");
    stack.run(&["up"]).expect(0);
    let version = format!("app={}", kind.version());
    let args = ["promote", &version, "--yes", "--detach", "--without-certificate", "--reason", "test"];
    stack.run(&args).expect(0);
    let fill = format!("dd if=/dev/zero of='{}' bs=64k 2>/dev/null; true", mount.0.join("fill").display());
    assert!(Command::new("sh").args(["-c", &fill]).status().expect("runs").success());
    Some((stack, mount))
}

/// What was kept aside is enough for the watchdog to write down what it saw, and to roll back.
#[test]
fn a_disk_that_fills_up_during_a_trial_does_not_keep_the_watchdog_from_rolling_back() {
    let Some((stack, mount)) = on_trial_on_a_full_disk(ReleaseKind::LeakyPool) else { return };
    let back = || stack.version().as_deref() == Some("1.0.0");
    stack.wait_until("the old version is back", std::time::Duration::from_secs(60), back);
    fs::remove_file(mount.0.join("fill")).expect("removes");
    let settled = || {
        let status = stack.run(&["status", "--json"]);
        status.code == Some(0) && status.json()["generation"] == 1 && status.json()["unfinished"].is_null()
    };
    stack.wait_until("the rollback is recorded", std::time::Duration::from_secs(30), settled);
    stack.run(&["down", "--yes"]).expect(0);
}

#[test]
fn a_full_disk_does_not_keep_a_person_from_rolling_back() {
    let Some((stack, mount)) = on_trial_on_a_full_disk(ReleaseKind::V2) else { return };
    let before = stack.rows(1);
    // What a person does first.
    assert_eq!(stack.run(&["status", "--json"]).expect(0).json()["generation"], 2);
    stack.run(&["history"]).expect(0);
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    assert_eq!(stack.rows(1), before);
    fs::remove_file(mount.0.join("fill")).expect("removes");
    stack.run(&["down", "--yes"]).expect(0);
}

#[test]
fn a_mistake_in_the_configuration_does_not_keep_production_from_returning() {
    let stack = up(&[ReleaseKind::V2]);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes"]).expect(0);
    let file = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("command:", "comand:")).expect("writes");
    stack.run(&["rehearse"]).expect(2);
    let ran = stack.run(&["rollback", "--yes"]).expect(0);
    assert!(ran.stderr.contains("unknown key \"comand\""), "{}", ran.stderr);
    assert!(ran.stderr.contains("is used instead"), "{}", ran.stderr);
    stack.run(&["history"]).expect(0);
    fs::write(&file, text).expect("writes");
    assert_eq!(stack.status()["generation"].as_u64(), Some(1), "{}", stack.status());
}
