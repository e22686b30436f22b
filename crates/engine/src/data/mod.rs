//! The data of instances: cloning, fingerprinting, comparing and exporting every store of one.
//!
//! Owns the way to a store: as files of this host, or on the mounts of containers. It must never start or stop a
//! service, and never write to data that is not scratch.

mod altering;
mod capturing;
mod compose;
mod contents;
mod local;
mod logs;
mod observing;
mod watching;

pub use altering::Altering;
pub use capturing::Capturing;
pub(crate) use compose::live_volumes;
pub use compose::{ComposeData, MountFacts, PostgresFacts};
pub use contents::contents;
pub use local::LocalData;
pub use logs::{Here, Logs};
pub use observing::Observing;

use crate::backup::vault::{Task, Vault};
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::{Placement, Stage};
use crate::scratch::Scratch;
use crate::store::Progress;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use switchback_core::anonymise::{Key, MaskedStore, Rule, Sample};
use switchback_core::backup::{Archived, Part, Stamp};
use switchback_core::carry::{Outcome, Rules};
use switchback_core::data::{ExportStats, Fingerprint, StoreDiff, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::journal::Output;
use switchback_core::plan::{CloneMode, Majors};
use switchback_core::release::Instance;

/// How a long operation on data talks to the run.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Told what is done, asked whether to stop.
    pub stage: Stage<'a>,
    /// Told how far it is.
    pub progress: &'a Progress<'a>,
    /// A folder for private copies, on the file system of the state; removed with the run.
    pub temp: &'a Path,
}

/// What can be done with the stores of instances.
pub trait Data: Send + Sync {
    /// Whether a store is there.
    fn exists(&self, at: &Placement<'_>, store: &StoreName) -> Result<bool, EngineError>;

    /// What one clone of all stores takes, and whether blocks can be shared instead.
    fn cost(&self, home: &Home, instance: &Instance) -> Result<Cost, EngineError>;

    /// Makes the places that clones for this generation will be written to, so that it need not be done while everything is
    /// stopped. Only saves time: a clone makes what is missing.
    fn prepare(&self, _at: &Placement<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Gets ready what will clone the data of a generation that is stopped next, and (if asked for) the clone that later writes
    /// are recognised by. Only saves time, of which production is down.
    fn get_ready(&self, _from: &Placement<'_>, _to: &Placement<'_>, _base: bool) -> Result<(), EngineError> {
        Ok(())
    }

    /// Confirms that production's data can be cloned faithfully, that there is room where the clones go, and that the
    /// target can read it: what a person should know.
    fn preflight(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        need_bytes: u64,
    ) -> Result<Vec<String>, EngineError>;

    /// Copies ahead, while the source is in use, what the clone can then take over.
    fn precopy(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError>;

    /// Ends what goes on after a [`Data::precopy`], on either side. Fine if nothing does, and safe to repeat.
    fn forget_precopy(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError>;

    /// Clones all stores of one instance into another, cut at one moment.
    fn clone(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError>;

    /// Brings a clone of an instance's stores, on which nothing runs, to the instance's present state, cut at one
    /// moment, and moves only what differs: what was written to the clone since is undone. The first time (or where
    /// what is known about the clone was lost) everything is compared or copied; where blocks can be shared, the stores
    /// are cloned anew. What is known is kept with the instance, until [`Data::discard`]. After an interruption the
    /// clone is of no moment until this is repeated.
    fn refresh(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError>;

    /// The content of a store on which nothing runs, cheaper than [`Data::fingerprint`]: equal only for a copy of the very
    /// same files.
    fn content(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        self.fingerprint(at, store, CloneMode::Cold, work)
    }

    /// Rows per table, or files (each 1).
    fn counts(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<BTreeMap<String, u64>, EngineError> {
        let kind = at.instance.stores.get(store).map_or(StoreKind::Files, |p| p.kind);
        Ok(counted(kind, self.fingerprint(at, store, mode, work)?))
    }

    /// Keeps a clone of an instance's stores beside another instance.
    fn keep_base(
        &self,
        from: &Placement<'_>,
        beside: &Placement<'_>,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<Output, EngineError>;

    /// Whether a base was kept beside an instance.
    fn has_base(&self, at: &Placement<'_>) -> Result<bool, EngineError>;

    /// The base that was kept beside an instance, as an instance: its stores lie where the base does.
    fn base(&self, at: &Placement<'_>) -> Instance;

    /// Clones all stores of one stack's instance into the empty places of another stack, cut at one moment. The places
    /// are scratch of the stack that they belong to.
    fn seed(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Output, EngineError>;

    /// The exact content of a store.
    fn fingerprint(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError>;

    /// What is wrong inside a store; empty means sound.
    fn integrity(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError>;

    /// The exact difference between a store on which nothing runs and another one; `mode` says whether that one is in
    /// use.
    fn diff(
        &self,
        before: &Placement<'_>,
        after: &Placement<'_>,
        mode: CloneMode,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<StoreDiff, EngineError>;

    /// Writes what was written to a store since its base was kept to a new folder; `None` if there was no such
    /// store then. Nothing runs on the instance.
    fn export(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        out: &Path,
        work: &Work<'_>,
    ) -> Result<Option<ExportStats>, EngineError>;

    /// Carries what was written to a store of an abandoned instance since its base was kept into another instance's, which is
    /// scratch; nothing runs on either. `None` if there is nothing to recognise writes by, or nowhere to carry them to. After
    /// an error or an interruption the target is of no use until it was cloned again.
    fn carry(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        rules: &Rules,
        work: &Work<'_>,
    ) -> Result<Option<Outcome>, EngineError>;

    /// Stores whose data must be converted before the servers of another release can start on it. Refuses what cannot be, and
    /// what the configuration does not allow.
    fn conversions(&self, _from: &Placement<'_>, _to: &Placement<'_>) -> Result<Majors, EngineError> {
        Ok(Majors::new())
    }

    /// Converts a clone of a store, on which nothing runs, for the servers of its release; `from` has the release that can
    /// read it. Returns what a person should know. After an error or an interruption the clone is of no use until it was
    /// cloned again.
    fn convert(
        &self,
        _from: &Placement<'_>,
        _to: &Placement<'_>,
        store: &StoreName,
        _majors: (u32, u32),
        _work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        Err(EngineError::Internal { detail: format!("{store} cannot be converted") })
    }

    /// What keeps which rows are written to, if there is such a thing.
    fn capturing(&self) -> Option<&dyn Capturing> {
        None
    }

    /// What records how stores are used, if there is such a thing.
    fn observing(&self) -> Option<&dyn Observing> {
        None
    }

    /// Masks columns of a store on which nothing runs, so that nothing of the old values is left in its files. After an
    /// error or an interruption the store is of no use until it was copied again.
    fn mask(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        rules: &[Rule],
        key: &Key,
        scratch: &Scratch,
        work: &Work<'_>,
    ) -> Result<MaskedStore, EngineError>;

    /// What changes clones on purpose.
    fn altering(&self) -> &dyn Altering;

    /// The columns of a database with some of their values, for finding personal data. `mode` says whether services are
    /// running on it. Nothing for files.
    fn samples(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<Sample>, EngineError>;

    /// The first value that a query yields.
    fn sql(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        sql: &str,
        values: &[Value],
    ) -> Result<Value, String>;

    /// Removes tools that earlier versions of this program made for work on data and that nobody uses now. Returns how
    /// many there were.
    fn tidy(&self) -> Result<usize, EngineError> {
        Ok(0)
    }

    /// Ends what a killed program left at work on the stack's data. Only for the holder of the stack's lock, before
    /// it starts work of its own.
    fn end_leftovers(&self, home: &Home) -> Result<(), EngineError>;

    /// Removes the data of a scratch instance that lies outside its folder. The caller holds its [`Scratch`].
    fn discard(&self, home: &Home, instance: &Instance, scratch: &Scratch) -> Result<(), EngineError>;

    /// What a backup takes of an instance's data: the path in the snapshot, by store. Several stores may lie at one place,
    /// which has the name of the first.
    fn parts(&self, at: &Placement<'_>) -> Result<BTreeMap<StoreName, String>, EngineError>;

    /// Writes the data of an instance on which nothing runs, whose [`Data::content`] may be known, into a repository, and what lies on
    /// this host beside it.
    fn archive(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        parts: (Vec<Part>, &BTreeMap<StoreName, Fingerprint>),
        stamp: &Stamp,
        work: &Work<'_>,
    ) -> Result<Archived, EngineError>;

    /// Brings the data of a snapshot (its id, and what [`Data::parts`] said when it was made) into the places of an instance;
    /// what an earlier attempt left there is removed, or, without a [`Scratch`], nothing may be there. Returns the number of
    /// bytes.
    fn fetch(
        &self,
        at: &Placement<'_>,
        vault: &Vault,
        snapshot: (&str, &BTreeMap<StoreName, String>),
        scratch: Option<&Scratch>,
        work: &Work<'_>,
    ) -> Result<u64, EngineError>;

    /// Work on a repository that concerns no data of an instance.
    fn vault(
        &self,
        home: &Home,
        vault: &Vault,
        task: &Task,
        progress: &Progress<'_>,
    ) -> Result<Value, EngineError>;

    /// The logs of stores that can be archived, if there are such stores.
    fn logs(&self) -> Option<&dyn Logs> {
        None
    }

    /// From now on an instance's data is production's: nothing may remove it as scratch.
    fn keep(&self, home: &Home, instance: &Instance) -> Result<(), EngineError>;

    /// A generation that is no longer needed: its data may be removed as scratch.
    fn retire(&self, home: &Home, instance: &Instance) -> Result<(), EngineError>;
}

/// Values of each column that are looked at for finding personal data.
const SAMPLES: u32 = 100;

fn no_columns(store: &StoreName) -> EngineError {
    EngineError::refused(
        format!("staging.anonymise: {store} is not a database"),
        "rules are for columns; files are copied as they are",
    )
}

/// What a fingerprint counted: rows per table, or the number of all files.
fn counted(kind: StoreKind, found: Fingerprint) -> BTreeMap<String, u64> {
    match kind {
        StoreKind::Files => BTreeMap::from([("files".to_owned(), found.items)]),
        _ => found.parts.into_iter().map(|(part, content)| (part, content.items)).collect(),
    }
}

/// What a clone takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes that must be copied; 0 where blocks can be shared.
    pub bytes: u64,
    /// Whether every store can share its blocks.
    pub shared: bool,
}
