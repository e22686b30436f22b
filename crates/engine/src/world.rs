//! What a stack runs on and where its data is: the runtime and the data behind it, chosen by the configuration.

use crate::backup::Keys;
use crate::data::{ComposeData, Data, LocalData};
use crate::docker::Docker;
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::Runtime;
use crate::runtime::compose::{self, ComposeRuntime};
use crate::runtime::process::ProcessRuntime;
use std::sync::Arc;
use switchback_core::config::{Config, RuntimeKind};

/// The configuration of a stack, with what its Compose files say.
pub fn config(home: &Home) -> Result<Config, EngineError> {
    let config = home.config()?;
    match config.runtime {
        RuntimeKind::Process => Ok(config),
        RuntimeKind::Compose => compose::effective(home, &config),
    }
}

/// The configuration for the way back: where the files have mistakes in them now, the one that production's
/// generation was made with, and what is wrong with the files.
pub fn config_for_return(home: &Home) -> Result<(Config, Option<EngineError>), EngineError> {
    let trouble = match config(home) {
        Ok(config) => return Ok((config, None)),
        Err(e) => e,
    };
    let Some(pointer) = home.pointer()? else { return Err(trouble) };
    let made_by = home.generation(pointer.current)?.created_by;
    match home.run_config(&made_by) {
        Ok(kept) => Ok((kept, Some(trouble))),
        Err(_) => Err(trouble),
    }
}

/// The runtime of a stack and its data.
pub struct World {
    /// What runs the services.
    pub runtime: Box<dyn Runtime>,
    /// The stores.
    pub data: Box<dyn Data>,
    /// What keys of repositories of backups guard, as far as a run found it out.
    pub keys: Keys,
}

impl World {
    /// Opens what the configuration names.
    pub fn open(config: &Config) -> Result<Self, EngineError> {
        let keys = Keys::default();
        match config.runtime {
            RuntimeKind::Process => {
                Ok(Self { runtime: Box::new(ProcessRuntime), data: Box::new(LocalData::default()), keys })
            }
            RuntimeKind::Compose => {
                let docker = Arc::new(Docker::connect()?);
                Ok(Self {
                    runtime: Box::new(ComposeRuntime::new(Arc::clone(&docker))?),
                    data: Box::new(ComposeData::new(docker)),
                    keys,
                })
            }
        }
    }
}
