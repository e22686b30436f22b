use super::*;

fn outcome(command: &str, junit: &[&str], folder: &Path) -> CheckResult {
    let check = CommandCheck {
        id: "smoke".into(),
        command: CommandLine::Shell(command.into()),
        timeout: Span::millis(3000),
        junit: junit.iter().map(|p| (*p).to_owned()).collect(),
    };
    let context = CommandContext {
        environment: "candidate".into(),
        endpoints: BTreeMap::from([(
            ServiceName::new("my-app").expect("name"),
            Endpoint::new("127.0.0.1", 8080),
        )]),
        run_id: "r1".into(),
        base_dir: folder.to_owned(),
        redactor: Redactor::from_values(["hunter2"]),
        cancel: &|| false,
    };
    run(&check, &context)
}

#[test]
fn the_exit_code_decides() {
    let folder = tempfile::tempdir().expect("folder");
    let pass = outcome(
        "test $SWITCHBACK_ENVIRONMENT = candidate && test $SWITCHBACK_URL_MY_APP = http://127.0.0.1:8080",
        &[],
        folder.path(),
    );
    assert_eq!((pass.verdict, pass.id.as_str()), (Verdict::Pass, "command/smoke"));
    let Verdict::Fail { reasons } = outcome("echo no hunter2 >&2; exit 3", &[], folder.path()).verdict else {
        panic!("failed")
    };
    assert_eq!(reasons[0].got.as_deref(), Some("exit code 3: no ***"));
    assert!(reasons[0].reproduce.as_deref().is_some_and(|r| r.contains("SWITCHBACK_URL_MY_APP='http")));
    for inconclusive in ["no-such-program-at-all", "sleep 9"] {
        let verdict = outcome(inconclusive, &[], folder.path()).verdict;
        assert_eq!(verdict.word(), "inconclusive", "{verdict:?}");
    }
}

#[test]
fn reports_decide_when_there_are_any() {
    let folder = tempfile::tempdir().expect("folder");
    let write = |xml: &str| format!("mkdir -p out/a; echo \"{xml}\" > out/a/r.xml");
    let verdict = |command: &str| outcome(command, &["out/**/*.xml"], folder.path()).verdict;
    let ok = "<testsuite><testcase name='t'/></testsuite>";
    assert_eq!(verdict(&write(ok)), Verdict::Pass);
    assert_eq!(verdict("true").word(), "inconclusive", "a report of an earlier run does not count");
    assert_eq!(verdict(&format!("{}; exit 1", write(ok))).word(), "fail");
    let bad = "<testsuite><testcase name='t'><failure message='hunter2 broke'/></testcase></testsuite>";
    let Verdict::Fail { reasons } = verdict(&write(bad)) else { panic!("failed") };
    assert_eq!((reasons[0].at.as_str(), reasons[0].got.as_deref()), ("t", Some("*** broke")));
    for nothing in
        ["<testsuite/>", "<testsuite><testcase name='t'><skipped/></testcase></testsuite>", "<testsuite>"]
    {
        assert_eq!(verdict(&write(nothing)).word(), "inconclusive", "{nothing}");
    }
}

#[test]
fn patterns_match_paths() {
    for (pattern, path, matches) in [
        ("out/*.xml", "out/a.xml", true),
        ("out/*.xml", "out/b/a.xml", false),
        ("out/**/*.xml", "out/a.xml", true),
        ("**/r?.xml", "a/b/r1.xml", true),
        ("./a.xml", "a.xml", true),
        ("a.xml", "aaxml", false),
    ] {
        assert_eq!(glob(pattern).expect("pattern").is_match(path), matches, "{pattern} {path}");
    }
}
