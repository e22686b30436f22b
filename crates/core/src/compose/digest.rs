//! The part of a release that is configuration.

use super::Model;
use crate::ids::Digest;
use serde_json::{Map, Value};

impl Model {
    /// The digest of what the Compose files configure.
    ///
    /// Images, builds and pull policies are left out (a release has its images itself), and so are the project's name,
    /// names made of it, and where the stack's folder lies (`stack_dir`, absolute): the same stack elsewhere has the same digest.
    /// Taken of the model without the lock file; a lock file changes where mounts lie.
    pub fn config_digest(&self, stack_dir: &str) -> Digest {
        let mut root = self.root().clone();
        root.remove("name");
        if let Some(services) = root.get_mut("services").and_then(Value::as_object_mut) {
            for body in services.values_mut().filter_map(Value::as_object_mut) {
                ["image", "build", "pull_policy", "develop"].iter().for_each(|key| _ = body.remove(*key));
            }
        }
        for key in ["networks", "volumes", "secrets", "configs"] {
            for (name, body) in root.get_mut(key).and_then(Value::as_object_mut).into_iter().flatten() {
                let own = format!("{}_{name}", self.project());
                if let Some(body) = body.as_object_mut()
                    && body.get("name").and_then(Value::as_str) == Some(&own)
                {
                    body.remove("name");
                }
            }
        }
        let canonical = canonical(Value::Object(root), stack_dir.trim_end_matches('/'));
        Digest::of(canonical.to_string().as_bytes())
    }
}

/// Keys sorted, paths relative to the stack.
fn canonical(value: Value, dir: &str) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().map(|(k, v)| (k, canonical(v, dir))).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(|v| canonical(v, dir)).collect()),
        Value::String(text) if !dir.is_empty() => match super::below(&text, &super::escape(dir)) {
            Some("") => Value::from("."),
            Some(rest) => Value::from(format!("./{rest}")),
            None => Value::String(text),
        },
        other => other,
    }
}
