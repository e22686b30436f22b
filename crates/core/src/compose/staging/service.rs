//! One service of a staging copy.

use super::super::escape;
use super::super::model::{mapping, published_here};
use super::{StagingFacts, Told, labels};
use crate::ids::ServiceName;
use serde_json::{Map, Value, json};

/// Capabilities that reach past a container's own namespaces.
const HOST_CAPABILITIES: [&str; 14] = [
    "ALL",
    "AUDIT_CONTROL",
    "BPF",
    "DAC_READ_SEARCH",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
];

/// Variables by which proxies that watch the engine (nginx-proxy and its companions) route to a container.
const ROUTING_VARIABLES: [&str; 9] = [
    "VIRTUAL_HOST",
    "VIRTUAL_HOST_MULTIPORTS",
    "VIRTUAL_PATH",
    "VIRTUAL_PORT",
    "VIRTUAL_PROTO",
    "VIRTUAL_DEST",
    "LETSENCRYPT_HOST",
    "LETSENCRYPT_EMAIL",
    "ACME_HOST",
];

/// Keys of a service that are taken away, what to call them, and why.
const REMOVED: [(&str, &str, &str); 14] = [
    ("container_name", "its container has no fixed name", "production's container has it"),
    ("mac_address", "it has no fixed hardware address", "production has it"),
    ("external_links", "links to containers outside are gone", "they lead to production"),
    ("extra_hosts", "extra_hosts are gone", "they lead to the host and other machines"),
    ("privileged", "it is not privileged", "a privileged container can reach the host"),
    ("devices", "it has no devices", "production uses them"),
    ("device_cgroup_rules", "it has no rules for devices", "production uses them"),
    ("cgroup_parent", "it is in the engine's own cgroup", "production's limits would count it"),
    ("security_opt", "security options are the engine's own", "they may lift the container's confinement"),
    ("use_api_socket", "it does not get the engine's socket", "it could reach every container"),
    ("credential_spec", "it has no credentials of the host", "they are production's"),
    ("userns_mode", "user namespaces are the engine's own", "the host's may be wanted"),
    ("uts", "it has its own host name", "it would share the host's"),
    ("develop", "nothing is watched for changes", "the copy is of what was released"),
];

/// Takes away what would reach production or the host, and sets what staging sets.
pub(super) fn isolate(
    body: &mut Map<String, Value>,
    name: &ServiceName,
    facts: &StagingFacts,
    told: &mut Told,
) {
    super::networks::of_service(body, name, told);
    for (key, what, why) in REMOVED {
        if body.shift_remove(key).is_some_and(|v| is_set(&v)) {
            told.say(Some(name), what, why);
        }
    }
    namespaces(body, name, told);
    capabilities(body, name, told);
    outside(body, name, told);
    if body.get("restart").and_then(Value::as_str).is_some_and(|r| r != "no") {
        told.say(Some(name), "it is not restarted when it ends", "a failure has to be seen");
    }
    body.insert("restart".to_owned(), Value::from("no"));
    if let Some(deploy) = body.get_mut("deploy").and_then(Value::as_object_mut) {
        if deploy.shift_remove("restart_policy").is_some_and(|v| is_set(&v)) {
            told.say(Some(name), "it is not restarted when it ends", "a failure has to be seen");
        }
        deploy.shift_remove("labels");
    }
    set_labels(body, name, facts, told);
    environment(body, name, facts, told);
    authority(body, name, facts, told);
    ports(body, name, facts, told);
}

pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn namespaces(body: &mut Map<String, Value>, name: &ServiceName, told: &mut Told) {
    for key in ["pid", "ipc", "cgroup"] {
        let mode = body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        if mode == "host" || mode.starts_with("container:") {
            body.shift_remove(key);
            told.say(
                Some(name),
                format!("{key} is its own instead of {mode}"),
                "it would share it with the host or with production",
            );
        }
    }
    if let Some(list) = body.get_mut("volumes_from").and_then(Value::as_array_mut) {
        let before = list.len();
        list.retain(|v| !v.as_str().is_some_and(|t| t.starts_with("container:")));
        if list.len() < before {
            told.say(Some(name), "volumes of containers outside are gone", "they are production's data");
        }
    }
}

fn capabilities(body: &mut Map<String, Value>, name: &ServiceName, told: &mut Told) {
    let Some(list) = body.get_mut("cap_add").and_then(Value::as_array_mut) else { return };
    let mut gone = Vec::new();
    list.retain(|cap| {
        let cap = cap.as_str().unwrap_or_default().to_ascii_uppercase();
        let short = cap.strip_prefix("CAP_").unwrap_or(&cap).to_owned();
        let keep = !HOST_CAPABILITIES.contains(&short.as_str());
        if !keep {
            gone.push(short);
        }
        keep
    });
    if !gone.is_empty() {
        told.say(
            Some(name),
            format!("it does not have the capabilities {}", gone.join(", ")),
            "they reach the host",
        );
    }
}

/// Ways out that are not networks.
fn outside(body: &mut Map<String, Value>, name: &ServiceName, told: &mut Told) {
    let driver =
        body.get("logging").and_then(|l| l.get("driver")).and_then(Value::as_str).unwrap_or_default();
    if !matches!(driver, "" | "json-file" | "local" | "none") {
        told.say(
            Some(name),
            format!("its log stays with the engine instead of going to {}", super::super::unescape(driver)),
            "the engine would send it there from the host",
        );
        body.insert("logging".to_owned(), json!({ "driver": "json-file" }));
    }
}

fn set_labels(body: &mut Map<String, Value>, name: &ServiceName, facts: &StagingFacts, told: &mut Told) {
    let old = body.shift_remove("labels");
    let own = super::super::pins::MOUNTS_LABEL;
    let keys: Vec<&str> = old
        .as_ref()
        .and_then(Value::as_object)
        .map(|l| l.keys().map(String::as_str).filter(|k| *k != own).collect())
        .unwrap_or_default();
    if !keys.is_empty() {
        told.say(
            Some(name),
            format!("its labels are gone: {}", keys.join(", ")),
            "proxies, updaters and schedulers on this host act on labels",
        );
    }
    let mut labels = labels(facts);
    if let Some(mounts) = old.as_ref().and_then(|l| l.get(own)) {
        mapping(&mut labels).insert(own.to_owned(), mounts.clone());
    }
    body.insert("labels".to_owned(), labels);
}

fn environment(body: &mut Map<String, Value>, name: &ServiceName, facts: &StagingFacts, told: &mut Told) {
    if facts.env.is_empty() && body.get("environment").is_none_or(Value::is_null) {
        return;
    }
    let environment = mapping(body.entry("environment").or_insert(Value::Null));
    for variable in ROUTING_VARIABLES {
        if environment.shift_remove(variable).is_some() {
            told.say(Some(name), format!("{variable} is not set"), "proxies on this host route by it");
        }
    }
    for (variable, value) in &facts.env {
        let value = Value::from(escape(value));
        if environment.get(variable) != Some(&value) {
            environment.insert(variable.clone(), value);
            told.say(Some(name), format!("{variable} has another value"), "staging.env says so");
        }
    }
}

/// Variables by which programs are told of a certificate to trust: OpenSSL and Go, Node, Python's requests, curl.
pub const TRUST: [&str; 4] = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// Where that certificate lies in the containers.
const AUTHORITY: &str = "/run/switchback-authority.pem";

fn authority(body: &mut Map<String, Value>, name: &ServiceName, facts: &StagingFacts, told: &mut Told) {
    let Some(file) = &facts.authority else { return };
    let environment = mapping(body.entry("environment").or_insert(Value::Null));
    for variable in TRUST {
        environment.insert(variable.to_owned(), Value::from(AUTHORITY));
    }
    let volumes = body.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = volumes.as_array_mut() {
        list.push(json!({
            "type": "bind", "source": escape(file), "target": AUTHORITY, "read_only": true,
            "bind": { "create_host_path": false },
        }));
    }
    told.say(
        Some(name),
        format!("it trusts the certificates of canned answers, too ({})", TRUST.join(", ")),
        "staging.egress has stubs",
    );
}

fn ports(body: &mut Map<String, Value>, name: &ServiceName, facts: &StagingFacts, told: &mut Told) {
    let had = body.shift_remove("ports").is_some_and(|p| is_set(&p));
    let own = facts.ports.get(name).filter(|p| !p.is_empty());
    if had {
        let what = match own {
            Some(_) if facts.gateway.is_some() => {
                "its ports are others, on 127.0.0.1 only, through the gateway"
            }
            Some(_) => "its ports are others, on 127.0.0.1 only",
            None => "its ports are not published",
        };
        told.say(Some(name), what, "production's users use production's ports");
    }
    let Some(own) = own.filter(|_| facts.gateway.is_none()) else { return };
    single(body, name, told);
    body.insert("ports".to_owned(), published_here(own));
}

/// Two containers cannot publish the same port.
fn single(body: &mut Map<String, Value>, name: &ServiceName, told: &mut Told) {
    let many = |v: Option<&Value>| v.and_then(Value::as_u64).is_some_and(|n| n > 1);
    let mut reduced = many(body.get("scale"));
    if reduced {
        body.insert("scale".to_owned(), Value::from(1));
    }
    if let Some(deploy) = body.get_mut("deploy").and_then(Value::as_object_mut)
        && many(deploy.get("replicas"))
    {
        deploy.insert("replicas".to_owned(), Value::from(1));
        reduced = true;
    }
    if reduced {
        told.say(Some(name), "one container of it runs", "its port has to lead to a known one");
    }
}
