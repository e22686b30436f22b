//! Rules on a workflow that its types cannot express.

use super::capture::Capture;
use super::expect::header_pattern;
use super::locate::{Map, Seg};
use super::matcher::Matcher;
use super::model::{McpStep, Part, Request, SqlStep, Step, StepKind, Workflow};
use super::parse::suggest;
use super::template::{Piece, Ref, Template, is_variable_name};
use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;
use std::collections::{BTreeMap, BTreeSet};

/// More steps than this in one file is a generated file gone wrong.
const MAX_STEPS: usize = 500;

/// Something outside the file that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What is referred to.
    pub kind: ReferenceKind,
    /// Its name.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// What kinds of thing a workflow refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceKind {
    /// A service of the stack.
    Service,
    /// A store of the stack.
    Store,
    /// A variable of the process that runs the checks.
    Env,
}

/// A broken rule, and where.
pub(super) struct Problem {
    pub path: Vec<Seg>,
    pub message: String,
    pub hint: Option<String>,
}

pub(super) type Outcome = Result<(), Problem>;

/// Checks everything, and collects what the workflow refers to.
pub(super) fn validate(workflow: &Workflow, map: &Map) -> Result<Vec<Reference>, Problem> {
    let mut check = Check { map, path: Vec::new(), known: BTreeMap::new(), references: Vec::new() };
    check.workflow(workflow)?;
    Ok(check.references)
}

pub(super) struct Check<'a> {
    map: &'a Map,
    path: Vec<Seg>,
    /// Variable to the label of where it gets its value.
    pub(super) known: BTreeMap<String, String>,
    references: Vec<Reference>,
}

impl Check<'_> {
    pub(super) fn fail<T>(&self, message: impl Into<String>, hint: Option<String>) -> Result<T, Problem> {
        Err(Problem { path: self.path.clone(), message: message.into(), hint })
    }

    /// Runs a check one level deeper.
    pub(super) fn at(&mut self, key: &str, inner: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        self.path.push(Seg::Key(key.to_owned()));
        inner(self)?;
        self.path.pop();
        Ok(())
    }

    pub(super) fn each<T>(
        &mut self,
        items: &[T],
        mut inner: impl FnMut(&mut Self, &T) -> Outcome,
    ) -> Outcome {
        for (i, item) in items.iter().enumerate() {
            self.path.push(Seg::Index(i));
            inner(self, item)?;
            self.path.pop();
        }
        Ok(())
    }

    fn workflow(&mut self, workflow: &Workflow) -> Outcome {
        if workflow.timeout.0.is_zero() {
            return self.at("timeout", |c| c.fail("must be longer than zero", None));
        }
        self.at("vars", |c| {
            for (name, value) in &workflow.vars {
                c.at(name, |c| {
                    c.variable_name(name)?;
                    c.value(value)
                })?;
            }
            Ok(())
        })?;
        for name in workflow.vars.keys() {
            self.known.insert(name.clone(), "vars".to_owned());
        }
        self.rows(workflow)?;
        let steps = &workflow.steps;
        self.at("steps", |c| {
            if steps.is_empty() {
                return c.fail("a workflow without steps checks nothing", None);
            }
            if steps.len() > MAX_STEPS {
                return c.fail(format!("{} steps; at most {MAX_STEPS} are allowed", steps.len()), None);
            }
            let mut index = 0;
            c.each(steps, |c, step| {
                index += 1;
                c.step(step, &step.label(index - 1))
            })
        })
    }

    fn step(&mut self, step: &Step, label: &str) -> Outcome {
        let Some(kind) = step.kind() else {
            return self.fail("a step has exactly one of `request`, `sql`, `mcp`, `sent` and `wait`", None);
        };
        if let Some(retry) = step.retry {
            self.at("retry", |c| match retry.times {
                1..=1000 => Ok(()),
                n => c.fail(format!("{n} tries; between 1 and 1000 are possible"), None),
            })?;
        }
        if !matches!(kind, StepKind::Request(_) | StepKind::Mcp(_)) {
            if step.expect != super::Expect::default() {
                return self.at("expect", |c| {
                    c.fail("only a request has `expect` here", Some("a query has it inside `sql`".into()))
                });
            }
            if !step.capture.is_empty() {
                return self.at("capture", |c| c.fail("only a request has something to capture", None));
            }
        }
        match kind {
            StepKind::Request(request) => self.at("request", |c| c.request(request))?,
            StepKind::Sql(sql) => self.at("sql", |c| c.sql(sql))?,
            StepKind::Mcp(mcp) => self.at("mcp", |c| c.mcp(mcp))?,
            StepKind::Sent(sent) => self.at("sent", |c| c.sent(sent))?,
            StepKind::Wait(_) => {}
        }
        self.at("expect", |c| c.expect(&step.expect))?;
        self.at("capture", |c| {
            for (name, capture) in &step.capture {
                c.at(name, |c| c.capture(name, capture, label))?;
            }
            Ok(())
        })
    }

    fn request(&mut self, request: &Request) -> Outcome {
        let method = request.method();
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
            let hint = Some(format!("write {}", method.to_ascii_uppercase()));
            return self.at("method", |c| c.fail(format!("{method:?} is not a method"), hint));
        }
        if request.timeout.0.is_zero() {
            return self.at("timeout", |c| c.fail("must be longer than zero", None));
        }
        self.at("url", |c| {
            let start = request.url.literal_start();
            let fine = start.starts_with("http://") || start.starts_with("https://");
            if !fine && !matches!(request.url.pieces.first(), Some(Piece::Ref(_))) {
                let hint = "start with {{service.url}}, for example {{app.url}}/api".to_owned();
                return c.fail("the address is not absolute", Some(hint));
            }
            c.template(&request.url)
        })?;
        self.at("headers", |c| c.headers(&request.headers))?;
        self.at("query", |c| c.templates(&request.query))?;
        let bodies = [
            request.json.is_some(),
            request.body.is_some(),
            request.form.is_some(),
            request.multipart.is_some(),
        ];
        if bodies.iter().filter(|b| **b).count() > 1 {
            return self.fail("only one of `json`, `body`, `form` and `multipart` is possible", None);
        }
        if let Some(json) = &request.json {
            self.at("json", |c| c.value(json))?;
        }
        if let Some(body) = &request.body {
            self.at("body", |c| c.template(body))?;
        }
        if let Some(form) = &request.form {
            self.at("form", |c| c.templates(form))?;
        }
        if let Some(parts) = &request.multipart {
            self.at("multipart", |c| c.multipart(parts))?;
        }
        Ok(())
    }

    fn mcp(&mut self, step: &McpStep) -> Outcome {
        if step.timeout.0.is_zero() {
            return self.at("timeout", |c| c.fail("must be longer than zero", None));
        }
        self.at("url", |c| c.template(&step.url))?;
        self.at("headers", |c| c.headers(&step.headers))?;
        self.at("tool", |c| {
            if step.tool.pieces.is_empty() {
                return c.fail("the tool has no name", None);
            }
            c.template(&step.tool)
        })?;
        match &step.arguments {
            None => Ok(()),
            Some(Value::Object(_)) => {
                self.at("arguments", |c| c.value(step.arguments.as_ref().unwrap_or(&Value::Null)))
            }
            Some(_) => self.at("arguments", |c| c.fail("arguments are a map", None)),
        }
    }

    fn multipart(&mut self, parts: &BTreeMap<String, Part>) -> Outcome {
        for (name, part) in parts {
            self.at(name, |c| match part {
                Part::Field(value) => c.template(value),
                Part::File(file) => {
                    if file.path.is_some() == file.text.is_some() {
                        return c.fail("a file has either `path` or `text`", None);
                    }
                    if let Some(path) = &file.path
                        && (path.starts_with('/') || path.split('/').any(|p| p == ".."))
                    {
                        return c.at("path", |c| {
                            c.fail(format!("{path:?} is outside the workflow's folder"), None)
                        });
                    }
                    for template in file.text.iter().chain(&file.filename) {
                        c.template(template)?;
                    }
                    Ok(())
                }
            })?;
        }
        Ok(())
    }

    fn sql(&mut self, step: &SqlStep) -> Outcome {
        self.at("store", |c| {
            c.refer(ReferenceKind::Store, step.store.as_str());
            Ok(())
        })?;
        self.at("sql", |c| {
            if step.sql.pieces.is_empty() {
                return c.fail("the query is empty", None);
            }
            let mut quotes = 0;
            for piece in &step.sql.pieces {
                match piece {
                    Piece::Text(text) => quotes += text.matches('\'').count(),
                    Piece::Ref(what) if quotes % 2 == 1 => {
                        let message = format!("`{{{{{what}}}}}` is inside quotes");
                        let hint = "values are bound as parameters: leave the quotes out".to_owned();
                        return c.fail(message, Some(hint));
                    }
                    Piece::Ref(_) => {}
                }
            }
            c.template(&step.sql)
        })?;
        match &step.expect {
            Some(matcher) => self.at("expect", |c| c.matcher(matcher)),
            None => Ok(()),
        }
    }

    fn expect(&mut self, expect: &super::Expect) -> Outcome {
        self.at("headers", |c| {
            c.headers(&expect.headers)?;
            for (name, rule) in &expect.headers {
                if let Some(pattern) = header_pattern(rule) {
                    c.at(name, |c| c.pattern(&pattern))?;
                }
            }
            Ok(())
        })?;
        self.at("json", |c| {
            for (path, matcher) in &expect.json {
                c.at(path, |c| {
                    c.json_path(path)?;
                    c.matcher(matcher)
                })?;
            }
            Ok(())
        })?;
        let body = &expect.body;
        self.at("body", |c| {
            c.at("contains", |c| c.each(&body.contains, Self::template))?;
            c.at("not_contains", |c| c.each(&body.not_contains, Self::template))?;
            match &body.matches {
                Some(pattern) => c.at("matches", |c| c.pattern(pattern)),
                None => Ok(()),
            }
        })
    }

    fn capture(&mut self, name: &str, capture: &Capture, label: &str) -> Outcome {
        self.variable_name(name)?;
        if let Some(before) = self.known.get(name) {
            return self.fail(format!("`{name}` already has a value from {before}"), None);
        }
        match capture {
            Capture::Json(path) => self.json_path(path)?,
            Capture::Regex(text) => self.regex(text)?,
            Capture::Header(_) | Capture::Cookie(_) | Capture::Status => {}
        }
        self.known.insert(name.to_owned(), format!("{label:?}"));
        Ok(())
    }

    pub(super) fn variable_name(&self, name: &str) -> Outcome {
        if is_variable_name(name) {
            return Ok(());
        }
        self.fail(
            format!("{name:?} cannot be a variable"),
            Some("use letters, digits, '_' and '-', starting with a letter".into()),
        )
    }

    fn json_path(&self, path: &str) -> Outcome {
        match JsonPath::parse(path) {
            Ok(_) => Ok(()),
            Err(e) => {
                let hint = (!path.starts_with('$')).then(|| format!("a path starts with `$`: $.{path}"));
                self.fail(format!("{path:?} is not a JSONPath: {e}"), hint)
            }
        }
    }

    pub(super) fn regex(&self, text: &str) -> Outcome {
        match Regex::new(text) {
            Ok(_) => Ok(()),
            Err(e) => {
                let why = e.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.fail(format!("{text:?} is not a regular expression: {why}"), None)
            }
        }
    }

    /// A regular expression with placeholders: each stands for some text.
    fn pattern(&mut self, pattern: &Template) -> Outcome {
        self.template(pattern)?;
        let parts = pattern.pieces.iter().map(|p| match p {
            Piece::Text(text) => text.as_str(),
            Piece::Ref(_) => "x",
        });
        self.regex(&parts.collect::<String>())
    }

    fn matcher(&mut self, matcher: &Matcher) -> Outcome {
        for value in matcher.texts() {
            self.value(value)?;
        }
        for pattern in matcher.patterns() {
            self.pattern(pattern)?;
        }
        Ok(())
    }

    fn headers(&mut self, headers: &BTreeMap<String, Template>) -> Outcome {
        for name in headers.keys() {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return self.at(name, |c| c.fail(format!("{name:?} cannot be a header"), None));
            }
        }
        self.templates(headers)
    }

    fn templates(&mut self, map: &BTreeMap<String, Template>) -> Outcome {
        for (name, template) in map {
            self.at(name, |c| c.template(template))?;
        }
        Ok(())
    }

    /// Every template in a JSON value.
    pub(super) fn value(&mut self, value: &Value) -> Outcome {
        match value {
            Value::String(text) => match Template::parse(text) {
                Ok(template) => self.template(&template),
                Err(why) => self.fail(why, None),
            },
            Value::Array(items) => self.each(items, Self::value),
            Value::Object(map) => map.iter().try_for_each(|(k, v)| self.at(k, |c| c.value(v))),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    pub(super) fn template(&mut self, template: &Template) -> Outcome {
        for what in template.refs() {
            match what {
                Ref::RunId => {}
                Ref::Env(name) => self.refer(ReferenceKind::Env, name),
                Ref::Url(service) | Ref::Host(service) | Ref::Port(service, _) => {
                    self.refer(ReferenceKind::Service, service);
                }
                Ref::Var(name) if self.known.contains_key(name) => {}
                Ref::Var(name) => {
                    let known: BTreeSet<&str> = self.known.keys().map(String::as_str).collect();
                    let hint = suggest(name, known.iter().copied()).or_else(|| {
                        Some(match known.len() {
                            0 => "declare it under `vars` or capture it in an earlier step".to_owned(),
                            _ => format!(
                                "known here: {}",
                                known.iter().copied().collect::<Vec<_>>().join(", ")
                            ),
                        })
                    });
                    return self.fail(format!("the variable `{name}` has no value here"), hint);
                }
            }
        }
        Ok(())
    }

    fn refer(&mut self, kind: ReferenceKind, name: &str) {
        let place = self.map.place(&self.path);
        self.references.push(Reference {
            kind,
            name: name.to_owned(),
            line: place.line,
            column: place.column,
        });
    }
}
