//! What went wrong on a page by its own account: exceptions, the console, failed requests.

use serde_json::Value;
use std::collections::BTreeMap;

/// Errors of a page: what identifies each (numbers and ports left out), and what it says.
pub(super) fn errors(events: &[Value]) -> BTreeMap<String, String> {
    let mut addresses: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = BTreeMap::new();
    let mut add = |text: String| {
        let mut key = String::new();
        for c in text.chars() {
            if !c.is_ascii_digit() {
                key.push(c);
            } else if !key.ends_with('#') {
                key.push('#');
            }
        }
        found.entry(key).or_insert(text);
    };
    for event in events {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => {
                let details = &params["exceptionDetails"];
                let text = details["exception"]["description"].as_str().or(details["text"].as_str());
                add(format!(
                    "uncaught exception: {}",
                    text.unwrap_or_default().lines().next().unwrap_or_default()
                ));
            }
            "Runtime.consoleAPICalled" if params["type"] == "error" => {
                let words: Vec<String> = params["args"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|a| a["value"].as_str().or(a["description"].as_str()).unwrap_or_default().to_owned())
                    .collect();
                add(format!("console error: {}", words.join(" ")));
            }
            "Log.entryAdded"
                if params["entry"]["level"] == "error" && params["entry"]["source"] != "network" =>
            {
                add(format!("console error: {}", params["entry"]["text"].as_str().unwrap_or_default()));
            }
            "Network.requestWillBeSent" => {
                if let (Some(id), Some(url)) =
                    (params["requestId"].as_str(), params["request"]["url"].as_str())
                {
                    addresses.insert(id, url);
                }
            }
            "Network.responseReceived" => {
                let status = params["response"]["status"].as_u64().unwrap_or(0);
                if status >= 400 {
                    let url = params["response"]["url"].as_str().unwrap_or_default();
                    add(format!("failed request: {} answered {status}", place(url)));
                }
            }
            "Network.loadingFailed" if params["canceled"] != true => {
                let url = params["requestId"]
                    .as_str()
                    .and_then(|id| addresses.get(id))
                    .copied()
                    .unwrap_or_default();
                let why = params["errorText"].as_str().unwrap_or_default();
                add(format!("failed request: {}: {why}", place(url)));
            }
            _ => {}
        }
    }
    found
}

/// An address without host and query: those differ between environments, and a query may hold secrets.
fn place(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(h, p)| (h, format!("/{p}")));
    let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    if host.starts_with("127.0.0.1") || host.starts_with("localhost") {
        path
    } else {
        format!("{host}{path}")
    }
}
