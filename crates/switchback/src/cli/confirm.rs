//! Ending a trial well before it has passed: a person vouches for the release.

use super::consent::{confirm as ask, declined};
use super::upgrade::{open, session};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde_json::json;
use switchback_core::journal::Event;
use switchback_core::release::describe_change;
use switchback_engine::engine::now_ms;
use switchback_engine::watch;

/// Options of confirm.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// Why; it is kept in the journal
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Confirms the generation that is on trial.
pub fn confirm(global: &Global, args: &ConfirmArgs) -> Result<Exit, Trouble> {
    let (home, _) = open(global)?;
    if args.reason.trim().is_empty() {
        return Err(Trouble::usage(
            "the reason is empty",
            "say what was looked at: --reason 'the errors are known'",
        ));
    }
    let mut session = session(global, &home, "confirm")?;
    let Some(trial) = watch::current(&session.journal)? else {
        return Err(Trouble::refused("no generation is on trial", "`switchback status` shows what runs"));
    };
    let Some(state) = &trial.state.trial else { return Ok(Exit::Done) };
    let change = describe_change(&trial.plan.from, &trial.plan.to);
    let open =
        state.triggers.iter().map(|(t, (_, why))| format!("\n  {}: {why}", t.as_str())).collect::<String>();
    let failing = match state.failures_in_a_row {
        0 => String::new(),
        n => format!("\n  the last {n} probes failed"),
    };
    let question = format!(
        "Keep generation {} ({change}) without waiting for its trial to pass? Nobody watches it any more.{open}{failing}\nGo on?",
        state.generation
    );
    if !ask(global, &question)? {
        return Err(declined());
    }
    let event = Event::TrialConfirmed { probes: 0, by: Some(format!("a person: {}", args.reason.trim())) };
    session.journal.append(&trial.plan.run, now_ms(), &event)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(
            &json!({ "generation": state.generation, "run": trial.plan.run, "reason": args.reason.trim() }),
        )?;
    } else {
        out.line(&format!("generation {} is kept; its trial is over", state.generation))?;
    }
    Ok(Exit::Done)
}
