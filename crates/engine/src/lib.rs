//! The part of Switchback that touches the world.
//!
//! Dependency direction inside: runtimes and stores never import each other; checks see an
//! environment only through endpoints and store handles.

pub mod check;
pub mod exec;
pub mod store;
