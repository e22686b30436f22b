//! Steps of a workflow from exchanges: what is sent, what must come back, what is taken from an answer, and what is secret.

use super::{Exchange, Recorded};
use crate::ids::ServiceName;
use crate::workflow::is_secret_name;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Headers that belong to the program that sent them, not to what was done.
const OWN: [&str; 22] = [
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "dnt",
    "expect",
    "host",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "origin",
    "pragma",
    "priority",
    "referer",
    "te",
    "transfer-encoding",
    "upgrade-insecure-requests",
    "user-agent",
    "x-requested-with",
];
/// Expectations on the JSON of one answer.
const EXPECTED: usize = 8;
/// Values of one answer that a later request may use; how deep they lie.
const VALUES: usize = 500;
const DEPTH: usize = 6;
/// The longest content that is written into a workflow.
const BODY: usize = 64 << 10;
/// Text that is shorter is the same by chance.
const SHORTEST: usize = 6;
/// Secrets that are shorter cannot be told from other text; they are replaced where their name says what they are.
const SHORTEST_SECRET: usize = 8;

/// A value that an answer brought.
struct Produced {
    text: String,
    number: bool,
    step: usize,
    path: String,
    key: String,
}

struct Builder<'a> {
    service: &'a ServiceName,
    produced: Vec<Produced>,
    /// What was sent by the user: not made up by the service, even if it comes back.
    sent: BTreeSet<String>,
    /// Per step: name and JSONPath.
    captures: BTreeMap<usize, BTreeMap<String, String>>,
    /// Secrets of the recording, and the variable for each.
    secrets: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    notes: Vec<String>,
}

pub(super) fn build(name: &str, service: &ServiceName, all: &[&Exchange], notes: Vec<String>) -> Recorded {
    let mut builder = Builder {
        service,
        produced: Vec::new(),
        sent: BTreeSet::new(),
        captures: BTreeMap::new(),
        secrets: BTreeMap::new(),
        variables: BTreeMap::new(),
        notes,
    };
    if all.first().is_some_and(|e| e.header("cookie").is_some()) {
        let note =
            "the first request has a cookie already: record the login as well, for cookies are not kept";
        builder.notes.push(note.to_owned());
    }
    let mut steps: Vec<Map<String, Value>> = Vec::new();
    for (number, exchange) in all.iter().enumerate() {
        steps.push(builder.step(exchange));
        builder.learn(number, exchange);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (number, step) in steps.iter_mut().enumerate() {
        let plain = step.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let times = names.entry(plain.clone()).or_default();
        *times += 1;
        if *times > 1 {
            step.insert("name".to_owned(), json!(format!("{plain} ({times})")));
        }
        if let Some(taken) = builder.captures.get(&number) {
            let captures: Map<String, Value> =
                taken.iter().map(|(name, path)| (name.clone(), json!({ "json": path }))).collect();
            step.insert("capture".to_owned(), Value::Object(captures));
        }
    }
    // Whatever found its way in otherwise: in a path, in a text, in an answer.
    for step in &mut steps {
        for (key, value) in step.iter_mut() {
            builder.hide(value, key == "name");
        }
    }
    let file = json!({ "name": name, "steps": steps });
    let text = serde_yaml_ng::to_string(&file).unwrap_or_default();
    Recorded { text, steps: steps.len(), variables: builder.variables, notes: builder.notes }
}

impl Builder<'_> {
    fn step(&mut self, exchange: &Exchange) -> Map<String, Value> {
        let mut request = Map::new();
        if exchange.method != "GET" {
            request.insert("method".to_owned(), json!(exchange.method));
        }
        let path = self.path(exchange.path());
        let mut url = format!("{{{{{}.url}}}}{path}", self.service);
        if let Some((_, query)) = exchange.target.split_once('?') {
            url.push('?');
            url.push_str(
                &self.pairs(query).into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&"),
            );
        }
        request.insert("url".to_owned(), json!(url));
        let headers = self.headers(exchange);
        if !headers.is_empty() {
            request.insert("headers".to_owned(), Value::Object(headers));
        }
        let sent = self.body(exchange, &mut request);
        let mut step = Map::new();
        // What the service made up (an id, a token) is not in the name either: `/notes/:id`.
        let shown = path.replace("{{", ":").replace("}}", "");
        step.insert("name".to_owned(), json!(format!("{} {shown}", exchange.method)));
        step.insert("request".to_owned(), Value::Object(request));
        step.insert("expect".to_owned(), self.expect(exchange, sent.as_ref()));
        step
    }

    /// What stands for a value in a request: what an earlier answer brought, a secret's variable, or the value.
    fn value(&mut self, key: &str, text: &str, number: bool) -> String {
        if let Some(name) = self.capture(text, number) {
            return format!("{{{{{name}}}}}");
        }
        if is_secret_name(key) && !text.is_empty() {
            return format!("{{{{env.{}}}}}", self.secret(key, text));
        }
        self.sent.insert(text.to_owned());
        text.replace("{{", "\\{{")
    }

    fn capture(&mut self, text: &str, number: bool) -> Option<String> {
        if self.sent.contains(text) {
            return None;
        }
        let ids = |key: &str| {
            let lower = key.to_ascii_lowercase();
            lower == "id"
                || lower.ends_with("_id")
                || lower.ends_with("uuid")
                || key.ends_with("Id")
                || key.ends_with("ID")
        };
        let fits = |p: &&Produced| {
            p.text == text && (ids(&p.key) || (!p.number && !number && text.len() >= SHORTEST))
        };
        let found = self.produced.iter().rev().find(fits)?;
        let (step, path, key) = (found.step, found.path.clone(), found.key.clone());
        let taken = self.captures.entry(step).or_default();
        if let Some((name, _)) = taken.iter().find(|(_, p)| **p == path) {
            return Some(name.clone());
        }
        let plain: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .collect();
        let plain =
            if plain.starts_with(|c: char| c.is_ascii_alphabetic()) { plain } else { format!("v_{plain}") };
        let used: BTreeSet<String> = self.captures.values().flat_map(|t| t.keys().cloned()).collect();
        let name = (1..)
            .map(|n| if n == 1 { plain.clone() } else { format!("{plain}_{n}") })
            .find(|n| !used.contains(n))?;
        self.captures.entry(step).or_default().insert(name.clone(), path);
        Some(name)
    }

    fn secret(&mut self, key: &str, text: &str) -> String {
        if let Some(name) = self.secrets.get(text) {
            return name.clone();
        }
        let word = |t: &str| -> String {
            t.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
        };
        let plain = format!("{}_{}", word(self.service.as_str()), word(key));
        let name = (1..)
            .map(|n| if n == 1 { plain.clone() } else { format!("{plain}_{n}") })
            .find(|n| !self.variables.contains_key(n))
            .unwrap_or(plain);
        self.secrets.insert(text.to_owned(), name.clone());
        self.variables.insert(name.clone(), format!("the value of `{key}`"));
        name
    }

    /// Replaces secrets in every text of a value.
    fn hide(&self, value: &mut Value, name: bool) {
        match value {
            Value::String(text) => {
                for (secret, variable) in self.secrets.iter().filter(|(s, _)| s.len() >= SHORTEST_SECRET) {
                    if text.contains(secret.as_str()) {
                        let stands = if name { "***".to_owned() } else { format!("{{{{env.{variable}}}}}") };
                        *text = text.replace(secret.as_str(), &stands);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|v| self.hide(v, name)),
            Value::Object(map) => map.values_mut().for_each(|v| self.hide(v, name)),
            _ => {}
        }
    }

    fn path(&mut self, path: &str) -> String {
        let parts: Vec<String> = path.split('/').map(|part| self.value("", part, false)).collect();
        parts.join("/")
    }

    /// The pairs of a query or form, as they were encoded.
    fn pairs(&mut self, text: &str) -> Vec<(String, String)> {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (name.replace("{{", "\\{{"), self.value(name, value, false))
            })
            .collect()
    }

    fn headers(&mut self, exchange: &Exchange) -> Map<String, Value> {
        let mut found = Map::new();
        for (name, value) in &exchange.headers {
            let foreign = OWN.contains(&name.as_str()) || name.starts_with("sec-") || name.starts_with("if-");
            if foreign || name == "accept" && (value == "*/*" || value.contains("text/html")) {
                continue;
            }
            let text = if name == "authorization" {
                let (scheme, rest) = value.split_once(' ').unwrap_or(("", value));
                let stands = self.value("authorization", rest, false);
                if scheme.is_empty() { stands } else { format!("{scheme} {stands}") }
            } else {
                self.value(name, value, false)
            };
            found.insert(name.clone(), json!(text));
        }
        found
    }

    /// Puts the content into a request; what was sent as JSON.
    fn body(&mut self, exchange: &Exchange, request: &mut Map<String, Value>) -> Option<Value> {
        let media = exchange.header("content-type").unwrap_or_default().to_ascii_lowercase();
        let at = format!("{} {}", exchange.method, exchange.path());
        if media.starts_with("multipart/") {
            self.notes.push(format!("{at}: an upload is not in a recording; write its `multipart` by hand"));
            return None;
        }
        if exchange.body.is_empty() {
            return None;
        }
        let Ok(text) = std::str::from_utf8(&exchange.body) else {
            self.notes.push(format!("{at}: its content is no text and is left out"));
            return None;
        };
        if text.len() > BODY {
            self.notes.push(format!("{at}: its content is too long and is left out"));
            return None;
        }
        if media.contains("json")
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            let filled = self.json("", &value, 0);
            request.insert("json".to_owned(), filled.clone());
            return Some(filled);
        }
        if media.starts_with("application/x-www-form-urlencoded") {
            let pairs =
                self.pairs(text).into_iter().map(|(n, v)| (decoded(&n), json!(decoded(&v)))).collect();
            request.insert("form".to_owned(), Value::Object(pairs));
            return None;
        }
        request.insert("body".to_owned(), json!(text.replace("{{", "\\{{")));
        None
    }

    fn json(&mut self, key: &str, value: &Value, depth: usize) -> Value {
        match value {
            Value::String(text) => json!(self.value(key, text, false)),
            Value::Number(n) => {
                let text = n.to_string();
                match self.value(key, &text, true) {
                    same if same == text => value.clone(),
                    stands => json!(stands),
                }
            }
            Value::Array(items) if depth < 32 => {
                Value::Array(items.iter().map(|v| self.json(key, v, depth + 1)).collect())
            }
            Value::Object(map) if depth < 32 => {
                Value::Object(map.iter().map(|(k, v)| (k.clone(), self.json(k, v, depth + 1))).collect())
            }
            other => other.clone(),
        }
    }

    fn expect(&self, exchange: &Exchange, sent: Option<&Value>) -> Value {
        let mut expect = Map::new();
        expect.insert("status".to_owned(), json!(exchange.status));
        if exchange.method == "HEAD" {
            return Value::Object(expect);
        }
        if exchange.answer_type.contains("json")
            && let Ok(answer) = serde_json::from_slice::<Value>(&exchange.answer)
        {
            let rules = matchers(&answer, sent);
            if !rules.is_empty() {
                expect.insert("json".to_owned(), Value::Object(rules));
            }
        } else if exchange.answer_type == "text/html"
            && let Some(title) = title(&String::from_utf8_lossy(&exchange.answer))
        {
            expect.insert("body".to_owned(), json!({ "contains": [title] }));
        }
        Value::Object(expect)
    }

    /// Remembers what an answer brought.
    fn learn(&mut self, step: usize, exchange: &Exchange) {
        if exchange.answer_type.contains("json")
            && let Ok(answer) = serde_json::from_slice::<Value>(&exchange.answer)
        {
            let mut found = Vec::new();
            scalars(&answer, "$", "", 0, &mut found);
            for (path, key, value) in found.into_iter().take(VALUES) {
                let (text, number) = match value {
                    Value::String(text) => (text, false),
                    Value::Number(n) => (n.to_string(), true),
                    _ => continue,
                };
                self.produced.push(Produced { text, number, step, path, key });
            }
        }
    }
}

/// Rules on an answer that hold for other data as well: what was sent comes back, the rest has its type.
fn matchers(answer: &Value, sent: Option<&Value>) -> Map<String, Value> {
    let mut rules = Map::new();
    let Value::Object(answer) = answer else {
        rules.insert("$".to_owned(), json!({ "type": kind(answer) }));
        return rules;
    };
    let equal = |key: &String, value: &Value| {
        let sent = sent?.get(key)?;
        let scalar = matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_));
        // A placeholder stands for the same value in the answer, but for those that hold a secret.
        let placeholder = sent.as_str().is_some_and(|s| s.contains("{{"));
        let secret = is_secret_name(key) || sent.as_str().is_some_and(|s| s.contains("{{env."));
        (scalar && !secret && (sent == value || placeholder)).then(|| sent.clone())
    };
    let plain = |v: &Value| matches!(v.as_str(), Some("exists" | "absent"));
    for (key, value) in answer {
        if let Some(sent) = equal(key, value).filter(|v| !plain(v)) {
            rules.insert(child("$", key), sent);
        }
    }
    for (key, value) in answer {
        if rules.len() >= EXPECTED {
            break;
        }
        // What is null now may be something then.
        if !value.is_null() && !rules.contains_key(&child("$", key)) {
            rules.insert(child("$", key), json!({ "type": kind(value) }));
        }
    }
    rules
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn scalars(value: &Value, path: &str, key: &str, depth: usize, found: &mut Vec<(String, String, Value)>) {
    if depth > DEPTH || found.len() >= VALUES {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                scalars(value, &child(path, name), name, depth + 1, found);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                scalars(value, &format!("{path}[{i}]"), key, depth + 1, found);
            }
        }
        Value::String(_) | Value::Number(_) => found.push((path.to_owned(), key.to_owned(), value.clone())),
        Value::Null | Value::Bool(_) => {}
    }
}

/// A step of a JSONPath (RFC 9535).
fn child(path: &str, name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain {
        return format!("{path}.{name}");
    }
    let name: String = name
        .chars()
        .flat_map(|c| match c {
            '\'' | '\\' => vec!['\\', c],
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)).chars().collect(),
            c => vec![c],
        })
        .collect();
    format!("{path}['{name}']")
}

/// The title of a page, where it says the same every day.
fn title(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    let fixed = !title.is_empty()
        && title.len() < 200
        && !title.chars().any(|c| c.is_ascii_digit() || c.is_control());
    (fixed && !title.contains("{{")).then(|| format!("<title>{title}</title>"))
}

/// Percent-decoded, with `+` for a space; placeholders stay.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
