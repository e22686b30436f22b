//! What the program offers, for those who hold the documentation against it: taken from the program itself.

use super::metrics::NAMES;
use super::{Cli, Exit};
use clap::CommandFactory as _;
use serde_json::Value;
use std::collections::BTreeSet;
use switchback_core::config::Config;
use switchback_core::workflow;
use switchback_engine::verify::docs::{Command, Reference};

/// What the documentation must name.
pub fn reference() -> Reference {
    let program = Cli::command();
    let visible = |command: &clap::Command| !command.is_hide_set() && command.get_name() != "help";
    let commands = program.get_subcommands().filter(|c| visible(c)).map(|command| {
        let verbs: Vec<&clap::Command> = command.get_subcommands().filter(|c| visible(c)).collect();
        let mut options = long(command, false);
        options.extend(verbs.iter().flat_map(|v| long(v, false)));
        options.sort();
        options.dedup();
        Command {
            name: command.get_name().to_owned(),
            options,
            verbs: verbs.iter().map(|v| v.get_name().to_owned()).collect(),
        }
    });
    Reference {
        commands: commands.collect(),
        global: long(&program, true),
        keys: keys(&Config::schema()),
        workflow_keys: keys(&workflow::schema()),
        exits: Exit::ALL.iter().map(|e| e.code()).collect(),
        metrics: NAMES.iter().map(|(name, kind, _)| ((*name).to_owned(), (*kind).to_owned())).collect(),
    }
}

/// The long options of a command.
fn long(command: &clap::Command, global: bool) -> Vec<String> {
    let own = command.get_arguments().filter(|a| a.is_global_set() == global && !a.is_hide_set());
    let names = own.filter_map(|a| a.get_long()).filter(|l| !["help", "version"].contains(l));
    names.map(|l| format!("--{l}")).collect()
}

/// The dotted paths of all keys that a JSON Schema allows; `NAME` is any name, `[]` any element.
fn keys(schema: &Value) -> Vec<String> {
    let mut found = BTreeSet::new();
    walk(schema, schema, "", &mut Vec::new(), &mut found);
    found.into_iter().collect()
}

fn walk(schema: &Value, node: &Value, path: &str, above: &mut Vec<String>, found: &mut BTreeSet<String>) {
    if let Some(name) = node.get("$ref").and_then(Value::as_str) {
        // A type that contains itself has the same keys again.
        if above.iter().any(|a| a == name) {
            return;
        }
        above.push(name.to_owned());
        let target = schema.get("$defs").and_then(|d| d.get(name.trim_start_matches("#/$defs/")));
        walk(schema, target.unwrap_or(&Value::Null), path, above, found);
        above.pop();
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        for option in node.get(word).and_then(Value::as_array).into_iter().flatten() {
            walk(schema, option, path, above, found);
        }
    }
    let object = |word: &str| node.get(word).and_then(Value::as_object);
    for (key, inner) in object("properties").into_iter().flatten() {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(schema, inner, &full, above, found);
        found.insert(full);
    }
    let named = object("patternProperties").into_iter().flat_map(|m| m.values());
    for inner in named.chain(node.get("additionalProperties").filter(|n| n.is_object())) {
        walk(schema, inner, &format!("{path}.NAME"), above, found);
    }
    if let Some(items) = node.get("items").filter(|n| n.is_object()) {
        walk(schema, items, &format!("{path}[]"), above, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use switchback_engine::verify::docs::{COMMANDS, EXITS, KEYS, METRICS, WORKFLOWS};

    fn page(name: &str) -> String {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/upgrade-infrastructure");
        std::fs::read_to_string(docs.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    #[test]
    fn the_reference_is_taken_from_the_program() {
        let reference = reference();
        let of = |name: &str| reference.commands.iter().find(|c| c.name == name).expect("there");
        assert!(of("promote").options.contains(&"--without-certificate".to_owned()));
        assert!(of("verify").options.contains(&"--phase".to_owned()));
        assert!(of("staging").verbs.contains(&"up".to_owned()));
        assert!(reference.global.contains(&"--json".to_owned()), "{:?}", reference.global);
        assert!(reference.commands.iter().all(|c| !c.name.starts_with("__")));
        for key in ["stack", "services.NAME.migrate_deadline", "rollback.budget", "verify.catalogue"] {
            assert!(reference.keys.contains(&key.to_owned()), "{key} in {:?}", reference.keys);
        }
        assert!(reference.workflow_keys.len() >= 35, "{:?}", reference.workflow_keys);
        assert!(reference.exits.contains(&8) && reference.exits.contains(&130));
    }

    #[test]
    fn everything_is_documented() {
        let (asked, missing) = reference().undocumented(&page);
        assert!(asked > 400, "{asked}");
        assert_eq!(missing, [""; 0]);
    }

    /// Each command, option, key and exit code in turn is taken out of the pages: the check names it.
    #[test]
    fn whatever_is_removed_from_the_documentation_is_missed_and_named() {
        let all = reference();
        let without = |changed: &str, from: &str, to: &str| {
            let pages = |name: &str| {
                let text = page(name);
                if name == changed { text.replace(from, to) } else { text }
            };
            all.undocumented(&pages).1
        };
        let mut removed = 0;
        let mut check = |changed: &str, from: &str, to: &str, wanted: String| {
            let missing = without(changed, from, to);
            assert!(missing.contains(&wanted), "{wanted} was removed, and missing is {missing:?}");
            removed += 1;
        };
        for command in &all.commands {
            let (name, wanted) = (&command.name, format!("the command `switchback {}`", command.name));
            check(COMMANDS, &format!("\n## {name}\n"), "\n", wanted);
            for option in command.options.iter().take(2) {
                let wanted = format!("the option `switchback {name} {option}`");
                check(COMMANDS, &format!("`{option}"), "`", wanted);
            }
        }
        for (keys, of) in [(&all.keys, KEYS), (&all.workflow_keys, WORKFLOWS)] {
            for key in keys {
                check(of, &format!("`{key}`"), "", format!("the key `{key}`"));
            }
        }
        for code in &all.exits {
            check(EXITS, &format!("\n| `{code}` |"), "\n|", format!("the exit code {code}"));
        }
        for (name, _) in &all.metrics {
            check(METRICS, &format!("\n| `{name}` |"), "\n|", format!("the metric `{name}`"));
        }
        assert!(removed > 300, "{removed}");
    }
}
