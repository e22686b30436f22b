//! Proof that the stack's checks catch bad upgrades.

use super::run::cancel_giving_way;
use super::upgrade::{open, session};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use crate::render::prove as render;
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use switchback_core::prove::{Proved, TABLE};
use switchback_engine::engine::Notice;
use switchback_engine::error::EngineError;
use switchback_engine::home::write_json;
use switchback_engine::prove::{self, Request};

/// Options of prove.
#[derive(Debug, Clone, Args)]
pub struct ProveArgs {
    /// Only this mutant, such as M07 (may be given several times)
    #[arg(long = "mutant", value_name = "ID")]
    pub mutants: Vec<String>,
    /// How often the controls are repeated
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub controls: u32,
    /// Print the table of mutants and do nothing
    #[arg(long)]
    pub list: bool,
    /// Folder for prove.json and prove.md besides
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Makes known-bad upgrades and shows which checks catch them.
pub fn prove(global: &Global, args: &ProveArgs) -> Result<Exit, Trouble> {
    let out = Output::new(global.json);
    if args.list {
        if out.is_json() {
            out.json(&render::listed())?;
        } else {
            out.text(&render::list())?;
        }
        return Ok(Exit::Done);
    }
    let only: BTreeSet<String> = args.mutants.iter().map(|m| m.to_uppercase()).collect();
    if let Some(unknown) = only.iter().find(|m| !TABLE.iter().any(|t| t.id == **m)) {
        return Err(Trouble::usage(
            format!("there is no mutant {unknown}"),
            "`switchback prove --list` shows them",
        ));
    }
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "prove")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let cancel = cancel_giving_way(global);
    let progress = Progress::new(global.quiet);
    progress.line(&format!("prove {}  on clones; production is not touched", config.stack));
    let observe = |notice: &Notice<'_>| {
        if let doing @ Notice::Doing { .. } = notice {
            progress.notice(doing);
        }
    };
    let request = Request {
        only,
        controls: args.controls as usize,
        cancel: &cancel,
        observe: &observe,
        say: &|text| progress.notice(&Notice::Doing { text, done: 0, total: 0 }),
        // On a terminal, what is being done is seen, and the table follows.
        told: &|row| {
            if !progress.is_live() {
                progress.line(&render::line(row));
            }
        },
    };
    let Some(proved) = prove::on_stack(&home, &config, &mut session, &request)? else {
        if let Some(who) = cancel.gave_way_to() {
            progress.line(&format!("\n  Gave way to a rollback: {who}."));
        }
        progress.line("\n  Interrupted; the environments are gone and production was not touched.");
        return Ok(Exit::Interrupted);
    };
    drop(progress);
    write_json(&home.state().join("prove.json"), &proved)?;
    if let Some(folder) = &args.output {
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .map_err(|source| EngineError::Io { doing: "write", path, source })
        };
        let json = serde_json::to_string_pretty(&proved).unwrap_or_default();
        write("prove.json", json)?;
        write("prove.md", render::markdown(&proved))?;
    }
    if out.is_json() {
        out.json(&proved)?;
    } else {
        out.text(&render::terminal(&proved))?;
    }
    Ok(exit_of(&proved))
}

fn exit_of(proved: &Proved) -> Exit {
    let score = proved.score();
    if score.survived > 0 || score.alarms > 0 {
        Exit::Refused
    } else if score.caught == 0 {
        Exit::Inconclusive
    } else {
        Exit::Done
    }
}
