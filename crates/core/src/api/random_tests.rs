//! Documents with random damage: nothing may panic, and equal documents have no difference.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A document of every kind of thing, and one small change somewhere in it.
fn whole() -> Value {
    json!({
        "openapi": "3.0.3", "info": { "title": "shop", "version": "1" },
        "security": [{ "key": [] }],
        "paths": {
            "/orders": {
                "parameters": [{ "name": "tenant", "in": "header", "required": true, "schema": { "type": "string", "minLength": 1 } }],
                "get": {
                    "parameters": [{ "name": "limit", "in": "query", "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 20 } }],
                    "responses": { "200": { "headers": { "X-Total": { "required": true, "schema": { "type": "integer" } } },
                        "content": { "application/json": { "schema": { "type": "array", "items": { "$ref": "#/components/schemas/Order" } } } } } }
                },
                "post": {
                    "requestBody": { "required": true, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Order" } } } },
                    "responses": { "201": { "$ref": "#/components/responses/Made" }, "default": { "description": "wrong" } }
                }
            },
            "/orders/{id}": { "delete": { "parameters": [{ "name": "id", "in": "path", "required": true, "schema": { "type": "integer", "format": "int64" } }], "responses": { "204": {} } } }
        },
        "components": {
            "responses": { "Made": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Order" } } } } },
            "schemas": {
                "Order": { "type": "object", "required": ["items"], "properties": {
                    "items": { "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/Item" } },
                    "note": { "type": "string", "nullable": true, "maxLength": 200, "pattern": "^[^<]*$" },
                    "state": { "enum": ["new", "paid"] },
                    "replaces": { "$ref": "#/components/schemas/Order" },
                    "pay": { "oneOf": [{ "$ref": "#/components/schemas/Item" }, { "type": "string" }] }
                } },
                "Item": { "allOf": [{ "type": "object", "properties": { "sku": { "type": "string" } } }, { "properties": { "n": { "type": "number" } } }] }
            }
        }
    })
}

fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(body) => {
            for (key, inner) in body {
                let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push(path.clone());
                places(inner, &path, out);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                out.push(format!("{at}/{index}"));
                places(inner, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

fn mutated(mut root: Value, steps: &[(usize, u8)]) -> Value {
    for (place, how) in steps {
        let mut all = Vec::new();
        places(&root, "", &mut all);
        let Some(path) = all.get(place % all.len().max(1)).cloned() else { continue };
        let (parent, key) = path.rsplit_once('/').expect("a path");
        let key = key.replace("~1", "/").replace("~0", "~");
        let odd = [
            json!(null),
            json!([]),
            json!({}),
            json!("x"),
            json!(-1),
            json!({ "$ref": "#/components/schemas/Order" }),
            json!({ "$ref": "#" }),
            json!(true),
        ];
        match root.pointer_mut(parent) {
            Some(Value::Object(body)) if how % 9 == 8 => {
                body.shift_remove(&key);
            }
            Some(Value::Object(body)) => {
                body.insert(key, odd[usize::from(how % 8)].clone());
            }
            Some(Value::Array(list)) => {
                if let Some(one) = key.parse::<usize>().ok().and_then(|n| list.get_mut(n)) {
                    *one = odd[usize::from(how % 8)].clone();
                }
            }
            _ => {}
        }
    }
    root
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_two_documents_can_be_compared_and_equal_ones_have_no_difference(
        one in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        two in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
    ) {
        let (a, b) = (mutated(whole(), &one), mutated(whole(), &two));
        let (Ok(a), Ok(b)) = (Document::parse(&a.to_string()), Document::parse(&b.to_string())) else { return Ok(()) };
        prop_assert!(compare(&a, &a).is_empty());
        let _ = compare(&a, &b);
        for operation in a.declared() {
            let _ = conform(&b, &operation, 200, "application/json", &json!([{ "items": null }]));
        }
    }
}
