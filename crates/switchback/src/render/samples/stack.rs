//! The stack of the samples, its plans, and how a plan is played through.

use std::collections::BTreeMap;
use switchback_core::data::StoreKind;
use switchback_core::ids::{Digest, GenerationId, RunId, ServiceName, StackName, StoreName};
use switchback_core::journal::{Event, Output, Record, RunState, StepError};
use switchback_core::next::{Next, next};
use switchback_core::plan::{Plan, PromoteFacts, RehearseFacts, promote, rehearse};
use switchback_core::release::{Instance, PRODUCTION, Shared, StorePlace};

pub const NOW: i64 = 1_790_000_000_000;
pub const RUN: &str = "01K5Q3V7ZC9M2X4T8B6WHRJ0NE";

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("valid")
}

pub fn store(name: &str) -> StoreName {
    StoreName::new(name).expect("valid")
}

pub fn versions(app: &str) -> BTreeMap<ServiceName, String> {
    BTreeMap::from([(service("assistant"), app.to_owned()), (service("proxy"), "4.6".to_owned())])
}

pub fn ports() -> BTreeMap<ServiceName, BTreeMap<String, u16>> {
    BTreeMap::from([(service("assistant"), BTreeMap::from([("http".to_owned(), 8300)]))])
}

pub fn production(generation: u32, app: &str) -> Instance {
    let place = |kind, path: &str| StorePlace { kind, path: path.to_owned(), mount: None, server: None };
    Instance {
        environment: PRODUCTION.to_owned(),
        generation: GenerationId(generation),
        release: Digest::of(app.as_bytes()),
        versions: versions(app),
        dir: format!("generations/{generation}"),
        stores: BTreeMap::from([
            (store("notes"), place(StoreKind::Sqlite, "/srv/assistant/notes.db")),
            (store("uploads"), place(StoreKind::Files, "/srv/assistant/uploads")),
        ]),
        ports: ports(),
        project: None,
        shared: Shared::default(),
        closed: false,
    }
}

pub fn rehearsal() -> Plan {
    rehearse(&RehearseFacts {
        run: RunId::from(RUN),
        stack: StackName::new("assistant").expect("valid"),
        now_ms: NOW,
        state_dir: "/srv/assistant/.switchback".to_owned(),
        production: production(3, "1.4.2"),
        target: Digest::of(b"2.0.0"),
        target_versions: versions("2.0.0"),
        target_ports: ports(),
        migrate: vec![service("assistant")],
        free_ports: (41_000..41_020).collect(),
        need_bytes: 3 << 30,
        budget_ms: 30_000,
        valid_ms: 7 * 86_400_000,
        code_only: true,
        lint: true,
        convert: BTreeMap::new(),
        trace: true,
        queries: true,
        production_runs: true,
    })
}

pub fn promotion() -> Plan {
    promote(&promotion_facts())
}

/// Later writes of generation 4, carried into generation 5.
pub fn carrying() -> Plan {
    promote(&PromoteFacts {
        next: GenerationId(5),
        target: Digest::of(b"1.4.2"),
        target_versions: versions("1.4.2"),
        migrate: Vec::new(),
        edit: (BTreeMap::new(), BTreeMap::new()),
        carry: Some(GenerationId(4)),
        ..promotion_facts()
    })
}

fn promotion_facts() -> PromoteFacts {
    PromoteFacts {
        run: RunId::from(RUN),
        stack: StackName::new("assistant").expect("valid"),
        now_ms: NOW,
        state_dir: "/srv/assistant/.switchback".to_owned(),
        production: production(3, "1.4.2"),
        previous: Some(GenerationId(2)),
        next: GenerationId(4),
        target: Digest::of(b"2.0.0"),
        target_versions: versions("2.0.0"),
        target_ports: ports(),
        migrate: vec![service("assistant")],
        edit: (versions("1.4.2"), versions("2.0.0")),
        precopy: false,
        convert: BTreeMap::new(),
        cheap_base: true,
        need_bytes: 1 << 30,
        budget_ms: 30_000,
        watch_ms: 900_000,
        waiver: None,
        capture: false,
        carry: None,
    }
}

pub type Found = Result<Output, Box<(StepError, Output)>>;

/// A run that is being played.
struct Player<'a> {
    plan: &'a Plan,
    state: RunState,
    records: Vec<Record>,
    at_ms: i64,
}

impl Player<'_> {
    fn push(&mut self, after_ms: u64, event: Event) {
        self.at_ms += i64::try_from(after_ms).expect("small");
        self.state.apply(self.plan, &event);
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record { run: self.plan.run.clone(), seq, at_ms: self.at_ms, event });
    }
}

/// Plays a plan: each step takes `took` and finds `found`.
pub fn play(plan: &Plan, took: impl Fn(&str) -> u64, found: impl Fn(&str) -> Found) -> Vec<Record> {
    let mut player = Player { plan, state: RunState::default(), records: Vec::new(), at_ms: plan.made_at_ms };
    player.push(0, Event::Planned { plan: Box::new(plan.clone()) });
    loop {
        let state = player.state.clone();
        match next(plan, &state) {
            Next::Do(step) => {
                let attempt = state.steps.get(&step.id).map_or(0, |s| s.attempts) + 1;
                player.push(3, Event::Started { step: step.id.clone(), attempt });
                let took_ms = took(step.id.as_str());
                let step = step.id.clone();
                let event = match found(step.as_str()) {
                    Ok(output) => Event::Finished { step, output, took_ms },
                    Err(failed) => {
                        let (error, output) = *failed;
                        Event::Failed { step, error, output, took_ms }
                    }
                };
                player.push(took_ms, event);
            }
            Next::Skip(step, because) => player.push(0, Event::Skipped { step: step.id.clone(), because }),
            Next::GiveUp(_) => unreachable!("no step crashes here"),
            Next::Undo(step) => {
                player.push(2, Event::UndoStarted { step: step.id.clone(), attempt: 1 });
                let output = Output::default();
                player.push(420, Event::Undone { step: step.id.clone(), output, took_ms: 420 });
            }
            Next::End(outcome) => player.push(1, Event::Ended { outcome }),
            Next::Finished(_) => return player.records,
        }
    }
}
