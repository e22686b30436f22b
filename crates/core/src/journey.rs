//! Journeys: what a person does in a browser, as a file. Parsing and rules; a browser is the engine's.

use crate::duration::Span;
use crate::workflow::{Template, WorkflowError};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A journey of more text than this is a mistake.
const MAX_BYTES: usize = 1 << 20;
const MAX_STEPS: usize = 200;

/// A journey.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Journey {
    /// One line for reports; by default the file's name.
    #[serde(default)]
    pub name: String,
    /// Limit for all of it.
    #[serde(default = "minute")]
    pub timeout: Span,
    /// Headers of every request; placeholders as in workflows.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// Errors in the console, failed requests and exceptions that contain one of these texts are tolerated.
    #[serde(default)]
    pub tolerate: Vec<String>,
    /// Parts of the page that differ every time (a clock, a name with the run's id), as CSS selectors: pictures do not show them.
    #[serde(default)]
    pub mask: Vec<String>,
    /// What it means if the new version looks otherwise.
    #[serde(default)]
    pub look: LookRule,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// What it means if pages of the new version look otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LookRule {
    /// The report shows it.
    #[default]
    Shown,
    /// It is a failure, unless a person approved exactly this look.
    Same,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

/// One step; exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Step {
    /// Goes to an address, such as `{{app.url}}/`.
    Open(Template),
    /// Clicks on something, which must be visible and not covered.
    Click(Target),
    /// Types into a field, in place of what is in it.
    Fill(Fill),
    /// Presses a key: `Enter`, `Tab`, `Escape`.
    Press(Key),
    /// Waits until something is so.
    Expect(Expect),
    /// Waits until something is no longer so.
    ExpectNot(Expect),
    /// Keeps a picture under this name.
    Screenshot(String),
}

/// What is meant: by a CSS selector, by the text on it, or by both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A CSS selector.
    #[serde(default)]
    pub css: Option<Template>,
    /// The text of it, or the name that it has for a screen reader; the smallest element that has it.
    #[serde(default)]
    pub text: Option<Template>,
}

/// What is typed where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// A CSS selector.
    pub css: Template,
    /// The text.
    pub value: Template,
}

/// Keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Key {
    /// Sends a form.
    Enter,
    /// Goes on to the next field.
    Tab,
    /// Closes what is open.
    Escape,
}

/// What has to be so; at least one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// A text is on the page, where it can be seen.
    #[serde(default)]
    pub text: Option<Template>,
    /// An element can be seen.
    #[serde(default)]
    pub css: Option<Template>,
    /// The address contains this.
    #[serde(default)]
    pub url: Option<Template>,
    /// The title contains this.
    #[serde(default)]
    pub title: Option<Template>,
    /// An element has this role (ARIA).
    #[serde(default)]
    pub role: Option<String>,
}

impl Step {
    /// What is done, in words; secrets are in templates, so these are shown as they were written.
    pub fn words(&self) -> String {
        match self {
            Self::Open(_) => "open".to_owned(),
            Self::Click(_) => "click".to_owned(),
            Self::Fill(_) => "fill".to_owned(),
            Self::Press(key) => format!("press {key:?}"),
            Self::Expect(_) => "expect".to_owned(),
            Self::ExpectNot(_) => "expect not".to_owned(),
            Self::Screenshot(name) => format!("screenshot {name}"),
        }
    }
}

impl Journey {
    /// Reads and checks a file; it is only named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkflowError> {
        let error = |line: usize, message: String, hint: &str| WorkflowError {
            file: file.to_owned(),
            line,
            column: 1,
            message,
            hint: Some(hint.to_owned()),
        };
        let hint = "see docs/upgrade-infrastructure/testing/browser.md for the format";
        if text.len() > MAX_BYTES {
            return Err(error(1, "the file is larger than 1 MiB".to_owned(), hint));
        }
        // Written as in JSON, `open: x`; the YAML library wants tags for enums.
        let plain: serde_json::Value = serde_yaml_ng::from_str(text).map_err(|e| {
            let line = e.location().map_or(1, |l| l.line());
            error(line, e.to_string(), hint)
        })?;
        let journey: Self = serde_json::from_value(plain).map_err(|e| error(1, e.to_string(), hint))?;
        if journey.steps.is_empty() || journey.steps.len() > MAX_STEPS {
            return Err(error(1, format!("a journey has 1 to {MAX_STEPS} steps"), hint));
        }
        if !matches!(journey.steps.first(), Some(Step::Open(_))) {
            return Err(error(1, "the first step must be `open`".to_owned(), hint));
        }
        for (index, step) in journey.steps.iter().enumerate() {
            let at = format!("step {}", index + 1);
            match step {
                Step::Click(target) if target.css.is_none() && target.text.is_none() => {
                    return Err(error(1, format!("{at}: `click` needs `css` or `text`"), hint));
                }
                Step::Expect(e) | Step::ExpectNot(e) if *e == Expect::default() => {
                    return Err(error(1, format!("{at}: nothing is expected"), hint));
                }
                Step::Screenshot(name)
                    if name.is_empty()
                        || name.len() > 60
                        || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_') =>
                {
                    let message = format!("{at}: {name:?} is no name of a picture");
                    return Err(error(1, message, "use letters, digits, `-` and `_`"));
                }
                _ => {}
            }
        }
        Ok(journey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journey_is_read_with_all_its_steps() {
        let text = "name: notes\ntimeout: 20s\nheaders: { X-A: '{{env.TOKEN}}' }\nsteps:\n  - open: '{{app.url}}/'\n  - fill: { css: '#t', value: hello }\n  - click: { text: Add }\n  - press: Enter\n  - expect: { text: hello, url: /x }\n  - expect_not: { css: .error }\n  - screenshot: after\n";
        let journey = Journey::parse("j.yaml", text).expect("a journey");
        assert_eq!(journey.steps.len(), 7);
        assert_eq!(journey.timeout, Span::secs(20));
        assert_eq!(journey.steps[3], Step::Press(Key::Enter));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, word) in [
            ("steps: []", "1 to 200"),
            ("steps:\n  - click: { text: a }", "must be `open`"),
            ("steps:\n  - open: x\n  - click: {}", "needs `css` or `text`"),
            ("steps:\n  - open: x\n  - expect: {}", "nothing is expected"),
            ("steps:\n  - open: x\n  - screenshot: ../x", "no name"),
            ("steps:\n  - open: x\n  - jump: y", "jump"),
            ("steps:\n  - open: '{{a'", "}}"),
            ("steps: [", "line"),
        ] {
            let error = Journey::parse("j.yaml", text).expect_err(text).to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
