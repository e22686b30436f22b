//! Runs a workflow against an environment.

use super::http::{HttpClient, HttpRequest, Limits, Redirects};
use super::{mcp, multipart, parallel};
use crate::engine::now_ms;
use crate::exec::elapsed_ms;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::duration::human_ms;
use switchback_core::egress::Sent;
use switchback_core::ids::{ServiceName, StoreName};
pub use switchback_core::workflow::Endpoint;
use switchback_core::workflow::{
    McpStep, PreparedBody, PreparedRequest, Redactor, ReferenceKind, RenderError, Request, Response, Scope,
    SentStep, SqlStep, Step, StepKind, Workflow, capture, curl_command, evaluate, is_secret_name, prepare,
    prepare_sql,
};

/// The name of the environment that only harmless workflows may touch.
pub const PRODUCTION: &str = "production";

/// Asks a store: query with `?1`, `?2`, values; the first column of the first row, or why not.
pub type SqlCallback<'a> = &'a dyn Fn(&StoreName, &str, &[Value]) -> Result<Value, String>;

/// Where a workflow runs.
pub struct WorkflowContext<'a> {
    /// The environment's name for reports; `production` restricts what may run.
    pub environment: String,
    /// Where its services answer.
    pub endpoints: BTreeMap<ServiceName, Endpoint>,
    /// `{{run.id}}`.
    pub run_id: String,
    /// Looks up `{{env.NAME}}`; the values are secrets.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Further values that no report may show.
    pub redactor: Redactor,
    /// The workflow's folder, for files to upload.
    pub base_dir: PathBuf,
    /// Asks a store; without it, a workflow with `sql` is inconclusive.
    pub sql: Option<SqlCallback<'a>>,
    /// What the services tried to send out so far; without it, a workflow with `sent` is inconclusive.
    pub sent: Option<SentCallback<'a>>,
    /// Asked between requests; `true` ends the workflow.
    pub cancel: &'a dyn Fn() -> bool,
}

/// What the services tried to send out so far, or why that is not known.
pub type SentCallback<'a> = &'a dyn Fn() -> Result<Vec<Sent>, String>;

/// Runs a workflow; a step that fails ends it.
pub fn run(workflow: &Workflow, context: &WorkflowContext<'_>) -> CheckResult {
    match workflow.parallel {
        Some(workers) => parallel::run(workflow, workers, context),
        None => run_one(workflow, context, None),
    }
}

/// Runs it once, as one of several workers or alone.
pub(super) fn run_one(
    workflow: &Workflow,
    context: &WorkflowContext<'_>,
    worker: Option<u32>,
) -> CheckResult {
    let began = Instant::now();
    let mut run = Run {
        context,
        client: client(context),
        scope: Scope {
            run_id: &context.run_id,
            endpoints: &context.endpoints,
            env: context.env,
            vars: BTreeMap::new(),
        },
        redactor: context.redactor.clone(),
        deadline: began + workflow.timeout.0,
        began_ms: now_ms(),
        worker,
        requests: 0,
        steps: Vec::new(),
        measured: BTreeMap::new(),
    };
    let verdict = match run.all(workflow) {
        Ok(()) => Verdict::Pass,
        Err(Stop::Failed(reasons)) => Verdict::from_failures(reasons),
        Err(Stop::Trouble(why)) => Verdict::Inconclusive { why: run.redactor.redact(&why) },
        Err(Stop::Forbidden(why)) => Verdict::NotRun { why },
    };
    let took_ms = elapsed_ms(began);
    run.measured.insert("requests".to_owned(), run.requests.to_string());
    run.measured.insert("total".to_owned(), human_ms(took_ms));
    CheckResult {
        looks: Vec::new(),
        id: format!("workflow/{}", workflow.id),
        kind: CheckKind::Workflow,
        environment: context.environment.clone(),
        verdict,
        took_ms,
        measured: run.measured,
        steps: run.steps,
        artefacts: Vec::new(),
    }
}

/// A client with no cookies yet, which follows redirects within the environment only.
fn client(context: &WorkflowContext<'_>) -> HttpClient {
    let own = context.endpoints.values().flat_map(|e| {
        let ports = e.ports.values().chain([&e.default_port]);
        ports.map(|p| format!("{}:{p}", e.host)).collect::<Vec<_>>()
    });
    HttpClient::new(Limits::default(), own)
}

/// Why a workflow ended early.
enum Stop {
    /// The release did something wrong.
    Failed(Vec<Failure>),
    /// We could not look properly.
    Trouble(String),
    /// It must not run here.
    Forbidden(String),
}

impl From<RenderError> for Stop {
    fn from(error: RenderError) -> Self {
        Self::Trouble(error.to_string())
    }
}

/// What one try of a step saw.
struct Seen {
    line: String,
    failures: Vec<Failure>,
    response: Option<Response>,
}

struct Run<'a> {
    context: &'a WorkflowContext<'a>,
    client: HttpClient,
    scope: Scope<'a>,
    redactor: Redactor,
    deadline: Instant,
    began_ms: i64,
    worker: Option<u32>,
    requests: u64,
    steps: Vec<CheckStep>,
    measured: BTreeMap<String, String>,
}

impl Run<'_> {
    fn all(&mut self, workflow: &Workflow) -> Result<(), Stop> {
        self.prepare(workflow)?;
        if workflow.rows.is_empty() {
            return self.steps(workflow, "");
        }
        let declared = self.scope.vars.clone();
        for (index, row) in workflow.rows.iter().enumerate() {
            self.scope.vars.clone_from(&declared);
            self.scope.declare(row)?;
            self.hide();
            // Each row is another user's way.
            self.client = client(self.context);
            self.steps(workflow, &format!("row {}: ", index + 1))?;
        }
        Ok(())
    }

    fn steps(&mut self, workflow: &Workflow, of: &str) -> Result<(), Stop> {
        for (index, step) in workflow.steps.iter().enumerate() {
            let label = format!("{of}{}", step.label(index));
            let began = Instant::now();
            let mut line = String::new();
            let result = self.step(step, &label, workflow, &mut line);
            let took_ms = elapsed_ms(began);
            let number = self.steps.len() + 1;
            self.measured
                .insert(format!("step {number:02} {}", self.redactor.show(&label)), format!("{took_ms} ms"));
            self.steps.push(CheckStep {
                name: self.redactor.show(&label),
                ok: result.is_ok(),
                took_ms,
                seen: self.redactor.show(&line),
            });
            result?;
        }
        Ok(())
    }

    /// Finds out whether all that is needed is there, before the first request has an effect.
    fn prepare(&mut self, workflow: &Workflow) -> Result<(), Stop> {
        if self.context.environment == PRODUCTION && !workflow.runs_on_production() {
            return Err(Stop::Forbidden(
                "it writes, and may not run on production (`production: always` would allow it)".into(),
            ));
        }
        let mut missing = Vec::new();
        for reference in &workflow.references {
            let name = reference.name.as_str();
            match reference.kind {
                ReferenceKind::Env => match (self.context.env)(name) {
                    Some(value) => self.redactor.add_named(name, value),
                    None => missing.push(RenderError::MissingEnv(name.to_owned()).to_string()),
                },
                ReferenceKind::Service if !self.context.endpoints.contains_key(name) => {
                    missing.push(RenderError::UnknownService(name.to_owned()).to_string());
                }
                ReferenceKind::Store if self.context.sql.is_none() => {
                    missing.push(format!("the store {name:?} cannot be asked here"));
                }
                ReferenceKind::Service | ReferenceKind::Store => {}
            }
        }
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            return Err(Stop::Trouble(missing.join("; ")));
        }
        if let Some(worker) = self.worker {
            self.scope.vars.insert("worker".to_owned(), Value::from(worker));
        }
        self.scope.declare(&workflow.vars)?;
        self.hide();
        Ok(())
    }

    /// Variables whose names tell that they are secret are shown nowhere.
    fn hide(&mut self) {
        for (name, value) in &self.scope.vars {
            if let (true, Value::String(text)) = (is_secret_name(name), value) {
                self.redactor.add_named(name, text.clone());
            }
        }
    }

    fn step(&mut self, step: &Step, label: &str, workflow: &Workflow, line: &mut String) -> Result<(), Stop> {
        let tries = step.retry.map_or(1, |r| r.times.max(1));
        let mut used = 0;
        let seen = loop {
            used += 1;
            self.check_time(label, workflow)?;
            let seen = match step.kind() {
                Some(StepKind::Request(request)) => self.request(step, request, label)?,
                Some(StepKind::Sql(sql)) => self.sql(sql, label)?,
                Some(StepKind::Mcp(call)) => self.mcp(step, call, label)?,
                Some(StepKind::Sent(wanted)) => self.sent(wanted, label)?,
                Some(StepKind::Wait(pause)) => {
                    self.pause(pause.0);
                    self.check_time(label, workflow)?;
                    Seen { line: format!("waited {pause}"), failures: Vec::new(), response: None }
                }
                None => return Err(Stop::Trouble(format!("{label}: the step does nothing"))),
            };
            if seen.failures.is_empty() || used >= tries {
                break seen;
            }
            self.pause(step.retry.map_or(Duration::ZERO, |r| r.every.0));
            if Instant::now() >= self.deadline {
                // The real reason says more than "out of time".
                break seen;
            }
        };
        *line = seen.line;
        if used > 1 {
            line.push_str(&format!(" ({used} tries)"));
        }
        if !seen.failures.is_empty() {
            return Err(Stop::Failed(seen.failures));
        }
        let Some(response) = &seen.response else { return Ok(()) };
        let mut missing = Vec::new();
        for (name, what) in &step.capture {
            match capture(name, what, response, label, &self.redactor) {
                Ok(value) => {
                    if let (true, Value::String(text)) = (what.is_secret(name), &value) {
                        self.redactor.add_named(name, text.clone());
                    }
                    self.scope.vars.insert(name.clone(), value);
                }
                Err(failure) => missing.push(failure),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Stop::Failed(missing)) }
    }

    fn request(&mut self, step: &Step, request: &Request, label: &str) -> Result<Seen, Stop> {
        let prepared = prepare(request, &self.scope)?;
        let reproduce = curl_command(&prepared, &self.redactor);
        let what = format!("{} {}", prepared.method, path_of(&prepared.url));
        let sent = self.http_request(prepared)?;
        self.requests += 1;
        let result = self.client.send(&sent);
        let (line, mut failures, response) = match result {
            Ok(response) => {
                let failures = evaluate(&step.expect, &response, &self.scope, &self.redactor, label)?;
                (format!("{what} -> {}", response.status), failures, Some(response))
            }
            Err(super::http::HttpError::Unusable(why)) => {
                return Err(Stop::Trouble(format!("{label}: the request cannot be sent: {why}")));
            }
            Err(error) => {
                let failure = Failure {
                    at: label.to_owned(),
                    what: self.redactor.show(&error.to_string()),
                    ..Failure::default()
                };
                (format!("{what} -> {error}"), vec![failure], None)
            }
        };
        for failure in &mut failures {
            failure.reproduce = Some(reproduce.clone());
        }
        Ok(Seen { line, failures, response })
    }

    fn http_request(&self, prepared: PreparedRequest) -> Result<HttpRequest, Stop> {
        let mut headers = prepared.headers;
        let (content_type, body) = match prepared.body {
            PreparedBody::Empty => (None, None),
            PreparedBody::Text { content_type, text } => {
                (Some(content_type.to_owned()), Some(text.into_bytes()))
            }
            PreparedBody::Multipart(parts) => {
                let (content_type, body) =
                    multipart::encode(&parts, &self.context.base_dir).map_err(Stop::Trouble)?;
                headers.retain(|(n, _)| !n.eq_ignore_ascii_case("content-type"));
                (Some(content_type), Some(body))
            }
        };
        if let Some(content_type) = content_type
            && !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type"))
        {
            headers.push(("content-type".to_owned(), content_type));
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(HttpRequest {
            method: prepared.method,
            url: prepared.url,
            headers,
            body,
            redirects: if prepared.follow_redirects { Redirects::Follow } else { Redirects::Return },
            timeout: prepared.timeout.0.min(left),
        })
    }

    /// Calls a tool; its result is looked at as an answer in JSON.
    fn mcp(&mut self, step: &Step, call: &McpStep, label: &str) -> Result<Seen, Stop> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let headers = call
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.render(&self.scope)?)))
            .collect::<Result<Vec<_>, RenderError>>()?;
        let wanted = mcp::Call {
            url: call.url.render(&self.scope)?,
            headers,
            tool: call.tool.render(&self.scope)?,
            arguments: call.arguments.as_ref().map(|a| self.scope.render_value(a)).transpose()?,
            timeout: call.timeout.0.min(left),
        };
        self.requests += 1;
        let what = format!("{} {}", path_of(&wanted.url), wanted.tool);
        Ok(match mcp::call(&self.client, &wanted) {
            Ok(response) => {
                let failures = evaluate(&step.expect, &response, &self.scope, &self.redactor, label)?;
                Seen { line: format!("{what} -> a result"), failures, response: Some(response) }
            }
            Err(why) => {
                let failure =
                    Failure { at: label.to_owned(), what: self.redactor.show(&why), ..Failure::default() };
                Seen { line: format!("{what} -> {why}"), failures: vec![failure], response: None }
            }
        })
    }

    fn sql(&self, step: &SqlStep, label: &str) -> Result<Seen, Stop> {
        let Some(ask) = self.context.sql else {
            return Err(Stop::Trouble(format!("{label}: no store can be asked here")));
        };
        let (sql, values) = prepare_sql(step, &self.scope)?;
        let failure = |what: String, expected: Option<String>, got: Option<String>| Failure {
            at: label.to_owned(),
            what,
            expected,
            got,
            reproduce: Some(self.redactor.redact(&format!("{sql} -- with {}", Value::from(values.clone())))),
        };
        let mut failures = Vec::new();
        let line = match ask(&step.store, &sql, &values) {
            Ok(value) => {
                if let Some(matcher) = &step.expect
                    && let Some((expected, got)) = matcher.check(&value, &self.scope, &self.redactor)?
                {
                    let what = format!("the query on {} gave another value", step.store);
                    failures.push(failure(what, Some(expected), Some(got)));
                }
                format!("{} -> {value}", step.store)
            }
            Err(why) => {
                let what = format!("the query on {} failed", step.store);
                failures.push(failure(what, None, Some(self.redactor.show(&why))));
                format!("{} -> error", step.store)
            }
        };
        Ok(Seen { line, failures, response: None })
    }

    fn sent(&self, wanted: &SentStep, label: &str) -> Result<Seen, Stop> {
        let trouble = |why: &str| Stop::Trouble(format!("{label}: what is sent is not known here: {why}"));
        let ask = self.context.sent.ok_or_else(|| trouble("only staging records it"))?;
        let records = ask().map_err(|why| trouble(&why))?;
        let count = wanted.count(&records, self.began_ms, &self.scope)?;
        let line = format!("{count} of {} that were sent", records.len());
        let failures = if wanted.is_right(count) {
            Vec::new()
        } else {
            let since: Vec<&Sent> = records.iter().filter(|r| r.at_ms >= self.began_ms).collect();
            let told = |s: &&Sent| format!("{} to {}", s.kind.as_str(), s.host);
            let mut seen: Vec<String> = since.iter().rev().take(5).map(told).collect();
            seen.dedup();
            vec![Failure {
                at: label.to_owned(),
                what: "something else was sent".to_owned(),
                expected: Some(self.redactor.show(&wanted.wanted(&self.scope)?)),
                got: Some(match (count, seen.is_empty()) {
                    (0, true) => "nothing since the workflow began".to_owned(),
                    (0, false) => self.redactor.show(&format!("others: {}", seen.join(", "))),
                    _ => format!("{count}"),
                }),
                reproduce: None,
            }]
        };
        Ok(Seen { line, failures, response: None })
    }

    fn check_time(&self, label: &str, workflow: &Workflow) -> Result<(), Stop> {
        if (self.context.cancel)() {
            return Err(Stop::Trouble(format!("cancelled before {label:?} was complete")));
        }
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(Stop::Failed(vec![Failure {
            at: label.to_owned(),
            what: "the workflow took too long".to_owned(),
            expected: Some(format!("at most {} in all", workflow.timeout)),
            ..Failure::default()
        }]))
    }

    /// Sleeps in slices, so that cancelling works, and never beyond the workflow's limit.
    fn pause(&self, pause: Duration) {
        let until = (Instant::now() + pause).min(self.deadline);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.context.cancel)() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }
}

/// The part of a URL after host and port.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

#[cfg(test)]
#[path = "workflow_tests.rs"]
mod tests;
