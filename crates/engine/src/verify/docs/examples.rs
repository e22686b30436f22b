//! The examples of the documentation: found, carried out on a real stack, and held against what the page shows.
//!
//! Owns the form of examples: fences marked `console`, a line with `$ ` for each command, what it prints below (`…` for what is left
//! out), and `# exit N` where the exit code is not 0.

use crate::error::EngineError;
use crate::exec::{self, End, Exec, Leftovers};
use std::path::Path;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::workflow::Workflow;

/// The longest that one command of an example may take.
const LIMIT: Duration = Duration::from_secs(300);

/// A fenced block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is written after the fence.
    pub info: String,
    /// The line of the fence, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// The fenced blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            open = !open;
            if open {
                found.push(Block { info: info.trim().to_owned(), line: index + 1, text: String::new() });
            }
        } else if open && let Some(block) = found.last_mut() {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    found
}

/// One command of an example, with the output shown and the exit code expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its line, from 1.
    pub line: usize,
    /// What a person types.
    pub command: String,
    /// How it ends.
    pub exit: i32,
    /// What it prints, as far as it is shown.
    pub shown: Vec<String>,
}

/// The commands in the `console` blocks of a page, in order.
pub fn examples(text: &str) -> Vec<Example> {
    let mut all = Vec::new();
    for block in blocks(text).iter().filter(|b| b.info == "console") {
        let mut found: Vec<Example> = Vec::new();
        for (index, line) in block.text.lines().enumerate() {
            if let Some(command) = line.strip_prefix("$ ") {
                let line = block.line + index + 1;
                found.push(Example { line, command: command.to_owned(), exit: 0, shown: Vec::new() });
            } else if let Some(last) = found.last_mut() {
                match line.strip_prefix("# exit ").and_then(|code| code.trim().parse().ok()) {
                    Some(code) => last.exit = code,
                    None if line.trim().is_empty() || line.trim() == "…" => {}
                    None => last.shown.push(line.to_owned()),
                }
            }
        }
        all.extend(found);
    }
    all
}

/// Output without what differs from run to run: numbers, times, sizes, ids, places.
pub fn normal(text: &str, folder: &str) -> String {
    let text = text.replace(folder, "/srv/assistant");
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let number =
            word.trim_matches(|c: char| !c.is_alphanumeric()).starts_with(|c: char| c.is_ascii_digit());
        let unit = ["ms", "s", "min", "B", "KiB", "MiB", "GiB"];
        match words.last() {
            Some(&"N") if number || unit.contains(&word.trim_end_matches(|c: char| !c.is_alphanumeric())) => {
            }
            _ => words.push(if number { "N" } else { word }),
        }
    }
    words.join(" ")
}

/// Carries out the examples of a page in a stack's folder, with a program named `switchback` in `bin`, and stops at the first that
/// does something else than the page says: what, and where. What follows it would fail for its sake.
pub fn carry_out(
    list: &[Example],
    root: &Path,
    bin: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<(usize, String)>, EngineError> {
    let folder = root.to_string_lossy().into_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    for example in list {
        if cancelled() {
            return Ok(None);
        }
        let line = format!("({}) 2>&1", example.command);
        let ran = exec::run(&Exec {
            env: vec![("PATH".into(), path.clone().into()), ("NO_COLOR".into(), "1".into())],
            cwd: Some(root.to_owned()),
            cancel: Some(cancelled),
            // What it starts is meant to stay.
            leftovers: Leftovers::Keep,
            ..Exec::new(["sh", "-c", &line], LIMIT)
        })
        .map_err(|e| EngineError::Internal { detail: format!("an example cannot be carried out: {e}") })?;
        if let Some(wrong) = differs(example, ran.end, &ran.how(), &ran.stdout_tail, &folder) {
            return Ok(Some((example.line, wrong)));
        }
    }
    Ok(None)
}

/// What a command did other than its example says.
fn differs(example: &Example, end: End, how: &str, said: &str, folder: &str) -> Option<String> {
    let command = &example.command;
    if end != End::Code(example.exit) {
        let wanted = example.exit;
        return Some(format!("`{command}` ended with {how} instead of {wanted}: {}", last(said)));
    }
    let lines: Vec<String> = said.lines().map(|l| normal(l, folder)).collect();
    let mut rest = lines.iter();
    let missing = example.shown.iter().find(|shown| {
        let wanted = normal(shown, folder);
        !rest.any(|l| l.contains(&wanted))
    });
    missing
        .map(|shown| format!("`{command}` did not print (in this order): {shown}; it said: {}", last(said)))
}

/// The end of an output, in a line.
fn last(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines.iter().rev().take(6).rev().copied().collect::<Vec<_>>().join(" / ")
}

/// What is wrong with the configurations and workflows of a page, and how many there are. The program's own readers decide.
pub fn files(page: &str, text: &str) -> (usize, Vec<(usize, String)>) {
    let (mut seen, mut wrong) = (0, Vec::new());
    for block in blocks(text) {
        let words: Vec<&str> = block.info.split_whitespace().collect();
        let error = match words.as_slice() {
            ["yaml", "switchback.yaml"] | ["yaml", "compose", "switchback.yaml"] => {
                Config::parse(&block.text, page).err().map(|e| e.to_string())
            }
            ["yaml", "workflow", ..] => Workflow::parse(page, &block.text).err().map(|e| e.to_string()),
            _ => continue,
        };
        seen += 1;
        wrong.extend(error.map(|e| (block.line, e)));
    }
    (seen, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "text\n```console\n$ true\n$ echo took 17 ms; false\ntook 3 ms\n…\n# exit 1\n```\n```sh\n$ never\n```\n";

    #[test]
    fn examples_are_found_with_what_they_show_and_how_they_end() {
        let found = examples(PAGE);
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].line, found[1].exit), (4, 1));
        assert_eq!(found[1].shown, ["took 3 ms"]);
    }

    #[test]
    fn an_example_that_does_something_else_is_told() {
        let dir = tempfile::tempdir().expect("tempdir");
        let go = |text: &str| {
            carry_out(&examples(text), dir.path(), dir.path(), &|| false).expect("runs").map(|(line, _)| line)
        };
        assert_eq!(go(PAGE), None);
        assert_eq!(go(&PAGE.replace("# exit 1", "# exit 3")), Some(4));
        assert_eq!(go(&PAGE.replace("took 3 ms", "took no time")), Some(4));
    }

    #[test]
    fn configurations_and_workflows_are_read_by_their_readers() {
        let good = "```yaml workflow\nsteps: [{ wait: 1ms }]\n```\n";
        assert_eq!(files("p", good), (1, Vec::new()));
        let (seen, wrong) = files("p", &format!("{good}```yaml switchback.yaml\nstack: [1]\n```\n"));
        assert_eq!((seen, wrong.len(), wrong[0].0), (2, 1, 4));
    }
}
