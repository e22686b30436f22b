use super::*;
use crate::environment::Environment;
use crate::ids::Digest;
use crate::journal::{ErrorKind, Event, Outcome, Output, RunState, StepError};
use crate::next::{Next, next};
use crate::release::{PRODUCTION, Shared, StorePlace};
use proptest::prelude::*;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("valid")
}

pub(crate) fn instance(generation: u32, version: &str) -> Instance {
    Instance {
        environment: PRODUCTION.into(),
        generation: GenerationId(generation),
        release: Digest::of(version.as_bytes()),
        versions: BTreeMap::from([(service("app"), version.to_owned())]),
        dir: format!("generations/{generation}"),
        stores: BTreeMap::from([(
            StoreName::new("db").expect("valid"),
            StorePlace {
                kind: crate::data::StoreKind::Sqlite,
                path: "/s/data/app.db".into(),
                mount: None,
                server: None,
            },
        )]),
        ports: BTreeMap::from([(service("app"), BTreeMap::from([("http".to_owned(), 8000)]))]),
        project: None,
        shared: Shared::default(),
        closed: false,
    }
}

fn precopy_plan() -> Plan {
    promote(&PromoteFacts { precopy: true, cheap_base: false, ..promote_facts() })
}

pub(crate) fn promote_plan() -> Plan {
    promote(&promote_facts())
}

fn promote_facts() -> PromoteFacts {
    PromoteFacts {
        run: "R".into(),
        stack: StackName::new("s").expect("valid"),
        now_ms: 0,
        state_dir: "/s/.switchback".into(),
        production: instance(1, "1"),
        previous: None,
        next: GenerationId(2),
        target: Digest::of(b"2"),
        target_versions: BTreeMap::from([(service("app"), "2".to_owned())]),
        target_ports: instance(1, "1").ports,
        migrate: vec![service("app")],
        edit: Default::default(),
        precopy: false,
        convert: BTreeMap::new(),
        cheap_base: true,
        need_bytes: 0,
        budget_ms: 300_000,
        watch_ms: 1000,
        waiver: None,
        capture: false,
        carry: None,
    }
}

fn rehearse_plan() -> Plan {
    rehearse(&RehearseFacts {
        run: "R".into(),
        stack: StackName::new("s").expect("valid"),
        now_ms: 0,
        state_dir: "/s/.switchback".into(),
        production: instance(1, "1"),
        target: Digest::of(b"2"),
        target_versions: BTreeMap::from([(service("app"), "2".to_owned())]),
        target_ports: instance(1, "1").ports,
        migrate: vec![service("app")],
        free_ports: vec![4001, 4002, 4003, 4004],
        need_bytes: 0,
        budget_ms: 300_000,
        valid_ms: 1000,
        code_only: true,
        lint: true,
        convert: BTreeMap::new(),
        trace: true,
        queries: true,
        production_runs: true,
    })
}

fn rollback_plan(on_failure: OnFailure) -> Plan {
    let new = Instance { dir: "generations/2".into(), generation: GenerationId(2), ..instance(2, "2") };
    rollback(&RollbackFacts {
        run: "R".into(),
        stack: StackName::new("s").expect("valid"),
        now_ms: 0,
        leave: new,
        target: instance(1, "1"),
        target_previous: None,
        pointer_previous: Some(GenerationId(1)),
        budget_ms: 300_000,
        reason: "test".into(),
        on_failure,
    })
}

fn error() -> StepError {
    StepError { kind: ErrorKind::Refused, message: "no".into(), hint: None, details: vec![] }
}

/// Runs a plan against a pretended world in which chosen attempts fail or crash.
/// Returns the order of effects and the end.
pub(super) fn run(plan: &Plan, fate: &mut dyn FnMut(&str, bool) -> Fate) -> (Vec<String>, Outcome) {
    let mut events = vec![Event::Planned { plan: Box::new(plan.clone()) }];
    let mut effects = Vec::new();
    for _ in 0..1000 {
        // Folding from the start each time is what a crash and resume does.
        let state = RunState::fold(plan, &events);
        match next(plan, &state) {
            Next::Finished(outcome) => return (effects, outcome),
            Next::End(outcome) => events.push(Event::Ended { outcome }),
            Next::Skip(step, because) => events.push(Event::Skipped { step: step.id.clone(), because }),
            Next::GiveUp(step) => events.push(Event::Failed {
                step: step.id.clone(),
                error: crate::next::gave_up(step),
                output: Output::default(),
                took_ms: 0,
            }),
            Next::Do(step) => {
                let attempt = state.steps.get(&step.id).map_or(0, |s| s.attempts) + 1;
                events.push(Event::Started { step: step.id.clone(), attempt });
                effects.push(format!("do {}", step.id));
                match fate(step.id.as_str(), false) {
                    Fate::Ok => events.push(Event::Finished {
                        step: step.id.clone(),
                        output: Output::default(),
                        took_ms: 1,
                    }),
                    Fate::Fail => events.push(Event::Failed {
                        step: step.id.clone(),
                        error: error(),
                        output: Output::default(),
                        took_ms: 1,
                    }),
                    Fate::Crash => {}
                }
            }
            Next::Undo(step) => {
                let attempt = state.steps.get(&step.id).map_or(0, |s| s.undo_attempts) + 1;
                events.push(Event::UndoStarted { step: step.id.clone(), attempt });
                effects.push(format!("undo {}", step.id));
                match fate(step.id.as_str(), true) {
                    Fate::Ok => events.push(Event::Undone {
                        step: step.id.clone(),
                        output: Output::default(),
                        took_ms: 1,
                    }),
                    Fate::Fail => {
                        events.push(Event::UndoFailed { step: step.id.clone(), error: error(), took_ms: 1 });
                    }
                    Fate::Crash => {}
                }
            }
        }
    }
    panic!("the run never ended: {effects:?}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Ok,
    Fail,
    Crash,
}

#[test]
fn a_promotion_without_trouble_runs_its_steps_in_order() {
    let (effects, outcome) = run(&promote_plan(), &mut |_, _| Fate::Ok);
    assert_eq!(outcome, Outcome::Done);
    let expected: Vec<String> = promote_plan().steps.iter().map(|s| format!("do {}", s.id)).collect();
    assert_eq!(effects, expected);
}

#[test]
fn a_failed_gate_undoes_everything_in_reverse_and_starts_the_old_before_removing_the_new() {
    let (effects, outcome) =
        run(&promote_plan(), &mut |step, _| if step == "gate" { Fate::Fail } else { Fate::Ok });
    assert!(matches!(outcome, Outcome::Undone { .. }));
    let undone: Vec<&str> = effects.iter().filter_map(|e| e.strip_prefix("undo ")).collect();
    assert_eq!(undone, ["start-new", "stop-old", "prepare"]);
}

#[test]
fn what_is_copied_ahead_is_copied_before_anything_stops_and_ended_before_it_is_removed() {
    let plan = precopy_plan();
    let steps: Vec<&str> = plan.steps.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(steps[..6], ["preflight", "prepare", "observe", "pre-copy", "stop-old", "clone"]);
    assert_eq!(plan.steps[3].group, Group::Prepare);
    assert!(promote_plan().steps.iter().all(|s| s.id.as_str() != "pre-copy"), "blocks are shared");
    let (effects, _) = run(&plan, &mut |step, _| if step == "gate" { Fate::Fail } else { Fate::Ok });
    let undone: Vec<&str> = effects.iter().filter_map(|e| e.strip_prefix("undo ")).collect();
    assert_eq!(undone, ["start-new", "stop-old", "pre-copy", "prepare"]);
}

#[test]
fn when_undo_fails_too_both_failures_are_reported() {
    let plan = promote_plan();
    let (_, outcome) = run(&plan, &mut |step, undo| match (step, undo) {
        ("gate", false) | ("stop-old", true) => Fate::Fail,
        _ => Fate::Ok,
    });
    let Outcome::NeedsOperator { reasons } = outcome else { panic!("{outcome:?}") };
    assert_eq!(reasons.len(), 2, "{reasons:?}");
}

#[test]
fn an_automatic_rollback_persists_and_then_asks_a_person() {
    let plan = rollback_plan(OnFailure::Persist { attempts: 3 });
    let (effects, outcome) =
        run(&plan, &mut |step, _| if step == "start-old" { Fate::Fail } else { Fate::Ok });
    assert_eq!(effects.iter().filter(|e| *e == "do start-old").count(), 3);
    assert!(
        effects.iter().all(|e| !e.starts_with("undo")),
        "a bad generation was started again: {effects:?}"
    );
    assert!(matches!(outcome, Outcome::NeedsOperator { .. }));
}

#[test]
fn a_rehearsal_whose_new_version_does_not_start_still_rehearses_the_rollback_and_refuses() {
    let (effects, outcome) =
        run(&rehearse_plan(), &mut |step, _| if step == "start-new" { Fate::Fail } else { Fate::Ok });
    assert!(effects.contains(&"do rollback-start".to_owned()), "{effects:?}");
    assert!(effects.contains(&"do dispose".to_owned()));
    assert!(!effects.contains(&"do checks".to_owned()), "checks ran without a candidate");
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
}

#[test]
fn staging_never_shares_a_path_or_a_port_with_production() {
    let plan = rehearse_plan();
    for staged in plan.instances.values().filter(|i| !i.is_production()) {
        for place in staged.stores.values() {
            assert!(place.path.starts_with("/s/.switchback/staging/R/"), "{}", place.path);
        }
        for port in staged.ports.values().flat_map(BTreeMap::values) {
            assert!((4001..=4004).contains(port), "{port}");
        }
    }
    let writers: Vec<&Op> = plan
        .steps
        .iter()
        .map(|s| &s.op)
        .filter(|op| match op {
            Op::Start { instance }
            | Op::Stop { instance }
            | Op::Prepare { instance }
            | Op::Migrate { instance, .. } => instance.starts_with(PRODUCTION),
            Op::Clone { to, .. } => to.starts_with(PRODUCTION),
            Op::Flip { .. } => true,
            _ => false,
        })
        .collect();
    assert!(writers.is_empty(), "a rehearsal touches production: {writers:?}");
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    proptest::collection::vec(
        prop_oneof![6 => Just(Fate::Ok), 1 => Just(Fate::Fail), 2 => Just(Fate::Crash)],
        0..60,
    )
}

proptest! {
    /// Whatever fails or crashes, a promotion ends with exactly one generation started, or asks a person.
    #[test]
    fn a_promotion_ends_on_exactly_one_generation(fates in fates()) {
        let plan = promote_plan();
        let mut fates = fates.into_iter();
        let mut running = std::collections::BTreeSet::from(["old"]);
        let (_, outcome) = run(&plan, &mut |step, undo| {
            let fate = fates.next().unwrap_or(Fate::Ok);
            if fate == Fate::Ok {
                match (step, undo) {
                    ("stop-old", false) => { running.remove("old"); }
                    ("stop-old", true) => { running.insert("old"); }
                    ("start-new", false) => { running.insert("new"); }
                    ("start-new", true) => { running.remove("new"); }
                    _ => {}
                }
            }
            fate
        });
        match outcome {
            Outcome::Done => prop_assert_eq!(running.into_iter().collect::<Vec<_>>(), ["new"]),
            Outcome::Undone { .. } => prop_assert_eq!(running.into_iter().collect::<Vec<_>>(), ["old"]),
            Outcome::NeedsOperator { .. } => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Undo is owed for everything that was started, in reverse order of starting.
    #[test]
    fn undo_runs_in_reverse(fail_at in 0usize..9) {
        let plan = promote_plan();
        let victim = plan.steps[fail_at].id.clone();
        let (effects, _) = run(&plan, &mut |step, undo| if step == victim.as_str() && !undo { Fate::Fail } else { Fate::Ok });
        let done: Vec<&str> = effects.iter().filter_map(|e| e.strip_prefix("do ")).collect();
        let undone: Vec<&str> = effects.iter().filter_map(|e| e.strip_prefix("undo ")).collect();
        let mut expected: Vec<&str> = done.iter().copied()
            .filter(|id| plan.step(&StepId::from(*id)).is_some_and(|s| s.undo == Undo::Reverse)).collect();
        expected.reverse();
        prop_assert_eq!(undone, expected);
    }
}

fn environment_facts(pristine: bool) -> StagingFacts {
    let place = |number: u32| {
        let dir = format!("{}/g{number}", crate::environment::dir("try"));
        Instance {
            environment: "try".into(),
            stores: stores_in(&instance(1, "1").stores, &format!("/s/.switchback/{dir}"), "", ""),
            dir,
            ..instance(number, "2")
        }
    };
    StagingFacts {
        run: "R".into(),
        stack: StackName::new("s").expect("valid"),
        now_ms: 0,
        production: instance(1, "1"),
        production_runs: true,
        environment: Environment {
            format: crate::release::FORMAT,
            name: "try".into(),
            instance: place(1),
            pristine: pristine.then(|| place(0)),
            run: "R".into(),
            created_at_ms: 0,
            expires_at_ms: None,
            from_generation: GenerationId(1),
            whole: true,
            data: Default::default(),
        },
        migrate: vec![service("app")],
        snapshot: None,
        at_ms: None,
        images: false,
        need_bytes: 0,
        rules: [("db.users.email".to_owned(), crate::anonymise::Mask::Email)].into(),
        budget_ms: 300_000,
    }
}

/// Nothing runs on a copy, and no second copy is made of it, before it is masked.
#[test]
fn a_copy_is_masked_before_anything_can_read_it() {
    for pristine in [true, false] {
        let facts = environment_facts(pristine);
        for plan in [staging_up(&facts), staging_sync(&facts)] {
            let at = |wanted: &dyn Fn(&Op) -> bool| plan.steps.iter().position(|s| wanted(&s.op));
            let mask = at(&|op| matches!(op, Op::Mask { .. })).expect("masks");
            let copied: Vec<usize> =
                (0..plan.steps.len()).filter(|i| matches!(plan.steps[*i].op, Op::Refresh { .. })).collect();
            assert_eq!(copied[0] + 1, mask, "right after production's data came");
            assert!(copied[1..].iter().all(|i| *i > mask), "copied on before it was masked");
            let runs = at(&|op| matches!(op, Op::Start { .. } | Op::Migrate { .. })).expect("starts");
            assert!(runs > mask, "something runs before it was masked");
            let Op::Mask { instance, .. } = &plan.steps[mask].op else { unreachable!() };
            let Op::Refresh { to, .. } = &plan.steps[copied[0]].op else { unreachable!() };
            assert_eq!(instance, to);
        }
        let without = StagingFacts { rules: Default::default(), ..facts };
        assert!(!staging_up(&without).steps.iter().any(|s| matches!(s.op, Op::Mask { .. })));
    }
}

#[test]
fn plans_of_an_environment_only_read_from_production() {
    for pristine in [false, true] {
        let facts = environment_facts(pristine);
        let mut plans = vec![
            staging_up(&facts),
            staging_sync(&facts),
            staging_start(&facts),
            staging_stop(&facts),
            staging_down(&facts),
        ];
        if pristine {
            plans.push(staging_reset(&facts));
        }
        for plan in plans {
            assert_eq!(plan.to_generation, None);
            for step in &plan.steps {
                let op = serde_json::to_value(&step.op).expect("JSON");
                for (key, value) in op.as_object().expect("an object") {
                    // Production is the source of a copy, or of a migration that begins again, and nothing else.
                    let named = value.as_str().is_some_and(|v| v.starts_with(PRODUCTION));
                    assert!(!named || key == "from" || key == "source", "{}: {op}", plan.procedure.as_str());
                }
            }
        }
    }
}

#[test]
fn an_environment_whose_start_fails_is_undone_and_never_recorded() {
    let plan = staging_up(&environment_facts(true));
    let (effects, outcome) =
        run(&plan, &mut |step, undo| if step == "start" && !undo { Fate::Fail } else { Fate::Ok });
    assert!(matches!(outcome, Outcome::Undone { .. }), "{outcome:?}");
    assert!(!effects.contains(&"do register".to_owned()), "{effects:?}");
    let undone: Vec<&str> = effects.iter().filter_map(|e| e.strip_prefix("undo ")).collect();
    assert_eq!(undone, ["start", "prepare-try-0", "prepare-try-1"]);
}
