//! Bounds of a schema: what may be said at least and at most.

use serde_json::{Map, Value};

/// A bound of a schema, and how rules call it.
pub(super) struct Bound {
    /// The keyword.
    pub keyword: &'static str,
    /// The word in rules.
    pub word: &'static str,
    /// Whether it limits from above.
    pub upper: bool,
}

/// The bounds of JSON Schema that OpenAPI has.
pub(super) const BOUNDS: [Bound; 12] = [
    Bound { keyword: "maximum", word: "max", upper: true },
    Bound { keyword: "minimum", word: "min", upper: false },
    Bound { keyword: "exclusiveMaximum", word: "exclusive-max", upper: true },
    Bound { keyword: "exclusiveMinimum", word: "exclusive-min", upper: false },
    Bound { keyword: "maxLength", word: "max-length", upper: true },
    Bound { keyword: "minLength", word: "min-length", upper: false },
    Bound { keyword: "maxItems", word: "max-items", upper: true },
    Bound { keyword: "minItems", word: "min-items", upper: false },
    Bound { keyword: "maxContains", word: "max-contains", upper: true },
    Bound { keyword: "minContains", word: "min-contains", upper: false },
    Bound { keyword: "maxProperties", word: "max-properties", upper: true },
    Bound { keyword: "minProperties", word: "min-properties", upper: false },
];

/// The number of a bound. In OpenAPI 3.0 `exclusiveMaximum: true` makes `maximum` an exclusive one.
pub(super) fn number(schema: &Map<String, Value>, keyword: &str) -> Option<f64> {
    let exclusive = |word: &str| schema.get(word) == Some(&Value::Bool(true));
    let value = match keyword {
        "maximum" if exclusive("exclusiveMaximum") => return None,
        "minimum" if exclusive("exclusiveMinimum") => return None,
        "exclusiveMaximum" if exclusive(keyword) => schema.get("maximum"),
        "exclusiveMinimum" if exclusive(keyword) => schema.get("minimum"),
        _ => schema.get(keyword),
    }?;
    let number = value.as_f64()?;
    // Every length is at least 0: that says nothing.
    (number != 0.0 || !keyword.starts_with("min") || keyword == "minimum").then_some(number)
}
