//! Copying ahead while production runs, and the clone of the stopped data that takes over what was copied.
//!
//! Owns the choice between passes and a standby. It must never rely on what was copied ahead being the data: what is
//! stopped decides, and where a standby has not got everything, the data is copied again.

use super::mounts::{Job, tell};
use super::standby::Begun;
use super::{ComposeData, Work};
use crate::docker::hands::{CutMode, Sharing};
use crate::error::{EngineError, joined};
use crate::home::{Home, write_atomic};
use crate::runtime::Placement;
use std::path::PathBuf;
use switchback_core::journal::Output;

/// A mount and the container of the standby that follows it.
type Followed = (Job, String);

/// The mark that an instance's mounts were copied ahead.
fn ahead_mark(at: &Placement<'_>) -> PathBuf {
    at.home.instance_dir(at.instance).join("copied-ahead")
}

impl ComposeData {
    pub(super) fn copy_ahead(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        let mut output = Output::default();
        let jobs = self.jobs(from, to, |m| m.at.clone(), &mut output)?;
        if jobs.is_empty() {
            (work.stage.midway)();
            return Ok(output);
        }
        if self.can_share(from.home, &jobs)? {
            (work.stage.midway)();
            output.notes.push("blocks can be shared: nothing to copy ahead".to_owned());
            return Ok(output);
        }
        let (mut standbys, mut rest) = (Vec::new(), Vec::new());
        for job in jobs {
            match self.begin_standby(from, to, &job, work)? {
                Begun::Streams(id) => standbys.push((job, id)),
                Begun::Refused(why) => {
                    output.notes.push(format!("{}: no standby: {why}", job.names()));
                    rest.push(job);
                }
                Begun::NotPostgres => rest.push(job),
            }
        }
        (work.stage.midway)();
        // After the backups, which take long: the shorter ago the passes are, the less is left for the last one.
        self.pass_ahead(from.home, &rest, work, &mut output)?;
        let mut broken = Vec::new();
        for (job, id) in standbys {
            match self.settle_standby(from, to, &job, &id, work)? {
                Ok(()) => output.notes.push(format!("{}: a standby follows it", job.names())),
                Err(why) => {
                    output.notes.push(format!("{}: the standby was given up: {why}", job.names()));
                    broken.push(job);
                }
            }
        }
        self.pass_ahead(from.home, &broken, work, &mut output)?;
        write_atomic(&ahead_mark(to), b"")?;
        Ok(output)
    }

    fn pass_ahead(
        &self,
        home: &Home,
        jobs: &[Job],
        work: &Work<'_>,
        output: &mut Output,
    ) -> Result<(), EngineError> {
        if jobs.is_empty() {
            return Ok(());
        }
        (work.stage.say)("copying ahead while it runs");
        let stats = self.cut(home, jobs, Sharing::No, CutMode::Ahead, work, &mut |_| Ok(()))?;
        let names: Vec<String> = jobs.iter().map(Job::names).collect();
        output.notes.push(format!("{}: copied in {} passes while it runs", names.join(", "), stats.passes));
        Ok(())
    }

    /// Splits off what a standby has, which is returned with its container.
    pub(super) fn without_standby(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        jobs: Vec<Job>,
    ) -> Result<(Vec<Followed>, Vec<Job>), EngineError> {
        let ahead = ahead_mark(to).exists();
        let (mut standbys, mut rest) = (Vec::new(), Vec::new());
        for job in jobs {
            match if ahead { self.standby_of(from, to, &job)? } else { None } {
                Some(id) => standbys.push((job, id)),
                None => rest.push(job),
            }
        }
        Ok((standbys, rest))
    }

    /// Clones while nobody writes: standbys take over, everything else is shared or copied.
    pub(super) fn clone_stopped(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        jobs: Vec<Job>,
        work: &Work<'_>,
        mut output: Output,
    ) -> Result<Output, EngineError> {
        let ahead = ahead_mark(to).exists();
        let (standbys, rest) = self.without_standby(from, to, jobs)?;
        let (taken, copied) = std::thread::scope(|scope| {
            let threads: Vec<_> =
                standbys.iter().map(|(job, id)| scope.spawn(|| self.take_over(from, job, id))).collect();
            let sharing = if ahead { Sharing::No } else { Sharing::IfPossible };
            let copied = self.cut_stopped(from.home, &rest, sharing, work);
            let taken: Vec<_> = threads.into_iter().map(joined).collect();
            (taken, copied)
        });
        (work.stage.midway)();
        let stats = copied?;
        let how = if stats.shared { ", blocks shared (reflink)" } else { "" };
        for (job, copy) in rest.iter().zip(stats.copies) {
            tell(&mut output, job, copy, how);
        }
        let mut broken = Vec::new();
        for ((job, id), taken) in standbys.into_iter().zip(taken) {
            match taken {
                Ok(copy) => tell(&mut output, &job, copy, ", a standby took over"),
                Err(e) => {
                    output.notes.push(format!("{}: the standby could not take over: {e}", job.names()));
                    self.docker.remove_with_scratch(&id)?;
                    broken.push(job);
                }
            }
        }
        let stats = self.cut_stopped(from.home, &broken, Sharing::No, work)?;
        for (job, copy) in broken.iter().zip(stats.copies) {
            tell(&mut output, job, copy, ", copied as a whole while it was down");
        }
        Ok(output)
    }
}
