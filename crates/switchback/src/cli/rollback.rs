//! Returning production to an earlier generation, and what follows.

use super::consent::{confirm, declined};
use super::run::{Last, cancel_on_signals};
use super::upgrade::{carry_out_as, session, show_plan};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use clap::Args;
use switchback_core::config::{Config, Writes};
use switchback_core::ids::GenerationId;
use switchback_core::plan::{OnFailure, Plan};
use switchback_core::release::describe_change;
use switchback_engine::fault::{self, At, Way};
use switchback_engine::give_way::production_changes;
use switchback_engine::home::Home;
use switchback_engine::left::{Leaving, leaving};
use switchback_engine::session::Session;

/// Options of a rollback.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The generation to return to; by default the previous one
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u32>,
    /// Only this service, with its stores; may be repeated. The others go on
    #[arg(long = "service", value_name = "NAME", conflicts_with = "to")]
    pub services: Vec<String>,
    /// Why; recorded
    #[arg(long, value_name = "TEXT", default_value = "asked for on the command line")]
    pub reason: String,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Opens the stack for the way back: a mistake in a file must not keep production from returning.
pub fn open_for_return(global: &Global) -> Result<(Home, Config), Trouble> {
    let home = Home::open(&global.directory)?;
    let (config, trouble) = switchback_engine::world::config_for_return(&home)?;
    if let Some(trouble) = trouble {
        Progress::new(global.quiet).line(&format!(
            "! {trouble}\n  The configuration that production's generation was made with is used instead."
        ));
    }
    Ok((home, config))
}

/// Returns production to an earlier generation.
pub fn rollback(global: &Global, args: &RollbackArgs) -> Result<Exit, Trouble> {
    let (home, config) = open_for_return(global)?;
    let Some(mut session) = session_for_rollback(global, &home, args)? else { return Ok(Exit::Interrupted) };
    let result = roll_back(global, &home, &config, &mut session, args);
    // Also where it was refused or not confirmed: whoever gave way was told that this undoes their run.
    if !matches!(result, Ok(Exit::Interrupted)) {
        undo_what_gave_way(global, &mut session);
    }
    result
}

fn roll_back(
    global: &Global,
    home: &Home,
    config: &Config,
    session: &mut Session<'_>,
    args: &RollbackArgs,
) -> Result<Exit, Trouble> {
    session.require_settled_for_rollback()?;
    if !args.services.is_empty() {
        return super::services::rollback(global, home, config, session, args);
    }
    let plan = session.plan_rollback(config, args.to.map(GenerationId), &args.reason, OnFailure::Undo)?;
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let (from, to) = (plan.from_generation, plan.to_generation);
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Trouble {
            exit: Exit::Internal,
            message: "a rollback without generations".to_owned(),
            hint: None,
        });
    };
    let change = describe_change(&plan.from, &plan.to);
    let leaving = leaving(home, config, from, to);
    if !confirm(global, &question(&change, (from, to), &leaving, config.rollback.writes))? {
        return Err(declined());
    }
    let (exit, _) = carry_out_as(global, home, session, &plan, config, Last::IfNotDone)?;
    follow(global, home, config, session, &plan, exit)
}

/// What is asked before: what leaves production, and what becomes of it.
fn question(
    change: &str,
    (from, to): (GenerationId, GenerationId),
    leaving: &Leaving,
    writes: Writes,
) -> String {
    let own = match (leaving.exported, writes) {
        (false, _) => format!(
            "Writes made to generation {from} leave production and are NOT exported: there is no clone to recognise them by. Its data stays where it is."
        ),
        (true, Writes::Export) => format!(
            "Writes made since generation {from} was promoted leave production; they are exported to .switchback/exports."
        ),
        (true, Writes::Carry) => format!(
            "Writes made since generation {from} was promoted leave production; they are exported to .switchback/exports, and then carried into the version before."
        ),
    };
    let between: Vec<String> = leaving.between.iter().map(ToString::to_string).collect();
    let more = match between.as_slice() {
        [] => String::new(),
        [one] => format!(
            " Those made to generation {one} before leave it as well and are NOT exported: `switchback export {one}` does that afterwards."
        ),
        several => format!(
            " Those made to generations {} before leave it as well and are NOT exported: `switchback export` does that afterwards, one after the other.",
            several.join(", ")
        ),
    };
    format!("Return from generation {from} to {to} ({change})? {own}{more}")
}

/// Takes the lock; `None` after Ctrl-C. A run that only works on copies is asked to give way.
fn session_for_rollback<'h>(
    global: &Global,
    home: &'h Home,
    args: &RollbackArgs,
) -> Result<Option<Session<'h>>, Trouble> {
    if args.dry_run {
        return Ok(Some(session(global, home, "rollback")?));
    }
    let before = home.pointer().ok().flatten().map(|p| p.current);
    let cancel = cancel_on_signals();
    let waits = |holder: &str| {
        let progress = Progress::new(global.quiet);
        if production_changes(home) {
            progress.line(&format!("  Waiting for {holder}; what changes production is not interrupted."));
        } else {
            progress.line(&format!("  Waiting for {holder}, which was asked to give way."));
        }
    };
    let ends = || cancel.requested();
    let session = Session::open_for_rollback(home, "rollback", Some(global.wait()), &ends, &waits)?;
    let now = home.pointer().ok().flatten().map(|p| p.current);
    match (args.to, before, now) {
        // Returning once more would leave a generation that nobody wanted to leave.
        (None, Some(before), Some(now)) if before != now => Err(Trouble {
            exit: Exit::Refused,
            message: format!("production went from generation {before} to {now} while this waited"),
            hint: Some(
                "look at `switchback status`; nothing was done, and `switchback rollback` leaves the generation that runs now"
                    .to_owned(),
            ),
        }),
        _ => Ok(session),
    }
}

/// What follows a rollback that is done: runs that gave way to it are undone, and later writes are carried where the
/// configuration says so.
pub fn follow(
    global: &Global,
    home: &Home,
    config: &Config,
    session: &mut Session<'_>,
    plan: &Plan,
    exit: Exit,
) -> Result<Exit, Trouble> {
    if exit != Exit::Done && exit != Exit::OverBudget {
        return Ok(exit);
    }
    undo_what_gave_way(global, session);
    let over = exit == Exit::OverBudget;
    let next = match switchback_engine::carry::after_rollback(home, config, plan) {
        Some(Ok(facts)) => switchback_core::plan::promote(&facts).with_hooks(&config.hooks),
        other => {
            if let Some(Err(why)) = other {
                Progress::new(global.quiet).line(&format!("! The later writes are not carried: {why}"));
                if !why.is_away() {
                    // The watchdog would try again, and say the same. The rollback is done in any case.
                    if let Err(e) = switchback_engine::carry::settle(home, plan) {
                        Progress::new(global.quiet).line(&format!("! Nor can that be written down: {e}"));
                    }
                }
            }
            // The report of one that took too long was the answer.
            if global.json && !over {
                Output::new(true).json(&super::run::write_report(home, &plan.run)?)?;
            }
            return Ok(exit);
        }
    };
    fault::point(Way::Do, "carries-by-itself", At::Before);
    let last = if over { Last::No } else { Last::Yes };
    let (carried, _) = carry_out_as(global, home, session, &next, config, last)?;
    Ok(if over && carried == Exit::Done { exit } else { carried })
}

/// Undoes the runs that gave way. That it does not succeed changes nothing about the rollback.
fn undo_what_gave_way(global: &Global, session: &mut Session<'_>) {
    let progress = Progress::new(global.quiet);
    match session.undo_what_gave_way(&cancel_on_signals(), &|_| {}) {
        Ok(undone) => undone.iter().for_each(|run| {
            progress.line(&format!("  Run {run}, which had given way to the rollback, is undone."));
        }),
        Err(e) => progress.line(&format!("! What gave way to the rollback is not undone: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(exported: bool, between: &[u32], writes: Writes) -> String {
        let between = between.iter().copied().map(GenerationId).collect();
        question("app 3 -> 1", (GenerationId(3), GenerationId(1)), &Leaving { exported, between }, writes)
    }

    #[test]
    fn the_question_says_what_is_exported_and_what_is_not() {
        let plain = asked(true, &[], Writes::Export);
        assert_eq!(
            plain,
            "Return from generation 3 to 1 (app 3 -> 1)? Writes made since generation 3 was promoted leave production; they are exported to .switchback/exports."
        );
        assert!(asked(true, &[], Writes::Carry).ends_with(", and then carried into the version before."));
        let further = asked(true, &[2], Writes::Export);
        assert!(further.starts_with(&plain), "{further}");
        assert!(
            further.contains(
                "to generation 2 before leave it as well and are NOT exported: `switchback export 2`"
            ),
            "{further}"
        );
        assert!(asked(true, &[2, 4], Writes::Export).contains("to generations 2, 4 before"));
        let adopted = asked(false, &[], Writes::Carry);
        assert!(
            adopted.contains("NOT exported: there is no clone") && !adopted.contains("carried"),
            "{adopted}"
        );
    }
}
