//! The model that a migration runs with: production's services and data, where nobody else reaches them.
//!
//! While a new generation's data is migrated, no client may write to it: what is written before the migration has ended
//! belongs to no generation that a rollback could account for. So the services that a migration needs are in networks
//! of their own, under another project, and publish no ports.

use super::model::{mapping, section};
use super::{Model, ModelError};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the model of a migration is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationFacts {
    /// The name of its project.
    pub project: String,
    /// Volumes of the engine that exist: they belong to the other project, and Compose must not ask why.
    pub volumes: BTreeSet<String>,
    /// Labels of its containers and networks.
    pub labels: BTreeMap<String, String>,
}

/// The model of a generation, as it is needed while a migration runs.
pub fn migration(model: &Model, facts: &MigrationFacts) -> Result<Model, ModelError> {
    let mut root = model.root().clone();
    root.insert("name".to_owned(), Value::from(facts.project.as_str()));
    let labels: Map<String, Value> =
        facts.labels.iter().map(|(k, v)| (k.clone(), Value::from(super::escape(v)))).collect();
    for (_, service) in section(&mut root, "services") {
        let service = mapping(service);
        let fixed = service.shift_remove("container_name");
        for key in ["ports", "mac_address", "external_links"] {
            service.shift_remove(key);
        }
        service.insert("restart".to_owned(), Value::from("no"));
        // Proxies and updaters act on labels.
        service.insert("labels".to_owned(), Value::Object(labels.clone()));
        let Some(networks) = service.get_mut("networks").and_then(Value::as_object_mut) else { continue };
        for (_, own) in networks.iter_mut() {
            let own = mapping(own);
            for key in ["ipv4_address", "ipv6_address", "mac_address", "link_local_ips"] {
                own.shift_remove(key);
            }
            if let Some(name) = &fixed {
                let aliases = own.entry("aliases").or_insert_with(|| json!([]));
                if let Some(aliases) = aliases.as_array_mut().filter(|a| !a.contains(name)) {
                    aliases.push(name.clone());
                }
            }
        }
    }
    for (key, network) in section(&mut root, "networks") {
        let internal = network.get("internal").and_then(Value::as_bool) == Some(true);
        *network = json!({
            "name": format!("{}_{key}", facts.project),
            "driver": "bridge",
            "internal": internal,
            "labels": labels,
        });
    }
    for (_, volume) in section(&mut root, "volumes") {
        let name = volume.get("name").and_then(Value::as_str).map(super::unescape);
        if let Some(name) = name.filter(|n| facts.volumes.contains(n)) {
            *volume = json!({ "name": super::escape(&name), "external": true });
        }
    }
    Model::try_from(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_reaches_what_a_migration_runs_with() {
        let model = Model::parse(
            r#"{ "name": "shop",
                "services": {
                    "db": { "image": "postgres:15", "container_name": "shop-db", "restart": "always",
                        "labels": { "traefik.enable": "true" }, "ports": [ { "target": 5432, "published": "5432" } ],
                        "networks": { "default": null, "outside": { "ipv4_address": "10.0.0.7" } },
                        "volumes": [ { "type": "volume", "source": "data", "target": "/var/lib/postgresql/data" } ] } },
                "networks": { "default": { "name": "shop_default" }, "outside": { "name": "lan", "external": true } },
                "volumes": { "data": { "name": "shop_data.g2" }, "new": { "name": "shop_new" } } }"#,
        )
        .expect("a model");
        let facts = MigrationFacts {
            project: "shop-migrate".into(),
            volumes: BTreeSet::from(["shop_data.g2".to_owned()]),
            labels: BTreeMap::from([("dev.switchback.stack".to_owned(), "s".to_owned())]),
        };
        let made = serde_json::to_value(migration(&model, &facts).expect("made")).expect("JSON");
        let db = &made["services"]["db"];
        assert!(db.get("ports").is_none() && db.get("container_name").is_none(), "{db}");
        assert_eq!(db["restart"], "no");
        assert_eq!(db["labels"], json!({ "dev.switchback.stack": "s" }));
        assert_eq!(db["networks"]["outside"], json!({ "aliases": ["shop-db"] }));
        for key in ["default", "outside"] {
            assert_eq!(made["networks"][key]["name"], format!("shop-migrate_{key}"));
            assert!(made["networks"][key].get("external").is_none());
        }
        assert_eq!(made["volumes"]["data"], json!({ "name": "shop_data.g2", "external": true }));
        assert_eq!(made["volumes"]["new"], json!({ "name": "shop_new" }));
        assert_eq!(made["name"], "shop-migrate");
    }
}
