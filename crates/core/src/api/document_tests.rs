//! What a document describes beside its paths: logins and webhooks.

use super::*;
use serde_json::{Value, json};

/// A rule about what is described beside the paths, with two documents.
pub(super) fn of_documents() -> Vec<(&'static str, Value, Value)> {
    let whole = |schemes: Value, webhooks: Value| {
        json!({
            "openapi": "3.1.0", "webhooks": webhooks, "components": { "securitySchemes": schemes },
            "paths": { "/x": { "get": { "security": [{ "login": ["read"] }], "responses": { "200": {} } } } },
        })
    };
    let plain = |scheme: Value| whole(json!({ "login": scheme }), json!({}));
    let flow = |flow: Value| plain(json!({ "type": "oauth2", "flows": { "authorizationCode": flow } }));
    let usual = json!({ "authorizationUrl": "/a", "tokenUrl": "/t", "scopes": { "read": "", "write": "" } });
    let with = |key: &str, value: Value| {
        let mut other = usual.clone();
        other[key] = value;
        flow(other)
    };
    vec![
        (
            "api-security-removed",
            plain(json!({ "type": "apiKey", "in": "header", "name": "X-Key" })),
            plain(json!({ "type": "apiKey", "in": "header", "name": "X-Api-Key" })),
        ),
        (
            "api-security-removed",
            plain(json!({ "type": "http", "scheme": "basic" })),
            plain(json!({ "type": "http", "scheme": "bearer" })),
        ),
        (
            "api-security-component-oauth-flow-removed",
            flow(usual.clone()),
            plain(json!({ "type": "oauth2", "flows": {} })),
        ),
        (
            "api-security-component-oauth-url-changed",
            flow(usual.clone()),
            with("authorizationUrl", json!("/b")),
        ),
        (
            "api-security-component-oauth-token-url-changed",
            flow(usual.clone()),
            with("tokenUrl", json!("/b")),
        ),
        (
            "api-security-component-oauth-scope-removed",
            flow(usual.clone()),
            with("scopes", json!({ "read": "" })),
        ),
        ("webhook-removed", whole(json!({}), json!({ "paid": { "post": {} } })), whole(json!({}), json!({}))),
    ]
}

#[test]
fn what_is_described_beside_the_paths_is_compared_too() {
    let parse = |value: &Value| Document::parse(&value.to_string()).expect("a document");
    for (rule, old, new) in of_documents() {
        let found: Vec<String> = compare(&parse(&old), &parse(&new)).into_iter().map(|c| c.rule).collect();
        assert_eq!(found, [rule]);
        assert!(compare(&parse(&old), &parse(&old)).is_empty());
    }
    // Another name for the same login is no difference.
    let named = |name: &str| {
        let schemes = json!({ name: { "type": "http", "scheme": "bearer" } });
        parse(&json!({
            "openapi": "3.1.0", "components": { "securitySchemes": schemes },
            "paths": { "/x": { "get": { "security": [{ name: [] }], "responses": {} } } },
        }))
    };
    assert!(compare(&named("token"), &named("bearer")).is_empty());
}
