use super::*;
use std::collections::BTreeMap;
use switchback_core::check::{Artefact, Failure, Verdict};
use switchback_core::criteria::{Catalogue, Evidence, Subject, judge};
use switchback_core::ids::{Digest, StackName};

fn evidence(id: &str, verdict: impl Into<Judgement>) -> Evidence {
    Evidence {
        id: id.to_owned(),
        title: "It was seen <b>".to_owned(),
        verdict: verdict.into(),
        measured: BTreeMap::from([("time | of".to_owned(), "3 ms & more".to_owned())]),
        threshold: "within 5 minutes".to_owned(),
        runs: vec!["01J0000000000000000000000A".into()],
        started_at_ms: 1_760_000_000_000,
        ended_at_ms: 1_760_000_001_500,
        tool: "switchback 0.1.0".to_owned(),
        releases: BTreeMap::from([("from".to_owned(), Digest::of(b"a"))]),
        config: Digest::of(b"c"),
        artefacts: vec![Artefact {
            title: "report".to_owned(),
            path: "runs/01J0000000000000000000000A/report.html".to_owned(),
            blake3: Digest::of(b"x").0,
            bytes: 12,
        }],
        reproduce: "switchback verify --phase staging".to_owned(),
    }
}

fn matrix() -> Matrix {
    let failure = Failure {
        at: "db.notes".to_owned(),
        what: "2 of 200 rows are gone <script>alert(1)</script>\u{1}".to_owned(),
        ..Failure::default()
    };
    let list = vec![
        evidence("staging.deployed", Verdict::Pass),
        evidence("migration.integrity", Verdict::fail(failure)),
        evidence("staging.health", Verdict::Inconclusive { why: "too noisy".to_owned() }),
        evidence("workflows.cross-service", Judgement::NotApplicable { why: "one service alone".to_owned() }),
    ];
    let subject = Subject {
        stack: StackName::new("pa").expect("valid"),
        change: "app 1.0.0 -> 2.0.0".to_owned(),
        from: BTreeMap::new(),
        to: BTreeMap::new(),
        tool: "switchback 0.1.0".to_owned(),
        host: "host".to_owned(),
        started_at_ms: 1_760_000_000_000,
        ended_at_ms: 1_760_000_060_000,
        notes: vec!["There was no upgrade to try.".to_owned()],
    };
    judge(&Catalogue::built_in().expect("valid"), list, subject)
}

#[test]
fn the_html_is_one_file_without_script_and_says_every_row() {
    let matrix = matrix();
    let text = html::html(&matrix);
    assert!(!text.contains("<script") && !text.contains("http://") && !text.contains("https://"));
    for row in &matrix.rows {
        assert!(text.contains(&format!("id=\"{}\"", row.criterion.id)), "{}", row.criterion.id);
    }
    let passed = format!("1 of {}", matrix.counts.total);
    for word in [
        passed.as_str(),
        "NOT-RUN",
        "did not produce it",
        "db.notes: 2 of 200",
        "too noisy",
        "n/a",
        "one service alone",
    ] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn the_junit_is_read_by_our_own_reader_and_counts_agree() {
    use switchback_engine::check::junit as reader;
    let matrix = matrix();
    let cases = reader::parse(junit::junit(&matrix).as_bytes()).expect("parses");
    assert_eq!(cases.len(), matrix.counts.total);
    let of = |wanted: fn(&reader::Outcome) -> bool| cases.iter().filter(|c| wanted(&c.outcome)).count();
    assert_eq!(of(|o| *o == reader::Outcome::Passed), matrix.counts.passed);
    assert_eq!(of(|o| *o == reader::Outcome::Skipped), matrix.counts.not_run + matrix.counts.not_applicable);
    assert_eq!(matrix.counts.not_applicable, 1);
    let bad = matrix.counts.failed + matrix.counts.inconclusive;
    assert_eq!(of(|o| matches!(o, reader::Outcome::Failed(_))), bad);
}

#[test]
fn the_markdown_cannot_be_broken_by_values() {
    let text = markdown::markdown(&matrix());
    assert!(text.contains("time \\| of: 3 ms &amp; more") && !text.contains("<script"));
    for line in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| |")) {
        let bars = line.replace("\\|", "").matches('|').count();
        assert_eq!(bars, 4, "{line}");
    }
}

#[test]
fn all_four_files_are_written_and_the_json_is_the_matrix() {
    let dir = std::env::temp_dir().join(format!("switchback-matrix-{}", std::process::id()));
    let matrix = matrix();
    write(&dir, &matrix).expect("writes");
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .expect("lists")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, [JSON, HTML, JUNIT, MARKDOWN]);
    let text = std::fs::read_to_string(dir.join(JSON)).expect("reads");
    assert_eq!(serde_json::from_str::<Matrix>(&text).expect("parses"), matrix);
    std::fs::remove_dir_all(&dir).expect("removes");
}
