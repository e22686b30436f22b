//! The personal assistant, as somebody who follows examples/pa/README.md has it: six services, of which three share an
//! image; n8n and the assistant upgraded together. Long, but for its configuration; `scripts/test --full` runs it.

mod common;

use common::copy_folder;
use common::docker::full;
use common::image::Image;
use common::pa::{CHAT_TOKEN, PA_TOKEN, Pa};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use switchback_core::compose::Model;
use switchback_core::config::Config;
use switchback_core::workflow::Workflow;

const UPGRADE: [&str; 2] = ["n8n=2.8.4", "bot=2"];

/// What needs no engine and no image.
#[test]
fn compose_and_switchback_accept_the_example_as_it_is_copied() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().canonicalize().expect("exists").join("pa");
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/pa"), &root);
    for name in [".env", "pa.env"] {
        fs::copy(root.join(format!("{name}.example")), root.join(name)).expect("copies");
    }
    let said = Command::new("docker")
        .args(["compose", "config", "--format", "json"])
        .current_dir(&root)
        .env_clear()
        .envs(["PATH", "HOME"].into_iter().filter_map(|n| Some((n, std::env::var_os(n)?))))
        .output()
        .expect("docker is installed");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).expect("text");
    Model::parse(&text).expect("a model");
    let model: Value = serde_json::from_str(&text).expect("JSON");
    let services = model["services"].as_object().expect("services");
    let images: BTreeMap<&str, &str> =
        services.iter().map(|(n, s)| (n.as_str(), s["image"].as_str().expect("an image"))).collect();
    // What users get: published images, and one that Compose builds.
    let published =
        [("db", "postgres:16-alpine"), ("n8n", "docker.n8n.io/n8nio/n8n:1.71.3"), ("redis", "redis:7")];
    let built = ["bot", "mcp", "monitor"].map(|name| (name, "pa:1"));
    assert_eq!(images, published.into_iter().chain(built).collect());
    for (name, service) in services {
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} is open to others");
        }
    }

    let config =
        Config::parse(&fs::read_to_string(root.join("switchback.yaml")).expect("reads"), "switchback.yaml");
    let config = config.expect("no mistakes");
    assert_eq!(
        config.stores.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["db", "history", "n8n", "redis"]
    );
    let mut asked = BTreeSet::new();
    for entry in fs::read_dir(root.join("checks")).expect("lists").flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let workflow = Workflow::parse(&file, &fs::read_to_string(entry.path()).expect("reads"));
        let workflow = workflow.unwrap_or_else(|e| panic!("{file}: {e}"));
        asked.extend(workflow.references.into_iter().map(|r| r.name));
    }
    for name in ["bot", "mcp", "monitor", "n8n", "db", "PA_TOKEN"] {
        assert!(asked.contains(name), "no workflow asks for {name}: {asked:?}");
    }
    // The program itself, which also looks at the journeys; nothing of the stack runs.
    let ran = Command::new(common::PROGRAM).arg("-C").arg(&root).arg("status").output().expect("runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Failed checks with the candidate.
fn failed(report: &Value) -> BTreeSet<String> {
    let checks = report["checks"].as_array().expect("checks");
    let failed = checks.iter().filter(|c| c["verdict"] == "fail" && c["environment"] == "candidate");
    failed.map(|c| c["id"].as_str().expect("an id").to_owned()).collect()
}

/// An image of release 2 whose migration does something more.
fn bad(name: &str, sql: &str) -> Image {
    let text = "FROM sbt/pa:2\nCOPY more.sql /tmp/more.sql\nUSER root\n\
                RUN cat /tmp/more.sql >>/app/pa/migrations/2.sql\nUSER pa\n";
    Image::build("sbt/pa", name, text, &[("more.sql", sql)])
}

#[test]
fn bad_upgrades_of_the_assistant_are_refused_by_the_checks_that_are_there_for_them() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let pa = Pa::up();
    pa.0.run(&["up", "--yes"]).expect(0);
    let before = pa.made();

    // A migration that throws old reminders away: the data tells, and so does the invariant.
    let release = bad("forgets", "delete from reminders where due < '2030-04-01';\n");
    let version = format!("bot={}", release.tag);
    let ran = pa.0.run(&["rehearse", &version]).expect(3);
    let expected = ["integrity/db", "invariant/reminders"].map(str::to_owned).into();
    assert_eq!(failed(&pa.0.report()), expected, "{}", ran.all());
    assert!(ran.all().contains("reminders"), "{}", ran.all());
    pa.0.run(&["promote", &version, "--yes"]).expect(3);

    // n8n 2 lets no workflow read its environment: only the way through bot and n8n tells.
    pa.0.set("N8N_BLOCK_ENV_ACCESS_IN_NODE", "");
    let ran = pa.0.run(&["rehearse", "n8n=2.8.4"]).expect(3);
    assert_eq!(failed(&pa.0.report()), ["workflow/automation".to_owned()].into(), "{}", ran.all());
    pa.0.run(&["promote", "n8n=2.8.4", "--yes"]).expect(3);
    assert_eq!(pa.made()[..3], before[..3], "production was touched");
}

#[test]
fn the_assistant_and_n8n_are_upgraded_together_used_and_rolled_back() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let pa = Pa::up();
    let stack = &pa.0;
    stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(pa.says("remember the yellow folder #Desk"), "I keep that as note 5.");
    let (login, _) =
        stack.ask("POST", "/login", &[], Some(&serde_json::json!({ "name": "Ada" }))).expect("answers");
    assert_eq!(login, 200);

    // The rehearsal: what would have been sent is seen, and nothing of it with production's token.
    let ran = stack.run(&["rehearse", UPGRADE[0], UPGRADE[1]]).expect(0);
    let report = stack.report();
    assert_eq!(report["code_only"]["possible"], false, "{}", report["code_only"]);
    // Long lines are broken where they are shown.
    let said = ran.all().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("hooks.chat.example"), "{}", ran.all());
    assert!(said.contains("Reminder for 2031-05-04"), "{}", ran.all());
    for secret in [PA_TOKEN, CHAT_TOKEN, common::docker::DB_PASSWORD] {
        assert!(!report.to_string().contains(secret), "a secret is in the report");
    }

    let (made, kept) = (pa.made(), pa.redis());
    assert!(kept.iter().any(|k| k.starts_with("session:")), "{kept:?}");
    stack.run(&["promote", UPGRADE[0], UPGRADE[1], "--yes"]).expect(0);
    let status = stack.run(&["status", "--json"]).json();
    for (service, version) in [("bot", "2"), ("mcp", "2"), ("monitor", "2"), ("n8n", "2.8.4")] {
        assert_eq!(status["versions"][service], version, "{status}");
    }

    // Used: tags are new, and old notes have them.
    pa.wait_says("split 90 by 4", "22.50 each.");
    pa.wait_says("briefing", "the assistant of Olive");
    assert_eq!(pa.says("find #desk"), "1 found:\nthe yellow folder #Desk");
    assert_eq!(pa.says("remember the later note #later"), "I keep that as note 6.");
    assert_eq!(pa.says("find #later"), "1 found:\nthe later note #later");

    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(pa.made(), made, "the rollback gave other data back");
    assert_eq!(pa.redis(), kept, "sessions or talks are others");
    pa.wait_says("split 90 by 4", "22.50 each.");
    assert!(pa.says("find later").contains("Nothing found"), "the database went back");
    assert_ne!(stack.report()["exports"]["db"], Value::Null, "nothing was exported");

    // What was written later comes back where it fits: the old release has no tags.
    stack.run(&["carry", "--yes"]).expect(0);
    pa.wait_says("find later", "the later note #later");
}

#[test]
fn the_acceptance_run_finds_nothing_wrong_with_the_assistant() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let pa = Pa::up();
    pa.0.run(&["up", "--yes"]).expect(0);
    let before = pa.made();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upgrade-infrastructure");
    let docs = docs.canonicalize().expect("exists").to_string_lossy().into_owned();
    let done = pa.0.run(&["verify", UPGRADE[0], UPGRADE[1], "--docs", &docs]);
    let text = fs::read_to_string(pa.0.root.join("reports/upgrade-infrastructure/evidence.json"));
    let matrix: Value = serde_json::from_str(&text.expect("reads")).expect("parses");
    let of = |verdict: &str| -> Vec<String> {
        let rows = matrix["rows"].as_array().expect("rows").iter();
        rows.filter(|r| r["verdict"] == verdict).map(|r| r["id"].to_string()).collect()
    };
    for id in ["fail", "inconclusive", "not_run"] {
        assert!(of(id).is_empty(), "{id}: {:?}\n{}", of(id), done.all());
    }
    assert_eq!(pa.made(), before, "production was touched");
}

/// A safeguard that is switched off, the phase that notices, and a criterion that fails by it.
const GAPS: [(&str, &str, &str); 11] = [
    ("isolation", "staging", "staging.isolation"),
    ("masking", "staging", "staging.isolation"),
    ("disposal", "staging", "staging.lifecycle"),
    ("history", "staging", "staging.monitoring"),
    ("backup-check", "staging", "integration.backup"),
    ("comparison", "database", "database.integrity"),
    ("certificate", "certificate", "integration.validated"),
    ("budget", "certificate", "integration.validated"),
    ("trigger", "rollback", "rollback.triggers"),
    ("export", "rollback", "rollback.data"),
    ("validation", "rollback", "rollback.validated"),
];

/// An hour and a half. `SWITCHBACK_TEST_GAPS=isolation,history` tries only these.
#[test]
fn whatever_is_switched_off_the_acceptance_run_names_it_on_the_assistant() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let wanted = std::env::var("SWITCHBACK_TEST_GAPS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|g| !g.is_empty()).collect();
    let pa = Pa::up();
    pa.0.run(&["up", "--yes"]).expect(0);
    let before = pa.made();
    let mut unnoticed = Vec::new();
    for (gap, phase, criterion) in GAPS.into_iter().filter(|(g, ..)| wanted.is_empty() || wanted.contains(g))
    {
        let args = ["verify", UPGRADE[0], UPGRADE[1], "--phase", phase, "--json", "--quiet"];
        let ran = pa.0.run_with(&args, &[("SWITCHBACK_GAP", gap)]);
        let matrix: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{gap}: {e}\n{}", ran.all()));
        let rows = matrix["rows"].as_array().expect("rows");
        let row = rows.iter().find(|r| r["id"] == criterion).expect("a criterion");
        let failed: Vec<&str> =
            rows.iter().filter(|r| r["verdict"] == "fail").filter_map(|r| r["id"].as_str()).collect();
        eprintln!("{gap}: exit {:?}, failed: {}", ran.code, failed.join(", "));
        if row["verdict"] != "fail" || ran.code != Some(3) {
            unnoticed.push(format!("{gap}: exit {:?}, {row}", ran.code));
        }
        assert_eq!(pa.made(), before, "{gap}: production was touched");
        // What the switched-off safeguard would have removed.
        pa.0.run(&["gc", "--yes"]);
    }
    // After all of them: each takes minutes.
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}
