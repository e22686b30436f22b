//! Cloning mounts at one moment, with the program outside pausing the writers in between.
//!
//! Owns both sides of that conversation: the helper is started first, prepares what it can, says that it is ready, and
//! the program pauses the writers only for what must be done then. It must never copy while writers wait where it was
//! told to share blocks.

use super::client::{Below, Hands, HandsError, Mounts, Result, parsed};
use super::serve::{can_reflink, is_volume_root, raise};
use super::wire::{CutJob, Request, Turn};
use crate::store::{self, Progress, StoreError, SyncStats, Writers};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchback_core::data::{CopyStats, Fingerprint, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::release::MountPlace;

/// Passes while writers run before the writers are paused for a last one.
const PASSES: u32 = 4;
/// Times that the writers are paused in vain before a clone is given up.
const TRIES: u32 = 3;

/// How mounts are cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutMode {
    /// Writers run; they are paused for the cut, at most so many milliseconds.
    Paused {
        /// The longest pause, milliseconds.
        budget_ms: u64,
    },
    /// Nobody writes.
    Stopped,
    /// Writers run and go on: what is copied now need not be copied later.
    Ahead,
}

/// Whether clones share their blocks with what they are clones of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// They do, or the cut fails.
    Must,
    /// If all of them can, which the helper tries.
    IfPossible,
    /// They are copied.
    No,
}

/// One mount to be cloned.
#[derive(Debug, Clone, Copy)]
pub struct CutPair<'a> {
    /// What is cloned.
    pub from: Below<'a>,
    /// A scratch place: an empty volume, or a path that does not exist.
    pub to: Below<'a>,
    /// A scratch folder for a record of the passes that outlives them: then `to` may hold an earlier copy, on which
    /// nothing runs now and which is brought up to date. Not where blocks are shared.
    pub record: Option<Below<'a>>,
    /// Paths below it that are left out where writers run.
    pub leave_out: &'a [String],
}

/// What a cut did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CutStats {
    /// Per mount, in the order asked for.
    pub copies: Vec<CopyStats>,
    /// Passes while writers ran.
    pub passes: u32,
    /// What the last pass read, bytes.
    pub last_read: u64,
    /// Whether blocks are shared.
    pub shared: bool,
}

impl Hands<'_> {
    fn mounted(pairs: &[CutPair<'_>]) -> Result<(Mounts, Vec<CutJob>)> {
        let mut mounts = Mounts::default();
        let mut jobs = Vec::new();
        for pair in pairs {
            let from = mounts.reads(pair.from)?;
            let to = mounts.makes(pair.to)?;
            let record = pair.record.map(|at| mounts.makes(at)).transpose()?;
            jobs.push(CutJob { from, to, record, leave_out: pair.leave_out.to_vec() });
        }
        Ok((mounts, jobs))
    }

    /// Starts the helper of a cut of these mounts, which will be asked for later.
    pub fn get_ready(&self, pairs: &[CutPair<'_>]) -> Result<()> {
        let Some(ready) = self.ready else { return Ok(()) };
        let (mounts, _) = Self::mounted(pairs)?;
        Ok(ready.start(self.spec(mounts, false))?)
    }

    /// Clones mounts. In [`CutMode::Paused`], `pause(true)` is called when the writers must stop and `pause(false)` as
    /// soon as they may go on; how long that was is the caller's to measure.
    pub fn cut(
        &self,
        pairs: &[CutPair<'_>],
        share: Sharing,
        mode: CutMode,
        progress: &Progress<'_>,
        pause: &mut dyn FnMut(bool) -> std::result::Result<(), HandsError>,
    ) -> Result<CutStats> {
        let (mounts, jobs) = Self::mounted(pairs)?;
        let request = Request::Cut { jobs, share, mode };
        let mut paused = false;
        let mut talk = |turn: Turn| -> Result<&'static str> {
            let stop = matches!(turn, Turn::Ready);
            pause(stop)?;
            paused = stop;
            Ok(if stop { "go\n" } else { "on\n" })
        };
        let answer = self.converse(mounts, &request, progress, &mut talk);
        if paused {
            // The helper died while writers wait: whatever it says, they go on.
            let resumed = pause(false);
            resumed?;
        }
        parsed(answer?)
    }
}

impl Hands<'_> {
    /// Computes the content of a store of files that was copied with a record of passes. What did not change since the last time is
    /// not read again.
    pub fn content_of_copy(
        &self,
        at: Below<'_>,
        (record, store): (&MountPlace, &StoreName),
        progress: &Progress<'_>,
    ) -> Result<Fingerprint> {
        let mut mounts = Mounts::default();
        let at = mounts.store(StoreKind::Files, at, false)?;
        let memo = format!("{}/digests-{store}", mounts.makes((record, ""))?);
        self.ask(mounts, &Request::ContentOfCopy { at, memo }, progress)
    }
}

/// Where a job's clone is made before it is complete, and its record of passes.
struct Site {
    from: PathBuf,
    to: PathBuf,
    made: PathBuf,
    state: PathBuf,
    /// Whether the record outlives the clone.
    kept: bool,
    /// Whether there was an earlier copy.
    had: bool,
}

impl Site {
    fn of(job: &CutJob) -> Self {
        let (from, to) = (PathBuf::from(&job.from), PathBuf::from(&job.to));
        if let Some(folder) = &job.record {
            let had = to.is_file() || fs::read_dir(&to).is_ok_and(|mut all| all.next().is_some());
            let state = Path::new(folder).join("record");
            return Self { from, made: to.clone(), to, state, kept: true, had };
        }
        // The root of a volume exists and cannot be renamed: its content is made below and raised at the end.
        let made = if is_volume_root(&to) { to.join(".switchback-clone") } else { to.clone() };
        let name = made.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let state = made.with_file_name(format!("{}.passes", name.trim_start_matches('.')));
        let state = if is_volume_root(&to) { to.join(".switchback-passes") } else { state };
        Self { from, to, made, state, kept: false, had: false }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    }

    /// Whether it can share its blocks. Tried with one small file, before anything is made.
    fn can_share(&self) -> bool {
        let folder = if is_volume_root(&self.to) { Some(self.to.as_path()) } else { self.to.parent() };
        !self.kept && folder.is_some_and(|folder| can_reflink(&self.from, folder))
    }

    /// Makes the place ready. Whether an earlier attempt finished is told by what lies there: then the clone is in its
    /// place and must begin anew.
    fn clear(&self, keep_passes: bool) -> store::Result<()> {
        if self.kept {
            for folder in [self.state.parent(), self.to.parent()].into_iter().flatten() {
                fs::create_dir_all(folder).map_err(Self::io("create", folder))?;
            }
            return store::sync_begin(&self.state);
        }
        if !(keep_passes && self.state.exists() && self.made.exists()) {
            remove(&self.state)?;
            remove(&self.made)?;
        }
        if is_volume_root(&self.to) {
            for entry in fs::read_dir(&self.to).map_err(Self::io("list", &self.to))? {
                let path = entry.map_err(Self::io("list", &self.to))?.path();
                if path != self.made && path != self.state {
                    remove(&path)?;
                }
            }
        } else if let Some(parent) = self.to.parent() {
            fs::create_dir_all(parent).map_err(Self::io("create", parent))?;
        }
        Ok(())
    }

    fn finish(&self) -> store::Result<()> {
        if self.kept {
            return store::sync_seal(&self.from, &self.to, &self.state);
        }
        if self.made != self.to {
            raise(&self.made, &self.to)?;
        }
        remove(&self.state)?;
        store::make_durable(&self.to)
    }
}

fn remove(path: &Path) -> store::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
    };
    result.map_err(Site::io("remove", path))
}

/// What all passes over a mount did.
#[derive(Default, Clone, Copy)]
struct Sum {
    read: u64,
    written: u64,
}

impl Sum {
    fn add(&mut self, pass: &SyncStats) {
        self.read += pass.read + pass.compared;
        self.written += pass.written;
    }

    fn stats(self, last: &SyncStats, had: bool, took: Duration) -> CopyStats {
        CopyStats {
            bytes: last.bytes,
            bytes_written: self.written,
            bytes_read: if had { self.read } else { 0 },
            bytes_saved: if had { last.bytes.saturating_sub(self.written) } else { 0 },
            files: last.files,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            notes: last.notes.clone(),
            ..CopyStats::default()
        }
    }
}

/// The helper's side.
pub(super) fn perform(
    jobs: &[CutJob],
    sharing: Sharing,
    mode: CutMode,
    progress: &Progress<'_>,
    turn: &mut dyn FnMut(Turn) -> store::Result<()>,
) -> store::Result<Value> {
    let sites: Vec<Site> = jobs.iter().map(Site::of).collect();
    let share = match sharing {
        Sharing::Must => true,
        Sharing::IfPossible => sites.iter().all(Site::can_share),
        Sharing::No => false,
    };
    for site in &sites {
        if share && site.kept {
            let why = "shared blocks need no record".to_owned();
            return Err(StoreError::Unsupported { path: site.to.clone(), why });
        }
        site.clear(!share)?;
    }
    let began = Instant::now();
    let mut stats = if share {
        match shared(&sites, mode, progress, turn) {
            // Nobody waits for anything but this: copying is right, only slower.
            Err(StoreError::CannotShare { .. })
                if sharing == Sharing::IfPossible && mode == CutMode::Stopped =>
            {
                for site in &sites {
                    site.clear(false)?;
                }
                copied(&sites, mode, progress, turn, began)?
            }
            other => other?,
        }
    } else {
        copied(&sites, mode, progress, turn, began)?
    };
    if matches!(mode, CutMode::Paused { .. }) {
        for ((site, job), copy) in sites.iter().zip(jobs).zip(&mut stats.copies) {
            let left = store::leave_out(&site.made, &job.leave_out)?;
            copy.notes.extend(left.into_iter().map(|path| format!("{path} is left out")));
        }
    }
    if mode != CutMode::Ahead {
        for site in &sites {
            site.finish()?;
        }
    }
    serde_json::to_value(stats)
        .map_err(|e| StoreError::Unsupported { path: PathBuf::new(), why: e.to_string() })
}

fn shared(
    sites: &[Site],
    mode: CutMode,
    progress: &Progress<'_>,
    turn: &mut dyn FnMut(Turn) -> store::Result<()>,
) -> store::Result<CutStats> {
    if mode == CutMode::Ahead {
        return Ok(CutStats::default()); // sharing takes no time later
    }
    for site in sites {
        store::clear_unfinished(&site.made)?;
        // Sharing writes out dirty pages; better before the writers wait than while they do.
        store::make_durable(&site.from)?;
    }
    let pause = matches!(mode, CutMode::Paused { .. });
    if pause {
        turn(Turn::Ready)?;
    }
    let made =
        sites.iter().map(|s| store::reflink_tree(&s.from, &s.made, progress)).collect::<store::Result<_>>();
    if pause {
        turn(Turn::Cut)?;
    }
    Ok(CutStats { copies: made?, shared: true, ..CutStats::default() })
}

fn copied(
    sites: &[Site],
    mode: CutMode,
    progress: &Progress<'_>,
    turn: &mut dyn FnMut(Turn) -> store::Result<()>,
    began: Instant,
) -> store::Result<CutStats> {
    let pass = |site: &Site, writers, budget| {
        store::sync_pass(&site.from, &site.made, &site.state, writers, budget, progress)
    };
    let mut sums = vec![Sum::default(); sites.len()];
    let mut passes = 0;
    let running = |sums: &mut Vec<Sum>, passes: &mut u32| -> store::Result<u64> {
        let mut estimate = 0;
        for (site, sum) in sites.iter().zip(sums.iter_mut()) {
            let stats = pass(site, Writers::Running, None)?;
            sum.add(&stats);
            estimate += stats.estimate_next_ms;
        }
        *passes += 1;
        Ok(estimate)
    };
    let budget = match mode {
        CutMode::Stopped => {
            if sites.iter().any(|site| site.kept) {
                // Only a pass that has the pages written out can be relied on by a later one.
                running(&mut sums, &mut passes)?;
            }
            None
        }
        CutMode::Ahead => {
            // Twice: the second pass takes what was written during the first, long one.
            for _ in 0..2 {
                running(&mut sums, &mut passes)?;
            }
            return Ok(CutStats { passes, ..CutStats::default() });
        }
        CutMode::Paused { budget_ms } => {
            while running(&mut sums, &mut passes)? > budget_ms / 2 && passes < PASSES {}
            Some(Duration::from_millis(budget_ms))
        }
    };
    let mut tries = 0;
    loop {
        tries += 1;
        if budget.is_some() {
            turn(Turn::Ready)?;
        }
        let paused = Instant::now();
        let last: store::Result<Vec<SyncStats>> = sites
            .iter()
            .map(|site| pass(site, Writers::Stopped, budget.map(|b| b.saturating_sub(paused.elapsed()))))
            .collect();
        if budget.is_some() {
            turn(Turn::Cut)?;
        }
        match last {
            Ok(all) => {
                let each = sites.iter().zip(&all).zip(sums);
                let copies = each
                    .map(|((site, last), mut sum)| {
                        sum.add(last);
                        sum.stats(last, site.had, began.elapsed())
                    })
                    .collect();
                let last_read = all.iter().map(|s| s.read).sum();
                return Ok(CutStats { copies, passes, last_read, shared: false });
            }
            Err(StoreError::OverBudget { .. }) if tries < TRIES => {
                running(&mut sums, &mut passes)?;
            }
            Err(e) => return Err(e),
        }
    }
}
