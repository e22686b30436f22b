//! Which entries of a plan are names of the same file.
//!
//! Owns the choice of the name that is brought up to date; the others are linked to it. It must never
//! take a name of the copy for one of a group only because it was one in an earlier pass.

use super::plan::{Look, Plan};
use super::record::Certainty;
use rustix::fs::FileType;
use std::collections::{BTreeMap, HashSet};

struct Group {
    leader: usize,
    followers: Vec<usize>,
    /// How many of its names were names of the same file in the pass before.
    kept: u64,
}

/// The groups of a plan.
pub(super) struct Links {
    groups: BTreeMap<(u64, u64), Group>,
    followers: HashSet<usize>,
}

impl Links {
    pub(super) fn find(plan: &Plan, before: &[Option<(Look, Certainty)>]) -> Self {
        let mut names: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for (index, entry) in plan.entries.iter().enumerate() {
            if entry.look.kind() == FileType::RegularFile && entry.look.nlink > 1 {
                names.entry(entry.look.id()).or_default().push(index);
            }
        }
        let mut links = Self { groups: BTreeMap::new(), followers: HashSet::new() };
        for (id, mut names) in names {
            let was = |index: &usize| {
                before[*index].is_some_and(|(was, sure)| sure != Certainty::Unknown && was.id() == id)
            };
            let kept = names.iter().filter(|index| was(index)).count() as u64;
            // A name that the copy has already: a large file is not copied again for a new name.
            let leader = names.remove(names.iter().position(was).unwrap_or(0));
            links.followers.extend(&names);
            links.groups.insert(id, Group { leader, followers: names, kept });
        }
        links
    }

    /// Whether an entry is linked to another one.
    pub(super) fn follows(&self, index: usize) -> bool {
        self.followers.contains(&index)
    }

    /// How many names of the file in the copy belong together still.
    pub(super) fn kept(&self, look: &Look) -> u64 {
        self.groups.get(&look.id()).map_or(0, |group| group.kept)
    }

    /// Each group with more than one name: the one to link to, and the rest.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, &[usize])> {
        self.groups
            .values()
            .filter(|group| !group.followers.is_empty())
            .map(|group| (group.leader, &group.followers[..]))
    }
}
