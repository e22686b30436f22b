//! The API of a service, old and new side by side: documents by rules, answers by replay.

use super::http::{HttpClient, HttpRequest, Limits, Redirects};
use crate::exec::elapsed_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use switchback_core::api::replay::{self, Answer};
use switchback_core::api::{Change, Document, Level, compare, conform};
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::config::ApiCheck;
use switchback_core::workflow::{Endpoint, Redactor, Response, shorten};

/// Limit of one request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Requests that are taken from a document.
const FROM_DOCUMENT: usize = 200;

/// Where the two versions are, and what may not be shown.
pub struct Sides<'a> {
    /// The old version.
    pub old: &'a Endpoint,
    /// The new one.
    pub new: &'a Endpoint,
    /// Headers of every request, placeholders replaced.
    pub headers: Vec<(String, String)>,
    /// Removes secrets.
    pub redactor: Redactor,
    /// The name of the new version's environment.
    pub environment: String,
    /// Requests that workflows made, as `METHOD /path`: they count as exercised.
    pub exercised: BTreeSet<String>,
    /// Asked between requests; `true` ends the check.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// `http://host:port` of a port of an endpoint.
pub fn base(endpoint: &Endpoint, port: Option<&str>) -> String {
    let number = port.and_then(|p| endpoint.ports.get(p)).copied().unwrap_or(endpoint.default_port);
    Endpoint { default_port: number, ..endpoint.clone() }.url()
}

struct Side {
    client: HttpClient,
    base: String,
}

impl Side {
    fn new(endpoint: &Endpoint, port: Option<&str>) -> Self {
        let base = base(endpoint, port);
        let inside = base.trim_start_matches("http://").to_owned();
        Self { client: HttpClient::new(Limits::default(), [inside]), base }
    }

    fn get(&self, path: &str, headers: &[(String, String)]) -> Result<Response, String> {
        let request = HttpRequest {
            method: "GET".to_owned(),
            url: format!("{}{path}", self.base),
            headers: headers.to_vec(),
            body: None,
            redirects: Redirects::Return,
            timeout: TIMEOUT,
        };
        self.client.send(&request).map_err(|e| e.to_string())
    }
}

/// What a check saw.
#[derive(Default)]
struct Seen {
    failures: Vec<Failure>,
    steps: Vec<CheckStep>,
    measured: BTreeMap<String, String>,
    accepted: usize,
}

/// Compares a service's API in the old and the new version.
pub fn run(check: &ApiCheck, sides: &Sides<'_>) -> CheckResult {
    let began = Instant::now();
    let mut seen = Seen::default();
    let verdict = match compared(check, sides, &mut seen) {
        Ok(()) => Verdict::from_failures(std::mem::take(&mut seen.failures)),
        Err(why) => Verdict::Inconclusive { why: sides.redactor.redact(&why) },
    };
    if seen.accepted > 0 {
        seen.measured.insert("changes that are accepted".to_owned(), seen.accepted.to_string());
    }
    CheckResult {
        looks: Vec::new(),
        id: format!("api/{}", check.service),
        kind: CheckKind::Api,
        environment: sides.environment.clone(),
        verdict,
        took_ms: elapsed_ms(began),
        measured: seen.measured,
        steps: seen.steps,
        artefacts: Vec::new(),
    }
}

fn compared(check: &ApiCheck, sides: &Sides<'_>, seen: &mut Seen) -> Result<(), String> {
    let port = check.port.as_deref();
    let (old, new) = (Side::new(sides.old, port), Side::new(sides.new, port));
    let documents = match &check.document {
        Some(path) => documents(path, &old, &new, sides, seen)?,
        None => None,
    };
    let mut paths: Vec<String> = check.requests.clone();
    if let Some((document, _)) = &documents {
        let known: BTreeSet<&str> = check.requests.iter().map(|r| r.split('?').next().unwrap_or(r)).collect();
        let more = document.plain_gets().into_iter().filter(|p| !known.contains(p.as_str()));
        paths.extend(more.filter(|p| Some(p) != check.document.as_ref()).take(FROM_DOCUMENT));
    }
    let mut answered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut exercised = sides.exercised.clone();
    for path in &paths {
        if (sides.cancelled)() {
            return Err("interrupted".to_owned());
        }
        exercised.insert(format!("GET {path}"));
        let document = documents.as_ref().map(|(old, _)| old);
        one(check, sides, (&old, &new), path, document, &mut answered, seen)?;
    }
    if let Some((a, b)) = &documents {
        let began = Instant::now();
        let changes: Vec<Change> =
            compare(a, b).into_iter().map(|change| hardened(change, &answered)).collect();
        let took_ms = elapsed_ms(began);
        for change in changes {
            found(check, sides, change, None, took_ms, seen);
        }
        let declared = a.declared();
        let reached: BTreeSet<String> = exercised
            .iter()
            .filter_map(|e| e.split_once(' ').and_then(|(method, path)| a.operation_of(method, path)))
            .collect();
        seen.measured.insert("operations declared".to_owned(), declared.len().to_string());
        seen.measured.insert("of these exercised".to_owned(), reached.len().to_string());
    }
    seen.measured.insert("requests compared".to_owned(), paths.len().to_string());
    Ok(())
}

/// Both documents. That the new version has none is a change like any other.
fn documents(
    path: &str,
    old: &Side,
    new: &Side,
    sides: &Sides<'_>,
    seen: &mut Seen,
) -> Result<Option<(Document, Document)>, String> {
    let fetch = |side: &Side| -> Result<Document, String> {
        let response = side.get(path, &sides.headers)?;
        if response.status != 200 {
            return Err(format!("GET {path} answered {}", response.status));
        }
        Document::parse(&response.text()).map_err(|e| format!("{path}: {e}"))
    };
    let before = fetch(old).map_err(|e| format!("the old version's document: {e}"))?;
    match fetch(new) {
        Ok(after) => Ok(Some((before, after))),
        Err(e) => {
            seen.failures.push(Failure {
                at: path.to_owned(),
                what: format!("the new version's document cannot be read: {e}"),
                expected: Some("an OpenAPI document, as the old version has".to_owned()),
                got: Some(shorten(&e)),
                reproduce: None,
            });
            Ok(None)
        }
    }
}

fn answer(response: &Response) -> Answer {
    let json = response.json().ok().cloned();
    let media = response.header("content-type").next().unwrap_or_default();
    let names = response.headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
    let cookies = response.header("set-cookie").filter_map(|c| c.split('=').next());
    Answer {
        status: response.status,
        media: media.split(';').next().unwrap_or_default().trim().to_owned(),
        headers: names,
        cookies: cookies.map(str::to_owned).collect(),
        json,
        digest: blake3::hash(&response.body).to_hex().to_string(),
        bytes: response.body.len(),
    }
}

/// Replays one request: the old version twice, the new one once.
fn one(
    check: &ApiCheck,
    sides: &Sides<'_>,
    (old, new): (&Side, &Side),
    path: &str,
    document: Option<&Document>,
    answered: &mut BTreeMap<String, BTreeSet<String>>,
    seen: &mut Seen,
) -> Result<(), String> {
    let began = Instant::now();
    let name = format!("GET {path}");
    let operation = document.and_then(|d| d.operation_of("get", path));
    let shown = operation.clone().unwrap_or_else(|| name.clone());
    let ask = |side: &Side| side.get(path, &sides.headers);
    let first = ask(old).map_err(|e| format!("the old version: GET {path}: {e}"))?;
    let second = ask(old).map_err(|e| format!("the old version: GET {path}: {e}"))?;
    let before = seen.failures.len();
    let reproduce = Some(format!("curl -i '{}{path}'", new.base));
    match ask(new) {
        Err(e) => {
            let change = Change {
                level: Level::Error,
                rule: "answer-status".to_owned(),
                operation: shown,
                what: format!("the new version gives no answer: {e}"),
            };
            found(check, sides, change, reproduce, 0, seen);
        }
        Ok(third) => {
            let (a, b, c) = (answer(&first), answer(&second), answer(&third));
            if let Some(operation) = &operation
                && let Some(json) = &a.json
            {
                names_of(json, answered.entry(operation.clone()).or_default());
            }
            let replayed = replay::compare(&shown, &a, &b, &c);
            for change in replayed.changes {
                found(check, sides, change, reproduce.clone(), elapsed_ms(began), seen);
            }
            // Only what the old version itself keeps to can be asked of the new one.
            if let (Some(document), Some(operation)) = (document, &operation)
                && let (Some(was), Some(is)) = (&a.json, &c.json)
                && conform(document, operation, a.status, &a.media, was).is_empty()
            {
                for what in conform(document, operation, c.status, &c.media, is) {
                    let change = Change {
                        level: Level::Error,
                        rule: "answer-against-document".to_owned(),
                        operation: operation.clone(),
                        what: format!("the answer is not what the old document promises: {what}"),
                    };
                    found(check, sides, change, reproduce.clone(), elapsed_ms(began), seen);
                }
            }
            let values = format!("{} values compared, {} are noise", replayed.compared, replayed.noise);
            seen.steps.push(CheckStep {
                name: sides.redactor.show(&name),
                ok: seen.failures.len() == before,
                took_ms: elapsed_ms(began),
                seen: format!("{} and {}: {values}", first.status, third.status),
            });
        }
    }
    Ok(())
}

/// The names of all properties of an answer.
fn names_of(value: &serde_json::Value, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(body) => {
            for (name, inner) in body {
                out.insert(name.clone());
                names_of(inner, out);
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|inner| names_of(inner, out)),
        _ => {}
    }
}

/// A property that real answers have is missed, even if the document calls it optional.
fn hardened(mut change: Change, answered: &BTreeMap<String, BTreeSet<String>>) -> Change {
    if change.rule == "response-optional-property-removed"
        && let Some(names) = answered.get(&change.operation)
    {
        let path = change.what.split('`').nth(1).unwrap_or_default();
        if names.contains(path.rsplit('/').next().unwrap_or(path)) {
            change.level = Level::Error;
            change.what.push_str("; real answers had it");
        }
    }
    change
}

fn found(
    check: &ApiCheck,
    sides: &Sides<'_>,
    change: Change,
    reproduce: Option<String>,
    took_ms: u64,
    seen: &mut Seen,
) {
    if change.accepted(&check.accept) {
        seen.accepted += 1;
        return;
    }
    let what = sides.redactor.show(&change.what);
    match change.level {
        Level::Error => seen.failures.push(Failure {
            at: change.operation,
            what: format!("{what} [{}]", change.rule),
            expected: None,
            got: None,
            reproduce,
        }),
        Level::Warning => seen.steps.push(CheckStep {
            name: format!("warning: {} [{}]", change.operation, change.rule),
            ok: true,
            took_ms,
            seen: what,
        }),
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
