//! Comparing what two versions answered to the same request.
//!
//! The old version answers twice. What differs between its own two answers is noise (times, ids, order) and is not compared;
//! everything else the new version must answer as well: that is what finds silent corruption.

use super::{Change, Level};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Findings per request; more say nothing more.
const FINDINGS: usize = 20;
/// Headers that protect users; their loss is an error.
const SECURITY: [&str; 6] = [
    "strict-transport-security",
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "www-authenticate",
];

/// An answer, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The media type, without parameters.
    pub media: String,
    /// Names of headers, in lower case.
    pub headers: BTreeSet<String>,
    /// Names of the cookies that it sets.
    pub cookies: BTreeSet<String>,
    /// The content, where it is JSON.
    pub json: Option<Value>,
    /// A digest of the content, where it is something else.
    pub digest: String,
    /// Bytes of the content.
    pub bytes: usize,
}

/// What was found, and how much could be compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replayed {
    /// What differs.
    pub changes: Vec<Change>,
    /// Values that were compared.
    pub compared: usize,
    /// Values that were noise.
    pub noise: usize,
}

/// Compares the new version's answer with the old one's two.
pub fn compare(operation: &str, first: &Answer, second: &Answer, new: &Answer) -> Replayed {
    let mut found = Replayed::default();
    let mut say = |rule: &str, what: String| {
        if found.changes.len() < FINDINGS {
            found.changes.push(Change {
                level: Level::Error,
                rule: rule.to_owned(),
                operation: operation.to_owned(),
                what,
            });
        }
    };
    if first.status / 100 != second.status / 100 {
        // It cannot be said what is right.
        found.noise = 1;
        return found;
    }
    if first.status / 100 != new.status / 100 {
        say("answer-status", format!("the status was {} and is {}", first.status, new.status));
        return found;
    }
    if first.status == second.status && first.status != new.status {
        say("answer-status", format!("the status was {} and is {}", first.status, new.status));
    }
    if first.media == second.media && first.media != new.media {
        say("answer-media-type", format!("the content was {:?} and is {:?}", first.media, new.media));
    }
    let both = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.intersection(b).cloned().collect::<Vec<_>>();
    for name in both(&first.cookies, &second.cookies) {
        if !new.cookies.contains(&name) {
            say("answer-cookie-removed", format!("the cookie `{name}` is no longer set"));
        }
    }
    for name in both(&first.headers, &second.headers) {
        if SECURITY.contains(&name.as_str()) && !new.headers.contains(&name) {
            say("answer-header-removed", format!("the header `{name}` is no longer sent"));
        }
    }
    match (&first.json, &second.json, &new.json) {
        (Some(a), Some(b), Some(c)) => {
            let (old, again, now) = (flat(a), flat(b), flat(c));
            for (path, value) in &old {
                let Some(second) = again.get(path) else {
                    found.noise += 1;
                    continue;
                };
                let Some(third) = now.get(path) else {
                    say("answer-value-missing", format!("{path} is missing; it was {}", short(value)));
                    continue;
                };
                let (was, is) = (kind(value), kind(third));
                if was == kind(second) && was != is {
                    let rule = if is == "null" { "answer-value-null" } else { "answer-type" };
                    say(rule, format!("{path} was {was} and is {is}: {} and {}", short(value), short(third)));
                } else if value != second {
                    found.noise += 1;
                } else {
                    found.compared += 1;
                    if value != third {
                        say("answer-value", format!("{path} was {} and is {}", short(value), short(third)));
                    }
                }
            }
        }
        (Some(_), Some(_), None) => say("answer-media-type", "the content is no longer JSON".to_owned()),
        _ if first.digest == second.digest && first.json.is_none() => {
            found.compared += 1;
            if first.digest != new.digest {
                let what = format!("the content changed ({} bytes, and {} now)", first.bytes, new.bytes);
                say("answer-content", what);
            }
        }
        _ => found.noise += 1,
    }
    found
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Array(all) => format!("a list of {}", all.len()),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    };
    let cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

/// Every value with its path. A list stands for its length, so that one that grows is one difference.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut todo = vec![("$".to_owned(), value)];
    while let Some((path, value)) = todo.pop() {
        match value {
            Value::Object(body) => {
                todo.extend(body.iter().map(|(name, inner)| (format!("{path}.{name}"), inner)));
                all.insert(path, Value::Object(serde_json::Map::new()));
            }
            Value::Array(list) => {
                todo.extend(list.iter().enumerate().map(|(n, inner)| (format!("{path}[{n}]"), inner)));
                all.insert(path, Value::Array(vec![Value::Null; list.len()]));
            }
            plain => {
                all.insert(path, plain.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, json: Value) -> Answer {
        Answer {
            status,
            media: "application/json".into(),
            headers: BTreeSet::from(["content-type".into(), "x-frame-options".into()]),
            cookies: BTreeSet::from(["session".into()]),
            json: Some(json),
            digest: String::new(),
            bytes: 0,
        }
    }

    fn rules(first: &Answer, second: &Answer, new: &Answer) -> Vec<String> {
        compare("GET /x", first, second, new).changes.into_iter().map(|c| c.rule).collect()
    }

    #[test]
    fn what_differs_between_two_answers_of_the_old_one_is_noise() {
        let first = answer(200, json!({ "now": 1, "rows": [{ "id": 7, "title": "a" }] }));
        let second = answer(200, json!({ "now": 2, "rows": [{ "id": 7, "title": "a" }] }));
        let same = answer(200, json!({ "now": 9, "rows": [{ "id": 7, "title": "a", "new": true }] }));
        let found = compare("GET /x", &first, &second, &same);
        assert_eq!((found.changes.len(), found.noise), (0, 1), "{found:?}");
        assert!(found.compared > 2);
    }

    #[test]
    fn every_difference_that_matters_is_found() {
        let first = answer(200, json!({ "n": 1, "s": "a", "l": [1, 2], "o": { "x": 1 } }));
        let with = |json| answer(200, json);
        let cases = [
            (with(json!({ "n": 2, "s": "a", "l": [1, 2], "o": { "x": 1 } })), "answer-value"),
            (with(json!({ "n": "1", "s": "a", "l": [1, 2], "o": { "x": 1 } })), "answer-type"),
            (with(json!({ "n": null, "s": "a", "l": [1, 2], "o": { "x": 1 } })), "answer-value-null"),
            (with(json!({ "s": "a", "l": [1, 2], "o": { "x": 1 } })), "answer-value-missing"),
            (with(json!({ "n": 1, "s": "a", "l": [1], "o": { "x": 1 } })), "answer-value"),
            (with(json!({ "n": 1, "s": "a", "l": { "0": 1 }, "o": { "x": 1 } })), "answer-type"),
            (answer(500, json!({})), "answer-status"),
            (answer(201, first.json.clone().expect("json")), "answer-status"),
            (Answer { media: "text/html".into(), ..first.clone() }, "answer-media-type"),
            (Answer { json: None, ..first.clone() }, "answer-media-type"),
            (Answer { cookies: BTreeSet::new(), ..first.clone() }, "answer-cookie-removed"),
            (Answer { headers: BTreeSet::new(), ..first.clone() }, "answer-header-removed"),
        ];
        for (new, rule) in cases {
            assert!(rules(&first, &first, &new).contains(&rule.to_owned()), "{rule}: {new:?}");
        }
    }

    #[test]
    fn content_that_is_not_json_is_compared_as_a_whole() {
        let page = |digest: &str| Answer { json: None, digest: digest.into(), ..answer(200, Value::Null) };
        assert_eq!(rules(&page("a"), &page("a"), &page("b")), ["answer-content"]);
        assert!(rules(&page("a"), &page("b"), &page("c")).is_empty());
    }
}
