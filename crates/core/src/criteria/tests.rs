use super::*;
use crate::check::Verdict;
use proptest::prelude::*;

fn evidence(id: &str, verdict: impl Into<Judgement>) -> Evidence {
    Evidence {
        id: id.to_owned(),
        title: String::new(),
        verdict: verdict.into(),
        measured: BTreeMap::new(),
        threshold: String::new(),
        runs: Vec::new(),
        started_at_ms: 0,
        ended_at_ms: 1,
        tool: "t".to_owned(),
        releases: BTreeMap::new(),
        config: Digest::of(b""),
        artefacts: Vec::new(),
        reproduce: String::new(),
    }
}

fn subject() -> Subject {
    Subject {
        stack: StackName::new("s").expect("valid"),
        change: String::new(),
        from: BTreeMap::new(),
        to: BTreeMap::new(),
        tool: "t".to_owned(),
        host: "h".to_owned(),
        started_at_ms: 0,
        ended_at_ms: 1,
        notes: Vec::new(),
    }
}

fn built_in() -> Catalogue {
    Catalogue::built_in().expect("valid")
}

fn failed() -> Verdict {
    Verdict::fail(Failure { at: "x".to_owned(), what: "broken".to_owned(), ..Failure::default() })
}

#[test]
fn without_evidence_nothing_passes_and_every_row_says_what_is_missing() {
    let matrix = judge(&built_in(), Vec::new(), subject());
    assert_eq!(matrix.counts.not_run, matrix.counts.total);
    assert!(matrix.counts.total >= 40);
    for row in &matrix.rows {
        assert_eq!(row.missing.len(), row.criterion.needs.len(), "{}", row.criterion.id);
        assert!(row.missing.iter().all(|m| !m.why.is_empty()));
    }
    let page = matrix.rows.iter().find(|r| r.criterion.id == "documentation.accurate").expect("there");
    let wanted = "docs.examples-executed: the phase documentation did not produce it";
    assert!(matches!(&page.verdict, Judgement::NotRun { why } if why == wanted), "{:?}", page.verdict);
}

/// Nothing in the catalogue is a promise.
#[test]
fn every_kind_of_evidence_has_a_phase_that_produces_it() {
    for (id, kind) in built_in().evidence {
        assert!(kind.phase.is_some(), "{id}");
    }
}

#[test]
fn every_kind_of_evidence_is_used_and_every_criterion_is_in_one_of_the_six_areas() {
    let catalogue = built_in();
    for id in catalogue.evidence.keys() {
        assert!(catalogue.criteria.iter().any(|c| c.needs.contains(id)), "{id} proves nothing");
    }
    let areas: BTreeSet<&str> = catalogue.criteria.iter().map(|c| c.area.as_str()).collect();
    assert_eq!(areas.len(), 6, "{areas:?}");
}

#[test]
fn a_half_proved_criterion_does_not_pass_and_a_failure_outweighs_what_is_missing() {
    let catalogue = built_in();
    let row = |list: Vec<Evidence>| {
        let matrix = judge(&catalogue, list, subject());
        matrix.rows.into_iter().find(|r| r.criterion.id == "validation.effectiveness").expect("there")
    };
    assert_eq!(row(vec![evidence("mutants.basic", Verdict::Pass)]).verdict.word(), "not run");
    assert_eq!(row(vec![evidence("mutants.basic", failed())]).verdict.word(), "fail");
    let doubt = Verdict::Inconclusive { why: "noise".to_owned() };
    assert_eq!(row(vec![evidence("mutants.basic", doubt)]).verdict.word(), "inconclusive");
    let both = |v| vec![evidence("mutants.basic", Verdict::Pass), evidence("mutants.table", v)];
    assert_eq!(row(both(Verdict::Pass)).verdict, Judgement::Pass);
    let waived = Verdict::Waived { who: "me".to_owned(), why: "late".to_owned() };
    assert_eq!(row(both(waived)).verdict.word(), "not run");
    assert_eq!(row(both(Verdict::Fail { reasons: Vec::new() })).verdict.word(), "fail");
}

#[test]
fn evidence_that_appears_twice_must_pass_twice() {
    let list = vec![evidence("staging.deployed", Verdict::Pass), evidence("staging.deployed", failed())];
    assert_eq!(judge(&built_in(), list, subject()).rows[0].verdict.word(), "fail");
}

#[test]
fn a_users_catalogue_adds_criteria_and_cannot_invent_evidence() {
    let mut catalogue = built_in();
    let before = catalogue.criteria.len();
    let good = "format: 1\ncriteria:\n  - { id: shop.order, area: Shop, text: Ordering, needs: ['workflow:order', 'command:smoke', api.compatibility] }\n";
    catalogue.extend(good, "mine.yaml").expect("valid");
    assert_eq!(catalogue.criteria.len(), before + 1);
    let list = vec![evidence("workflow:order", Verdict::Pass)];
    let matrix = judge(&catalogue, list, subject());
    let row = matrix.rows.last().expect("there");
    assert_eq!(row.missing.len(), 2);
    for (bad, want, hint) in [
        (
            "needs: [staging.deploied]",
            "mine.yaml:3: x: there is no evidence",
            "did you mean \"staging.deployed\"?",
        ),
        ("needs: []", "nothing would prove it", "needs"),
        ("needs: ['command:']", "there is no evidence", "verify --list"),
    ] {
        let text = format!("format: 1\ncriteria:\n  - {{ id: x, area: A, text: T, {bad} }}\n");
        let error = built_in().extend(&text, "mine.yaml").expect_err(bad);
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.hint.as_deref().unwrap_or("").contains(hint), "{error:?}");
    }
    for bad in [
        "format: 2\ncriteria: []\n",
        "format: 1\nevidence: { x: { title: X } }\ncriteria: []\n",
        "format: 1\ncriteria:\n  - { id: staging.deployed, area: A, text: T, needs: [staging.deployed] }\n",
        "format: 1\ncriteria:\n  - { id: x, area: A, text: T, needs: [staging.deployed], wants: 1 }\n",
    ] {
        assert!(built_in().extend(bad, "mine.yaml").is_err(), "{bad}");
    }
}

#[test]
fn the_matrix_survives_a_round_trip() {
    let list = vec![evidence("staging.deployed", Verdict::Pass), evidence("staging.health", failed())];
    let matrix = judge(&built_in(), list, subject());
    let text = serde_json::to_string(&matrix).expect("writes");
    assert_eq!(serde_json::from_str::<Matrix>(&text).expect("reads"), matrix);
}

fn any_verdict() -> impl Strategy<Value = Judgement> {
    prop_oneof![
        3 => Just(Judgement::Pass),
        1 => Just(failed().into()),
        1 => Just(Judgement::Fail { reasons: Vec::new() }),
        1 => Just(Judgement::Inconclusive { why: String::new() }),
        1 => Just(Judgement::NotApplicable { why: String::new() }),
        1 => Just(Judgement::NotRun { why: String::new() }),
    ]
}

proptest! {
    /// Whatever evidence there is: a row passes exactly if every need is there and passed, those that do not apply aside, and
    /// one that applies was there.
    #[test]
    fn never_pass_without_evidence(verdicts in proptest::collection::vec((any::<prop::sample::Index>(), any_verdict()), 0..60)) {
        let catalogue = built_in();
        let ids: Vec<&String> = catalogue.evidence.keys().collect();
        let list: Vec<Evidence> = verdicts.into_iter().map(|(i, v)| evidence(ids[i.index(ids.len())], v)).collect();
        let matrix = judge(&catalogue, list.clone(), subject());
        for row in &matrix.rows {
            let of = |n: &String| list.iter().filter(|e| &e.id == n).map(|e| &e.verdict).collect::<Vec<_>>();
            let spared = |v: &&Judgement| matches!(v, Judgement::NotApplicable { .. });
            let there = row.criterion.needs.iter().all(|n| {
                !of(n).is_empty() && of(n).iter().all(|v| **v == Judgement::Pass || spared(v))
            });
            let some = row.criterion.needs.iter().any(|n| of(n).contains(&&Judgement::Pass));
            prop_assert_eq!(row.verdict == Judgement::Pass, there && some, "{}", row.criterion.id);
            prop_assert_eq!(spared(&&row.verdict), there && !some, "{}", row.criterion.id);
            let refuted = list.iter().any(|e| row.criterion.needs.contains(&e.id) && matches!(e.verdict, Judgement::Fail { .. }));
            prop_assert_eq!(matches!(row.verdict, Judgement::Fail { .. }), refuted, "{}", row.criterion.id);
        }
        let c = matrix.counts;
        prop_assert_eq!(c.passed + c.failed + c.inconclusive + c.not_run + c.not_applicable, c.total);
        prop_assert_eq!(c.complete(), c.passed > 0 && c.failed + c.inconclusive + c.not_run == 0);
    }

    /// More evidence of other kinds never changes a row.
    #[test]
    fn unrelated_evidence_changes_nothing(verdict in any_verdict()) {
        let catalogue = built_in();
        let alone = judge(&catalogue, vec![evidence("staging.deployed", Verdict::Pass)], subject());
        let with = judge(&catalogue, vec![evidence("staging.deployed", Verdict::Pass), evidence("workflow:other", verdict)], subject());
        prop_assert_eq!(alone.rows, with.rows);
    }
}
