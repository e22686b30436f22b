//! The documentation, tried: its examples are typed on a new stack of the example, one stack for each page.
//!
//! Owns these stacks: each lies where sandboxes do, so that what a killed run leaves is found and removed like them.

use super::super::ground::ProcessGround;
use super::super::lab::Lab;
use super::super::proof::{Proof, Stop};
use super::super::sandbox;
use super::examples::{Example, carry_out, examples, files};
use super::{Page, TOPICS};
use crate::error::{EngineError, io};
use crate::exec::{self, Exec};
use crate::journal::Journal;
use crate::runtime::process::start::own_program;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Procedure;

/// What a person has done who has upgraded with the documentation, and gone back.
const GOALS: [&str; 6] = [
    "the stack was adopted",
    "a bad upgrade was refused",
    "a good one got its certificate",
    "it was promoted with that",
    "its trial was confirmed",
    "it was rolled back",
];

/// A help text comes at once.
const HELP: Duration = Duration::from_secs(20);

/// Proves both kinds of evidence.
pub(super) fn prove(lab: &mut Lab<'_>, root: &Path, pages: &[Page]) -> Result<(), Stop> {
    let mut executed = Proof::new(
        "docs.examples-executed",
        "each example of a console, typed on a new stack, ends and prints as the page shows; each configuration and workflow is accepted; each command has its help",
    );
    let mut followed = Proof::new(
        "docs.followed",
        "a page whose commands alone, typed in order on a stack that has nothing, adopt it, refuse a bad upgrade, rehearse and promote a good one, and roll it back",
    );
    let mut commands = 0;
    let mut best: (BTreeSet<&str>, String) = Default::default();
    for page in pages {
        let name = page.path.strip_prefix(root).unwrap_or(&page.path).to_string_lossy().into_owned();
        let (seen, wrong) = files(&name, &page.text);
        for (line, why) in wrong {
            executed.demand(false, format!("{name}:{line}"), why);
        }
        if seen > 0 {
            executed.measure(format!("{name}, configurations and workflows"), seen).demand(true, "", "");
        }
        let list = examples(&page.text);
        if list.is_empty() {
            continue;
        }
        lab.say(&format!("documentation: typing the {} commands of {name}", list.len()));
        commands += list.len();
        let (wrong, reached) = tried(lab, &list)?;
        executed.measure(name.clone(), format!("{} commands", list.len())).demand(true, "", "");
        if let Some((line, why)) = wrong {
            executed.demand(false, format!("{name}:{line}"), why);
        }
        if reached.len() > best.0.len() {
            best = (reached, name);
        }
    }
    executed.measure("commands typed", commands);
    executed.demand(commands > 0, TOPICS[0].0, "no page has an example that can be typed");
    helps(lab, &mut executed)?;
    judge(&mut followed, &best.0, &best.1);
    followed.measure("page", &best.1).measure("got so far", format!("{} of {}", best.0.len(), GOALS.len()));
    lab.add(executed);
    lab.add(followed);
    Ok(())
}

/// Judges the page that leads furthest.
fn judge(proof: &mut Proof, reached: &BTreeSet<&str>, page: &str) {
    let at = if page.is_empty() { "documentation" } else { page };
    for goal in GOALS {
        let why = format!("who follows it does not get so far: {goal}");
        proof.demand(reached.contains(goal), at, why);
    }
}

/// Asks every command for its help.
fn helps(lab: &Lab<'_>, proof: &mut Proof) -> Result<(), Stop> {
    let program = own_program();
    for command in &lab.request.reference.commands {
        let words = [program.as_os_str(), command.name.as_ref(), "--help".as_ref()];
        let said = exec::run(&Exec::new(words, HELP))
            .map_err(|e| EngineError::Internal { detail: format!("the program cannot be started: {e}") })?;
        let at = format!("switchback {} --help", command.name);
        proof.demand(said.success() && said.stdout_tail.contains("Usage:"), &at, said.how());
    }
    proof.measure("helps", lab.request.reference.commands.len());
    Ok(())
}

/// What a page did other than it says and where, and the goals that were reached.
type Tried = (Option<(usize, String)>, BTreeSet<&'static str>);

/// Types the commands of a page on a new stack.
fn tried(lab: &Lab<'_>, list: &[Example]) -> Result<Tried, Stop> {
    let root = sandbox::folder(lab.production)?.join(ulid::Ulid::generate().to_string());
    let bin = root.join(".bin");
    std::fs::create_dir_all(&bin).map_err(io("make", &bin))?;
    let made = || -> Result<Tried, Stop> {
        symlink(own_program(), bin.join("switchback")).map_err(io("link in", &bin))?;
        // A trial that is looked at must not be over before.
        (lab.request.example)(&root, list.iter().any(|e| e.command.contains("--detach")))?;
        let cancelled = || lab.request.cancel.requested();
        let wrong = carry_out(list, &root, &bin, &cancelled)?;
        if cancelled() {
            return Err(Stop::Interrupted);
        }
        Ok((wrong, reached(&root)?))
    };
    let done = made();
    let removed = sandbox::remove(&ProcessGround, &root);
    let done = done?;
    removed?;
    Ok(done)
}

/// The goals that a stack's journal says were reached.
fn reached(root: &Path) -> Result<BTreeSet<&'static str>, EngineError> {
    let mut found = BTreeSet::new();
    let [adopted, refused, certified, promoted, confirmed, back] = GOALS;
    let path = crate::home::Home::open(root)?.state().join("journal.db");
    if !path.exists() {
        return Ok(found);
    }
    let Some(journal) = Journal::open_read(&path)? else { return Ok(found) };
    for run in journal.runs(usize::MAX >> 1)? {
        let (plan, state, records) = journal.load(&run)?;
        let done = state.ended == Some(Outcome::Done);
        match plan.procedure {
            Procedure::Up if done => _ = found.insert(adopted),
            Procedure::Rehearse if matches!(state.ended, Some(Outcome::Refused { .. })) => {
                found.insert(refused);
            }
            Procedure::Rehearse if done => _ = found.insert(certified),
            // One that a person let through is no example to follow.
            Procedure::Promote if done && plan.reason.is_none() => {
                found.insert(promoted);
                if records.iter().any(|r| matches!(r.event, Event::TrialConfirmed { .. })) {
                    found.insert(confirmed);
                }
            }
            Procedure::Rollback if done => _ = found.insert(back),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_stops_anywhere_on_the_way_fails_its_row() {
        let verdict = |reached: &[&str]| {
            let mut proof = Proof::new("docs.followed", "");
            judge(&mut proof, &reached.iter().copied().collect(), "rollback/README.md");
            proof.verdict().word()
        };
        assert_eq!(verdict(&GOALS), "pass");
        for (number, goal) in GOALS.iter().enumerate() {
            let without = [&GOALS[..number], &GOALS[number + 1..]].concat();
            assert_eq!(verdict(&without), "fail", "{goal}");
        }
    }
}
