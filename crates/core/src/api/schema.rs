//! Schemas: comparing two of them in one direction.
//!
//! A client sends what the old schema allows: a request breaks where the new one allows less. It reads what the old schema
//! promised: a response breaks where the new one allows more.

use super::bounds::{BOUNDS, number};
use super::document::Document;
use super::view::View;
use super::{Change, Level};
use serde_json::Value;
use std::collections::BTreeSet;

/// Schemas within schemas; deeper ones are not looked at.
pub(super) const DEPTH: usize = 48;
/// Pairs of schemas that are compared in one operation; more is a document made to be slow.
const PAIRS: usize = 20_000;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// What is compared, for the names of rules and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A parameter: where it is, and its name.
    Parameter(String, String),
    /// The body itself.
    Body,
    /// A property of it, by path.
    Property(String),
    /// A header of a response.
    Header(String),
}

/// Collects changes of one operation.
pub(super) struct Comparison<'a> {
    pub old: &'a Document,
    pub new: &'a Document,
    pub operation: String,
    pub changes: Vec<Change>,
    /// Added to what is said: the status of a response.
    pub context: String,
    seen: BTreeSet<(usize, usize)>,
    pairs: usize,
}

impl<'a> Comparison<'a> {
    pub fn new(old: &'a Document, new: &'a Document, operation: String) -> Self {
        let (changes, seen) = (Vec::new(), BTreeSet::new());
        Self { old, new, operation, changes, context: String::new(), seen, pairs: 0 }
    }

    pub fn say(&mut self, level: Level, rule: impl Into<String>, what: impl Into<String>) {
        let what = format!("{}{}", what.into(), self.context);
        self.changes.push(Change { level, rule: rule.into(), operation: self.operation.clone(), what });
    }

    /// Compares two schemas.
    pub fn schemas(&mut self, old: &'a Value, new: &'a Value, direction: Direction, subject: &Subject) {
        self.seen.clear();
        self.pair(old, new, direction, subject, 0);
    }

    fn pair(
        &mut self,
        old: &'a Value,
        new: &'a Value,
        direction: Direction,
        subject: &Subject,
        depth: usize,
    ) {
        let (Some(old), Some(new)) = (self.old.resolve(old), self.new.resolve(new)) else { return };
        let key = (std::ptr::from_ref(old) as usize, std::ptr::from_ref(new) as usize);
        self.pairs += 1;
        if depth > DEPTH || self.pairs > PAIRS || !self.seen.insert(key) {
            return;
        }
        let (Some(before), Some(after)) = (View::of(self.old, old, depth), View::of(self.new, new, depth))
        else {
            return;
        };
        self.types(&before, &after, direction, subject);
        self.enums(&before, &after, direction, subject);
        self.bounds(&before, &after, direction, subject);
        self.keywords(&before, &after, direction, subject);
        self.discriminator(&before, &after, direction, subject);
        self.alternatives(&before, &after, direction, subject, depth);
        if direction == Direction::Request && !matches!(subject, Subject::Parameter(..)) {
            self.default(&before, &after, subject);
        }
        self.properties(&before, &after, direction, subject, depth);
        if let (Some(a), Some(b)) = (before.items, after.items) {
            self.pair(a, b, direction, &subject.below("[]"), depth + 1);
        }
        if let (Some(a), Some(b)) = (before.rest, after.rest) {
            self.pair(a, b, direction, &subject.below("{}"), depth + 1);
        }
    }

    fn types(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let prefix = subject.rule(direction);
        let (from, to) = match direction {
            Direction::Request => (old, new),
            Direction::Response => (new, old),
        };
        // What may be said before (or is said now) must be allowed by the other.
        let nullable = from.nullable && !to.nullable;
        if !to.types.is_empty() && (from.types.is_empty() || from.types.iter().any(|t| !to.takes(t))) {
            let words = |v: &View<'_>| {
                let list: Vec<&str> = v.types.iter().map(String::as_str).collect();
                if list.is_empty() { "anything".to_owned() } else { list.join(" or ") }
            };
            let what = format!("{} was {} and is {}", subject.words(), words(old), words(new));
            self.say(Level::Error, format!("{prefix}-type-changed"), what);
        } else if old.format != new.format && !(narrower(from.format, to.format)) {
            let word = |f: Option<&str>| f.unwrap_or("none").to_owned();
            let what = format!(
                "the format of {} was {} and is {}",
                subject.words(),
                word(old.format),
                word(new.format)
            );
            self.say(Level::Error, format!("{prefix}-type-changed"), what);
        }
        if nullable && !from.types.is_empty() {
            let (word, what) = match direction {
                Direction::Request => ("became-not-nullable", "may no longer be null"),
                Direction::Response => ("became-nullable", "may be null now"),
            };
            self.say(Level::Error, format!("{prefix}-{word}"), format!("{} {what}", subject.words()));
        }
    }

    fn enums(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let prefix = subject.rule(direction);
        match (&old.values, &new.values, direction) {
            (None, Some(_), Direction::Request) => {
                let what = format!("{} is restricted to a list of values now", subject.words());
                self.say(Level::Error, format!("{prefix}-became-enum"), what);
            }
            (Some(_), None, Direction::Response) => {
                let what = format!("{} is no longer restricted to a list of values", subject.words());
                self.say(Level::Warning, format!("{prefix}-enum-value-added"), what);
            }
            (Some(a), Some(b), _) => {
                let (gone, added): (Vec<_>, Vec<_>) = (
                    a.iter().filter(|v| !b.contains(v)).collect(),
                    b.iter().filter(|v| !a.contains(v)).collect(),
                );
                if direction == Direction::Request {
                    for value in gone {
                        let what = format!("{} no longer takes {value}", subject.words());
                        self.say(Level::Error, format!("{prefix}-enum-value-removed"), what);
                    }
                } else {
                    for value in added {
                        let what = format!("{} may be {value} now", subject.words());
                        self.say(Level::Warning, format!("{prefix}-enum-value-added"), what);
                    }
                }
            }
            _ => {}
        }
    }

    fn bounds(&mut self, old: &View<'_>, new: &View<'_>, direction: Direction, subject: &Subject) {
        let prefix = subject.rule(direction);
        for bound in &BOUNDS {
            let (a, b) = (number(&old.keywords, bound.keyword), number(&new.keywords, bound.keyword));
            let (level, word) = match (a, b, direction) {
                (None, Some(_), Direction::Request) => (Level::Error, "set"),
                (Some(_), None, Direction::Response) => (Level::Error, "unset"),
                (Some(a), Some(b), _) if (a - b).abs() > f64::EPSILON => {
                    let raised = b > a;
                    let narrower = raised != bound.upper;
                    if narrower != (direction == Direction::Request) {
                        continue;
                    }
                    (Level::Error, if raised { "increased" } else { "decreased" })
                }
                _ => continue,
            };
            let text = |n: Option<f64>| n.map_or_else(|| "not limited".to_owned(), |n| n.to_string());
            let what =
                format!("`{}` of {} was {} and is {}", bound.keyword, subject.words(), text(a), text(b));
            self.say(level, format!("{prefix}-{}-{word}", bound.word), what);
        }
    }

    fn default(&mut self, old: &View<'_>, new: &View<'_>, subject: &Subject) {
        let value = |v: &View<'_>| v.keywords.get("default").cloned();
        let (a, b) = (value(old), value(new));
        let prefix = subject.rule(Direction::Request);
        match (a, b) {
            (Some(a), Some(b)) if a != b => {
                let what = format!("without {}, {b} is taken instead of {a}", subject.words());
                self.say(Level::Error, format!("{prefix}-default-value-changed"), what);
            }
            (Some(a), None) => {
                let what = format!("without {}, {a} is no longer taken", subject.words());
                self.say(Level::Error, format!("{prefix}-default-value-removed"), what);
            }
            _ => {}
        }
    }

    fn alternatives(
        &mut self,
        old: &View<'a>,
        new: &View<'a>,
        direction: Direction,
        subject: &Subject,
        depth: usize,
    ) {
        for (keyword, word) in [("oneOf", "one-of"), ("anyOf", "any-of")] {
            let list = |v: &View<'a>| -> Vec<&'a Value> { v.alternatives(keyword) };
            let (a, b) = (list(old), list(new));
            if a.is_empty() || b.is_empty() {
                continue;
            }
            let same = |x: &Value, y: &Value| match (x.get("$ref"), y.get("$ref")) {
                (Some(x), Some(y)) => x == y,
                _ => x == y,
            };
            let (mut gone, mut added) = (
                a.iter().filter(|x| !b.iter().any(|y| same(x, y))).copied().collect::<Vec<_>>(),
                b.iter().filter(|y| !a.iter().any(|x| same(x, y))).copied().collect::<Vec<_>>(),
            );
            for x in &a {
                if let Some(y) = b.iter().find(|y| same(x, y)) {
                    self.pair(x, y, direction, subject, depth + 1);
                }
            }
            // Inline ones have no name: they are taken in order.
            while !gone.is_empty() && !added.is_empty() {
                let (x, y) = (gone.remove(0), added.remove(0));
                self.pair(x, y, direction, subject, depth + 1);
            }
            let prefix = subject.rule(direction);
            let count = if direction == Direction::Request { gone.len() } else { added.len() };
            if count > 0 {
                let (what, end) = match direction {
                    Direction::Request => ("takes fewer alternatives", "removed"),
                    Direction::Response => ("has more alternatives", "added"),
                };
                let what = format!("{} {what} ({keyword})", subject.words());
                self.say(Level::Error, format!("{prefix}-{word}-{end}"), what);
            }
        }
    }

    fn properties(
        &mut self,
        old: &View<'a>,
        new: &View<'a>,
        direction: Direction,
        subject: &Subject,
        depth: usize,
    ) {
        let unseen = if direction == Direction::Request { "readOnly" } else { "writeOnly" };
        let hidden = |document: &Document, schema: &Value| {
            let found = document.resolve(schema).and_then(|s| s.get(unseen));
            found == Some(&Value::Bool(true))
        };
        for (name, before) in &old.properties {
            let below = subject.below(name);
            let was_hidden = hidden(self.old, before);
            let Some(after) = new.properties.get(name) else {
                if !was_hidden {
                    self.removed(old.required.contains(name), direction, &below);
                }
                continue;
            };
            let is_hidden = hidden(self.new, after);
            match direction {
                Direction::Request
                    if !is_hidden
                        && new.required.contains(name)
                        && (!old.required.contains(name) || was_hidden) =>
                {
                    let rule = "request-property-became-required";
                    self.say(Level::Error, rule, format!("{} is required now", below.words()));
                }
                Direction::Response if !was_hidden && old.required.contains(name) => {
                    if is_hidden {
                        let rule = "response-required-property-became-write-only";
                        self.say(Level::Error, rule, format!("{} is no longer answered", below.words()));
                    } else if !new.required.contains(name) {
                        let rule = "response-property-became-optional";
                        self.say(Level::Error, rule, format!("{} may be missing now", below.words()));
                    }
                }
                _ => {}
            }
            if !was_hidden && !is_hidden {
                self.pair(before, after, direction, &below, depth + 1);
            }
        }
        if direction == Direction::Request {
            for (name, after) in new.properties.iter().filter(|(n, _)| !old.properties.contains_key(*n)) {
                if new.required.contains(name) && !hidden(self.new, after) {
                    let default = self.new.resolve(after).is_some_and(|s| s.get("default").is_some());
                    let rule = if default {
                        "new-required-request-property-with-default"
                    } else {
                        "new-required-request-property"
                    };
                    let level = if default { Level::Warning } else { Level::Error };
                    let what = format!("{} is new and required", subject.below(name).words());
                    self.say(level, rule, what);
                }
            }
            if !old.closed && new.closed {
                let what = format!("{} takes no further properties now", subject.words());
                self.say(
                    Level::Error,
                    format!("{}-additional-properties-forbidden", subject.rule(direction)),
                    what,
                );
            }
        }
    }

    fn removed(&mut self, required: bool, direction: Direction, below: &Subject) {
        match (direction, required) {
            (Direction::Request, _) => {
                let what = format!("{} is no longer known", below.words());
                self.say(Level::Warning, "request-property-removed", what);
            }
            (Direction::Response, true) => {
                let what = format!("{} is no longer answered", below.words());
                self.say(Level::Error, "response-required-property-removed", what);
            }
            (Direction::Response, false) => {
                let what = format!("{} is no longer answered", below.words());
                self.say(Level::Warning, "response-optional-property-removed", what);
            }
        }
    }
}

/// Whether everything of one format is also of another.
fn narrower(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (_, None) => true,
        (Some("int32"), Some("int64")) | (Some("float"), Some("double")) => true,
        (a, b) => a == b,
    }
}

impl Subject {
    fn below(&self, name: &str) -> Self {
        match self {
            Self::Property(path) => Self::Property(format!("{path}/{name}")),
            Self::Body => Self::Property(name.to_owned()),
            Self::Parameter(place, path) => Self::Parameter(place.clone(), format!("{path}/{name}")),
            Self::Header(path) => Self::Header(format!("{path}/{name}")),
        }
    }

    pub fn rule(&self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Parameter(..), _) => "request-parameter",
            (Self::Header(_), _) => "response-header",
            (Self::Body, Direction::Request) => "request-body",
            (Self::Body, Direction::Response) => "response-body",
            (Self::Property(_), Direction::Request) => "request-property",
            (Self::Property(_), Direction::Response) => "response-property",
        }
    }

    pub fn words(&self) -> String {
        match self {
            Self::Parameter(place, name) => format!("the {place} parameter `{name}`"),
            Self::Header(name) => format!("the header `{name}`"),
            Self::Body => "the body".to_owned(),
            Self::Property(path) => format!("`{path}`"),
        }
    }
}
