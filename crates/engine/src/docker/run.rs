//! Running programs in containers: one-shot containers, detached ones, and inside running ones.
//!
//! Owns how a container of Switchback is made, and that a one-shot container is removed whatever happens. It must
//! never let the engine create a folder of its host, and never pass values of variables as arguments.

use super::error::Call;
use super::join::Joined;
use super::stream::{Attached, Fed, Pump, feed};
use super::{Docker, DockerError, name};
use bollard::errors::Error as Answer;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ExecConfig, HostConfig, HostConfigLogConfig, Mount, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};
use bollard::query_parameters::{
    AttachContainerOptions, CreateContainerOptions, RemoveContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt as _;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use switchback_core::release::MountPlace;

/// How often waiting for an end looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// The engine notes the exit code of a program in a container shortly after its streams ended.
const CODE: Duration = Duration::from_secs(10);
/// What a detached container keeps of its log: without a limit it fills the disk.
const LOG_SIZE: &str = "10m";

/// What the engine says of a bind mount whose source is missing.
const NO_SOURCE: &str = "bind source path does not exist";

const CREATE: Call = Call::change("create the container", "POST and CONTAINERS");
const START: Call = Call::change("start the container", "POST or ALLOW_START");
const ATTACH: Call = Call::change("attach to the container", "POST and CONTAINERS");
const WAIT: Call = Call::read("wait for the container", "POST and CONTAINERS");
const EXEC: Call = Call::change("run a program in the container", "POST and EXEC");

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundMount {
    /// A volume, directory or file; it must exist.
    pub place: MountPlace,
    /// Absolute path in the container.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// Only its own loopback.
    #[default]
    None,
    /// That of another container.
    Of(String),
    /// The network of this name.
    Named(String),
}

/// A container to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunSpec {
    /// Its name; `None` lets the engine choose one.
    pub name: Option<String>,
    /// Reference or id of its image.
    pub image: String,
    /// Instead of the image's entrypoint; `None` keeps that.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; empty keeps the image's, unless there is an entrypoint.
    pub argv: Vec<String>,
    /// Variables; sent in the body of the request, seen in no list of processes.
    pub env: Vec<(String, String)>,
    /// `user:group`; `None` keeps the image's.
    pub user: Option<String>,
    /// Mounts.
    pub mounts: Vec<BoundMount>,
    /// Paths of empty volumes that are removed with the container (of [`Docker::run`]).
    pub scratch: Vec<String>,
    /// Paths of folders in memory, with their size in bytes.
    pub tmpfs: Vec<(String, u64)>,
    /// Network.
    pub network: NetworkMode,
    /// Networks that it is on, with an address of its own on each; instead of `network`.
    pub joined: Vec<Joined>,
    /// Servers that it asks for names.
    pub dns: Vec<String>,
    /// Ports of the container that are published under the same number on 127.0.0.1 of the engine's host.
    pub published: Vec<u16>,
    /// Settings of its own kernel namespaces.
    pub sysctls: Vec<(String, String)>,
    /// All capabilities are dropped, but those in `cap_add`; and programs cannot gain any.
    pub cap_drop_all: bool,
    /// Capabilities that are added.
    pub cap_add: Vec<String>,
    /// Whether only mounts can be written to.
    pub read_only_root: bool,
    /// Labels; `dev.switchback.stack` must be among them.
    pub labels: BTreeMap<String, String>,
    /// Limit on memory, bytes; swap counts.
    pub memory_bytes: Option<u64>,
    /// Limit on processes and threads.
    pub pids: Option<u32>,
    /// Whether SELinux keeps out of the way: needed to reach volumes that other containers labelled as theirs.
    pub unlabelled: bool,
    /// Whether a small first process reaps orphans and passes signals on.
    pub init: bool,
}

/// A program to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables, added to the container's; sent in the body of the request.
    pub env: Vec<(String, String)>,
    /// `user:group`; `None` means the container's.
    pub user: Option<String>,
    /// Working directory; `None` means the container's.
    pub cwd: Option<String>,
}

/// How a program in a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + signal if it was killed.
    pub code: i64,
    /// The end of standard error, at most 64 KiB, not redacted.
    pub stderr_tail: String,
}

fn variables(env: &[(String, String)]) -> Option<Vec<String>> {
    (!env.is_empty()).then(|| env.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn mount(bound: &BoundMount) -> Result<Mount, DockerError> {
    let (typ, source) = match &bound.place {
        MountPlace::Volume(volume) => (MountType::VOLUME, name::object("volume", volume)?.to_owned()),
        MountPlace::Dir(path) if path.starts_with('/') => (MountType::BIND, path.clone()),
        MountPlace::Dir(path) => {
            return Err(DockerError::BadName { kind: "absolute path", name: path.clone() });
        }
    };
    // Without `NoCopy` an empty volume is filled with what the image has at the target.
    let volume_options = (typ == MountType::VOLUME)
        .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() });
    Ok(Mount {
        target: Some(bound.target.clone()),
        source: Some(source),
        typ: Some(typ),
        read_only: Some(bound.read_only),
        volume_options,
        ..Mount::default()
    })
}

impl RunSpec {
    fn body(&self, kept_log: bool, stdin: bool) -> Result<ContainerCreateBody, DockerError> {
        let mut mounts = self.mounts.iter().map(mount).collect::<Result<Vec<_>, _>>()?;
        mounts.extend(self.scratch.iter().map(|target| Mount {
            target: Some(target.clone()),
            typ: Some(MountType::VOLUME),
            ..Mount::default()
        }));
        mounts.extend(self.tmpfs.iter().map(|(target, bytes)| Mount {
            target: Some(target.clone()),
            typ: Some(MountType::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: Some(signed(*bytes)),
                ..MountTmpfsOptions::default()
            }),
            ..Mount::default()
        }));
        let network_mode = match &self.network {
            _ if !self.joined.is_empty() => name::object("network", &self.joined[0].network)?.to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Of(container) => format!("container:{}", name::object("container", container)?),
            NetworkMode::Named(network) => name::object("network", network)?.to_owned(),
        };
        let log = if kept_log {
            HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some([("max-size".to_owned(), LOG_SIZE.to_owned())].into()),
            }
        } else {
            // The output is streamed to us: a copy on the engine's disk would double large exports.
            HostConfigLogConfig { typ: Some("none".to_owned()), config: None }
        };
        let mut security = Vec::new();
        if self.cap_drop_all {
            security.push("no-new-privileges".to_owned());
        }
        if self.unlabelled {
            security.push("label=disable".to_owned());
        }
        let host = HostConfig {
            mounts: Some(mounts),
            network_mode: Some(network_mode),
            cap_drop: self.cap_drop_all.then(|| vec!["ALL".to_owned()]),
            cap_add: (!self.cap_add.is_empty()).then(|| self.cap_add.clone()),
            security_opt: (!security.is_empty()).then_some(security),
            readonly_rootfs: Some(self.read_only_root),
            memory: self.memory_bytes.map(signed),
            memory_swap: self.memory_bytes.map(signed),
            pids_limit: self.pids.map(i64::from),
            init: self.init.then_some(true),
            dns: (!self.dns.is_empty()).then(|| self.dns.clone()),
            port_bindings: (!self.published.is_empty()).then(|| self.port_bindings()),
            sysctls: (!self.sysctls.is_empty()).then(|| self.sysctls.iter().cloned().collect()),
            log_config: Some(log),
            ..HostConfig::default()
        };
        Ok(ContainerCreateBody {
            image: Some(name::image(&self.image)?.to_owned()),
            entrypoint: self.entrypoint.clone(),
            cmd: (!self.argv.is_empty() || self.entrypoint.is_some()).then(|| self.argv.clone()),
            env: variables(&self.env),
            user: self.user.clone(),
            labels: Some(self.labels.clone().into_iter().collect()),
            attach_stdin: Some(stdin),
            open_stdin: Some(stdin),
            stdin_once: Some(stdin),
            attach_stdout: Some(!kept_log),
            attach_stderr: Some(!kept_log),
            host_config: Some(host),
            exposed_ports: (!self.published.is_empty()).then(|| self.exposed_ports()),
            networking_config: self.first_network()?,
            ..ContainerCreateBody::default()
        })
    }
}

impl Docker {
    fn create(&self, spec: &RunSpec, kept_log: bool, stdin: bool) -> Result<String, DockerError> {
        let name = spec.name.as_deref().map(|n| name::object("container", n)).transpose()?;
        if !spec.labels.contains_key(super::STACK_LABEL) {
            return Err(DockerError::Other {
                doing: CREATE.doing,
                what: name.unwrap_or(&spec.image).to_owned(),
                why: format!("the label {} is missing", super::STACK_LABEL),
            });
        }
        for bound in &spec.mounts {
            // The engine would make an empty one.
            if let MountPlace::Volume(volume) = &bound.place
                && self.volume(volume)?.is_none()
            {
                return Err(DockerError::NoSuch { doing: "mount the volume", what: volume.clone() });
            }
        }
        let options = CreateContainerOptions { name: name.map(str::to_owned), platform: String::new() };
        let body = spec.body(kept_log, stdin)?;
        let what = name.unwrap_or(&spec.image);
        match self.ask(CREATE, what, self.client.create_container(Some(options), body)) {
            Ok(made) => match self.join_others(&made.id, &spec.joined) {
                Ok(()) => Ok(made.id),
                Err(e) => {
                    self.discard(&made.id);
                    Err(e)
                }
            },
            Err(DockerError::ImageMissing { .. }) => {
                Err(DockerError::ImageMissing { reference: spec.image.clone() })
            }
            // "bind source path does not exist: /x"
            Err(DockerError::Other { why, .. }) if why.contains(NO_SOURCE) => {
                let path =
                    why.rsplit_once(NO_SOURCE).map_or("", |(_, path)| path.trim_start_matches(':').trim());
                Err(DockerError::NoSuch { doing: "mount the directory", what: path.to_owned() })
            }
            Err(e) => Err(e),
        }
    }

    /// Starts a container that goes on by itself, and returns its id. One that cannot be started is removed.
    pub fn run_detached(&self, spec: &RunSpec) -> Result<String, DockerError> {
        let id = self.create(spec, true, false)?;
        let what = spec.name.as_deref().unwrap_or(&id);
        match self.ask(START, what, self.client.start_container(&id, None)) {
            Ok(()) => Ok(id),
            Err(e) => {
                self.discard(&id);
                Err(e)
            }
        }
    }

    /// Runs a container to its end: creates, attaches, starts, streams, waits, and removes it, also after an error
    /// or when cancelled (then it is killed).
    ///
    /// `stdin` is read by a thread and must come to an end by itself: the call returns after it did.
    pub fn run(
        &self,
        spec: &RunSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Ended, DockerError> {
        if cancel() {
            return Err(DockerError::Cancelled);
        }
        let id = self.create(spec, false, stdin.is_some())?;
        let ended = self.run_created(&id, spec, stdin, stdout, cancel);
        let removed = self.remove_with_scratch(&id);
        let ended = ended?;
        removed?;
        Ok(ended)
    }

    fn run_created(
        &self,
        id: &str,
        spec: &RunSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Ended, DockerError> {
        let what = spec.name.as_deref().unwrap_or(id);
        let options = AttachContainerOptions {
            stream: true,
            stdin: stdin.is_some(),
            stdout: true,
            stderr: true,
            ..AttachContainerOptions::default()
        };
        self.streaming(stdin, |stdin| async {
            let attach = self.client.attach_container(id, Some(options));
            let attached = self.bounded(ATTACH, what, attach).await?;
            let attached = Attached { output: attached.output, input: attached.input };
            self.bounded(START, what, self.client.start_container(id, None)).await?;
            let stderr_tail = self.pump(Pump { attached, stdin, stdout, cancel, call: ATTACH, what }).await?;
            let code = self.exit_code(id, what, cancel).await?;
            Ok(Ended { code, stderr_tail })
        })
    }

    /// Drives a future that needs bytes which a thread reads meanwhile.
    fn streaming<T, F>(
        &self,
        stdin: Option<&mut (dyn Read + Send)>,
        work: impl FnOnce(Option<tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>>) -> F,
    ) -> Result<T, DockerError>
    where
        F: Future<Output = Result<T, DockerError>>,
    {
        std::thread::scope(|scope| {
            let chunks = stdin.map(|reader| {
                let (feeder, fed) = Fed::channel();
                scope.spawn(move || feed(reader, feeder));
                fed.chunks
            });
            self.runtime.block_on(work(chunks))
        })
    }

    /// Waits until a container has ended.
    async fn exit_code(&self, id: &str, what: &str, cancel: &dyn Fn() -> bool) -> Result<i64, DockerError> {
        loop {
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let mut wait = Box::pin(self.client.wait_container(id, Some(options)));
            let began = Instant::now();
            // After the limit the connection may be dead: it is asked again on a new one.
            while began.elapsed() < WAIT.limit {
                match tokio::time::timeout(LOOK, wait.next()).await {
                    Ok(Some(Ok(ended))) => return Ok(ended.status_code),
                    Ok(Some(Err(Answer::DockerContainerWaitError { code, .. }))) => return Ok(code),
                    Ok(Some(Err(e))) => return Err(self.failed(WAIT, what, &e)),
                    Ok(None) => {
                        return Err(DockerError::EngineUnreachable {
                            endpoint: self.endpoint().to_owned(),
                            why: format!("it went away while {what} ran"),
                        });
                    }
                    Err(_) if cancel() => return Err(DockerError::Cancelled),
                    Err(_) => {}
                }
            }
        }
    }

    /// Removes what a failed start left; the failure is the error to report.
    fn discard(&self, id: &str) {
        let _ = self.remove_with_scratch(id);
    }

    /// Removes a container of our own making, with its volumes that have no name.
    pub fn remove_with_scratch(&self, id: &str) -> Result<(), DockerError> {
        self.remove_as(id, RemoveContainerOptions { force: true, v: true, link: false })
    }

    /// Runs a program in a running container.
    ///
    /// The API cannot end such a program: when cancelled, its streams are closed and it may run on until it
    /// notices. `stdin` is read by a thread and must come to an end by itself.
    pub fn exec(
        &self,
        container: &str,
        spec: &ExecSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Ended, DockerError> {
        let container = name::object("container", container)?;
        if cancel() {
            return Err(DockerError::Cancelled);
        }
        let config = ExecConfig {
            attach_stdin: Some(stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: variables(&spec.env),
            cmd: Some(spec.argv.clone()),
            user: spec.user.clone(),
            working_dir: spec.cwd.clone(),
            ..ExecConfig::default()
        };
        self.streaming(stdin, |stdin| async {
            let made = self.bounded(EXEC, container, self.client.create_exec(container, config)).await?;
            let options = StartExecOptions::default();
            let started =
                self.bounded(EXEC, container, self.client.start_exec(&made.id, Some(options))).await?;
            let StartExecResults::Attached { output, input } = started else {
                return Err(DockerError::Other {
                    doing: EXEC.doing,
                    what: container.to_owned(),
                    why: "the engine did not attach to it".to_owned(),
                });
            };
            let attached = Attached { output, input };
            let stderr_tail =
                self.pump(Pump { attached, stdin, stdout, cancel, call: EXEC, what: container }).await?;
            let began = Instant::now();
            loop {
                let state = self.bounded(EXEC, container, self.client.inspect_exec(&made.id)).await?;
                if let (Some(code), false) = (state.exit_code, state.running.unwrap_or_default()) {
                    return Ok(Ended { code, stderr_tail });
                }
                if cancel() {
                    return Err(DockerError::Cancelled);
                }
                if began.elapsed() > CODE && !self.inspect_running(container).await? {
                    return Err(DockerError::Conflict {
                        doing: EXEC.doing,
                        what: container.to_owned(),
                        why: "the container ended meanwhile".to_owned(),
                    });
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    async fn inspect_running(&self, container: &str) -> Result<bool, DockerError> {
        let found = self.bounded(EXEC, container, self.client.inspect_container(container, None)).await?;
        Ok(found.state.and_then(|s| s.running).unwrap_or_default())
    }
}
