//! n8n 1.71.3 to 2.8.4 on PostgreSQL, as somebody who follows examples/compose-n8n/README.md does it: refused, set
//! right, promoted, rolled back. Long; `scripts/test --full` runs it.

mod common;

use common::docker::{Example, Stack, docker, full};
use common::image::Image;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// n8n registers its webhooks some time after it says that it is ready.
const WEBHOOKS: Duration = Duration::from_secs(300);
const BANNER: &str = "workflow/shop-banner";

fn seeded(stack: Stack) -> Stack {
    stack.up();
    stack.seed(&[]);
    stack.wait_until("orders are added up", WEBHOOKS, || stack.order() == (200, Some(42)));
    assert_eq!(stack.banner(), (200, Some("Corner Shop".into())));
    // Checks ask for it on production, too. The first success of a workflow changes its user, who would then be another one.
    let menu = || stack.ask("GET", "/webhook/menu?guests=3", &[], None).is_ok_and(|(code, _)| code == 200);
    stack.wait_until("the menu is added up", WEBHOOKS, menu);
    stack
}

/// What its users made: everything that a rollback must give back.
fn made(stack: &Stack) -> Vec<String> {
    [
        "select md5(string_agg(to_jsonb(w)::text, '' order by id)) from workflow_entity w",
        "select md5(string_agg(to_jsonb(c)::text, '' order by id)) from credentials_entity c",
        "select md5(string_agg(to_jsonb(u)::text, '' order by id)) from \"user\" u",
        "select md5(string_agg(to_jsonb(e)::text, '' order by id)) from execution_entity e",
    ]
    .map(|sql| stack.psql(sql))
    .to_vec()
}

fn report(stack: &Stack) -> Value {
    stack.run(&["report", "--json"]).expect(0).json()
}

/// Failed checks: name, with the environment.
fn failed(report: &Value) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().expect("checks");
    let failed = checks.iter().filter(|c| c["verdict"] != "pass");
    let text = |v: &Value| v.as_str().expect("text").to_owned();
    failed.map(|c| (text(&c["id"]), text(&c["environment"]))).collect()
}

fn timed<T>(what: &str, place: &str, times: &mut BTreeMap<String, u128>, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    times.insert(what.to_owned(), began.elapsed().as_secs().into());
    eprintln!("MEASURED n8n on {place}: {what} took {:?}", began.elapsed());
    done
}

fn story(stack: &Stack, place: &str) {
    let mut times = BTreeMap::new();
    stack.run(&["up", "--yes"]).expect(0);
    let before = made(stack);

    // 2.8.4 lets no workflow read its environment: refused, for that reason and no other.
    let ran = timed("a refused rehearsal", place, &mut times, || stack.run(&["rehearse", "n8n=2.8.4"]));
    let ran = ran.expect(3);
    assert!(ran.all().contains(BANNER), "{}", ran.all());
    let refused = report(stack);
    let expected = [(BANNER.to_owned(), "candidate".to_owned())];
    assert_eq!(failed(&refused).into_iter().filter(|(_, e)| e != "code-only").collect::<Vec<_>>(), expected);
    let html = fs::read_to_string(newest_report(stack)).expect("a report");
    assert!(html.contains("shop-banner"), "the HTML report names the check");
    assert_traced(&refused);
    // The old version on the migrated data says that it is well, and its webhooks fail.
    let code_only = &refused["code_only"];
    assert_eq!(code_only["possible"], false, "{code_only}");
    let why = code_only["why"].as_str().unwrap_or_default();
    assert!(why.contains("order-total") || why.contains("shop-banner"), "{why}");
    stack.run(&["promote", "n8n=2.8.4", "--yes"]).expect(3);
    assert_eq!(made(stack), before, "production was touched");
    assert_eq!((stack.order(), stack.banner().0), ((200, Some(42)), 200));

    // As the README says.
    stack.set("N8N_BLOCK_ENV_ACCESS_IN_NODE", "false");
    timed("a rehearsal", place, &mut times, || stack.run(&["rehearse", "n8n=2.8.4"])).expect(0);
    let passed = report(stack);
    assert_eq!(passed["code_only"]["possible"], false, "{}", passed["code_only"]);
    let at_promotion = made(stack);
    timed("a promotion", place, &mut times, || stack.run(&["promote", "n8n=2.8.4", "--yes"])).expect(0);
    assert_eq!(stack.run(&["status", "--json"]).json()["versions"]["n8n"], "2.8.4");
    stack.wait_until("orders are added up by 2.8.4", WEBHOOKS, || stack.order() == (200, Some(42)));
    assert_eq!(stack.banner(), (200, Some("Corner Shop".into())));

    timed("a rollback", place, &mut times, || stack.run(&["rollback", "--yes"])).expect(0);
    assert_eq!(made(stack), at_promotion, "the rollback gave other data back");
    stack.wait_until("orders are added up by 1.71.3", WEBHOOKS, || stack.order() == (200, Some(42)));
    assert_eq!(stack.banner(), (200, Some("Corner Shop".into())));
    // What 2.8.4 executed is not lost: it is in the export.
    let exports = report(stack)["exports"]["db"].to_string();
    assert_ne!(exports, "null", "nothing was exported");
    assert!(exported_executions(stack) >= 2, "{exports}");
    eprintln!("MEASURED n8n on {place}, in seconds: {times:?}; {}", passed["times"]);
}

/// The migrations that 2.8.4 runs when it starts were traced.
fn assert_traced(report: &Value) {
    let trace = &report["traces"]["db"];
    assert_eq!(trace["timed"], true, "{}", trace["notes"]);
    let statements = trace["statements"].as_array().expect("statements");
    let with = |field: &str, value: &str| statements.iter().filter(|s| s[field] == value).count();
    assert!(with("tag", "ALTER TABLE") > 10 && with("tag", "CREATE TABLE") > 5, "{trace}");
    assert!(with("effect", "destroys") > 0 && with("lock", "access_exclusive") > 5, "{trace}");
    let locked = trace["tables"].as_array().expect("tables").iter().filter(|t| t["reads_blocked_us"] != 0);
    eprintln!(
        "MEASURED n8n: {} statements in {} ms, {} tables locked, {} bytes of log, errors {}",
        statements.len(),
        trace["span_us"].as_u64().unwrap_or(0) / 1000,
        locked.count(),
        trace["wal_bytes"],
        trace["errors"]
    );
}

fn newest_report(stack: &Stack) -> PathBuf {
    let runs = fs::read_dir(stack.root.join(".switchback/runs")).expect("runs").flatten();
    let newest = runs.map(|e| e.path()).max().expect("a run");
    newest.join("report.html")
}

/// Rows in the exported files of the table of executions.
fn exported_executions(stack: &Stack) -> usize {
    let mut folders = vec![stack.root.join(".switchback/exports/generation-2/db")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("an export").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                folders.push(entry.path());
            } else if entry.path().to_string_lossy().contains("execution_entity") {
                found += fs::read_to_string(entry.path()).unwrap_or_default().lines().count();
            }
        }
    }
    found
}

#[test]
fn n8n_is_refused_set_right_promoted_and_rolled_back() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    story(&seeded(Stack::compose(Example::N8n)), "the engine's own disk");
}

#[test]
fn the_checks_of_n8n_catch_every_known_bad_upgrade() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let stack = seeded(Stack::compose(Example::N8n));
    stack.run(&["up", "--yes"]).expect(0);
    let before = made(&stack);
    let proved = stack.run(&["prove", "--json", "--controls", "2"]).expect(0).json();
    let rows = proved["rows"].as_array().expect("rows");
    let of = |outcome: &str| -> Vec<&str> {
        rows.iter().filter(|r| r["outcome"] == outcome).filter_map(|r| r["id"].as_str()).collect()
    };
    eprintln!("MEASURED known-bad upgrades of n8n: {rows:?}");
    for outcome in ["survived", "alarmed", "unviable"] {
        assert!(of(outcome).is_empty(), "{outcome}: {proved}");
    }
    // No workflow of it uploads anything, and it migrates by itself.
    assert_eq!(of("not_applicable"), ["M16", "M18"], "{proved}");
    assert_eq!(made(&stack), before, "production was touched");
}

/// An image of 2.8.4 that is 1.71.3 once there is a certain file on its volume.
fn turning() -> Image {
    let start = "if [ -e /home/node/.n8n/old ]; then exec /old/node /old/app/node_modules/.bin/n8n \"$@\"; fi; exec n8n \"$@\"";
    let text = format!(
        "FROM sbt/n8n:1.71.3 AS old\nFROM sbt/n8n:2.8.4\nCOPY --from=old /app /old/app\n\
         COPY --from=old /usr/local/bin/node /old/node\nENTRYPOINT {}\nCMD [\"start\"]\n",
        serde_json::json!(["tini", "--", "sh", "-c", start, "n8n"])
    );
    Image::build("sbt/n8n", "2.8.4-turning", &text, &[])
}

/// The natural case: nothing but the webhooks tells.
#[test]
fn the_old_n8n_on_the_migrated_database_is_healthy_and_is_rolled_back_by_its_workflow() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let image = turning();
    let stack = seeded(Stack::compose(Example::N8n));
    stack.set("N8N_BLOCK_ENV_ACCESS_IN_NODE", "false");
    stack.edit("switchback.yaml", "watch: 30s, every: 3s", "watch: 2h, every: 3s, failures: 3");
    stack.run(&["up", "--yes"]).expect(0);
    // What follows the first success of a workflow, n8n writes some time later.
    let mut before = made(&stack);
    stack.wait_until("nothing changes by itself any more", Duration::from_secs(120), || {
        std::thread::sleep(Duration::from_secs(10));
        let now = made(&stack);
        std::mem::replace(&mut before, now.clone()) == now
    });
    let version = format!("n8n={}", image.tag);
    let why = ["--without-certificate", "--reason", "a test", "--yes", "--detach"];
    stack.run(&[&["promote", &version][..], &why].concat()).expect(0);
    stack.wait_until("orders are added up by 2.8.4", WEBHOOKS, || stack.order() == (200, Some(42)));
    // It asks for the menu with every look, and nothing of that is kept.
    let of_menu = "select count(*) from execution_entity where \"workflowId\" = (select id from workflow_entity where name = 'menu')";
    stack.wait_until("no execution of the menu is kept", Duration::from_secs(60), || {
        stack.psql(of_menu) == "0"
    });

    // The watchdog sees neither the end of the one nor the start of the other: only what is there afterwards.
    let status = stack.run(&["status", "--json"]).expect(0).json();
    let watchdog = status["trial"]["watchdog"].as_str().expect("one watches").to_owned();
    let pid: i32 =
        watchdog.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number");
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("runs").success());
    };
    signal("-STOP");
    let container = stack.container("n8n").expect("it runs");
    docker(&["exec", &container, "touch", "/home/node/.n8n/old"]).expect(0);
    docker(&["restart", &container]).expect(0);
    let healthy = || stack.inspect("n8n", "{{.State.Health.Status}}") == "healthy";
    stack.wait_until("the old one is healthy", WEBHOOKS, healthy);
    stack.wait_until("its webhooks fail", WEBHOOKS, || stack.order().0 == 500);
    let said = docker(&["exec", &container, "/old/node", "/old/app/node_modules/.bin/n8n", "--version"]);
    assert!(said.all().contains("1.71.3"), "{}", said.all());
    assert!(healthy());
    signal("-CONT");

    stack.wait_until("the watchdog rolls back", WEBHOOKS, || {
        let status = stack.run(&["status", "--json"]).expect(0).json();
        status["generation"] == 1 && status["trial"].is_null() && status["unfinished"].is_null()
    });
    let report = report(&stack);
    eprintln!("MEASURED the old n8n on the migrated database: {}; {}", report["times"], report["reason"]);
    // Every line of it is of this one check.
    let reason =
        report["reason"].as_str().expect("a reason").strip_prefix("trial failed: ").expect("a verdict");
    assert!(reason.split("; ").all(|line| line.starts_with("workflow/menu: ")), "{reason}");
    assert_eq!(made(&stack), before, "the rollback gave other data back");
    stack.wait_until("orders are added up by 1.71.3", WEBHOOKS, || stack.order() == (200, Some(42)));
}

#[test]
fn n8n_on_a_file_system_that_shares_blocks() {
    let (true, Some(place)) = (full(), std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR")) else {
        eprintln!("SKIPPED: long, and needs SWITCHBACK_TEST_REFLINK_DIR; scripts/test --full runs it");
        return;
    };
    let dir = tempfile::Builder::new().prefix("n8n-").tempdir_in(Path::new(&place)).expect("tempdir");
    let stack = Stack::compose(Example::N8n);
    let mut volumes = String::from("\nvolumes:\n");
    for name in ["db", "n8n"] {
        let device = dir.path().join(name);
        fs::create_dir(&device).expect("creates");
        // n8n runs as a user of its own and expects that the volume is its user's.
        fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("sets");
        volumes +=
            &format!("  {name}:\n    driver_opts: {{ type: none, o: bind, device: {} }}\n", device.display());
    }
    stack.edit("compose.yaml", "\nvolumes:\n  db:\n  n8n:\n", &volumes);
    let stack = seeded(stack);
    story(&stack, "a file system that shares blocks");
    let copies = report(&stack);
    drop(stack);
    drop(dir);
    assert!(!copies.is_null());
}
