//! Why a call to the Docker engine failed, in terms an operator can act on.
//!
//! Owns the error type and the translation of the engine's answers. It must never carry the environment or
//! the standard input of a container.

use bollard::errors::Error as Answer;
use std::error::Error as _;
use std::io;
use std::time::Duration;

/// Why a call to the Docker engine failed.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nobody answers, or the connection broke in the middle.
    #[error(
        "the Docker engine at {endpoint} cannot be reached: {why}; start it, or set DOCKER_HOST or DOCKER_CONTEXT"
    )]
    EngineUnreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the system said.
        why: String,
    },
    /// The socket exists and this user may not open it.
    #[error(
        "this user may not open {endpoint}: add it to the group that owns the socket (usually docker), or use sudo"
    )]
    PermissionDenied {
        /// The socket.
        endpoint: String,
    },
    /// A proxy in front of the engine refuses the call.
    #[error("{endpoint} refuses to {operation}: allow {section} in the proxy before the Docker socket")]
    Forbidden {
        /// What was being done.
        operation: &'static str,
        /// Where.
        endpoint: String,
        /// The section of the API, as socket proxies name it.
        section: &'static str,
    },
    /// The address in the configuration cannot be used.
    #[error("the Docker endpoint {endpoint:?} cannot be used: {why}")]
    BadEndpoint {
        /// As configured.
        endpoint: String,
        /// Why, and what to do.
        why: String,
    },
    /// A name that Docker would not accept, refused before it is sent.
    #[error("{name:?} is no valid {kind}")]
    BadName {
        /// What it should name.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The container, volume or network does not exist.
    #[error("cannot {doing}: {what} does not exist")]
    NoSuch {
        /// What was being done.
        doing: &'static str,
        /// The missing thing.
        what: String,
    },
    /// The engine refuses because of the state that something is in.
    #[error("cannot {doing} {what}: {why}")]
    Conflict {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// What the engine said.
        why: String,
    },
    /// The image is not on the engine.
    #[error("the image {reference} is not on the engine: pull or build it first")]
    ImageMissing {
        /// The image.
        reference: String,
    },
    /// The registry did not deliver.
    #[error("cannot pull {reference}: {why}")]
    PullFailed {
        /// The image.
        reference: String,
        /// What engine or registry said.
        why: String,
    },
    /// A port that should be published is in use.
    #[error("cannot start {what}, because a port is taken: {why}; stop what holds the port")]
    PortTaken {
        /// The container.
        what: String,
        /// What the engine said, with the address.
        why: String,
    },
    /// Containers reference the volume.
    #[error("the volume {volume} is in use by {}: remove these containers first", by.join(", "))]
    VolumeInUse {
        /// The volume.
        volume: String,
        /// Names of the containers.
        by: Vec<String>,
    },
    /// The volume is not one that Switchback may remove or write to.
    #[error("the volume {volume} must not be removed or written to: {why}")]
    NotScratch {
        /// The volume.
        volume: String,
        /// Why.
        why: String,
    },
    /// There is no Docker Compose.
    #[error(
        "Docker Compose v2 is not installed: install the package docker-compose-plugin or docker-compose (2.24.4 or newer)"
    )]
    ComposeMissing,
    /// Docker Compose is too old.
    #[error("Docker Compose {found} is too old: 2.24.4 or newer is needed")]
    ComposeTooOld {
        /// Its version.
        found: String,
    },
    /// Docker Compose ended with an error.
    #[error("docker compose {command} failed ({how}): {why}")]
    ComposeFailed {
        /// Its subcommand.
        command: &'static str,
        /// Exit code or signal.
        how: String,
        /// The end of its output, redacted.
        why: String,
    },
    /// The program has no form that a helper image can be made of.
    #[error("cannot make a helper image of {program}: {why}")]
    Helper {
        /// The program.
        program: String,
        /// Why.
        why: String,
    },
    /// Reading what goes into a container, or writing what comes out, failed on our side.
    #[error("cannot {doing}: {source}")]
    Stream {
        /// The action.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The engine took too long.
    #[error("the Docker engine took longer than {} s to {doing}: look at its load and its log", limit.as_secs())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// Anything else.
    #[error("cannot {doing} {what}: {why}")]
    Other {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// What the engine said.
        why: String,
    },
}

/// One kind of call: what it does in words, what must be allowed for it, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Completes "cannot ..." and "refuses to ...".
    pub doing: &'static str,
    /// The section of the API, as socket proxies name it.
    pub section: &'static str,
    /// Longest wait for the whole answer.
    pub limit: Duration,
}

/// Reading: the engine answers from memory; a minute covers a host that swaps.
const READ: Duration = Duration::from_secs(60);
/// Changing: starting a container with many mounts or pausing a large one takes seconds.
const CHANGE: Duration = Duration::from_secs(120);
/// Removing: the engine deletes the container's files before it answers.
const REMOVE: Duration = Duration::from_secs(600);

impl Call {
    pub(super) const fn read(doing: &'static str, section: &'static str) -> Self {
        Self { doing, section, limit: READ }
    }
    pub(super) const fn change(doing: &'static str, section: &'static str) -> Self {
        Self { doing, section, limit: CHANGE }
    }
    pub(super) const fn remove(doing: &'static str, section: &'static str) -> Self {
        Self { doing, section, limit: REMOVE }
    }
    /// The same with a longer limit, for calls that wait for a container.
    pub(super) fn and(self, more: Duration) -> Self {
        Self { limit: self.limit.saturating_add(more), ..self }
    }
}

/// The innermost I/O error of an error.
fn io_error(error: &Answer) -> Option<&io::Error> {
    let mut next = error.source();
    if let Answer::IOError { err } = error {
        return Some(err);
    }
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The last sentence of an error: the layers above it only say "client error".
fn innermost(error: &Answer) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = error.to_string();
        next = error.source();
    }
    text
}

/// Translates what bollard says about a call that concerned `what`.
pub(super) fn translate(endpoint: &str, call: Call, what: &str, error: &Answer) -> DockerError {
    let (doing, what, endpoint) = (call.doing, what.to_owned(), endpoint.to_owned());
    match error {
        Answer::DockerResponseServerError { status_code, message } => {
            let why = message.trim().to_owned();
            let lower = why.to_lowercase();
            match status_code {
                401 | 403 => DockerError::Forbidden { operation: doing, endpoint, section: call.section },
                404 if lower.contains("no such image") => DockerError::ImageMissing { reference: what },
                404 => DockerError::NoSuch { doing, what },
                _ if lower.contains("port is already allocated")
                    || lower.contains("address already in use") =>
                {
                    DockerError::PortTaken { what, why }
                }
                409 => DockerError::Conflict { doing, what, why },
                502..=504 => DockerError::EngineUnreachable { endpoint, why },
                _ => DockerError::Other { doing, what, why },
            }
        }
        Answer::RequestTimeoutError => DockerError::Timeout { doing, limit: call.limit },
        Answer::SocketNotFoundError(path) => {
            DockerError::EngineUnreachable { endpoint, why: format!("{path} does not exist") }
        }
        Answer::DockerStreamError { error } => DockerError::Other { doing, what, why: error.clone() },
        Answer::HyperLegacyError { .. } | Answer::HyperResponseError { .. } | Answer::IOError { .. } => {
            match io_error(error) {
                Some(io) if io.kind() == io::ErrorKind::PermissionDenied => {
                    DockerError::PermissionDenied { endpoint }
                }
                _ => DockerError::EngineUnreachable { endpoint, why: innermost(error) },
            }
        }
        other => DockerError::Other { doing, what, why: other.to_string() },
    }
}
