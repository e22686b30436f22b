//! Which versions fit together: each combination is rehearsed on a clone of production.

use super::run::cancel_on_signals;
use super::upgrade::{open, target};
use super::{Exit, Global, Output, Trouble, own};
use crate::progress::Progress;
use crate::render::compat as render;
use clap::Args;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;
use switchback_core::compat::{Cell, Compat, Fits, SCHEMA, combinations};
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_engine::engine::now_ms;
use switchback_engine::error::EngineError;
use switchback_engine::home::{Home, write_json};

/// More combinations than this are a mistake: each takes as long as a rehearsal.
const MOST: usize = 36;

/// Options of compat.
#[derive(Debug, Clone, Args)]
pub struct CompatArgs {
    /// The versions of each service, divided by commas
    #[arg(value_name = "SERVICE=VERSION,VERSION", required = true)]
    pub versions: Vec<String>,
    /// Show the combinations and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Folder for compat.json and compat.md besides
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Reads `SERVICE=VERSION,VERSION` words.
fn wanted(config: &Config, words: &[String]) -> Result<Vec<(ServiceName, Vec<String>)>, Trouble> {
    let mut found: Vec<(ServiceName, Vec<String>)> = Vec::new();
    for word in words {
        let (name, list) = word.split_once('=').unwrap_or((word, ""));
        let mut versions = Vec::new();
        for version in list.split(',').map(str::trim) {
            // Each is judged as `rehearse` does it.
            let one = target(config, &[format!("{name}={version}")])?;
            for (service, version) in one.versions {
                if found.iter().any(|(known, _)| *known == service) {
                    return Err(Trouble::usage(
                        format!("{service} is named twice"),
                        format!("divide its versions by commas:  {service}=1,2"),
                    ));
                }
                if !versions.iter().any(|(_, v)| *v == version) {
                    versions.push((service, version));
                }
            }
        }
        let Some((service, _)) = versions.first().cloned() else { continue };
        found.push((service, versions.into_iter().map(|(_, v)| v).collect()));
    }
    Ok(found)
}

/// Rehearses every combination that does not run now.
pub fn compat(global: &Global, args: &CompatArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let axes = wanted(&config, &args.versions)?;
    let all = combinations(&axes);
    if all.len() > MOST {
        return Err(Trouble::usage(
            format!("{} combinations are too many", all.len()),
            format!("each is a rehearsal of its own; name at most {MOST}"),
        ));
    }
    let Some(pointer) = home.pointer()? else {
        return Err(Trouble::refused("nothing of this stack runs yet", "`switchback up` starts it"));
    };
    let present = home.generation(pointer.current)?.instance.versions;
    let mut found = Compat {
        schema: SCHEMA.to_owned(),
        stack: config.stack.to_string(),
        at_ms: now_ms(),
        axes: axes.iter().map(|(service, _)| service.clone()).collect(),
        cells: all.into_iter().map(|versions| Cell::untried(versions, &present)).collect(),
    };
    let out = Output::new(global.json);
    let cancel = cancel_on_signals();
    if !args.dry_run {
        for cell in &mut found.cells {
            if cell.fits == Fits::RunsNow || cancel.requested() {
                continue;
            }
            one(global, &home, cell)?;
        }
        write_json(&home.state().join("compat.json"), &found)?;
    }
    if let Some(folder) = &args.output {
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .map_err(|source| EngineError::Io { doing: "write", path, source })
        };
        write("compat.json", serde_json::to_string_pretty(&found).unwrap_or_default())?;
        write("compat.md", render::markdown(&found))?;
    }
    if out.is_json() {
        out.json(&found)?;
    } else {
        out.text(&render::terminal(&found))?;
    }
    Ok(own::worst(found.cells.iter().filter_map(|c| c.exit), cancel.requested()))
}

/// Rehearses one combination with a command of its own.
fn one(global: &Global, home: &Home, cell: &mut Cell) -> Result<(), Trouble> {
    let began = Instant::now();
    let named: Vec<String> = cell.versions.iter().map(|(service, v)| format!("{service}={v}")).collect();
    Progress::new(global.quiet).line(&format!("\n{}", named.join("  ")));
    let mut command = own::command(global, home.root());
    command.args(["rehearse", "--json"]).args(&named);
    let ran = command.stderr(Stdio::inherit()).output()?;
    let exit = ran.status.code().unwrap_or(i32::from(Exit::Internal.code()));
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reasons = told["reasons"].as_array().into_iter().flatten().filter_map(text);
    cell.exit = Some(exit);
    cell.took_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    cell.run = text(&told["run"]);
    cell.why = reasons.chain(text(&told["error"]["message"])).collect();
    cell.fits = match exit {
        0 => Fits::Fits,
        code if code == i32::from(Exit::Refused.code()) => Fits::Refused,
        code if code == i32::from(Exit::Inconclusive.code()) => Fits::CannotBeSaid,
        code if code == i32::from(Exit::Interrupted.code()) => Fits::NotTried,
        _ => Fits::Failed,
    };
    Ok(())
}
