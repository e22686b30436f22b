//! The reference pages held against what the program offers.
//!
//! Owns where each thing has to be named, so that a name elsewhere on the page does not count: a command has its section, an option
//! is in it, a key stands with its whole path, and an exit code and a metric have a row.

use super::super::proof::Proof;

/// A command, or a verb of one (`staging up`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// Its own options, of its verbs too (`--detach`).
    pub options: Vec<String>,
    /// Its verbs.
    pub verbs: Vec<String>,
}

/// What the program offers, and the documentation must name.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// Commands.
    pub commands: Vec<Command>,
    /// Options of every command.
    pub global: Vec<String>,
    /// Keys of `switchback.yaml`: `services.NAME.env`, `checks.api[].service`.
    pub keys: Vec<String>,
    /// Keys of workflows.
    pub workflow_keys: Vec<String>,
    /// Exit codes.
    pub exits: Vec<u8>,
    /// Metrics: name and type.
    pub metrics: Vec<(String, String)>,
}

/// Where commands and options are named.
pub const COMMANDS: &str = "reference/commands.md";
/// Where keys are.
pub const KEYS: &str = "reference/configuration.md";
/// Where keys of workflows are.
pub const WORKFLOWS: &str = "testing/workflows.md";
/// Where exit codes are.
pub const EXITS: &str = "reference/exit-codes.md";
/// Where metrics are.
pub const METRICS: &str = "monitoring/metrics.md";
/// The section on options of every command.
const COMMON: &str = "Options of every command";

impl Reference {
    /// How many things there are, and which of them `page` (the text of a page by its name) does not document.
    pub fn undocumented(&self, page: &dyn Fn(&str) -> String) -> (usize, Vec<String>) {
        let (commands, keys, workflows, exits) = (page(COMMANDS), page(KEYS), page(WORKFLOWS), page(EXITS));
        let mut missing: Vec<String> = Vec::new();
        let mut asked = 0;
        let mut look = |there: bool, what: String| {
            asked += 1;
            if !there {
                missing.push(what);
            }
        };
        for Command { name, options, verbs } in &self.commands {
            let text = section(&commands, name);
            look(text.is_some(), format!("the command `switchback {name}`"));
            let text = text.unwrap_or_default();
            for verb in verbs {
                look(
                    quoted(text, &format!("{name} {verb}")),
                    format!("the command `switchback {name} {verb}`"),
                );
            }
            for option in options {
                look(quoted(text, option), format!("the option `switchback {name} {option}`"));
            }
        }
        let common = section(&commands, COMMON).unwrap_or_default();
        for option in &self.global {
            look(quoted(common, option), format!("the option `{option}` of every command"));
        }
        for (list, text) in [(&self.keys, &keys), (&self.workflow_keys, &workflows)] {
            for key in list {
                look(text.contains(&format!("`{key}`")), format!("the key `{key}`"));
            }
        }
        for code in &self.exits {
            look(exits.contains(&format!("\n| `{code}` |")), format!("the exit code {code}"));
        }
        let metrics = page(METRICS);
        for (name, kind) in &self.metrics {
            look(metrics.contains(&format!("\n| `{name}` | {kind} |")), format!("the metric `{name}`"));
        }
        (asked, missing)
    }

    /// Proves that everything is named.
    pub(super) fn complete(&self, page: &dyn Fn(&str) -> String) -> Proof {
        let mut proof = Proof::new(
            "docs.complete",
            format!(
                "{COMMANDS} has a section for every command with its options, {KEYS} every key, {WORKFLOWS} every key of workflows, {EXITS} a row for every exit code, {METRICS} one for every metric"
            ),
        );
        let (asked, missing) = self.undocumented(page);
        proof
            .measure("commands", self.commands.len())
            .measure("keys", self.keys.len() + self.workflow_keys.len())
            .measure("exit codes", self.exits.len())
            .measure("metrics", self.metrics.len())
            .measure("documented", format!("{} of {asked}", asked - missing.len()));
        proof.demand(!self.commands.is_empty(), "program", "it names no command");
        for what in missing {
            proof.demand(false, "reference", format!("{what} is not documented"));
        }
        proof
    }
}

/// The text below a heading of the second level.
fn section<'t>(page: &'t str, title: &str) -> Option<&'t str> {
    let heading = format!("\n## {title}\n");
    let start = page.find(&heading)? + heading.len();
    let rest = page.get(start..)?;
    rest.get(..rest.find("\n## ").unwrap_or(rest.len()))
}

/// Whether a text has a word in code, followed by nothing that would make it another one.
fn quoted(text: &str, word: &str) -> bool {
    let start = format!("`{word}");
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(&start).any(|(at, _)| {
        let after = text.get(at + start.len()..).and_then(|t| t.chars().next());
        !after.is_some_and(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_a_name_elsewhere_does_not_count() {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let reference = Reference {
            commands: vec![Command { name: "up".to_owned(), options: own(&["--now"]), verbs: own(&["all"]) }],
            global: own(&["--json"]),
            keys: own(&["services.NAME.env"]),
            workflow_keys: own(&["steps[].wait"]),
            exits: vec![0, 8],
            metrics: vec![("switchback_trial".to_owned(), "gauge".to_owned())],
        };
        let page = |name: &str| -> String {
            match name {
                COMMANDS => "\n## Options of every command\n`--json`\n## up\n`--now`, `up all`\n",
                KEYS => "`services.NAME.env`",
                WORKFLOWS => "`steps[].wait`",
                METRICS => "\n| `switchback_trial` | gauge | 1 on trial |\n",
                _ => "\n| `0` | done |\n| `8` | busy |\n",
            }
            .to_owned()
        };
        assert_eq!(reference.undocumented(&page), (9, Vec::new()));
        for (from, to, wanted) in [
            ("## up\n", "## down\n", 3),
            ("`--now`", "`--nowhere`", 1),
            ("`up all`", "`all`", 1),
            ("`services.NAME.env`", "`stores.NAME.env`", 1),
            ("| `8`", "| `18`", 1),
            ("_trial` | gauge", "_trial` | counter", 1),
        ] {
            let changed = |name: &str| page(name).replace(from, to);
            assert_eq!(reference.undocumented(&changed).1.len(), wanted, "{from}");
        }
        assert_eq!(Reference::default().complete(&page).verdict().word(), "fail");
    }
}
