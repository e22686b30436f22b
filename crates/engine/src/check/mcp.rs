//! Calling a tool of an MCP server: the Model Context Protocol over streamable HTTP (specification of 2025-06-18).
//!
//! One conversation for each call: initialise, say so, call, end the session. Answers may come as JSON or as events (SSE).

use super::http::{HttpClient, HttpRequest, Redirects};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use switchback_core::workflow::Response;

/// The newest version that is spoken; a server answers with the one that it wants.
const PROTOCOL: &str = "2025-06-18";

/// What is called.
pub struct Call {
    /// The server's endpoint.
    pub url: String,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Option<Value>,
    /// Limit for the whole conversation.
    pub timeout: Duration,
}

/// Calls it. The result is an answer in JSON, as MCP has it (`content`, `structuredContent`, `isError`); a tool that says that it
/// failed is an error.
pub fn call(client: &HttpClient, call: &Call) -> Result<Response, String> {
    let began = Instant::now();
    let mut talk = Talk { client, call, until: began + call.timeout, session: Vec::new() };
    let hello = json!({
        "protocolVersion": PROTOCOL, "capabilities": {},
        "clientInfo": { "name": "switchback", "version": env!("CARGO_PKG_VERSION") },
    });
    let greeting = talk.ask(1, "initialize", &hello)?;
    if let Some(version) = greeting["protocolVersion"].as_str() {
        talk.session.push(("mcp-protocol-version".to_owned(), version.to_owned()));
    }
    talk.tell("notifications/initialized")?;
    let mut params = json!({ "name": call.tool });
    if let Some(arguments) = &call.arguments {
        params["arguments"] = arguments.clone();
    }
    let result = talk.ask(2, "tools/call", &params);
    talk.end();
    let result = result?;
    if result["isError"] == true {
        let text = result["content"][0]["text"].as_str().unwrap_or("without a word");
        return Err(format!("the tool {} failed: {text}", call.tool));
    }
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Ok(Response::new(200, headers, result.to_string().into_bytes(), began.elapsed()))
}

struct Talk<'a> {
    client: &'a HttpClient,
    call: &'a Call,
    until: Instant,
    /// Headers of the session, once there is one.
    session: Vec<(String, String)>,
}

impl Talk<'_> {
    fn send(&self, method: &str, body: Option<&Value>) -> Result<Response, String> {
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("accept".to_owned(), "application/json, text/event-stream".to_owned()),
        ];
        headers.extend(self.session.iter().cloned());
        headers.extend(self.call.headers.iter().cloned());
        let request = HttpRequest {
            method: method.to_owned(),
            url: self.call.url.clone(),
            headers,
            body: body.map(|b| b.to_string().into_bytes()),
            redirects: Redirects::Return,
            timeout: self.until.saturating_duration_since(Instant::now()),
        };
        self.client.send(&request).map_err(|e| e.to_string())
    }

    fn ask(&mut self, id: u64, method: &str, params: &Value) -> Result<Value, String> {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let response = self.send("POST", Some(&body))?;
        if !(200..300).contains(&response.status) {
            return Err(format!("{method} answered {}", response.status));
        }
        if let Some(session) = response.header("mcp-session-id").next() {
            self.session.push(("mcp-session-id".to_owned(), session.to_owned()));
        }
        let events = response.header("content-type").any(|t| t.starts_with("text/event-stream"));
        let text = response.text();
        let found = if events {
            messages(&text).into_iter().find(|m| m["id"] == id)
        } else {
            serde_json::from_str::<Value>(&text).ok().filter(|m| m["id"] == id)
        };
        let message = found.ok_or_else(|| format!("{method} was not answered in JSON-RPC"))?;
        if let Some(error) = message.get("error") {
            let text = error["message"].as_str().unwrap_or("without a word");
            return Err(format!("{method} failed: {text} (code {})", error["code"]));
        }
        Ok(message["result"].clone())
    }

    fn tell(&self, method: &str) -> Result<(), String> {
        let body = json!({ "jsonrpc": "2.0", "method": method });
        let response = self.send("POST", Some(&body))?;
        if (200..300).contains(&response.status) {
            Ok(())
        } else {
            Err(format!("{method} answered {}", response.status))
        }
    }

    /// Lets the server forget the session; many know no such thing.
    fn end(&self) {
        if self.session.iter().any(|(name, _)| name == "mcp-session-id") {
            let _ = self.send("DELETE", None);
        }
    }
}

/// The messages of a stream of events (HTML Living Standard, 9.2.6): lines of data joined, an empty line ends one.
fn messages(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut data = String::new();
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            found.extend(serde_json::from_str(&data));
            data.clear();
        } else if let Some(rest) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(rest.strip_prefix(' ').unwrap_or(rest));
        }
    }
    found
}

#[cfg(test)]
#[path = "mcp_tests.rs"]
mod tests;
