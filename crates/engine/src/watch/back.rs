//! What the watchdog does to a stack: it rolls back, and goes on with runs whose command line was killed, or with what should
//! have followed them.
//!
//! Owns what follows a rollback that nobody sees: telling it, undoing what gave way to it, carrying later writes.

use super::trouble::Troubles;
use super::{Trial, still_running, tell};
use crate::carry;
use crate::engine::{Cancel, Notice, Observer, RunEnd};
use crate::error::EngineError;
use crate::home::Home;
use crate::journal::Journal;
use crate::session::Session;
use crate::world::World;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, Outcome, TRIAL_FAILED};
use switchback_core::notify::Severity;
use switchback_core::plan::{self, OnFailure, Plan, Procedure};
use switchback_core::release::describe_change;
use switchback_core::report::Report;

/// A promotion or rollback that somebody should be working on: begun, not ended, and not interrupted by a person
/// (who was told that it waits for `resume`).
pub fn guarded(journal: &Journal) -> Result<Option<RunId>, EngineError> {
    for run in journal.unfinished()? {
        let (plan, state, _) = journal.load(&run)?;
        if plan.procedure.switches() && !state.interrupted {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Goes on with a run whose command line was killed; false while somebody still works on it.
///
/// Production may be down in the middle of a switch: nobody should have to notice that and type `resume`.
pub fn take_over(
    home: &Home,
    troubles: &Troubles<'_>,
    cancel: &Cancel,
    observe: Observer<'_>,
) -> Result<bool, EngineError> {
    let mut session = match Session::open(home, "the watchdog, taking over", Duration::ZERO) {
        Ok(session) => session,
        Err(EngineError::Busy { .. }) => return Ok(false),
        Err(e) => return Err(e),
    };
    go_on(home, &mut session, troubles, cancel, observe)?;
    Ok(true)
}

/// Goes on with the run that somebody should be working on, if there is one. What follows a rollback follows one that was
/// completed here, too.
fn go_on(
    home: &Home,
    session: &mut Session<'_>,
    troubles: &Troubles<'_>,
    cancel: &Cancel,
    observe: Observer<'_>,
) -> Result<(), EngineError> {
    let Some(run) = guarded(&session.journal)? else {
        let Some(rolled) = carry::pending(home, &session.journal)? else { return Ok(()) };
        let config = home.run_config(&rolled.run)?;
        return carry_writes(home, &rolled, &config, session, cancel, observe);
    };
    let plan = session.journal.load(&run)?.0;
    troubles.owed.set(plan.procedure == Procedure::Rollback);
    let config = home.run_config(&run)?;
    // Before anything is recorded: this is asked again and again.
    World::open(&config)?;
    let end = session.resume(&run, false, cancel, observe);
    if plan.procedure == Procedure::Rollback {
        follow(home, &plan, &config, session, &end, cancel, observe);
    }
    end.map(drop)
}

/// Rolls back, waiting for the lock as long as it takes: nobody else will do it. Whoever only works on copies is asked to
/// give way. The trial ends when its rollback is recorded, in one transaction: until then it is tried again.
pub fn roll_back(
    home: &Home,
    trial: &Trial,
    config: &Config,
    (trigger, seen): (&str, &[String]),
    troubles: &Troubles<'_>,
    cancel: &Cancel,
    observe: Observer<'_>,
) -> Result<(), EngineError> {
    let ends = || cancel.requested() || !still_running(home, &trial.plan.run).unwrap_or(true);
    let waits = |holder: &str| {
        let text = format!("the rollback waits for {holder}");
        observe(&Notice::Doing { text: &text, done: 0, total: 0 });
    };
    let what = "rollback by the watchdog";
    let Some(mut session) = Session::open_for_rollback(home, what, None, &ends, &waits)? else {
        return Ok(());
    };
    if !still_running(home, &trial.plan.run)? {
        return session.undo_what_gave_way(cancel, observe).map(drop);
    }
    go_on(home, &mut session, troubles, cancel, observe)?;
    troubles.owed.set(true);
    let reason = format!("{TRIAL_FAILED}: {}", seen.join("; "));
    let plan = session.plan_rollback(config, None, &reason, OnFailure::Persist { attempts: 3 })?;
    let failed = Event::TrialFailed { trigger: trigger.to_owned(), reasons: seen.to_vec() };
    session.begin(&plan, config, Some(&(trial.plan.run.clone(), failed)), observe)?;
    let title =
        format!("{}: the trial failed, rolling back", describe_change(&trial.plan.from, &trial.plan.to));
    tell(home, config, Severity::Bad, "trial_failed", title, seen);
    let end = session.perform(&plan, config, cancel, observe);
    if let Err(e) = &end
        && e.is_away()
    {
        tell(home, config, Severity::Bad, "needs_operator", format!("the rollback waits: {e}"), &[]);
    }
    follow(home, &plan, config, &mut session, &end, cancel, observe);
    end.map(drop)
}

/// Tells what came of a rollback. Then runs that gave way to it are undone, and, where production is back, later writes carried.
fn follow(
    home: &Home,
    plan: &Plan,
    config: &Config,
    session: &mut Session<'_>,
    end: &Result<RunEnd, EngineError>,
    cancel: &Cancel,
    observe: Observer<'_>,
) {
    let back = plan.to_generation.map_or_else(String::new, |g| format!(" on generation {g}"));
    let mut lines = Vec::new();
    let (event, title) = match end {
        Ok(RunEnd::Ended(Outcome::Done)) => ("rolled_back", format!("production is back{back}")),
        Ok(RunEnd::Ended(_)) => {
            let (is_back, title, reasons) = trouble(&session.journal, plan);
            lines = reasons;
            (if is_back { "rolled_back" } else { "needs_operator" }, title)
        }
        Ok(RunEnd::Interrupted) => ("needs_operator", "the rollback was interrupted".to_owned()),
        // It is tried again and again; its end is told when it comes, and what keeps it from that once.
        Err(_) => return,
    };
    lines.push(format!("switchback report {}", plan.run));
    tell(home, config, Severity::Bad, event, title, &lines);
    if matches!(end, Ok(RunEnd::Ended(_))) {
        // What is left of them costs disk space, and `switchback resume --abort` removes it as well.
        let _ = session.undo_what_gave_way(cancel, observe);
    }
    if matches!(end, Ok(RunEnd::Ended(Outcome::Done))) {
        // An engine that is away is asked again: they are pending.
        let _ = carry_writes(home, plan, config, session, cancel, observe);
    }
}

/// What is told of a rollback that did not end well: whether production is back all the same, and what failed.
fn trouble(journal: &Journal, plan: &Plan) -> (bool, String, Vec<String>) {
    let Ok((plan, _, records)) = journal.load(&plan.run) else {
        return (false, "the rollback needs a person".to_owned(), Vec::new());
    };
    let report = Report::build(&plan, &records, "switchback", "");
    (report.is_back(), report.headline, report.reasons)
}

/// Carries the writes of the generation that was left, where the configuration says so. What comes of it is told, and it is not
/// tried again; production is back in any case. An error means that the engine is away, and is tried again.
fn carry_writes(
    home: &Home,
    rolled: &Plan,
    config: &Config,
    session: &mut Session<'_>,
    cancel: &Cancel,
    observe: Observer<'_>,
) -> Result<(), EngineError> {
    let Some(facts) = carry::after_rollback(home, config, rolled) else { return Ok(()) };
    let done = facts.and_then(|facts| {
        let plan = plan::promote(&facts).with_hooks(&config.hooks);
        Ok((session.carry_out(&plan, config, cancel, observe)?, plan))
    });
    let (severity, title, lines) = match done {
        Ok((RunEnd::Ended(Outcome::Done), plan)) => (
            Severity::Info,
            "the later writes were carried into the version before; it is on trial".to_owned(),
            vec![format!("switchback report {}", plan.run)],
        ),
        Ok((_, plan)) => (
            Severity::Bad,
            "the later writes were not carried; they are exported".to_owned(),
            vec![format!("switchback report {}", plan.run)],
        ),
        Err(e) if e.is_away() => return Err(e),
        Err(e) => {
            // Before it is told: told again and again it would be, if it could not be written down.
            carry::settle(home, rolled)?;
            let title = "the later writes were not carried; they are exported".to_owned();
            (Severity::Bad, title, vec![e.to_string()])
        }
    };
    tell(home, config, severity, "writes_carried", title, &lines);
    Ok(())
}
