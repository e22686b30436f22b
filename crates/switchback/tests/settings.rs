//! What a new release's settings differ in is told before it is promoted, without values.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;

#[test]
fn a_rehearsal_names_the_settings_that_differ_and_shows_no_value() {
    let stack = Stack::new(&[ReleaseKind::V1, ReleaseKind::V2]);
    stack.configure(
        "    env_file: assistant.env",
        "    env: { OLD_FLAG: value-of-old }\n    env_file: assistant.env",
    );
    stack.run(&["up"]).expect(0);
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, text.replace("OLD_FLAG: value-of-old", "NEW_FLAG: value-of-new")).expect("writes");
    let ran = stack.run(&["rehearse", "app=2.0.0"]).expect(0);
    assert!(ran.all().contains("2 differences"), "{}", ran.all());
    let report = stack.report();
    let expected = ["app: the variable OLD_FLAG is gone", "app: the variable NEW_FLAG is new"];
    assert_eq!(report["settings"], serde_json::json!(expected), "{}", report["settings"]);
    let text = format!("{report}{}", ran.all());
    assert!(!text.contains("value-of-"), "a value is in the report");
}
