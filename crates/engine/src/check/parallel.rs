//! One workflow by several workers at the same time.

use super::workflow::{Endpoint, WorkflowContext, run_one};
use crate::exec::elapsed_ms;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::duration::human_ms;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::{Redactor, ReferenceKind, Workflow};

/// Reasons that are told of all workers together.
const MOST_REASONS: usize = 5;
/// How often it is asked whether to stop.
const ASK: Duration = Duration::from_millis(20);

/// What workers share: nothing that belongs to one thread.
struct Shared {
    environment: String,
    endpoints: BTreeMap<ServiceName, Endpoint>,
    run_id: String,
    env: BTreeMap<String, String>,
    redactor: Redactor,
    base_dir: PathBuf,
    stop: AtomicBool,
}

impl Shared {
    fn work(&self, workflow: &Workflow, worker: u32) -> CheckResult {
        let env = |name: &str| self.env.get(name).cloned();
        let cancel = || self.stop.load(Ordering::Relaxed);
        let context = WorkflowContext {
            environment: self.environment.clone(),
            endpoints: self.endpoints.clone(),
            run_id: format!("{}-{worker}", self.run_id),
            env: &env,
            redactor: self.redactor.clone(),
            base_dir: self.base_dir.clone(),
            sql: None,
            sent: None,
            cancel: &cancel,
        };
        run_one(workflow, &context, Some(worker))
    }
}

/// Runs it by so many workers; all of them must pass.
pub(super) fn run(workflow: &Workflow, workers: u32, context: &WorkflowContext<'_>) -> CheckResult {
    let began = Instant::now();
    let wanted = workflow.references.iter().filter(|r| r.kind == ReferenceKind::Env);
    let shared = Shared {
        environment: context.environment.clone(),
        endpoints: context.endpoints.clone(),
        run_id: context.run_id.clone(),
        env: wanted.filter_map(|r| Some((r.name.clone(), (context.env)(&r.name)?))).collect(),
        redactor: context.redactor.clone(),
        base_dir: context.base_dir.clone(),
        stop: AtomicBool::new(false),
    };
    let results: Vec<CheckResult> = std::thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = (1..=workers).map(|n| scope.spawn(move || shared.work(workflow, n))).collect();
        while threads.iter().any(|t| !t.is_finished()) {
            if (context.cancel)() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(ASK);
        }
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    let none = CheckResult {
        looks: Vec::new(),
        id: format!("workflow/{}", workflow.id),
        kind: CheckKind::Workflow,
        environment: context.environment.clone(),
        verdict: Verdict::Inconclusive { why: "every worker broke off".to_owned() },
        took_ms: elapsed_ms(began),
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
    };
    combined(results, workers, none)
}

/// The worst of all, with what it saw.
fn combined(results: Vec<CheckResult>, workers: u32, none: CheckResult) -> CheckResult {
    let took_ms = none.took_ms;
    let rank = |r: &CheckResult| match r.verdict {
        Verdict::Fail { .. } => 0,
        Verdict::Inconclusive { .. } => 1,
        Verdict::NotRun { .. } => 2,
        Verdict::Pass | Verdict::Waived { .. } => 3,
    };
    let passed = results.iter().filter(|r| r.verdict == Verdict::Pass).count();
    let requests: u64 = results.iter().filter_map(|r| r.measured.get("requests")?.parse::<u64>().ok()).sum();
    let mut reasons = Vec::new();
    for (index, result) in results.iter().enumerate() {
        if let Verdict::Fail { reasons: own } = &result.verdict {
            reasons.extend(own.iter().cloned().map(|mut reason| {
                reason.at = format!("worker {}: {}", index + 1, reason.at);
                reason
            }));
        }
    }
    reasons.truncate(MOST_REASONS);
    let lost = results.len() < workers as usize;
    let Some(mut worst) = results.into_iter().min_by_key(rank) else { return none };
    if !reasons.is_empty() {
        worst.verdict = Verdict::Fail { reasons };
    } else if lost {
        worst.verdict = Verdict::Inconclusive { why: "a worker broke off".to_owned() };
    }
    worst.took_ms = took_ms;
    worst.measured.insert("workers".to_owned(), workers.to_string());
    worst.measured.insert("workers that passed".to_owned(), passed.to_string());
    worst.measured.insert("requests".to_owned(), requests.to_string());
    worst.measured.insert("total".to_owned(), human_ms(took_ms));
    worst
}
