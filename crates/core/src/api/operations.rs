//! Operations of two documents, compared: paths, parameters, bodies, answers, security.

use super::document::{Document, METHODS, Operation, path_names};
use super::schema::{Comparison, Direction, Subject};
use super::{Change, Level};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The rules, and what each means. `*` stands for `parameter`, `body` and `property`; names are those of oasdiff where it has
/// the rule.
pub const RULES: &[(&str, Level, &str)] = &[
    ("api-path-removed", Level::Error, "a path is gone"),
    ("api-removed", Level::Error, "a method of a path is gone"),
    ("api-security-added", Level::Error, "an operation asks for a login that it did not ask for"),
    ("api-security-scope-added", Level::Error, "a login needs a right that it did not need"),
    ("new-required-request-parameter", Level::Error, "a parameter is new and required"),
    ("new-request-path-parameter", Level::Error, "a path has another parameter"),
    ("request-parameter-became-required", Level::Error, "a parameter is required now"),
    ("request-parameter-removed", Level::Warning, "a parameter is no longer known"),
    ("request-parameter-default-value-changed", Level::Error, "another value is taken where none is sent"),
    ("request-parameter-default-value-added", Level::Error, "a value is taken where none was"),
    ("request-parameter-default-value-removed", Level::Error, "no value is taken where one was"),
    ("request-parameter-serialization-changed", Level::Error, "lists and objects are written another way"),
    ("request-body-added-required", Level::Error, "a body is required where there was none"),
    ("request-body-became-required", Level::Error, "the body is required now"),
    ("request-body-removed", Level::Warning, "the body is no longer known"),
    ("request-body-media-type-removed", Level::Error, "a media type is no longer taken"),
    ("new-required-request-property", Level::Error, "a property is new and required"),
    (
        "new-required-request-property-with-default",
        Level::Warning,
        "a property is new and required, and has a default",
    ),
    ("request-property-became-required", Level::Error, "a property is required now"),
    ("request-property-removed", Level::Warning, "a property is no longer known"),
    ("request-*-type-changed", Level::Error, "another type or format is asked for"),
    ("request-*-became-not-nullable", Level::Error, "null is no longer taken"),
    ("request-*-became-enum", Level::Error, "only some values are taken"),
    ("request-*-enum-value-removed", Level::Error, "a value is no longer taken"),
    ("request-*-max-decreased", Level::Error, "less is taken at most"),
    ("request-*-max-set", Level::Error, "there is a most now"),
    ("request-*-min-increased", Level::Error, "more is asked for at least"),
    ("request-*-min-set", Level::Error, "there is a least now"),
    ("request-*-exclusive-max-decreased", Level::Error, "less is taken"),
    ("request-*-exclusive-max-set", Level::Error, "there is a limit now"),
    ("request-*-exclusive-min-increased", Level::Error, "more is asked for"),
    ("request-*-exclusive-min-set", Level::Error, "there is a limit now"),
    ("request-*-max-length-decreased", Level::Error, "texts have to be shorter"),
    ("request-*-max-length-set", Level::Error, "texts have a longest length now"),
    ("request-*-min-length-increased", Level::Error, "texts have to be longer"),
    ("request-*-min-length-set", Level::Error, "texts have a shortest length now"),
    ("request-*-max-items-decreased", Level::Error, "lists have to be shorter"),
    ("request-*-max-items-set", Level::Error, "lists have a longest length now"),
    ("request-*-min-items-increased", Level::Error, "lists have to be longer"),
    ("request-*-min-items-set", Level::Error, "lists have a shortest length now"),
    ("request-*-pattern-added", Level::Error, "texts have to match a pattern"),
    ("request-*-pattern-changed", Level::Warning, "texts have to match another pattern"),
    ("request-*-default-value-changed", Level::Error, "another value is taken where none is sent"),
    ("request-*-default-value-removed", Level::Error, "no value is taken where one was"),
    ("request-*-one-of-removed", Level::Error, "an alternative is no longer taken"),
    ("request-*-any-of-removed", Level::Error, "an alternative is no longer taken"),
    ("request-*-additional-properties-forbidden", Level::Error, "only named properties are taken"),
    ("response-success-status-removed", Level::Error, "a status of success is no longer answered"),
    ("response-media-type-removed", Level::Error, "a media type is no longer answered"),
    ("required-response-header-removed", Level::Error, "a header is no longer sent"),
    ("response-header-became-optional", Level::Error, "a header may be missing"),
    ("optional-response-header-removed", Level::Warning, "a header that may be missing is gone"),
    ("response-header-type-changed", Level::Error, "a header has another type"),
    ("response-required-property-removed", Level::Error, "a property that was always there is gone"),
    (
        "response-optional-property-removed",
        Level::Warning,
        "a property that may be missing is gone; an error where it was seen in real answers",
    ),
    ("response-property-became-optional", Level::Error, "a property may be missing"),
    ("response-required-property-became-write-only", Level::Error, "a property is no longer answered"),
    ("response-*-became-nullable", Level::Error, "null may be answered"),
    ("response-*-type-changed", Level::Error, "another type or format is answered"),
    ("response-*-enum-value-added", Level::Warning, "a value that there was not may be answered"),
    ("response-*-max-increased", Level::Error, "more may be answered than before"),
    ("response-*-max-unset", Level::Error, "there is no most any more"),
    ("response-*-min-decreased", Level::Error, "less may be answered than before"),
    ("response-*-min-unset", Level::Error, "there is no least any more"),
    ("response-*-exclusive-max-increased", Level::Error, "more may be answered than before"),
    ("response-*-exclusive-min-decreased", Level::Error, "less may be answered than before"),
    ("response-*-max-length-increased", Level::Error, "longer texts may be answered"),
    ("response-*-max-length-unset", Level::Error, "texts of any length may be answered"),
    ("response-*-min-length-decreased", Level::Error, "shorter texts may be answered"),
    ("response-*-max-items-increased", Level::Error, "longer lists may be answered"),
    ("response-*-max-items-unset", Level::Error, "lists of any length may be answered"),
    ("response-*-min-items-decreased", Level::Error, "shorter lists may be answered"),
    ("response-*-min-items-unset", Level::Error, "empty lists may be answered"),
    ("response-*-one-of-added", Level::Error, "an alternative that there was not may be answered"),
    ("response-*-any-of-added", Level::Error, "an alternative that there was not may be answered"),
];

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
    all.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.cmp(b)));
    all.dedup();
    all
}

fn one<'a>(at: &mut Comparison<'a>, old: &Operation<'a>, new: &Operation<'a>) {
    security(at, old, new);
    parameters(at, old, new);
    body(at, old, new);
    answers(at, old, new);
}

fn security(at: &mut Comparison<'_>, old: &Operation<'_>, new: &Operation<'_>) {
    let (before, after) = (at.old.security(old.body), at.new.security(new.body));
    // No alternative, or an empty one, means that nobody has to log in.
    let open = |list: &[std::collections::BTreeMap<String, Vec<String>>]| {
        list.is_empty() || list.iter().any(std::collections::BTreeMap::is_empty)
    };
    if open(&after) {
        return;
    }
    if open(&before) {
        let names: BTreeSet<&str> = after.iter().flat_map(|a| a.keys().map(String::as_str)).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let what = format!("it asks for {} now", names.join(" or "));
        return at.say(Level::Error, "api-security-added", what);
    }
    // Each way in that there was must still be one.
    for way in &before {
        let names: BTreeSet<&String> = way.keys().collect();
        let same: Vec<_> =
            after.iter().filter(|a| a.keys().collect::<BTreeSet<_>>().is_subset(&names)).collect();
        let shown: Vec<&str> = way.keys().map(String::as_str).collect();
        if same.is_empty() {
            let what = format!("{} no longer suffices", shown.join(" with "));
            at.say(Level::Error, "api-security-added", what);
        } else if !same
            .iter()
            .any(|a| a.iter().all(|(name, scopes)| scopes.iter().all(|s| way[name].contains(s))))
        {
            let what = format!("{} needs more rights now", shown.join(" with "));
            at.say(Level::Error, "api-security-scope-added", what);
        }
    }
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
            Some(new) => {
                if let (Some(a), Some(b)) = (old.get("schema"), new.get("schema")) {
                    at.schemas(a, b, Direction::Request, &Subject::Body);
                }
            }
        }
    }
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
                Some(new) => {
                    if let (Some(a), Some(b)) = (old.get("schema"), new.get("schema")) {
                        at.schemas(a, b, Direction::Response, &Subject::Body);
                    }
                }
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
