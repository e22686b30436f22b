//! Carrying writes in a helper.
//!
//! Owns the program's end of it. Two stores are mounted for reading, and scratch for writing.

use super::client::{Below, Hands, Mounts, Result, Scratch, bad_path, plain};
use super::wire::Request;
use crate::store::Progress;
use switchback_core::carry::{Outcome, Rules};
use switchback_core::data::StoreKind;

impl Hands<'_> {
    /// Carries what differs between two states of a store into a third, at a path in scratch (which may be all of it).
    pub fn carry(
        &self,
        kind: StoreKind,
        (before, after): (Below<'_>, Below<'_>),
        (scratch, below): (Scratch<'_>, &str),
        rules: &Rules,
        progress: &Progress<'_>,
    ) -> Result<Outcome> {
        if !below.is_empty() && !plain(below, false) {
            return Err(bad_path(below));
        }
        let mut mounts = Mounts::default();
        let before = mounts.store(kind, before, false)?;
        let after = mounts.store(kind, after, false)?;
        let (root, stack) = self.root(&mut mounts, scratch)?;
        let path = if below.is_empty() { root.clone() } else { format!("{root}/{below}") };
        let request = Request::Carry { kind, before, after, root, path, stack, rules: rules.clone() };
        self.ask(mounts, &request, progress)
    }
}
