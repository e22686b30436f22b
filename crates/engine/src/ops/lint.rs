//! What squawk says of the migration files of the stack.
//!
//! It informs. That squawk is missing or fails stops nothing, and is told.

use super::{Context, Failed};
use crate::checks::named_files;
use crate::exec::{self, Exec, ExecError, Sink};
use std::ffi::OsString;
use std::fs;
use std::time::Duration;
use switchback_core::journal::Output;
use switchback_core::lint::{Lint, MOST_FINDINGS, squawk};

/// Thousands of files take seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Looks at the files.
pub fn lint(context: &Context<'_>) -> Result<Output, Failed> {
    let files = named_files(context.home, "checks.lint", &context.config.checks.lint)?;
    let answer = context.run_dir().join("squawk.json");
    let _ = fs::remove_file(&answer);
    let argv = ["squawk", "--reporter", "json"].map(OsString::from);
    let argv = argv.into_iter().chain(files.iter().map(|f| f.clone().into_os_string()));
    let cancelled = || context.cancel.requested();
    let mut program = Exec::new(argv, LIMIT);
    program.cwd = Some(context.home.root().to_owned());
    program.sink = Sink::File(answer.clone());
    program.cancel = Some(&cancelled);
    context.say("looking at migration files");
    let ran = exec::run(&program);
    let mut lint = Lint { files: files.len() as u64, ..Lint::default() };
    match ran {
        Err(ExecError::Start { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            lint.note = Some("squawk is not installed (pip install squawk-cli)".to_owned());
        }
        Err(e) => lint.note = Some(e.to_string()),
        Ok(ran) => {
            let text = fs::read_to_string(&answer).unwrap_or_default();
            let folder = context.home.root().to_string_lossy().into_owned();
            match squawk(&text, &folder) {
                Ok(mut findings) => {
                    lint.tool = "squawk".to_owned();
                    lint.left_out = findings.len().saturating_sub(MOST_FINDINGS) as u64;
                    findings.truncate(MOST_FINDINGS);
                    lint.findings = findings;
                }
                Err(_) => {
                    let first = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no answer");
                    lint.note = Some(format!("squawk: {}: {first}", ran.how()));
                }
            }
        }
    }
    let _ = fs::remove_file(&answer);
    let mut output = Output::default();
    output.notes.push(match &lint.note {
        Some(note) => format!("not looked at: {note}"),
        None => format!("{} files, {} findings", lint.files, lint.findings.len() as u64 + lint.left_out),
    });
    output.lint = Some(lint);
    context.midway();
    Ok(output)
}
