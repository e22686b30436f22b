//! Cloning, keeping and removing whole mounts.

use super::pause::Writers;
use super::{ComposeData, Cost, Work};
use crate::docker::hands::{CutMode, CutPair, CutStats, HandsError, Sharing};
use crate::error::{EngineError, joined};
use crate::home::{Home, write_atomic};
use crate::runtime::Placement;
use crate::scratch::Scratch;
use crate::store::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::PoisonError;
use switchback_core::data::CopyStats;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;
use switchback_core::release::{Instance, Mount, MountPlace};

/// The longest that writers of production wait for a clone that must copy; with shared blocks it is far less.
const PAUSE_MS: u64 = 2000;
/// The label with the instance that a volume belongs to.
const DIR_LABEL: &str = crate::runtime::compose::DIR_LABEL;

/// The mark that an instance has a base.
pub fn base_mark(at: &Placement<'_>) -> PathBuf {
    at.home.instance_dir(at.instance).join("base.complete")
}

/// Where the clone that later writes are recognised by lies: never in the folder of the generation, which is live
/// once production runs on it.
pub fn base_of(mount: &MountPlace) -> MountPlace {
    beside_it(mount, "base")
}

/// A place that belongs to another one: a volume with a longer name, or the same name in a folder with one.
pub(super) fn beside_it(mount: &MountPlace, word: &str) -> MountPlace {
    match mount {
        MountPlace::Volume(name) => MountPlace::Volume(format!("{name}.{word}")),
        MountPlace::Dir(path) => match (parts(path), path.rsplit_once('/')) {
            (Ok((beside, suffix)), Some((_, name))) => {
                MountPlace::Dir(format!("{beside}/{suffix}.{word}/{name}"))
            }
            _ => MountPlace::Dir(format!("{path}.{word}")),
        },
    }
}

/// The mounts of an instance, each once, with the stores on it.
pub(super) fn mounts(instance: &Instance) -> BTreeMap<Mount, Vec<StoreName>> {
    let mut found: BTreeMap<Mount, Vec<StoreName>> = BTreeMap::new();
    for (name, place) in &instance.stores {
        if let Some(mount) = &place.mount {
            found.entry(mount.clone()).or_default().push(name.clone());
        }
    }
    found
}

/// Splits `BESIDE/SUFFIX/NAME`.
pub(super) fn parts(path: &str) -> Result<(&str, &str), EngineError> {
    let split = path.rsplit_once('/').and_then(|(up, _)| up.rsplit_once('/'));
    split.ok_or_else(|| EngineError::Internal { detail: format!("{path} is no place for a clone") })
}

/// The volumes that production uses or may return to: nothing may take them for scratch.
pub(crate) fn live_volumes(home: &Home) -> Result<Vec<String>, EngineError> {
    let Some(pointer) = home.pointer()? else { return Ok(Vec::new()) };
    let mut live = Vec::new();
    for id in [Some(pointer.current), pointer.previous].into_iter().flatten() {
        let Ok(generation) = home.generation(id) else { continue };
        for mount in generation.instance.stores.values().filter_map(|s| s.mount.as_ref()) {
            if let MountPlace::Volume(name) = &mount.at {
                live.push(name.clone());
            }
        }
    }
    Ok(live)
}

/// A mount to be cloned, and the stores that it is told about by.
pub struct Job {
    /// What is cloned.
    pub(super) from: MountPlace,
    /// Where to.
    pub(super) to: MountPlace,
    /// The path below that place, for what does not exist before it is needed.
    pub(super) below: String,
    /// The stores on it.
    pub(super) stores: Vec<StoreName>,
    /// Where the record of passes lies that outlives them; see [`super::refresh`].
    pub(super) record: Option<MountPlace>,
    /// Paths below it that a copy of what runs does not get.
    pub(super) leave_out: Vec<String>,
}

impl Job {
    fn new(from: MountPlace, to: MountPlace, stores: Vec<StoreName>) -> Self {
        Self { from, below: String::new(), to, stores, record: None, leave_out: Vec::new() }
    }

    pub(super) fn names(&self) -> String {
        self.stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The clone, beside what this one makes, that later writes are recognised by.
    fn of_base(&self) -> Self {
        Self::new(self.to.clone(), base_of(&self.to), self.stores.clone()).through_parent()
    }

    /// The same, with a folder that is reached through the one above it: that one exists before the data does.
    fn through_parent(self) -> Self {
        let above = match &self.from {
            MountPlace::Dir(path) => path.rsplit_once('/').filter(|(up, _)| !up.is_empty()),
            MountPlace::Volume(_) => None,
        };
        match above.map(|(up, name)| (MountPlace::Dir(up.to_owned()), name.to_owned())) {
            Some((from, below)) => Self { from, below, ..self },
            None => self,
        }
    }
}

/// The paths below a mount that copies of what runs on it do not get.
fn left_out(at: &Placement<'_>, stores: &[StoreName]) -> Vec<String> {
    let paths = |name: &StoreName| -> Vec<String> {
        let below = at.instance.stores.get(name).map_or("", |s| s.path.as_str());
        let all = at.config.stores.get(name).map_or(&[][..], |s| &s.leave_out[..]);
        all.iter().map(|p| if below.is_empty() { p.clone() } else { format!("{below}/{p}") }).collect()
    };
    stores.iter().flat_map(paths).collect()
}

/// What helpers are told of jobs.
fn pairs(jobs: &[Job]) -> Vec<CutPair<'_>> {
    let pair = |j| -> CutPair<'_> {
        let job: &Job = j;
        CutPair {
            from: (&job.from, &job.below),
            to: (&job.to, ""),
            record: job.record.as_ref().map(|at| (at, "")),
            leave_out: &job.leave_out,
        }
    };
    jobs.iter().map(pair).collect()
}

impl ComposeData {
    pub(super) fn mount_exists(&self, home: &Home, mount: &MountPlace) -> Result<bool, EngineError> {
        match mount {
            MountPlace::Volume(name) => Ok(self.docker.volume(name)?.is_some()),
            // What this host sees needs no helper, which takes a quarter of a second.
            MountPlace::Dir(path) if self.docker.is_local() && std::path::Path::new(path).is_dir() => {
                Ok(true)
            }
            MountPlace::Dir(_) => Ok(self.hands(home)?.exists((mount, ""))?),
        }
    }

    /// Makes the scratch place that a clone is written to.
    pub(super) fn make_place(
        &self,
        home: &Home,
        instance: &Instance,
        to: &MountPlace,
    ) -> Result<(), EngineError> {
        let stack = home.id()?;
        match to {
            MountPlace::Volume(name) => {
                let live = live_volumes(home)?;
                let live: Vec<&str> = live.iter().map(String::as_str).collect();
                self.docker.volume_create(name, &stack, &[(DIR_LABEL, &instance.dir)], &live)?;
            }
            MountPlace::Dir(path) => {
                let (beside, suffix) = parts(path)?;
                let folder = format!("{beside}/{suffix}");
                let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                if !made.contains(&folder) {
                    self.hands(home)?.scratch_create_in(beside, suffix)?;
                    made.insert(folder);
                }
            }
        }
        Ok(())
    }

    /// Makes the folders for clones of a generation ahead: each takes a helper, which takes a third of a second. Volumes are
    /// made in no time.
    pub(super) fn prepare_places(&self, at: &Placement<'_>) -> Result<(), EngineError> {
        for mount in mounts(at.instance).into_keys() {
            let MountPlace::Dir(path) = &mount.at else { continue };
            // Only below folders that are ours; others are the user's own.
            if mount.beside.as_ref().is_some_and(|b| path.starts_with(b.as_str())) {
                self.make_place(at.home, at.instance, &mount.at)?;
                self.make_place(at.home, at.instance, &base_of(&mount.at))?;
            }
        }
        Ok(())
    }

    pub(super) fn jobs(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        place: impl Fn(&Mount) -> MountPlace,
        output: &mut Output,
    ) -> Result<Vec<Job>, EngineError> {
        let targets = mounts(to.instance);
        let mut jobs = Vec::new();
        let mut made = BTreeSet::new();
        for (mount, stores) in mounts(from.instance) {
            let Some((target, _)) = targets.iter().find(|(m, _)| m.source == mount.source) else { continue };
            if !self.mount_exists(from.home, &mount.at)? {
                let job = Job::new(mount.at, place(target), stores);
                output.notes.push(format!("{}: it does not exist yet; nothing to clone", job.names()));
                continue;
            }
            let to_place = place(target);
            // Several mounts may lie in one folder: it is made once.
            let folder = match &to_place {
                MountPlace::Dir(path) => {
                    MountPlace::Dir(path.rsplit_once('/').map_or("", |(up, _)| up).to_owned())
                }
                MountPlace::Volume(_) => to_place.clone(),
            };
            if made.insert(folder) {
                self.make_place(to.home, to.instance, &to_place)?;
            }
            let leave_out = left_out(from, &stores);
            jobs.push(Job { leave_out, ..Job::new(mount.at, to_place, stores) });
        }
        Ok(jobs)
    }

    pub(super) fn cut(
        &self,
        home: &Home,
        jobs: &[Job],
        share: Sharing,
        mode: CutMode,
        work: &Work<'_>,
        pause: &mut dyn FnMut(bool) -> Result<(), HandsError>,
    ) -> Result<CutStats, EngineError> {
        Ok(self.hands(home)?.cut(&pairs(jobs), share, mode, work.progress, pause)?)
    }

    /// Starts helpers for the clone of a stopped generation, and for the one that later writes are recognised by.
    pub(super) fn foresee(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        base: bool,
    ) -> Result<(), EngineError> {
        let jobs = self.jobs(from, to, |m| m.at.clone(), &mut Output::default())?;
        let hands = self.hands(from.home)?;
        let bases: Vec<Job> = jobs.iter().filter(|_| base).map(Job::of_base).collect();
        for job in &bases {
            self.make_place(to.home, to.instance, &job.to)?;
        }
        let rest = self.without_standby(from, to, jobs)?.1;
        for jobs in [rest, bases].iter().filter(|j| !j.is_empty()) {
            hands.get_ready(&pairs(jobs))?;
        }
        Ok(())
    }

    pub(super) fn clone_mounts(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        let mut output = Output::default();
        let jobs = self.jobs(from, to, |m| m.at.clone(), &mut output)?;
        if jobs.is_empty() {
            (work.stage.midway)();
            return Ok(output);
        }
        (work.stage.say)("cloning");
        if mode == CloneMode::Cold {
            return self.clone_stopped(from, to, jobs, work, output);
        }
        self.clone_running(from, &jobs, Sharing::IfPossible, work, output)
    }

    /// Clones while production runs.
    pub(super) fn clone_running(
        &self,
        from: &Placement<'_>,
        jobs: &[Job],
        share: Sharing,
        work: &Work<'_>,
        mut output: Output,
    ) -> Result<Output, EngineError> {
        let (stats, waited) = self.cut_running(from, jobs, share, work)?;
        let passes = stats.passes;
        for (job, copy) in jobs.iter().zip(stats.copies) {
            let how = match stats.shared {
                true => ", blocks shared (reflink)".to_owned(),
                false => format!(", {passes} passes while it ran"),
            };
            tell(&mut output, job, copy, &format!("{how}{}", waiting(waited)));
        }
        Ok(output)
    }

    /// Cuts while production runs, which is paused for it; for how long at the most, in milliseconds.
    pub(super) fn cut_running(
        &self,
        from: &Placement<'_>,
        jobs: &[Job],
        share: Sharing,
        work: &Work<'_>,
    ) -> Result<(CutStats, u64), EngineError> {
        let mut writers = Writers::of(&self.docker, &self.program, from.instance)?;
        let cut = CutMode::Paused { budget_ms: PAUSE_MS };
        let midway = work.stage.midway;
        let stats = self.cut(from.home, jobs, share, cut, work, &mut |stop| {
            writers.pause(stop)?;
            if stop {
                midway();
            }
            Ok(())
        });
        let waited = u64::try_from(writers.longest.as_millis()).unwrap_or(u64::MAX);
        let mut stats = stats.map_err(too_busy)?;
        for copy in &mut stats.copies {
            copy.writers_waited_ms = waited;
        }
        Ok((stats, waited))
    }

    /// Cuts while nobody writes.
    pub(super) fn cut_stopped(
        &self,
        home: &Home,
        jobs: &[Job],
        share: Sharing,
        work: &Work<'_>,
    ) -> Result<CutStats, EngineError> {
        if jobs.is_empty() {
            return Ok(CutStats { shared: share != Sharing::No, ..CutStats::default() });
        }
        self.cut(home, jobs, share, CutMode::Stopped, work, &mut |_| Ok(()))
    }

    pub(super) fn clone_base(
        &self,
        from: &Placement<'_>,
        beside: &Placement<'_>,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        let mut output = Output::default();
        let mark = base_mark(beside);
        scratch.remove_part(&mark)?;
        let mut jobs = self.jobs(from, beside, |m| base_of(&m.at), &mut output)?;
        if from.instance.key() == beside.instance.key() {
            // As the helper was told that may be waiting.
            jobs = jobs.into_iter().map(Job::through_parent).collect();
        }
        if !jobs.is_empty() {
            (work.stage.say)("keeping a clone");
            let stats = self.cut_stopped(from.home, &jobs, Sharing::IfPossible, work)?;
            for (job, copy) in jobs.iter().zip(stats.copies) {
                if let Some(first) = job.stores.first() {
                    output.copies.insert(first.clone(), copy);
                }
            }
        }
        (work.stage.midway)();
        write_atomic(&mark, b"")?;
        Ok(output)
    }

    pub(super) fn measure(&self, home: &Home, instance: &Instance) -> Result<Cost, EngineError> {
        let mut present = Vec::new();
        for mount in mounts(instance).into_keys() {
            if self.mount_exists(home, &mount.at)? {
                present.push(mount);
            }
        }
        let volumes = present.iter().any(|m| m.beside.is_none());
        let probe = volumes.then(|| self.probe(home)).transpose()?;
        // All at once: starting the helpers is most of it.
        let measured: Vec<_> = std::thread::scope(|scope| {
            let probe = probe.as_ref();
            let begun: Vec<_> =
                present.iter().map(|m| scope.spawn(move || self.to_copy(home, m, probe))).collect();
            begun.into_iter().map(joined).collect()
        });
        probe.map_or(Ok(()), |probe| self.docker.volume_remove(&probe))?;
        let mut cost = Cost { bytes: 0, shared: true };
        for bytes in measured {
            if let Some(bytes) = bytes? {
                cost.shared = false;
                cost.bytes += bytes;
            }
        }
        Ok(cost)
    }
}

/// How long writers waited, in words.
pub(super) fn waiting(waited_ms: u64) -> String {
    if waited_ms > 0 { format!(", writers waited {}", human_ms(waited_ms)) } else { String::new() }
}

/// Puts a copy into a step's output. A mount is one copy, whatever the number of stores on it.
pub(super) fn tell(output: &mut Output, job: &Job, copy: CopyStats, how: &str) {
    output.notes.push(format!(
        "{}: {} in {}{how}",
        job.names(),
        human_bytes(copy.bytes),
        human_ms(copy.took_ms)
    ));
    if let Some(first) = job.stores.first() {
        output.copies.insert(first.clone(), copy);
    }
}

fn too_busy(error: EngineError) -> EngineError {
    match error {
        EngineError::Store(StoreError::OverBudget { .. }) => EngineError::refused(
            format!(
                "the data changes too fast to be cloned while production runs: its writers would wait longer than {}",
                human_ms(PAUSE_MS)
            ),
            "rehearse when less is written, or put the volumes on XFS or btrfs, where a clone takes no time",
        ),
        other => other,
    }
}
