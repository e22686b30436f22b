use super::*;
use serde_json::{Value, json};

fn document(paths: &Value) -> Document {
    with_version("3.1.0", paths)
}

fn with_version(version: &str, paths: &Value) -> Document {
    let text = json!({
        "openapi": version,
        "info": { "title": "t", "version": "1" },
        "paths": paths,
        "components": {
            "schemas": { "Dog": { "type": "object", "properties": { "parent": { "$ref": "#/components/schemas/Dog" } } } },
            "securitySchemes": { "key": { "type": "apiKey" }, "oauth": { "type": "oauth2" } }
        }
    });
    Document::parse(&text.to_string()).expect("a document")
}

fn rules(old: &Value, new: &Value) -> Vec<String> {
    compare(&document(old), &document(new)).into_iter().map(|c| c.rule).collect()
}

/// An operation that takes and answers this schema, as its body.
fn body(schema: &Value) -> Value {
    let content = json!({ "application/json": { "schema": schema } });
    json!({ "/x": { "post": {
        "requestBody": { "content": content },
        "responses": { "200": { "content": content } }
    } } })
}

/// The same, below a property.
fn property(schema: &Value) -> Value {
    body(&json!({ "type": "object", "properties": { "p": schema } }))
}

fn parameter(schema: &Value) -> Value {
    json!({ "/x": { "get": { "parameters": [{ "name": "q", "in": "query", "schema": schema }] } } })
}

/// Changes of a schema: what narrowing it is called, and what widening it is called.
fn schema_changes() -> Vec<(Value, Value, String, String)> {
    let mut all = vec![
        (json!({ "type": "number" }), json!({ "type": "integer" }), "type-changed", "type-changed"),
        (
            json!({ "type": ["string", "null"] }),
            json!({ "type": "string" }),
            "became-not-nullable",
            "became-nullable",
        ),
        (json!({ "enum": ["a", "b"] }), json!({ "enum": ["a"] }), "enum-value-removed", "enum-value-added"),
        (
            json!({ "type": "string" }),
            json!({ "type": "string", "enum": ["a"] }),
            "became-enum",
            "enum-value-added",
        ),
        (
            json!({ "type": "integer", "format": "int64" }),
            json!({ "type": "integer", "format": "int32" }),
            "type-changed",
            "type-changed",
        ),
        (
            json!({ "oneOf": [{ "$ref": "#/components/schemas/Dog" }, { "type": "string" }] }),
            json!({ "oneOf": [{ "$ref": "#/components/schemas/Dog" }] }),
            "one-of-removed",
            "one-of-added",
        ),
        (
            json!({ "anyOf": [{ "$ref": "#/components/schemas/Dog" }, { "type": "string" }] }),
            json!({ "anyOf": [{ "$ref": "#/components/schemas/Dog" }] }),
            "any-of-removed",
            "any-of-added",
        ),
    ];
    for (keyword, narrow, wide, set, unset) in [
        ("maximum", "max-decreased", "max-increased", "max-set", "max-unset"),
        (
            "exclusiveMaximum",
            "exclusive-max-decreased",
            "exclusive-max-increased",
            "exclusive-max-set",
            "exclusive-max-unset",
        ),
        ("maxLength", "max-length-decreased", "max-length-increased", "max-length-set", "max-length-unset"),
        ("maxItems", "max-items-decreased", "max-items-increased", "max-items-set", "max-items-unset"),
        (
            "maxProperties",
            "max-properties-decreased",
            "max-properties-increased",
            "max-properties-set",
            "max-properties-unset",
        ),
        (
            "maxContains",
            "max-contains-decreased",
            "max-contains-increased",
            "max-contains-set",
            "max-contains-unset",
        ),
    ] {
        all.push((json!({ keyword: 9 }), json!({ keyword: 5 }), narrow, wide));
        all.push((json!({}), json!({ keyword: 5 }), set, unset));
    }
    for (keyword, narrow, wide, set, unset) in [
        ("minimum", "min-increased", "min-decreased", "min-set", "min-unset"),
        (
            "exclusiveMinimum",
            "exclusive-min-increased",
            "exclusive-min-decreased",
            "exclusive-min-set",
            "exclusive-min-unset",
        ),
        ("minLength", "min-length-increased", "min-length-decreased", "min-length-set", "min-length-unset"),
        ("minItems", "min-items-increased", "min-items-decreased", "min-items-set", "min-items-unset"),
        (
            "minProperties",
            "min-properties-increased",
            "min-properties-decreased",
            "min-properties-set",
            "min-properties-unset",
        ),
        (
            "minContains",
            "min-contains-increased",
            "min-contains-decreased",
            "min-contains-set",
            "min-contains-unset",
        ),
    ] {
        all.push((json!({ keyword: 5 }), json!({ keyword: 9 }), narrow, wide));
        all.push((json!({}), json!({ keyword: 5 }), set, unset));
    }
    let own = all.into_iter().map(|(wide, narrow, a, b)| (wide, narrow, a.to_owned(), b.to_owned()));
    own.chain(keyword_tests::changes()).collect()
}

#[test]
fn narrowing_a_request_and_widening_a_response_is_found_and_the_other_way_round_is_not() {
    for (wide, narrow, narrowed, widened) in schema_changes() {
        for (make, request, response) in [
            (body as fn(&Value) -> Value, "request-body", Some("response-body")),
            (property, "request-property", Some("response-property")),
            (parameter, "request-parameter", None),
        ] {
            let (a, b) = (make(&wide), make(&narrow));
            let found = rules(&a, &b);
            assert_eq!(found, [format!("{request}-{narrowed}")], "{wide} to {narrow}");
            let found = rules(&b, &a);
            let expected: Vec<String> = response.into_iter().map(|r| format!("{r}-{widened}")).collect();
            assert_eq!(found, expected, "{narrow} to {wide}");
            assert!(rules(&a, &a).is_empty());
        }
    }
}

#[test]
fn changes_that_are_neither_narrower_nor_wider_are_found_on_both_sides() {
    for (one, other, word) in keyword_tests::undirected() {
        for (a, b) in [(&one, &other), (&other, &one)] {
            let expected = |kind: &str| ["request", "response"].map(|d| format!("{d}-{kind}-{word}"));
            assert_eq!(rules(&body(a), &body(b)), expected("body"));
            assert_eq!(rules(&property(a), &property(b)), expected("property"));
            assert_eq!(rules(&parameter(a), &parameter(b)), [format!("request-parameter-{word}")]);
            assert!(rules(&body(a), &body(a)).is_empty());
        }
    }
}

fn operation(extra: &Value) -> Value {
    let mut operation = json!({ "responses": { "200": { "description": "fine" } } });
    for (key, value) in extra.as_object().expect("an object") {
        operation[key] = value.clone();
    }
    json!({ "/x": { "post": operation } })
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn takes(schema: &Value) -> Value {
    operation(&json!({ "requestBody": { "content": { "application/json": { "schema": schema } } } }))
}

fn gives(schema: &Value) -> Value {
    operation(&json!({ "responses": { "200": { "content": { "application/json": { "schema": schema } } } } }))
}

fn parameters(list: &Value) -> Value {
    operation(&json!({ "parameters": list }))
}

fn headers(list: &Value) -> Value {
    operation(&json!({ "responses": { "200": { "headers": list } } }))
}

/// A rule with two documents that it is for.
fn cases() -> Vec<(&'static str, Value, Value)> {
    let text = json!({ "type": "string" });
    let optional = json!([{ "name": "q", "in": "query", "schema": { "type": "string" } }]);
    let needed = json!([{ "name": "q", "in": "query", "required": true, "schema": { "type": "string" } }]);
    let default = |value: Value| json!([{ "name": "q", "in": "query", "schema": { "type": "string", "default": value } }]);
    let json_body = |required: bool| {
        operation(&json!({ "requestBody": { "required": required, "content": { "application/json": {} } } }))
    };
    let header = |required: bool, kind: &str| {
        headers(&json!({ "X-A": { "required": required, "schema": { "type": kind } } }))
    };
    vec![
        ("api-path-removed", operation(&json!({})), json!({})),
        ("api-removed", operation(&json!({})), json!({ "/x": { "get": {} } })),
        ("api-security-added", operation(&json!({})), operation(&json!({ "security": [{ "key": [] }] }))),
        (
            "api-security-removed",
            operation(&json!({ "security": [{ "key": [] }] })),
            operation(&json!({ "security": [{ "key": [], "oauth": [] }] })),
        ),
        (
            "api-security-scope-added",
            operation(&json!({ "security": [{ "oauth": ["read"] }] })),
            operation(&json!({ "security": [{ "oauth": ["read", "write"] }] })),
        ),
        ("new-required-request-parameter", parameters(&json!([])), parameters(&needed)),
        ("new-request-path-parameter", json!({ "/x": { "get": {} } }), json!({ "/x/{id}": { "get": {} } })),
        ("request-parameter-became-required", parameters(&optional), parameters(&needed)),
        ("request-parameter-removed", parameters(&optional), parameters(&json!([]))),
        (
            "request-parameter-default-value-changed",
            parameters(&default(json!("a"))),
            parameters(&default(json!("b"))),
        ),
        ("request-parameter-default-value-added", parameters(&optional), parameters(&default(json!("b")))),
        ("request-parameter-default-value-removed", parameters(&default(json!("b"))), parameters(&optional)),
        (
            "request-parameter-serialization-changed",
            parameters(&json!([{ "name": "q", "in": "query", "style": "form" }])),
            parameters(&json!([{ "name": "q", "in": "query", "style": "pipeDelimited" }])),
        ),
        ("request-body-added-required", operation(&json!({})), json_body(true)),
        ("request-body-became-required", json_body(false), json_body(true)),
        ("request-body-removed", json_body(false), operation(&json!({}))),
        (
            "request-body-media-type-removed",
            json_body(false),
            operation(&json!({ "requestBody": { "content": { "text/plain": {} } } })),
        ),
        (
            "request-body-media-type-schema-added",
            json_body(false),
            takes(&object(&[], &json!({ "p": text }))),
        ),
        (
            "response-body-media-type-schema-removed",
            gives(&text),
            operation(&json!({ "responses": { "200": { "content": { "application/json": {} } } } })),
        ),
        (
            "new-required-request-property",
            takes(&object(&[], &json!({}))),
            takes(&object(&["p"], &json!({ "p": text }))),
        ),
        (
            "new-required-request-property-with-default",
            takes(&object(&[], &json!({}))),
            takes(&object(&["p"], &json!({ "p": { "type": "string", "default": "" } }))),
        ),
        (
            "request-property-became-required",
            takes(&object(&[], &json!({ "p": text }))),
            takes(&object(&["p"], &json!({ "p": text }))),
        ),
        (
            "request-property-removed",
            takes(&object(&[], &json!({ "p": text }))),
            takes(&object(&[], &json!({}))),
        ),
        (
            "request-property-default-value-changed",
            takes(&object(&[], &json!({ "p": { "type": "string", "default": "b" } }))),
            takes(&object(&[], &json!({ "p": { "type": "string", "default": "a" } }))),
        ),
        (
            "request-property-default-value-removed",
            takes(&object(&[], &json!({ "p": { "type": "string", "default": "b" } }))),
            takes(&object(&[], &json!({ "p": text }))),
        ),
        (
            "request-body-additional-properties-forbidden",
            takes(&json!({ "type": "object", "properties": { "p": text } })),
            takes(&json!({ "type": "object", "properties": { "p": text }, "additionalProperties": false })),
        ),
        (
            "response-success-status-removed",
            operation(&json!({})),
            operation(&json!({ "responses": { "201": { "description": "made" } } })),
        ),
        (
            "response-media-type-removed",
            gives(&text),
            operation(&json!({ "responses": { "200": { "content": { "text/html": {} } } } })),
        ),
        ("required-response-header-removed", header(true, "string"), headers(&json!({}))),
        ("response-header-became-optional", header(true, "string"), header(false, "string")),
        ("optional-response-header-removed", header(false, "string"), headers(&json!({}))),
        ("response-header-type-changed", header(false, "integer"), header(false, "string")),
        (
            "response-required-property-removed",
            gives(&object(&["p"], &json!({ "p": text }))),
            gives(&object(&[], &json!({}))),
        ),
        (
            "response-optional-property-removed",
            gives(&object(&[], &json!({ "p": text }))),
            gives(&object(&[], &json!({}))),
        ),
        (
            "response-property-became-optional",
            gives(&object(&["p"], &json!({ "p": text }))),
            gives(&object(&[], &json!({ "p": text }))),
        ),
        (
            "response-required-property-became-write-only",
            gives(&object(&["p"], &json!({ "p": text }))),
            gives(&object(&["p"], &json!({ "p": { "type": "string", "writeOnly": true } }))),
        ),
    ]
}

#[test]
fn every_rule_is_found_and_nothing_else() {
    for (rule, old, new) in cases() {
        let found = rules(&old, &new);
        assert!(found.contains(&rule.to_owned()), "{rule}: {found:?}");
        // A path that has one more parameter is also one that is gone.
        let alone = found.len() == 1 || rule == "new-request-path-parameter";
        assert!(alone, "{rule}: {found:?}");
    }
}

/// Whether a rule of the list, with `*` in it, means one that was found.
fn means(listed: &str, found: &str) -> bool {
    match listed.split_once('*') {
        None => listed == found,
        Some((before, after)) => {
            ["parameter", "body", "property"].iter().any(|k| format!("{before}{k}{after}") == found)
        }
    }
}

#[test]
fn the_list_of_rules_is_whole_and_each_of_it_is_tested() {
    let mut tested: Vec<String> = cases().into_iter().map(|(rule, ..)| rule.to_owned()).collect();
    tested.extend(document_tests::of_documents().into_iter().map(|(rule, ..)| rule.to_owned()));
    for (.., narrowed, widened) in schema_changes() {
        for kind in ["parameter", "body", "property"] {
            tested.push(format!("request-{kind}-{narrowed}"));
            tested.push(format!("response-{kind}-{widened}"));
        }
    }
    for (.., word) in keyword_tests::undirected() {
        tested.extend([format!("request-property-{word}"), format!("response-property-{word}")]);
    }
    for rule in &tested {
        assert!(
            RULES.iter().any(|(l, ..)| means(l, rule)) || rule.starts_with("response-parameter"),
            "{rule} is not listed"
        );
    }
    for (listed, ..) in RULES {
        assert!(tested.iter().any(|t| means(listed, t)), "{listed} is not tested");
    }
    assert!(RULES.len() >= 60);
}

#[test]
fn names_of_path_parameters_do_not_matter_and_their_schemas_do() {
    let path = |name: &str, kind: &str| {
        json!({ format!("/x/{{{name}}}"): { "get": { "parameters": [
            { "name": name, "in": "path", "required": true, "schema": { "type": kind } }
        ] } } })
    };
    assert!(rules(&path("id", "string"), &path("key", "string")).is_empty());
    assert_eq!(rules(&path("id", "string"), &path("key", "integer")), ["request-parameter-type-changed"]);
}

#[test]
fn both_versions_of_the_format_mean_the_same() {
    let old = json!({ "/x": { "get": { "responses": { "200": { "content": { "application/json": {
        "schema": { "type": "string", "nullable": true } } } } } } } });
    let new = json!({ "/x": { "get": { "responses": { "200": { "content": { "application/json": {
        "schema": { "type": ["string", "null"] } } } } } } } });
    assert!(compare(&with_version("3.0.3", &old), &document(&new)).is_empty());
    assert!(compare(&document(&new), &with_version("3.0.3", &old)).is_empty());
    let bound = |v: &str, schema: Value| with_version(v, &takes(&schema));
    let three_0 = bound("3.0.3", json!({ "type": "number", "maximum": 5, "exclusiveMaximum": true }));
    let three_1 = bound("3.1.0", json!({ "type": "number", "exclusiveMaximum": 5 }));
    assert!(compare(&three_0, &three_1).is_empty());
}

#[test]
fn merged_schemas_and_circles_are_followed() {
    let list = |required: &[&str]| {
        takes(&json!({ "allOf": [
            { "$ref": "#/components/schemas/Dog" },
            { "type": "object", "required": required, "properties": { "p": { "type": "string" } } }
        ] }))
    };
    assert_eq!(rules(&list(&[]), &list(&["p"])), ["request-property-became-required"]);
    assert!(rules(&list(&["p"]), &list(&[])).is_empty());
}

#[test]
fn what_is_no_document_says_so() {
    for (text, word) in [
        ("{", "neither"),
        ("swagger: '2.0'\npaths: {}", "version"),
        ("openapi: 3.0.1\n", "paths"),
        ("openapi: 3.2.0\npaths: {}", "version"),
    ] {
        let error = Document::parse(text).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(Document::parse("openapi: 3.0.1\npaths: {}").is_ok());
}

#[test]
fn accepted_changes_are_named_by_rule_or_by_rule_and_operation() {
    let change = Change {
        level: Level::Error,
        rule: "api-removed".into(),
        operation: "GET /x".into(),
        what: String::new(),
    };
    assert!(change.accepted(&["api-removed".into()]));
    assert!(change.accepted(&["api-removed GET /x".into()]));
    assert!(!change.accepted(&["api-removed GET /y".into(), "api".into()]));
}

#[test]
fn answers_are_held_against_the_document() {
    let document = document(
        &json!({ "/notes/{id}": { "get": { "responses": { "200": { "content": { "application/json": { "schema": {
        "type": "object", "required": ["id", "title"], "additionalProperties": false,
        "properties": {
            "id": { "type": "integer" }, "title": { "type": "string" }, "due": { "type": ["string", "null"] },
            "kind": { "enum": ["a", "b"] }, "tags": { "type": "array", "items": { "type": "string" } }
        }
    } } } } } } } }),
    );
    let operation = document.operation_of("get", "/notes/7?x=1").expect("known");
    assert_eq!(operation, "GET /notes/{id}");
    let says = |body: Value| conform(&document, &operation, 200, "application/json; charset=utf-8", &body);
    assert!(says(json!({ "id": 1, "title": "t", "due": null, "kind": "a", "tags": ["x"] })).is_empty());
    for (body, word) in [
        (json!({ "title": "t" }), "id is missing"),
        (json!({ "id": "1", "title": "t" }), "string and not integer"),
        (json!({ "id": 1, "title": null }), "is null"),
        (json!({ "id": 1, "title": "t", "kind": "z" }), "none of the values"),
        (json!({ "id": 1, "title": "t", "tags": [1] }), "$.tags[0]"),
        (json!({ "id": 1, "title": "t", "more": 1 }), "not one of the properties"),
        (json!([]), "array and not object"),
    ] {
        let found = says(body);
        assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
    }
    assert!(conform(&document, &operation, 500, "application/json", &json!({}))[0].contains("500"));
}
