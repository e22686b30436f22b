//! What all commands that carry out a plan share: signals, progress, the end of a run.

use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, Outcome, Record};
use switchback_core::plan::{Plan, Procedure};
use switchback_core::report::{Conclusion, Report};
use switchback_engine::engine::{Cancel, RunEnd, production_down};
use switchback_engine::error::EngineError;
use switchback_engine::home::{Home, write_atomic};
use switchback_engine::journal::Journal;

/// The program's name and version, as reports name it.
pub const TOOL: &str = concat!("switchback ", env!("CARGO_PKG_VERSION"));

/// Ctrl-C and TERM ask for a clean stop; a second one ends the program at once (the run stays resumable).
///
/// The handlers are installed once; every caller gets the same flag.
pub fn cancel_on_signals() -> Cancel {
    static CANCEL: OnceLock<Cancel> = OnceLock::new();
    let install = || {
        let cancel = Cancel::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it, the second ends the program.
            let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, cancel.flag());
            let _ = signal_hook::flag::register(signal, cancel.flag());
        }
        // A closed terminal or a lost SSH connection must not stop a switch half-way: the run goes on.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default());
        cancel
    };
    CANCEL.get_or_init(install).clone()
}

/// The same, for what only works on copies or has begun nothing yet: it gives way to a rollback of the stack.
pub fn cancel_giving_way(global: &Global) -> Cancel {
    let cancel = cancel_on_signals();
    Home::open(&global.directory).map_or(cancel.clone(), |home| cancel.giving_way(&home))
}

/// The journal of a stack, for reading.
pub fn journal(home: &Home) -> Result<Option<Journal>, EngineError> {
    Journal::open_read(&home.state().join("journal.db"))
}

/// The name of this host.
pub fn host() -> String {
    switchback_engine::host_name()
}

/// Builds the report of a run and writes its files beside the run.
pub fn write_report(home: &Home, run: &RunId) -> Result<Report, EngineError> {
    let journal = journal(home)?.ok_or_else(|| EngineError::UnknownRun { run: run.clone() })?;
    let (plan, _, records) = journal.load(run)?;
    let report = Report::build(&plan, &records, TOOL, &host());
    let dir = home.run_dir(run);
    let json =
        serde_json::to_vec_pretty(&report).map_err(|e| EngineError::Internal { detail: e.to_string() })?;
    write_atomic(&dir.join("report.json"), &json)?;
    write_atomic(
        &dir.join("report.html"),
        crate::render::html(&report, &|path| file_of(home, run, path)).as_bytes(),
    )?;
    write_atomic(&dir.join("report.md"), crate::render::markdown(&report).as_bytes())?;
    write_atomic(&dir.join("junit.xml"), crate::render::junit(&report).as_bytes())?;
    Ok(report)
}

/// A file of a run. Paths come from the journal: none may lead out of the run's folder.
pub fn file_of(home: &Home, run: &RunId, path: &str) -> Option<Vec<u8>> {
    let relative = std::path::Path::new(path);
    let inside = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    let path = home.run_dir(run).join(relative);
    let plain = inside && path.symlink_metadata().is_ok_and(|m| m.is_file());
    plain.then(|| std::fs::read(path).ok()).flatten()
}

/// Says how a run ended and returns its exit code.
pub fn conclude(global: &Global, home: &Home, plan: &Plan, end: &RunEnd) -> Result<Exit, Trouble> {
    conclude_as(global, home, plan, end, Last::Yes)
}

/// Whether a run is the last one of a command. With `--json` the answer is one document: the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is.
    Yes,
    /// More follows if this one went well.
    IfNotDone,
    /// The answer was given already.
    No,
}

/// Like [`conclude`], for one of several runs of a command.
pub fn conclude_as(
    global: &Global,
    home: &Home,
    plan: &Plan,
    end: &RunEnd,
    last: Last,
) -> Result<Exit, Trouble> {
    let report = write_report(home, &plan.run)?;
    let out = Output::new(global.json);
    let exit = match end {
        RunEnd::Interrupted => {
            return interrupted(global, home, plan);
        }
        RunEnd::Ended(outcome) => exit_of(plan, outcome, &report),
    };
    if out.is_json() {
        if last == Last::Yes || last == Last::IfNotDone && exit != Exit::Done {
            out.json(&report)?;
        }
    } else {
        let term = console::Term::stdout();
        let color = console::colors_enabled();
        let width = usize::from(term.size_checked().map_or(100, |(_, w)| w)).clamp(60, 120);
        out.text(&crate::render::terminal(&report, color, width))?;
        out.line(&format!("  Report: {}", home.run_dir(&plan.run).join("report.html").display()))?;
    }
    Ok(exit)
}

fn exit_of(plan: &Plan, outcome: &Outcome, report: &Report) -> Exit {
    if report.conclusion == Conclusion::RolledBack {
        return Exit::RolledBack;
    }
    let exit = Exit::of(outcome);
    let over = report.times.rollback_ms.is_some_and(|ms| ms > report.times.budget_ms);
    match (plan.procedure, exit) {
        (Procedure::Rollback | Procedure::ServiceRollback, Exit::Done) if over => Exit::OverBudget,
        // A rollback that went back to the newer generation did not do what was asked for.
        (
            Procedure::Rollback
            | Procedure::ServiceRollback
            | Procedure::ProductionDrill
            | Procedure::Up
            | Procedure::Down,
            Exit::RolledBack,
        ) => Exit::Refused,
        // It has nothing in production to roll back.
        (procedure, Exit::RolledBack) if procedure.is_aside() => Exit::Refused,
        _ => exit,
    }
}

fn interrupted(global: &Global, home: &Home, plan: &Plan) -> Result<Exit, Trouble> {
    let (down, to) = match journal(home)? {
        Some(journal) => {
            let (plan, state, records) = journal.load(&plan.run)?;
            (production_down(&plan, &state), gave_way_to(&records))
        }
        None => (false, None),
    };
    let where_it_stands = if down { "production is DOWN" } else { "production is running" };
    let out = Output::new(global.json);
    if out.is_json() {
        let mut answer = json!({ "run": plan.run, "interrupted": true, "production_down": down });
        if let (Some(to), Some(fields)) = (to, answer.as_object_mut()) {
            fields.insert("gave_way_to".to_owned(), json!(to));
        }
        out.json(&answer)?;
    } else if let Some(to) = to {
        let progress = Progress::new(global.quiet);
        progress.line(&format!("\n  The {} gave way to a rollback: {to}.", plan.procedure.noun()));
        progress.line("  It is undone when production is back. Begin it again then.");
    } else {
        let progress = Progress::new(global.quiet);
        progress.line(&format!("\n  Interrupted cleanly; {where_it_stands}."));
        progress.line("  Go on with it:   switchback resume");
        progress.line("  Or undo it:      switchback resume --abort");
    }
    Ok(Exit::Interrupted)
}

/// Who wanted to roll back, if that is what the run was interrupted for.
fn gave_way_to(records: &[Record]) -> Option<String> {
    match records.last().map(|r| &r.event) {
        Some(Event::Interrupted { gave_way_to }) => gave_way_to.clone(),
        _ => None,
    }
}

/// Whether the trial that a run began has ended, and how.
pub fn trial_ended(home: &Home, run: &RunId) -> Result<Option<Event>, EngineError> {
    let Some(journal) = journal(home)? else { return Ok(None) };
    let mut ended = None;
    for record in journal.run(run)? {
        match record.event {
            Event::TrialConfirmed { .. } | Event::TrialFailed { .. } | Event::TrialCancelled { .. } => {
                ended = Some(record.event);
            }
            Event::TrialBegan { .. } => ended = None,
            _ => {}
        }
    }
    Ok(ended)
}
