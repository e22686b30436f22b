//! The personal assistant of examples/pa, as its users see it.

use super::docker::{Example, Stack, ran};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What callers of the assistant show.
pub const PA_TOKEN: &str = "token-of-the-tests-of-pa-7d";
/// Of the webhook outside; a copy must not have it.
pub const CHAT_TOKEN: &str = "token-of-the-chat-outside-1f9";
/// n8n registers its webhooks some time after it says that it is ready.
const WEBHOOKS: Duration = Duration::from_secs(300);

/// The assistant with what seed.py makes, running, not yet known to Switchback.
pub struct Pa(pub Stack);

impl Pa {
    #[track_caller]
    pub fn up() -> Self {
        let stack = Stack::compose(Example::Pa);
        stack.set("PA_IMAGE", "sbt/pa");
        stack.set("REDIS_IMAGE", "sbt/redis:7");
        stack.set("N8N_VERSION", "1.71.3");
        // Three more ports, none of them the one that the stack has.
        let mut found = 0;
        for port in stack.port + 1.. {
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                stack.set(["MCP_PORT", "MONITOR_PORT", "N8N_PORT"][found], &port.to_string());
                found += 1;
                if found == 3 {
                    break;
                }
            }
        }
        let example = fs::read_to_string(stack.root.join("pa.env.example")).expect("reads");
        let settings: Vec<String> = example
            .lines()
            .map(|line| match line.split_once('=') {
                Some(("PA_TOKEN", _)) => format!("PA_TOKEN={PA_TOKEN}"),
                Some(("CHAT_TOKEN", _)) => format!("CHAT_TOKEN={CHAT_TOKEN}"),
                _ => line.to_owned(),
            })
            .collect();
        fs::write(stack.root.join("pa.env"), settings.join("\n") + "\n").expect("writes");
        stack.up();
        let pa = Self(stack);
        pa.seed();
        pa.0.wait_until("n8n's webhooks are there", WEBHOOKS, || pa.says("split 90 by 4") == "22.50 each.");
        pa
    }

    /// The example's seed.py, which takes ports and secrets from the stack's own files.
    #[track_caller]
    pub fn seed(&self) {
        let mut command = Command::new("python3");
        command.arg(self.0.root.join("seed.py")).stdin(Stdio::null());
        ran(&command.output().expect("python3 is installed")).expect(0);
    }

    /// What the bot answers to a person; why it does not, if it does not.
    pub fn says(&self, text: &str) -> String {
        let body = json!({ "person": "Ada", "text": text });
        let token = format!("Bearer {PA_TOKEN}");
        let asked = self.0.ask("POST", "/webhook/chat", &[("Authorization", &token)], Some(&body));
        let (status, text) = asked.unwrap_or_default();
        let answer = serde_json::from_str::<Value>(&text).unwrap_or(Value::Null);
        answer["answer"].as_str().map_or_else(|| format!("{status}: {text}"), str::to_owned)
    }

    /// The same, until it is so: n8n's webhooks come late.
    #[track_caller]
    pub fn wait_says(&self, text: &str, answer: &str) {
        self.0.wait_until(&format!("{text}: {answer}"), WEBHOOKS, || self.says(text).contains(answer));
    }

    /// What its users made: everything that a rollback must give back.
    #[track_caller]
    pub fn made(&self) -> Vec<String> {
        [
            "select string_agg(format('%s %s %s', id, person, body), ', ' order by id) from notes",
            "select string_agg(format('%s %s %s %s', id, person, due, body), ', ' order by id) from reminders",
            "select string_agg(p::text, ', ' order by id) from people p",
            "select md5(string_agg(to_jsonb(w)::text, '' order by id)) from n8n.workflow_entity w",
            "select md5(string_agg(to_jsonb(c)::text, '' order by id)) from n8n.credentials_entity c",
            "select md5(string_agg(to_jsonb(e)::text, '' order by id)) from n8n.execution_entity e",
        ]
        .map(|sql| self.0.psql(sql))
        .to_vec()
    }

    /// Keys and values of Redis that do not run out, and the sessions.
    #[track_caller]
    pub fn redis(&self) -> Vec<String> {
        let ask = |args: &[&str]| {
            let all = [&["exec", "-T", "redis", "redis-cli", "--raw"], args].concat();
            self.0.docker_compose(&all).expect(0).stdout
        };
        let mut keys: Vec<String> = ask(&["keys", "*"]).lines().map(str::to_owned).collect();
        keys.sort();
        let value = |key: &String| match key.split(':').next() {
            Some("talk") => ask(&["lrange", key, "0", "-1"]),
            Some("found") => String::new(),
            _ => ask(&["get", key]),
        };
        keys.iter().filter(|k| !k.starts_with("found:")).map(|k| format!("{k} = {}", value(k))).collect()
    }
}
