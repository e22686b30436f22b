//! Judging a response.

use super::capture::select;
use super::matcher::compile;
use super::model::Expect;
use super::redact::Redactor;
use super::response::Response;
use super::template::{Piece, RenderError, Scope, Template};
use crate::check::Failure;
use crate::duration::human_ms;
use serde_json_path::JsonPath;

/// Lists everything about a response that is not as expected; empty when all is well.
///
/// `at` is the step's name. The error means that an expectation could not be worked out (a variable
/// without a value), not that the response is wrong.
pub fn evaluate(
    expect: &Expect,
    response: &Response,
    scope: &Scope<'_>,
    redactor: &Redactor,
    at: &str,
) -> Result<Vec<Failure>, RenderError> {
    let mut judge = Judge { response, scope, redactor, at, failures: Vec::new() };
    judge.status(expect);
    judge.headers(expect)?;
    judge.json(expect)?;
    judge.body(expect)?;
    judge.time(expect);
    Ok(judge.failures)
}

struct Judge<'a> {
    response: &'a Response,
    scope: &'a Scope<'a>,
    redactor: &'a Redactor,
    at: &'a str,
    failures: Vec<Failure>,
}

impl Judge<'_> {
    fn fail(&mut self, what: impl Into<String>, expected: &str, got: &str) {
        self.failures.push(Failure {
            at: self.at.to_owned(),
            what: self.redactor.show(&what.into()),
            expected: Some(self.redactor.show(expected)),
            got: Some(self.redactor.show(got)),
            reproduce: None,
        });
    }

    fn status(&mut self, expect: &Expect) {
        let status = self.response.status;
        let (ok, expected) = match &expect.status {
            Some(wanted) => (wanted.accepts(status), wanted.to_string()),
            None => ((200..400).contains(&status), "2xx or 3xx".to_owned()),
        };
        if !ok {
            let mut got = status.to_string();
            if let Some(to) = self.response.header("location").next() {
                got += &format!(" to {to}");
            }
            if !self.response.body.is_empty() {
                got += &format!(": {}", self.response.text());
            }
            self.fail("wrong status", &expected, &got);
        }
    }

    fn headers(&mut self, expect: &Expect) -> Result<(), RenderError> {
        for (name, wanted) in &expect.headers {
            let values: Vec<&str> = self.response.header(name).collect();
            let (ok, expected) = match header_pattern(wanted) {
                Some(pattern) => {
                    let regex = compile(&pattern, self.scope)?;
                    (values.iter().any(|v| regex.is_match(v)), format!("matches {}", regex.as_str()))
                }
                None => {
                    let text = wanted.render(self.scope)?;
                    (values.contains(&text.as_str()), text)
                }
            };
            if !ok {
                let got = if values.is_empty() { "no such header".to_owned() } else { values.join(", ") };
                self.fail(format!("wrong header {name}"), &expected, &got);
            }
        }
        Ok(())
    }

    fn json(&mut self, expect: &Expect) -> Result<(), RenderError> {
        if expect.json.is_empty() {
            return Ok(());
        }
        let response = self.response;
        let document = match response.json() {
            Ok(document) => document,
            Err(why) => {
                let got = format!("{why}: {}", response.text());
                self.fail("the body is not JSON", "JSON", &got);
                return Ok(());
            }
        };
        for (text, matcher) in &expect.json {
            let path = JsonPath::parse(text)
                .map_err(|e| RenderError::Unusable(format!("{text:?} is not a JSONPath: {e}")))?;
            let found = select(&path, text, document);
            if let Some(wrong) = matcher.judge(found.value(), self.scope)? {
                self.fail(format!("wrong value at {text}"), &wrong.expected, &wrong.got);
            }
        }
        Ok(())
    }

    fn body(&mut self, expect: &Expect) -> Result<(), RenderError> {
        let rules = &expect.body;
        if rules.contains.is_empty() && rules.not_contains.is_empty() && rules.matches.is_none() {
            return Ok(());
        }
        let body = self.response.text();
        for wanted in &rules.contains {
            let text = wanted.render(self.scope)?;
            if !body.contains(&text) {
                self.fail("the body lacks a text", &text, &body);
            }
        }
        for unwanted in &rules.not_contains {
            let text = unwanted.render(self.scope)?;
            if let Some(at) = body.find(&text) {
                let from = body[..at].char_indices().rev().nth(60).map_or(0, |(i, _)| i);
                self.fail("the body holds a text it must not", &format!("no {text:?}"), &body[from..]);
            }
        }
        if let Some(pattern) = &rules.matches {
            let regex = compile(pattern, self.scope)?;
            if !regex.is_match(&body) {
                self.fail("the body does not match", &format!("matches {}", regex.as_str()), &body);
            }
        }
        Ok(())
    }

    fn time(&mut self, expect: &Expect) {
        let Some(max) = expect.max else { return };
        let took = u64::try_from(self.response.elapsed.as_millis()).unwrap_or(u64::MAX);
        if self.response.elapsed > max.0 {
            self.fail("too slow", &format!("at most {}", human_ms(max.as_millis())), &human_ms(took));
        }
    }
}

/// The regular expression of a header rule `~ regex`; `None` for an exact value.
pub(super) fn header_pattern(rule: &Template) -> Option<Template> {
    let mut pieces = rule.pieces.clone();
    match pieces.first_mut() {
        Some(Piece::Text(text)) => *text = text.strip_prefix('~')?.trim_start().to_owned(),
        _ => return None,
    }
    Some(Template { pieces })
}
