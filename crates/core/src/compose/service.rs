//! A service of a model, seen through accessors that give plain text.

use super::{ModelError, shape, unescape};
use crate::ids::ServiceName;
use crate::release::MountSource;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One service of a [`super::Model`].
#[derive(Clone, Copy)]
pub struct Service<'m> {
    name: &'m ServiceName,
    body: &'m Map<String, Value>,
}

impl fmt::Debug for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.name)
    }
}

/// A port that a service publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMap {
    /// The port in the container.
    pub container: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The address of the host that it is bound to; none means all of them.
    pub host_ip: Option<String>,
    /// The port (or range) of the host; none means that the engine chooses one.
    pub published: Option<String>,
}

/// A health check that the model sets or switches off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Whether the image's own health check is switched off.
    pub disabled: bool,
    /// `CMD` and arguments, or `CMD-SHELL` and a line; empty if the image's own is kept.
    pub test: Vec<String>,
}

/// What a service needs of another one before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The other service.
    pub service: String,
    /// `service_started`, `service_healthy` or `service_completed_successfully`.
    pub condition: String,
    /// Whether the stack is not started without it.
    pub required: bool,
}

/// The kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A volume of the engine.
    Volume,
    /// A file or folder of the host.
    Bind,
    /// Memory.
    Tmpfs,
    /// A named pipe of Windows.
    Npipe,
    /// A cluster volume.
    Cluster,
    /// The files of an image, read-only.
    Image,
}

/// One entry below `volumes:` of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUse {
    /// Who mounts it.
    pub service: ServiceName,
    /// Where, in the container.
    pub target: String,
    /// What. For kinds without data on the host (tmpfs, npipe, image) it names the place.
    pub source: MountSource,
    /// Whether the service cannot write to it.
    pub read_only: bool,
    /// The kind of mount.
    pub kind: MountKind,
    /// The part of a volume that is mounted, if not all of it.
    pub subpath: Option<String>,
    /// Whether an empty volume stays empty instead of getting the image's files.
    pub nocopy: bool,
}

impl<'m> Service<'m> {
    pub(super) fn new(name: &'m ServiceName, body: &'m Map<String, Value>) -> Self {
        Self { name, body }
    }
    /// Its name.
    pub fn name(self) -> &'m ServiceName {
        self.name
    }
    /// The image, as the model names it.
    pub fn image(self) -> Option<&'m str> {
        self.str("image")
    }
    /// The command, without the entrypoint; empty where the image's is meant.
    pub fn command(self) -> Vec<String> {
        texts(self.body.get("command"))
    }
    /// Whether its image is built from source.
    pub fn has_build(self) -> bool {
        self.body.get("build").is_some_and(|b| !b.is_null())
    }
    /// Whether a plugin of Compose provides it instead of a container.
    pub fn has_provider(self) -> bool {
        self.body.get("provider").is_some_and(|b| !b.is_null())
    }
    /// The environment; variables without a value are left out (Compose does not set them).
    pub fn environment(self) -> BTreeMap<String, String> {
        text_map(self.body.get("environment"))
    }
    /// The published ports.
    pub fn ports(self) -> Vec<PortMap> {
        let text = |p: &Value, k: &str| p.get(k).and_then(scalar).filter(|t| !t.is_empty());
        let port = |p: &Value| {
            Some(PortMap {
                container: u16::try_from(p.get("target")?.as_u64()?).ok()?,
                protocol: text(p, "protocol").unwrap_or_else(|| "tcp".to_owned()),
                host_ip: text(p, "host_ip"),
                published: text(p, "published"),
            })
        };
        self.list("ports").filter_map(port).collect()
    }
    /// The health check, if the model says anything about it.
    pub fn healthcheck(self) -> Option<HealthCheck> {
        let body = self.body.get("healthcheck")?.as_object()?;
        let test = texts(body.get("test"));
        let off = body.get("disable").and_then(Value::as_bool).unwrap_or(false)
            || test.first().is_some_and(|t| t == "NONE");
        Some(HealthCheck { disabled: off, test: if off { Vec::new() } else { test } })
    }
    /// What it needs of other services.
    pub fn depends_on(self) -> Vec<Dependency> {
        let needs = self.body.get("depends_on").and_then(Value::as_object).into_iter().flatten();
        needs
            .map(|(service, body)| Dependency {
                service: service.clone(),
                condition: body
                    .get("condition")
                    .and_then(Value::as_str)
                    .unwrap_or("service_started")
                    .to_owned(),
                required: body.get("required").and_then(Value::as_bool).unwrap_or(true),
            })
            .collect()
    }
    /// What it mounts with `volumes:`.
    pub fn mounts(self) -> Vec<MountUse> {
        self.list("volumes").filter_map(|entry| mount(self.name, entry)).collect()
    }
    /// How long it may take to stop, as Compose writes durations (`1m30s`).
    pub fn stop_grace(self) -> Option<&'m str> {
        self.str("stop_grace_period")
    }
    /// A fixed name of its container.
    pub fn container_name(self) -> Option<&'m str> {
        self.str("container_name")
    }
    /// The keys of its networks.
    pub fn networks(self) -> Vec<&'m str> {
        let networks = self.body.get("networks").and_then(Value::as_object).into_iter().flatten();
        networks.map(|(key, _)| key.as_str()).collect()
    }
    /// `host`, `none`, `service:NAME`, `container:NAME` ...
    pub fn network_mode(self) -> Option<&'m str> {
        self.str("network_mode")
    }
    /// The profiles that it belongs to.
    pub fn profiles(self) -> Vec<String> {
        texts(self.body.get("profiles"))
    }
    /// Whether its container may do everything.
    pub fn privileged(self) -> bool {
        self.body.get("privileged").and_then(Value::as_bool).unwrap_or(false)
    }
    /// `host`, `service:NAME`, `container:NAME`.
    pub fn pid(self) -> Option<&'m str> {
        self.str("pid")
    }
    /// `host`, `shareable`, `service:NAME`, `container:NAME`.
    pub fn ipc(self) -> Option<&'m str> {
        self.str("ipc")
    }
    /// The devices of the host that it gets.
    pub fn devices(self) -> Vec<String> {
        let source = |d: &Value| d.as_str().or_else(|| d.get("source")?.as_str()).map(unescape);
        self.list("devices").filter_map(source).collect()
    }
    /// The capabilities that it gets.
    pub fn cap_add(self) -> Vec<String> {
        texts(self.body.get("cap_add"))
    }
    /// Names that are not asked of the DNS, as `NAME=ADDRESS`.
    pub fn extra_hosts(self) -> Vec<String> {
        match self.body.get("extra_hosts") {
            Some(Value::Object(_)) => {
                let hosts = text_map(self.body.get("extra_hosts"));
                hosts.into_iter().map(|(name, address)| format!("{name}={address}")).collect()
            }
            other => texts(other),
        }
    }
    /// Its labels.
    pub fn labels(self) -> BTreeMap<String, String> {
        text_map(self.body.get("labels"))
    }
    /// `no`, `always`, `on-failure`, `unless-stopped`.
    pub fn restart(self) -> Option<&'m str> {
        self.str("restart")
    }
    /// The whole definition, with `$` doubled.
    pub(super) fn body(self) -> &'m Map<String, Value> {
        self.body
    }

    fn str(self, key: &str) -> Option<&'m str> {
        self.body.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
    }
    fn list(self, key: &str) -> impl Iterator<Item = &'m Value> {
        self.body.get(key).and_then(Value::as_array).into_iter().flatten()
    }
}

/// Reads one entry of `volumes:`.
pub(super) fn mount(service: &ServiceName, entry: &Value) -> Option<MountUse> {
    let target = unescape(entry.get("target")?.as_str()?);
    let source = entry.get("source").and_then(Value::as_str).filter(|s| !s.is_empty()).map(unescape);
    let kind = match entry.get("type").and_then(Value::as_str)? {
        "volume" => MountKind::Volume,
        "bind" => MountKind::Bind,
        "tmpfs" => MountKind::Tmpfs,
        "npipe" => MountKind::Npipe,
        "cluster" => MountKind::Cluster,
        "image" => MountKind::Image,
        _ => return None,
    };
    let options = entry.get("volume");
    Some(MountUse {
        service: service.clone(),
        source: match (kind, source) {
            (MountKind::Volume | MountKind::Cluster, Some(key)) => MountSource::Volume(key),
            (MountKind::Bind, Some(path)) => MountSource::Bind(path),
            _ => MountSource::Anonymous { service: service.clone(), target: target.clone() },
        },
        target,
        read_only: entry.get("read_only").and_then(Value::as_bool).unwrap_or(false),
        kind,
        subpath: options.and_then(|o| o.get("subpath")).and_then(Value::as_str).map(unescape),
        nocopy: options.and_then(|o| o.get("nocopy")).and_then(Value::as_bool).unwrap_or(false),
    })
}

/// A mapping (or a list of `NAME=value`) of texts; entries without a value are left out.
pub(super) fn text_map(value: Option<&Value>) -> BTreeMap<String, String> {
    match value {
        Some(Value::Object(map)) => map.iter().filter_map(|(k, v)| Some((unescape(k), scalar(v)?))).collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|v| v.as_str()?.split_once('='))
            .map(|(k, v)| (unescape(k), unescape(v)))
            .collect(),
        _ => BTreeMap::new(),
    }
}

/// A list of texts; one text alone is a list of one.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(scalar).collect(),
        Some(other) => scalar(other).into_iter().collect(),
        None => Vec::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(unescape(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Checks what the accessors rely on.
pub(super) fn check(name: &ServiceName, body: &Map<String, Value>) -> Result<(), ModelError> {
    let at = |key: &str| format!("services.{name}.{key}");
    for key in ["image", "container_name", "network_mode", "pid", "ipc", "restart", "stop_grace_period"] {
        if body.get(key).is_some_and(|v| !v.is_string() && !v.is_null()) {
            return Err(shape(at(key), "is not a text"));
        }
    }
    for key in ["ports", "volumes", "devices"] {
        if body.get(key).is_some_and(|v| !v.is_array() && !v.is_null()) {
            return Err(shape(at(key), "is not a list"));
        }
    }
    for key in ["environment", "healthcheck", "depends_on", "networks", "labels", "deploy"] {
        if body.get(key).is_some_and(|v| !v.is_object() && !v.is_null()) {
            return Err(shape(at(key), "is not a mapping; only the normalised model can be read"));
        }
    }
    for (key, value) in body.get("environment").and_then(Value::as_object).into_iter().flatten() {
        if value.is_array() || value.is_object() {
            return Err(shape(at(&format!("environment.{key}")), "is not a text"));
        }
    }
    let service = Service::new(name, body);
    if service.list("ports").count() != service.ports().len() {
        return Err(shape(at("ports"), "have an entry without a port of the container (1 to 65535)"));
    }
    if service.ports().iter().any(|p| p.container == 0) {
        return Err(shape(at("ports"), "have an entry for port 0"));
    }
    let mut targets = BTreeSet::new();
    for (index, entry) in service.list("volumes").enumerate() {
        let at = at(&format!("volumes[{index}]"));
        let Some(mount) = mount(name, entry) else {
            return Err(shape(at, "has no target, or a type that is not known"));
        };
        if !mount.target.starts_with('/') && mount.kind != MountKind::Npipe {
            return Err(shape(at, "has a target that is not an absolute path"));
        }
        match &mount.source {
            MountSource::Bind(path) if !path.starts_with('/') => {
                return Err(shape(at, "binds a path that is not absolute"));
            }
            MountSource::Anonymous { .. } if mount.kind == MountKind::Bind => {
                return Err(shape(at, "binds nothing: it has no source"));
            }
            MountSource::Bind(_) | MountSource::Volume(_) | MountSource::Anonymous { .. } => {}
        }
        if !targets.insert(mount.target.trim_end_matches('/').to_owned()) {
            return Err(shape(at, "has the same target as another entry"));
        }
    }
    Ok(())
}
