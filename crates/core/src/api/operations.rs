//! Operations of two documents, compared: paths, parameters, bodies, answers, security.

use super::document::{Document, METHODS, Operation, path_names};
use super::schema::{Comparison, Direction, Subject};
use super::{Change, Level};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What changed for clients from one document to another, the worst first.
pub fn compare(old: &Document, new: &Document) -> Vec<Change> {
    let (before, after) = (old.operations(), new.operations());
    let paths: BTreeSet<&String> = after.keys().map(|(path, _)| path).collect();
    let mut all = Vec::new();
    for ((path, method), operation) in &before {
        let name = format!("{} {}", method.to_uppercase(), operation.path);
        let mut comparison = Comparison::new(old, new, name);
        match after.get(&(path.clone(), *method)) {
            Some(now) => one(&mut comparison, operation, now),
            None if paths.contains(path) => {
                comparison.say(Level::Error, "api-removed", "it is gone");
            }
            None => comparison.say(Level::Error, "api-path-removed", "its path is gone"),
        }
        all.append(&mut comparison.changes);
    }
    // One more parameter makes another path: named, since that is what clients see.
    for ((path, method), operation) in after.iter().filter(|(k, _)| !before.contains_key(*k)) {
        let shorter = path.trim_end_matches("{}").trim_end_matches('/');
        if METHODS.contains(method)
            && path.ends_with("{}")
            && before.contains_key(&(shorter.to_owned(), *method))
            && !after.contains_key(&(shorter.to_owned(), *method))
        {
            all.push(Change {
                level: Level::Error,
                rule: "new-request-path-parameter".to_owned(),
                operation: format!("{} {}", method.to_uppercase(), operation.path),
                what: "its path has one more parameter".to_owned(),
            });
        }
    }
    for name in old.webhooks().filter(|name| !new.webhooks().any(|n| n == *name)) {
        all.push(Change {
            level: Level::Error,
            rule: "webhook-removed".to_owned(),
            operation: format!("webhook {name}"),
            what: "clients are no longer called".to_owned(),
        });
    }
    all.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.cmp(b)));
    all.dedup();
    all
}

fn one<'a>(at: &mut Comparison<'a>, old: &Operation<'a>, new: &Operation<'a>) {
    super::security::compare(at, old, new);
    parameters(at, old, new);
    body(at, old, new);
    answers(at, old, new);
}

fn required(parameter: &Map<String, Value>) -> bool {
    parameter.get("required") == Some(&Value::Bool(true))
}

/// The schema of a parameter or header: its own, or that of its one media type.
fn schema_of<'a>(document: &'a Document, parameter: &'a Map<String, Value>) -> Option<&'a Value> {
    parameter.get("schema").or_else(|| {
        let content = document.object(parameter.get("content"))?;
        content.values().next()?.get("schema")
    })
}

fn parameters<'a>(at: &mut Comparison<'a>, old: &Operation<'a>, new: &Operation<'a>) {
    let (old_names, new_names) = (path_names(old.path), path_names(new.path));
    for ((place, name), before) in &old.parameters {
        // Clients do not see the names of what stands in the path.
        let now = if place == "path" {
            let index = old_names.iter().position(|n| n == name);
            index.and_then(|i| new_names.get(i)).unwrap_or(name)
        } else {
            name
        };
        let subject = Subject::Parameter(place.clone(), name.clone());
        let Some(after) = new.parameters.get(&(place.clone(), now.clone())) else {
            at.say(
                Level::Warning,
                "request-parameter-removed",
                format!("{} is no longer known", subject.words()),
            );
            continue;
        };
        if !required(before) && required(after) {
            let what = format!("{} is required now", subject.words());
            at.say(Level::Error, "request-parameter-became-required", what);
        }
        for key in ["style", "explode"] {
            if before.get(key) != after.get(key) && before.get(key).is_some() {
                let what = format!("`{key}` of {} changed", subject.words());
                at.say(Level::Error, "request-parameter-serialization-changed", what);
            }
        }
        let (Some(a), Some(b)) = (schema_of(at.old, before), schema_of(at.new, after)) else { continue };
        at.schemas(a, b, Direction::Request, &subject);
        let default = |document: &Document, schema: &Value| {
            document.resolve(schema).and_then(|s| s.get("default").cloned())
        };
        let (a, b) = (default(at.old, a), default(at.new, b));
        let words = subject.words();
        match (a, b) {
            (Some(a), Some(b)) if a != b => {
                let what = format!("without {words}, {b} is taken instead of {a}");
                at.say(Level::Error, "request-parameter-default-value-changed", what);
            }
            (None, Some(b)) if !required(before) => {
                let what = format!("without {words}, {b} is taken now");
                at.say(Level::Error, "request-parameter-default-value-added", what);
            }
            (Some(a), None) => {
                let what = format!("without {words}, {a} is no longer taken");
                at.say(Level::Error, "request-parameter-default-value-removed", what);
            }
            _ => {}
        }
    }
    for ((place, name), after) in &new.parameters {
        let known = old.parameters.contains_key(&(place.clone(), name.clone()));
        if !known && place != "path" && required(after) {
            let what = format!("the {place} parameter `{name}` is new and required");
            at.say(Level::Error, "new-required-request-parameter", what);
        }
    }
}

fn body<'a>(at: &mut Comparison<'a>, old: &Operation<'a>, new: &Operation<'a>) {
    let before = at.old.object(old.body.get("requestBody"));
    let after = at.new.object(new.body.get("requestBody"));
    let (before, after) = match (before, after) {
        (None, None) => return,
        (None, Some(after)) => {
            if required(after) {
                at.say(Level::Error, "request-body-added-required", "a body is required now");
            }
            return;
        }
        (Some(_), None) => {
            return at.say(Level::Warning, "request-body-removed", "the body is no longer known");
        }
        (Some(before), Some(after)) => (before, after),
    };
    if !required(before) && required(after) {
        at.say(Level::Error, "request-body-became-required", "the body is required now");
    }
    let (types, now) = (at.old.object(before.get("content")), at.new.object(after.get("content")));
    for (media, old) in types.into_iter().flatten() {
        match now.and_then(|n| found(n, media)) {
            None => {
                at.say(
                    Level::Error,
                    "request-body-media-type-removed",
                    format!("{media} is no longer taken"),
                );
            }
            Some(new) => match (old.get("schema"), new.get("schema")) {
                (Some(a), Some(b)) => at.schemas(a, b, Direction::Request, &Subject::Body),
                (None, Some(b)) if restricts(at.new, b) => {
                    let what = format!("{media} could be anything, and has a schema now");
                    at.say(Level::Error, "request-body-media-type-schema-added", what);
                }
                _ => {}
            },
        }
    }
}

/// Whether a schema says anything at all.
fn restricts(document: &Document, schema: &Value) -> bool {
    document.resolve(schema).and_then(Value::as_object).is_some_and(|body| !body.is_empty())
}

/// The media type, without regard to case and parameters; wildcards take what they cover.
fn found<'a>(content: &'a Map<String, Value>, media: &str) -> Option<&'a Value> {
    let plain = |m: &str| m.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let wanted = plain(media);
    let kind = wanted.split('/').next().unwrap_or_default();
    content.iter().find(|(m, _)| plain(m) == wanted).map(|(_, v)| v).or_else(|| {
        let covers = |m: &str| m == "*/*" || m.strip_suffix("/*") == Some(kind);
        content.iter().find(|(m, _)| covers(&plain(m))).map(|(_, v)| v)
    })
}

fn answers<'a>(at: &mut Comparison<'a>, old: &Operation<'a>, new: &Operation<'a>) {
    let before = old.body.get("responses").and_then(Value::as_object);
    let after = new.body.get("responses").and_then(Value::as_object);
    for (status, answer) in before.into_iter().flatten() {
        let class = format!("{}XX", status.get(..1).unwrap_or_default());
        let now = after.and_then(|a| a.get(status).or_else(|| a.get(&class)).or_else(|| a.get("default")));
        let Some(now) = now else {
            if status.starts_with('2') {
                at.say(
                    Level::Error,
                    "response-success-status-removed",
                    format!("{status} is no longer answered"),
                );
            }
            continue;
        };
        let (Some(answer), Some(now)) = (at.old.object(Some(answer)), at.new.object(Some(now))) else {
            continue;
        };
        at.context = format!(" (status {status})");
        headers(at, answer, now);
        let (types, new_types) = (at.old.object(answer.get("content")), at.new.object(now.get("content")));
        for (media, old) in types.into_iter().flatten() {
            match new_types.and_then(|n| found(n, media)) {
                None => {
                    let what = format!("{media} is no longer answered");
                    at.say(Level::Error, "response-media-type-removed", what);
                }
                Some(new) => match (old.get("schema"), new.get("schema")) {
                    (Some(a), Some(b)) => at.schemas(a, b, Direction::Response, &Subject::Body),
                    (Some(a), None) if restricts(at.old, a) => {
                        let what = format!("{media} had a schema, and may be anything now");
                        at.say(Level::Error, "response-body-media-type-schema-removed", what);
                    }
                    _ => {}
                },
            }
        }
        at.context.clear();
    }
}

fn headers<'a>(at: &mut Comparison<'a>, old: &'a Map<String, Value>, new: &'a Map<String, Value>) {
    let list = |m: &'a Map<String, Value>| m.get("headers").and_then(Value::as_object);
    for (name, before) in list(old).into_iter().flatten() {
        let Some(before) = at.old.object(Some(before)) else { continue };
        let now = list(new).into_iter().flatten().find(|(n, _)| n.eq_ignore_ascii_case(name));
        let after = now.and_then(|(_, v)| at.new.object(Some(v)));
        let subject = Subject::Header(name.clone());
        match after {
            None if required(before) => {
                let what = format!("{} is no longer sent", subject.words());
                at.say(Level::Error, "required-response-header-removed", what);
            }
            None => {
                let what = format!("{} is no longer sent", subject.words());
                at.say(Level::Warning, "optional-response-header-removed", what);
            }
            Some(after) => {
                if required(before) && !required(after) {
                    let what = format!("{} may be missing now", subject.words());
                    at.say(Level::Error, "response-header-became-optional", what);
                }
                if let (Some(a), Some(b)) = (schema_of(at.old, before), schema_of(at.new, after)) {
                    at.schemas(a, b, Direction::Response, &subject);
                }
            }
        }
    }
}
