//! What keeps a staging environment apart: its networks, its gateway, and what it gets instead of secrets.
//!
//! The networks have no way out and no address of the host; the gateway is the only container that is on an ordinary
//! network, too. Both are made by the engine's API, not by Compose: services must be able to ask the gateway for names
//! as soon as they start, so its address has to be known before the model is written.

mod attack;
mod gateway;
mod networks;
mod secrets;

pub use crate::runtime::rules::{authority_file, check};
pub use attack::{ahead, attack};
pub use gateway::{collect, ensure, leads, stop};
pub use networks::{known, prepare};
pub use secrets::replacements;

use super::instance::DIR_LABEL;
use crate::docker::{SCRATCH_LABEL, STACK_LABEL};
use crate::error::EngineError;
use crate::runtime::Placement;
use std::collections::BTreeMap;

/// Labels of what belongs to an instance.
pub(super) fn labels(at: &Placement<'_>) -> Result<BTreeMap<String, String>, EngineError> {
    Ok(BTreeMap::from([
        (STACK_LABEL.to_owned(), at.home.id()?),
        (DIR_LABEL.to_owned(), at.instance.dir.clone()),
        // Compose makes volumes of a staging copy, too: nothing else may remove them later.
        (SCRATCH_LABEL.to_owned(), "1".to_owned()),
    ]))
}
