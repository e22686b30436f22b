//! Going on with an interrupted run, or undoing it.

use super::rollback::follow;
use super::run::{Last, cancel_on_signals, conclude, conclude_as};
use super::upgrade::{change, session};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use clap::Args;
use switchback_core::plan::Procedure;
use switchback_engine::engine::Notice;
use switchback_engine::home::Home;
use switchback_engine::left::unexported;
use switchback_engine::watch as watchdog;

/// Options of resume.
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Undo the run instead of going on with it
    #[arg(long)]
    pub abort: bool,
}

/// Goes on with an interrupted run.
pub fn resume(global: &Global, args: &ResumeArgs) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    let mut session = session(global, &home, "resume")?;
    let Some(run) = session.journal.unfinished()?.pop() else {
        // A trial whose watchdog was killed is the other thing that can be taken up again.
        if watchdog::current(&session.journal)?.is_some() {
            let who = watchdog::ensure(&home)?;
            Progress::new(global.quiet).line(&format!("  ✓ The trial is watched ({who})."));
        }
        // A program that was killed while it planned may have left a helper. The next run ends it, too.
        if let Ok(config) = home.config() {
            let _ = session.end_leftovers(&config);
        }
        let out = Output::new(global.json);
        if out.is_json() {
            out.json(&serde_json::json!({ "resumed": null }))?;
        } else {
            out.line("There is nothing to resume.")?;
            for id in unexported(&home)? {
                out.line(&format!(
                    "What was written to generation {id} is not exported: switchback export {id}"
                ))?;
            }
        }
        return Ok(Exit::Done);
    };
    let (plan, ..) = session.journal.load(&run)?;
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    progress.line(&format!("resuming {} {}  {}", plan.procedure.as_str(), plan.stack, change(&plan)));
    let observe = |notice: &Notice<'_>| progress.notice(notice);
    let end = session.resume(&run, args.abort, &cancel, &observe)?;
    drop(progress);
    // What follows a rollback follows one that was resumed, too.
    if plan.procedure == Procedure::Rollback {
        let config = home.run_config(&run)?;
        let exit = conclude_as(global, &home, &plan, &end, Last::IfNotDone)?;
        return follow(global, &home, &config, &mut session, &plan, exit);
    }
    if watchdog::current(&session.journal)?.is_some() {
        watchdog::ensure(&home)?;
    }
    conclude(global, &home, &plan, &end)
}
