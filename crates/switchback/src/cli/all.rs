//! Upgrades of all stacks below a folder, in their order.

use super::consent::{confirm, declined};
use super::run::cancel_on_signals;
use super::upgrade::{PromoteArgs, planning};
use super::{Exit, Global, Output, Trouble, own};
use crate::progress::Progress;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;
use switchback_core::ids::StackName;
use switchback_engine::stacks::{Due, Found, due, find};

/// What became of one stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Became {
    /// It runs the new release, whose trial passed.
    Upgraded,
    /// It runs what its configuration says.
    Nothing,
    /// Not tried: Switchback never started it.
    NotStarted,
    /// Not tried: one before it was not upgraded.
    LeftOut,
    /// It was not upgraded; the exit code says how.
    Failed,
    /// Nothing was done (`--dry-run`).
    Due,
}

#[derive(Debug, Serialize)]
struct Line {
    stack: StackName,
    directory: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<StackName>,
    became: Became,
    /// What is different, or why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
    /// The report of its last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Value>,
}

/// Upgrades every stack below the folder that is to run something else than it does.
pub fn upgrade(global: &Global, args: &PromoteArgs) -> Result<Exit, Trouble> {
    let stacks = find(&global.directory)?;
    let mut found: Vec<(Found, Due)> = Vec::new();
    for stack in stacks {
        let due = planning(global, |stage| due(&stack, stage))?;
        found.push((stack, due));
    }
    let changes: Vec<String> = found
        .iter()
        .filter_map(|(stack, due)| match due {
            Due::Change(what) => Some(format!("{} ({what})", stack.config.stack)),
            _ => None,
        })
        .collect();
    let dry = args.target.dry_run;
    if !dry && !changes.is_empty() {
        let question = format!(
            "Upgrade {}, one after the other? Each is rehearsed first, and production stops while its data is cloned.",
            changes.join(", ")
        );
        if !confirm(global, &question)? {
            return Err(declined());
        }
    }
    let cancel = cancel_on_signals();
    let mut lines: Vec<Line> = Vec::new();
    let mut stuck: BTreeSet<StackName> = BTreeSet::new();
    for (stack, due) in found {
        let name = stack.config.stack.clone();
        let mut line = Line {
            stack: name.clone(),
            directory: stack.home.root().display().to_string(),
            after: stack.config.after.clone(),
            became: Became::Nothing,
            what: None,
            exit: None,
            report: None,
        };
        let before = stack.config.after.iter().find(|n| stuck.contains(*n)).cloned();
        match (due, before) {
            (Due::Nothing, _) => {}
            (Due::NotStarted, _) => {
                line.became = Became::NotStarted;
                line.what = Some("Switchback never started it".to_owned());
            }
            (Due::Change(what), None) if dry => (line.became, line.what) = (Became::Due, Some(what)),
            (Due::Change(_), Some(other)) => {
                line.became = Became::LeftOut;
                line.what = Some(format!("{other} was not upgraded"));
                stuck.insert(name);
            }
            (Due::Change(what), None) => {
                line.what = Some(what);
                if cancel.requested() {
                    line.became = Became::LeftOut;
                    line.what = Some("interrupted".to_owned());
                } else {
                    one(global, args, &stack, &mut line)?;
                }
                if line.became != Became::Upgraded {
                    stuck.insert(name);
                }
            }
        }
        lines.push(line);
    }
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&serde_json::json!({ "stacks": lines }))?;
    } else {
        out.text(&text(&lines))?;
    }
    Ok(own::worst(lines.iter().filter_map(|l| l.exit), cancel.requested()))
}

/// Upgrades one stack with a command of its own: it has its own lock, history and watchdog.
fn one(global: &Global, args: &PromoteArgs, stack: &Found, line: &mut Line) -> Result<(), Trouble> {
    let progress = Progress::new(global.quiet);
    progress.line(&format!("\n{}  {}", stack.config.stack, stack.home.root().display()));
    let mut command = own::command(global, stack.home.root());
    command.args(["upgrade", "--yes"]);
    for (flag, set) in [
        ("--json", global.json),
        ("--again", args.again),
        ("--any-time", args.any_time),
        ("--without-certificate", args.without_certificate),
    ] {
        if set {
            command.arg(flag);
        }
    }
    if let Some(reason) = &args.reason {
        command.arg(format!("--reason={reason}"));
    }
    let code = if global.json {
        let ran = command.stderr(Stdio::inherit()).output()?;
        line.report = serde_json::from_slice(&ran.stdout).ok();
        ran.status.code()
    } else {
        command.status()?.code()
    };
    line.exit = Some(code.unwrap_or(i32::from(Exit::Internal.code())));
    line.became = if code == Some(0) { Became::Upgraded } else { Became::Failed };
    Ok(())
}

fn text(lines: &[Line]) -> String {
    let width = lines.iter().map(|l| l.stack.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let what = line.what.as_deref().unwrap_or_default();
        let said = match line.became {
            Became::Upgraded => format!("✓ upgraded: {what}"),
            Became::Nothing => "– runs what its configuration says".to_owned(),
            Became::NotStarted | Became::LeftOut => format!("– left out: {what}"),
            Became::Failed => {
                format!("✗ not upgraded: {what} (exit code {})", line.exit.unwrap_or_default())
            }
            Became::Due => format!("  would be upgraded: {what}"),
        };
        let _ = writeln!(text, "  {:<width$}  {said}", line.stack.as_str());
    }
    text
}
