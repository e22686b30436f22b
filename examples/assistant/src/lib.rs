//! A small personal assistant: notes, reminders and uploads over HTTP, with a web page.
//!
//! Owns the stack that Switchback's demo and tests upgrade, and the good and faulty releases of it.
//! The program is the same in every release; a release is a directory of migrations, page and
//! settings ([`write_release`]), and the program does what that directory says.

mod api;
mod cli;
mod error;
mod files;
mod kind;
mod pool;
mod release;
mod schema;
mod seed;
mod serve;
mod store;
mod wear;

pub use cli::run;
pub use error::Error;
pub use kind::{PlaceProgram, ReleaseKind, UnknownKind, write_release};
pub use release::{Feature, Manifest, Settings};
pub use seed::{SeedPlan, Seeded, seed, seed_with};
