//! The Compose model: what `docker compose config --format json` says, and the models made from it.
//!
//! Owns reading that model, pinning it to a generation, making a staging copy of it, the lock file, the edits of
//! `.env` and of image versions. It never reads Compose YAML for its meaning (Compose itself does that) and never shows
//! an environment value: models hold secrets.
//!
//! The text that Compose prints has every `$` doubled, so that it can be read by Compose again. [`Model`] keeps it
//! so; every accessor gives the plain text.

mod apart;
mod changes;
mod detect;
mod digest;
mod dotenv;
mod image;
mod lock;
mod migration;
mod model;
mod pins;
mod secrets;
mod service;
mod staging;
mod version;

#[cfg(test)]
mod tests;

pub use apart::{mixed_model, needs_of};
pub use changes::changes;
pub use detect::{
    Detected, DetectedService, DetectedStore, HealthSource, ImageFacts, NO_HEALTH_CHECK, Software, Warning,
    detect,
};
pub use dotenv::{env_with_lock, env_without_lock};
pub use image::ImageName;
pub use lock::{LockHeader, lock_file};
pub use migration::{MigrationFacts, migration};
pub use model::{Model, VolumeDef};
pub use pins::{Pins, pinned_image, production};
pub use service::{Dependency, HealthCheck, MountKind, MountUse, PortMap, Service};
pub use staging::{
    Difference, Limits, Replaced, Replacements, StagingFacts, TRUST, staging, staging_networks,
};
pub use version::{Edit, set_version};

use crate::ids::NameError;

/// Why a model, or something made of it, was refused. No text of it holds an environment value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The text is no JSON.
    #[error(
        "what docker compose printed is not JSON (line {line}, column {column}); it must come from `docker compose config --format json`"
    )]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A part of the model is not what it must be.
    #[error("the Compose model is not usable: {at} {problem}")]
    Shape {
        /// Dotted path in the model.
        at: String,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A service has a name that cannot be used for files and variables.
    #[error("{0}; rename the service in the Compose file")]
    Name(#[from] NameError),
    /// Pins and model do not fit together.
    #[error("cannot pin the Compose model: {0}")]
    Pin(String),
    /// A staging copy cannot be made.
    #[error("cannot make a staging copy of the Compose model: {0}")]
    Staging(String),
    /// `.env` cannot be edited.
    #[error("cannot edit .env: {0}")]
    Env(String),
    /// The version of a service cannot be set.
    #[error("cannot set the version of {service}: {why}")]
    Version {
        /// The service.
        service: String,
        /// Why, and what to do.
        why: String,
    },
    /// The name of an image is not one.
    #[error("{name:?} is not the name of an image: {why}")]
    Image {
        /// The refused text.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
}

fn shape(at: impl Into<String>, problem: &'static str) -> ModelError {
    ModelError::Shape { at: at.into(), problem }
}

/// Plain text of a text of the model: `$$` is one `$`.
fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

/// A plain text as the model has it: Compose would replace variables in it otherwise.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The part of `path` below `parent`, without a slash at its start; empty if they are the same.
fn below<'p>(path: &'p str, parent: &str) -> Option<&'p str> {
    let parent = parent.trim_end_matches('/');
    let rest = path.trim_end_matches('/').strip_prefix(parent)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// A path and what is below it; the second may be empty.
fn join(parent: &str, rest: &str) -> String {
    if rest.is_empty() { parent.to_owned() } else { format!("{}/{rest}", parent.trim_end_matches('/')) }
}
