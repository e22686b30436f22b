//! Whether an answer is what a document promised. Documents lie: what the new version answers is held against the old one.

use super::document::Document;
use super::view::View;
use serde_json::Value;

/// Findings of one answer; more say nothing more.
const FINDINGS: usize = 20;
const DEPTH: usize = 32;

/// In what an answer differs from what the document says of it; empty if in nothing, or if it says nothing.
pub fn conform(document: &Document, operation: &str, status: u16, media: &str, body: &Value) -> Vec<String> {
    let all = document.operations();
    let Some((_, found)) =
        all.iter().find(|((_, m), o)| format!("{} {}", m.to_uppercase(), o.path) == operation)
    else {
        return Vec::new();
    };
    let answers = found.body.get("responses").and_then(Value::as_object);
    let (exact, class) = (status.to_string(), format!("{}XX", status / 100));
    let answer = answers.and_then(|a| a.get(&exact).or_else(|| a.get(&class)).or_else(|| a.get("default")));
    let Some(answer) = document.object(answer) else {
        return vec![format!("the status {status} is not one that it names")];
    };
    let media = media.split(';').next().unwrap_or_default().trim();
    let content = document.object(answer.get("content"));
    let schema = content.and_then(|c| {
        c.iter().find(|(m, _)| m.split(';').next() == Some(media)).and_then(|(_, v)| v.get("schema"))
    });
    let mut findings = Vec::new();
    if let Some(schema) = schema {
        check(document, schema, body, "$", &mut findings, 0);
    }
    findings
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(document: &Document, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>, depth: usize) {
    if depth > DEPTH || out.len() >= FINDINGS {
        return;
    }
    let Some(view) = View::of(document, schema, 0) else { return };
    let kind = kind(value);
    if kind == "null" {
        if !view.nullable && !view.types.is_empty() {
            out.push(format!("{at} is null"));
        }
        return;
    }
    // 1.0 is an integer, too (JSON Schema 2020-12, 6.1.1).
    let whole = kind == "number" && value.as_f64().is_some_and(|n| n.fract() == 0.0);
    if !(view.takes(kind) || whole && view.takes("integer")) {
        let expected: Vec<&str> = view.types.iter().map(String::as_str).collect();
        out.push(format!("{at} is {kind} and not {}", expected.join(" or ")));
        return;
    }
    if view.values.as_ref().is_some_and(|all| !all.contains(&value)) {
        out.push(format!("{at} is {value}, which is none of the values named"));
    }
    match value {
        Value::Object(body) => {
            for name in view.required.iter().filter(|n| !body.contains_key(*n)) {
                let hidden = view.properties.get(name).and_then(|s| document.resolve(s));
                if hidden.and_then(|s| s.get("writeOnly")) != Some(&Value::Bool(true)) {
                    out.push(format!("{at}.{name} is missing"));
                }
            }
            for (name, inner) in body {
                if let Some(schema) = view.properties.get(name).copied().or(view.rest) {
                    check(document, schema, inner, &format!("{at}.{name}"), out, depth + 1);
                } else if view.closed {
                    out.push(format!("{at}.{name} is not one of the properties named"));
                }
            }
        }
        Value::Array(all) => {
            for (index, inner) in all.iter().enumerate() {
                if let Some(schema) = view.items {
                    check(document, schema, inner, &format!("{at}[{index}]"), out, depth + 1);
                }
            }
        }
        _ => {}
    }
    for keyword in ["oneOf", "anyOf"] {
        let all = view.alternatives(keyword);
        let fits = |schema: &Value| {
            let mut found = Vec::new();
            check(document, schema, value, at, &mut found, depth + 1);
            found.is_empty()
        };
        if !all.is_empty() && !all.iter().any(|s| fits(s)) {
            out.push(format!("{at} fits none of its alternatives"));
        }
    }
}
