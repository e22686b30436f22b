//! The types of a workflow file.

use super::capture::Capture;
use super::matcher::Matcher;
use super::sent::SentStep;
use super::template::Template;
use super::validate::Reference;
use crate::duration::Span;
use crate::ids::StoreName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A sequence of steps that a user of the stack would take, with what must be observed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    /// The stem of the file's name.
    #[serde(skip)]
    pub id: String,
    /// One line for reports.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether it may run against production.
    #[serde(default)]
    pub production: OnProduction,
    /// Limit for the whole workflow.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Values for `{{name}}`; may use `{{run.id}}`, `{{env.NAME}}` and services.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The steps are taken once for each of these, with its values as variables.
    #[serde(default)]
    pub rows: Vec<BTreeMap<String, Value>>,
    /// So many do it at the same time, each with its own cookies and `{{worker}}` from 1 on.
    #[serde(default)]
    pub parallel: Option<u32>,
    /// What is done, in order; the first failing step ends the workflow.
    pub steps: Vec<Step>,
    /// Everything outside the file that it refers to, with places.
    #[serde(skip)]
    pub references: Vec<Reference>,
}

/// 30 s: long enough for a slow login on a small machine, short enough to wait for.
fn default_timeout() -> Span {
    Span::secs(30)
}

/// Whether a workflow may run against production.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnProduction {
    /// Only if every step merely reads.
    #[default]
    Auto,
    /// Yes: the author knows that it leaves something behind.
    Always,
    /// No.
    Never,
}

/// One step: a request, a query or a pause.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// One line for reports.
    #[serde(default)]
    pub name: Option<String>,
    /// An HTTP request.
    #[serde(default)]
    pub request: Option<Request>,
    /// A query on a store.
    #[serde(default)]
    pub sql: Option<SqlStep>,
    /// A call of a tool of an MCP server.
    #[serde(default)]
    pub mcp: Option<McpStep>,
    /// What the services must have tried to send out.
    #[serde(default)]
    pub sent: Option<SentStep>,
    /// A pause.
    #[serde(default)]
    pub wait: Option<Span>,
    /// What the response must be like. Without `status`, anything but 2xx and 3xx fails.
    #[serde(default)]
    pub expect: Expect,
    /// Values kept for later steps.
    #[serde(default)]
    pub capture: BTreeMap<String, Capture>,
    /// Repetition until the expectations hold.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// What a step does.
#[derive(Debug, Clone, Copy)]
pub enum StepKind<'a> {
    /// Sends a request.
    Request(&'a Request),
    /// Asks a store.
    Sql(&'a SqlStep),
    /// Calls a tool of an MCP server.
    Mcp(&'a McpStep),
    /// Looks at what was sent.
    Sent(&'a SentStep),
    /// Pauses.
    Wait(Span),
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// GET if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// Absolute; normally `{{service.url}}/path`.
    pub url: Template,
    /// Extra headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// Added to the URL, percent-encoded.
    #[serde(default)]
    pub query: BTreeMap<String, Template>,
    /// A JSON body.
    #[serde(default)]
    pub json: Option<Value>,
    /// A text body.
    #[serde(default)]
    pub body: Option<Template>,
    /// A form body (`application/x-www-form-urlencoded`).
    #[serde(default)]
    pub form: Option<BTreeMap<String, Template>>,
    /// A form body with files (`multipart/form-data`).
    #[serde(default)]
    pub multipart: Option<BTreeMap<String, Part>>,
    /// Follow redirects, within the environment only.
    #[serde(default)]
    pub follow_redirects: bool,
    /// Limit for this request.
    #[serde(default = "default_request_timeout")]
    pub timeout: Span,
}

/// 10 s: what a person would wait for a page before calling it broken.
fn default_request_timeout() -> Span {
    Span::secs(10)
}

/// A part of a multipart body: text, or a map with `path` or `text`.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum Part {
    /// A plain field.
    Field(Template),
    /// A file.
    File(FilePart),
}

/// A file of a multipart body.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// A file, relative to the stack's folder.
    #[serde(default)]
    pub path: Option<String>,
    /// Or its content.
    #[serde(default)]
    pub text: Option<Template>,
    /// The name that is sent; the path's last part if absent.
    #[serde(default)]
    pub filename: Option<Template>,
    /// The type that is sent; `application/octet-stream` if absent.
    #[serde(default)]
    pub content_type: Option<String>,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Value::deserialize(de)? {
            map @ Value::Object(_) => FilePart::deserialize(map).map(Self::File).map_err(D::Error::custom),
            other => Template::deserialize(other).map(Self::Field).map_err(D::Error::custom),
        }
    }
}

/// What a response must be like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `201`, `[200, 201]` or `"2xx"`.
    #[serde(default)]
    pub status: Option<StatusMatch>,
    /// Header to exact value, or `~ regex`.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// JSONPath to what must be found there.
    #[serde(default)]
    pub json: BTreeMap<String, Matcher>,
    /// Rules on the body as text.
    #[serde(default)]
    pub body: BodyExpect,
    /// The longest time it may take.
    #[serde(default)]
    pub max: Option<Span>,
}

/// Rules on the body as text (invalid UTF-8 is replaced before).
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyExpect {
    /// All of these occur.
    #[serde(default)]
    pub contains: Vec<Template>,
    /// None of these occurs.
    #[serde(default)]
    pub not_contains: Vec<Template>,
    /// This regular expression matches somewhere.
    #[serde(default)]
    pub matches: Option<Template>,
}

/// Which status codes are right.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "StatusForm")]
pub struct StatusMatch(pub(super) Vec<StatusRange>);

/// The forms in YAML, for the schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only describes the format")]
enum StatusForm {
    Code(u16),
    Class(String),
    Any(Vec<StatusForm>),
}

/// A closed range of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StatusRange {
    low: u16,
    high: u16,
}

impl StatusMatch {
    /// A single code.
    pub fn code(code: u16) -> Self {
        Self(vec![StatusRange { low: code, high: code }])
    }
    /// Whether a code is right.
    pub fn accepts(&self, code: u16) -> bool {
        self.0.iter().any(|r| (r.low..=r.high).contains(&code))
    }
    fn one(value: &Value) -> Option<StatusRange> {
        match value {
            Value::Number(n) => {
                let code = u16::try_from(n.as_u64()?).ok().filter(|c| (100..=599).contains(c))?;
                Some(StatusRange { low: code, high: code })
            }
            Value::String(text) => {
                if let Ok(code) = text.parse::<u16>() {
                    return Self::one(&Value::from(code));
                }
                let class: u16 = text.to_ascii_lowercase().strip_suffix("xx")?.parse().ok()?;
                (1..=5).contains(&class).then(|| StatusRange { low: class * 100, high: class * 100 + 99 })
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for StatusMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { " or " })?;
            if r.low == r.high { write!(f, "{}", r.low)? } else { write!(f, "{}xx", r.low / 100)? }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for StatusMatch {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(de)?;
        let list = match &value {
            Value::Array(items) if !items.is_empty() => items.iter().map(Self::one).collect(),
            single => Self::one(single).map(|one| vec![one]),
        };
        list.map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("{value} is not a status; write 201, [200, 201] or \"2xx\""))
        })
    }
}

/// A query on a store; it must only read.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlStep {
    /// Which store.
    pub store: StoreName,
    /// The query; placeholders become bound parameters.
    pub sql: Template,
    /// What the first column of the first row must be.
    #[serde(default)]
    pub expect: Option<Matcher>,
}

/// A call of a tool of an MCP server (Model Context Protocol, streamable HTTP); `expect` looks at the tool's result.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpStep {
    /// The server's endpoint, such as `{{tools.url}}/mcp`.
    pub url: Template,
    /// Extra headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// The tool.
    pub tool: Template,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Option<Value>,
    /// Limit for the whole conversation.
    #[serde(default = "default_request_timeout")]
    pub timeout: Span,
}

/// Repetition until the expectations hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries in all, 1 to 1000.
    pub times: u32,
    /// Pause between them.
    #[serde(default = "default_every")]
    pub every: Span,
}

/// 200 ms: a queue worker is seen quickly, a busy server is not flooded.
fn default_every() -> Span {
    Span::millis(200)
}

impl Request {
    /// The method in capitals.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("GET")
    }
    /// Whether the method promises not to change anything (RFC 9110, 9.2.1).
    pub fn only_reads(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS")
    }
}

impl Step {
    /// What it does; `None` only before validation.
    pub fn kind(&self) -> Option<StepKind<'_>> {
        let all = [
            self.request.as_ref().map(StepKind::Request),
            self.sql.as_ref().map(StepKind::Sql),
            self.mcp.as_ref().map(StepKind::Mcp),
            self.sent.as_ref().map(StepKind::Sent),
            self.wait.map(StepKind::Wait),
        ];
        let mut there = all.into_iter().flatten();
        there.next().filter(|_| there.next().is_none())
    }
    /// Its name, or its number.
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("step {}", index + 1))
    }
    fn only_reads(&self) -> bool {
        match self.kind() {
            Some(StepKind::Request(request)) => request.only_reads(),
            Some(StepKind::Sql(sql)) => {
                sql.sql.literal_start().trim_start().to_ascii_lowercase().starts_with("select")
            }
            Some(StepKind::Wait(_)) => true,
            // What a tool does is not known; on production nothing is recorded.
            Some(StepKind::Mcp(_) | StepKind::Sent(_)) | None => false,
        }
    }
}

impl Workflow {
    /// What reports call it.
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
    /// Whether every step merely reads.
    pub fn only_reads(&self) -> bool {
        self.steps.iter().all(Step::only_reads)
    }
    /// Whether it may run against production.
    pub fn runs_on_production(&self) -> bool {
        match self.production {
            OnProduction::Auto => self.only_reads(),
            OnProduction::Always => true,
            OnProduction::Never => false,
        }
    }
}
