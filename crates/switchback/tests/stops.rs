//! Stops that a release demands on the way to another one: written down, or found.

mod common;

use assistant::ReleaseKind;
use common::Stack;
use std::fs;

/// A release 3.0.0 that can only be reached by 2.0.0: it has lost what leads from 1.0.0 to there.
fn install_third(stack: &Stack) {
    let (from, to) = (stack.root.join("releases/2.0.0"), stack.root.join("releases/3.0.0"));
    for folder in ["", "migrations", "web", "bin"] {
        fs::create_dir_all(to.join(folder)).expect("creates");
        for entry in fs::read_dir(from.join(folder)).expect("lists").flatten() {
            let target = to.join(folder).join(entry.file_name());
            let kind = entry.file_type().expect("a type");
            if kind.is_symlink() {
                let leads = fs::read_link(entry.path()).expect("reads");
                std::os::unix::fs::symlink(leads, target).expect("links");
            } else if kind.is_file() {
                fs::copy(entry.path(), target).expect("copies");
            }
        }
    }
    let manifest = fs::read_to_string(to.join("release.json")).expect("reads").replace("2.0.0", "3.0.0");
    fs::write(to.join("release.json"), manifest).expect("writes");
    let second = to.join("migrations/0002_priorities_and_reminders.sql");
    assert!(second.exists());
    fs::write(second, "insert into this_was_squashed values (1);\n").expect("writes");
    fs::write(to.join("migrations/0003_labels.sql"), "create table labels (id integer primary key);\n")
        .expect("writes");
}

#[test]
fn a_demanded_stop_is_kept_to_and_one_that_nobody_wrote_down_is_found() {
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::MigrationFails]);
    install_third(&stack);
    stack.run(&["up"]).expect(0);
    let (before, rows) = (stack.processes(), stack.rows(1));

    // Nobody wrote it down: the direct way breaks, as does 2.3.1, and 2.0.0 is found.
    let found = stack.run(&["path", "--find", "app=3.0.0", "--json"]).expect(0).json();
    assert_eq!(found["holds"], serde_json::json!(["2.0.0", "3.0.0"]), "{found}");
    let tried = found["tried"].as_array().expect("tries");
    let ways: Vec<String> = tried.iter().map(|t| t["versions"].to_string()).collect();
    assert_eq!(ways[0], "[\"3.0.0\"]", "the direct way first");
    assert!(tried.len() <= 4 && ways.contains(&"[\"2.3.1\"]".to_owned()), "{ways:?}");
    for one in tried {
        let run = one["run"].as_str().expect("each is a run");
        assert_eq!(stack.run(&["report", run]).code, Some(0));
        assert!(one["held"] == true || one["why"].as_str().expect("why").contains("breaks"), "{one}");
    }
    // Where nothing leads there, every way is named; and no more are tried than was allowed.
    let broken = stack.run(&["path", "--find", "app=3.0.0", "--among", "2.3.1"]).expect(3);
    assert!(
        broken.stdout.contains("BREAKS  1.0.0 -> 2.3.1") && broken.stdout.contains("Every way"),
        "{}",
        broken.all()
    );
    let enough = stack.run(&["path", "--find", "app=3.0.0", "--most", "1"]).expect(3);
    assert!(enough.stdout.contains("in 1 tries"), "{}", enough.all());
    stack.run(&["path", "--find", "app=2.0.0,3.0.0"]).expect(2);
    stack.run(&["path", "--find", "app=3.0.0", "--among", "../x"]).expect(2);
    assert_eq!((stack.processes(), stack.rows(1)), (before, rows), "production was not touched");

    // Written down: nothing that leaves it out is planned, and a path has it.
    stack.configure(
        "stack: assistant",
        "stack: assistant\npaths: [{ service: app, before: \"3.0.0\", through: \"2.0.0\" }]",
    );
    for command in [
        &["rehearse", "app=3.0.0"][..],
        &["plan", "rehearse", "app=3.0.0"],
        &["plan", "promote", "app=3.0.0"],
        &["promote", "app=3.0.0", "--yes", "--without-certificate", "--reason", "a test"],
    ] {
        let refused = stack.run(command).expect(3);
        assert!(
            refused.all().contains("2.0.0 comes before 3.0.0")
                && refused.all().contains("switchback path app=3.0.0"),
            "{}",
            refused.all()
        );
    }
    let shown = stack.run(&["path", "app=3.0.0", "--dry-run"]).expect(0).stdout;
    assert!(shown.contains("start-2"), "{shown}");
    stack.run(&["rehearse", "app=2.0.0", "--dry-run"]).expect(0);
    // Without versions: to what the configuration names.
    assert!(stack.run(&["path"]).expect(3).all().contains("exactly what"));
    stack.configure("version: 1.0.0", "version: 3.0.0");
    assert!(stack.run(&["auto"]).expect(3).all().contains("2.0.0 comes before 3.0.0"));
    let ran = stack.run(&["path"]).expect(0);
    assert!(ran.all().contains("every step of") && ran.all().contains("2.0.0"), "{}", ran.all());
    // What is no version cannot be judged, and is not let through.
    fs::rename(stack.root.join("releases/3.0.0"), stack.root.join("releases/newest")).expect("moves");
    let unknown = stack.run(&["rehearse", "app=newest"]).expect(3);
    assert!(unknown.all().contains("cannot be told"), "{}", unknown.all());
}
