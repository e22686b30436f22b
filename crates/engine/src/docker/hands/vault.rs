//! Work on the repository of backups, in a helper that sees the data and the repository and nothing else.

use super::client::{Below, Hands, HandsError, Mounts, Result, parsed};
use super::lines::Lines;
use super::wire::Request;
use crate::backup::vault::{Location, Task, Vault};
use crate::docker::NetworkMode;
use crate::error::EngineError;
use crate::store::Progress;
use serde_json::Value;
use switchback_core::backup::Part;
use switchback_core::release::MountPlace;

/// Threads: the library reads and writes with some for each processor.
const PIDS: u32 = 512;

/// A place that is read or written in the work, and its name in the snapshot.
pub struct Placed<'a> {
    /// Outside.
    pub at: Below<'a>,
    /// What is said of it; its path outside is replaced by that in the helper.
    pub part: Part,
}

/// The request of a task, for a process on this host.
pub fn vault_request(vault: &Vault, task: &Task) -> std::result::Result<Vec<u8>, EngineError> {
    let request = Request::Vault { vault: vault.clone(), task: task.clone() };
    serde_json::to_vec(&request).map_err(|e| EngineError::Internal { detail: e.to_string() })
}

impl Hands<'_> {
    /// Carries out a task. Its parts, if it has any, are those that are given here.
    pub fn vault(
        &self,
        vault: &Vault,
        task: &Task,
        placed: &[Placed<'_>],
        progress: &Progress<'_>,
    ) -> Result<Value> {
        let mut mounts = Mounts::default();
        let mut vault = vault.clone();
        let mut folder = None;
        if let Location::Folder(path) = &vault.location {
            let inside = mounts.writes((&MountPlace::Dir(path.clone()), ""))?;
            folder = Some(inside.clone());
            vault.location = Location::Folder(inside);
        }
        let mut task = task.clone();
        match &mut task {
            Task::Archive { parts, .. } => {
                *parts = placed
                    .iter()
                    .map(|p| {
                        let real = mounts.reads(p.at)?;
                        let outside = p.part.real.clone();
                        let mut part = p.part.clone();
                        part.except = part
                            .except
                            .iter()
                            .filter_map(|e| e.strip_prefix(&outside))
                            .map(|below| format!("{real}{below}"))
                            .collect();
                        part.real = real;
                        Ok(part)
                    })
                    .collect::<Result<_>>()?;
            }
            Task::Restore { parts, .. } => {
                *parts = placed
                    .iter()
                    .map(|p| Ok(Part { real: mounts.makes(p.at)?, ..p.part.clone() }))
                    .collect::<Result<_>>()?;
            }
            Task::Segments { parts, .. } => {
                *parts = placed
                    .iter()
                    .map(|p| Ok(Part { real: mounts.writes(p.at)?, ..p.part.clone() }))
                    .collect::<Result<_>>()?;
            }
            Task::Init
            | Task::Open
            | Task::List
            | Task::Logs
            | Task::Read { .. }
            | Task::Check { .. }
            | Task::Forget { .. } => {}
        }
        let mut spec = self.spec(mounts, false);
        spec.pids = Some(PIDS);
        if folder.is_none() {
            // A server, perhaps on this very host.
            spec.network = NetworkMode::Named("host".to_owned());
        }
        let request = Request::Vault { vault, task };
        let text =
            serde_json::to_vec(&request).map_err(|e| HandsError::Broken { code: -1, why: e.to_string() })?;
        let mut lines = Lines::new(None, progress);
        let ended =
            self.docker.run(&spec, Some(&mut text.as_slice()), &mut lines, &|| (progress.cancel)())?;
        match lines.answer {
            Some(answer) if ended.code == 0 => parsed(answer?),
            _ => Err(HandsError::Broken { code: ended.code, why: ended.stderr_tail.trim().to_owned() }),
        }
    }
}
