//! Keywords of a schema that are compared as they are, without knowing what they mean: one that is added narrows, one that goes away
//! widens, and of one that changed nobody can say which.

use super::Level;
use super::schema::{Comparison, Direction, Subject};
use super::view::View;
use serde_json::{Map, Value};

/// Keywords, and what rules call them.
pub(super) const PLAIN: [(&str, &str); 15] = [
    ("contains", "contains"),
    ("contentEncoding", "content-encoding"),
    ("contentMediaType", "content-media-type"),
    ("contentSchema", "content-schema"),
    ("dependentRequired", "dependent-required"),
    ("dependentSchemas", "dependent-schema"),
    ("else", "else"),
    ("if", "if"),
    ("not", "not"),
    ("patternProperties", "pattern-property"),
    ("prefixItems", "prefix-items"),
    ("propertyNames", "property-names"),
    ("then", "then"),
    ("unevaluatedItems", "unevaluated-items"),
    ("unevaluatedProperties", "unevaluated-properties"),
];

impl Comparison<'_> {
    /// Compares what [`PLAIN`] names, and `multipleOf`, `uniqueItems` and `pattern`.
    pub(super) fn keywords(
        &mut self,
        old: &View<'_>,
        new: &View<'_>,
        direction: Direction,
        subject: &Subject,
    ) {
        for (keyword, word) in PLAIN {
            let what = |end: &str| format!("`{keyword}` of {} {end}", subject.words());
            match (said(old, keyword), said(new, keyword), direction) {
                (None, Some(_), Direction::Request) => {
                    self.rule(Level::Error, direction, subject, word, "added", what("is new"));
                }
                (Some(_), None, Direction::Response) => {
                    self.rule(Level::Error, direction, subject, word, "removed", what("is gone"));
                }
                (Some(a), Some(b), _) if a != b => {
                    self.rule(Level::Warning, direction, subject, word, "changed", what("is another one"));
                }
                _ => {}
            }
        }
        self.multiple(old, new, direction, subject);
        self.unique(old, new, direction, subject);
        self.pattern(old, new, direction, subject);
    }

    fn rule(
        &mut self,
        level: Level,
        direction: Direction,
        subject: &Subject,
        word: &str,
        end: &str,
        what: String,
    ) {
        self.say(level, format!("{}-{word}-{end}", subject.rule(direction)), what);
    }

    fn multiple(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let number = |v: &View<'_>| v.keywords.get("multipleOf").and_then(Value::as_f64);
        let (from, to) = match direction {
            Direction::Request => (number(old), number(new)),
            Direction::Response => (number(new), number(old)),
        };
        // What may be said must be a multiple of what the other side expects.
        let Some(wanted) = to else { return };
        let words = |n: Option<f64>| n.map_or_else(|| "anything".to_owned(), |n| n.to_string());
        let end = match (from, direction) {
            (None, Direction::Request) => "set",
            (None, Direction::Response) => "unset",
            (Some(said), _) if fits(said, wanted) => return,
            (Some(_), _) => "changed",
        };
        let (was, is) = (words(number(old)), words(number(new)));
        let what = format!("{} was a multiple of {was} and is one of {is}", subject.words());
        self.rule(Level::Error, direction, subject, "multiple-of", end, what);
    }

    fn unique(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let unique = |v: &View<'_>| v.keywords.get("uniqueItems") == Some(&Value::Bool(true));
        let (end, what) = match (unique(old), unique(new), direction) {
            (false, true, Direction::Request) => ("set", "may no longer say the same twice"),
            (true, false, Direction::Response) => ("unset", "may say the same twice now"),
            _ => return,
        };
        let what = format!("{} {what}", subject.words());
        self.rule(Level::Error, direction, subject, "unique-items", end, what);
    }

    fn pattern(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let words = subject.words();
        match (said(old, "pattern"), said(new, "pattern"), direction) {
            (None, Some(now), Direction::Request) => {
                let what = format!("{words} has to match {now} now");
                self.rule(Level::Error, direction, subject, "pattern", "added", what);
            }
            (Some(before), None, Direction::Response) => {
                let what = format!("{words} no longer has to match {before}");
                self.rule(Level::Error, direction, subject, "pattern", "removed", what);
            }
            (Some(before), Some(now), _) if before != now => {
                // Everything matches these.
                let wider = if direction == Direction::Request { now } else { before };
                if !wider.as_str().is_some_and(|p| matches!(p, ".*" | "^.*$" | "")) {
                    let what = format!("{words} had to match {before} and has to match {now}");
                    self.rule(Level::Warning, direction, subject, "pattern", "changed", what);
                }
            }
            _ => {}
        }
    }

    /// By which property clients tell alternatives apart, and what its values stand for.
    pub(super) fn discriminator(
        &mut self,
        old: &View<'_>,
        new: &View<'_>,
        direction: Direction,
        subject: &Subject,
    ) {
        let of = |v: &View<'_>| v.keywords.get("discriminator").and_then(Value::as_object).cloned();
        let words = subject.words();
        let word = "discriminator";
        let (before, after) = match (of(old), of(new)) {
            (Some(before), Some(after)) => (before, after),
            (None, Some(_)) if direction == Direction::Request => {
                let what = format!("the alternatives of {words} are told apart by a property now");
                return self.rule(Level::Warning, direction, subject, word, "added", what);
            }
            (Some(_), None) if direction == Direction::Response => {
                let what = format!("the alternatives of {words} are no longer told apart by a property");
                return self.rule(Level::Warning, direction, subject, word, "removed", what);
            }
            _ => return,
        };
        let name = |d: &Map<String, Value>| {
            d.get("propertyName").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (was, is) = (name(&before), name(&after));
        if was != is {
            let what = format!("the alternatives of {words} were told apart by `{was}` and are by `{is}`");
            self.rule(Level::Error, direction, subject, word, "property-name-changed", what);
        }
        let mapping =
            |d: &Map<String, Value>| d.get("mapping").and_then(Value::as_object).cloned().unwrap_or_default();
        let (was, is) = (mapping(&before), mapping(&after));
        for (value, target) in &was {
            match is.get(value) {
                None if direction == Direction::Request => {
                    let what = format!("{words} no longer takes {value:?} as a kind");
                    self.rule(Level::Error, direction, subject, word, "mapping-deleted", what);
                }
                Some(other) if other != target => {
                    let what = format!("{value:?} stands for another kind of {words} now");
                    self.rule(Level::Error, direction, subject, word, "mapping-changed", what);
                }
                _ => {}
            }
        }
        if direction == Direction::Response {
            for value in is.keys().filter(|value| !was.contains_key(*value)) {
                let what = format!("{words} may be of the kind {value:?} now");
                self.rule(Level::Warning, direction, subject, word, "mapping-added", what);
            }
        }
    }
}

/// A keyword's value, unless it says nothing: `unevaluatedProperties: true`, an empty list or object.
fn said<'v>(view: &'v View<'_>, keyword: &str) -> Option<&'v Value> {
    view.keywords.get(keyword).filter(|value| match value {
        Value::Bool(allowed) => !allowed,
        Value::Object(body) => !body.is_empty() || keyword == "not",
        Value::Array(list) => !list.is_empty(),
        _ => true,
    })
}

/// Whether every multiple of one number is one of another.
fn fits(number: f64, of: f64) -> bool {
    let times = number / of;
    of != 0.0 && (times - times.round()).abs() < 1e-9
}
