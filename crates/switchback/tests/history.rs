//! The numbers of a history, how they went, and both as tables and as a page, with the real program.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use serde_json::Value;
use std::fs;

/// The rows of a table whose fields hold no comma, by the names of its columns.
fn rows(text: &str) -> Vec<serde_json::Map<String, Value>> {
    assert!(text.ends_with("\r\n"), "{text:?}");
    let mut lines = text.trim_end().split("\r\n").map(|l| l.split(',').collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    lines
        .map(|fields| {
            assert_eq!(fields.len(), header.len(), "{fields:?}");
            header.iter().zip(fields).map(|(name, field)| ((*name).to_owned(), field.into())).collect()
        })
        .collect()
}

#[test]
fn the_report_over_a_time_says_what_was_done() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    let nothing = stack.run(&["report", "--since", "30d"]).expect(0).stdout;
    assert_eq!(nothing, "No runs in this time.\n");
    stack.configure("watch: 2s", "watch: 1s");
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.1.0"]).expect(3);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes"]).expect(0);
    stack.run(&["rollback", "--yes", "--reason", "=1+1 mails"]).expect(0);

    let page = stack.root.join("history.html");
    let ran = stack.run(&["report", "--since", "30d", "--html", page.to_str().expect("text"), "--json"]);
    let found = ran.expect(0).json();
    let total = &found["total"];
    let counts = ["rehearsed", "refused", "promoted", "failed", "rolled_back", "rollbacks"];
    let counts: Vec<u64> = counts.iter().map(|key| total[key].as_u64().expect("a number")).collect();
    assert_eq!(counts, [2, 1, 1, 1, 0, 1], "{found}");
    assert_eq!((&found["schema"], &found["width"]), (&"switchback.trends/1".into(), &"day".into()));
    let buckets = found["buckets"].as_array().expect("buckets");
    // The test may run over midnight.
    assert!((1..=2).contains(&buckets.len()), "{found}");
    let times = ["restore", "rollback", "rollback_downtime", "downtime"];
    let longest = times.map(|key| total[key]["longest_ms"].as_u64().expect("a time"));
    assert!(longest.iter().all(|ms| *ms > 0), "{found}");
    let run = stack.report();
    assert_eq!(longest[1], run["times"]["rollback_ms"], "the rollback as its own report has it");
    assert_eq!(total["prevented_by"][0]["count"], 1, "{found}");

    let html = fs::read_to_string(&page).expect("written");
    assert!(
        html.contains("<title>Change failure rate per day</title>") && !html.contains("<script"),
        "{html}"
    );
    let text = stack.run(&["report", "--since", "30d"]).expect(0).stdout;
    assert!(text.contains("change failure rate    100 %") && text.contains("day (UTC)"), "{text}");

    let days = rows(&stack.run(&["report", "--since", "30d", "--csv"]).expect(0).stdout);
    assert_eq!(days.len(), buckets.len());
    assert_eq!(days.iter().filter(|d| d["promoted"] == "1" && d["failed"] == "1").count(), 1, "{days:?}");
    let runs = rows(&stack.run(&["history", "--csv"]).expect(0).stdout);
    let of = |key: &str| runs.iter().map(|r| r[key].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(of("procedure"), ["rollback", "promote", "rehearse", "rehearse", "up"]);
    assert_eq!(of("outcome"), ["pass", "pass", "pass", "refused", "pass"]);
    assert_eq!(runs[0]["reason"], "'=1+1 mails");
    assert_eq!(runs[0]["rollback_ms"], longest[1].to_string());
    assert_eq!(runs[0]["restore_ms"], longest[0].to_string());
    assert_eq!(runs[1]["downtime_ms"], longest[3].to_string());
    let newest = rows(&stack.run(&["history", "--csv", "--limit", "1"]).expect(0).stdout);
    assert_eq!(newest, runs[..1]);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_hint() {
    let stack = Stack::new(&[]);
    for (args, says) in [
        (&["report", "--csv"][..], "--since"),
        (&["report", "--html", "x.html"], "--since"),
        (&["report", "01KD", "--since", "30d"], "cannot be used with"),
        (&["report", "--since", "30d", "--format", "html"], "cannot be used with"),
        (&["report", "--since", "soon"], "30s, 5m or 7d"),
        (&["history", "--csv", "--stats"], "cannot be used with"),
        (&["report", "--since", "30d", "--html", "no/such/folder/x.html"], "in a folder that exists"),
    ] {
        let ran = stack.run(args).expect(2);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
    for args in [&["report", "--since", "30d", "--csv", "--json"][..], &["history", "--csv", "--json"]] {
        let ran = stack.run(args).expect(2);
        assert!(ran.json()["error"]["hint"].is_string(), "{}", ran.stdout);
    }
}
