//! Limits of a staging copy's services, for machines that cannot carry production twice.
//!
//! A limit only lowers: what production's service may use is never raised.

use super::super::model::mapping;
use super::Told;
use crate::ids::ServiceName;
use serde_json::{Map, Value, json};

/// The most that each service of a copy gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths.
    pub millicpus: Option<u64>,
}

/// Lowers the limits of a service.
pub(super) fn apply(body: &mut Map<String, Value>, name: &ServiceName, limits: Limits, told: &mut Told) {
    if let Some(most) = limits.memory_bytes {
        let now = limit(body, "memory", "mem_limit").and_then(|v| number(&v)).filter(|n| *n > 0.0);
        if now.is_none_or(|n| n > most as f64) {
            set(body, "memory", "mem_limit", &Value::from(most.to_string()));
            // Both would have to fit below.
            body.shift_remove("memswap_limit");
            body.shift_remove("mem_reservation");
            reservations(body, "memory");
            told.say(
                Some(name),
                format!("it has at most {} of memory", crate::duration::human_bytes(most)),
                "staging.limits says so",
            );
        }
    }
    if let Some(most) = limits.millicpus {
        let now = limit(body, "cpus", "cpus").and_then(|v| number(&v)).filter(|n| *n > 0.0);
        let most = most as f64 / 1000.0;
        if now.is_none_or(|n| n > most) {
            let value = if has(body, "cpus") { Value::from(most.to_string()) } else { json!(most) };
            set(body, "cpus", "cpus", &value);
            reservations(body, "cpus");
            told.say(Some(name), format!("it has at most {most} processors"), "staging.limits says so");
        }
    }
}

/// A limit, where Compose keeps it: in `deploy.resources.limits`, or in a key of the service.
fn limit(body: &Map<String, Value>, deployed: &str, key: &str) -> Option<Value> {
    let there = body.get("deploy").and_then(|d| d.pointer(&format!("/resources/limits/{deployed}")));
    there.or_else(|| body.get(key)).cloned()
}

/// Whether it is in `deploy`: Compose refuses two places that say different things.
fn has(body: &Map<String, Value>, deployed: &str) -> bool {
    body.get("deploy").is_some_and(|d| d.pointer(&format!("/resources/limits/{deployed}")).is_some())
}

fn set(body: &mut Map<String, Value>, deployed: &str, key: &str, value: &Value) {
    let here = body.contains_key(key);
    if has(body, deployed)
        && let Some(limits) = body.get_mut("deploy").and_then(|d| d.pointer_mut("/resources/limits"))
    {
        mapping(limits).insert(deployed.to_owned(), value.clone());
        if !here {
            return;
        }
    }
    body.insert(key.to_owned(), value.clone());
}

/// What is reserved must fit below the limit.
fn reservations(body: &mut Map<String, Value>, deployed: &str) {
    if let Some(kept) = body.get_mut("deploy").and_then(|d| d.pointer_mut("/resources/reservations"))
        && let Some(kept) = kept.as_object_mut()
    {
        kept.shift_remove(deployed);
    }
}

/// Numbers stand as numbers or as texts; sizes as Compose resolves them are bytes.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
