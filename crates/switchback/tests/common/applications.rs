//! The applications of the Compose stacks, as their users see them.

use super::docker::{HUB_TOKEN, ORDER_KEY, Stack};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use switchback_core::check::Verdict;
use switchback_core::ids::{ServiceName, StoreName};
use switchback_core::workflow::{Endpoint, Redactor, Workflow};
use switchback_engine::check::workflow::{WorkflowContext, run};

/// The example's own checks.
impl Stack {
    /// Runs the workflows in `checks/` against the stack, the writing ones too, without Switchback around them;
    /// those that do not pass, with the reason.
    pub fn failing_workflows(&self) -> BTreeMap<String, String> {
        let service = ServiceName::new(self.example.service()).expect("a name");
        let settings = fs::read_to_string(self.root.join(".env")).expect("reads");
        let env = |name: &str| {
            let line = settings.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
        };
        let sql = |_: &StoreName, sql: &str, values: &[Value]| {
            let mut text = sql.to_owned();
            // Last first: `?1` is the beginning of `?10`.
            for (index, value) in values.iter().enumerate().rev() {
                let literal = value.as_str().map(|v| format!("'{}'", v.replace('\'', "''")));
                text =
                    text.replace(&format!("?{}", index + 1), &literal.unwrap_or_else(|| value.to_string()));
            }
            let answer = self.psql(&text);
            Ok(answer.parse::<i64>().map_or_else(|_| Value::from(answer), Value::from))
        };
        let context = WorkflowContext {
            environment: "plain".into(),
            endpoints: BTreeMap::from([(service, Endpoint::new("127.0.0.1", self.port))]),
            run_id: "r1".into(),
            env: &env,
            redactor: Redactor::new(),
            base_dir: self.root.clone(),
            sql: Some(&sql),
            sent: None,
            cancel: &|| false,
        };
        let mut failing = BTreeMap::new();
        let mut seen = 0;
        for entry in fs::read_dir(self.root.join("checks")).expect("lists") {
            let path = entry.expect("lists").path();
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("reads");
            let workflow = Workflow::parse(&file, &text).unwrap_or_else(|e| panic!("{file}: {e}"));
            seen += 1;
            let verdict = run(&workflow, &context).verdict;
            if verdict != Verdict::Pass {
                failing.insert(file, format!("{verdict:?}"));
            }
        }
        assert!(seen >= 2, "{seen} workflows in {}", self.root.display());
        failing
    }
}

/// JupyterHub.
impl Stack {
    /// Calls the hub's API as its administrator; the status and the JSON, null where there is none.
    #[track_caller]
    pub fn hub(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let token = format!("token {HUB_TOKEN}");
        let (status, text) = self
            .ask(method, &format!("/hub/api{path}"), &[("Authorization", &token)], body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The release that answers.
    #[track_caller]
    pub fn hub_version(&self) -> String {
        self.hub("GET", "/", None).1["version"].as_str().expect("a version").to_owned()
    }

    /// Every group with its users, and every user: what must be the same after everything.
    #[track_caller]
    pub fn people(&self) -> BTreeMap<String, Vec<String>> {
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<String> = value
                .as_array()
                .expect("a list")
                .iter()
                .map(|v| v.as_str().expect("a name").to_owned())
                .collect();
            names.sort();
            names
        };
        let users = self.hub("GET", "/users", None).1;
        let users: Value = users.as_array().expect("users").iter().map(|u| u["name"].clone()).collect();
        let groups = self.hub("GET", "/groups", None).1;
        let mut people: BTreeMap<String, Vec<String>> = groups
            .as_array()
            .expect("groups")
            .iter()
            .map(|g| (format!("group {}", g["name"].as_str().expect("a name")), names(&g["users"])))
            .collect();
        people.insert("users".into(), names(&users));
        people
    }
}

/// n8n.
impl Stack {
    /// Calls the webhook with the credential: the status and the total.
    pub fn order(&self) -> (u16, Option<i64>) {
        let body = serde_json::json!({ "id": "A-7", "qty": 3, "price": 14 });
        let answer = self.ask("POST", "/webhook/order", &[("x-api-key", ORDER_KEY)], Some(&body));
        let (status, text) = answer.unwrap_or_default();
        (status, serde_json::from_str::<Value>(&text).ok().and_then(|v| v["total"].as_i64()))
    }

    /// Calls the webhook that reads n8n's environment: the status and the shop.
    pub fn banner(&self) -> (u16, Option<String>) {
        let answer = self.ask("POST", "/webhook/banner", &[], Some(&serde_json::json!({ "n": 5 })));
        let (status, text) = answer.unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, value["shop"].as_str().map(str::to_owned))
    }
}

/// The bank.
impl Stack {
    /// The audit of the books in production.
    #[track_caller]
    pub fn bank(&self) -> Value {
        let (status, text) = self.ask("GET", "/audit", &[], None).unwrap_or_else(|e| panic!("/audit: {e}"));
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Makes a transfer; its number. It is durable then.
    #[track_caller]
    pub fn transfer(&self) -> u64 {
        let body = serde_json::json!({ "from": 1, "to": 2, "amount": 1 });
        let (status, text) = self.ask("POST", "/transfer", &[], Some(&body)).expect("answers");
        assert_eq!(status, 201, "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")["id"].as_u64().expect("a number")
    }
}
