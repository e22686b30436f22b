//! The process runtime with awkward services: daemons that hide, workers that stay, shims that are killed.

mod common;

use assistant::ReleaseKind;
use common::{PROGRAM, Stack, TOKEN};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A stack with one service that is a shell script; `command` health is a file that exists.
fn scripted(script: &str) -> Stack {
    let stack = Stack::new(&[]);
    let config = "stack: scripted\nservices:\n  app:\n    version: '1'\n    command: [/bin/sh, run.sh]\n    config: [run.sh]\n    \
         health: { command: [test, -e, ready], stable: 100ms, start: 5s }\n    stop: { grace: 2s }\n";
    fs::write(stack.root.join("switchback.yaml"), config).expect("writes");
    fs::write(stack.root.join("run.sh"), script).expect("writes");
    stack
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

fn pid_in(stack: &Stack, file: &str) -> i32 {
    let path = stack.state().join("generations/1/work").join(file);
    stack.wait_until("the pid is written", Duration::from_secs(5), || {
        fs::read_to_string(&path).is_ok_and(|t| t.trim().parse::<i32>().is_ok())
    });
    fs::read_to_string(path).expect("reads").trim().parse().expect("a pid")
}

#[test]
fn a_daemon_that_left_its_session_and_cleared_its_environment_is_stopped_too() {
    let stack = scripted(
        "setsid env -i /bin/sh -c 'echo $$ > hidden.pid; exec sleep 1000' &\ntouch ready\nexec sleep 1000\n",
    );
    stack.run(&["up"]).expect(0);
    let hidden = pid_in(&stack, "hidden.pid");
    assert!(alive(hidden));
    stack.run(&["down", "--yes"]).expect(0);
    assert!(!alive(hidden), "a process of the service survived");
}

#[test]
fn workers_that_outlive_the_main_process_are_waited_for_and_killed() {
    // The worker ignores TERM and stays when the main process has gone.
    let stack = scripted(
        "sh -c 'trap \"\" TERM; echo $$ > worker.pid; while :; do sleep 0.1; done' &\ntouch ready\ntrap 'exit 143' TERM\nwhile :; do sleep 0.05; done\n",
    );
    stack.run(&["up"]).expect(0);
    let worker = pid_in(&stack, "worker.pid");
    let ran = stack.run(&["down", "--yes"]).expect(0);
    assert!(!alive(worker), "the worker survived");
    assert!(ran.all().contains("was killed"), "{}", ran.all());
}

#[test]
fn a_killed_shim_leaves_the_service_running_and_up_repairs_it() {
    let stack = Stack::new(&[]);
    stack.run(&["up"]).expect(0);
    let state = stack.state().join("generations/1/services/app/state.json");
    let read = || -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(&state).expect("reads")).expect("JSON")
    };
    let shim = read()["shim"].as_i64().expect("a pid") as i32;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .expect("kills");
    stack.wait_until("the shim is gone", Duration::from_secs(5), || !alive(shim));
    assert_eq!(stack.version().as_deref(), Some("1.0.0"), "the service fell with its shim");
    stack.run(&["up"]).expect(0);
    assert_eq!(stack.processes().values().sum::<usize>(), 2, "{:?}", stack.processes());
    stack.run(&["down", "--yes"]).expect(0);
    assert!(stack.processes().is_empty());
}

#[test]
fn a_service_that_crashes_is_restarted() {
    let stack = scripted(
        "echo start >> starts\ntouch ready\n[ $(wc -l < starts) -ge 2 ] && exec sleep 1000\nsleep 0.5\nexit 0\n",
    );
    stack.run(&["up"]).expect(0);
    let starts = stack.state().join("generations/1/work/starts");
    stack.wait_until("it was started again", Duration::from_secs(10), || {
        fs::read_to_string(&starts).is_ok_and(|t| t.lines().count() == 2)
    });
    stack.run(&["down", "--yes"]).expect(0);
}

#[test]
fn logs_are_rotated_and_the_newest_lines_are_kept() {
    let dir = tempfile::tempdir().expect("tempdir");
    let logs = dir.path().join("log");
    let spec = serde_json::json!({
        "argv": ["/bin/sh", "-c", "i=0; while [ $i -lt 3 ]; do yes line | head -c 300000; i=$((i+1)); sleep 6; done; echo last; exec sleep 1000"],
        "cwd": dir.path(), "logs": logs, "log_bytes": 100_000, "log_keep": 2, "restart": "never"
    });
    fs::write(dir.path().join("spec.json"), spec.to_string()).expect("writes");
    let mut shim = Command::new(PROGRAM)
        .arg("__shim")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let size = |name: &str| fs::metadata(logs.join(name)).map_or(0, |m| m.len());
    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    while std::time::Instant::now() < deadline
        && !fs::read_to_string(logs.join("service.log")).is_ok_and(|t| t.ends_with("last\n"))
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(fs::read_to_string(logs.join("service.log")).expect("reads").ends_with("last\n"));
    assert!(size("service.log") < 400_000, "the live log was never cut: {}", size("service.log"));
    assert!(size("service.log.1") > 0 && size("service.log.2") > 0, "no rotated file");
    assert!(!logs.join("service.log.3").exists(), "more rotated files than configured");
    rustix::process::kill_process_group(
        rustix::process::Pid::from_raw(shim.id() as i32).expect("a pid"),
        rustix::process::Signal::KILL,
    )
    .ok();
    let children = fs::read_to_string(dir.path().join("state.json")).expect("reads");
    let child = serde_json::from_str::<serde_json::Value>(&children).expect("JSON")["child"].as_i64();
    if let Some(child) = child.and_then(|c| rustix::process::Pid::from_raw(c as i32)) {
        let _ = rustix::process::kill_process_group(child, rustix::process::Signal::KILL);
    }
    let _ = shim.kill();
    let _ = shim.wait();
}

#[test]
fn services_start_in_the_order_of_their_needs_and_all_are_upgraded_together() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    // A second service that is ready only when the first one answers, judged by a TCP port of its own.
    let second = format!(
        "  gate:\n    version: '1'\n    needs: [app]\n    command: [python3, -c, \"import socket,time,os,urllib.request;\
         urllib.request.urlopen('http://127.0.0.1:' + os.environ['APP'] + '/health').read();\
         s=socket.create_server(('127.0.0.1', int(os.environ['PORT'])));time.sleep(1000)\"]\n    \
         env: {{ APP: \"{{port.app.http}}\", PORT: \"{{port.tcp}}\" }}\n    restart: never\n    ports: {{ tcp: {} }}\n    \
         health: {{ tcp: tcp, stable: 100ms }}\nstores:\n",
        stack.port + 1
    );
    stack.configure("stores:\n", &second);
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let trace = stack.report()["traces"]["db"].clone();
    assert!(trace["file"]["transactions"].as_u64() > Some(0), "the migration was watched: {trace}");
    let defined = trace["statements"].as_array().expect("definitions");
    assert!(defined.iter().any(|s| s["objects"][0] == "table reminders" && s["effect"] == "adds"), "{trace}");
    stack.run(&["promote", "app=2.0.0", "--yes"]).expect(0);
    let running = stack.processes();
    assert_eq!(
        running.keys().map(String::as_str).collect::<Vec<_>>(),
        ["generations/2:app", "generations/2:gate"]
    );
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(
        stack.processes().keys().map(String::as_str).collect::<Vec<_>>(),
        ["generations/1:app", "generations/1:gate"]
    );
    stack.run(&["down", "--yes"]).expect(0);
}

/// A secret from the `env_file` appears nowhere but in the copies of that file.
#[test]
fn secrets_reach_neither_journal_nor_reports_nor_logs_nor_arguments() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::BrokenWorkflow]);
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.1.1"]).expect(3);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes"]).expect(0);
    for entry in fs::read_dir("/proc").expect("lists").flatten() {
        let argv = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!contains(&argv, TOKEN), "the token is in the arguments of {:?}", entry.file_name());
    }
    stack.run(&["rollback", "--yes"]).expect(0);
    for format in ["html", "markdown", "junit", "json", "text"] {
        stack.run(&["report", "--format", format]).expect(0);
    }
    let mut seen = 0;
    walk(&stack.state(), &mut |path, bytes| {
        seen += 1;
        let own = path.file_name().is_some_and(|n| n == "assistant.env");
        assert!(own || !contains(bytes, TOKEN), "the token is in {}", path.display());
    });
    assert!(seen > 50, "only {seen} files were looked at");
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn walk(dir: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(dir).expect("lists").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            walk(&entry.path(), look);
        } else if kind.is_file() {
            look(&entry.path(), &fs::read(entry.path()).unwrap_or_default());
        }
    }
}

/// Production is neither stopped nor refused a write while it is cloned.
#[test]
fn a_rehearsal_does_not_disturb_the_users_of_production() {
    let stack = Stack::with(&[ReleaseKind::V2], 3000);
    stack.run(&["up"]).expect(0);
    let state =
        || fs::read_to_string(stack.state().join("generations/1/services/app/state.json")).expect("reads");
    let before = state();
    let mut rehearsal =
        stack.command(&["rehearse", "app=2.0.0", "-q"]).stdout(Stdio::null()).spawn().expect("starts");
    let mut written = 0;
    while rehearsal.try_wait().expect("asks").is_none() {
        stack.write_note("written during the rehearsal"); // panics if it is refused
        written += 1;
    }
    assert!(rehearsal.wait().expect("ends").success());
    assert!(written > 20, "only {written} writes");
    assert_eq!(state(), before, "production was restarted");
}

/// On a file system that shares blocks, a clone copies nothing.
#[test]
fn on_a_reflink_file_system_clones_share_their_blocks() {
    let Some(dir) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "SWITCHBACK_TEST_REFLINK_DIR must be set in CI; use scripts/test"
        );
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR is not set; scripts/test sets it");
        return;
    };
    let stack = Stack::within(Path::new(&dir), &[ReleaseKind::V2], 3000);
    stack.run(&["up"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes", "--without-certificate", "--reason", "test"]).expect(0);
    let report = stack.report();
    for line in report["copies"].as_array().expect("copies") {
        assert!(line["stats"]["reflinked"].as_u64() > Some(0), "{line}");
    }
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
}

/// No success is claimed for something that is not what runs.
#[test]
fn a_process_of_another_generation_makes_the_read_back_fail() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["up"]).expect(0);
    let state =
        fs::read_to_string(stack.state().join("generations/1/services/app/state.json")).expect("reads");
    let child =
        serde_json::from_str::<serde_json::Value>(&state).expect("JSON")["child"].as_i64().expect("a pid");
    let environ = fs::read_to_string(format!("/proc/{child}/environ")).expect("reads");
    let marker = environ
        .split('\0')
        .find_map(|e| e.strip_prefix("SWITCHBACK_INSTANCE="))
        .expect("a marker")
        .to_owned();
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .env("SWITCHBACK_INSTANCE", marker.replace("generations/1", "generations/9"))
        .spawn()
        .expect("starts");
    let args = ["promote", "app=2.0.0", "--yes", "--without-certificate", "--reason", "test"];
    let ran = stack.run(&args).expect(4);
    assert!(ran.all().contains("of another generation runs"), "{}", ran.all());
    assert_eq!(stack.version().as_deref(), Some("1.0.0"));
    // A stack that runs is not taken down because starting it again finds the same.
    stack.run(&["up"]).expect(3);
    assert_eq!(stack.version().as_deref(), Some("1.0.0"), "a failed up stopped production");
    stranger.kill().expect("kills");
    stranger.wait().expect("ends");
    stack.run(&args).expect(0);
    assert_eq!(stack.version().as_deref(), Some("2.0.0"));
}

/// A copy of a stack's folder never takes the original's processes for its own.
#[test]
fn a_copied_folder_does_not_stop_the_original() {
    let stack = Stack::new(&[]);
    stack.run(&["up"]).expect(0);
    let copy = tempfile::tempdir().expect("tempdir");
    let to = copy.path().join("copy");
    assert!(Command::new("cp").arg("-a").arg(&stack.root).arg(&to).status().expect("copies").success());
    let output =
        Command::new(PROGRAM).arg("-C").arg(&to).args(["down", "--yes", "-q"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stack.version().as_deref(), Some("1.0.0"), "the copy stopped the original");
}
