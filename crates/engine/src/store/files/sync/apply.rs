//! Making the copy what the plan says, entry by entry.
//!
//! Owns the order of changes and the structure of hard links. It must never change an entry of the
//! copy before its record is withdrawn, and never write to a file of the copy that has another name
//! outside the same group of links.

use super::super::super::progress::Meter;
use super::super::super::{Result, StoreError};
use super::super::clone::{NAMED, open_file_at};
use super::super::content::Copier;
use super::super::remove::remove_at;
use super::super::walk::shown;
use super::super::{Writers, escape, meta};
use super::folders::Folders;
use super::links::Links;
use super::patch::{Pair, Patched, patch};
use super::plan::{Entry, Look, Plan, split};
use super::record::{Certainty, Known, Record};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid, fstat, linkat, mkdirat};
use rustix::fs::{chmodat, chownat, mknodat, openat, readlinkat, seek, statat, symlinkat, utimensat};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What a pass did.
#[derive(Default)]
pub(super) struct Done {
    pub read: u64,
    pub compared: u64,
    pub written: u64,
    pub copied: u64,
    pub removed: u64,
    pub left: u64,
    /// The first of those.
    pub left_named: Vec<String>,
    pub unlinked: u64,
    pub refused: BTreeSet<String>,
}

/// Applies a plan.
pub(super) struct Apply<'p, 'm> {
    pub plan: &'p Plan,
    pub src_root: PathBuf,
    pub writers: Writers,
    /// Whether the pages of the source were written out after the plan was made, so that a later write
    /// through a mapping shows.
    pub synced: bool,
    pub src: Folders,
    pub dst: Folders,
    /// A second place in the copy, for the other name of a link.
    pub other: Folders,
    pub copier: Copier,
    pub meter: &'m mut Meter<'p>,
    pub record: Record,
    /// What was known before the pass, by index.
    pub before: Vec<Option<(Look, Certainty)>>,
    /// What is known after it, by index; none where nothing was done yet.
    pub after: Vec<Option<Certainty>>,
    /// Folders of the copy in which something was changed, by index.
    pub altered: Vec<bool>,
    pub done: Done,
}

/// Where an entry of the copy is.
enum There {
    Nothing,
    /// Something else: it has to make room.
    Other,
    Same(Stat),
}

impl Apply<'_, '_> {
    /// Whether an entry needs no work: nothing says that it changed, and its file system would say so.
    pub(super) fn is_kept(plan: &Plan, before: Option<(Look, Certainty)>, look: &Look) -> bool {
        matches!(before, Some((was, Certainty::Sure)) if was == *look) && plan.trusts(look)
    }

    fn kept(&self, index: usize) -> bool {
        Self::is_kept(self.plan, self.before[index], &self.plan.entries[index].look)
    }

    /// Does everything.
    pub(super) fn run(&mut self, known: &Known, vanished: &BTreeSet<Box<[u8]>>) -> Result<()> {
        let plan = self.plan;
        self.remove(vanished)?;
        let links = Links::find(plan, &self.before);
        for (index, entry) in plan.entries.iter().enumerate() {
            match entry.look.kind() {
                FileType::Directory => self.folder(index, known)?,
                FileType::RegularFile if links.follows(index) => {}
                _ if self.kept(index) => self.after[index] = Some(Certainty::Sure),
                FileType::RegularFile => {
                    let sure = self.file(index, links.kept(&entry.look))?;
                    self.after[index] = Some(sure);
                }
                _ => {
                    let sure = self.special(index)?;
                    self.after[index] = Some(sure);
                }
            }
        }
        for (leader, followers) in links.groups() {
            if followers.iter().all(|index| self.kept(*index)) && self.kept(leader) {
                for index in followers {
                    self.after[*index] = Some(Certainty::Sure);
                }
                continue;
            }
            for index in followers {
                let sure = self.follow(leader, *index)?;
                self.after[*index] = Some(sure);
            }
        }
        self.attributes_of_folders()
    }

    fn path(&self, index: usize) -> PathBuf {
        shown(&self.src_root, &self.plan.entries[index].rel)
    }

    /// An entry of the source is not what it was when the plan was made.
    fn changed(&mut self, index: usize) -> Result<Certainty> {
        match self.writers {
            Writers::Running => {
                self.done.left += 1;
                if self.done.left_named.len() < NAMED {
                    self.done.left_named.push(escape(&self.plan.entries[index].rel));
                }
                Ok(Certainty::Unknown)
            }
            Writers::Stopped => Err(StoreError::Changed { path: self.path(index) }),
        }
    }

    /// What may be said of an entry that is now as the plan says.
    fn certainty(&self, look: &Look) -> Certainty {
        let shows = self.synced || look.kind() != FileType::RegularFile;
        if shows && self.plan.trusts(look) && self.plan.is_settled(look) {
            Certainty::Sure
        } else {
            Certainty::Unsettled
        }
    }

    /// Announces that the entries of a folder of the copy will change.
    fn alter(&mut self, folder: Option<usize>) -> Result<()> {
        if let Some(folder) = folder
            && !self.altered[folder]
        {
            self.altered[folder] = true;
            self.record.withdraw(&self.plan.entries[folder].rel)?;
        }
        Ok(())
    }

    /// Removes from the copy what the source has no more.
    fn remove(&mut self, vanished: &BTreeSet<Box<[u8]>>) -> Result<()> {
        if vanished.is_empty() {
            return Ok(());
        }
        // All of them first: a folder is removed with what is in it.
        for rel in vanished {
            self.record.withdraw(rel)?;
        }
        let plan = self.plan;
        let is_folder = |(_, entry): &(usize, &Entry)| entry.look.kind() == FileType::Directory;
        let folders: HashMap<&[u8], usize> =
            plan.entries.iter().enumerate().filter(is_folder).map(|(i, e)| (&*e.rel, i)).collect();
        for rel in vanished {
            let folder = split(rel).and_then(|(folder, _)| folders.get(folder).copied());
            // Otherwise it goes with its folder, or makes room for what the folder has become.
            if folder.is_none() && split(rel).is_some_and(|(folder, _)| vanished.contains(folder)) {
                continue;
            }
            self.alter(folder)?;
            let path = shown(&self.src_root, rel);
            let gone = match self.dst.locate(rel) {
                Ok((dir, name)) => remove_at(dir, &name, &path)?,
                // Its folder is gone, or something else is in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
                Err(e) => return Err(StoreError::io("remove the copy of", &path, e)),
            };
            self.done.removed += u64::from(gone);
            self.dst.forget();
            self.meter.add(0)?;
        }
        Ok(())
    }

    /// What the copy has in the place of an entry.
    fn there(&mut self, index: usize) -> Result<There> {
        let entry = &self.plan.entries[index];
        let err = |e| StoreError::io("look at the copy of", &shown(&self.src_root, &entry.rel), e);
        let (dir, name) = self.dst.locate(&entry.rel).map_err(err)?;
        match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == entry.look.kind() => Ok(There::Same(stat)),
            Ok(_) => Ok(There::Other),
            Err(Errno::NOENT) => Ok(There::Nothing),
            Err(e) => Err(err(e)),
        }
    }

    /// Frees the place of an entry in the copy, or announces that it will be filled.
    fn make_room(&mut self, index: usize, there: &There) -> Result<()> {
        let entry = &self.plan.entries[index];
        self.alter(entry.parent)?;
        if matches!(there, There::Nothing) {
            return Ok(());
        }
        let path = self.path(index);
        let (dir, name) =
            self.dst.locate(&entry.rel).map_err(|e| StoreError::io("remove the copy of", &path, e))?;
        remove_at(dir, &name, &path)?;
        self.dst.forget();
        Ok(())
    }

    /// Sees to it that a folder exists; its attributes come last.
    fn folder(&mut self, index: usize, known: &Known) -> Result<()> {
        let recorded = self.before[index]
            .is_some_and(|(was, sure)| sure != Certainty::Unknown && was.kind() == FileType::Directory);
        if recorded && !known.doubtful {
            return Ok(());
        }
        let there = self.there(index)?;
        if matches!(there, There::Same(_)) {
            return Ok(());
        }
        self.make_room(index, &there)?;
        self.alter(Some(index))?;
        let path = self.path(index);
        let err = |e| StoreError::io("create the copy of", &path, e);
        let (dir, name) = self.dst.locate(&self.plan.entries[index].rel).map_err(err)?;
        mkdirat(dir, &name, Mode::RWXU).map_err(err)
    }

    /// Opens a file of the source; none if it is not there any more or is something else.
    fn open_source(&mut self, index: usize, path: &Path) -> Result<Option<OwnedFd>> {
        let (dir, name) = match self.src.locate(&self.plan.entries[index].rel) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(StoreError::io("open the folder of", path, e)),
        };
        open_file_at(dir, &name).map_err(|e| StoreError::io("open", path, e))
    }

    /// Brings a file up to date. `links` is how many names of its copy stay together.
    fn file(&mut self, index: usize, links: u64) -> Result<Certainty> {
        let entry = &self.plan.entries[index];
        let path = self.path(index);
        let Some(from) = self.open_source(index, &path)? else { return self.changed(index) };
        if self.writers == Writers::Running {
            // Asking for a hole waits for a write that is going on. One that set the change time before
            // the plan was made is in the file when the file is read.
            let _ = seek(&from, SeekFrom::Hole(0));
        }
        let now = fstat(&from).map_err(|e| StoreError::io("stat", &path, e))?;
        if Look::of(&now) != entry.look && self.writers == Writers::Stopped {
            return self.changed(index);
        }
        self.record.withdraw(&entry.rel)?;
        let there = self.there(index)?;
        let (to, had) = match there {
            There::Same(had) if had.st_nlink <= 1 || (had.st_nlink == links && self.owns(index)) => {
                (self.open_copy(index, &path)?, Some(had))
            }
            _ => (None, None),
        };
        let (to, had) = match to {
            Some(to) => (to, had),
            None => {
                self.make_room(index, &there)?;
                (self.create(index, &path)?, None)
            }
        };
        let patched = match &had {
            Some(had) => {
                let pair = Pair { from: from.as_fd(), to: to.as_fd(), path: &path };
                patch(&pair, &now, had, &mut self.copier, self.meter)?
            }
            None => {
                let copied = self.copier.copy(from.as_fd(), to.as_fd(), &path, self.meter)?;
                Patched { read: copied.written, compared: 0, written: copied.written }
            }
        };
        let refused = meta::carry(from.as_fd(), &now, to.as_fd(), &path)?;
        self.done.refused.extend(refused);
        self.done.read += patched.read;
        self.done.compared += patched.compared;
        self.done.written += patched.written;
        self.done.copied += 1;
        self.meter.add(0)?;
        let end = fstat(&from).map_err(|e| StoreError::io("stat", &path, e))?;
        if Look::of(&end) != entry.look {
            // The record of the plan's look differs from what the next pass sees.
            return self.changed(index);
        }
        Ok(self.certainty(&entry.look))
    }

    /// Whether the copy's file at an entry's place is that of the entry's own group of links.
    fn owns(&self, index: usize) -> bool {
        let id = self.plan.entries[index].look.id();
        self.before[index].is_some_and(|(was, sure)| sure != Certainty::Unknown && was.id() == id)
    }

    /// Opens a file of the copy; none if it does not allow that.
    fn open_copy(&mut self, index: usize, path: &Path) -> Result<Option<OwnedFd>> {
        let err = |e| StoreError::io("open the copy of", path, e);
        let (dir, name) = self.dst.locate(&self.plan.entries[index].rel).map_err(err)?;
        match openat(dir, &name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ACCESS | Errno::TXTBSY) => Ok(None),
            Err(e) => Err(err(e)),
        }
    }

    fn create(&mut self, index: usize, path: &Path) -> Result<OwnedFd> {
        let err = |e| StoreError::io("create the copy of", path, e);
        let (dir, name) = self.dst.locate(&self.plan.entries[index].rel).map_err(err)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, &name, flags, Mode::RUSR | Mode::WUSR).map_err(err)
    }

    /// Makes an entry another name of the file that was brought up to date before.
    fn follow(&mut self, leader: usize, index: usize) -> Result<Certainty> {
        let sure = match self.after[leader] {
            Some(Certainty::Unknown) | None => return self.changed(index),
            Some(sure) => sure,
        };
        let entries = &self.plan.entries;
        let path = self.path(index);
        let err = |e| StoreError::io("link the copy of", &path, e);
        let (dir, name) = self.other.locate(&entries[leader].rel).map_err(err)?;
        let first = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(err)?;
        let there = self.there(index)?;
        if let There::Same(stat) = &there
            && (stat.st_dev, stat.st_ino) == (first.st_dev, first.st_ino)
        {
            return Ok(sure);
        }
        self.record.withdraw(&entries[index].rel)?;
        self.make_room(index, &there)?;
        self.other.forget();
        let err = |e| StoreError::io("link the copy of", &path, e);
        let (from_dir, from_name) = self.other.locate(&entries[leader].rel).map_err(err)?;
        let (to_dir, to_name) = self.dst.locate(&entries[index].rel).map_err(err)?;
        match linkat(from_dir, &from_name, to_dir, &to_name, AtFlags::empty()) {
            Ok(()) => {
                self.done.copied += 1;
                Ok(sure)
            }
            // The copy's file system allows fewer names: a file of its own, never sure to be a link.
            Err(Errno::MLINK) => {
                self.done.unlinked += 1;
                self.file(index, 0).map(|_| Certainty::Unknown)
            }
            Err(e) => Err(err(e)),
        }
    }

    /// Brings a symlink or a fifo up to date.
    fn special(&mut self, index: usize) -> Result<Certainty> {
        let entry = &self.plan.entries[index];
        let path = self.path(index);
        let err = |e| StoreError::io("read", &path, e);
        let (stat, target) = {
            let (dir, name) = match self.src.locate(&entry.rel) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.changed(index),
                Err(e) => return Err(err(e)),
            };
            let target = if entry.look.kind() == FileType::Symlink {
                match readlinkat(dir, &name, Vec::new()) {
                    Ok(target) => Some(target),
                    Err(Errno::NOENT | Errno::INVAL) => return self.changed(index),
                    Err(e) => return Err(err(e)),
                }
            } else {
                None
            };
            match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => (stat, target),
                Err(Errno::NOENT) => return self.changed(index),
                Err(e) => return Err(err(e)),
            }
        };
        if Look::of(&stat) != entry.look {
            return self.changed(index);
        }
        self.record.withdraw(&entry.rel)?;
        let there = self.there(index)?;
        let err = |e| StoreError::io("create the copy of", &path, e);
        let same = match (&there, &target) {
            (There::Same(_), Some(target)) => {
                let (dir, name) = self.dst.locate(&entry.rel).map_err(err)?;
                readlinkat(dir, &name, Vec::new()).map_err(err)? == *target
            }
            (There::Same(_), None) => true,
            _ => false,
        };
        if !same {
            self.make_room(index, &there)?;
            self.done.copied += 1;
        }
        let (dir, name) = self.dst.locate(&entry.rel).map_err(err)?;
        if !same {
            match &target {
                Some(target) => symlinkat(target, dir, &name).map_err(err)?,
                None => {
                    mknodat(dir, &name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(err)?;
                }
            }
        }
        let err = |e| StoreError::io("set the attributes of the copy of", &path, e);
        if meta::may_chown() {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(dir, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(err)?;
        }
        if target.is_none() {
            chmodat(dir, &name, meta::mode(&stat), AtFlags::empty()).map_err(err)?;
        }
        utimensat(dir, &name, &meta::times(&stat), AtFlags::SYMLINK_NOFOLLOW).map_err(err)?;
        Ok(self.certainty(&entry.look))
    }

    /// Gives folders their attributes, what is deeper first.
    fn attributes_of_folders(&mut self) -> Result<()> {
        let plan = self.plan;
        for (index, entry) in plan.entries.iter().enumerate().rev() {
            if entry.look.kind() != FileType::Directory {
                continue;
            }
            let unlocked =
                self.dst.unlocked.contains(&*entry.rel) || self.other.unlocked.contains(&*entry.rel);
            if self.kept(index) && !self.altered[index] && !unlocked {
                self.after[index] = Some(Certainty::Sure);
                continue;
            }
            let path = self.path(index);
            let sure = {
                let from = match self.src.open(&entry.rel) {
                    Ok(from) => from,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                        self.after[index] = Some(self.changed(index)?);
                        continue;
                    }
                    Err(e) => return Err(StoreError::io("open", &path, e)),
                };
                let now = fstat(from).map_err(|e| StoreError::io("stat", &path, e))?;
                let to =
                    self.dst.open(&entry.rel).map_err(|e| StoreError::io("open the copy of", &path, e))?;
                self.record.withdraw(&entry.rel)?;
                self.done.refused.extend(meta::carry(from, &now, to, &path)?);
                if Look::of(&now) == entry.look { self.certainty(&entry.look) } else { self.changed(index)? }
            };
            let locked = !meta::may_chown() && entry.look.mode & 0o700 != 0o700;
            // Such a folder is made writable by each pass that works in it.
            self.after[index] = Some(if locked { Certainty::Unsettled.and(sure) } else { sure });
            self.meter.add(0)?;
        }
        Ok(())
    }
}
