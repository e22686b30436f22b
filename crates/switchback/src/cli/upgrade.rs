//! The verbs of an upgrade: up, down, plan, rehearse, promote, upgrade, watch; and what all that carry out a plan share.

use super::consent::{confirm, declined};
use super::run::{Last, cancel_giving_way, cancel_on_signals, conclude_as, journal};
use super::trial::follow;
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use clap::Args;
use std::collections::BTreeMap;
use switchback_core::config::{Config, suggest};
use switchback_core::duration::human_ms;
use switchback_core::ids::{GenerationId, ServiceName};
use switchback_core::plan::{OnFailure, Plan, Procedure};
use switchback_core::release::{describe, describe_change};
use switchback_engine::engine::{Cancel, Notice, RunEnd};
use switchback_engine::gather::Target;
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::runtime::Stage;
use switchback_engine::session::Session;
use switchback_engine::taken_back::{Asked, refuse_what_failed};
use switchback_engine::watch as watchdog;

/// Versions to try.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// Versions that replace those in switchback.yaml
    #[arg(value_name = "SERVICE=VERSION")]
    pub versions: Vec<String>,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of a promotion.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Return once the trial has begun; the watchdog goes on by itself
    #[arg(long)]
    pub detach: bool,
    /// Promote without a rehearsal; the waiver is recorded
    #[arg(long, requires = "reason")]
    pub without_certificate: bool,
    /// Also if exactly this release was rolled back by the watchdog before
    #[arg(long)]
    pub again: bool,
    /// Also outside of `promotion.windows`, and a version younger than `promotion.min_age`
    #[arg(long)]
    pub any_time: bool,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Options of an upgrade.
#[derive(Debug, Clone, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    pub promote: PromoteArgs,
    /// Every stack in this folder and at most two levels below it, in the order of `after`
    #[arg(long, conflicts_with_all = ["versions", "detach"])]
    pub all: bool,
}

/// Options of plan.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Which procedure
    #[arg(default_value = "promote", value_parser = ["rehearse", "promote", "rollback", "up", "down"])]
    pub procedure: String,
    /// Versions that replace those in switchback.yaml
    #[arg(value_name = "SERVICE=VERSION")]
    pub versions: Vec<String>,
    /// For a rollback: the generation to return to
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u32>,
}

/// Opens the stack and reads its configuration.
pub fn open(global: &Global) -> Result<(Home, Config), Trouble> {
    let home = Home::open(&global.directory)?;
    let config = switchback_engine::world::config(&home)?;
    Ok((home, config))
}

/// Reads `SERVICE=VERSION` words.
pub fn target(config: &Config, versions: &[String]) -> Result<Target, Trouble> {
    let mut wanted = BTreeMap::new();
    for text in versions {
        let Some((name, version)) = text.split_once('=') else {
            return Err(Trouble::usage(format!("{text:?} is not SERVICE=VERSION"), "for example  hub=5.4.6"));
        };
        let Some((service, _)) = config.services.get_key_value(name) else {
            let known: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
            let hint = match suggest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("services: {}", known.join(", ")),
            };
            return Err(Trouble::usage(format!("there is no service {name:?}"), hint));
        };
        if version.is_empty() || version.contains('/') || version.contains("..") {
            return Err(Trouble::usage(
                format!("{version:?} is not a version"),
                "it may not be empty or contain '/' or '..'",
            ));
        }
        wanted.insert(service.clone(), version.to_owned());
    }
    Ok(Target { versions: wanted })
}

pub fn show_plan(global: &Global, plan: &Plan) -> Result<Exit, Trouble> {
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(plan)?;
        return Ok(Exit::Done);
    }
    let generations = match (plan.from_generation, plan.to_generation) {
        (Some(a), Some(b)) if a != b => format!(", generation {a} -> {b}"),
        _ => String::new(),
    };
    out.line(&format!("{} of {}: {}{generations}", plan.procedure.as_str(), plan.stack, change(plan)))?;
    for (index, step) in plan.steps.iter().enumerate() {
        let undo =
            if step.undo == switchback_core::plan::Undo::Reverse { "  (undone on failure)" } else { "" };
        out.line(&format!("{:>3}. {:<26} {}{undo}", index + 1, step.id.as_str(), step.title))?;
    }
    out.line("Nothing was done.")?;
    Ok(Exit::Done)
}

/// Plans, telling what takes time (images that are built or pulled), honouring Ctrl-C, and giving way to a rollback:
/// nothing is touched yet.
pub fn planning<T>(global: &Global, work: impl FnOnce(&Stage<'_>) -> T) -> T {
    let cancel = cancel_giving_way(global);
    let progress = Progress::new(global.quiet);
    let say = |text: &str| progress.line(&format!("  {text}"));
    let cancelled = || cancel.requested();
    let done = work(&Stage { say: &say, cancelled: &cancelled, midway: &|| {} });
    if let Some(who) = cancel.gave_way_to() {
        progress.line(&format!("  Gave way to a rollback: {who}."));
    }
    done
}

pub fn session<'h>(global: &Global, home: &'h Home, what: &str) -> Result<Session<'h>, Trouble> {
    // Before the lock is taken: from then on Ctrl-C must be a clean stop.
    cancel_on_signals();
    Ok(Session::open(home, what, global.wait())?)
}

/// What a plan is about, for people.
pub fn change(plan: &Plan) -> String {
    if matches!(plan.procedure, Procedure::Backup | Procedure::Drill | Procedure::Carry | Procedure::Export) {
        return describe(&plan.to);
    }
    let environment = plan.instances.values().find(|i| !i.is_production()).map(|i| i.environment.as_str());
    match environment.filter(|_| plan.procedure.is_staging()) {
        Some(name) if plan.from == plan.to => name.to_owned(),
        Some(name) => format!("{name}: {}", describe_change(&plan.from, &plan.to)),
        None => describe_change(&plan.from, &plan.to),
    }
}

pub fn carry_out_as(
    global: &Global,
    home: &Home,
    session: &mut Session<'_>,
    plan: &Plan,
    config: &Config,
    last: Last,
) -> Result<(Exit, RunEnd), Trouble> {
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    progress.line(&format!("{} {}  {}", plan.procedure.as_str(), plan.stack, change(plan)));
    let observe = |notice: &Notice<'_>| progress.notice(notice);
    let end = session.carry_out(plan, config, &cancel, &observe)?;
    drop(progress);
    let exit = conclude_as(global, home, plan, &end, last)?;
    Ok((exit, end))
}

/// Like [`carry_out`], where a trial follows.
pub fn carry_out_end(
    global: &Global,
    home: &Home,
    session: &mut Session<'_>,
    plan: &Plan,
    config: &Config,
    detach: bool,
) -> Result<(Exit, RunEnd), Trouble> {
    carry_out_as(global, home, session, plan, config, if detach { Last::Yes } else { Last::IfNotDone })
}

pub fn carry_out(
    global: &Global,
    home: &Home,
    session: &mut Session<'_>,
    plan: &Plan,
    config: &Config,
) -> Result<Exit, Trouble> {
    Ok(carry_out_as(global, home, session, plan, config, Last::Yes)?.0)
}

/// Starts production.
pub fn up(global: &Global) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "up")?;
    session.require_settled()?;
    let plan = planning(global, |stage| session.plan_up(&config, stage))?;
    let exit = carry_out(global, &home, &mut session, &plan, &config)?;
    // After a reboot a trial has no watchdog any more.
    if watchdog::current(&session.journal)?.is_some() {
        watchdog::ensure(&home)?;
    }
    drop(session);
    keeper::spawn(&home)?;
    Ok(exit)
}

/// Stops production.
pub fn down(global: &Global) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "down")?;
    session.require_settled()?;
    session.require_no_trial()?;
    let plan = session.plan_down(&config)?;
    if !confirm(global, &format!("Stop production of {}?", plan.stack))? {
        return Err(declined());
    }
    carry_out(global, &home, &mut session, &plan, &config)
}

/// Shows a plan.
pub fn plan(global: &Global, args: &PlanArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let session = session(global, &home, "plan")?;
    let target = target(&config, &args.versions)?;
    let mut plan = match args.procedure.as_str() {
        "rehearse" => planning(global, |stage| session.plan_rehearsal(&config, &target, stage))?,
        "rollback" => session.plan_rollback(&config, args.to.map(GenerationId), "plan", OnFailure::Undo)?,
        "up" => planning(global, |stage| session.plan_up(&config, stage))?,
        "down" => session.plan_down(&config)?,
        // Without its certificate: a plan shows what would be done, not whether it is permitted.
        _ => planning(global, |stage| {
            session.plan_promotion(&config, &target, Some("plan".to_owned()), stage)
        })?,
    };
    plan.reason = None;
    show_plan(global, &plan)
}

/// Tries an upgrade on a clone.
pub fn rehearse(global: &Global, args: &TargetArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let target = target(&config, &args.versions)?;
    let mut session = session(global, &home, "rehearse")?;
    session.require_settled()?;
    let plan = planning(global, |stage| session.plan_rehearsal(&config, &target, stage))?;
    if args.dry_run {
        return show_plan(global, &plan);
    }
    carry_out(global, &home, &mut session, &plan, &config)
}

fn waiver(args: &PromoteArgs) -> Option<String> {
    args.without_certificate
        .then(|| format!("without certificate: {}", args.reason.as_deref().unwrap_or("no reason given")))
}

/// Brings a rehearsed upgrade to production.
pub fn promote(global: &Global, args: &PromoteArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let target = target(&config, &args.target.versions)?;
    let mut session = session(global, &home, "promote")?;
    session.require_settled()?;
    session.require_no_trial()?;
    let plan = planning(global, |stage| session.plan_promotion(&config, &target, waiver(args), stage))?;
    refuse_now(&home, &config, &session, &plan, args)?;
    if args.target.dry_run {
        return show_plan(global, &plan);
    }
    let question = format!(
        "Promote {} ({})? Production stops while its data is cloned{}.",
        plan.stack,
        describe_change(&plan.from, &plan.to),
        predicted(&home, &plan)
    );
    if !confirm(global, &question)? {
        return Err(declined());
    }
    let last = if args.detach { Last::Yes } else { Last::IfNotDone };
    let (exit, end) = carry_out_as(global, &home, &mut session, &plan, &config, last)?;
    drop(session);
    follow(global, &home, &plan, exit, &end, args.detach)
}

/// Refuses what failed before, and what the configuration does not allow at this time.
fn refuse_now(
    home: &Home,
    config: &Config,
    session: &Session<'_>,
    plan: &Plan,
    args: &PromoteArgs,
) -> Result<(), Trouble> {
    if !args.again {
        refuse_what_failed(&session.journal, plan, Asked::ByPerson)?;
    }
    if !args.any_time {
        switchback_engine::policy::permits(home, config, plan, &jiff::Zoned::now())?;
    }
    Ok(())
}

fn predicted(home: &Home, plan: &Plan) -> String {
    let found =
        journal(home).ok().flatten().and_then(|j| switchback_engine::certificate::certificates(&j).ok());
    let releases: Vec<_> = plan.instances.values().map(|i| &i.release).collect();
    found
        .unwrap_or_default()
        .iter()
        .rev()
        .find(|c| releases.contains(&&c.from) && releases.contains(&&c.to))
        .map_or_else(String::new, |c| {
            format!(
                " and migrated, about {}; a rollback takes about {}",
                human_ms(c.downtime_ms),
                human_ms(c.rollback_ms)
            )
        })
}

/// Rehearses, then promotes.
pub fn upgrade(global: &Global, args: &PromoteArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let target = target(&config, &args.target.versions)?;
    let mut session = session(global, &home, "upgrade")?;
    session.require_settled()?;
    session.require_no_trial()?;
    if !args.without_certificate {
        let plan = planning(global, |stage| session.plan_rehearsal(&config, &target, stage))?;
        // Before an hour of rehearsing.
        refuse_now(&home, &config, &session, &plan, args)?;
        if args.target.dry_run {
            return show_plan(global, &plan);
        }
        let (exit, _) = carry_out_as(global, &home, &mut session, &plan, &config, Last::IfNotDone)?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    drop(session);
    promote(global, args)
}

/// Watches in the foreground.
pub fn watch(global: &Global) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    let progress = Progress::new(global.quiet);
    if let Some(holder) = watchdog::holder(&home) {
        progress.line(&format!("A watchdog is watching already: {holder}."));
        return Ok(Exit::Done);
    }
    let cancel: Cancel = cancel_on_signals();
    watchdog::watch(&home, &cancel, &|notice| progress.notice(notice))?;
    progress.line("No trial is running.");
    Ok(Exit::Done)
}
