//! The Docker engine: a synchronous facade of its API, Docker Compose, and helper containers.
//!
//! Owns every conversation with the engine. It knows nothing of runs, generations or stores' meaning. Every call
//! has a time limit, except streams, which are watched instead. It must never remove a volume that does not
//! carry Switchback's label, never put a secret into an argument list, and never send a name that it did not
//! check. Nothing here installs a logger: the library below would print bodies of requests.

pub mod compose;
mod container;
mod credentials;
mod endpoint;
mod error;
mod freezer;
pub mod hands;
pub mod helper;
mod image;
mod image_archive;
mod join;
mod name;
mod network;
pub mod permissions;
mod private;
mod run;
mod ssh;
mod stats;
mod stream;
pub mod thaw;
mod volume;

pub use container::{Container, ContainerSummary, Health, MountPoint, Published, State};
pub use credentials::registry_login;
pub use endpoint::Endpoint;
pub use error::DockerError;
pub use image::Image;
pub use join::Joined;
pub use network::{Network, NetworkSpec, Subnet};
pub use run::{BoundMount, Ended, ExecSpec, NetworkMode, RunSpec};
pub use stats::Stats;
pub use volume::{ScratchVolume, Volume};

use bollard::errors::Error as Answer;
use endpoint::Transport;
use error::{Call, translate};
use ssh::Tunnel;
use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The label of everything that Switchback makes; its value is the id of the stack.
pub const STACK_LABEL: &str = "dev.switchback.stack";
/// The label of volumes that Switchback made.
pub const SCRATCH_LABEL: &str = "dev.switchback.scratch";
/// The label of helper images.
pub const HELPER_LABEL: &str = "dev.switchback.helper";
/// Its value on the gateway of a staging environment, which lives as long as the environment.
pub const GATEWAY: &str = "gateway";

/// The version of the API that is spoken where the engine still knows it: that of engine 20.10, so that answers
/// look the same up to engine 28. Newer engines that dropped it are spoken to in their oldest version.
const API: (u32, u32) = (1, 41);

/// The library's own limit, which covers the head of an answer only. Ours is per call; this must be longer than
/// any of them.
const NO_LIMIT_SECS: u64 = 7 * 24 * 3600;

/// How long connecting may take: longer than the engine needs for its version on a loaded host.
const CONNECT: Duration = Duration::from_secs(15);

/// A connection to a Docker engine. One is enough for a program; it may be used from several threads.
pub struct Docker {
    client: bollard::Docker,
    runtime: Runtime,
    endpoint: Endpoint,
    /// For an endpoint with `ssh://`; dropped after the client, whose connections go through it.
    tunnel: Option<Arc<Tunnel>>,
    api: String,
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Docker({}, API {})", self.endpoint.address, self.api)
    }
}

/// Where something listens on the engine's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens<'a> {
    /// At all its addresses.
    Everywhere,
    /// At this one.
    At(&'a str),
    /// At a container's own address.
    InContainer(&'a str),
}

/// Who wants to reach something on another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// This process, as long as it lives.
    Program,
    /// A person, who reads the address as that host has it.
    Person,
}

/// What the engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `20.10.24`.
    pub server_version: String,
    /// The version of the API that is spoken.
    pub api_version: String,
    /// `overlay2`, `btrfs`, `zfs`.
    pub storage_driver: String,
    /// Where it keeps its data, on its host.
    pub root_dir: String,
    /// Name of its host.
    pub name: String,
    /// Its own id; empty on some engines.
    pub id: String,
    /// `linux/x86_64`.
    pub platform: String,
    /// `v1` or `v2`.
    pub cgroup: String,
    /// The engine runs without root.
    pub rootless: bool,
    /// Memory of its host, bytes.
    pub memory_bytes: u64,
    /// Processors of its host.
    pub cpus: u64,
}

impl Docker {
    /// Connects to the engine that the `docker` command would use, and agrees on a version of the API.
    pub fn connect() -> Result<Self, DockerError> {
        Self::connect_to(Endpoint::find(&endpoint::variable)?)
    }

    /// Connects to the engine at an address, as in `DOCKER_HOST`, without TLS.
    pub fn connect_at(address: &str) -> Result<Self, DockerError> {
        Self::connect_to(Endpoint::parse(address, None)?)
    }

    fn connect_to(endpoint: Endpoint) -> Result<Self, DockerError> {
        let call = Call { doing: "ask for the version", section: "VERSION", limit: CONNECT };
        let failed = |e: &Answer| translate(&endpoint.address, call, "the engine", e);
        // One worker: it drives connections while no call of ours is being waited for. It sleeps otherwise.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("docker")
            .enable_all()
            .build()
            .map_err(|source| DockerError::Stream { doing: "start a thread", source })?;
        let version = bollard::API_DEFAULT_VERSION;
        let tunnel = match &endpoint.transport {
            Transport::Ssh(target) => Some(Tunnel::open(target)?),
            _ => None,
        };
        let client = match &endpoint.transport {
            Transport::Unix(path) => bollard::Docker::connect_with_unix(path, NO_LIMIT_SECS, version),
            Transport::Ssh(_) => {
                let socket = tunnel.as_ref().map(|t| t.socket()).unwrap_or_default();
                bollard::Docker::connect_with_unix(&socket.to_string_lossy(), NO_LIMIT_SECS, version)
            }
            Transport::Http(authority) => {
                bollard::Docker::connect_with_http(authority, NO_LIMIT_SECS, version)
            }
            Transport::Tls { authority, certificates } => bollard::Docker::connect_with_ssl(
                authority,
                &certificates.join("key.pem"),
                &certificates.join("cert.pem"),
                &certificates.join("ca.pem"),
                NO_LIMIT_SECS,
                version,
            ),
        }
        .map_err(|e| match e {
            Answer::CertPathError { path } | Answer::CertParseError { path } => DockerError::BadEndpoint {
                endpoint: endpoint.address.clone(),
                why: format!("the certificate {} cannot be read", path.display()),
            },
            other => failed(&other),
        })?;
        let mut docker = Self { client, runtime, endpoint, tunnel, api: String::new() };
        match docker.ask(call, "the engine", docker.client.version()) {
            Ok(found) => {
                let (newest, oldest) = (found.api_version.as_deref(), found.min_api_version.as_deref());
                docker.pin(spoken(newest.and_then(number), oldest.and_then(number)));
            }
            // A socket proxy may keep the version to itself; then the engine takes its newest.
            Err(DockerError::Forbidden { .. }) => {}
            Err(e) => return Err(e),
        }
        Ok(docker)
    }

    /// Puts a version of the API before the path of every request.
    fn pin(&mut self, (major, minor): (u32, u32)) {
        self.api = format!("{major}.{minor}");
        let prefix = format!("/v{}", self.api);
        self.client = self.client.clone().with_request_modifier(move |mut request| {
            let all = request.uri().to_string();
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            if let Some(authority) = all.strip_suffix(path)
                && let Ok(versioned) = format!("{authority}{prefix}{path}").parse()
            {
                *request.uri_mut() = versioned;
            }
            request
        });
    }

    /// The engine's address, for messages.
    pub fn endpoint(&self) -> &str {
        &self.endpoint.address
    }

    /// Where ports are reached that the engine publishes: `127.0.0.1`, or the host of a remote engine.
    pub fn host_address(&self) -> String {
        self.endpoint.host()
    }

    /// Where something is reached that listens at an address of the engine's host: its published ports, and (where this is that host,
    /// or `ssh` leads to it) the addresses of containers. `None` where that cannot be.
    pub fn reach(&self, listens: Listens<'_>, port: u16, whom: Whom) -> Option<(String, u16)> {
        let address = match listens {
            Listens::Everywhere => "127.0.0.1",
            Listens::At(address) => address,
            Listens::InContainer(address) if self.tunnel.is_some() || self.is_local() => address,
            Listens::InContainer(_) => return None,
        };
        let published = !matches!(listens, Listens::InContainer(_));
        match &self.tunnel {
            Some(tunnel) if whom == Whom::Program => {
                Some(("127.0.0.1".to_owned(), tunnel.forward(address, port)?))
            }
            None if published && matches!(address, "127.0.0.1" | "::1") => Some((self.host_address(), port)),
            _ => Some((address.to_owned(), port)),
        }
    }

    /// The host behind `ssh` that lets nobody reach its ports, if this engine is on one: checks would reach no service.
    pub fn closed_host(&self) -> Option<String> {
        self.tunnel.as_ref().filter(|t| !t.forwards_ports()).and(self.login())
    }

    /// The socket of this process that leads to an engine behind `ssh`, for other programs.
    pub fn forwarded_socket(&self) -> Option<PathBuf> {
        self.tunnel.as_ref().map(|t| t.socket())
    }

    /// The host that `ssh` leads to, in the words of its command line.
    pub fn login(&self) -> Option<String> {
        match &self.endpoint.transport {
            Transport::Ssh(target) => Some(match target.port {
                Some(port) => format!("-p {port} {}", target.login),
                None => target.login.clone(),
            }),
            _ => None,
        }
    }

    /// Whether the engine is spoken to through a socket of this host, so that it (usually) shares its files.
    pub fn is_local(&self) -> bool {
        matches!(self.endpoint.transport, Transport::Unix(_))
    }

    /// What the engine says about itself.
    pub fn info(&self) -> Result<EngineInfo, DockerError> {
        let info =
            self.ask(Call::read("ask for information on", "INFO"), "the engine", self.client.info())?;
        let options = info.security_options.unwrap_or_default();
        Ok(EngineInfo {
            server_version: info.server_version.unwrap_or_default(),
            api_version: self.api.clone(),
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            name: info.name.unwrap_or_default(),
            id: info.id.unwrap_or_default(),
            platform: format!(
                "{}/{}",
                info.os_type.unwrap_or_default(),
                info.architecture.unwrap_or_default()
            ),
            cgroup: info.cgroup_version.map(|v| format!("v{v}")).unwrap_or_default(),
            rootless: options.iter().any(|o| o.contains("rootless")),
            memory_bytes: info.mem_total.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
            cpus: info.ncpu.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
        })
    }

    /// Confirms that the engine answers; whatever it says is an answer.
    pub fn ping(&self) -> Result<(), DockerError> {
        let call = Call { doing: "answer", section: "VERSION", limit: CONNECT };
        match self.ask(call, "the engine", self.client.version()) {
            Err(e @ (DockerError::EngineUnreachable { .. } | DockerError::PermissionDenied { .. })) => Err(e),
            // One that hangs is as good as gone, until it goes on.
            Err(DockerError::Timeout { .. }) => Err(DockerError::EngineUnreachable {
                endpoint: self.endpoint().to_owned(),
                why: format!("it did not answer within {} s", CONNECT.as_secs()),
            }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits for one answer, at most as long as the call may take.
    fn ask<T>(
        &self,
        call: Call,
        what: &str,
        answer: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, DockerError> {
        self.runtime.block_on(self.bounded(call, what, answer))
    }

    /// The same inside a future.
    async fn bounded<T>(
        &self,
        call: Call,
        what: &str,
        answer: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, DockerError> {
        match tokio::time::timeout(call.limit, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.failed(call, what, &e)),
            Err(_) => Err(DockerError::Timeout { doing: call.doing, limit: call.limit }),
        }
    }

    fn failed(&self, call: Call, what: &str, error: &Answer) -> DockerError {
        match translate(&self.endpoint.address, call, what, error) {
            // The connection only broke; `ssh` knows why.
            DockerError::EngineUnreachable { endpoint, why } => {
                let why = match self.tunnel.as_ref().and_then(|t| t.said()) {
                    Some(said) => format!("{why} (ssh: {said})"),
                    None => why,
                };
                DockerError::EngineUnreachable { endpoint, why }
            }
            other => other,
        }
    }
}

/// `1.41` as numbers.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The version to speak with an engine that knows those from `oldest` to `newest`.
fn spoken(newest: Option<(u32, u32)>, oldest: Option<(u32, u32)>) -> (u32, u32) {
    API.min(newest.unwrap_or(API)).max(oldest.unwrap_or((0, 0)))
}

/// A filter of the API: everything with these labels. An empty value means any value.
fn with_labels(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let wanted = labels.iter().map(|(k, v)| if v.is_empty() { (*k).to_owned() } else { format!("{k}={v}") });
    HashMap::from([("label".to_owned(), wanted.collect())])
}

/// A missing thing as `None`.
fn optional<T>(answer: Result<T, DockerError>) -> Result<Option<T>, DockerError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(DockerError::NoSuch { .. } | DockerError::ImageMissing { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Something that is in the wanted state already, or is gone already, as done.
fn done_or_gone(answer: Result<(), DockerError>) -> Result<(), DockerError> {
    optional(answer).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_of_engine_20_10_is_spoken_where_the_engine_knows_it() {
        assert_eq!(spoken(number("1.41"), number("1.12")), (1, 41));
        assert_eq!(spoken(number("1.48"), number("1.24")), (1, 41));
        assert_eq!(spoken(number("1.52"), number("1.44")), (1, 44));
        assert_eq!(spoken(number("1.40"), number("1.12")), (1, 40));
        assert_eq!(spoken(number("odd"), None), (1, 41));
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        let error = Docker::connect_at("unix:///nonexistent/docker.sock").expect_err("nobody listens");
        assert!(matches!(error, DockerError::EngineUnreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("unix:///nonexistent/docker.sock"), "{error}");
        let error = Docker::connect_at("tcp://127.0.0.1:1").expect_err("nobody listens");
        assert!(matches!(error, DockerError::EngineUnreachable { .. }), "{error:?}");
    }

    #[test]
    fn several_threads_may_share_one_connection() {
        fn shared<T: Send + Sync>() {}
        shared::<Docker>();
    }
}
