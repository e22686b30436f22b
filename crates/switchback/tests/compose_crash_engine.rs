//! What a switch does when the Docker engine itself goes away in the middle of it: for a moment, as when it is updated,
//! or for longer. Production must end healthy on one generation, with equal data, and nothing left over.

mod common;

use common::bank::{Bank, PROMOTE, ROLLBACK};
use common::docker::{Example, Stack, docker, labelled};
use common::engine::OwnEngine;
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

fn begin(bank: &Bank, args: &[&str]) -> Child {
    bank.stack.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
}

/// Begins a promotion, and returns in the middle of its migration, which takes seconds.
fn migrating(bank: &Bank) -> Child {
    bank.settle_on(1);
    bank.stack.set_version("1");
    let child = begin(bank, &PROMOTE);
    bank.stack.wait_until("the migration runs", LIMIT, || {
        let name = format!("name={}-migrate-run-bank", bank.stack.project);
        !docker(&["ps", "-q", "--filter", &name]).stdout.is_empty()
    });
    child
}

#[track_caller]
fn ends(bank: &Bank, child: Child, case: &str) {
    let output = child.wait_with_output().expect("waits");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    eprintln!("{case}: {said}");
    assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{case}: {:?}", output.status.code());
    let end = bank.assert_sound(case);
    eprintln!("{case}: exit {:?}, on release {end}", output.status.code());
}

#[test]
fn an_engine_that_goes_away_in_the_middle_of_a_switch_leaves_one_generation() {
    let Some(mut engine) = OwnEngine::start(&["sbt/bank:1", "sbt/bank:2"]) else { return };
    let bank = Bank::with(|stack| {
        let migrate = "[sh, -c, \"sleep 4; python3 /app/bank.py migrate\"]";
        stack.edit("switchback.yaml", "[python3, /app/bank.py, migrate]", migrate);
    });

    let child = migrating(&bank);
    engine.stop();
    engine.boot();
    ends(&bank, child, "restarted while it migrates");

    bank.settle_on(2);
    let child = begin(&bank, &ROLLBACK);
    bank.stack.wait_until("the new generation is stopped", LIMIT, || {
        docker(&["ps", "-q", "--filter", &format!("name={}-bank-1", bank.stack.project)]).stdout.is_empty()
    });
    engine.stop();
    engine.boot();
    ends(&bank, child, "restarted while it rolls back");

    // The command line is killed as well, as when the host restarts both: nobody types anything.
    let mut child = migrating(&bank);
    child.kill().expect("kills");
    child.wait().expect("waits");
    engine.stop();
    engine.boot();
    bank.stack.wait_until("the watchdog took over", LIMIT, || {
        let status = bank.status();
        status["unfinished"].is_null() && status["busy"].is_null()
    });
    assert_eq!(
        bank.assert_sound("restarted after the command line was killed"),
        2,
        "it goes on, and is not undone"
    );

    // For longer than anybody waits.
    let child = migrating(&bank);
    engine.stop();
    let output = child.wait_with_output().expect("waits");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    for word in ["production is DOWN", "the Docker engine at unix:///", "switchback resume"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!bank.status()["unfinished"].is_null(), "the run waits to be resumed");
    engine.boot();
    let resumed = bank.stack.run(&["resume", "--wait", "120s"]);
    assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{:?} {}", resumed.code, resumed.all());
    assert_eq!(bank.assert_sound("gone, and back"), 2, "it goes on, and is not undone");
}

/// As the kernel does for want of memory: the process is gone, and the engine starts the container again.
fn kill_first_process(container: &str) -> bool {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", container]).stdout;
    let pid = pid.trim().parse().ok().filter(|pid| *pid > 1).and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok())
}

#[test]
fn a_database_that_dies_while_it_is_cloned_and_a_killed_export_leave_nothing_behind() {
    let stack = Stack::compose(Example::JupyterHub);
    stack.edit("switchback.yaml", "start: 90s", "start: 300s");
    stack.edit("switchback.yaml", "watch: 20s, every: 2s", "watch: 2h, every: 60s");
    stack.up();
    stack.open_accounts();
    stack.run(&["up", "--yes"]).expect(0);
    let id = fs::read_to_string(stack.root.join(".switchback/id")).expect("an id").trim().to_owned();
    let own = |kind: &str| -> Option<String> {
        let [containers, ..] = labelled("dev.switchback.helper", kind);
        let [stacks, ..] = labelled("dev.switchback.stack", &id);
        containers.into_iter().find(|c| stacks.contains(c))
    };
    let begin = |args: &[&str]| stack.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();

    // The database dies while the helper clones its volume under load.
    let load = stack.start_load(50);
    stack.wait_until("transfers", LIMIT, || stack.assert_accounts_balance() > 20);
    let db = stack.container("db").expect("a container");
    let mut rehearsal = begin(&["rehearse", "hub=5.4.6"]).expect("runs");
    let cloning = || {
        let name = own("1")?;
        let mounts = docker(&["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", &name]).stdout;
        mounts.contains("_db ").then_some(()).filter(|()| mounts.contains("_db."))
    };
    let mut killed = false;
    while rehearsal.try_wait().expect("waits").is_none() {
        killed = killed || cloning().is_some() && kill_first_process(&db);
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = rehearsal.wait_with_output().expect("waits");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(killed, "the clone was never seen: {said}");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    eprintln!("the database died while it was cloned: exit {:?}", output.status.code());
    stack.wait_until("the database runs again", LIMIT, || {
        stack.inspect("db", "{{.State.Status}} {{.State.Health.Status}}") == "running healthy"
    });
    let [containers, networks, volumes] = labelled("dev.switchback.stack", &id);
    assert_eq!((containers, networks, volumes), (vec![], vec![], vec![]), "left of the rehearsal");
    stack.assert_accounts_balance();
    load.stop();

    // A rollback is killed while it reads what was written since: from a server that it started for that.
    let promote = ["promote", "hub=5.4.6", "--yes", "--detach", "--without-certificate", "--reason", "crash"];
    stack.run(&promote).expect(0);
    let transfers = stack.assert_accounts_balance();
    let mut rollback = begin(&["rollback", "--yes"]).expect("runs");
    stack.wait_until("the server of the export runs", LIMIT, || {
        assert!(rollback.try_wait().expect("waits").is_none(), "the rollback ended before");
        own("server").is_some()
    });
    rollback.kill().expect("kills");
    rollback.wait().expect("waits");
    let resumed = stack.run(&["resume", "--wait", "300s"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.all());
    let [containers, ..] = labelled("dev.switchback.stack", &id);
    assert_eq!(containers, Vec::<String>::new(), "left of the export");
    assert_eq!(stack.hub_version(), "3.1.1");
    assert_eq!(stack.assert_accounts_balance(), transfers, "the old generation's data changed");
}
