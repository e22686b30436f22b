//! Numbers for a monitoring system: well-formed, and what `status` and `history` say.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Samples by name with labels; panics where the text is not in the format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut found, mut typed, mut last) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').expect("HELP or TYPE");
            let (name, _) = rest.split_once(' ').expect("a name and a text");
            assert!(what == "HELP" || what == "TYPE", "{line}");
            assert!(what != "TYPE" || typed.insert(name.to_owned()), "{name} is described twice");
            name.clone_into(&mut last);
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let (metric, labels) = name.split_once('{').expect("labels");
        assert_eq!(metric, last, "samples of one metric stand together");
        assert!(labels.ends_with('}') && labels.starts_with("stack=\"assistant\""), "{line}");
        let value: f64 = value.parse().expect("a number");
        assert!(found.insert(name.to_owned(), value).is_none(), "{name} is there twice");
    }
    found
}

#[test]
fn the_numbers_are_those_of_status_and_history() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    stack.configure("watch: 2s", "watch: 1h");
    let before = samples(&stack.run(&["metrics"]).expect(0).stdout);
    assert_eq!(before["switchback_generation{stack=\"assistant\"}"], 0.0);
    stack.run(&["up"]).expect(0);
    stack.run(&["rehearse", "app=2.1.0"]).expect(3);
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    stack.run(&["promote", "app=2.0.0", "--yes", "--detach"]).expect(0);
    stack.write_note("later");
    let trial = samples(&stack.run(&["metrics"]).expect(0).stdout);
    let own =
        |all: &BTreeMap<String, f64>, name: &str| all.get(&format!("{name}{{stack=\"assistant\"}}")).copied();
    assert_eq!(own(&trial, "switchback_trial"), Some(1.0));
    assert_eq!(own(&trial, "switchback_trial_watched"), Some(1.0));
    assert_eq!(own(&trial, "switchback_rollback_ready"), Some(1.0));
    stack.run(&["rollback", "--yes"]).expect(0);
    let file = stack.root.join("switchback.prom");
    stack.run(&["metrics", "--output", file.to_str().expect("text")]).expect(0);
    let after = samples(&fs::read_to_string(&file).expect("reads"));
    assert_eq!(own(&after, "switchback_generation"), Some(1.0));
    assert_eq!(own(&after, "switchback_uncarried_writes"), Some(1.0));
    assert_eq!(own(&after, "switchback_trial"), Some(0.0));
    assert_eq!(own(&after, "switchback_change_failure_ratio"), Some(1.0));
    assert_eq!(after["switchback_rehearsals_total{stack=\"assistant\",result=\"refused\"}"], 1.0);
    assert_eq!(after["switchback_rehearsals_total{stack=\"assistant\",result=\"passed\"}"], 1.0);
    assert_eq!(
        after["switchback_service_running{stack=\"assistant\",service=\"app\",version=\"1.0.0\"}"],
        1.0
    );
    assert!(after["switchback_restore_seconds{stack=\"assistant\",of=\"median\"}"] > 0.0);
    assert!(after.keys().any(|k| k.starts_with("switchback_prevented_total")), "{after:?}");
}
