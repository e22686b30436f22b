//! Upgrades of Compose stacks from beginning to end, on a real engine: a real application, a quick one, releases that
//! break, interruptions, and a stack that collides with every copy of itself.

mod common;

use common::docker::{DB_PASSWORD, Example, HUB_TOKEN, Stack, docker, free_port};
use common::upgrade::{
    Bystander, PATIENCE, assert_no_secret_is_told, assert_same_tree, containers, derived_image, exported,
    generation, has_begun, mountpoint, report, staging_left, start, state, status, tree, wait_for_rollback,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WAIVED: [&str; 3] = ["--without-certificate", "--reason", "a test"];

/// The image of the bank that breaks in one way; its tag.
fn breaking(kind: &str) -> String {
    let version = format!("sbt-e2e-{kind}");
    let how = match kind {
        // It listens where nobody looks.
        "mute" => "FROM sbt/bank:2\nENV BANK_PORT=9090\n",
        // `bank.py migrate` knows no way to 3.
        "lost" => "FROM sbt/bank:1\nENV BANK_RELEASE=3\n",
        // Good at first; then nothing answers, and the container runs on.
        "later" => {
            "FROM sbt/bank:2\nCMD [\"sh\", \"-c\", \"timeout 12 python3 /app/bank.py; sleep 86400\"]\n"
        }
        other => panic!("{other}"),
    };
    derived_image(&format!("sbt/bank:{version}"), how);
    version
}

/// A bank that runs and is known to Switchback.
fn bank() -> Stack {
    let stack = Stack::compose(Example::Bank);
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 20s", "start: 90s");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 10s");
    stack.up();
    for _ in 0..5 {
        stack.transfer();
    }
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

/// Production is healthy on this generation and its books balance.
#[track_caller]
fn assert_bank(stack: &Stack, on: u64, release: u64) {
    let status = status(stack);
    assert_eq!(status["generation"], on, "{status}");
    assert!(status["unfinished"].is_null(), "{status}");
    let audit = stack.bank();
    assert_eq!((&audit["ok"], &audit["release"]), (&true.into(), &release.into()), "{audit}");
    let running: Vec<String> = containers(stack).into_keys().collect();
    assert_eq!(running, ["bank"], "other containers of the project are left");
}

/// What a person types starts what runs, and nothing else.
#[track_caller]
fn assert_plain_compose_changes_nothing(stack: &Stack) {
    let before = containers(stack);
    let ran = stack.docker_compose(&["up", "-d"]).expect(0);
    assert_eq!(containers(stack), before, "`docker compose up -d` changed what runs: {}", ran.all());
}

#[test]
fn jupyterhub_is_upgraded_and_rolled_back_exactly_and_nothing_else_is_touched() {
    let stack = Stack::compose(Example::JupyterHub);
    let folder = |volume: &str| mountpoint(&format!("{}_{volume}", stack.project));
    jupyterhub(&stack, &folder);
}

/// The same on XFS, where no block of the data is copied.
#[test]
fn jupyterhub_on_a_file_system_that_shares_blocks() {
    let Some(place) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        assert!(std::env::var_os("CI").is_none(), "SWITCHBACK_TEST_REFLINK_DIR must be set in CI");
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR is not set; scripts/test sets it");
        return;
    };
    let dir = tempfile::Builder::new().prefix("hub-").tempdir_in(Path::new(&place)).expect("tempdir");
    let mut volumes = String::from("\nvolumes:\n");
    for name in ["db", "srv"] {
        let device = dir.path().join(name);
        fs::create_dir(&device).expect("creates");
        volumes +=
            &format!("  {name}:\n    driver_opts: {{ type: none, o: bind, device: {} }}\n", device.display());
    }
    let stack = Stack::compose(Example::JupyterHub);
    stack.edit("compose.yaml", "\nvolumes:\n  db:\n  srv:\n", &volumes);
    jupyterhub(&stack, &|volume| dir.path().join(volume));
    let copies = report(&stack)["copies"].as_array().expect("copies").clone();
    assert!(!copies.is_empty());
    for copy in copies {
        assert_eq!(copy["stats"]["bytes_written"], 0, "{copy}");
    }
    // What runs goes before its folder.
    drop(stack);
}

/// The migration was traced, and nothing of the trace is in what was compared.
#[track_caller]
fn assert_traced(rehearsal: &Value) {
    let trace = &rehearsal["traces"]["db"];
    assert_eq!(trace["timed"], true, "{trace}");
    let tables = trace["tables"].as_array().expect("tables");
    // New tables refer to it.
    let users = tables.iter().find(|t| t["name"] == "hub.public.users");
    let users = users.unwrap_or_else(|| panic!("foreign keys lock the users: {trace}"));
    assert_eq!(
        (&users["lock"], &users["reads_blocked_us"]),
        (&"share_row_exclusive".into(), &0.into()),
        "{users}"
    );
    assert!(users["writes_blocked_us"].as_u64().expect("a time") > 0, "{users}");
    let altered = tables.iter().any(|t| t["lock"] == "access_exclusive" && t["reads_blocked_us"] != 0);
    assert!(altered, "no table is altered: {trace}");
    let tags = trace["statements"].as_array().expect("statements").iter().map(|s| &s["tag"]);
    for wanted in ["ALTER TABLE", "CREATE TABLE", "UPDATE"] {
        assert!(tags.clone().any(|t| t == wanted), "no {wanted}: {trace}");
    }
    let queries = &rehearsal["queries"]["db"];
    assert!(
        queries["old"]["calls"].as_u64() > Some(0) && queries["new"]["calls"].as_u64() > Some(0),
        "{queries}"
    );
    let heaviest = queries["heaviest"].as_array().expect("statements");
    assert!(
        heaviest
            .iter()
            .any(|q| q["old_plan"]["nodes"][0].is_string() && q["new_plan"]["nodes"][0].is_string()),
        "{queries}"
    );
    let diffs = rehearsal["diffs"].to_string();
    assert!(!diffs.contains("switchback_") && !diffs.contains("pg_stat_statements"), "{diffs}");
}

/// Upgrades a hub, rolls it back and upgrades it again. `folder` says where the data of a volume lies.
fn jupyterhub(stack: &Stack, folder: &dyn Fn(&str) -> PathBuf) {
    stack.edit("switchback.yaml", "watch: 20s, every: 2s", "watch: 5s, every: 1s");
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 90s", "start: 4m");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 20s");
    stack.up();
    stack.seed(&["--users", "20", "--groups", "3"]);
    let bystander = Bystander::start(stack);
    let people = stack.people();
    let running = containers(stack);
    stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(containers(stack), running, "taking the stack over restarted it");

    let began = Instant::now();
    stack.run(&["rehearse", "hub=5.4.6"]).expect(0);
    eprintln!("MEASURED jupyterhub: rehearsal {:?}", began.elapsed());
    let rehearsal = report(stack);
    assert_eq!(rehearsal["conclusion"], "pass");
    assert!(!rehearsal["certificate"].is_null(), "{rehearsal}");
    assert_eq!(rehearsal["code_only"]["possible"], false, "{}", rehearsal["code_only"]);
    assert_traced(&rehearsal);
    assert_eq!(containers(stack), running, "a rehearsal restarted production");
    assert_eq!(staging_left(stack), Vec::<String>::new());
    bystander.assert_untouched();

    // The rows that neither release writes by itself.
    let rows = || {
        stack.psql(
            "select string_agg(x, ' ' order by x) from (select u::text x from \
             (select id, name, admin, cookie_id, created from users) u \
             union all select g::text from groups g union all select m::text from user_group_map m \
             union all select version_num from alembic_version) all_of_it",
        )
    };
    let before = rows();
    let began = Instant::now();
    stack.run(&["promote", "hub=5.4.6", "--yes"]).expect(0);
    eprintln!(
        "MEASURED jupyterhub: promotion with trial {:?}, down {} ms",
        began.elapsed(),
        report(stack)["times"]["downtime_ms"]
    );
    let volumes = ["db", "srv"].map(|v| format!("{}_{v}", stack.project));
    let originals = || ["db", "srv"].map(|v| tree(&folder(v)));
    let left = originals();
    let lock = fs::read_to_string(stack.root.join("switchback.lock.yaml")).expect("reads");
    // A volume of its own, or a folder beside the original.
    let own = lock.contains(".g2") || lock.contains("/g2/");
    assert!(lock.contains("eneration 2") && own, "{lock}");
    let env = fs::read_to_string(stack.root.join(".env")).expect("reads");
    assert!(env.contains("COMPOSE_FILE=compose.yaml:switchback.lock.yaml"), "no lock file in .env");
    assert_plain_compose_changes_nothing(stack);
    assert_eq!((generation(stack), stack.hub_version()), (2, "5.4.6".to_owned()));
    assert_eq!(stack.people(), people);
    assert_eq!(stack.hub("POST", "/users/latecomer", None).0, 201);
    stack.run(&["gc", "--yes"]).expect(0);
    for (was, is) in left.iter().zip(&originals()) {
        assert_same_tree(was, is, "the data of generation 1");
    }

    let began = Instant::now();
    stack.run(&["rollback", "--yes"]).expect(0);
    eprintln!(
        "MEASURED jupyterhub: rollback {:?}, down {} ms",
        began.elapsed(),
        report(stack)["times"]["rollback_downtime_ms"]
    );
    assert_eq!((generation(stack), stack.hub_version()), (1, "3.1.1".to_owned()));
    assert_eq!(stack.people(), people);
    assert_eq!(rows(), before, "the rows are not those of before");
    let writes = exported(stack, 2, "db");
    let users: Vec<&Value> =
        writes.iter().filter(|(file, _)| file.contains("users")).flat_map(|(_, rows)| rows).collect();
    assert!(
        users.iter().any(|r| r["op"] == "insert" && r["row"]["name"] == "latecomer"),
        "the later write is not in the export: {writes:?}"
    );
    assert_plain_compose_changes_nothing(stack);
    stack.run(&["gc", "--yes"]).expect(0);
    for volume in &volumes {
        mountpoint(volume);
    }

    stack.run(&["promote", "hub=5.4.6", "--yes"]).expect(0);
    assert_eq!((generation(stack), stack.hub_version()), (3, "5.4.6".to_owned()));
    assert_eq!(stack.people(), people);
    assert_plain_compose_changes_nothing(stack);
    stack.run(&["gc", "--yes"]).expect(0);
    for volume in &volumes {
        mountpoint(volume);
    }
    bystander.assert_untouched();
    assert_eq!(staging_left(stack), Vec::<String>::new());
    for format in ["html", "markdown", "junit", "json", "text"] {
        stack.run(&["report", "--format", format]).expect(0);
    }
    assert_no_secret_is_told(stack, &[DB_PASSWORD, HUB_TOKEN]);
}

#[test]
fn the_bank_is_upgraded_and_rolled_back_and_upgraded_again() {
    let stack = bank();
    let bystander = Bystander::start(&stack);
    let running = containers(&stack);
    let began = Instant::now();
    stack.run(&["rehearse", "bank=2"]).expect(0);
    eprintln!("MEASURED bank: rehearsal {:?}", began.elapsed());
    let rehearsal = report(&stack);
    assert!(!rehearsal["certificate"].is_null(), "{rehearsal}");
    assert_eq!(rehearsal["code_only"]["possible"], false, "{}", rehearsal["code_only"]);
    assert_eq!(containers(&stack), running, "a rehearsal restarted production");
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    let before = stack.bank();
    let began = Instant::now();
    stack.run(&["promote", "bank=2", "--yes"]).expect(0);
    eprintln!("MEASURED bank: promotion with trial {:?}", began.elapsed());
    assert_bank(&stack, 2, 2);
    assert_plain_compose_changes_nothing(&stack);
    let volumes = ["books", "receipts"].map(|v| format!("{}_{v}", stack.project));
    let originals = || volumes.clone().map(|v| tree(&mountpoint(&v)));
    let left = originals();
    let later: Vec<u64> = (0..3).map(|_| stack.transfer()).collect();
    // Images of generations keep their second name, that of a generation which is gone does not; others' are theirs.
    let home = switchback_engine::home::Home::open(&stack.root).expect("opens");
    let id = home.id().expect("an id").to_lowercase();
    let [unused, others] = [&id, &stack.project].map(|who| format!("switchback-kept:{who}-0123456789abcdef"));
    for name in [&unused, &others] {
        docker(&["tag", "sbt/python:3.11", name]).expect(0);
    }
    stack.run(&["gc", "--yes"]).expect(0);
    let names = docker(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "switchback-kept"]).expect(0);
    let of_stack = |name: &&str| name.starts_with(&format!("switchback-kept:{id}"));
    assert_eq!(names.stdout.lines().filter(of_stack).count(), 2, "{}", names.stdout);
    assert!(!names.stdout.contains(&unused) && names.stdout.contains(&others), "{}", names.stdout);
    docker(&["rmi", &others]).expect(0);
    for (was, is) in left.iter().zip(&originals()) {
        assert_same_tree(was, is, "the data of generation 1");
    }

    let began = Instant::now();
    stack.run(&["rollback", "--yes"]).expect(0);
    eprintln!("MEASURED bank: rollback {:?}", began.elapsed());
    assert_bank(&stack, 1, 1);
    for field in ["transfers", "receipts", "sum"] {
        assert_eq!(stack.bank()[field], before[field], "{field} is not that of before");
    }
    assert_plain_compose_changes_nothing(&stack);
    let kept: Vec<u64> = exported(&stack, 2, "books")["transfers.jsonl"]
        .iter()
        .map(|r| {
            assert_eq!(r["op"], "insert", "{r}");
            r["key"]["id"].as_u64().expect("an id")
        })
        .collect();
    assert_eq!(kept, later, "the export does not hold exactly the later writes");

    // Down and up again by hand: the lock file names what is right.
    stack.docker_compose(&["down"]).expect(0);
    stack.up();
    assert_bank(&stack, 1, 1);
    stack.run(&["promote", "bank=2", "--yes"]).expect(0);
    assert_bank(&stack, 3, 2);
    stack.run(&["gc", "--yes"]).expect(0);
    for volume in &volumes {
        mountpoint(volume);
    }
    bystander.assert_untouched();
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}

#[test]
fn releases_that_break_do_not_pass_the_rehearsal_and_are_undone_where_they_are_promoted() {
    let stack = bank();
    // Of the new releases; the old one keeps its own.
    stack.edit("switchback.yaml", "start: 90s", "start: 12s");
    let before = stack.bank();
    for (kind, reason) in [("mute", "healthy"), ("lost", "migrat")] {
        let version = format!("bank={}", breaking(kind));
        let running = containers(&stack);
        let ran = stack.run(&["rehearse", &version]).expect(3);
        assert!(ran.all().contains(reason), "{kind}: {}", ran.all());
        assert!(report(&stack)["certificate"].is_null(), "{kind}");
        assert_eq!(containers(&stack), running, "{kind}: a rehearsal restarted production");
        assert_eq!(staging_left(&stack), Vec::<String>::new(), "{kind}");
        stack.run(&["promote", &version, "--yes"]).expect(3);
        let ran = stack.run(&[&["promote", &version, "--yes"], &WAIVED[..]].concat()).expect(4);
        assert!(ran.all().contains(reason), "{kind}: {}", ran.all());
        assert_bank(&stack, 1, 1);
        assert_eq!(stack.bank(), before, "{kind}");
        assert_plain_compose_changes_nothing(&stack);
    }
}

#[test]
fn a_release_that_fails_only_after_its_promotion_is_rolled_back_by_the_watchdog() {
    let stack = bank();
    stack.edit("switchback.yaml", "watch: 5s", "watch: 1h");
    let before = stack.bank();
    let version = format!("bank={}", breaking("later"));
    stack.run(&[&["promote", &version, "--yes", "--detach"], &WAIVED[..]].concat()).expect(0);
    let number = stack.transfer();
    wait_for_rollback(&stack, PATIENCE);
    assert_bank(&stack, 1, 1);
    assert_eq!(stack.bank(), before);
    assert_plain_compose_changes_nothing(&stack);
    let kept = exported(&stack, 2, "books");
    assert_eq!(kept["transfers.jsonl"].len(), 1, "{kept:?}");
    assert_eq!(kept["transfers.jsonl"][0]["key"]["id"], number);
}

#[test]
fn ctrl_c_in_a_rehearsal_and_in_a_promotion_leaves_what_resume_goes_on_with() {
    let stack = bank();
    let interrupt = |args: &[&str], step: &str| {
        let mut child = start(&stack, args);
        stack.wait_until(step, PATIENCE, || {
            let ended = child.try_wait().expect("asks").is_some();
            let begun = has_begun(&stack, step);
            assert!(begun || !ended, "it ended before {step}");
            begun
        });
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("fits")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signals");
        assert_eq!(child.wait().expect("ends").code(), Some(130), "{args:?}");
        assert!(!status(&stack)["unfinished"].is_null());
    };
    let running = containers(&stack);
    interrupt(&["rehearse", "bank=2"], "start-baseline");
    assert_eq!(containers(&stack), running, "production was touched");
    stack.run(&["resume"]).expect(0);
    assert!(!report(&stack)["certificate"].is_null());
    assert_eq!(containers(&stack), running, "production was touched");
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    interrupt(&["rehearse", "bank=2"], "snapshot");
    stack.run(&["resume", "--abort"]).expect(3);
    assert_eq!(containers(&stack), running, "production was touched");
    assert_eq!(staging_left(&stack), Vec::<String>::new());

    interrupt(&["promote", "bank=2", "--yes"], "clone");
    let ran = stack.run(&["resume", "--wait", "60s"]);
    assert!(matches!(ran.code, Some(0 | 3 | 4)), "{}", ran.all());
    assert_bank(&stack, 2, 2);
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}

/// The writers are frozen when the program dies: the guard thaws them.
#[cfg(feature = "faults")]
#[test]
fn a_rehearsal_killed_while_production_is_paused_lets_it_go_on_within_seconds() {
    let stack = bank();
    stack.set("BANK_RATE", "20");
    // Copies make no transfers of their own accord: what a migration changes is seen then.
    stack.edit("switchback.yaml", "\nrollback:", "\nstaging: { env: { BANK_RATE: \"0\" } }\n\nrollback:");
    stack.docker_compose(&["up", "-d", "--wait"]).expect(0);
    let running = containers(&stack);
    let fault = [("SWITCHBACK_FAULT", "do:snapshot:during")];
    for how in ["resume", "abort"] {
        let mut killed = common::upgrade::command(&stack, &["rehearse", "bank=2"], &fault)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        assert_eq!(killed.wait().expect("ends").code(), None, "the fault did not fire");
        let died = Instant::now();
        let answers = || {
            stack.inspect("bank", "{{.State.Status}}") == "running"
                && matches!(stack.ask("GET", "/health", &[], None), Ok((200, _)))
        };
        stack.wait_until("production goes on", Duration::from_secs(20), answers);
        eprintln!("MEASURED bank: production answered {:?} after the kill", died.elapsed());
        assert_eq!(containers(&stack), running, "production was restarted");
        if how == "resume" {
            // 3: on a machine that is busy enough, no clone fits into the pause; then it is all undone.
            let ran = stack.run(&["resume"]);
            assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.all());
            assert_eq!(report(&stack)["certificate"].is_null(), ran.code != Some(0), "{}", ran.all());
        } else {
            stack.run(&["resume", "--abort"]).expect(3);
        }
        stack.run(&["gc", "--yes"]).expect(0);
        assert_eq!(staging_left(&stack), Vec::<String>::new(), "{how}");
        assert_eq!(containers(&stack), running, "production was restarted");
        let audit = stack.bank();
        assert_eq!(audit["ok"], true, "{audit}");
    }
}

#[test]
fn a_stack_that_collides_with_every_copy_is_rehearsed_beside_production_and_upgraded() {
    let stack = Stack::compose(Example::Crowded);
    let outside = format!("{}-outside", stack.project);
    let label = format!("com.docker.compose.project={}", stack.project);
    docker(&["network", "create", "--label", &label, &outside]).expect(0);
    stack.set("OUTSIDE_NETWORK", &outside);
    stack.set("COMPOSE_PROFILES", "guarded");
    stack.set("SECOND_PORT", &free_port().saturating_add(2_500).to_string());
    stack.docker_compose(&["up", "-d", "--no-build"]).expect(0);
    stack.wait_until("the bank answers", PATIENCE, || {
        matches!(stack.ask("GET", "/health", &[], None), Ok((200, _)))
    });
    let teller = format!("{}-teller", stack.project);
    let inside = |script: &str| docker(&["exec", &teller, "sh", "-c", script]).expect(0).stdout;
    inside("echo warm > /cache/file");
    for _ in 0..3 {
        stack.transfer();
    }
    stack.run(&["up", "--yes"]).expect(0);
    let running = containers(&stack);
    assert_eq!(running.keys().collect::<Vec<_>>(), ["bank", "guard", "setup"]);

    stack.run(&["rehearse", "bank=2"]).expect(0);
    assert!(!report(&stack)["certificate"].is_null());
    assert_eq!(containers(&stack), running, "a rehearsal restarted production");
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    let members =
        docker(&["network", "inspect", "--format", "{{len .Containers}}", &outside]).expect(0).stdout;
    assert_eq!(members.trim(), "1", "a copy joined production's network");

    let books = stack.bank();
    let sees = "printf '%s|%s|' \"$FEE\" \"$BANK_MOTTO\"; cat /cache/file /etc/bank/rules /run/secrets/vault \
                /data/setup.txt; test -S /var/run/docker.sock && hostname";
    let seen = inside(sees);
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>().join(" "),
        "5$|always balanced|warm no credit combination-of-the-vault-9931 paid in /data teller"
    );
    stack.run(&["promote", "bank=2", "--yes"]).expect(0);
    assert_eq!(generation(&stack), 2);
    assert_eq!((&stack.bank()["ok"], &stack.bank()["release"]), (&true.into(), &2.into()));
    assert_eq!(inside(sees), seen, "the new generation does not see what the old one saw");
    let image = || stack.inspect("bank", "{{.Id}}");
    let before = image();
    stack.docker_compose(&["up", "-d"]).expect(0);
    assert_eq!(image(), before, "`docker compose up -d` recreated it");
    inside("echo hot > /cache/file");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(generation(&stack), 1);
    assert_eq!(inside(sees), seen);
    assert_eq!(stack.bank()["transfers"], books["transfers"]);
    let kept = state(&stack).join("exports/generation-2/cache");
    assert!(kept.is_dir(), "{} is missing", kept.display());
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    assert_no_secret_is_told(&stack, &["combination-of-the-vault-9931"]);
}
