//! Known-bad upgrades, made on purpose: each must be refused, and for its own reason.

use super::ground::Lasting;
use super::lab::{Lab, Ran};
use super::mutate::{MUTATE_VERB, Mutation};
use super::production::begins;
use super::proof::{Proof, Stop};
use crate::engine::Notice;
use crate::error::EngineError;
use crate::gather::Target;
use crate::home::read_json;
use crate::runtime::Stage;
use crate::runtime::process::start::own_program;
use crate::session::Session;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use switchback_core::check::{CheckKind, Verdict};
use switchback_core::config::{Config, Health, RuntimeKind, Service};
use switchback_core::data::StoreKind;
use switchback_core::duration::Span;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::journal::Outcome;
use switchback_core::plan::Op;
use switchback_core::report::StepStatus;

/// A service that must fail is not waited for longer than this.
const START: Span = Span::secs(4);
/// The mutant that loses rows.
const ROWS_LOST: &str = "mutant: rows lost";
/// Makes another release of the upgrade that loses rows: a refusal of the upgrade itself would void its certificate.
const ROWS_VARIABLE: &str = "SWITCHBACK_VERIFY_ROWS";
/// The port that nobody listens on.
const DEAF_PORT: &str = "switchback-verify";

/// Proves that three bad upgrades are refused, and that the good one was not.
pub fn prove(lab: &mut Lab<'_>) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "mutants.basic",
        "each mutant is refused by the expected check, naming the fault, and gets no certificate; the same upgrade without the fault passes",
    );
    let control = lab.rehearsed()?;
    let passed = control.done();
    proof.runs.push(control.plan.run.clone());
    proof.measure("control: the upgrade as it is", if passed { "passes" } else { "refused" });
    if !passed {
        // Caught for the upgrade's own faults or for the mutant's: that cannot be told apart.
        proof.not_run(format!("the upgrade itself is refused: {}", control.why()));
        return Ok(proof);
    }
    let (config, target) = (lab.sandbox()?.desired.clone(), lab.sandbox()?.target.clone());
    match config.runtime {
        RuntimeKind::Process => lost_rows(lab, &config, &target, &mut proof)?,
        RuntimeKind::Compose => lost_rows_of_containers(lab, &config, &target, &mut proof)?,
    }
    deaf(lab, &config, &target, &mut proof)?;
    broken_migration(lab, &config, &target, &mut proof)?;
    Ok(proof)
}

fn rehearse(lab: &Lab<'_>, mutated: &Config, target: &Target, proof: &mut Proof) -> Result<Ran, Stop> {
    let mut config = mutated.clone();
    // It would be tried on data that is known to be wrong.
    config.rehearsal.code_only_rollback = false;
    config.rehearsal.trace = false;
    let ran = lab.carry_out(&config, |s| s.plan_rehearsal(&config, target, &Stage::quiet()))?;
    proof.runs.push(ran.plan.run.clone());
    Ok(ran)
}

fn judge(ran: &Ran, name: &str, expected: bool, wanted: &str, proof: &mut Proof) {
    let refused = matches!(ran.state.ended, Some(Outcome::Refused { .. }));
    let why = ran.why();
    proof.measure(name, if refused { format!("refused: {why}") } else { "accepted".to_owned() });
    proof.demand(refused, name, "it was not refused");
    proof.demand(expected, name, format!("expected {wanted}; got: {why}"));
    proof.demand(ran.report.certificate.is_none(), name, "it got a certificate");
}

/// Whether the migration of a service runs in this upgrade.
fn migrates(lab: &Lab<'_>, name: &ServiceName) -> Result<bool, EngineError> {
    let steps = &lab.rehearsed()?.plan.steps;
    Ok(steps.iter().any(|s| matches!(&s.op, Op::Migrate { service, .. } if service == name)))
}

/// The service to change: one whose migration runs, else the first; and whether its migration runs.
fn victim(lab: &Lab<'_>, config: &Config) -> Result<Option<(ServiceName, bool)>, EngineError> {
    for name in config.services.keys() {
        if migrates(lab, name)? {
            return Ok(Some((name.clone(), true)));
        }
    }
    Ok(config.services.keys().next().map(|n| (n.clone(), false)))
}

/// Puts a shell line around the migration, or around the service where no migration runs. The original words
/// follow as `"$@"`, so that nothing of them is quoted again.
fn wrap(service: &mut Service, migration: bool, line: &str, extra: &[String]) {
    let words = if migration { &mut service.migrate } else { &mut service.command };
    let mut wrapped = vec!["sh".to_owned(), "-c".to_owned(), line.to_owned(), "sh".to_owned()];
    wrapped.extend_from_slice(extra);
    wrapped.append(words);
    *words = wrapped;
}

fn lost_rows(lab: &Lab<'_>, config: &Config, target: &Target, proof: &mut Proof) -> Result<(), Stop> {
    let Some((service, migration)) = victim(lab, config)? else { return Ok(()) };
    let Some((store, kind)) = store_of(lab, config, &service)? else {
        proof.not_run("the stack has no data that a migration could lose");
        return Ok(());
    };
    let record: PathBuf = lab.sandbox()?.root().join("mutant-lost.json");
    let verb = if kind == StoreKind::Sqlite { "lose-rows" } else { "lose-file" };
    let mut mutated = config.clone();
    let Some(changed) = mutated.services.get_mut(&service) else { return Ok(()) };
    let literal = |p: &Path| p.to_string_lossy().replace('{', "{{").replace('}', "}}");
    let extra = [literal(&own_program()), verb.to_owned(), format!("{{store.{store}}}"), literal(&record)];
    let mutate = format!("\"$p\" {MUTATE_VERB} \"$v\" \"$d\" \"$r\"");
    let line = if migration {
        format!("p=$1 v=$2 d=$3 r=$4; shift 4; \"$@\" && exec {mutate}")
    } else {
        // A service that migrates when it starts: it loses the rows and runs on.
        format!("p=$1 v=$2 d=$3 r=$4; shift 4; {mutate} && exec \"$@\"")
    };
    wrap(changed, migration, &line, &extra);
    let ran = rehearse(lab, &mutated, target, proof)?;
    // Without this the fault never took place, and whatever was refused proves nothing.
    let Ok(done) = read_json::<Mutation>(&record) else {
        proof.doubt(format!("the mutant that loses rows did not lose any: {}", ran.why()));
        return Ok(());
    };
    judge_lost(&ran, &store, &done, proof);
    Ok(())
}

/// Takes rows away between the migration and the first check: what a migration that loses them leaves.
fn lost_rows_of_containers(
    lab: &Lab<'_>,
    config: &Config,
    target: &Target,
    proof: &mut Proof,
) -> Result<(), Stop> {
    let mut stores: Vec<(&StoreName, StoreKind)> =
        lab.sandbox()?.places.iter().map(|(n, p)| (n, p.kind)).collect();
    stores.sort_by_key(|(_, kind)| match kind {
        StoreKind::Sqlite => 0,
        StoreKind::Postgres | StoreKind::Mysql => 1,
        StoreKind::Files => 2,
    });
    let Some((store, kind)) = stores.first().map(|(n, k)| ((*n).clone(), *k)) else {
        proof.not_run("the stack has no data that a migration could lose");
        return Ok(());
    };
    // A server's rows are taken through the server, which runs only then.
    let step = if kind.has_server() { "read-back-new" } else { "start-new" };
    let prefix = format!("{store}.");
    let not: Vec<String> = config
        .checks
        .expected_changes
        .iter()
        .filter_map(|c| c.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    let lost: Mutex<Option<Result<Mutation, String>>> = Mutex::new(None);
    let (ground, home, told) = (lab.ground, lab.sandbox()?.home.clone(), lab.request.observe);
    let observe = |notice: &Notice<'_>| {
        if let Notice::Recorded(plan, record) = notice
            && begins(&record.event, step)
            && let Some(instance) = plan.instance("candidate/2")
            && let Ok(mut lost) = lost.lock()
        {
            *lost = ground.lose_rows(&home, instance, &store, &not).map_err(|e| e.to_string()).transpose();
        }
        told(notice);
    };
    let Some((_, mut mutated)) = ground.with_variable(lab.sandbox()?, ROWS_VARIABLE, Lasting::Once)? else {
        proof.not_run("the stack has no service");
        return Ok(());
    };
    mutated.rehearsal.code_only_rollback = false;
    mutated.rehearsal.trace = false;
    let plan = |s: &Session<'_>| s.plan_rehearsal(&mutated, target, &Stage::quiet());
    let ran = lab.carry_out_seen(&mutated, plan, &observe);
    // Whatever happened, the stack's files say again what the other phases go to.
    ground.settle(lab.sandbox()?)?;
    let ran = ran?;
    proof.runs.push(ran.plan.run.clone());
    match lost.into_inner().ok().flatten() {
        Some(Ok(done)) => judge_lost(&ran, &store, &done, proof),
        Some(Err(e)) => _ = proof.doubt(format!("the mutant that loses rows did not lose any: {e}")),
        None => _ = proof.doubt(format!("the mutant that loses rows did not lose any: {}", ran.why())),
    }
    Ok(())
}

/// Holds what was refused against what was taken away.
fn judge_lost(ran: &Ran, store: &StoreName, done: &Mutation, proof: &mut Proof) {
    let place = format!("{store}.{}", done.part);
    let named =
        ran.report.checks.iter().filter(|c| c.kind == CheckKind::Integrity).any(
            |c| matches!(&c.verdict, Verdict::Fail { reasons } if reasons.iter().any(|r| r.at == place)),
        );
    proof.measure("rows lost on purpose", format!("{} of {} in {place}", done.lost, done.before));
    judge(ran, ROWS_LOST, named, &format!("the integrity check to name {place}"), proof);
}

/// The store that a service's commands name, databases first; empty ones have nothing to lose.
fn store_of(
    lab: &Lab<'_>,
    config: &Config,
    service: &ServiceName,
) -> Result<Option<(StoreName, StoreKind)>, Stop> {
    let sandbox = lab.sandbox()?;
    let words = &config.services[service];
    let named = |name: &StoreName| {
        let placeholder = format!("{{store.{name}}}");
        words.migrate.iter().chain(&words.command).chain(words.env.values()).any(|t| t.contains(&placeholder))
    };
    let mut list: Vec<(&StoreName, StoreKind)> = config
        .stores
        .iter()
        .filter(|(n, _)| sandbox.places.contains_key(*n))
        .map(|(n, s)| (n, s.kind))
        .collect();
    list.sort_by_key(|(name, kind)| (*kind != StoreKind::Sqlite, !named(name)));
    Ok(list.first().map(|(n, k)| ((*n).clone(), *k)))
}

fn deaf(lab: &Lab<'_>, config: &Config, target: &Target, proof: &mut Proof) -> Result<(), Stop> {
    const NAME: &str = "mutant: the service does not answer";
    let Some((service, _)) = victim(lab, config)? else { return Ok(()) };
    let mut mutated = config.clone();
    let Some(changed) = mutated.services.get_mut(&service) else { return Ok(()) };
    let free = crate::gather::free_ports(1)?.first().copied().unwrap_or(1);
    changed.ports.insert(DEAF_PORT.to_owned(), free);
    changed.health = match config.runtime {
        RuntimeKind::Process => Health {
            http: None,
            command: None,
            tcp: Some(DEAF_PORT.to_owned()),
            port: None,
            start: changed.health.start.min(START),
            ..changed.health.clone()
        },
        // The engine itself accepts connections to a published port: only an answer says that somebody listens. And a
        // container that takes long is not deaf.
        RuntimeKind::Compose => Health {
            http: Some("/".to_owned()),
            command: None,
            tcp: None,
            port: Some(DEAF_PORT.to_owned()),
            start: changed.health.start.min(patience(lab, &service)?),
            ..changed.health.clone()
        },
    };
    let ran = rehearse(lab, &mutated, target, proof)?;
    let step = ran.report.steps.iter().find(|s| s.id == "start-new");
    let named = step.is_some_and(|s| {
        s.status == StepStatus::Failed
            && s.error.as_ref().is_some_and(|e| {
                e.message.contains(service.as_str()) && e.message.contains("did not become healthy")
            })
    });
    judge(&ran, NAME, named, &format!("the health check of {service}"), proof);
    Ok(())
}

/// Twice what the service needed in the rehearsal, and a bit.
fn patience(lab: &Lab<'_>, service: &ServiceName) -> Result<Span, EngineError> {
    let took = lab.rehearsed()?.state.output(&"start-new".into());
    let ms = took.and_then(|o| o.services.get(service)).and_then(|t| t.stable_after_ms).unwrap_or(0);
    Ok(Span(START.0 + std::time::Duration::from_millis(ms.saturating_mul(2))))
}

fn broken_migration(lab: &Lab<'_>, config: &Config, target: &Target, proof: &mut Proof) -> Result<(), Stop> {
    const NAME: &str = "mutant: the migration fails";
    let Some((service, migration)) = victim(lab, config)? else { return Ok(()) };
    let mut mutated = config.clone();
    let Some(changed) = mutated.services.get_mut(&service) else { return Ok(()) };
    if !migration && config.runtime == RuntimeKind::Compose {
        // A container's command is not to be had without its Compose file, and not every image has a shell.
        proof.measure(NAME, "not tried: no migration command runs in this upgrade");
        return Ok(());
    }
    if !migration {
        changed.health.start = changed.health.start.min(START);
    }
    let line = if migration { "\"$@\"; exit 1" } else { "exit 1" };
    wrap(changed, migration, line, &[]);
    let ran = rehearse(lab, &mutated, target, proof)?;
    let wanted = if migration { format!("migrate-{service}") } else { "start-new".to_owned() };
    let step = ran.report.steps.iter().find(|s| s.id == wanted);
    judge(
        &ran,
        NAME,
        step.is_some_and(|s| s.status == StepStatus::Failed),
        &format!("the step {wanted}"),
        proof,
    );
    Ok(())
}
