//! The audit trail and the numbers of a history, with the real program.

mod common;

use assistant::ReleaseKind;
use common::Stack;

#[test]
fn the_audit_trail_is_confirmed_and_a_changed_event_is_damage() {
    let stack = Stack::new(&[ReleaseKind::V2]);
    stack.run(&["audit", "verify"]).expect(3);
    stack.run(&["up"]).expect(0);
    let first = stack.run(&["audit", "verify", "--json"]).expect(0).json();
    let head = first["head"].as_str().expect("a head").to_owned();
    assert!(first["events"].as_u64().is_some_and(|n| n > 5), "{first}");
    stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    let later = stack.run(&["audit", "verify", "--json", "--head", &head[..12]]).expect(0).json();
    assert_eq!(later["known_at"], first["events"]);
    assert!(stack.run(&["audit", "verify", "--head", "0123456789ab"]).expect(3).stderr.contains("no event"));
    stack.run(&["audit", "verify", "--head", "xyz"]).expect(2);
    let shown = stack.run(&["audit", "verify"]).expect(0).stdout;
    assert!(shown.contains("1 certificates, and each is as it was signed."), "{shown}");
    // Another key vouches for nothing that was signed before.
    let key = stack.state().join("certificate.key");
    let kept = std::fs::read(&key).expect("a key");
    std::fs::remove_file(&key).expect("removes");
    let ran = stack.run(&["promote", "app=2.0.0", "--yes"]).expect(3);
    assert!(ran.stderr.contains("does not count: it was signed with another key"), "{}", ran.stderr);
    let ran = stack.run(&["audit", "verify"]).expect(3);
    assert!(ran.stdout.contains("it was signed with another key"), "{}", ran.stdout);
    std::fs::write(&key, kept).expect("writes");
    let report = stack.report();
    let value = report["certificate"]["signature"]["value"].as_str().expect("signed");
    assert_eq!(value.len(), 128, "{value}");
    assert!(report["certificate"]["coverage"]["tables"].as_u64().is_some_and(|n| n > 2), "{report}");
    let stats = stack.run(&["history", "--stats", "--json"]).expect(0).json();
    assert_eq!((&stats["rehearsed"], &stats["refused"], &stats["runs"]), (&1.into(), &0.into(), &2.into()));
    let shown = stack.run(&["history", "--stats", "--since", "1h"]).expect(0).stdout;
    assert!(shown.contains("upgrades rehearsed     1"), "{shown}");
    let journal = rusqlite::Connection::open(stack.state().join("journal.db")).expect("opens");
    journal.execute("UPDATE events SET at_ms = at_ms + 1 WHERE seq = 3", []).expect("tampers");
    drop(journal);
    let ran = stack.run(&["audit", "verify"]).expect(5);
    assert!(ran.stderr.contains("journal"), "{}", ran.stderr);
}
