//! Bringing a clone that staging has used to production's present state.
//!
//! Owns where the record of passes lies that outlives them, and the choice between passes and a new clone. It must never
//! write to a clone on which something runs, and never leave a record after the instance.

use super::mounts::{Job, beside_it, mounts, parts, tell, waiting};
use super::{ComposeData, Work};
use crate::docker::DockerError;
use crate::docker::hands::{HandsError, Scratch, Sharing};
use crate::error::EngineError;
use crate::home::{Home, write_atomic};
use crate::runtime::Placement;
use crate::runtime::compose::users_of;
use crate::store::Progress;
use std::path::PathBuf;
use switchback_core::data::CopyStats;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;
use switchback_core::release::{Instance, MountPlace};

/// The mark that an instance has records of passes, because its blocks cannot be shared with production's.
pub(super) fn mark(home: &Home, instance: &Instance) -> PathBuf {
    home.instance_dir(instance).join("copied-in-passes")
}

/// Where the record of a mount's passes lies: outside of the mount, where no application sees it.
pub(super) fn passes_of(mount: &MountPlace) -> MountPlace {
    beside_it(mount, "passes")
}

impl ComposeData {
    pub(super) fn refresh_mounts(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        if let Some(user) = users_of(&self.docker, to.instance)?.into_iter().find(|c| c.state.running) {
            return Err(EngineError::refused(
                format!("{} runs on the data of {}", user.name, to.instance.key()),
                "stop it first: what it writes would be mixed with production's data",
            ));
        }
        let mut output = Output::default();
        let mut jobs = self.jobs(from, to, |m| m.at.clone(), &mut output)?;
        self.empty_the_rest(to, &jobs)?;
        if jobs.is_empty() {
            (work.stage.midway)();
            return Ok(output);
        }
        (work.stage.say)("bringing the clone up to date");
        let mark = mark(to.home, to.instance);
        if !mark.exists() {
            if self.can_share(from.home, &jobs)? {
                return match mode {
                    CloneMode::Live => self.clone_running(from, &jobs, Sharing::Must, work, output),
                    CloneMode::Cold => self.clone_stopped(from, to, jobs, work, output),
                };
            }
            // Before the first of them is made: it tells that there may be some to be removed.
            write_atomic(&mark, b"")?;
        }
        for job in &mut jobs {
            let record = passes_of(&job.to);
            self.make_place(to.home, to.instance, &record)?;
            job.record = Some(record);
        }
        let (stats, waited) = match mode {
            CloneMode::Live => self.cut_running(from, &jobs, Sharing::No, work)?,
            CloneMode::Cold => {
                (work.stage.midway)();
                (self.cut_stopped(from.home, &jobs, Sharing::No, work)?, 0)
            }
        };
        let passes = match mode {
            CloneMode::Live => format!(", {} passes while it ran", stats.passes),
            CloneMode::Cold => String::new(),
        };
        for (job, copy) in jobs.iter().zip(stats.copies) {
            told(&mut output, job, copy, &format!("{passes}{}", waiting(waited)));
        }
        Ok(output)
    }

    /// Removes what the clone has of mounts that production has no more.
    fn empty_the_rest(&self, to: &Placement<'_>, jobs: &[Job]) -> Result<(), EngineError> {
        for mount in mounts(to.instance).keys() {
            if jobs.iter().any(|job| job.to == mount.at) {
                continue;
            }
            match &mount.at {
                MountPlace::Volume(_) => self.drop_place(to.home, &mount.at)?,
                MountPlace::Dir(path) => {
                    let (beside, suffix) = parts(path)?;
                    let hands = self.hands(to.home)?;
                    let dir = match hands.scratch_open(beside, suffix) {
                        Err(HandsError::Docker(DockerError::NoSuch { .. })) => None,
                        other => other?,
                    };
                    if let (Some(dir), Some((_, name))) = (dir, path.rsplit_once('/')) {
                        hands.remove(Scratch::Dir(&dir), name, &Progress::none())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Puts what a refresh moved into a step's output.
fn told(output: &mut Output, job: &Job, copy: CopyStats, how: &str) {
    if copy.bytes_read == 0 && copy.bytes_saved == 0 {
        return tell(output, job, copy, how);
    }
    output.notes.push(format!(
        "{}: moved {} of {} in {}, {} read to compare{how}",
        job.names(),
        human_bytes(copy.bytes_written),
        human_bytes(copy.bytes),
        human_ms(copy.took_ms),
        human_bytes(copy.bytes_read),
    ));
    if let Some(first) = job.stores.first() {
        output.copies.insert(first.clone(), copy);
    }
}
