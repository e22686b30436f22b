//! The documentation held against the program: every command, option, key and exit code must be in it, its examples are carried
//! out, and who follows it must get there.

mod examples;
mod followed;
mod reference;

pub use examples::{Block, Example, blocks, carry_out, examples, normal};
pub use reference::{COMMANDS, Command, EXITS, KEYS, METRICS, Reference, WORKFLOWS};

use super::lab::Lab;
use super::proof::{Proof, Stop};
use crate::error::{EngineError, io};
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::criteria::{Judgement, Phase};

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
        lab.rest(Phase::Documentation, &Judgement::NotRun { why: why.clone() });
        return Err(EngineError::refused(why, "docs/upgrade-infrastructure of the source").into());
    };
    let pages = read(&root)?;
    for (id, places) in TOPICS {
        let proof = topic(&root, &pages, id, places, &lab.request.reference);
        lab.add(proof);
    }
    let page = |name: &str| text_of(&root, &pages, name);
    let proof = lab.request.reference.complete(&page);
    lab.add(proof);
    followed::prove(lab, &root, &pages)
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

fn text_of(root: &Path, pages: &[Page], name: &str) -> String {
    pages.iter().find(|p| p.path == root.join(name)).map_or_else(String::new, |p| p.text.clone())
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
            let known = command == "help" || reference.commands.iter().any(|c| c.name == command);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_only_in_code() {
        let text = "`switchback -C /srv promote` and `switchback verify --list`, the switchback idea\n```sh\n$ switchback frobnicate x\nswitchback --version\n```\n";
        assert_eq!(commands(text), ["promote", "verify", "frobnicate"]);
        assert_eq!(links("[a](b.md#x) [c](https://d) [e](#f)"), ["b.md"]);
    }
    /// This documentation passes each topic; without the pages of one, exactly that one fails.
    #[test]
    fn a_topic_whose_pages_are_gone_fails_its_row() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upgrade-infrastructure");
        let pages = read(&root).expect("reads");
        let mut names: Vec<String> = pages.iter().flat_map(|p| commands(&p.text)).collect();
        names.sort();
        let command = |name| Command { name, ..Command::default() };
        let reference =
            Reference { commands: names.into_iter().map(command).collect(), ..Reference::default() };
        for (gone, places) in TOPICS {
            let left: Vec<Page> = pages
                .iter()
                .filter(|p| !places.iter().any(|place| p.path.starts_with(root.join(place))))
                .map(|p| Page { path: p.path.clone(), text: p.text.clone() })
                .collect();
            for (id, places) in TOPICS {
                let all = topic(&root, &pages, id, places, &reference);
                assert_eq!(all.verdict().word(), "pass", "{id}");
                let word = topic(&root, &left, id, places, &reference).verdict().word();
                assert_eq!(word, if id == gone { "fail" } else { "pass" }, "{id} without {gone}");
            }
        }
        let short = [Page { path: root.join("setup/README.md"), text: "See `switchback up`.".to_owned() }];
        let (id, places) = TOPICS[0];
        assert_eq!(topic(&root, &short, id, places, &reference).verdict().word(), "fail", "it says nothing");
        let long = |more: &str| {
            let text = format!("{} {more}", "word ".repeat(WORDS));
            let page = [Page { path: root.join("setup/README.md"), text }];
            topic(&root, &page, id, places, &reference).verdict().word()
        };
        assert_eq!(long(""), "pass");
        assert_eq!(long("`switchback frobnicate`"), "fail", "there is no such command");
        assert_eq!(long("[there](nowhere.md)"), "fail", "the link leads nowhere");
    }
}
