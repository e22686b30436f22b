//! The documentation held against the program: every command, option, key and exit code must be in it.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use crate::error::{EngineError, io};
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::check::Verdict;
use switchback_core::criteria::Phase;

/// What the program offers, and the documentation must name.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// Commands with their own options (`--detach`).
    pub commands: Vec<(String, Vec<String>)>,
    /// Options of every command.
    pub global: Vec<String>,
    /// Keys of `switchback.yaml`.
    pub keys: Vec<String>,
    /// Exit codes.
    pub exits: Vec<u8>,
}

/// A text that says anything has at least so many words.
const WORDS: usize = 100;

/// Topics: evidence, and where the text is expected (a file, or a folder of files).
const TOPICS: [(&str, &[&str]); 5] = [
    ("docs.setup", &["setup.md", "setup"]),
    ("docs.testing", &["testing.md", "testing"]),
    ("docs.migration", &["database.md", "database"]),
    ("docs.rollback", &["rollback.md", "rollback"]),
    ("docs.monitoring", &["monitoring.md", "monitoring"]),
];

struct Page {
    path: PathBuf,
    text: String,
}

/// Proves the phase.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let Some(root) = lab.request.docs.clone().filter(|d| d.is_dir()) else {
        let why = "the documentation was not found; name its folder with --docs".to_owned();
        lab.rest(Phase::Documentation, &Verdict::NotRun { why: why.clone() });
        return Err(EngineError::refused(why, "docs/upgrade-infrastructure of the source").into());
    };
    let pages = read(&root)?;
    for (id, places) in TOPICS {
        let proof = topic(&root, &pages, id, places, &lab.request.reference);
        lab.add(proof);
    }
    let proof = complete(&root, &pages, &lab.request.reference);
    lab.add(proof);
    Ok(())
}

fn read(root: &Path) -> Result<Vec<Page>, EngineError> {
    let mut pages = Vec::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten() {
        if entry.path().extension().is_some_and(|e| e == "md") {
            let text = fs::read_to_string(entry.path()).map_err(io("read", entry.path()))?;
            pages.push(Page { path: entry.path().to_owned(), text });
        }
    }
    Ok(pages)
}

fn topic(root: &Path, pages: &[Page], id: &str, places: &[&str], reference: &Reference) -> Proof {
    let mut proof = Proof::new(
        id,
        format!(
            "{} exists, says something, its links lead somewhere and its commands exist",
            places.join(" or ")
        ),
    );
    let of_topic: Vec<&Page> =
        pages.iter().filter(|p| places.iter().any(|place| p.path.starts_with(root.join(place)))).collect();
    let words: usize = of_topic.iter().map(|p| p.text.split_whitespace().count()).sum();
    proof.measure("pages", of_topic.len()).measure("words", words);
    proof.demand(!of_topic.is_empty(), places.join(" or "), "there is no such page");
    if !of_topic.is_empty() {
        proof.demand(words >= WORDS, places.join(" or "), format!("only {words} words"));
    }
    for page in of_topic {
        let at = page.path.strip_prefix(root).unwrap_or(&page.path).to_string_lossy().into_owned();
        for link in links(&page.text) {
            let target = page.path.parent().unwrap_or(root).join(&link);
            proof.demand(target.exists(), &at, format!("the link to {link} leads nowhere"));
        }
        for command in commands(&page.text) {
            let known = command == "help" || reference.commands.iter().any(|(c, _)| *c == command);
            proof.demand(known, &at, format!("there is no command `switchback {command}`"));
        }
    }
    proof
}

/// Relative links of a page, without their fragment.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|l| !l.contains("://") && !l.starts_with('#') && !l.starts_with("mailto:"))
        .filter_map(|l| l.split(['#', ' ']).next())
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Commands that a page names in code: the word after `switchback` and its global options.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let spans: Vec<&str> =
            if fenced { vec![line.trim_start()] } else { line.split('`').skip(1).step_by(2).collect() };
        for span in spans {
            let span = span.trim_start_matches("$ ");
            let Some(rest) = span.strip_prefix("switchback ") else { continue };
            let mut words = rest.split_whitespace();
            while let Some(word) = words.next() {
                if word == "-C" || word == "--directory" || word == "--wait" {
                    words.next();
                } else if !word.starts_with('-') {
                    if word.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                        found.push(word.to_owned());
                    }
                    break;
                }
            }
        }
    }
    found
}

fn complete(root: &Path, pages: &[Page], reference: &Reference) -> Proof {
    let mut proof = Proof::new(
        "docs.complete",
        "reference/commands.md names every command and option, reference/configuration.md every key, reference/exit-codes.md every exit code",
    );
    let page = |name: &str| {
        pages.iter().find(|p| p.path == root.join("reference").join(name)).map_or("", |p| p.text.as_str())
    };
    let (commands, keys, exits) = (page("commands.md"), page("configuration.md"), page("exit-codes.md"));
    let mut missing: Vec<String> = Vec::new();
    let mut asked = 0;
    let mut look = |there: bool, what: String| {
        asked += 1;
        if !there {
            missing.push(what);
        }
    };
    for (name, options) in &reference.commands {
        let called = format!("switchback {name}");
        look(mentions(commands, &called) || mentions(commands, &format!("`{name}`")), called.clone());
        for option in options {
            look(mentions(commands, option), format!("{called} {option}"));
        }
    }
    for option in &reference.global {
        look(mentions(commands, option), option.clone());
    }
    for key in &reference.keys {
        let leaf = key.rsplit('.').next().unwrap_or(key);
        look(mentions(keys, leaf), format!("the key {key}"));
    }
    for code in &reference.exits {
        look(mentions(exits, &code.to_string()), format!("the exit code {code}"));
    }
    proof
        .measure("commands", reference.commands.len())
        .measure("keys", reference.keys.len())
        .measure("exit codes", reference.exits.len())
        .measure("documented", format!("{} of {asked}", asked - missing.len()));
    proof.demand(!reference.commands.is_empty(), "program", "it names no command");
    for what in missing {
        proof.demand(false, "reference", format!("{what} is not documented"));
    }
    proof
}

/// Whether a text names a word as a whole: not as part of a longer one.
fn mentions(text: &str, word: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|t| t.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|t| t.chars().next());
        !before.is_some_and(|c| inner(c) && !word.starts_with('-')) && !after.is_some_and(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole_and_commands_only_in_code() {
        assert!(mentions("use `--to` here", "--to") && !mentions("use `--tool` here", "--to"));
        assert!(mentions("| 3 | refused |", "3") && !mentions("| 13 | refused |", "3"));
        let text = "`switchback -C /srv promote` and `switchback verify --list`, the switchback idea\n```sh\n$ switchback frobnicate x\nswitchback --version\n```\n";
        assert_eq!(commands(text), ["promote", "verify", "frobnicate"]);
        assert_eq!(links("[a](b.md#x) [c](https://d) [e](#f)"), ["b.md"]);
    }

    #[test]
    fn what_is_missing_is_named_and_an_empty_program_proves_nothing() {
        let root = PathBuf::from("/d");
        let page =
            |name: &str, text: &str| Page { path: root.join("reference").join(name), text: text.to_owned() };
        let reference = Reference {
            commands: vec![("up".to_owned(), vec!["--now".to_owned()])],
            global: vec!["--json".to_owned()],
            keys: vec!["services.*.env".to_owned()],
            exits: vec![0, 8],
        };
        let mut pages =
            vec![page("commands.md", "`switchback up --now --json`"), page("configuration.md", "`env`")];
        let proof = complete(&root, &pages, &reference);
        assert_eq!(proof.measured["documented"], "4 of 6");
        assert_eq!(proof.verdict().word(), "fail");
        pages.push(page("exit-codes.md", "0 done, 8 busy"));
        assert_eq!(complete(&root, &pages, &reference).verdict(), Verdict::Pass);
        assert_eq!(complete(&root, &pages, &Reference::default()).verdict().word(), "fail");
    }
}
