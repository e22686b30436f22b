//! Stores as files of this host.

mod altering;
mod refresh;
mod watched;

use super::watching::Watchers;
use super::{Altering, Cost, Data, Observing, SAMPLES, Work, no_columns};
use crate::backup::child;
use crate::backup::vault::{Task, Vault};
use crate::check::sql::sqlite_value;
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir};
use crate::runtime::{Placement, Stage};
use crate::scratch::Scratch;
use crate::store::{self, Progress, Source};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use switchback_core::anonymise::{Key, MaskedStore, Rule, Sample};
use switchback_core::backup::{self, Archived, Part, Stamp};
use switchback_core::carry::{Outcome, Rules};
use switchback_core::data::{CopyStats, ExportStats, Fingerprint, StoreDiff, StoreKind};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::CloneMode;
use switchback_core::release::{Instance, StorePlace};

/// Stores that this process can open itself.
#[derive(Debug, Default)]
pub struct LocalData {
    watchers: Watchers,
}

/// Where the clone that later writes are recognised by lies.
fn base_dir(at: &Placement<'_>) -> PathBuf {
    at.home.instance_dir(at.instance).join("base")
}

/// Where that of one store lies: with the generation that the store was made for.
fn base_of(at: &Placement<'_>, store: &StoreName) -> PathBuf {
    at.home.state().join(at.instance.dir_of_store(store)).join("base").join(store.as_str())
}

fn place<'i>(at: &Placement<'i>, store: &StoreName) -> Result<(&'i StorePlace, &'i Path), EngineError> {
    let place = at.instance.stores.get(store).ok_or_else(|| EngineError::Internal {
        detail: format!("{} has no store {store}", at.instance.key()),
    })?;
    Ok((place, Path::new(&place.path)))
}

fn source<'a>(path: &'a Path, mode: CloneMode, temp: &'a Path) -> Source<'a> {
    match mode {
        CloneMode::Live => Source::live(path),
        CloneMode::Cold => Source::cold(path, temp),
    }
}

/// Takes out of the copy of a running store what it should not have.
fn leave_out(
    (kind, copy): (StoreKind, &Path),
    paths: &[String],
    stats: &mut CopyStats,
) -> Result<(), EngineError> {
    if kind == StoreKind::Files {
        let left = store::leave_out(copy, paths)?;
        stats.notes.extend(left.into_iter().map(|path| format!("{path} is left out")));
    }
    Ok(())
}

/// What a clone must never be: less than its source, or a name of its source. Only for who looks whether that is noticed.
#[cfg(feature = "faults")]
fn not_a_clone(from: &Placement<'_>, to: &Placement<'_>, mode: CloneMode) -> Result<(), EngineError> {
    use crate::fault::{Gap, gap};
    for (name, place) in &to.instance.stores {
        let (path, file) = (Path::new(&place.path), place.kind == StoreKind::Sqlite);
        if gap(Gap::Snapshot) && !file && path.is_dir() {
            std::fs::remove_dir_all(path)
                .and_then(|()| std::fs::create_dir(path))
                .map_err(io("empty", path))?;
        }
        if let Some(source) = from.instance.stores.get(name).map(|p| Path::new(&p.path))
            && gap(Gap::Apart)
            && mode == CloneMode::Cold
            && file
            && path.is_file()
        {
            std::fs::remove_file(path)
                .and_then(|()| std::os::unix::fs::symlink(source, path))
                .map_err(io("link", path))?;
        }
    }
    Ok(())
}

/// Clones every store that is there; `clear` makes its place empty.
fn clone_all(
    from: &Placement<'_>,
    to: &Placement<'_>,
    mode: CloneMode,
    work: &Work<'_>,
    clear: &dyn Fn(&Path) -> Result<(), EngineError>,
) -> Result<Output, EngineError> {
    let mut output = Output::default();
    for (name, place) in &from.instance.stores {
        let src = Path::new(&place.path);
        let Some(dst) = to.instance.stores.get(name).map(|p| PathBuf::from(&p.path)) else { continue };
        clear(&dst)?;
        if let Some(parent) = dst.parent() {
            create_dir(parent)?;
        }
        if !src.exists() {
            output.notes.push(format!("{name}: {} does not exist yet; nothing to clone", src.display()));
            continue;
        }
        (work.stage.say)(&format!("cloning {name}"));
        let mut stats = match mode {
            CloneMode::Live => store::clone_live(place.kind, src, &dst, work.progress),
            CloneMode::Cold => store::clone_cold(place.kind, src, &dst, work.progress),
        }?;
        output.notes.push(format!(
            "{name}: {} in {}{}",
            human_bytes(stats.bytes),
            human_ms(stats.took_ms),
            if stats.reflinked > 0 && stats.bytes_written == 0 { ", blocks shared (reflink)" } else { "" }
        ));
        if mode == CloneMode::Live {
            let wanted = from.config.stores.get(name).map_or(&[][..], |s| &s.leave_out[..]);
            leave_out((place.kind, &dst), wanted, &mut stats)?;
        }
        refresh::warn(&mut output, name, &stats);
        output.copies.insert(name.clone(), stats);
        (work.stage.midway)();
    }
    if from.instance.stores.is_empty() {
        (work.stage.midway)();
    }
    Ok(output)
}

impl Data for LocalData {
    fn exists(&self, at: &Placement<'_>, store: &StoreName) -> Result<bool, EngineError> {
        Ok(at.instance.stores.get(store).is_some_and(|p| Path::new(&p.path).exists()))
    }

    fn cost(&self, home: &Home, instance: &Instance) -> Result<Cost, EngineError> {
        let mut cost = Cost { bytes: 0, shared: true };
        for place in instance.stores.values() {
            let path = Path::new(&place.path);
            if !path.exists() {
                continue;
            }
            if !path.parent().is_some_and(|p| store::can_reflink(p, &home.state())) {
                cost.shared = false;
                cost.bytes += store::size_bytes(place.kind, path)?;
            }
        }
        Ok(cost)
    }

    fn preflight(&self, _: &Placement<'_>, _: &Placement<'_>, _: u64) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new()) // the state lies beside the data; the runtime looks at its disk
    }

    fn precopy(
        &self,
        _: &Placement<'_>,
        _: &Placement<'_>,
        _: &Scratch,
        _: &Work<'_>,
    ) -> Result<Output, EngineError> {
        Ok(Output::default())
    }

    fn forget_precopy(
        &self,
        _: &Placement<'_>,
        _: &Placement<'_>,
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError> {
        (stage.midway)();
        Ok(Output::default())
    }

    fn clone(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        // What an earlier attempt left may be incomplete or from another moment.
        let done = clone_all(from, to, mode, work, &|dst| scratch.remove_part(dst))?;
        #[cfg(feature = "faults")]
        not_a_clone(from, to, mode)?;
        Ok(done)
    }

    fn refresh(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        refresh::refresh(from, to, mode, scratch, work)
    }

    fn seed(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        clone_all(from, to, mode, work, &|_| Ok(()))
    }

    fn keep_base(
        &self,
        from: &Placement<'_>,
        beside: &Placement<'_>,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError> {
        let base = base_dir(beside);
        let mut output = Output::default();
        scratch.remove_part(&base)?;
        let partial = base.with_file_name("base.partial");
        scratch.remove_part(&partial)?;
        create_dir(&partial)?;
        for (name, place) in &from.instance.stores {
            let src = Path::new(&place.path);
            if src.exists() {
                (work.stage.say)("keeping a clone");
                let dst = partial.join(name.as_str());
                let stats = store::clone_cold(place.kind, src, &dst, work.progress)?;
                output.copies.insert(name.clone(), stats);
            }
        }
        (work.stage.midway)();
        std::fs::rename(&partial, &base).map_err(io("rename", &partial))?;
        crate::home::sync_dir(scratch.path())?;
        Ok(output)
    }

    fn has_base(&self, at: &Placement<'_>) -> Result<bool, EngineError> {
        Ok(base_dir(at).is_dir())
    }

    fn base(&self, at: &Placement<'_>) -> Instance {
        let mut base = at.instance.clone();
        for (name, place) in &mut base.stores {
            place.path = base_of(at, name).to_string_lossy().into_owned();
        }
        base
    }

    fn fingerprint(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        let (place, path) = place(at, store)?;
        Ok(store::fingerprint(place.kind, source(path, mode, work.temp), work.progress)?)
    }

    fn content(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        let (place, path) = place(at, store)?;
        let record = refresh::record_of(at, store);
        if place.kind != StoreKind::Files || !record.exists() {
            return self.fingerprint(at, store, CloneMode::Cold, work);
        }
        let copy = source(path, CloneMode::Cold, work.temp);
        Ok(store::content_of_copy(copy, &record.join("digests"), work.progress)?)
    }

    fn integrity(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let (place, path) = place(at, store)?;
        Ok(store::integrity(place.kind, source(path, mode, work.temp))?)
    }

    fn diff(
        &self,
        before: &Placement<'_>,
        after: &Placement<'_>,
        mode: CloneMode,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<StoreDiff, EngineError> {
        let ((_, old), (place, path)) = (place(before, store)?, place(after, store)?);
        let after = source(path, mode, work.temp);
        Ok(store::diff(place.kind, Source::cold(old, work.temp), after, work.progress)?)
    }

    fn export(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        out: &Path,
        work: &Work<'_>,
    ) -> Result<Option<ExportStats>, EngineError> {
        let (place, after) = place(at, store)?;
        let before = base_of(at, store);
        if !before.exists() {
            return Ok(None);
        }
        let (old, new) = (Source::cold(&before, work.temp), Source::cold(after, work.temp));
        Ok(Some(store::export(place.kind, old, new, out, work.progress)?))
    }

    fn carry(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        rules: &Rules,
        work: &Work<'_>,
    ) -> Result<Option<Outcome>, EngineError> {
        let before = base_of(from, store);
        let ((kind, after), (_, target)) = (place(from, store)?, place(to, store)?);
        if !before.exists() || !after.exists() || !target.exists() {
            return Ok(None);
        }
        let (old, new) = (Source::cold(&before, work.temp), Source::cold(after, work.temp));
        Ok(Some(store::carry_writes(kind.kind, old, new, target, rules, work.progress)?))
    }

    fn mask(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        rules: &[Rule],
        key: &Key,
        _: &Scratch,
        work: &Work<'_>,
    ) -> Result<MaskedStore, EngineError> {
        let (place, path) = place(at, store)?;
        match place.kind {
            StoreKind::Sqlite => Ok(store::mask_sqlite(path, rules, key, work.progress)?),
            _ => Err(no_columns(store)),
        }
    }

    fn altering(&self) -> &dyn Altering {
        self
    }

    fn samples(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<Sample>, EngineError> {
        let (place, path) = place(at, store)?;
        match place.kind {
            StoreKind::Sqlite => Ok(store::sample_sqlite(source(path, mode, work.temp), SAMPLES)?),
            _ => Ok(Vec::new()),
        }
    }

    fn sql(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        sql: &str,
        values: &[Value],
    ) -> Result<Value, String> {
        let place = at.instance.stores.get(store).ok_or_else(|| format!("there is no store {store}"))?;
        if place.kind != StoreKind::Sqlite {
            return Err(format!("the store {store} is not a database"));
        }
        sqlite_value(Path::new(&place.path), sql, values)
    }

    fn parts(&self, at: &Placement<'_>) -> Result<BTreeMap<StoreName, String>, EngineError> {
        let there = at.instance.stores.iter().filter(|(_, place)| Path::new(&place.path).exists());
        let part = |(name, place): (&StoreName, &StorePlace)| {
            let path = Path::new(&place.path);
            let file = path.file_name().filter(|_| !path.is_dir()).map(|f| f.to_string_lossy().into_owned());
            let folder = backup::part(name);
            (name.clone(), file.map_or_else(|| folder.clone(), |file| format!("{folder}/{file}")))
        };
        Ok(there.map(part).collect())
    }

    fn archive(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        (beside, contents): (Vec<Part>, &BTreeMap<StoreName, Fingerprint>),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError> {
        let mut parts = beside;
        for (name, logical) in self.parts(at)? {
            let place = place(at, &name)?.0;
            let mut part = Part::new(place.path.clone(), logical);
            if let Some(content) = contents.get(&name).filter(|_| place.kind == StoreKind::Files) {
                part.mark("", content);
            }
            parts.push(part);
        }
        let task = Task::Archive { parts, stamp: Box::new(stamp.clone()) };
        crate::backup::parsed(child::perform(vault, &task, work.progress)?)
    }

    fn fetch(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        (snapshot, said): (&str, &BTreeMap<StoreName, String>),
        scratch: Option<&Scratch>,
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        let mut parts = Vec::new();
        for (name, logical) in said {
            let Ok((_, path)) = place(at, name) else { continue };
            match scratch {
                Some(scratch) => scratch.remove_part(path)?,
                None if path.exists() => return Err(crate::backup::occupied(&path.to_string_lossy())),
                None => {}
            }
            if let Some(parent) = path.parent() {
                create_dir(parent)?;
            }
            parts.push(Part::new(path.to_string_lossy(), logical));
        }
        let task = Task::Restore { snapshot: snapshot.to_owned(), parts };
        crate::backup::parsed(child::perform(vault, &task, work.progress)?)
    }

    fn vault(
        &self,
        _: &Home,
        vault: &Vault,
        task: &Task,
        progress: &Progress<'_>,
    ) -> Result<Value, EngineError> {
        child::perform(vault, task, progress)
    }

    fn observing(&self) -> Option<&dyn Observing> {
        Some(self)
    }

    fn end_leftovers(&self, _: &Home) -> Result<(), EngineError> {
        Ok(()) // work on files ends with the program that does it
    }

    fn discard(&self, _: &Home, instance: &Instance, _: &Scratch) -> Result<(), EngineError> {
        self.watchers.forget(instance);
        Ok(()) // it lies in the instance's folder
    }

    fn keep(&self, _: &Home, _: &Instance) -> Result<(), EngineError> {
        Ok(())
    }

    fn retire(&self, _: &Home, _: &Instance) -> Result<(), EngineError> {
        Ok(())
    }
}
