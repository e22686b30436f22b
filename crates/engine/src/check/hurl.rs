//! Runs a `.hurl` file through an installed `hurl` as a check.
//!
//! Owns the command line and how the answer is read. Values of variables go in by its standard input: they may be secrets. What `hurl` prints is hostile: it repeats what servers send.

use crate::exec::{self, End, Exec, Leftovers, elapsed_ms};
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::duration::human_ms;
use switchback_core::ids::ServiceName;
use switchback_core::workflow::{Endpoint, Redactor, shorten};

/// The longest that a file may take.
pub const LIMIT: Duration = Duration::from_secs(300);
/// A larger body of an answer ends the file.
const BODY_BYTES: &str = "67108864";
/// At most this many requests are listed.
const MAX_STEPS: usize = 1000;

/// Where a file runs.
pub struct HurlContext<'a> {
    /// The environment's name.
    pub environment: String,
    /// Where its services answer.
    pub endpoints: BTreeMap<ServiceName, Endpoint>,
    /// Unique per run.
    pub run_id: String,
    /// The folder that files named in it are relative to.
    pub root: &'a Path,
    /// Variables of this process and of the services.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Values that no report may show.
    pub redactor: Redactor,
    /// The longest that it may take.
    pub limit: Duration,
    /// `true` stops it.
    pub cancel: &'a dyn Fn() -> bool,
}

/// Runs a file. A file that cannot be run (no `hurl`, a mistake in it, a variable without a value) is inconclusive.
pub fn run(id: &str, file: &Path, context: &HurlContext<'_>) -> CheckResult {
    let began = Instant::now();
    let mut measured = BTreeMap::new();
    let mut steps = Vec::new();
    let verdict = verdict(id, file, context, &mut measured, &mut steps)
        .unwrap_or_else(|why| Verdict::Inconclusive { why: context.redactor.redact(&why) });
    let took_ms = elapsed_ms(began);
    measured.insert("total".to_owned(), human_ms(took_ms));
    CheckResult {
        looks: Vec::new(),
        id: format!("hurl/{id}"),
        kind: CheckKind::Workflow,
        environment: context.environment.clone(),
        verdict,
        took_ms,
        measured,
        steps,
        artefacts: Vec::new(),
    }
}

fn verdict(
    id: &str,
    file: &Path,
    context: &HurlContext<'_>,
    measured: &mut BTreeMap<String, String>,
    steps: &mut Vec<CheckStep>,
) -> Result<Verdict, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut exec = Exec::new(argv(file, context.root), context.limit);
    exec.stdin = Some(assigned(&text, context)?.into_bytes());
    exec.leftovers = Leftovers::Kill;
    exec.redactor = context.redactor.clone();
    exec.cancel = Some(context.cancel);
    let output = exec::run(&exec).map_err(|e| match e {
        exec::ExecError::Start { .. } => "the program hurl is not installed".to_owned(),
        other => other.to_string(),
    })?;
    measured.insert("result".to_owned(), output.how());
    *steps = listed(&output.stdout_tail, &context.redactor);
    match output.end {
        End::TimedOut => Err(format!("no result within {}", human_ms(elapsed(context.limit)))),
        End::Cancelled => Err("cancelled".to_owned()),
        End::Code(0) if steps.is_empty() => Err("it asked nothing".to_owned()),
        End::Code(0) => Ok(Verdict::Pass),
        // 3: a request could not be made or its answer not be read; 4: something was not as the file says.
        End::Code(3 | 4) => Ok(Verdict::Fail { reasons: reasons(id, &output.stderr_tail, file, context) }),
        End::Code(_) | End::Signal(_) => {
            Err(format!("{}: {}", output.how(), shorten(output.stderr_tail.trim())))
        }
    }
}

fn elapsed(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

fn argv(file: &Path, root: &Path) -> Vec<OsString> {
    let mut argv: Vec<OsString> = [
        "hurl",
        "--json",
        "--no-color",
        "--noproxy",
        "*",
        "--connect-timeout",
        "10",
        "--max-filesize",
        BODY_BYTES,
    ]
    .map(OsString::from)
    .to_vec();
    argv.extend(["--variables-file".into(), "/dev/stdin".into()]);
    argv.extend(["--file-root".into(), root.into(), file.into()]);
    argv
}

/// The file of variables: where services answer, the run, and those of the environment that the text names.
fn assigned(text: &str, context: &HurlContext<'_>) -> Result<String, String> {
    let mut all = format!("run_id={}\n", context.run_id);
    for (service, endpoint) in &context.endpoints {
        let name = service.as_str().replace('-', "_");
        all += &format!("{name}_url={}\n", endpoint.url());
        for (port, number) in &endpoint.ports {
            all += &format!("{name}_{}_url=http://{}:{number}\n", port.replace('-', "_"), endpoint.host);
        }
    }
    for name in wanted(text) {
        let value = (context.env)(&name)
            .ok_or_else(|| format!("it uses env_{name}, and no service has a variable {name}"))?;
        if value.contains(['\n', '\r']) {
            return Err(format!("the value of {name} has several lines; hurl takes one"));
        }
        all += &format!("env_{name}={value}\n");
    }
    Ok(all)
}

/// The variables of the environment that a text names: `{{env_NAME}}`.
fn wanted(text: &str) -> BTreeSet<String> {
    let Ok(pattern) = Regex::new(r"\{\{\s*env_([A-Za-z_][A-Za-z0-9_]*)") else { return BTreeSet::new() };
    pattern.captures_iter(text).map(|c| c[1].to_owned()).collect()
}

/// The requests as steps.
fn listed(stdout: &str, redactor: &Redactor) -> Vec<CheckStep> {
    let Ok(found) = serde_json::from_str::<Value>(stdout.trim()) else { return Vec::new() };
    let entries = found["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let step = |entry: &Value| {
        let calls = entry["calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let asserts = entry["asserts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let good = |a: &&Value| a["success"].as_bool() == Some(true);
        let name = calls.first().map_or_else(
            || format!("line {}", entry["line"]),
            |c| {
                let text = |key: &str| c["request"][key].as_str().unwrap_or_default();
                format!("{} {}", text("method"), text("url"))
            },
        );
        let status = calls.last().and_then(|c| c["response"]["status"].as_u64());
        let held = asserts.iter().filter(good).count();
        CheckStep {
            name: redactor.show(&shorten(&name)),
            ok: status.is_some() && held == asserts.len(),
            took_ms: entry["time"].as_u64().unwrap_or_default(),
            seen: match status {
                Some(status) => format!("{status}; {held} of {} assertions held", asserts.len()),
                None => "no answer".to_owned(),
            },
        }
    };
    entries.iter().take(MAX_STEPS).map(step).collect()
}

/// What `hurl` says is wrong: blocks that begin with `error: `.
fn reasons(id: &str, stderr: &str, file: &Path, context: &HurlContext<'_>) -> Vec<Failure> {
    let place = format!("{}:", file.display());
    let reproduce = argv(file, context.root);
    let reproduce: Vec<String> = reproduce.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let mut found = Vec::new();
    for block in stderr.split("error: ").skip(1) {
        let mut lines = block.lines();
        let what = lines.next().unwrap_or_default().trim().to_owned();
        let at = block.lines().find_map(|l| l.trim().strip_prefix("--> ")).unwrap_or_default();
        let at = at.strip_prefix(&place).unwrap_or(at);
        let told: Vec<&str> = lines
            .map(|l| l.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == '|'))
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with("-->") && *l != "...")
            .collect();
        found.push(Failure {
            at: format!("{id}.hurl, line {}", at.split(':').next().unwrap_or_default()),
            what: context.redactor.show(&what),
            expected: None,
            got: Some(context.redactor.show(&shorten(&told.join(" | ")))),
            reproduce: Some(context.redactor.redact(&reproduce.join(" "))),
        });
    }
    if found.is_empty() {
        found.push(Failure { at: id.to_owned(), what: shorten(stderr.trim()), ..Failure::default() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_the_file_names_are_given_and_a_missing_one_is_told() {
        let endpoints =
            BTreeMap::from([(ServiceName::new("my-app").expect("a name"), Endpoint::new("127.0.0.1", 8080))]);
        let env = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        let context = HurlContext {
            environment: "new".into(),
            endpoints,
            run_id: "r1".into(),
            root: Path::new("/"),
            env: &env,
            redactor: Redactor::new(),
            limit: LIMIT,
            cancel: &|| false,
        };
        let text = "GET {{my_app_url}}/x\nAuthorization: Bearer {{ env_TOKEN }}\n";
        let all = assigned(text, &context).expect("assigned");
        assert_eq!(all, "run_id=r1\nmy_app_url=http://127.0.0.1:8080\nenv_TOKEN=s3cret\n");
        let error = assigned("{{env_NONE}}", &context).expect_err("refused");
        assert!(error.contains("no service has a variable NONE"), "{error}");
    }
}
