//! Following a trial from the terminal. The watchdog owns the trial; this only looks.

use super::run::{cancel_on_signals, conclude, journal, trial_ended, write_report};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use std::time::Duration;
use switchback_core::duration::human_ms;
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Plan;
use switchback_engine::engine::{Notice, RunEnd, now_ms};
use switchback_engine::home::Home;

/// Follows the trial of a promotion until it ends.
pub fn follow(
    global: &Global,
    home: &Home,
    plan: &Plan,
    exit: Exit,
    end: &RunEnd,
    detach: bool,
) -> Result<Exit, Trouble> {
    if detach || *end != RunEnd::Ended(Outcome::Done) {
        return Ok(exit);
    }
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    let Some(journal_now) = journal(home)? else { return Ok(exit) };
    let (_, state, _) = journal_now.load(&plan.run)?;
    let Some(trial) = state.trial else { return Ok(exit) };
    progress.line("Following the trial; Ctrl-C leaves it running under its watchdog.");
    let mut shown = None;
    loop {
        if cancel.requested() {
            progress.line("The trial goes on without this terminal: `switchback status`.");
            answer(global, &write_report(home, &plan.run)?)?;
            return Ok(Exit::Done);
        }
        if let Some(event) = trial_ended(home, &plan.run)? {
            return trial_over(global, home, plan, &event, &progress);
        }
        let left = u64::try_from(trial.deadline_ms - now_ms()).unwrap_or(0);
        if shown != Some(left / 1000) {
            shown = Some(left / 1000);
            progress.notice(&Notice::Doing {
                text: &format!("on trial, {} left", human_ms(left / 1000 * 1000)),
                done: 0,
                total: 0,
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn trial_over(
    global: &Global,
    home: &Home,
    plan: &Plan,
    event: &Event,
    progress: &Progress,
) -> Result<Exit, Trouble> {
    match event {
        Event::TrialConfirmed { .. } => {
            progress.line("  ✓ The trial passed.");
            answer(global, &write_report(home, &plan.run)?)?;
            Ok(Exit::Done)
        }
        Event::TrialFailed { reasons, .. } => {
            progress.line("  ✗ The trial failed; the watchdog rolls back.");
            for reason in reasons {
                progress.line(&format!("    {reason}"));
            }
            wait_for_rollback(global, home, plan)
        }
        _ => {
            progress.line("  The trial was ended by another run.");
            answer(global, &write_report(home, &plan.run)?)?;
            Ok(Exit::RolledBack)
        }
    }
}

/// Waits until the rollback that the watchdog carries out has ended, and reports it.
fn wait_for_rollback(global: &Global, home: &Home, promoted: &Plan) -> Result<Exit, Trouble> {
    let deadline = std::time::Instant::now() + Duration::from_millis(promoted.budget_ms.max(60_000) * 2);
    while std::time::Instant::now() < deadline {
        if let Some(journal) = journal(home)?
            && let Some(run) = rollback_after(&journal, promoted)?
        {
            let (plan, state, _) = journal.load(&run)?;
            if let Some(outcome) = state.ended {
                answer(global, &write_report(home, &promoted.run)?)?;
                let exit = if global.json {
                    write_report(home, &plan.run)?;
                    Exit::of(&outcome)
                } else {
                    conclude(global, home, &plan, &RunEnd::Ended(outcome))?
                };
                return Ok(if exit == Exit::Done { Exit::RolledBack } else { exit });
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Trouble {
        exit: Exit::NeedsOperator,
        message: "the watchdog's rollback has not ended within twice its budget".to_owned(),
        hint: Some("`switchback status`; its log is .switchback/watchdog.log".to_owned()),
    })
}

/// With `--json`, a promotion that was followed answers with its report once its trial is over.
fn answer(global: &Global, report: &switchback_core::report::Report) -> Result<(), Trouble> {
    if global.json {
        Output::new(true).json(report)?;
    }
    Ok(())
}

fn rollback_after(
    journal: &switchback_engine::journal::Journal,
    promoted: &Plan,
) -> Result<Option<RunId>, Trouble> {
    for run in journal.runs(5)? {
        let (plan, ..) = journal.load(&run)?;
        if plan.procedure == switchback_core::plan::Procedure::Rollback
            && plan.from_generation == promoted.to_generation
            && plan.run > promoted.run
        {
            return Ok(Some(run));
        }
    }
    Ok(None)
}
