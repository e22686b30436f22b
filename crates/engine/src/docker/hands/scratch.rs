//! Folders beside production's data that Switchback made: marked, so that nothing else is ever taken for scratch.

use super::client::{Hands, Mounts, Result, ScratchDir};
use super::wire::Request;
use crate::docker::name;
use crate::store::Progress;

impl Hands<'_> {
    fn marked_path(&self, dir: &ScratchDir) -> Result<(Mounts, String)> {
        name::object("scratch folder", &dir.suffix)?;
        let mut mounts = Mounts::default();
        let path = mounts.writes((&dir.beside(), &dir.suffix))?;
        Ok((mounts, path))
    }

    fn scratch_dir(beside: &str, suffix: &str) -> ScratchDir {
        ScratchDir { beside: beside.trim_end_matches('/').to_owned(), suffix: suffix.to_owned() }
    }

    /// Makes the folder `SUFFIX` in the directory `beside`, which must exist, and marks it as scratch. Refuses one
    /// that exists without the mark of this stack.
    pub fn scratch_create(&self, beside: &str, suffix: &str) -> Result<ScratchDir> {
        let dir = Self::scratch_dir(beside, suffix);
        let (mounts, path) = self.marked_path(&dir)?;
        let stack = self.stack.clone();
        self.ask::<bool>(mounts, &Request::Mark { path, stack }, &Progress::none())?;
        Ok(dir)
    }

    /// Makes the directory `beside` as well, whose parent must exist; otherwise like [`Hands::scratch_create`]. One helper does
    /// both: each takes a quarter of a second, and production may be down meanwhile.
    pub fn scratch_create_in(&self, beside: &str, suffix: &str) -> Result<ScratchDir> {
        name::object("scratch folder", suffix)?;
        let dir = Self::scratch_dir(beside, suffix);
        let mut mounts = Mounts::default();
        let beside = mounts.makes((&dir.beside(), ""))?;
        let (path, stack) = (format!("{beside}/{suffix}"), self.stack.clone());
        self.ask::<bool>(mounts, &Request::MarkIn { beside, path, stack }, &Progress::none())?;
        Ok(dir)
    }

    /// Marks a folder that is no longer live; its data may be removed from now on.
    pub fn scratch_mark(&self, beside: &str, suffix: &str) -> Result<ScratchDir> {
        let dir = Self::scratch_dir(beside, suffix);
        let (mounts, path) = self.marked_path(&dir)?;
        let stack = self.stack.clone();
        self.ask::<bool>(mounts, &Request::Retire { path, stack }, &Progress::none())?;
        Ok(dir)
    }

    /// Opens a marked folder; `None` if it is gone. Refuses one without the mark of this stack.
    pub fn scratch_open(&self, beside: &str, suffix: &str) -> Result<Option<ScratchDir>> {
        let dir = Self::scratch_dir(beside, suffix);
        let (mounts, path) = self.marked_path(&dir)?;
        let stack = self.stack.clone();
        let there: bool = self.ask(mounts, &Request::Marked { path, stack }, &Progress::none())?;
        Ok(there.then_some(dir))
    }

    /// Takes the mark off: from now on this is live data. Fine if it is live already.
    pub fn scratch_keep(&self, beside: &str, suffix: &str) -> Result<()> {
        let (mounts, path) = self.marked_path(&Self::scratch_dir(beside, suffix))?;
        let stack = self.stack.clone();
        self.ask::<bool>(mounts, &Request::Unmark { path, stack }, &Progress::none()).map(drop)
    }

    /// Removes a marked folder with everything in it, the mark last. Fine if it is gone.
    pub fn scratch_remove(&self, dir: &ScratchDir, progress: &Progress<'_>) -> Result<()> {
        let (mounts, path) = self.marked_path(dir)?;
        let stack = self.stack.clone();
        self.ask::<bool>(mounts, &Request::RemoveMarked { path, stack }, progress).map(drop)
    }
}
