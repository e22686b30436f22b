//! Commands of the user around a promotion and a rollback.

use super::{Context, Failed};
use crate::error::EngineError;
use crate::exec::{self, Exec, Inherit, Leftovers};
use std::ffi::OsString;
use std::time::Duration;
use switchback_core::config::{CommandLine, Hook};
use switchback_core::journal::Output;
use switchback_core::plan::HookTime;
use switchback_core::release::describe;
use switchback_core::workflow::Redactor;

/// A rollback waits no longer: production may be down.
const BEFORE_ROLLBACK: Duration = Duration::from_secs(10);
/// Lines of a command's output that are told.
const LINES: usize = 5;

/// Runs one. Only the command before a promotion decides about it; of the others it is told that they failed.
pub fn run(context: &Context<'_>, when: HookTime) -> Result<Output, Failed> {
    let output = run_with(context, when, "done");
    if when == HookTime::BeforePromote { output } else { Ok(told(output)) }
}

fn told(output: Result<Output, Failed>) -> Output {
    output.unwrap_or_else(|failed| {
        let mut notes = vec![format!("FAILED: {}", failed.error.message)];
        notes.extend(failed.error.details);
        Output { notes, ..Output::default() }
    })
}

/// What follows a promotion also follows one that is undone; whether it works changes nothing about that.
pub fn after_all(context: &Context<'_>) -> Result<Output, Failed> {
    Ok(told(run_with(context, HookTime::AfterPromote, "undone")))
}

fn run_with(context: &Context<'_>, when: HookTime, outcome: &str) -> Result<Output, Failed> {
    let hooks = &context.config.hooks;
    let hook = match when {
        HookTime::BeforePromote => &hooks.before_promote,
        HookTime::AfterPromote => &hooks.after_promote,
        HookTime::BeforeRollback => &hooks.before_rollback,
        HookTime::AfterRollback => &hooks.after_rollback,
    };
    context.midway();
    let Some(hook) = hook else { return Ok(Output::default()) };
    let cancelled = || context.cancel.requested();
    let mut command = command(context, hook, when, outcome);
    command.cancel = Some(&cancelled);
    let ended = exec::run(&command).map_err(|e| {
        let why = format!("the command hooks.{} did not start: {e}", when.as_str());
        EngineError::refused(why, "it runs in the stack's folder; try it by hand")
    })?;
    let text = format!("{}\n{}", ended.stdout_tail.trim_end(), ended.stderr_tail.trim_end());
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let notes = lines[lines.len().saturating_sub(LINES)..].iter().map(|l| (*l).to_owned()).collect();
    if ended.success() {
        return Ok(Output { notes, ..Output::default() });
    }
    let mut error = EngineError::refused(
        format!("the command hooks.{} failed: {}", when.as_str(), ended.how()),
        "it runs in the stack's folder; try it by hand",
    )
    .to_step_error();
    error.details = notes;
    Err(Failed::from(error))
}

fn command<'a>(context: &'a Context<'_>, hook: &Hook, when: HookTime, outcome: &str) -> Exec<'a> {
    let words: Vec<OsString> = match &hook.run {
        CommandLine::Words(words) => words.iter().map(OsString::from).collect(),
        CommandLine::Shell(line) => ["sh", "-c", line].map(OsString::from).into(),
    };
    let timeout =
        if when == HookTime::BeforeRollback { hook.timeout.0.min(BEFORE_ROLLBACK) } else { hook.timeout.0 };
    let plan = context.plan;
    let number =
        |g: Option<switchback_core::ids::GenerationId>| g.map_or_else(String::new, |g| g.to_string());
    let mut command = Exec::new(words, timeout);
    command.inherit = Inherit::Environment;
    command.env = [
        ("SWITCHBACK_HOOK", when.as_str().to_owned()),
        ("SWITCHBACK_STACK", plan.stack.to_string()),
        ("SWITCHBACK_RUN_ID", plan.run.to_string()),
        ("SWITCHBACK_PROCEDURE", plan.procedure.as_str().to_owned()),
        ("SWITCHBACK_FROM", describe(&plan.from)),
        ("SWITCHBACK_TO", describe(&plan.to)),
        ("SWITCHBACK_FROM_GENERATION", number(plan.from_generation)),
        ("SWITCHBACK_TO_GENERATION", number(plan.to_generation)),
        ("SWITCHBACK_REASON", plan.reason.clone().unwrap_or_default()),
        (
            "SWITCHBACK_OUTCOME",
            if when == HookTime::AfterPromote || when == HookTime::AfterRollback { outcome } else { "" }
                .to_owned(),
        ),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    command.cwd = Some(context.home.root().to_owned());
    command.leftovers = Leftovers::Kill;
    let secrets = plan.instances.values().filter_map(|i| {
        let release = context.release(i).ok()?;
        Some(context.world.runtime.secrets(&context.placement(i, &release)))
    });
    command.redactor = Redactor::from_values(secrets.flatten().collect::<Vec<String>>());
    command
}
