//! Commands of this program that others run for each of several things: each has its own lock, history and report.

use super::{Exit, Global};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use switchback_engine::runtime::process::start::own_program;

/// This program on the stack of a folder, with the options that hold for everything. It is asked nothing.
pub fn command(global: &Global, root: &Path) -> Command {
    let mut command = Command::new(own_program());
    command.arg("-C").arg(root).arg(format!("--wait={}", global.wait)).stdin(Stdio::null());
    if global.quiet {
        command.arg("--quiet");
    }
    command
}

/// The exit code for several: that of the one which needs a person most.
pub fn worst(codes: impl IntoIterator<Item = i32>, interrupted: bool) -> Exit {
    const WORST_FIRST: [Exit; 8] = [
        Exit::NeedsOperator,
        Exit::Internal,
        Exit::OverBudget,
        Exit::RolledBack,
        Exit::Inconclusive,
        Exit::Refused,
        Exit::Busy,
        Exit::Usage,
    ];
    if interrupted {
        return Exit::Interrupted;
    }
    let codes: BTreeSet<i32> = codes.into_iter().filter(|code| *code != 0).collect();
    let known = |exit: &&Exit| codes.contains(&i32::from(exit.code()));
    match WORST_FIRST.iter().find(known) {
        Some(exit) => *exit,
        None if codes.is_empty() => Exit::Done,
        None => Exit::Internal,
    }
}
