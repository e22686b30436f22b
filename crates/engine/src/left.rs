//! Generations that production left for an older one, so that what was written to them is not in production.
//!
//! Owns the mark that says so, which later promotions leave alone; which generations have it rightly; and the plan that exports
//! their writes afterwards. It never removes a generation.

use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::gather::new_run;
use crate::home::{Home, read_json, sync_dir, write_json};
use crate::runtime::Placement;
use crate::session::Session;
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use switchback_core::config::Config;
use switchback_core::data::ExportStats;
use switchback_core::ids::{GenerationId, RunId, StoreName};
use switchback_core::plan::{self, Plan, Procedure};
use switchback_core::release::{FORMAT, Generation, Instance};

/// The file in a generation's folder that says that it was left.
const MARK: &str = "left.json";
/// The file in an export that says that all of it is there.
pub(crate) const COMPLETE: &str = "complete.json";
/// The file in an export that says that its writes were to be carried by itself, and could not be.
pub(crate) const SETTLED: &str = "not-carried";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// On-disk format.
    format: u32,
    /// The rollback that left it; none where that is not known.
    run: Option<RunId>,
    /// UTC, milliseconds since 1970; later than any generation that was there, whatever the clock said.
    at_ms: i64,
}

/// A generation with those that its data was made from; without the record of one that is gone.
pub(crate) type Line = BTreeMap<GenerationId, Option<Generation>>;

fn path(home: &Home, id: GenerationId) -> PathBuf {
    home.state().join("generations").join(id.to_string()).join(MARK)
}

/// The mark of a generation. One that cannot be read is a mark all the same.
fn mark_of(home: &Home, id: GenerationId) -> Option<Mark> {
    let path = path(home, id);
    let unknown = Mark { format: FORMAT, run: None, at_ms: i64::MAX };
    path.exists().then(|| read_json(&path).unwrap_or(unknown))
}

/// Whether a generation was left and production, which is `current`, has all of its writes since: it returned to it, or it was
/// made from it.
pub(crate) fn is_back(home: &Home, id: GenerationId, current: GenerationId, line: &Line) -> bool {
    mark_of(home, id).is_some_and(|mark| !is_away(&mark, id, current, line))
}

/// The rollback that left a generation last, where that is known.
pub(crate) fn left_by(home: &Home, id: GenerationId) -> Option<RunId> {
    mark_of(home, id)?.run
}

/// What the data of a generation was made from, itself included; also generations that it has stores or services of.
pub(crate) fn line(home: &Home, of: GenerationId) -> Line {
    let (mut found, mut open) = (Line::new(), vec![of]);
    while let Some(id) = open.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let generation = home.generation(id).ok();
        if let Some(generation) = &generation {
            open.extend(generation.previous);
            open.extend(generation.instance.shared.generations());
        }
        found.insert(id, generation);
    }
    found
}

/// Whether a generation that is marked has writes that production, which is `current`, has not.
fn is_away(mark: &Mark, id: GenerationId, current: GenerationId, line: &Line) -> bool {
    // Whatever was made from all of it since has its writes.
    let since = |later: &Generation| {
        later.previous == Some(id) && later.instance.shared.is_empty() && later.created_at_ms > mark.at_ms
    };
    id != current && !line.values().flatten().any(since)
}

/// Generations that were left, and whose later writes are not in production.
pub fn left(home: &Home) -> Result<BTreeSet<GenerationId>, EngineError> {
    let Some(pointer) = home.pointer()? else { return Ok(BTreeSet::new()) };
    let (mut ids, mut shared) = (Vec::new(), BTreeSet::new());
    for id in home.generation_ids()? {
        // Single services went back to a generation before: what was written to the data that they left belongs to it.
        shared.extend(home.generation(id)?.instance.shared.generations());
        ids.push(id);
    }
    let line = line(home, pointer.current);
    let is_left = |id: &GenerationId| match mark_of(home, *id) {
        Some(mark) => is_away(&mark, *id, pointer.current, &line),
        // An earlier program left it, or a promotion that could not be undone.
        None => *id > pointer.current || shared.contains(id),
    };
    Ok(ids.into_iter().filter(is_left).collect())
}

/// What the export of a generation holds, if it has one that is complete.
pub fn exported(
    home: &Home,
    id: GenerationId,
) -> Result<Option<BTreeMap<StoreName, ExportStats>>, EngineError> {
    let complete = home.export_dir(id).join(COMPLETE);
    if !complete.exists() {
        return Ok(None);
    }
    read_json(&complete).map(Some)
}

/// Generations that were left and whose later writes are not exported: an export that is damaged proves nothing.
pub fn unexported(home: &Home) -> Result<Vec<GenerationId>, EngineError> {
    let is_exported = |id: &GenerationId| matches!(exported(home, *id), Ok(Some(_)));
    Ok(left(home)?.into_iter().filter(|id| !is_exported(id)).collect())
}

/// The generations that production leaves where it goes from one to another: that one, and those in between that the other was
/// not made from. Newest first.
fn leaves(home: &Home, from: GenerationId, to: GenerationId) -> Vec<GenerationId> {
    let before = |id: GenerationId| home.generation(id).ok()?.previous.filter(|p| *p < id);
    let stays: BTreeSet<GenerationId> = std::iter::successors(Some(to), |id| before(*id)).collect();
    let way = std::iter::successors(Some(from), |id| before(*id));
    let there = |id: &GenerationId| *id == from || home.generation(*id).is_ok();
    way.enumerate()
        .take_while(|(at, id)| *at == 0 || !stays.contains(id))
        .map(|(_, id)| id)
        .filter(there)
        .collect()
}

/// What goes with a rollback, for the question before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Whether the later writes of the generation that runs can be exported.
    pub exported: bool,
    /// Generations in between, whose later writes leave production as well and are not exported by it; oldest first.
    pub between: Vec<GenerationId>,
}

/// What goes with a rollback from one generation to another.
pub fn leaving(home: &Home, config: &Config, from: GenerationId, to: GenerationId) -> Leaving {
    let exported = || -> Result<bool, EngineError> {
        let instance = home.generation(from)?.instance;
        let release = home.release(&instance.release)?;
        let at = Placement { home, config, instance: &instance, release: &release };
        let world = World::open(config)?;
        world.data.has_base(&at)
    };
    let adopted = || home.generation(from).is_ok_and(|g| g.adopted);
    let mut between: Vec<GenerationId> = leaves(home, from, to).into_iter().skip(1).collect();
    between.reverse();
    Leaving { exported: exported().unwrap_or_else(|_| !adopted()), between }
}

/// Records which generations are left when a run moves the pointer, before it does. The export of an earlier time proves nothing
/// for one that is left again.
pub(crate) fn mark(home: &Home, run: &Plan, from: GenerationId, to: GenerationId) -> Result<(), EngineError> {
    let known = home.generation_ids()?;
    let made = known.iter().filter_map(|id| Some(home.generation(*id).ok()?.created_at_ms));
    let at_ms = made.chain([run.made_at_ms]).max().unwrap_or_default().saturating_add(1);
    let back = matches!(run.procedure, Procedure::Rollback | Procedure::ServiceRollback);
    let leaves = if back { leaves(home, from, to) } else { Vec::new() };
    let line = line(home, from);
    for id in known.into_iter().filter(|id| *id != to) {
        let found = mark_of(home, id);
        if !leaves.contains(&id) {
            // What an earlier program left is told by its number alone, which the pointer is about to pass.
            if id > from && found.is_none() {
                write(home, id, &Mark { format: FORMAT, run: None, at_ms })?;
            }
            continue;
        }
        let done = found.as_ref().is_some_and(|m| m.run.as_ref() == Some(&run.run));
        // Of one that was left before, nothing is written since.
        if done || found.is_some_and(|m| is_away(&m, id, from, &line)) {
            continue;
        }
        withdraw(home, id, &[COMPLETE, SETTLED])?;
        write(home, id, &Mark { format: FORMAT, run: Some(run.run.clone()), at_ms })?;
    }
    Ok(())
}

/// Takes back what a run recorded: production did not leave them.
pub(crate) fn unmark(home: &Home, run: &RunId) -> Result<(), EngineError> {
    for id in home.generation_ids()? {
        if left_by(home, id).as_ref() == Some(run) {
            give_up(home, id)?;
        }
    }
    Ok(())
}

/// Forgets that a generation has writes which production has not.
pub fn give_up(home: &Home, id: GenerationId) -> Result<(), EngineError> {
    let path = path(home, id);
    match fs::remove_file(&path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io("remove", &path)(e)),
    }
}

/// On a full disk, what was kept aside is for this: production returns.
fn write(home: &Home, id: GenerationId, mark: &Mark) -> Result<(), EngineError> {
    let path = path(home, id);
    write_json(&path, mark).or_else(|e| if home.release_reserve() { write_json(&path, mark) } else { Err(e) })
}

/// Removes marks from an export, durably: what they say does not hold any more.
pub(crate) fn withdraw(home: &Home, id: GenerationId, marks: &[&str]) -> Result<(), EngineError> {
    let dir = home.export_dir(id);
    let mut removed = false;
    for path in marks.iter().map(|name| dir.join(name)) {
        match fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(io("remove", &path)(e)),
        }
    }
    if removed { sync_dir(&dir) } else { Ok(()) }
}

impl Session<'_> {
    /// Plans to export what was written to a generation that was left: the one named, or the oldest that is not exported.
    pub fn plan_export(&self, config: &Config, wanted: Option<GenerationId>) -> Result<Plan, EngineError> {
        let home = self.home;
        let Some(pointer) = home.pointer()? else {
            return Err(EngineError::refused(
                "the stack has no generation yet",
                "`switchback up` makes the first",
            ));
        };
        let Some(id) = wanted.or(unexported(home)?.first().copied()) else {
            return Err(EngineError::refused(
                "there are no later writes that are not exported",
                "`switchback export GENERATION` exports those of one that was left once more",
            ));
        };
        let generation = home.generation(id)?;
        if !left(home)?.contains(&id) {
            return Err(EngineError::refused(
                format!("generation {id} was not left: what was written to it is in production"),
                "`switchback status` lists generations whose later writes are not exported",
            ));
        }
        let release = home.release(&generation.instance.release)?;
        let at = Placement { home, config, instance: &generation.instance, release: &release };
        if !World::open(config)?.data.has_base(&at)? {
            return Err(EngineError::refused(
                format!("generation {id} has no clone to recognise later writes by"),
                format!(
                    "its data is kept as it is: `switchback rollback --to {id}` returns to it, `switchback gc --lose-writes-of {id}` gives it up"
                ),
            ));
        }
        let production = home.generation(pointer.current)?.instance;
        let beside: Vec<Instance> = parted(home, id)?.into_iter().collect();
        let (stack, budget) = (config.stack.clone(), config.rollback.budget.as_millis());
        Ok(plan::export((new_run(), stack, now_ms()), budget, &production, &generation.instance, &beside))
    }
}

/// The generation that goes on with some of the stores of one that was left, where single services went back.
fn parted(home: &Home, id: GenerationId) -> Result<Option<Instance>, EngineError> {
    let by = left_by(home, id);
    for other in home.generation_ids()? {
        let other = home.generation(other)?;
        let made_then = by.is_none() || by.as_ref() == Some(&other.created_by);
        if made_then && other.instance.shared.generations().contains(&id) {
            return Ok(Some(other.instance));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_core::ids::{Digest, StackName};
    use switchback_core::release::Pointer;

    struct Stack {
        _dir: tempfile::TempDir,
        home: Home,
        now_ms: i64,
    }

    impl Stack {
        /// At generation 1, which was adopted.
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let home = Home::future(dir.path()).expect("opens");
            home.create_state().expect("creates");
            let mut stack = Self { _dir: dir, home, now_ms: 0 };
            stack.make(1, None);
            stack.point(1);
            stack
        }

        fn make(&mut self, id: u32, previous: Option<u32>) {
            self.now_ms += 10;
            let instance = Instance {
                environment: "production".into(),
                generation: GenerationId(id),
                release: Digest::of(b"r"),
                versions: BTreeMap::new(),
                dir: format!("generations/{id}"),
                stores: BTreeMap::new(),
                ports: BTreeMap::new(),
                project: None,
                shared: Default::default(),
                closed: false,
            };
            let generation = Generation {
                format: FORMAT,
                instance,
                created_by: format!("run {id}").into(),
                created_at_ms: self.now_ms,
                previous: previous.map(GenerationId),
                adopted: id == 1,
            };
            fs::create_dir_all(self.home.state().join(format!("generations/{id}"))).expect("creates");
            self.home.save_generation(&generation).expect("saves");
        }

        fn point(&self, id: u32) {
            let previous = self.home.generation(GenerationId(id)).expect("there").previous;
            let pointer = Pointer { format: FORMAT, current: GenerationId(id), previous };
            self.home.set_pointer(Some(&pointer)).expect("points");
        }

        fn now(&self) -> GenerationId {
            self.home.pointer().expect("reads").expect("there").current
        }

        fn plan(&mut self, procedure: Procedure) -> Plan {
            self.now_ms += 10;
            Plan {
                format: FORMAT,
                run: format!("at {}", self.now_ms).into(),
                procedure,
                stack: StackName::new("s").expect("valid"),
                made_at_ms: self.now_ms,
                from: BTreeMap::new(),
                to: BTreeMap::new(),
                from_generation: None,
                to_generation: None,
                reason: None,
                budget_ms: 1,
                instances: BTreeMap::new(),
                steps: Vec::new(),
            }
        }

        fn promote(&mut self, id: u32) {
            let (from, plan) = (self.now(), self.plan(Procedure::Promote));
            self.make(id, Some(from.0));
            mark(&self.home, &plan, from, GenerationId(id)).expect("marks");
            self.point(id);
        }

        /// The run that did it.
        fn rollback(&mut self, to: u32) -> RunId {
            let (from, plan) = (self.now(), self.plan(Procedure::Rollback));
            mark(&self.home, &plan, from, GenerationId(to)).expect("marks");
            // A step may be done twice.
            mark(&self.home, &plan, from, GenerationId(to)).expect("marks");
            self.point(to);
            plan.run
        }

        fn export(&self, id: u32) {
            let dir = self.home.export_dir(GenerationId(id));
            fs::create_dir_all(&dir).expect("creates");
            fs::write(dir.join(COMPLETE), "{}").expect("writes");
        }

        fn unexported(&self) -> Vec<u32> {
            unexported(&self.home).expect("looks").into_iter().map(|id| id.0).collect()
        }
    }

    #[test]
    fn what_a_rollback_left_stays_listed_whatever_is_promoted_later() {
        let mut stack = Stack::new();
        stack.promote(2);
        assert!(stack.unexported().is_empty(), "what was promoted from is in production");
        stack.rollback(1);
        assert_eq!(stack.unexported(), [2]);
        stack.promote(3);
        stack.promote(4);
        assert_eq!(stack.unexported(), [2]);
        stack.export(2);
        assert!(stack.unexported().is_empty());
        fs::write(stack.home.export_dir(GenerationId(2)).join(COMPLETE), "{").expect("damages");
        assert_eq!(stack.unexported(), [2], "an export that is damaged proves nothing");
    }

    #[test]
    fn generations_that_a_rollback_skips_are_listed_as_well_and_not_if_it_is_undone() {
        let mut stack = Stack::new();
        stack.promote(2);
        stack.promote(3);
        let run = stack.rollback(1);
        assert_eq!(stack.unexported(), [2, 3]);
        unmark(&stack.home, &run).expect("takes back");
        stack.point(3);
        assert!(stack.unexported().is_empty(), "generation 3 was made from generation 2");
        stack.rollback(1);
        stack.export(3);
        assert_eq!(stack.unexported(), [2]);
        stack.promote(4);
        assert_eq!(stack.unexported(), [2]);
    }

    #[test]
    fn a_generation_that_is_left_again_needs_another_export() {
        let mut stack = Stack::new();
        stack.promote(2);
        let first = stack.rollback(1);
        stack.export(2);
        let settled = stack.home.export_dir(GenerationId(2)).join(SETTLED);
        fs::write(&settled, "").expect("writes");
        assert!(stack.unexported().is_empty());
        stack.rollback(2);
        assert_eq!(stack.unexported(), [1], "what was written to it meanwhile is not in generation 2");
        let second = stack.rollback(1);
        assert_ne!(first, second);
        assert_eq!(left_by(&stack.home, GenerationId(2)), Some(second));
        assert_eq!(stack.unexported(), [2]);
        assert!(!settled.exists());
        // What is made from it has everything.
        stack.promote(3);
        assert_eq!(stack.unexported(), [2]);
    }

    #[test]
    fn what_was_left_before_is_not_left_anew_by_a_rollback_that_skips_it() {
        let mut stack = Stack::new();
        stack.promote(2);
        stack.promote(3);
        stack.rollback(2);
        stack.rollback(3);
        stack.export(2);
        stack.rollback(1);
        assert_eq!(stack.unexported(), [3], "nothing was written to generation 2 since");
    }

    #[test]
    fn the_generation_in_between_is_on_the_way_and_none_beside_it() {
        let mut stack = Stack::new();
        stack.promote(2);
        stack.rollback(1);
        stack.promote(3);
        stack.promote(4);
        let ids = |from: u32, to: u32| -> Vec<u32> {
            leaves(&stack.home, GenerationId(from), GenerationId(to)).into_iter().map(|id| id.0).collect()
        };
        assert_eq!(ids(4, 1), [4, 3]);
        assert_eq!(ids(4, 3), [4]);
        assert_eq!(ids(4, 2), [4, 3]);
        assert_eq!(ids(1, 4), [1]);
    }

    #[test]
    fn what_an_earlier_program_left_is_marked_before_the_pointer_passes_it() {
        let mut stack = Stack::new();
        stack.promote(2);
        stack.point(1);
        assert_eq!(stack.unexported(), [2], "told by its number alone");
        stack.promote(3);
        assert_eq!(stack.unexported(), [2]);
        assert_eq!(left_by(&stack.home, GenerationId(2)), None);
    }
}
