//! The runbooks as a person follows them: what is to be seen, and the commands as the page has them.

use super::docker::{program, ran};
use super::{PROGRAM, Ran};
use std::path::Path;
use std::process::Stdio;
use switchback_engine::verify::docs::normal;

const PAGE: &str = "docs/upgrade-infrastructure/rollback/runbooks.md";
/// No path is like it.
const NOWHERE: &str = "\0";
/// What asks before it does something. There is nobody to answer.
const ASKS: [&str; 4] = ["switchback rollback", "switchback gc", "switchback up", "switchback resume"];

/// A section of the page.
pub struct Runbook {
    title: String,
    seen: Vec<String>,
    /// Its commands that were not typed yet.
    left: Vec<String>,
}

/// The sections that have commands.
pub fn titles() -> Vec<String> {
    sections().into_iter().filter(|(_, text)| !commands(text).is_empty()).map(|(title, _)| title).collect()
}

fn sections() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")) {
            found.push((title.to_owned(), String::new()));
        } else if let Some((_, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

/// Indented lines; a loop is one command.
fn commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().filter_map(|l| l.strip_prefix("    ")) {
        if open {
            let last = found.last_mut().expect("the beginning of the loop");
            *last += &format!("\n{line}");
        } else {
            found.push(line.split("  # ").next().unwrap_or(line).trim_end().to_owned());
        }
        open = (open || line.starts_with("for ")) && line != "done";
    }
    found
}

impl Runbook {
    /// The section of this title.
    #[track_caller]
    pub fn of(title: &str) -> Self {
        let all = sections();
        let (_, text) =
            all.iter().find(|(t, _)| t == title).unwrap_or_else(|| panic!("no section {title:?}"));
        let seen = text.split("*Seen*:").nth(1).and_then(|t| t.split("\n\n").next()).unwrap_or_default();
        let seen = seen.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Self { title: title.to_owned(), seen, left: commands(text) }
    }

    /// One of the texts that the page says are to be seen was said; `with` has the names of this stack for those of the page.
    #[track_caller]
    pub fn is_seen(&self, said: &str, with: &[(&str, &str)]) {
        let said = normal(said, NOWHERE);
        let found = self.seen.iter().any(|text| {
            // The id of a run is a number here.
            let text = text.replace("01J…", "01J");
            let text = with.iter().fold(text, |text, (from, to)| text.replace(from, to));
            let mut rest = said.as_str();
            text.split('…').map(|part| normal(part, NOWHERE)).all(|part| match rest.find(&part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        });
        assert!(found, "{}: none of {:?} is in: {said}", self.title, self.seen);
    }

    /// Types a command of the page in a folder, with the names of this stack for those of the page.
    #[track_caller]
    pub fn types(&mut self, root: &Path, command: &str, with: &[(&str, &str)]) -> Ran {
        self.takes(command);
        let mut line = with.iter().fold(command.to_owned(), |text, (from, to)| text.replace(from, to));
        if ASKS.iter().any(|a| command.starts_with(a)) && !command.contains("--dry-run") {
            line += " --yes";
        }
        let bin = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, bin.path().join("switchback")).expect("links");
        let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = program("sh");
        shell.args(["-c", &line]).current_dir(root).stdin(Stdio::null());
        shell.env("PATH", path).env("NO_COLOR", "1").env_remove("SWITCHBACK_FAULT");
        ran(&shell.output().expect("runs"))
    }

    /// A command of the page whose work the test does in another way.
    #[track_caller]
    pub fn takes(&mut self, command: &str) {
        let at = self.left.iter().position(|c| c == command || c.lines().next() == Some(command));
        let at = at.unwrap_or_else(|| panic!("{}: {command:?} is not among {:?}", self.title, self.left));
        self.left.remove(at);
    }

    /// The whole of a command that begins like this.
    #[track_caller]
    pub fn command(&self, begins: &str) -> String {
        let found = self.left.iter().find(|c| c.starts_with(begins)).cloned();
        found.unwrap_or_else(|| panic!("{}: nothing begins with {begins:?}", self.title))
    }

    /// Nothing of the section was left out.
    #[track_caller]
    pub fn ends(self) {
        assert!(self.left.is_empty(), "{}: not tried: {:?}", self.title, self.left);
    }
}
