//! Hands: store operations in a helper container, where the volumes are.
//!
//! Owns the way there and back. The helper is this same program in an image of itself: without network, without
//! capabilities but those that copying needs, on a read-only root, with the wanted places mounted and nothing
//! else. A source is mounted read-only, unless SQLite has to take part in its locks.

mod altering;
mod carry;
mod client;
mod cut;
mod export;
mod lines;
mod look;
mod marks;
mod mask;
mod ready;
mod scratch;
mod serve;
mod talk;
mod vault;
mod watch;
mod wire;

pub use client::{Hands, HandsError, Scratch, ScratchDir, remove_leftovers};
pub use cut::{CutMode, CutPair, CutStats, Sharing};
pub(crate) use lines::Lines;
pub use look::Survey;
pub use ready::Ready;
pub use serve::{STORE_VERB, serve};
pub use vault::Placed;
pub(crate) use vault::vault_request;
pub use wire::{Entry, Room};
