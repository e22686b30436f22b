//! Interpolation: `{{app.url}}`, `{{run.id}}`, `{{env.NAME}}`, `{{variable}}`.
//!
//! `\{{` is a literal `{{`. There is no expression language.

use crate::ids::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What a `{{...}}` stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// `{{run.id}}`: unique per run.
    RunId,
    /// `{{env.NAME}}`: a variable of the process that runs the checks; a secret.
    Env(String),
    /// `{{service.url}}`.
    Url(String),
    /// `{{service.host}}`.
    Host(String),
    /// `{{service.port}}` or `{{service.port.NAME}}`.
    Port(String, Option<String>),
    /// `{{name}}`: declared under `vars` or captured.
    Var(String),
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunId => f.write_str("run.id"),
            Self::Env(name) => write!(f, "env.{name}"),
            Self::Url(service) => write!(f, "{service}.url"),
            Self::Host(service) => write!(f, "{service}.host"),
            Self::Port(service, None) => write!(f, "{service}.port"),
            Self::Port(service, Some(name)) => write!(f, "{service}.port.{name}"),
            Self::Var(name) => f.write_str(name),
        }
    }
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Copied as it is.
    Text(String),
    /// Replaced.
    Ref(Ref),
}

/// Text with `{{...}}` in it. Numbers and booleans in YAML are taken as their text.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "String")]
pub struct Template {
    pub(super) pieces: Vec<Piece>,
}

impl Template {
    /// Splits a text into its pieces; the error says what is wrong with a placeholder.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            if let Some(before) = rest[..at].strip_suffix('\\') {
                plain.push_str(before);
                plain.push_str("{{");
                rest = &rest[at + 2..];
                continue;
            }
            plain.push_str(&rest[..at]);
            let inner = &rest[at + 2..];
            let end = inner.find("}}").ok_or_else(|| {
                format!("`{{{{` without `}}}}` in {text:?}; write `\\{{{{` for literal braces")
            })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Ref(parse_ref(inner[..end].trim())?));
            rest = &inner[end + 2..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    /// Everything it refers to.
    pub fn refs(&self) -> impl Iterator<Item = &Ref> {
        self.pieces.iter().filter_map(|p| match p {
            Piece::Ref(r) => Some(r),
            Piece::Text(_) => None,
        })
    }

    /// The text it starts with, before any placeholder.
    pub(super) fn literal_start(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(t)) => t,
            _ => "",
        }
    }

    /// Replaces the placeholders by text.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        self.render_with(scope, Cow::Owned)
    }

    /// Replaces the placeholders, each value passed through `quote` first.
    pub(super) fn render_with<'q>(
        &self,
        scope: &Scope<'_>,
        quote: impl Fn(String) -> Cow<'q, str>,
    ) -> Result<String, RenderError> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(t) => out.push_str(t),
                Piece::Ref(r) => out.push_str(&quote(as_text(&scope.resolve(r)?))),
            }
        }
        Ok(out)
    }

    /// Replaces the placeholders; a template that is exactly one placeholder keeps its value's type.
    pub fn render_value(&self, scope: &Scope<'_>) -> Result<Value, RenderError> {
        match self.pieces.as_slice() {
            [Piece::Ref(only)] => scope.resolve(only),
            _ => self.render(scope).map(Value::from),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(de)? {
            Value::String(text) => text,
            value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
            _ => return Err(serde::de::Error::custom("expected text")),
        };
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether a text can be the name of a variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn parse_ref(text: &str) -> Result<Ref, String> {
    let wrong = |why: &str| Err(format!("`{{{{{text}}}}}` {why}"));
    let parts: Vec<&str> = text.split('.').collect();
    let good =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !parts.iter().all(|p| good(p)) {
        return wrong(
            "is not a name; use {{variable}}, {{run.id}}, {{env.NAME}} or {{service.url}}, \
                      and `\\{{` for literal braces",
        );
    }
    Ok(match parts.as_slice() {
        ["run", "id"] => Ref::RunId,
        ["env", name] => Ref::Env((*name).to_owned()),
        ["run" | "env", ..] => return wrong("is not known; use {{run.id}} or {{env.NAME}}"),
        [name] if is_variable_name(name) => Ref::Var((*name).to_owned()),
        [service, "url"] => Ref::Url((*service).to_owned()),
        [service, "host"] => Ref::Host((*service).to_owned()),
        [service, "port"] => Ref::Port((*service).to_owned(), None),
        [service, "port", name] => Ref::Port((*service).to_owned(), Some((*name).to_owned())),
        [_, _, ..] => return wrong("is not known; a service has .url, .host and .port.NAME"),
        _ => return wrong("is not a name"),
    })
}

/// Where a service of an environment answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Named ports.
    pub ports: BTreeMap<String, u16>,
    /// The port of `{{service.url}}`.
    pub default_port: u16,
}

impl Endpoint {
    /// An endpoint with a single port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), ports: BTreeMap::new(), default_port: port }
    }
    /// `http://host:port`, with brackets around an IPv6 address.
    pub fn url(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("http://[{}]:{}", self.host, self.default_port)
        } else {
            format!("http://{}:{}", self.host, self.default_port)
        }
    }
}

/// A placeholder that has no value here. Trouble of the setup, not of the release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The environment has no such service.
    #[error("there is no service {0:?} in this environment")]
    UnknownService(String),
    /// The service has no port of that name.
    #[error("service {service:?} has no port named {port:?}")]
    UnknownPort {
        /// The service.
        service: String,
        /// The missing port.
        port: String,
    },
    /// The variable is not set for the process that runs the checks.
    #[error("the environment variable {0} is not set")]
    MissingEnv(String),
    /// Nothing was captured or declared under that name.
    #[error("the variable {0:?} has no value at this point")]
    UnsetVariable(String),
    /// A text could not be used after replacing its placeholders.
    #[error("{0}")]
    Unusable(String),
}

/// The values that placeholders resolve to.
pub struct Scope<'a> {
    /// Unique per run.
    pub run_id: &'a str,
    /// The services of the environment.
    pub endpoints: &'a BTreeMap<ServiceName, Endpoint>,
    /// Looks up `{{env.NAME}}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Declared and captured variables.
    pub vars: BTreeMap<String, Value>,
}

impl Scope<'_> {
    /// Declares the workflow's variables, rendering their values.
    pub fn declare(&mut self, vars: &BTreeMap<String, Value>) -> Result<(), RenderError> {
        for (name, value) in vars {
            let value = self.render_value(value)?;
            self.vars.insert(name.clone(), value);
        }
        Ok(())
    }

    /// The value of a placeholder.
    pub fn resolve(&self, what: &Ref) -> Result<Value, RenderError> {
        let endpoint = |service: &str| {
            self.endpoints.get(service).ok_or_else(|| RenderError::UnknownService(service.to_owned()))
        };
        Ok(match what {
            Ref::RunId => Value::from(self.run_id),
            Ref::Env(name) => {
                (self.env)(name).map(Value::from).ok_or_else(|| RenderError::MissingEnv(name.clone()))?
            }
            Ref::Url(service) => Value::from(endpoint(service)?.url()),
            Ref::Host(service) => Value::from(endpoint(service)?.host.as_str()),
            Ref::Port(service, None) => Value::from(endpoint(service)?.default_port),
            Ref::Port(service, Some(port)) => {
                Value::from(*endpoint(service)?.ports.get(port).ok_or_else(|| RenderError::UnknownPort {
                    service: service.clone(),
                    port: port.clone(),
                })?)
            }
            Ref::Var(name) => {
                self.vars.get(name).cloned().ok_or_else(|| RenderError::UnsetVariable(name.clone()))?
            }
        })
    }

    /// Replaces the placeholders in every string of a JSON value (not in keys).
    pub fn render_value(&self, value: &Value) -> Result<Value, RenderError> {
        Ok(match value {
            Value::String(text) if text.contains("{{") => {
                Template::parse(text).map_err(RenderError::Unusable)?.render_value(self)?
            }
            Value::Array(items) => {
                items.iter().map(|v| self.render_value(v)).collect::<Result<Vec<_>, _>>()?.into()
            }
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| Ok((k.clone(), self.render_value(v)?)))
                    .collect::<Result<_, RenderError>>()?,
            ),
            other => other.clone(),
        })
    }
}

/// A value as it is pasted into text: strings without quotes.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
