//! Which engine is meant: the same rules as the `docker` command.
//!
//! Owns reading `DOCKER_HOST`, contexts and TLS settings. It must never contact an engine.

use super::DockerError;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where the engine listens if nothing else is said.
const DEFAULT: &str = "unix:///var/run/docker.sock";

/// Where an engine is and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As configured: `unix:///var/run/docker.sock`, `ssh://user@host`, `tcp://host:2376`.
    pub address: String,
    /// How it is spoken to.
    pub(super) transport: Transport,
}

/// How an engine is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    /// Through the socket at this path.
    Unix(String),
    /// Unencrypted, `host:port`.
    Http(String),
    /// With certificates, `host:port`.
    Tls {
        /// `host:port`.
        authority: String,
        /// A folder with `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
    /// Through `ssh`, which runs `docker system dial-stdio` over there.
    Ssh(SshTarget),
}

/// A host that `ssh` leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SshTarget {
    /// `USER@HOST` or `HOST`, which may be a name from the configuration of `ssh`.
    pub login: String,
    /// Its port, if it is said.
    pub port: Option<u16>,
    /// The engine's socket over there, if it is said.
    pub socket: Option<String>,
}

impl SshTarget {
    /// Takes what follows `ssh://`. What could be an option or a word of a shell is refused.
    fn parse(rest: &str) -> Option<Self> {
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(u, p)| (Some(u), p));
        let (host, port) = match place.strip_prefix('[') {
            Some(inner) => {
                let (host, after) = inner.split_once(']')?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let word = |text: &str, more: &str| {
            text.bytes().next().is_some_and(|c| c != b'-')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !word(host, "._-:") || !user.is_none_or(|u| word(u, "._-")) {
            return None;
        }
        let socket = match path.trim_end_matches('/') {
            "" => None,
            path if word(path, "/._-") => Some(path.to_owned()),
            _ => return None,
        };
        let port = if port.is_empty() { None } else { Some(port.parse().ok().filter(|p| *p > 0)?) };
        let login = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
        Some(Self { login, port, socket })
    }

    /// The host alone.
    fn host(&self) -> &str {
        self.login.rsplit_once('@').map_or(self.login.as_str(), |(_, host)| host)
    }
}

/// Reads one environment variable; an empty one counts as absent.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The folder of Docker's own configuration.
pub(super) fn config_dir(variables: Variables<'_>) -> Option<PathBuf> {
    variables("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| variables("HOME").map(|home| Path::new(&home).join(".docker")))
}

/// Docker's own configuration file; null if there is none.
pub(super) fn config_file(dir: &Path) -> Result<Value, DockerError> {
    let path = dir.join("config.json");
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| unusable(&path.to_string_lossy(), &e.to_string()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(unusable(&path.to_string_lossy(), &e.to_string())),
    }
}

fn unusable(endpoint: &str, why: &str) -> DockerError {
    DockerError::BadEndpoint { endpoint: endpoint.to_owned(), why: why.to_owned() }
}

impl Endpoint {
    /// Finds the engine: `DOCKER_HOST`, else `DOCKER_CONTEXT` or the current context, else the usual socket.
    pub(super) fn find(variables: Variables<'_>) -> Result<Self, DockerError> {
        let dir = config_dir(variables);
        if let Some(host) = variables("DOCKER_HOST") {
            let certificates = variables("DOCKER_CERT_PATH").map(PathBuf::from).or(dir);
            let tls = variables("DOCKER_TLS_VERIFY").is_some() || host.starts_with("https://");
            return Self::parse(&host, certificates.filter(|_| tls));
        }
        let Some(dir) = dir else { return Self::parse(DEFAULT, None) };
        let context = match variables("DOCKER_CONTEXT") {
            Some(name) => Some(name),
            None => config_file(&dir)?["currentContext"].as_str().map(str::to_owned),
        };
        match context.filter(|name| !name.is_empty() && name != "default") {
            Some(name) => Self::of_context(&dir, &name),
            None => Self::parse(DEFAULT, None),
        }
    }

    /// Takes an address; certificates are a folder, and mean TLS.
    pub(super) fn parse(address: &str, certificates: Option<PathBuf>) -> Result<Self, DockerError> {
        let address = address.trim();
        let transport = match address.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Transport::Unix(path.to_owned()),
            Some(("tcp" | "http" | "https", rest)) => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
                    return Err(unusable(address, "it has the form tcp://HOST:PORT"));
                }
                let bare = authority.ends_with(']') || !authority.contains(':');
                let port = if certificates.is_some() { 2376 } else { 2375 };
                let authority = if bare { format!("{authority}:{port}") } else { authority.to_owned() };
                match certificates {
                    Some(certificates) => Transport::Tls { authority, certificates },
                    None if address.starts_with("https:") => {
                        return Err(unusable(
                            address,
                            "set DOCKER_CERT_PATH to the folder of the certificates",
                        ));
                    }
                    None => Transport::Http(authority),
                }
            }
            Some(("ssh", rest)) => match SshTarget::parse(rest) {
                Some(target) => Transport::Ssh(target),
                None => {
                    return Err(unusable(
                        address,
                        "it has the form ssh://USER@HOST:PORT; a password has no place in it",
                    ));
                }
            },
            _ => {
                return Err(unusable(
                    address,
                    "known are unix:///PATH, ssh://USER@HOST, tcp://HOST:PORT and https://HOST:PORT",
                ));
            }
        };
        Ok(Self { address: address.to_owned(), transport })
    }

    /// The endpoint of a context of the `docker` command.
    fn of_context(dir: &Path, name: &str) -> Result<Self, DockerError> {
        let missing = || unusable(name, "there is no such context; see `docker context ls`");
        let contexts = dir.join("contexts/meta");
        for entry in std::fs::read_dir(&contexts).map_err(|_| missing())?.flatten() {
            let Ok(bytes) = std::fs::read(entry.path().join("meta.json")) else { continue };
            let Ok(meta) = serde_json::from_slice::<Value>(&bytes) else { continue };
            if meta["Name"].as_str() != Some(name) {
                continue;
            }
            let host = meta["Endpoints"]["docker"]["Host"].as_str().unwrap_or_default();
            let host = if host.is_empty() { DEFAULT } else { host };
            let tls = dir.join("contexts/tls").join(entry.file_name()).join("docker");
            return Self::parse(host, Some(tls).filter(|tls| tls.is_dir()));
        }
        Err(missing())
    }

    /// Where ports are reached that the engine publishes.
    pub(super) fn host(&self) -> String {
        match &self.transport {
            Transport::Unix(_) => "127.0.0.1".to_owned(),
            Transport::Http(authority) | Transport::Tls { authority, .. } => {
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                host.to_owned()
            }
            Transport::Ssh(target) => target.host().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found(variables: &[(&str, &str)]) -> Result<Endpoint, DockerError> {
        Endpoint::find(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_engine_is_found_as_the_docker_command_finds_it() {
        let dir = tempfile::tempdir().expect("folder");
        let config = dir.path().to_str().expect("text").to_owned();
        assert_eq!(found(&[("DOCKER_CONFIG", &config)]).expect("found").address, DEFAULT);
        let meta = dir.path().join("contexts/meta/aa");
        fs::create_dir_all(&meta).expect("folder");
        fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far.example:2376"}}}"#,
        )
        .expect("writes");
        fs::write(dir.path().join("config.json"), r#"{"currentContext":"far"}"#).expect("writes");
        let far = found(&[("DOCKER_CONFIG", &config)]).expect("found");
        assert_eq!((far.address.as_str(), far.host().as_str()), ("tcp://far.example:2376", "far.example"));
        assert_eq!(far.transport, Transport::Http("far.example:2376".into()));
        fs::create_dir_all(dir.path().join("contexts/tls/aa/docker")).expect("folder");
        let far = found(&[("DOCKER_CONFIG", &config), ("DOCKER_CONTEXT", "far")]).expect("found");
        assert!(matches!(far.transport, Transport::Tls { .. }), "{far:?}");
        let default = found(&[("DOCKER_CONFIG", &config), ("DOCKER_CONTEXT", "default")]).expect("found");
        assert_eq!(default.address, DEFAULT);
        let host =
            found(&[("DOCKER_CONFIG", &config), ("DOCKER_HOST", "unix:///run/x.sock")]).expect("found");
        assert_eq!(
            (host.transport.clone(), host.host()),
            (Transport::Unix("/run/x.sock".into()), "127.0.0.1".into())
        );
        assert!(found(&[("DOCKER_CONFIG", &config), ("DOCKER_CONTEXT", "none")]).is_err());
    }

    #[test]
    fn addresses_that_cannot_be_used_say_what_to_do() {
        for (address, word) in [
            ("ssh://me:secret@host", "password"),
            ("ssh://-oProxyCommand=x", "ssh://USER@HOST"),
            ("ssh://me@host;id", "ssh://USER@HOST"),
            ("ssh://me@host/a b", "ssh://USER@HOST"),
            ("ssh://me@host:0", "ssh://USER@HOST"),
            ("https://host", "DOCKER_CERT_PATH"),
            ("tcp://user:secret@host:1", "tcp://HOST:PORT"),
            ("unix://relative", "known are"),
            ("host:2375", "known are"),
        ] {
            let error = Endpoint::parse(address, None).expect_err(address).to_string();
            assert!(error.contains(word), "{error}");
        }
        let far =
            Endpoint::parse("ssh://me@far.example:2222/run/user/1000/docker.sock", None).expect("valid");
        let target = SshTarget {
            login: "me@far.example".into(),
            port: Some(2222),
            socket: Some("/run/user/1000/docker.sock".into()),
        };
        assert_eq!((far.host().as_str(), far.transport), ("far.example", Transport::Ssh(target)));
        let six = Endpoint::parse("ssh://[fe80::1]:22/", None).expect("valid");
        assert_eq!(six.host(), "fe80::1");
        let tls = Endpoint::parse("tcp://[::1]", Some("/certs".into())).expect("valid");
        assert_eq!(tls.host(), "[::1]");
    }
}
