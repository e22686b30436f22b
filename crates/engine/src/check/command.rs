//! Runs a command of the user as a check.

use super::junit::{self, Case, Outcome};
use crate::exec::{self, End, Exec, Leftovers, elapsed_ms};
use regex::Regex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::duration::{Span, human_ms};
use switchback_core::ids::ServiceName;
use switchback_core::workflow::{Endpoint, Redactor, shorten};
use walkdir::WalkDir;

/// A command and how its result is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandCheck {
    /// The name after `command/`.
    pub id: String,
    /// What is run.
    pub command: CommandLine,
    /// Limit on wall time.
    pub timeout: Span,
    /// JUnit reports it writes: paths in the working directory, `*`, `?` and `**` allowed.
    pub junit: Vec<String>,
}

/// The two ways to write a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Program and arguments.
    Argv(Vec<String>),
    /// A line for `sh -c`: the user's own words.
    Shell(String),
}

/// Where a command runs.
pub struct CommandContext<'a> {
    /// The environment's name (`SWITCHBACK_ENVIRONMENT`).
    pub environment: String,
    /// Where its services answer (`SWITCHBACK_URL_<SERVICE>`).
    pub endpoints: BTreeMap<ServiceName, Endpoint>,
    /// Unique per run (`SWITCHBACK_RUN_ID`).
    pub run_id: String,
    /// The working directory; reports are looked for inside.
    pub base_dir: PathBuf,
    /// Values that no report may show.
    pub redactor: Redactor,
    /// `true` stops the command.
    pub cancel: &'a dyn Fn() -> bool,
}

/// At most this many steps are listed; failures come first.
const MAX_STEPS: usize = 1000;
/// At most this many failures are explained.
const MAX_REASONS: usize = 50;

/// Runs the command. Exit code 0 passes, unless its JUnit reports say otherwise.
///
/// A time-out, a command that cannot start and a report without any test are inconclusive: nothing
/// was learnt about the release.
pub fn run(check: &CommandCheck, context: &CommandContext<'_>) -> CheckResult {
    let began = Instant::now();
    let before = reports(&check.junit, &context.base_dir);
    let mut exec = Exec::new(argv(&check.command), check.timeout.0);
    exec.env = variables(context);
    exec.cwd = Some(context.base_dir.clone());
    exec.leftovers = Leftovers::Kill;
    exec.redactor = context.redactor.clone();
    exec.cancel = Some(context.cancel);
    let mut measured = BTreeMap::new();
    let mut steps = Vec::new();
    let verdict = match exec::run(&exec) {
        Err(error) => Verdict::Inconclusive { why: context.redactor.redact(&error.to_string()) },
        Ok(output) => {
            measured.insert("result".to_owned(), output.how());
            let cases = read_new(&check.junit, context, &before);
            if let Ok(cases) = &cases {
                steps = list(cases, &context.redactor);
                if !check.junit.is_empty() {
                    let failed = cases.iter().filter(|c| matches!(c.outcome, Outcome::Failed(_))).count();
                    measured.insert("tests".to_owned(), cases.len().to_string());
                    measured.insert("failed tests".to_owned(), failed.to_string());
                }
            }
            steps.insert(
                0,
                CheckStep {
                    name: shorten(&context.redactor.redact(&words(&check.command))),
                    ok: output.success(),
                    took_ms: output.took_ms,
                    seen: output.how(),
                },
            );
            judge(check, context, &output, cases)
        }
    };
    let took_ms = elapsed_ms(began);
    measured.insert("total".to_owned(), human_ms(took_ms));
    CheckResult {
        looks: Vec::new(),
        id: format!("command/{}", check.id),
        kind: CheckKind::Command,
        environment: context.environment.clone(),
        verdict,
        took_ms,
        measured,
        steps,
        artefacts: Vec::new(),
    }
}

fn judge(
    check: &CommandCheck,
    context: &CommandContext<'_>,
    output: &exec::Output,
    cases: Result<Vec<Case>, String>,
) -> Verdict {
    let inconclusive = |why: String| Verdict::Inconclusive { why };
    match output.end {
        End::TimedOut => return inconclusive(format!("no result within {}", check.timeout)),
        End::Cancelled => return inconclusive("cancelled".into()),
        // POSIX shells: 126 not executable, 127 not found.
        End::Code(126 | 127) if matches!(check.command, CommandLine::Shell(_)) => {
            return inconclusive(format!("the command cannot be run: {}", last_lines(output)));
        }
        End::Code(_) | End::Signal(_) => {}
    }
    let mut reasons = Vec::new();
    for case in cases.iter().flatten() {
        if let Outcome::Failed(message) = &case.outcome {
            reasons.push(Failure {
                at: context.redactor.show(&case.name),
                what: "the test failed".to_owned(),
                got: Some(context.redactor.show(message)),
                reproduce: Some(reproduce(check, context)),
                expected: None,
            });
        }
    }
    let failed = reasons.len();
    reasons.truncate(MAX_REASONS);
    if failed > MAX_REASONS {
        let what = format!("{} more tests failed", failed - MAX_REASONS);
        reasons.push(Failure { at: check.id.clone(), what, ..Failure::default() });
    }
    if !output.success() && failed == 0 {
        reasons.push(Failure {
            at: check.id.clone(),
            what: "the command failed".to_owned(),
            expected: Some("exit code 0".to_owned()),
            got: Some(format!("{}: {}", output.how(), last_lines(output))),
            reproduce: Some(reproduce(check, context)),
        });
    }
    if !reasons.is_empty() {
        return Verdict::Fail { reasons };
    }
    match cases {
        Err(why) => inconclusive(why),
        Ok(cases) if check.junit.is_empty() => {
            debug_assert!(cases.is_empty(), "no reports were asked for");
            Verdict::Pass
        }
        Ok(cases) if cases.is_empty() => inconclusive("the reports hold no test".into()),
        Ok(cases) if cases.iter().all(|c| c.outcome == Outcome::Skipped) => {
            inconclusive(format!("all {} tests were skipped", cases.len()))
        }
        Ok(_) => Verdict::Pass,
    }
}

/// The last lines that were printed, for a report.
fn last_lines(output: &exec::Output) -> String {
    let text = if output.stderr_tail.trim().is_empty() { &output.stdout_tail } else { &output.stderr_tail };
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    shorten(&lines[lines.len().saturating_sub(3)..].join(" | "))
}

fn argv(command: &CommandLine) -> Vec<OsString> {
    match command {
        CommandLine::Argv(argv) => argv.iter().map(OsString::from).collect(),
        CommandLine::Shell(line) => ["sh", "-c", line].map(OsString::from).into(),
    }
}

fn words(command: &CommandLine) -> String {
    match command {
        CommandLine::Argv(argv) => argv.join(" "),
        CommandLine::Shell(line) => line.clone(),
    }
}

fn variables(context: &CommandContext<'_>) -> Vec<(OsString, OsString)> {
    let mut all = vec![
        ("SWITCHBACK_ENVIRONMENT".into(), context.environment.clone().into()),
        ("SWITCHBACK_RUN_ID".into(), context.run_id.clone().into()),
    ];
    for (service, endpoint) in &context.endpoints {
        all.push((url_variable(service).into(), endpoint.url().into()));
    }
    all
}

/// `SWITCHBACK_URL_MY_APP` for the service `my-app`.
fn url_variable(service: &ServiceName) -> String {
    format!("SWITCHBACK_URL_{}", service.as_str().to_ascii_uppercase().replace('-', "_"))
}

fn reproduce(check: &CommandCheck, context: &CommandContext<'_>) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut line = format!(
        "cd {} && SWITCHBACK_ENVIRONMENT={}",
        quote(&context.base_dir.to_string_lossy()),
        quote(&context.environment)
    );
    for (service, endpoint) in &context.endpoints {
        line += &format!(" {}={}", url_variable(service), quote(&endpoint.url()));
    }
    for word in argv(&check.command) {
        line += &format!(" {}", quote(&word.to_string_lossy()));
    }
    context.redactor.redact(&line)
}

/// The tests as steps, failures first.
fn list(cases: &[Case], redactor: &Redactor) -> Vec<CheckStep> {
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_by_key(|c| !matches!(c.outcome, Outcome::Failed(_)));
    sorted
        .into_iter()
        .take(MAX_STEPS)
        .map(|case| CheckStep {
            name: redactor.show(&case.name),
            ok: !matches!(case.outcome, Outcome::Failed(_)),
            took_ms: case.took_ms,
            seen: match &case.outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Skipped => "skipped".to_owned(),
                Outcome::Failed(message) => redactor.show(message),
            },
        })
        .collect()
}

/// What tells one state of a file from the next: inode, size, and its times to the nanosecond.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// The files that match the patterns, with their stamps. Links are not followed.
fn reports(patterns: &[String], base: &Path) -> BTreeMap<PathBuf, Stamp> {
    // Deep enough for any build folder; entries bounded so that a pattern on `/` ends.
    const MAX_LEVELS: usize = 12;
    const MAX_ENTRIES: usize = 200_000;
    let mut found = BTreeMap::new();
    for pattern in patterns {
        let Some(regex) = glob(pattern) else { continue };
        let fixed: PathBuf = pattern.split('/').take_while(|p| !p.contains(['*', '?'])).collect();
        let walk = WalkDir::new(base.join(fixed)).max_depth(MAX_LEVELS).into_iter();
        for entry in walk.filter_map(Result::ok).take(MAX_ENTRIES) {
            let Ok(relative) = entry.path().strip_prefix(base) else { continue };
            if entry.file_type().is_file()
                && regex.is_match(&relative.to_string_lossy())
                && let Ok(m) = fs::metadata(entry.path())
            {
                let stamp = (m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
                found.insert(entry.path().to_owned(), stamp);
            }
        }
    }
    found
}

/// A pattern as a regular expression on the relative path.
fn glob(pattern: &str) -> Option<Regex> {
    let mut text = String::from("^");
    let pattern = pattern.trim_start_matches("./");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            text.push_str("(.*/)?");
            rest = after;
            continue;
        }
        match c {
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[c.len_utf8()..];
    }
    Regex::new(&format!("{text}$")).ok()
}

/// Reads the reports that the command wrote; those of an earlier run do not count.
fn read_new(
    patterns: &[String],
    context: &CommandContext<'_>,
    before: &BTreeMap<PathBuf, Stamp>,
) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let after = reports(patterns, &context.base_dir);
    let new: Vec<&PathBuf> =
        after.iter().filter(|(p, s)| before.get(*p) != Some(*s)).map(|(p, _)| p).collect();
    if !patterns.is_empty() && new.is_empty() {
        return Err(format!("the command wrote no report {}", patterns.join(", ")));
    }
    for path in new {
        let refused = |why: String| format!("{}: {why}", path.display());
        let mut xml = Vec::new();
        File::open(path)
            .and_then(|f| f.take(junit::MAX_BYTES + 1).read_to_end(&mut xml))
            .map_err(|e| refused(e.to_string()))?;
        cases.extend(junit::parse(&xml).map_err(|e| refused(e.to_string()))?);
    }
    Ok(cases)
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
