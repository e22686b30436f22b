//! Changes of a copied SQLite database on purpose, in a helper: what bad migrations do to it, and fewer rows.
//!
//! It must never write to anything but scratch.

use super::client::{Hands, Mounts, Result, Scratch, bad_path, plain};
use super::wire::Request;
use crate::store::Progress;
use switchback_core::prove::Damage;
use switchback_core::scaling::Shrunk;

impl Hands<'_> {
    /// Damages a SQLite database at a path in scratch, but none of some tables; how many rows, columns or tables it concerned.
    pub fn damage(
        &self,
        scratch: Scratch<'_>,
        below: &str,
        damage: Damage,
        not: &[String],
        progress: &Progress<'_>,
    ) -> Result<u64> {
        if below.is_empty() || !plain(below, false) {
            return Err(bad_path(below));
        }
        let mut mounts = Mounts::default();
        let (root, stack) = self.root(&mut mounts, scratch)?;
        let path = format!("{root}/{below}");
        self.ask(mounts, &Request::Damage { root, path, stack, damage, not: not.to_vec() }, progress)
    }
    /// Removes rows of a SQLite database at a path in scratch, until a share (in percent) is left, but none of some tables.
    pub fn shrink(
        &self,
        scratch: Scratch<'_>,
        below: &str,
        (percent, not): (u8, &[String]),
        progress: &Progress<'_>,
    ) -> Result<Shrunk> {
        if below.is_empty() || !plain(below, false) {
            return Err(bad_path(below));
        }
        let mut mounts = Mounts::default();
        let (root, stack) = self.root(&mut mounts, scratch)?;
        let path = format!("{root}/{below}");
        self.ask(mounts, &Request::Shrink { root, path, stack, percent, not: not.to_vec() }, progress)
    }
}
