//! Who may call an operation: what a client shows to get in, whatever its document calls it.

use super::Level;
use super::document::{Document, Operation};
use super::schema::Comparison;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One way in: what has to be shown together, each with the rights that it needs.
type Way = BTreeMap<Login, BTreeSet<String>>;

/// What is shown, as a client sees it: `an API key in the header X-Key`. Two names for the same are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Login(String);

pub(super) fn compare(at: &mut Comparison<'_>, old: &Operation<'_>, new: &Operation<'_>) {
    let (before, after) = (ways(at.old, old), ways(at.new, new));
    addresses(at, old, new);
    // No alternative, or an empty one, means that nobody has to log in.
    let open = |list: &[Way]| list.is_empty() || list.iter().any(BTreeMap::is_empty);
    if open(&after) {
        return;
    }
    if open(&before) {
        let names: BTreeSet<&str> = after.iter().flat_map(|a| a.keys().map(|l| l.0.as_str())).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let what = format!("it asks for {} now", names.join(" or "));
        return at.say(Level::Error, "api-security-added", what);
    }
    // Each way in that there was must still be one.
    for way in &before {
        let same: Vec<&Way> = after.iter().filter(|a| a.keys().all(|l| way.contains_key(l))).collect();
        let shown: Vec<&str> = way.keys().map(|l| l.0.as_str()).collect();
        if same.is_empty() {
            let what = format!("{} no longer suffices", shown.join(" with "));
            at.say(Level::Error, "api-security-removed", what);
        } else if !same.iter().any(|a| a.iter().all(|(login, scopes)| scopes.is_subset(&way[login]))) {
            let what = format!("{} needs more rights now", shown.join(" with "));
            at.say(Level::Error, "api-security-scope-added", what);
        }
    }
}

fn ways(document: &Document, operation: &Operation<'_>) -> Vec<Way> {
    let all = document.security(operation.body);
    all.into_iter()
        .map(|way| {
            way.into_iter()
                .map(|(name, scopes)| (login(document, &name), scopes.into_iter().collect()))
                .collect()
        })
        .collect()
}

/// What a scheme asks of a client (OpenAPI 3.1.0, Security Scheme Object). One that is not described is its name.
fn login(document: &Document, name: &str) -> Login {
    let Some(scheme) = document.scheme(name) else { return Login(format!("`{name}`")) };
    let text = |key: &str| scheme.get(key).and_then(Value::as_str).unwrap_or_default();
    Login(match text("type") {
        "apiKey" if text("name").is_empty() => format!("the API key `{name}`"),
        "apiKey" => format!("an API key in the {} `{}`", text("in"), text("name")),
        "http" => format!("HTTP {}", text("scheme").to_ascii_lowercase()),
        "oauth2" => format!("OAuth 2 (`{name}`)"),
        "openIdConnect" => format!("OpenID Connect (`{name}`)"),
        "mutualTLS" => "a client certificate".to_owned(),
        _ => format!("`{name}`"),
    })
}

/// Where clients of OAuth go: told as a warning, since those that look it up see no difference.
fn addresses(at: &mut Comparison<'_>, old: &Operation<'_>, new: &Operation<'_>) {
    let names = |document: &Document, operation: &Operation<'_>| -> BTreeSet<String> {
        document.security(operation.body).into_iter().flat_map(BTreeMap::into_keys).collect()
    };
    let both = names(at.old, old);
    let mut found = Vec::new();
    for name in names(at.new, new).intersection(&both) {
        let (Some(was), Some(is)) = (at.old.scheme(name), at.new.scheme(name)) else { continue };
        let flows = |scheme: &serde_json::Map<String, Value>| {
            scheme.get("flows").and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let now = flows(is);
        for (flow, before) in flows(was) {
            let Some(after) = now.get(&flow) else {
                found.push((
                    "api-security-component-oauth-flow-removed",
                    format!("the flow {flow} of `{name}` is gone"),
                ));
                continue;
            };
            for (key, rule) in [
                ("authorizationUrl", "api-security-component-oauth-url-changed"),
                ("tokenUrl", "api-security-component-oauth-token-url-changed"),
            ] {
                if before.get(key) != after.get(key) {
                    found.push((rule, format!("`{key}` of the flow {flow} of `{name}` is another one")));
                }
            }
            let scopes = |flow: &Value| -> BTreeSet<String> {
                flow.get("scopes")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .map(|(s, _)| s.clone())
                    .collect()
            };
            for scope in scopes(&before).difference(&scopes(after)) {
                let what = format!("the right `{scope}` of `{name}` is gone");
                found.push(("api-security-component-oauth-scope-removed", what));
            }
        }
    }
    for (rule, what) in found {
        at.say(Level::Warning, rule, what);
    }
}
