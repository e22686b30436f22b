use super::*;
use crate::check::http::Limits;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

type Said = Arc<Mutex<Vec<(String, Vec<String>, Value)>>>;

/// A small MCP server; `events` says whether it answers with events. The tool `add` adds, `broken` fails, others are unknown.
fn server(events: bool) -> (String, Said) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
    let said: Said = Arc::default();
    let list = said.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let (mut head, mut length) = (Vec::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = n.trim().parse().expect("a length");
                }
                head.push(line.trim_end().to_ascii_lowercase());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("reads");
            let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
            let method = head.first().and_then(|l| l.split(' ').next()).unwrap_or_default().to_owned();
            list.lock().expect("a lock").push((method, head.clone(), asked.clone()));
            let result = match asked["method"].as_str() {
                Some("initialize") => json!({ "result": { "protocolVersion": "2025-03-26" } }),
                Some("tools/call") => match asked["params"]["name"].as_str() {
                    Some("add") => {
                        let sum = asked["params"]["arguments"]["a"].as_i64().unwrap_or(0) + 1;
                        json!({ "result": { "content": [{ "type": "text", "text": sum.to_string() }] } })
                    }
                    Some("broken") => {
                        json!({ "result": { "isError": true, "content": [{ "type": "text", "text": "no disk" }] } })
                    }
                    _ => json!({ "error": { "code": -32602, "message": "unknown tool" } }),
                },
                _ => Value::Null,
            };
            let mut out = &stream;
            if result.is_null() {
                let _ = out.write_all(b"HTTP/1.1 202 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                continue;
            }
            let mut message = result;
            message["jsonrpc"] = "2.0".into();
            message["id"] = asked["id"].clone();
            let (kind, text) = if events {
                ("text/event-stream", format!(": hello\n\nevent: message\ndata: {message}\n\n"))
            } else {
                ("application/json", message.to_string())
            };
            let _ = out.write_all(
                format!("HTTP/1.1 200 X\r\nContent-Type: {kind}\r\nMcp-Session-Id: s1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len()).as_bytes(),
            );
        }
    });
    (url, said)
}

fn called(url: &str, tool: &str) -> Result<Value, String> {
    let client = HttpClient::new(Limits::default(), []);
    let wanted = Call {
        url: url.to_owned(),
        headers: vec![("authorization".to_owned(), "Bearer t".to_owned())],
        tool: tool.to_owned(),
        arguments: Some(json!({ "a": 41 })),
        timeout: Duration::from_secs(5),
    };
    call(&client, &wanted).map(|r| r.json().expect("JSON").clone())
}

#[test]
fn a_tool_is_called_in_a_session_of_its_own_whatever_the_answer_comes_as() {
    for events in [false, true] {
        let (url, said) = server(events);
        let result = called(&url, "add").expect("a result");
        assert_eq!(result["content"][0]["text"], "42");
        let said = said.lock().expect("a lock");
        let methods: Vec<&str> =
            said.iter().map(|(m, _, asked)| asked["method"].as_str().unwrap_or(m)).collect();
        assert_eq!(methods, ["initialize", "notifications/initialized", "tools/call", "delete"]);
        for (_, head, _) in &said[1..] {
            for header in
                ["mcp-session-id: s1", "mcp-protocol-version: 2025-03-26", "authorization: bearer t"]
            {
                assert!(head.iter().any(|l| l == header), "{header}: {head:?}");
            }
        }
    }
}

#[test]
fn failures_of_tool_and_server_are_told() {
    let (url, _) = server(false);
    assert_eq!(called(&url, "broken"), Err("the tool broken failed: no disk".to_owned()));
    assert_eq!(called(&url, "other"), Err("tools/call failed: unknown tool (code -32602)".to_owned()));
    assert!(called("http://127.0.0.1:9/mcp", "add").expect_err("refused").contains("refused"));
}

#[test]
fn events_are_taken_apart() {
    let found = messages("data: {\"id\":\ndata: 1}\n\nevent: x\ndata:{\"id\":2}");
    assert_eq!(found, [json!({ "id": 1 }), json!({ "id": 2 })]);
}
