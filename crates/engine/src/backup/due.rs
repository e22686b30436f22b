//! Backups and drills by the clock.

use super::facts::{archive_facts, drill_facts};
use super::{newest, unplanned};
use crate::engine::{Cancel, Observer, RunEnd, now_ms};
use crate::error::EngineError;
use crate::home::Home;
use crate::notify;
use crate::session::Session;
use crate::world::World;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::journal::Outcome;
use switchback_core::notify::Severity;
use switchback_core::plan::{self, Plan, Procedure};

/// After a failure it is tried again after this time, or the time between two runs, if that is shorter.
pub const AGAIN_MS: i64 = 15 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is due now: backups before drills, and those of backups before those of rollbacks.
pub fn due(home: &Home, config: &Config) -> Result<Option<Procedure>, EngineError> {
    let backup = config.backup.as_ref();
    if let Some(since) = super::wal::needs_backup(home, config)?
        && last_tried(home, Procedure::Backup)?
            .is_none_or(|at| at < since || at.saturating_add(AGAIN_MS) <= now_ms())
        && unplanned::last(home, Procedure::Backup)?.is_none_or(|at| at.saturating_add(AGAIN_MS) <= now_ms())
    {
        return Ok(Some(Procedure::Backup));
    }
    for (procedure, every) in [
        (Procedure::Backup, backup.and_then(|b| b.every)),
        (Procedure::Drill, backup.and_then(|b| b.drill)),
        (Procedure::RollbackDrill, config.rollback.drill),
        (Procedure::ProductionDrill, config.rollback.drill_production),
    ] {
        let Some(every) = every.map(|e| i64::try_from(e.as_millis()).unwrap_or(i64::MAX)) else { continue };
        let now = now_ms();
        let last = match procedure {
            Procedure::RollbackDrill => drilled(home, false)?,
            Procedure::ProductionDrill => drilled(home, true)?,
            _ => newest(home, procedure)?.map(|(at, _)| at),
        };
        if last.is_some_and(|at| at.saturating_add(every) > now) {
            continue;
        }
        // A rollback that fails in a drill will not work a quarter of an hour later.
        let again = match procedure {
            Procedure::RollbackDrill | Procedure::ProductionDrill => DAY_MS,
            _ => AGAIN_MS,
        };
        if last_tried(home, procedure)?.is_some_and(|at| at.saturating_add(every.min(again)) > now) {
            continue;
        }
        if unplanned::last(home, procedure)?.is_some_and(|at| at.saturating_add(every.min(AGAIN_MS)) > now) {
            continue;
        }
        let nothing_to_try = match procedure {
            Procedure::Drill => newest(home, Procedure::Backup)?.is_none(),
            Procedure::RollbackDrill => home.pointer()?.is_none_or(|p| p.previous.is_none()),
            // Production is away meanwhile: only when it may be.
            Procedure::ProductionDrill => {
                home.pointer()?.is_none()
                    || crate::policy::in_window(&config.promotion, &jiff::Zoned::now()).is_err()
            }
            _ => false,
        };
        if nothing_to_try {
            continue;
        }
        return Ok(Some(procedure));
    }
    Ok(None)
}

/// When a rollback was last drilled (on production) and worked, however long ago.
fn drilled(home: &Home, on_production: bool) -> Result<Option<i64>, EngineError> {
    let Some(journal) = crate::journal::Journal::open_read(&home.state().join("journal.db"))? else {
        return Ok(None);
    };
    let all = crate::certificate::certificates(&journal)?;
    Ok(all.iter().rev().find(|c| c.drilled && (!on_production || c.from == c.to)).map(|c| c.issued_at_ms))
}

/// When one was last planned, however long ago.
pub(super) fn last_tried(home: &Home, procedure: Procedure) -> Result<Option<i64>, EngineError> {
    let path = home.state().join("journal.db");
    let Some(journal) = crate::journal::Journal::open_read(&path)? else { return Ok(None) };
    journal.newest_of(|p| p == procedure, |run| Ok(Some(journal.load(run)?.0.made_at_ms)))
}

/// The plan of a backup or of a drill of the newest one.
pub fn planned(home: &Home, config: &Config, procedure: Procedure) -> Result<Plan, EngineError> {
    let world = World::open(config)?;
    Ok(match procedure {
        Procedure::RollbackDrill => plan::rollback_drill(&crate::drill::facts(home, config, &world)?),
        Procedure::ProductionDrill => {
            plan::production_drill(&crate::drill::production_facts(home, config, &world)?)
        }
        Procedure::Drill => plan::drill(&drill_facts(home, config, &world, "latest")?),
        _ => plan::backup(&archive_facts(home, config, &world)?),
    })
}

/// What became of one that is due.
enum Tried {
    /// Something else is being done to the stack, or it was interrupted.
    NotNow,
    /// It could not be planned.
    Vain(EngineError),
    /// Its run ended.
    Ended(Outcome),
}

/// Does what is due, and tells if it failed. `None` if nothing is, or something else is being done to the stack.
///
/// One that cannot be planned keeps no other from being made; its error is the answer where nothing else was due.
pub fn run_due(
    home: &Home,
    config: &Config,
    cancel: &Cancel,
    observe: Observer<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<Outcome>, EngineError> {
    // What keeps it from being made must not keep this from being told.
    super::late::tell(home, config, say)?;
    let mut vain: Vec<(Procedure, EngineError)> = Vec::new();
    let mut done = None;
    while let Some(procedure) = due(home, config)?
        // The time to the next attempt may be over already.
        && vain.iter().all(|(before, _)| *before != procedure)
    {
        match one(home, config, procedure, cancel, observe, say)? {
            Tried::NotNow => break,
            Tried::Vain(e) => vain.push((procedure, e)),
            Tried::Ended(outcome) => {
                done = Some(outcome);
                break;
            }
        }
    }
    let mut vain = vain.into_iter();
    // What is returned is said by the caller.
    let error = if done.is_none() { vain.next() } else { None };
    for (_, e) in vain {
        say(&e.to_string());
    }
    error.map_or(Ok(done), |(_, e)| Err(e))
}

/// Does one that is due.
fn one(
    home: &Home,
    config: &Config,
    procedure: Procedure,
    cancel: &Cancel,
    observe: Observer<'_>,
    say: &dyn Fn(&str),
) -> Result<Tried, EngineError> {
    let why = format!("a {} is due", procedure.noun());
    let mut session = match Session::open(home, &why, Duration::ZERO) {
        Err(EngineError::Busy { .. }) => return Ok(Tried::NotNow),
        other => other?,
    };
    // A drill beside a trial would be taken for what the trial is watched for.
    let switches = matches!(procedure, Procedure::RollbackDrill | Procedure::ProductionDrill);
    let disturbs = switches && session.require_no_trial().is_err();
    if session.require_settled().is_err() || disturbs {
        return Ok(Tried::NotNow);
    }
    say(&why);
    session.end_leftovers(config)?;
    let plan = match planned(home, config, procedure) {
        Ok(plan) => plan,
        Err(e) => {
            let text = e.to_string();
            if unplanned::note(home, procedure, &text, now_ms())? {
                tell(home, config, procedure, &text);
            }
            return Ok(Tried::Vain(e));
        }
    };
    unplanned::forget(home, procedure)?;
    // Interrupted, production would stay away until somebody comes.
    let (never, on_production) = (Cancel::default(), procedure == Procedure::ProductionDrill);
    let cancel = if on_production { &never } else { cancel };
    match session.carry_out(&plan, config, cancel, observe)? {
        RunEnd::Interrupted => Ok(Tried::NotNow),
        RunEnd::Ended(outcome) => {
            if outcome == Outcome::Done {
                say(&format!("{why}: done"));
            } else {
                let line = format!("{outcome:?}; switchback report {}", plan.run);
                tell(home, config, procedure, &line);
                say(&format!("{why}: {line}"));
            }
            Ok(Tried::Ended(outcome))
        }
    }
}

fn tell(home: &Home, config: &Config, procedure: Procedure, line: &str) {
    let event = if procedure == Procedure::Backup { "backup_failed" } else { "drill_failed" };
    let title = format!("the scheduled {} of {} FAILED", procedure.noun(), config.stack);
    notify::tell(home, config, notify::message(config, Severity::Bad, event, title, &[line.to_owned()]));
}
