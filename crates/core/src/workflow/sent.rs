//! What services must have tried to send out: mails, webhooks, questions for names.

use super::expect::header_pattern;
use super::matcher::compile;
use super::template::{RenderError, Scope, Template};
use crate::egress::{Kind, Sent};
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

/// Something that the services of a staging copy tried to send since the workflow began. Each rule is an exact value, or
/// `~ regex`; those that are left out do not count.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentStep {
    /// `smtp` (a mail), `http`, `https`, `dns`, `tcp` or `udp`.
    pub kind: Kind,
    /// Where to.
    #[serde(default)]
    pub host: Option<Template>,
    /// The method of a request.
    #[serde(default)]
    pub method: Option<Template>,
    /// The path of a request; values of its query are `***`.
    #[serde(default)]
    pub path: Option<Template>,
    /// The sender of a mail.
    #[serde(default)]
    pub sender: Option<Template>,
    /// A recipient of a mail.
    #[serde(default)]
    pub to: Option<Template>,
    /// The subject of a mail.
    #[serde(default)]
    pub subject: Option<Template>,
    /// How often, exactly; 0 for never. At least once, if absent.
    #[serde(default)]
    pub times: Option<u32>,
}

/// A rule with its value.
enum Rule {
    Exactly(String),
    Pattern(Regex),
}

impl Rule {
    fn of(rule: &Template, scope: &Scope<'_>) -> Result<Self, RenderError> {
        Ok(match header_pattern(rule) {
            Some(pattern) => Self::Pattern(compile(&pattern, scope)?),
            None => Self::Exactly(rule.render(scope)?),
        })
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exactly(wanted) => value == wanted,
            Self::Pattern(regex) => regex.is_match(value),
        }
    }
}

/// What a record has of what a rule is about.
fn values<'s>(sent: &'s Sent, name: &str) -> Vec<&'s str> {
    let one = match name {
        "host" => Some(&sent.host),
        "method" => sent.method.as_ref(),
        "path" => sent.path.as_ref(),
        "sender" => sent.sender.as_ref(),
        "subject" => sent.subject.as_ref(),
        _ => return sent.recipients.iter().map(String::as_str).collect(),
    };
    one.map(String::as_str).into_iter().collect()
}

impl SentStep {
    /// Its rules with their names.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        [
            ("host", &self.host),
            ("method", &self.method),
            ("path", &self.path),
            ("sender", &self.sender),
            ("to", &self.to),
            ("subject", &self.subject),
        ]
        .into_iter()
        .filter_map(|(name, rule)| Some((name, rule.as_ref()?)))
    }

    /// How many of the records it means.
    pub fn count(&self, records: &[Sent], since_ms: i64, scope: &Scope<'_>) -> Result<usize, RenderError> {
        let rules: Vec<(&str, Rule)> = self
            .rules()
            .map(|(name, rule)| Ok((name, Rule::of(rule, scope)?)))
            .collect::<Result<_, RenderError>>()?;
        let fits = |sent: &&Sent| {
            sent.kind == self.kind
                && sent.at_ms >= since_ms
                && rules.iter().all(|(name, rule)| values(sent, name).iter().any(|value| rule.holds(value)))
        };
        Ok(records.iter().filter(fits).count())
    }

    /// Whether a count is right.
    pub fn is_right(&self, count: usize) -> bool {
        self.times.map_or(count > 0, |times| count == times as usize)
    }

    /// What is expected, in words.
    pub fn wanted(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        let mut text = match self.times {
            None => format!("at least one {}", self.kind.as_str()),
            Some(n) => format!("exactly {n} of kind {}", self.kind.as_str()),
        };
        for (name, rule) in self.rules() {
            text.push_str(&format!(", {name} {}", rule.render(scope)?));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn records_are_told_apart_by_every_rule_and_by_time() {
        let mut mail = Sent::new(Kind::Smtp, "app", "mail.example.com", 25);
        mail.at_ms = 100;
        mail.recipients = vec!["anna@example.com".into(), "ben@example.com".into()];
        mail.subject = Some("Order 17".into());
        let mut hook = Sent::new(Kind::Http, "app", "hooks.example.com", 80);
        (hook.at_ms, hook.method, hook.path) = (100, Some("POST".into()), Some("/paid?key=***".into()));
        let records = [mail, hook];
        let endpoints = BTreeMap::new();
        let scope = Scope {
            run_id: "r",
            endpoints: &endpoints,
            env: &|_| None,
            vars: BTreeMap::from([("who".into(), "ben@example.com".into())]),
        };
        let step = |text: &str| serde_yaml_ng::from_str::<SentStep>(text).expect(text);
        let count = |text: &str, since| step(text).count(&records, since, &scope).expect("renders");
        assert_eq!(count("{ kind: smtp }", 0), 1);
        assert_eq!(count("{ kind: smtp }", 101), 0, "before the workflow began");
        assert_eq!(count("{ kind: smtp, to: '{{who}}', subject: '~ ^Order \\d+$' }", 0), 1);
        assert_eq!(count("{ kind: smtp, to: carol@example.com }", 0), 0);
        assert_eq!(count("{ kind: http, host: hooks.example.com, method: POST, path: '~ ^/paid' }", 0), 1);
        assert_eq!(count("{ kind: http, subject: x }", 0), 0, "what is not there fits no rule");
        assert!(step("{ kind: udp, times: 0 }").is_right(0) && !step("{ kind: udp }").is_right(0));
        assert!(!step("{ kind: udp, times: 2 }").is_right(3));
    }
}
