//! The Switchback program: command line, shim and watchdog in one binary.

mod cli;
mod demo;
mod matrix;
mod progress;
mod render;

use std::process::ExitCode;
use switchback_engine::docker::hands;
use switchback_engine::docker::thaw::{self, THAW_VERB};
use switchback_engine::engine::Cancel;
use switchback_engine::gateway::{self, attack};
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::runtime::process::{cell, shim, start::SHIM_VERB};
use switchback_engine::verify::mutate;
use switchback_engine::watch;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    // The demo's releases hold a copy of this program under the name of the service it runs.
    if std::path::Path::new(&name).file_name().is_some_and(|n| n == "assistant") {
        return assistant::run(args);
    }
    let code = match args.next().as_deref() {
        Some(SHIM_VERB) => hidden(shim::run(std::path::Path::new(&args.next().unwrap_or_default()))),
        Some(watch::WATCH_VERB) => hidden(watchdog(&args.next().unwrap_or_default())),
        Some(keeper::KEEPER_VERB) => hidden(keep(&args.next().unwrap_or_default())),
        Some(hands::STORE_VERB) => ExitCode::from(hands::serve(std::io::stdin(), std::io::stdout())),
        Some(THAW_VERB) => {
            let ids: Vec<String> = args.collect();
            ExitCode::from(thaw::guard(&ids, std::io::stdin().lock(), std::io::stdout()))
        }
        Some(mutate::MUTATE_VERB) => hidden(mutate::run(&args.collect::<Vec<_>>())),
        Some(gateway::GATEWAY_VERB) => hidden(gateway::run()),
        Some(attack::ATTACK_VERB) => hidden(attack::run(std::io::stdout())),
        Some(cell::CELL_VERB) => hidden(cell::run_cell(args.next().as_deref() == Some(cell::PROBE))),
        Some(cell::INSIDE_VERB) => hidden(cell::run_enter(&args.collect::<Vec<_>>())),
        Some(cell::OUTLET_VERB) => hidden(cell::run_outlet()),
        _ => cli::main(),
    };
    // Whoever is being told is told before the program ends.
    switchback_engine::notify::settle();
    code
}

fn watchdog(root: &str) -> Result<(), switchback_engine::error::EngineError> {
    let home = Home::open(std::path::Path::new(root))?;
    watch::watch(&home, &cancelled_by_signals(), &|_| {})
}

#[expect(clippy::print_stderr, reason = "the keeper writes to its log file")]
fn keep(root: &str) -> Result<(), switchback_engine::error::EngineError> {
    let home = Home::open(std::path::Path::new(root))?;
    keeper::keep(&home, &cancelled_by_signals(), &|text| eprintln!("{}: {text}", jiff::Timestamp::now()))
}

fn cancelled_by_signals() -> Cancel {
    let cancel = Cancel::default();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let _ = signal_hook::flag::register(signal, cancel.flag());
    }
    cancel
}

#[expect(clippy::print_stderr, reason = "shim and watchdog write to their log files")]
fn hidden(result: Result<(), switchback_engine::error::EngineError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}: {e}", jiff::Timestamp::now());
            ExitCode::FAILURE
        }
    }
}
