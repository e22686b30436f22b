//! What a value must be like: `exists`, a plain value, or a map of operators.

use super::redact::Redactor;
use super::template::{RenderError, Scope, Template, as_text};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The operators, in the order they are offered in error messages.
const OPERATORS: &[&str] =
    &["equals", "not", "length", "contains", "matches", "type", "exists", ">", ">=", "<", "<="];

/// A rule on one value.
///
/// `exists` and `absent` as bare words; any other plain value must be equal (`1` equals `1.0`, but
/// never `"1"`); a map holds operators that must all hold. Use `{equals: ...}` for a literal map.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(with = "Value")]
pub enum Matcher {
    /// There is something, even null.
    Exists,
    /// There is nothing.
    Absent,
    /// All of these hold.
    All(Vec<Test>),
}

/// One operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Equal.
    Equals(Value),
    /// Not equal.
    Not(Value),
    /// Characters, items or keys.
    Length(Vec<(Order, Value)>),
    /// The string contains the text, or the array the item.
    Contains(Value),
    /// The string matches the regular expression.
    Matches(Template),
    /// Of this JSON type.
    Type(JsonType),
    /// Something, or nothing, is there.
    Exists(bool),
    /// Ordered against a number or a text.
    Compare(Order, Value),
}

/// An order relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `=`
    Same,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `<`
    Less,
    /// `<=`
    AtMost,
}

impl Order {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            ">" => Self::More,
            ">=" => Self::AtLeast,
            "<" => Self::Less,
            "<=" => Self::AtMost,
            _ => return None,
        })
    }
    fn sign(self) -> &'static str {
        match self {
            Self::Same => "=",
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Less => "<",
            Self::AtMost => "<=",
        }
    }
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Same => order.is_eq(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
        }
    }
}

/// The types of JSON; `integer` is a number without a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonType {
    /// Text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// true or false.
    Boolean,
    /// A list.
    Array,
    /// A map.
    Object,
    /// null.
    Null,
}

impl JsonType {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
            Self::Null => "null",
        }
    }
    /// The type of a value (never `integer`).
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }
    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
            }
            other => other == Self::of(value),
        }
    }
}

/// Deep equality in which `1` equals `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y
                || match (x.as_i64(), y.as_i64(), x.as_u64(), y.as_u64()) {
                    (Some(x), Some(y), ..) => x == y,
                    (.., Some(x), Some(y)) => x == y,
                    _ => x.as_f64() == y.as_f64(),
                }
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64()?.partial_cmp(&y.as_f64()?),
        },
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        _ => None,
    }
}

fn length(value: &Value) -> Option<u64> {
    let n = match value {
        Value::String(s) => s.chars().count(),
        Value::Array(a) => a.len(),
        Value::Object(o) => o.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    Some(n as u64)
}

/// What a matcher found wrong, not yet redacted.
pub(super) struct Mismatch {
    pub expected: String,
    pub got: String,
}

impl Matcher {
    /// Judges a value (`None`: nothing is there).
    pub(super) fn judge(
        &self,
        value: Option<&Value>,
        scope: &Scope<'_>,
    ) -> Result<Option<Mismatch>, RenderError> {
        let nothing = || "nothing there".to_owned();
        let tests = match (self, value) {
            (Self::Exists, Some(_)) | (Self::Absent, None) => return Ok(None),
            (Self::Exists, None) => {
                return Ok(Some(Mismatch { expected: "something there".into(), got: nothing() }));
            }
            (Self::Absent, Some(v)) => {
                return Ok(Some(Mismatch { expected: nothing(), got: v.to_string() }));
            }
            (Self::All(tests), _) => tests,
        };
        for test in tests {
            if let Some(mismatch) = test.judge(value, scope)? {
                return Ok(Some(mismatch));
            }
        }
        Ok(None)
    }

    /// Judges a value that is there; `None` when all is well.
    pub fn check(
        &self,
        value: &Value,
        scope: &Scope<'_>,
        redactor: &Redactor,
    ) -> Result<Option<(String, String)>, RenderError> {
        let mismatch = self.judge(Some(value), scope)?;
        Ok(mismatch.map(|m| (redactor.show(&m.expected), redactor.show(&m.got))))
    }

    /// Reads the form of the file.
    fn from_value(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(word) if word == "exists" => Self::Exists,
            Value::String(word) if word == "absent" => Self::Absent,
            Value::Object(map) => {
                Self::All(map.into_iter().map(|(op, v)| Test::from_entry(&op, v)).collect::<Result<_, _>>()?)
            }
            plain => Self::All(vec![Test::Equals(plain)]),
        })
    }

    /// Every template text in it, for checking at load time, and whether it is a regular expression.
    pub(super) fn texts(&self) -> Vec<&Value> {
        let Self::All(tests) = self else { return Vec::new() };
        tests
            .iter()
            .flat_map(|t| match t {
                Test::Equals(v) | Test::Not(v) | Test::Contains(v) | Test::Compare(_, v) => vec![v],
                Test::Length(list) => list.iter().map(|(_, v)| v).collect(),
                Test::Matches(_) | Test::Type(_) | Test::Exists(_) => Vec::new(),
            })
            .collect()
    }
    /// The regular expressions in it.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Template> {
        let tests: &[Test] = match self {
            Self::All(tests) => tests,
            Self::Exists | Self::Absent => &[],
        };
        tests.iter().filter_map(|t| match t {
            Test::Matches(p) => Some(p),
            _ => None,
        })
    }
}

/// Renders a pattern, its values escaped, and compiles it.
pub(super) fn compile(pattern: &Template, scope: &Scope<'_>) -> Result<Regex, RenderError> {
    let text = pattern.render_with(scope, |v| Cow::Owned(regex::escape(&v)))?;
    Regex::new(&text).map_err(|e| RenderError::Unusable(format!("{text:?} is not a regular expression: {e}")))
}

impl Test {
    fn from_entry(op: &str, value: Value) -> Result<Self, String> {
        let ordered = |v: &Value| v.is_number() || v.is_string();
        Ok(match op {
            "equals" => Self::Equals(value),
            "not" => Self::Not(value),
            "contains" => Self::Contains(value),
            "matches" => Self::Matches(match value {
                Value::String(text) => Template::parse(&text)?,
                other => return Err(format!("`matches` needs a regular expression as text, not {other}")),
            }),
            "type" => Self::Type(JsonType::deserialize(&value).map_err(|_| {
                format!("{value} is not a type; use string, number, integer, boolean, array, object or null")
            })?),
            "exists" => Self::Exists(value.as_bool().ok_or("`exists` needs true or false")?),
            "length" => Self::Length(match value {
                Value::Object(map) => map
                    .into_iter()
                    .map(|(op, v)| match Order::parse(&op) {
                        Some(order) if ordered(&v) => Ok((order, v)),
                        _ => Err(format!("`length` takes a number or a map of > >= < <=, not `{op}: {v}`")),
                    })
                    .collect::<Result<_, _>>()?,
                v if ordered(&v) => vec![(Order::Same, v)],
                v => return Err(format!("`length` takes a number or a map of > >= < <=, not {v}")),
            }),
            sign => match Order::parse(sign) {
                Some(order) if ordered(&value) => Self::Compare(order, value),
                Some(_) => return Err(format!("`{sign}` needs a number or a text, not {value}")),
                None => {
                    let known: Vec<_> = OPERATORS.iter().map(|o| format!("`{o}`")).collect();
                    return Err(format!("unknown field `{op}`, expected one of {}", known.join(", ")));
                }
            },
        })
    }

    fn judge(&self, value: Option<&Value>, scope: &Scope<'_>) -> Result<Option<Mismatch>, RenderError> {
        if let Self::Exists(wanted) = self {
            let matcher = if *wanted { Matcher::Exists } else { Matcher::Absent };
            return matcher.judge(value, scope);
        }
        let expected = self.describe(scope)?;
        let Some(value) = value else {
            return Ok(Some(Mismatch { expected, got: "nothing there".into() }));
        };
        let mut got = value.to_string();
        let ok = match self {
            Self::Exists(_) => true,
            Self::Equals(v) => same(&scope.render_value(v)?, value),
            Self::Not(v) => !same(&scope.render_value(v)?, value),
            Self::Contains(v) => {
                let wanted = scope.render_value(v)?;
                match value {
                    Value::String(s) => s.contains(&as_text(&wanted)),
                    Value::Array(items) => items.iter().any(|i| same(i, &wanted)),
                    Value::Object(map) => wanted.as_str().is_some_and(|k| map.contains_key(k)),
                    _ => false,
                }
            }
            Self::Matches(pattern) => {
                let regex = compile(pattern, scope)?;
                value.as_str().is_some_and(|s| regex.is_match(s))
            }
            Self::Type(t) => {
                got = format!("{} ({got})", JsonType::of(value).as_str());
                t.accepts(value)
            }
            Self::Length(rules) => {
                let Some(n) = length(value) else {
                    got = format!("{}, which has no length", JsonType::of(value).as_str());
                    return Ok(Some(Mismatch { expected, got }));
                };
                got = format!("length {n} ({got})");
                self.all_hold(rules, &Value::from(n), scope)?
            }
            Self::Compare(sign, v) => order(value, &scope.render_value(v)?).is_some_and(|o| sign.holds(o)),
        };
        Ok((!ok).then_some(Mismatch { expected, got }))
    }

    fn all_hold(&self, rules: &[(Order, Value)], n: &Value, scope: &Scope<'_>) -> Result<bool, RenderError> {
        for (sign, limit) in rules {
            if !order(n, &scope.render_value(limit)?).is_some_and(|o| sign.holds(o)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn describe(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        let show = |v: &Value| scope.render_value(v).map(|v| v.to_string());
        Ok(match self {
            Self::Equals(v) => show(v)?,
            Self::Not(v) => format!("not {}", show(v)?),
            Self::Contains(v) => format!("contains {}", show(v)?),
            Self::Matches(p) => format!("matches {}", compile(p, scope)?.as_str()),
            Self::Type(t) => t.as_str().to_owned(),
            Self::Exists(_) => String::new(),
            Self::Compare(sign, v) => format!("{} {}", sign.sign(), show(v)?),
            Self::Length(rules) => {
                let rules: Result<Vec<_>, RenderError> =
                    rules.iter().map(|(s, v)| Ok(format!("{} {}", s.sign(), show(v)?))).collect();
                format!("length {}", rules?.join(" and ")).replace("length = ", "length ")
            }
        })
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(de)?;
        if value.as_object().is_some_and(Map::is_empty) {
            return Err(serde::de::Error::custom("an empty map expects nothing; use `exists`"));
        }
        Self::from_value(value).map_err(serde::de::Error::custom)
    }
}
