//! Changes of keywords that are compared as they are, for the tests of all changes of a schema.

use super::keywords::PLAIN;
use serde_json::{Value, json};

/// A value of a keyword, and another one.
fn values(keyword: &str) -> (Value, Value) {
    match keyword {
        "contentEncoding" => (json!("base64"), json!("base16")),
        "contentMediaType" => (json!("text/html"), json!("text/plain")),
        "dependentRequired" => (json!({ "a": ["b"] }), json!({ "a": ["c"] })),
        "dependentSchemas" | "patternProperties" => {
            (json!({ "^x": { "type": "string" } }), json!({ "^x": { "type": "integer" } }))
        }
        "prefixItems" => (json!([{ "type": "string" }]), json!([{ "type": "integer" }])),
        _ => (json!({ "type": "string" }), json!({ "type": "integer" })),
    }
}

/// A wider and a narrower schema; what narrowing a request and what widening an answer is called.
pub(super) fn changes() -> Vec<(Value, Value, String, String)> {
    let mut all = Vec::new();
    let mut add = |wide: Value, narrow: Value, narrowed: &str, widened: &str| {
        all.push((wide, narrow, narrowed.to_owned(), widened.to_owned()));
    };
    for (keyword, word) in PLAIN {
        let (one, _) = values(keyword);
        add(json!({}), json!({ keyword: one }), &format!("{word}-added"), &format!("{word}-removed"));
    }
    add(json!({}), json!({ "multipleOf": 5 }), "multiple-of-set", "multiple-of-unset");
    add(
        json!({ "multipleOf": 0.5 }),
        json!({ "multipleOf": 2 }),
        "multiple-of-changed",
        "multiple-of-changed",
    );
    add(json!({}), json!({ "uniqueItems": true }), "unique-items-set", "unique-items-unset");
    add(json!({}), json!({ "pattern": "^a" }), "pattern-added", "pattern-removed");
    add(json!({}), told("kind", &json!({})), "discriminator-added", "discriminator-removed");
    let (cat, dog) = ("#/components/schemas/Cat", "#/components/schemas/Dog");
    add(
        told("kind", &json!({ "cat": cat, "dog": dog })),
        told("kind", &json!({ "dog": dog })),
        "discriminator-mapping-deleted",
        "discriminator-mapping-added",
    );
    all
}

fn told(name: &str, mapping: &Value) -> Value {
    json!({ "discriminator": { "propertyName": name, "mapping": mapping } })
}

/// Two schemas of which nobody can say which is narrower, and what the change is called.
pub(super) fn undirected() -> Vec<(Value, Value, String)> {
    let (cat, dog) = ("#/components/schemas/Cat", "#/components/schemas/Dog");
    let mut all = vec![
        (json!({ "pattern": "^b" }), json!({ "pattern": "^a" }), "pattern-changed".to_owned()),
        (
            told("kind", &json!({})),
            told("type", &json!({})),
            "discriminator-property-name-changed".to_owned(),
        ),
        (
            told("kind", &json!({ "pet": cat })),
            told("kind", &json!({ "pet": dog })),
            "discriminator-mapping-changed".to_owned(),
        ),
    ];
    for (keyword, word) in PLAIN {
        let (one, other) = values(keyword);
        all.push((json!({ keyword: one }), json!({ keyword: other }), format!("{word}-changed")));
    }
    all
}
