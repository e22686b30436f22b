//! An OpenAPI document (3.0 or 3.1), read from JSON or YAML: references, operations, parameters.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// References that lead to references; more is a circle.
const HOPS: usize = 32;
/// The methods that a path may have (OpenAPI 3.1.0, Path Item Object).
pub(super) const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is neither JSON nor YAML.
    #[error("it is neither JSON nor YAML: {0}")]
    Syntax(String),
    /// It is something else.
    #[error("it is no OpenAPI document of version 3.0 or 3.1 (`openapi` is {0})")]
    Version(String),
    /// It has no paths.
    #[error("it has no `paths`")]
    NoPaths,
}

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    root: Value,
}

/// One operation, with the path it belongs to.
pub(super) struct Operation<'a> {
    pub path: &'a str,
    pub body: &'a Map<String, Value>,
    pub parameters: BTreeMap<(String, String), &'a Map<String, Value>>,
}

impl Document {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let root: Value = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(json) => serde_yaml_ng::from_str(text).map_err(|yaml| {
                let trimmed = text.trim_start();
                let looks = trimmed.starts_with('{') || trimmed.starts_with('[');
                DocumentError::Syntax(if looks { json.to_string() } else { yaml.to_string() })
            })?,
        };
        let version = root.get("openapi").and_then(Value::as_str).unwrap_or("missing");
        if !(version.starts_with("3.0") || version.starts_with("3.1")) {
            return Err(DocumentError::Version(version.to_owned()));
        }
        if !root.get("paths").is_some_and(Value::is_object) {
            return Err(DocumentError::NoPaths);
        }
        Ok(Self { root })
    }

    /// The value that a reference leads to; what is none is itself. `None` for one that leads nowhere or in a circle.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> Option<&'a Value> {
        let mut at = value;
        for _ in 0..HOPS {
            let Some(reference) = at.get("$ref").and_then(Value::as_str) else { return Some(at) };
            at = self.root.pointer(reference.strip_prefix('#')?)?;
        }
        None
    }

    pub(super) fn object<'a>(&'a self, value: Option<&'a Value>) -> Option<&'a Map<String, Value>> {
        self.resolve(value?)?.as_object()
    }

    /// All operations, by path with its parameters' names taken out, and method.
    pub(super) fn operations(&self) -> BTreeMap<(String, &'static str), Operation<'_>> {
        let mut found = BTreeMap::new();
        for (path, item) in self.root["paths"].as_object().into_iter().flatten() {
            let Some(item) = self.object(Some(item)) else { continue };
            for method in METHODS {
                let Some(body) = item.get(method).and_then(Value::as_object) else { continue };
                let mut parameters = BTreeMap::new();
                for list in [item.get("parameters"), body.get("parameters")].into_iter().flatten() {
                    for parameter in list.as_array().into_iter().flatten() {
                        let Some(parameter) = self.object(Some(parameter)) else { continue };
                        let text = |key| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
                        let (place, name) = (text("in").to_owned(), text("name"));
                        // Headers are named in any case (RFC 9110, 5.1).
                        let name =
                            if place == "header" { name.to_ascii_lowercase() } else { name.to_owned() };
                        parameters.insert((place, name), parameter);
                    }
                }
                found.insert((normal(path), method), Operation { path, body, parameters });
            }
        }
        found
    }

    /// The names of the security schemes that an operation asks for, with their scopes: alternatives.
    pub(super) fn security(&self, operation: &Map<String, Value>) -> Vec<BTreeMap<String, Vec<String>>> {
        let list = operation.get("security").or_else(|| self.root.get("security"));
        let alternatives = list.and_then(Value::as_array).into_iter().flatten();
        let texts = |scopes: &Value| -> Vec<String> {
            let all = scopes.as_array().into_iter().flatten();
            all.filter_map(|s| s.as_str().map(str::to_owned)).collect()
        };
        alternatives
            .filter_map(Value::as_object)
            .map(|one| one.iter().map(|(name, scopes)| (name.clone(), texts(scopes))).collect())
            .collect()
    }

    /// How a security scheme is described.
    pub(super) fn scheme(&self, name: &str) -> Option<&Map<String, Value>> {
        self.object(self.root.get("components")?.get("securitySchemes")?.get(name))
    }

    /// The names of what clients are called for.
    pub(super) fn webhooks(&self) -> impl Iterator<Item = &str> {
        self.root
            .get("webhooks")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
    }

    /// The operations as `METHOD /path`.
    pub fn declared(&self) -> Vec<String> {
        let all = self.operations();
        all.iter().map(|((_, method), o)| format!("{} {}", method.to_uppercase(), o.path)).collect()
    }

    /// The declared operation that a request belongs to.
    pub fn operation_of(&self, method: &str, path: &str) -> Option<String> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let asked: Vec<&str> = path.trim_matches('/').split('/').collect();
        let all = self.operations();
        let mut fitting: Vec<(usize, String)> = all
            .iter()
            .filter(|((_, m), _)| m.eq_ignore_ascii_case(method))
            .filter_map(|((normal, m), o)| {
                let parts: Vec<&str> = normal.trim_matches('/').split('/').collect();
                let fits = parts.len() == asked.len()
                    && parts.iter().zip(&asked).all(|(p, a)| p.contains("{}") || p == a);
                let variable = parts.iter().filter(|p| p.contains("{}")).count();
                fits.then(|| (variable, format!("{} {}", m.to_uppercase(), o.path)))
            })
            .collect();
        fitting.sort();
        fitting.into_iter().next().map(|(_, name)| name)
    }

    /// Paths of GET operations that need nothing but the request itself.
    pub fn plain_gets(&self) -> Vec<String> {
        let all = self.operations();
        let plain = all.iter().filter(|((path, method), operation)| {
            let needed = operation.parameters.values().any(|p| p.get("required") == Some(&Value::Bool(true)));
            *method == "get" && !path.contains("{}") && !needed
        });
        plain.map(|(_, operation)| operation.path.to_owned()).collect()
    }
}

/// A path without the names of its parameters, which clients do not see.
fn normal(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '{' => {
                inside = true;
                out.push_str("{}");
            }
            '}' => inside = false,
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// The names of a path's parameters, in order.
pub(super) fn path_names(path: &str) -> Vec<String> {
    path.split('{').skip(1).filter_map(|p| p.split_once('}').map(|(name, _)| name.to_owned())).collect()
}
