//! Values kept from a response for later steps.

use super::redact::Redactor;
use super::response::Response;
use crate::check::Failure;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json_path::JsonPath;

/// Where a value is taken from.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Capture {
    /// The node at a JSONPath; the list of nodes if the path can match several.
    Json(String),
    /// The first group (or the whole match) of a regular expression on the body.
    Regex(String),
    /// The first header of this name.
    Header(String),
    /// A cookie that is set after the response; a secret.
    Cookie(String),
    /// The status code.
    Status,
}

impl<'de> Deserialize<'de> for Capture {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Map {
            Json(String),
            Regex(String),
            Header(String),
            Cookie(String),
        }
        use serde::de::Error;
        const FORMS: &str = "write { json: \"$.id\" }, { regex: '...' }, { header: name }, \
                             { cookie: name } or status";
        match Value::deserialize(de)? {
            Value::String(word) if word == "status" => Ok(Self::Status),
            map @ Value::Object(_) => match Map::deserialize(map) {
                Ok(Map::Json(path)) => Ok(Self::Json(path)),
                Ok(Map::Regex(pattern)) => Ok(Self::Regex(pattern)),
                Ok(Map::Header(name)) => Ok(Self::Header(name)),
                Ok(Map::Cookie(name)) => Ok(Self::Cookie(name)),
                Err(e) => {
                    let text = e.to_string().replace("unknown variant", "unknown field");
                    Err(D::Error::custom(if text.starts_with("unknown field") {
                        text
                    } else {
                        format!("not a capture ({text}); {FORMS}")
                    }))
                }
            },
            other => Err(D::Error::custom(format!("{other} is not a capture; {FORMS}"))),
        }
    }
}

/// What a JSONPath finds in a document; see [`select`].
pub(super) enum Found<'a> {
    /// Nothing.
    Nothing,
    /// The one node of a path that can only match one.
    Node(&'a Value),
    /// The nodes of a path with `*`, `..`, slices or filters.
    List(Value),
}

impl Found<'_> {
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Nothing => None,
            Self::Node(v) => Some(v),
            Self::List(v) => Some(v),
        }
    }
}

/// Evaluates a JSONPath (RFC 9535). A path that can match several nodes gives a list, unless empty.
pub(super) fn select<'a>(path: &JsonPath, text: &str, document: &'a Value) -> Found<'a> {
    let nodes = path.query(document).all();
    if nodes.is_empty() {
        Found::Nothing
    } else if nodes.len() == 1 && is_singular(text) {
        Found::Node(nodes[0])
    } else {
        Found::List(nodes.into_iter().cloned().collect())
    }
}

/// Whether a path can match at most one node: no wildcard, descendant, slice, union or filter.
fn is_singular(path: &str) -> bool {
    let mut quote = None;
    let mut escaped = false;
    for c in path.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if matches!(c, '*' | ':' | ',' | '?') => return false,
            None => {}
        }
    }
    !path.contains("..")
}

/// Takes a value out of a response.
pub fn capture(
    name: &str,
    what: &Capture,
    response: &Response,
    at: &str,
    redactor: &Redactor,
) -> Result<Value, Failure> {
    let missing = |expected: String, got: String| Failure {
        at: at.to_owned(),
        what: format!("nothing to capture as {name}"),
        expected: Some(expected),
        got: Some(redactor.show(&got)),
        reproduce: None,
    };
    match what {
        Capture::Status => Ok(Value::from(response.status)),
        Capture::Json(text) => {
            let expected = || format!("a value at {text}");
            let document = response.json().map_err(|e| missing(expected(), format!("no JSON ({e})")))?;
            let path = JsonPath::parse(text).map_err(|e| missing(expected(), e.to_string()))?;
            let found = select(&path, text, document);
            found.value().cloned().ok_or_else(|| missing(expected(), response.text().into_owned()))
        }
        Capture::Regex(text) => {
            let expected = || format!("a match of {text}");
            let regex = Regex::new(text).map_err(|e| missing(expected(), e.to_string()))?;
            let body = response.text();
            let found = regex.captures(&body).and_then(|c| c.get(1).or_else(|| c.get(0)));
            found.map(|m| Value::from(m.as_str())).ok_or_else(|| missing(expected(), body.to_string()))
        }
        Capture::Header(header) => response
            .header(header)
            .next()
            .map(Value::from)
            .ok_or_else(|| missing(format!("a header {header}"), "no such header".to_owned())),
        Capture::Cookie(cookie) => {
            let found = response.cookies.iter().find(|(n, _)| n == cookie);
            found.map(|(_, v)| Value::from(v.as_str())).ok_or_else(|| {
                let names: Vec<_> = response.cookies.iter().map(|(n, _)| n.as_str()).collect();
                missing(format!("a cookie {cookie}"), format!("cookies: [{}]", names.join(", ")))
            })
        }
    }
}

impl Capture {
    /// Whether the value must be hidden in reports.
    pub fn is_secret(&self, variable: &str) -> bool {
        match self {
            Self::Cookie(_) => true,
            Self::Header(name) => super::is_secret_name(name) || super::is_secret_name(variable),
            Self::Json(text) | Self::Regex(text) => {
                super::is_secret_name(text) || super::is_secret_name(variable)
            }
            Self::Status => false,
        }
    }
}
