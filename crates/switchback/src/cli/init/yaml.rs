//! The text of the files that init writes. Values are always quoted, comments hold no line ends.

use std::fmt::Write as _;
use switchback_engine::detect::{Description, HealthGuess};

/// A string as a double-quoted YAML scalar.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // YAML readers refuse these raw, or take them for line ends.
            '\0'..' '
            | '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A value: plain where that is beyond doubt, quoted otherwise.
pub fn value(text: &str) -> String {
    let plain = !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
        );
    if plain { text.to_owned() } else { quoted(text) }
}

/// Text for a comment.
pub fn comment(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
                '?'
            } else {
                c
            }
        })
        .collect()
}

pub fn list(words: &[String], indent: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|w| quoted(w)).collect();
    let line = format!("[{}]", quoted.join(", "));
    if line.chars().count() <= 84 {
        return line;
    }
    let mut text = String::from("[");
    let mut width = 0;
    for (index, word) in quoted.iter().enumerate() {
        if index > 0 {
            text.push(',');
            if width + word.chars().count() > 80 {
                text.push_str(&format!("\n{indent}"));
                width = 0;
            } else {
                text.push(' ');
            }
        }
        width += word.chars().count() + 2;
        text.push_str(word);
    }
    text.push(']');
    text
}

/// `switchback.yaml`.
pub fn config(found: &Description, env_file: Option<&str>, workflows: bool) -> String {
    let mut lines = vec![
        "# Written by `switchback init`. `switchback doctor` tells what is missing or dangerous;".to_owned(),
        "# `switchback schema` prints every key.".to_owned(),
    ];
    for warning in &found.warnings {
        lines.push(format!("# WARNING: {}", comment(warning)));
    }
    lines.push(format!("stack: {}", value(&found.stack)));
    lines.push("services:".to_owned());
    lines.push(format!("  {}:", value(&found.service)));
    let version_note = if found.todo.contains("version") {
        format!("   # TODO the version that runs now; there are {}", comment(&found.installed.join(", ")))
    } else if !found.version_known {
        "   # made up: no version was to be seen. Name the one that runs".to_owned()
    } else {
        "   # what runs now; `switchback upgrade SERVICE=VERSION` changes it".to_owned()
    };
    lines.push(format!("    version: {}{version_note}", quoted(&found.version)));
    match &found.release {
        Some(release) => lines.push(format!(
            "    release: {}   # where a version lies; its hash is part of the release",
            quoted(release)
        )),
        None => {
            lines.push(
                "    # Where a version lies. Without it an upgrade cannot tell the versions apart by their"
                    .to_owned(),
            );
            lines.push(
                "    # content: install versions beside each other and use {release} in the command."
                    .to_owned(),
            );
            lines.push("    # release: releases/{version}".to_owned());
        }
    }
    if found.todo.contains("command") {
        lines.push(
            "    # TODO the program and its arguments. {release} {version} {stack} {store.NAME} {port.NAME}"
                .to_owned(),
        );
        lines.push(
            "    # {env.NAME} are filled in per environment; the working folder is one of Switchback's own."
                .to_owned(),
        );
    } else {
        lines.push("    # Runs in a folder of Switchback's own; {store.NAME} and {port.NAME} differ per environment.".to_owned());
    }
    lines.push(format!("    command: {}", list(&found.command, "              ")));
    if found.migrate.is_empty() {
        lines.push(
            "    # If a new version needs a command that migrates the data before it starts:".to_owned(),
        );
        lines.push("    # migrate: [\"{release}/bin/NAME\", \"migrate\", \"{store.db}\"]".to_owned());
    } else {
        lines.push(format!("    migrate: {}", list(&found.migrate, "              ")));
    }
    if !found.env.is_empty() {
        lines.push(
            "    # Only these variables, and PATH, HOME, USER, LANG and the like, reach the service."
                .to_owned(),
        );
        lines.push("    env:".to_owned());
        lines.extend(found.env.iter().map(|(k, v)| format!("      {}: {}", value(k), quoted(v))));
    }
    if let Some(file) = env_file {
        lines.push(format!("    env_file: {}   # secrets; keep it out of version control", value(file)));
    }
    if !found.config.is_empty() {
        lines.push(format!(
            "    config: {}   # comes back with a rollback",
            list(&found.config, "             ")
        ));
    }
    let ports: Vec<String> = found.ports.iter().map(|(n, p)| format!("{}: {p}", value(n))).collect();
    let todo = if found.todo.contains("port") { "   # TODO the port it listens on" } else { "" };
    lines.push(format!("    ports: {{ {} }}{todo}", ports.join(", ")));
    let port = found.ports.keys().next().map_or("http", String::as_str);
    lines.push(match &found.health {
        HealthGuess::Http(path) => {
            format!("    health: {{ http: {}, stable: 2s, start: 60s }}", value(path))
        }
        HealthGuess::Tcp => {
            format!("    health: {{ tcp: {}, stable: 2s, start: 60s }}   # better: http: /PATH", value(port))
        }
    });
    stores(found, &mut lines);
    lines.extend(
        [
            if workflows { "checks:" } else { "# checks:" },
            "  # What users do with it. The more they say, the more an upgrade is proven to work.",
            if workflows {
                "  workflows: [\"checks/*.yaml\"]"
            } else {
                "  # workflows: [\"checks/*.yaml\"]   # it answers no HTTP on its port"
            },
            "  # Rules on the data, for example:",
            "  # invariants: [{ store: db, sql: \"select count(*) from orders where total < 0\", expect: 0 }]",
            "rollback:",
            "  budget: 5m    # a rollback must be done within this time",
            "  watch: 30m    # how long a promotion is on trial",
            "  every: 10s    # time between two probes",
            "  failures: 3   # so many failed probes in a row roll back",
        ]
        .map(str::to_owned),
    );
    lines.push(String::new());
    lines.join("\n")
}

fn stores(found: &Description, lines: &mut Vec<String>) {
    if found.stores.is_empty() {
        lines.push(
            "# No data was found. Everything that must come back with a rollback is a store:".to_owned(),
        );
        lines.push("# stores:".to_owned());
        lines.push("#   db: { kind: sqlite, path: data/app.db }".to_owned());
        lines.push("#   uploads: { kind: files, path: data/uploads }".to_owned());
        return;
    }
    let todo =
        if found.todo.contains("stores") { "   # TODO remove what is not data of this service" } else { "" };
    lines.push(format!("stores:{todo}"));
    for store in &found.stores {
        let kind = store.kind.as_str();
        lines.push(format!("  {}: {{ kind: {kind}, path: {} }}", value(&store.name), value(&store.path)));
    }
}

/// The env file. Values are single lines; quotes keep blanks at their ends.
pub fn env_file(found: &Description) -> String {
    let mut text = String::from(
        "# Secrets of the service, written by `switchback init`. Keep it out of version control.\n",
    );
    for (name, secret) in found.secrets.iter().filter(|(_, v)| !v.contains(['\n', '\r'])) {
        let bare = secret.trim() == secret && !secret.starts_with(['"', '\'']);
        let _ = if bare { writeln!(text, "{name}={secret}") } else { writeln!(text, "{name}=\"{secret}\"") };
    }
    text
}

/// `checks/first.yaml`.
///
/// `None` for a service that speaks no HTTP.
pub fn workflow(found: &Description) -> Option<String> {
    let service = &found.service;
    let mut steps = String::new();
    if let HealthGuess::Http(path) = &found.health
        && path != "/"
    {
        let url = quoted(&format!("{{{{{service}.url}}}}{path}"));
        steps.push_str(&format!("  - name: it says that it is healthy\n    request: {{ url: {url} }}\n"));
    }
    let status = match (found.front_page, &found.health) {
        (Some(status), _) if status < 500 => Some(status.to_string()),
        // Nobody asked for the front page yet: there may be none.
        (None, HealthGuess::Http(_)) => Some("[2xx, 3xx, 4xx]".to_owned()),
        _ => None,
    };
    if let Some(status) = status {
        let url = quoted(&format!("{{{{{service}.url}}}}/"));
        steps.push_str(&format!(
            "  - name: the front page answers\n    request: {{ url: {url} }}\n    expect: {{ status: {status} }}\n"
        ));
    }
    if steps.is_empty() {
        return None;
    }
    Some(format!(
        r#"# A first workflow: it only reads, so it also runs on production while a promotion is on trial.
name: it answers
timeout: 20s
steps:
{steps}# Say what a user must be able to do. What writes never runs on production by itself:
#
#   - name: create
#     request:
#       method: POST
#       url: "{{{{{service}.url}}}}/api/notes"
#       headers: {{ Authorization: "Bearer {{{{env.API_TOKEN}}}}" }}
#       json: {{ title: "written by {{{{run.id}}}}" }}
#     expect: {{ status: 201, json: {{ "$.id": exists }} }}
#     capture: {{ id: {{ json: "$.id" }} }}
#   - name: it is in the database
#     sql: {{ store: db, sql: "select count(*) from notes where id = {{{{id}}}}", expect: 1 }}
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_quoting() {
        for text in [
            "",
            "a b",
            "\u{1b}[2J\n\t\"\\",
            "a: b # c",
            "\u{85}\u{2028}\u{feff}\u{ffff}",
            "{x}",
            "ä€😀",
            "\u{7f}\0",
        ] {
            let back: String = serde_yaml_ng::from_str(&quoted(text)).expect("valid YAML");
            assert_eq!(back, text);
            assert_eq!(comment(text).lines().count().max(1), 1);
        }
    }

    #[test]
    fn long_commands_are_broken_between_words() {
        let words: Vec<String> = (0..20).map(|i| format!("--option-{i}")).collect();
        let back: Vec<String> = serde_yaml_ng::from_str(&list(&words, "  ")).expect("valid YAML");
        assert_eq!(back, words);
    }
}
