//! What can go wrong in the engine.

use crate::docker::DockerError;
use crate::docker::hands::HandsError;
use crate::store::StoreError;
use std::path::{Path, PathBuf};
use switchback_core::config::ConfigError;
use switchback_core::ids::{GenerationId, RunId};
use switchback_core::journal::{ErrorKind, StepError};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No `switchback.yaml`.
    #[error("there is no switchback.yaml in {}", dir.display())]
    NoConfig {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A mistake in a configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system refused something.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file that Switchback wrote is not as it was written.
    #[error("{} is damaged: {detail}", what.display())]
    Damaged {
        /// The file.
        what: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// State written by a newer version.
    #[error("{} was written by a newer Switchback (format {found}; this one knows up to {known})", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// No such generation.
    #[error("there is no generation {id}")]
    UnknownGeneration {
        /// The one asked for.
        id: GenerationId,
        /// Those that exist.
        known: Vec<GenerationId>,
    },
    /// No such run.
    #[error("there is no run {run}")]
    UnknownRun {
        /// The one asked for.
        run: RunId,
    },
    /// Another run holds the lock.
    #[error("another run holds the lock: {holder}")]
    Busy {
        /// Who.
        holder: String,
    },
    /// The journal's database failed.
    #[error("the journal {} failed: {source}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A store operation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Docker engine did not do its part.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// What runs the services went away in the middle of a run, and did not come back.
    #[error("the {noun} {run} stopped half-way{}: {why}", if *down { ", production is DOWN" } else { "" })]
    Away {
        /// The run.
        run: RunId,
        /// Its procedure in words.
        noun: &'static str,
        /// Whether production is down.
        down: bool,
        /// Who is away, in words.
        why: String,
    },
    /// The request cannot be carried out as things stand.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A step's failure.
    #[error("{}", .0.message)]
    Step(StepError),
    /// A bug.
    #[error("internal error: {detail}")]
    Internal {
        /// What was not expected.
        detail: String,
    },
}

/// Makes an [`EngineError::Io`] from the system's answer.
pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EngineError + use<> {
    let path = path.to_owned();
    move |source| EngineError::Io { doing, path, source }
}

impl From<HandsError> for EngineError {
    fn from(error: HandsError) -> Self {
        match error {
            HandsError::Docker(e) => Self::Docker(e),
            HandsError::Store(e) => Self::Store(e),
            broken @ HandsError::Broken { .. } => Self::refused(
                broken.to_string(),
                "was it killed, or is memory short? `dmesg` and the engine's log tell",
            ),
        }
    }
}

impl EngineError {
    /// A refusal with advice.
    pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()) }
    }

    /// A mistake in what the user wrote, with advice.
    pub fn misconfigured(
        file: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self::Config(ConfigError { file: file.into(), line: 0, message: message.into(), hint })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoConfig { .. } => Some("`switchback init` writes one; `-C DIR` looks elsewhere".into()),
            Self::Config(e) => e.hint.clone(),
            Self::Io { source, path, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    Some(format!("run as the owner of {}", path.display()))
                }
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    Some("the file system is mounted read-only; Switchback must be able to write its state".into())
                }
                std::io::ErrorKind::StorageFull => Some("free some space; `switchback gc` removes what is no longer needed".into()),
                _ => None,
            },
            Self::Damaged { .. } => Some(
                "nothing was guessed and nothing was changed; restore the file from a backup, or see docs/upgrade-infrastructure/rollback/damaged-state.md".into(),
            ),
            Self::NewerFormat { .. } => Some("use the newer Switchback, or return to the state folder's backup".into()),
            Self::UnknownGeneration { known, .. } => Some(if known.is_empty() {
                "no generation exists yet; `switchback up` makes the first".into()
            } else {
                format!("known generations: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }),
            Self::UnknownRun { .. } => Some("`switchback history` lists the runs".into()),
            Self::Busy { .. } => Some("wait for it (`--wait 5m`), or look at `switchback status`".into()),
            Self::Refused { hint, .. } => hint.clone(),
            Self::Step(e) => e.hint.clone(),
            Self::Store(e) => match e {
                StoreError::NoSpace { .. } => Some("free some space; `switchback gc` removes what is no longer needed".into()),
                StoreError::Damaged { .. } => Some("the data itself is damaged: no copy of it can be trusted; restore it from a backup".into()),
                _ => None,
            },
            Self::Docker(e) => match e {
                DockerError::EngineUnreachable { .. } => {
                    Some("start the Docker engine; then `switchback resume` goes on where a run stopped".into())
                }
                _ => None,
            },
            Self::Away { .. } => Some(
                "start the Docker engine; then `switchback resume` goes on (the watchdog of a promotion or rollback does it by itself)".into(),
            ),
            Self::Journal { .. } | Self::Internal { .. } => None,
        }
    }

    /// Whether what runs the services cannot be spoken to now: later it may be.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Docker(DockerError::EngineUnreachable { .. }))
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoConfig { .. }
            | Self::Config(_)
            | Self::UnknownGeneration { .. }
            | Self::UnknownRun { .. } => ErrorKind::Usage,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Step(e) => e.kind,
            Self::Store(StoreError::Damaged { .. } | StoreError::Repository { .. }) => ErrorKind::Refused,
            Self::Io { .. } | Self::Docker(_) | Self::Away { .. } | Self::Store(_) | Self::Journal { .. } => {
                ErrorKind::Host
            }
            _ => ErrorKind::Internal,
        }
    }

    /// The form that is written to the journal.
    pub fn to_step_error(&self) -> StepError {
        match self {
            Self::Step(e) => e.clone(),
            _ => StepError {
                kind: self.kind(),
                message: self.to_string(),
                hint: self.hint(),
                details: Vec::new(),
            },
        }
    }
}

/// What a thread came to.
pub fn joined<T>(
    thread: std::thread::ScopedJoinHandle<'_, Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let panicked = || EngineError::Internal { detail: "a thread panicked".to_owned() };
    thread.join().unwrap_or_else(|_| Err(panicked()))
}
