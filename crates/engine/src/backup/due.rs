//! Backups and drills by the clock.

use super::facts::{archive_facts, drill_facts};
use super::newest;
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

fn last_tried(home: &Home, procedure: Procedure) -> Result<Option<i64>, EngineError> {
    let path = home.state().join("journal.db");
    let Some(journal) = crate::journal::Journal::open_read(&path)? else { return Ok(None) };
    for run in journal.runs(200)? {
        let (plan, ..) = journal.load(&run)?;
        if plan.procedure == procedure {
            return Ok(Some(plan.made_at_ms));
        }
    }
    Ok(None)
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

/// Does what is due, and tells if it failed. `None` if nothing is, or something else is being done to the stack.
pub fn run_due(
    home: &Home,
    config: &Config,
    cancel: &Cancel,
    observe: Observer<'_>,
    say: &dyn Fn(&str),
) -> Result<Option<Outcome>, EngineError> {
    // What keeps it from being made must not keep this from being told.
    super::late::tell(home, config, say)?;
    let Some(procedure) = due(home, config)? else { return Ok(None) };
    let why = format!("a {} is due", procedure.noun());
    let mut session = match Session::open(home, &why, Duration::ZERO) {
        Err(EngineError::Busy { .. }) => return Ok(None),
        other => other?,
    };
    // A drill beside a trial would be taken for what the trial is watched for.
    let switches = matches!(procedure, Procedure::RollbackDrill | Procedure::ProductionDrill);
    let disturbs = switches && session.require_no_trial().is_err();
    if session.require_settled().is_err() || disturbs {
        return Ok(None);
    }
    say(&why);
    session.end_leftovers(config)?;
    let plan =
        planned(home, config, procedure).inspect_err(|e| tell(home, config, procedure, &e.to_string()))?;
    // Interrupted, production would stay away until somebody comes.
    let (never, on_production) = (Cancel::default(), procedure == Procedure::ProductionDrill);
    let cancel = if on_production { &never } else { cancel };
    match session.carry_out(&plan, config, cancel, observe)? {
        RunEnd::Interrupted => Ok(None),
        RunEnd::Ended(outcome) => {
            if outcome == Outcome::Done {
                say(&format!("{why}: done"));
            } else {
                let line = format!("{outcome:?}; switchback report {}", plan.run);
                tell(home, config, procedure, &line);
                say(&format!("{why}: {line}"));
            }
            Ok(Some(outcome))
        }
    }
}

fn tell(home: &Home, config: &Config, procedure: Procedure, line: &str) {
    let event = if procedure == Procedure::Backup { "backup_failed" } else { "drill_failed" };
    let title = format!("the scheduled {} of {} FAILED", procedure.noun(), config.stack);
    notify::tell(home, config, notify::message(config, Severity::Bad, event, title, &[line.to_owned()]));
}
