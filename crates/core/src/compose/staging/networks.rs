//! The networks of a staging copy: its own, without a way out, each with the gateway's address as the place to ask for names.

use super::super::model::{mapping, section};
use super::super::{Model, ModelError, unescape};
use super::{StagingFacts, Told};
use crate::ids::ServiceName;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The network of services that name none.
const DEFAULT: &str = "default";

/// The keys of the networks that a copy of a model uses.
pub fn staging_networks(model: &Model) -> BTreeSet<String> {
    let services = model.root().get("services").and_then(Value::as_object).into_iter().flatten();
    services.flat_map(|(_, body)| keys_of(body)).collect()
}

/// The networks that a service of a copy is on. `host` and other containers' networks become its own.
fn keys_of(body: &Value) -> Vec<String> {
    let mode = body.get("network_mode").and_then(Value::as_str).unwrap_or_default();
    if keeps(mode) {
        return Vec::new();
    }
    let named = body.get("networks").and_then(Value::as_object).filter(|n| mode.is_empty() && !n.is_empty());
    named.map_or_else(|| vec![DEFAULT.to_owned()], |n| n.keys().cloned().collect())
}

/// Whether a mode keeps the service off every network of its own.
fn keeps(mode: &str) -> bool {
    mode == "none" || mode.starts_with("service:")
}

/// One service: its networks without anything fixed.
pub(super) fn of_service(body: &mut Map<String, Value>, name: &ServiceName, told: &mut Told) {
    let mode = body.get("network_mode").and_then(Value::as_str).unwrap_or_default().to_owned();
    if keeps(&mode) {
        return;
    }
    if !mode.is_empty() {
        body.shift_remove("network_mode");
        told.say(
            Some(name),
            format!("it is on the copy's own network instead of network_mode {mode}"),
            "it would share a network with the host or with other containers",
        );
    }
    let fixed_name = body.get("container_name").and_then(Value::as_str).map(str::to_owned);
    let networks = mapping(body.entry("networks").or_insert(Value::Null));
    if networks.is_empty() {
        networks.insert(DEFAULT.to_owned(), Value::Null);
    }
    for (_, options) in networks {
        if let Some(map) = options.as_object_mut() {
            let mut fixed = false;
            for key in ["ipv4_address", "ipv6_address", "link_local_ips", "mac_address", "driver_opts"] {
                fixed |= map.shift_remove(key).is_some_and(|v| super::service::is_set(&v));
            }
            if fixed {
                told.say(Some(name), "it has no fixed address", "production has it");
            }
        }
        // Other services may call it by the name that its container has in production.
        if let Some(alias) = &fixed_name {
            let options = mapping(options);
            let aliases = options.entry("aliases").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = aliases.as_array_mut()
                && !list.iter().any(|a| a.as_str() == Some(alias))
            {
                list.push(Value::from(alias.as_str()));
            }
        }
    }
}

/// Every network becomes the copy's own: made beforehand, with the gateway on it. Services ask the gateway for names.
pub(super) fn isolate(
    root: &mut Map<String, Value>,
    facts: &StagingFacts,
    told: &mut Told,
) -> Result<(), ModelError> {
    let Some(gateway) = &facts.gateway else {
        bridges(root, facts, told);
        return Ok(());
    };
    let mut used = BTreeSet::new();
    for (name, body) in section(root, "services") {
        let keys = keys_of(body);
        let Some(first) = keys.first() else { continue };
        let Some(address) = gateway.get(first) else {
            return Err(ModelError::Staging(format!("the gateway has no address on the network {first}")));
        };
        let body = mapping(body);
        for key in ["dns", "dns_search", "dns_opt"] {
            if body.shift_remove(key).is_some_and(|v| super::service::is_set(&v))
                && let Ok(service) = ServiceName::new(name)
            {
                told.say(
                    Some(&service),
                    "it asks the gateway for names instead of servers of its own",
                    "a copy must not ask the world",
                );
            }
        }
        body.insert("dns".to_owned(), json!([address]));
        used.extend(keys);
    }
    let networks = section(root, "networks");
    for (key, body) in networks.iter().filter(|(key, _)| used.contains(*key)) {
        tell(key, body, told);
    }
    networks.clear();
    for key in used {
        let own = json!({ "name": format!("{}_{key}", facts.project), "external": true });
        networks.insert(key, own);
    }
    told.say(
        None,
        "no network has a way out, to the host or to production; the gateway records what is sent",
        "a copy must not act on the world",
    );
    Ok(())
}

/// Without a gateway: every network becomes the copy's own bridge without a way to the internet, made by Compose.
fn bridges(root: &mut Map<String, Value>, facts: &StagingFacts, told: &mut Told) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    // Networks whose every user could not be reached on its port, were they internal.
    let mut open: BTreeSet<String> = BTreeSet::new();
    let mut internal: BTreeSet<String> = BTreeSet::new();
    for (key, body) in section(root, "networks") {
        if body.get("internal").and_then(Value::as_bool) == Some(true) {
            internal.insert(key.clone());
        }
    }
    for (_, body) in section(root, "services") {
        let keys: Vec<String> = body
            .get("networks")
            .and_then(Value::as_object)
            .map(|n| n.keys().cloned().collect())
            .unwrap_or_default();
        if body.get("ports").is_some() && !keys.is_empty() && keys.iter().all(|k| internal.contains(k)) {
            open.extend(keys.iter().take(1).cloned());
        }
        used.extend(keys);
    }
    let networks = section(root, "networks");
    for key in &used {
        networks.entry(key.as_str()).or_insert(Value::Null);
    }
    for (key, body) in networks {
        tell(key, body, told);
        if open.contains(key) {
            told.say(
                None,
                format!("the network {key} is not internal"),
                "an internal network publishes no ports to be checked through",
            );
        }
        let mut own = json!({
            "name": format!("{}_{key}", facts.project),
            "driver": "bridge",
            "driver_opts": { "com.docker.network.bridge.enable_ip_masquerade": "false" },
            "labels": super::labels(facts),
        });
        if internal.contains(key) && !open.contains(key) {
            mapping(&mut own).insert("internal".to_owned(), Value::Bool(true));
        }
        *body = own;
    }
    told.say(None, "no network has a way out", "a copy must not act on the world");
}

fn tell(key: &str, body: &Value, told: &mut Told) {
    let text = |k: &str| body.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
    if body.get("external").and_then(Value::as_bool) == Some(true) {
        told.say(
            None,
            format!("the network {key} is its own instead of {}", unescape(&text("name"))),
            "others are on that network",
        );
    } else if !matches!(text("driver").as_str(), "" | "bridge" | "default") {
        told.say(
            None,
            format!("the network {key} is a bridge instead of {}", text("driver")),
            "only a bridge stays on this host",
        );
    }
    let ipam = body.get("ipam").and_then(Value::as_object).is_some_and(|i| !i.is_empty());
    if ipam || body.get("driver_opts").is_some_and(|o| !o.is_null()) {
        told.say(
            None,
            format!("the network {key} has no addresses or options of its own"),
            "production has them",
        );
    }
}
