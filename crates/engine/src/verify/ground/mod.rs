//! What an acceptance run stands on: how a stack of a runtime is copied, looked at, damaged on purpose and cleared away.
//!
//! The phases know only [`Ground`] and the procedures themselves. A ground looks at production and never changes it; what
//! it kills or removes belongs to a sandbox.

mod compose;
mod copy;
mod process;

pub use compose::ComposeGround;
pub use process::ProcessGround;

use super::mutate::Mutation;
use super::proof::Proof;
use super::sandbox::Sandbox;
use crate::data::Work;
use crate::error::EngineError;
use crate::home::Home;
use crate::session::Session;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::data::CopyStats;
use switchback_core::ids::{Digest, ServiceName, StoreName};
use switchback_core::plan::Plan;
use switchback_core::release::{Instance, Release, StorePlace};

/// How evidence speaks of what runs.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Several of what a service consists of.
    pub many: &'static str,
    /// What of the configuration is held against what runs, besides files; empty for nothing.
    pub configuration: &'static str,
    /// What an instance cannot start without, see [`Ground::vital`].
    pub vital: &'static str,
}

/// A stack that is to be copied.
pub struct Order<'a> {
    /// The stack.
    pub home: &'a Home,
    /// Its configuration.
    pub config: &'a Config,
    /// Versions to go to instead of the configured ones.
    pub versions: &'a BTreeMap<ServiceName, String>,
    /// The sandbox's folder.
    pub root: &'a Path,
    /// How the copying talks to the run.
    pub work: &'a Work<'a>,
}

/// A copied stack.
pub struct Copied {
    /// The copy.
    pub home: Home,
    /// What production runs, on the copy.
    pub current: Config,
    /// What is to be gone to, on the copy.
    pub desired: Config,
    /// Versions that are named besides.
    pub versions: BTreeMap<ServiceName, String>,
    /// Production, if Switchback runs it.
    pub production: Option<Instance>,
    /// Production's stores that were copied.
    pub places: BTreeMap<StoreName, StorePlace>,
    /// What cloning cost; a mount with several stores is one copy.
    pub copies: BTreeMap<StoreName, CopyStats>,
    /// Whether the snapshot was taken from running services.
    pub live: bool,
    /// What a reader should know of the copy.
    pub notes: Vec<String>,
}

/// Whether a change of the sandbox's stack stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Until [`Ground::settle`].
    Once,
    /// It is what the stack goes to from now on.
    Kept,
}

/// What can be seen of production from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What runs: a name that stays the same as long as it runs on.
    pub running: BTreeMap<String, String>,
    /// How often each was started.
    pub starts: BTreeMap<String, u64>,
    /// Data, networks and images that production uses or could use.
    pub holds: BTreeMap<String, String>,
    /// Files that belong to the stack, relative to its folder.
    pub files: Vec<String>,
}

/// What a kind of runtime needs for an acceptance run.
pub trait Ground: Send + Sync {
    /// How evidence speaks of it.
    fn words(&self) -> Words;

    /// Copies a stack: its definition, its configuration and its data. Nothing of the copy runs yet.
    fn copy(&self, order: &Order<'_>) -> Result<Copied, EngineError>;

    /// Plans to start the copy as it is now.
    fn plan_up(&self, sandbox: &Sandbox, session: &Session<'_>) -> Result<Plan, EngineError>;

    /// Makes the copy's files say what is to be gone to.
    fn settle(&self, sandbox: &Sandbox) -> Result<(), EngineError>;

    /// Gives a service of the copy one more variable; the configuration to go to then, and the service.
    fn with_variable(
        &self,
        sandbox: &Sandbox,
        variable: &str,
        lasting: Lasting,
    ) -> Result<Option<(ServiceName, Config)>, EngineError>;

    /// Looks at production.
    fn seen(&self, home: &Home, config: &Config) -> Result<Seen, EngineError>;

    /// Looks at what runs of the sandbox's staging: how much was seen, and what of production it can reach.
    fn trespass(&self, sandbox: &Sandbox, production: &Home) -> Result<(usize, Vec<String>), EngineError>;

    /// Compares what ran in staging with what production runs, beyond versions.
    fn same_definition(
        &self,
        production: (&Home, &Instance, &Release),
        copy: (&Home, &Instance, &Release),
        proof: &mut Proof,
    ) -> Result<(), EngineError>;

    /// The configuration files that an instance of the sandbox uses, as they are now.
    fn config_now(
        &self,
        home: &Home,
        instance: &Instance,
    ) -> Result<BTreeMap<String, Option<Digest>>, EngineError>;

    /// What more can be said of the configuration of an instance that runs now.
    fn running_configuration(
        &self,
        home: &Home,
        config: &Config,
        instance: &Instance,
        proof: &mut Proof,
    ) -> Result<(), EngineError>;

    /// Kills everything that runs of an instance of the sandbox, without asking it to end.
    fn crash(&self, home: &Home, instance: &Instance) -> Result<(), EngineError>;

    /// Takes some rows, or a file, away from a store of an instance of the sandbox, as a bad migration does; `None` where
    /// the migration itself must be made to do it. Tables in `not` are left alone.
    fn lose_rows(
        &self,
        home: &Home,
        instance: &Instance,
        store: &StoreName,
        not: &[String],
    ) -> Result<Option<Mutation>, EngineError>;

    /// A file or folder of an instance of the sandbox without which it cannot start.
    fn vital(&self, home: &Home, instance: &Instance) -> PathBuf;

    /// The tag of an image, and the newer ones that this host has; `None` where there are no images, or no tag.
    fn image_tags(&self, reference: &str) -> Result<Option<Tags>, EngineError>;

    /// Ends everything that runs of a sandbox; its data stays.
    fn end(&self, home: &Home) -> Result<(), EngineError>;

    /// Removes everything of a sandbox that lies outside its folder.
    fn clear(&self, home: &Home) -> Result<(), EngineError>;

    /// What is left of a sandbox outside its folder, in words; what only holds data counts where `data` says so.
    fn left(&self, home: &Home, data: Count) -> Result<Vec<String>, EngineError>;
}

/// Tags of an image.
#[derive(Debug, Clone)]
pub struct Tags {
    /// Where it comes from.
    pub repository: String,
    /// The one that is used.
    pub current: String,
    /// The newest of each level that is newer.
    pub newer: Vec<String>,
}

/// What counts as left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// What runs.
    Running,
    /// Data as well, and what does not run.
    Everything,
}

/// The ground of a runtime.
pub fn open(kind: RuntimeKind) -> Result<Box<dyn Ground>, EngineError> {
    Ok(match kind {
        RuntimeKind::Process => Box::new(ProcessGround),
        RuntimeKind::Compose => Box::new(ComposeGround::open()?),
    })
}
