//! The documentation held against the program: commands, options, keys, exit codes, examples and links.

mod common;

use assistant::ReleaseKind;
use common::{PROGRAM, Stack};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use switchback_core::config::{Config, RuntimeKind};
use switchback_core::workflow::Workflow;
use switchback_engine::verify::docs::{blocks, carry_out, examples};

const REFERENCE: &str = "docs/upgrade-infrastructure/reference";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Every Markdown page of the repository: path relative to its root, and text.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists").map(|e| e.expect("lists")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                if !matches!(name.as_str(), "target" | "venvs" | "node_modules") && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let relative = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
                found.push((relative, fs::read_to_string(&path).expect("reads")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "only {} pages were found", found.len());
    found
}

fn program(args: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(args).env("NO_COLOR", "1").output().expect("runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The long options that a help text lists.
fn options(help: &str) -> BTreeSet<String> {
    let of_word = |c: char| c.is_ascii_lowercase() || c == '-';
    help.lines()
        .map(str::trim_start)
        .filter(|l| l.starts_with('-'))
        .filter_map(|l| l.split(|c| !of_word(c)).find(|w| w.starts_with("--") && w.len() > 2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_and_option_is_in_the_reference() {
    let page = read(&format!("{REFERENCE}/commands.md"));
    let section = |title: &str| -> String {
        let start = page.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title:?}"));
        let rest = &page[start + 4..];
        rest[..rest.find("\n## ").unwrap_or(rest.len())].to_owned()
    };
    let help = program(&["--help"]);
    let global = options(&help);
    let common = section("Options of every command");
    for option in &global {
        assert!(common.contains(&format!("`{option}")), "{option} is not in the section on all commands");
    }
    let commands = listed(&help);
    assert!(commands.len() > 15, "{commands:?}");
    for command in &commands {
        let text = section(command);
        let help = program(&[command, "--help"]);
        let mut own = options(&help);
        for verb in listed(&help) {
            assert!(
                text.contains(&format!("`{command} {verb}")),
                "{command} {verb} is not in the section {command}"
            );
            own.extend(options(&program(&[command, &verb, "--help"])));
        }
        for option in own.iter().filter(|o| !global.contains(*o) || (command == "init" && *o == "--version"))
        {
            assert!(text.contains(&format!("`{option}")), "{option} is not in the section {command}");
        }
    }
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let listed = help.split("Commands:").nth(1).and_then(|t| t.split("Options:").next()).unwrap_or_default();
    let names = listed.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names = names.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help");
    names.map(str::to_owned).collect()
}

/// The dotted paths of all keys that a JSON Schema allows; `NAME` is any name, `[]` any element.
fn keys(schema: &Value, node: &Value, path: &str, above: &mut Vec<String>, found: &mut BTreeSet<String>) {
    if let Some(name) = node["$ref"].as_str() {
        if above.iter().any(|a| a == name) {
            return;
        }
        above.push(name.to_owned());
        let target = &schema["$defs"][name.trim_start_matches("#/$defs/")];
        keys(schema, target, path, above, found);
        above.pop();
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        for option in node[word].as_array().into_iter().flatten() {
            keys(schema, option, path, above, found);
        }
    }
    for (key, inner) in node["properties"].as_object().into_iter().flatten() {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        keys(schema, inner, &full, above, found);
        found.insert(full);
    }
    let named = node["patternProperties"].as_object().into_iter().flat_map(|m| m.values());
    for inner in named.chain([&node["additionalProperties"]]).filter(|n| n.is_object()) {
        keys(schema, inner, &format!("{path}.NAME"), above, found);
    }
    keys_of_items(schema, node, path, above, found);
}

fn keys_of_items(
    schema: &Value,
    node: &Value,
    path: &str,
    above: &mut Vec<String>,
    found: &mut BTreeSet<String>,
) {
    if node["items"].is_object() {
        keys(schema, &node["items"], &format!("{path}[]"), above, found);
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let workflows = "docs/upgrade-infrastructure/testing/workflows.md";
    for (args, page, least) in [
        (&["schema"][..], format!("{REFERENCE}/configuration.md"), 60),
        (&["schema", "workflow"], workflows.to_owned(), 35),
    ] {
        let schema: Value = serde_json::from_str(&program(args)).expect("JSON");
        let mut found = BTreeSet::new();
        keys(&schema, &schema, "", &mut Vec::new(), &mut found);
        assert!(found.len() >= least, "{page}: only {} keys: {found:?}", found.len());
        let text = read(&page);
        let missing: Vec<&String> = found.iter().filter(|k| !text.contains(&format!("`{k}`"))).collect();
        assert!(missing.is_empty(), "{page} lacks {missing:?}");
    }
}

#[test]
fn every_exit_code_is_in_the_reference() {
    let page = read(&format!("{REFERENCE}/exit-codes.md"));
    let help = program(&["--help"]);
    let listed = help.split("Exit codes:").nth(1).expect("exit codes");
    let mut codes: BTreeSet<u8> =
        listed.split(['·', '\n']).filter_map(|p| p.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(codes.iter().take(9).copied().collect::<Vec<_>>(), (0..=8).collect::<Vec<_>>());
    codes.insert(130);
    for code in codes {
        assert!(page.contains(&format!("\n| `{code}` |")), "exit code {code} has no row");
    }
}

#[test]
fn configurations_in_the_documentation_are_accepted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|b| b.info.starts_with("yaml switchback.yaml")) {
            fs::write(dir.path().join("switchback.yaml"), &block.text).expect("writes");
            let ran = Command::new(PROGRAM).arg("-C").arg(dir.path()).arg("status").output().expect("runs");
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert!(ran.status.success(), "{page}:{}: {said}", block.line);
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} configurations were found");
}

/// Stacks of containers: by the reader alone, as their Compose files are not there.
#[test]
fn compose_configurations_in_the_documentation_are_accepted() {
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|b| b.info == "yaml compose switchback.yaml") {
            match Config::parse(&block.text, &page) {
                Ok(config) => assert_eq!(config.runtime, RuntimeKind::Compose, "{page}:{}", block.line),
                Err(e) => panic!("{page}:{}: {e}", block.line),
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} configurations were found");
}

/// Whether a path of the schema (`services.NAME.env`, `checks.api[].service`) stands for this one.
fn stands_for(schema: &str, path: &[String]) -> bool {
    let known: Vec<&str> = schema.split('.').collect();
    known.len() == path.len()
        && known.iter().zip(path).all(|(k, p)| *k == "NAME" || k.trim_end_matches("[]") == p)
}

/// The paths of all keys of a document.
fn paths(value: &Value, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                above.push(key.clone());
                found.push(above.clone());
                paths(inner, above, found);
                above.pop();
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| paths(inner, above, found)),
        _ => {}
    }
}

/// Parts of a configuration: every key in them exists.
#[test]
fn pieces_of_configuration_in_the_documentation_have_only_keys_that_exist() {
    let schema: Value = serde_json::from_str(&program(&["schema"])).expect("JSON");
    let mut known = BTreeSet::new();
    keys(&schema, &schema, "", &mut Vec::new(), &mut known);
    let top = |key: &str| known.contains(key);
    let (mut pieces, mut others) = (0, 0);
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|b| b.info == "yaml") {
            let value: Value = serde_yaml_ng::from_str(&block.text)
                .unwrap_or_else(|e| panic!("{page}:{}: no YAML: {e}", block.line));
            let map = value.as_object().unwrap_or_else(|| panic!("{page}:{}: no keys", block.line));
            // Files of other programs, criteria, journeys, and services of a Compose file.
            if !map.keys().all(|k| top(k)) || block.text.contains("image:") {
                others += 1;
                continue;
            }
            let mut found = Vec::new();
            paths(&value, &mut Vec::new(), &mut found);
            for path in found {
                // Below a map of names whose values have no keys, every name is right.
                let known = known.iter().any(|k| stands_for(k, &path))
                    || path.len() > 1
                        && known.iter().any(|k| stands_for(k, &path[..path.len() - 1]))
                        && !known.iter().any(|k| {
                            k.split('.').count() == path.len()
                                && stands_for(
                                    k.rsplit_once('.').map_or("", |(up, _)| up),
                                    &path[..path.len() - 1],
                                )
                        });
                assert!(known, "{page}:{}: {}", block.line, path.join("."));
            }
            pieces += 1;
        }
    }
    assert!(pieces >= 10 && others <= 8, "{pieces} pieces, {others} others");
}

/// The commands of Switchback in a block: those that stand at the beginning of a line.
fn commands_in(block: &str) -> impl Iterator<Item = Vec<&str>> {
    block.lines().filter_map(|line| {
        let line = line.trim_start();
        let words = line.strip_prefix("$ ").unwrap_or(line).strip_prefix("switchback ")?;
        let words = words.split(['#', '|', '>', '`', '"', '\'']).next()?;
        Some(words.split_whitespace().collect())
    })
}

/// The lines of blocks of YAML as a step of CI runs them: without what makes them a step, and without quotes.
fn steps_of_ci(text: &str) -> String {
    let yaml = blocks(text).into_iter().filter(|b| b.info.starts_with("yaml")).map(|b| b.text);
    let step = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ").trim_start_matches("run: ");
        line.replace(['"', '\''], "") + "\n"
    };
    yaml.collect::<String>().lines().map(step).collect()
}

/// What is not executed names at least commands and options that exist.
#[test]
fn commands_in_the_documentation_exist() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let help = program(&["--help"]);
    let commands = listed(&help);
    let global = options(&help);
    let mut verbs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = 0;
    for (page, text) in pages() {
        let fenced =
            blocks(&text).into_iter().filter(|b| matches!(b.info.as_str(), "sh" | "text" | "console"));
        let fenced = fenced.map(|b| b.text).collect::<String>();
        let indented: String =
            text.lines().filter(|l| l.starts_with("    ")).map(|l| format!("{l}\n")).collect();
        let ci = steps_of_ci(&text);
        for words in commands_in(&fenced).chain(commands_in(&indented)).chain(commands_in(&ci)) {
            let mut words = words.into_iter().peekable();
            while let Some(option) = words.next_if(|w| w.starts_with('-')) {
                assert!(option == "-C" || global.contains(option), "{page}: switchback {option}");
                if matches!(option, "-C" | "--wait") {
                    words.next();
                }
            }
            let Some(command) = words.next().filter(|w| w.is_ascii()) else { continue };
            assert!(commands.iter().any(|c| c == command), "{page}: there is no command {command:?}");
            // `staging scan`: the options of the verb.
            let of =
                verbs.entry(command.to_owned()).or_insert_with(|| listed(&program(&[command, "--help"])));
            let verb = words.next_if(|w| of.iter().any(|v| v == w));
            let path: Vec<&str> = [Some(command), verb].into_iter().flatten().collect();
            let own = known
                .entry(path.join(" "))
                .or_insert_with(|| options(&program(&[&path[..], &["--help"]].concat())));
            for option in words.filter(|w| w.starts_with("--")) {
                assert!(own.contains(option), "{page}: {} has no option {option}", path.join(" "));
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} commands were found");
}

#[test]
fn workflows_in_the_documentation_are_accepted() {
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text).into_iter().filter(|b| b.info.starts_with("yaml workflow")) {
            // The reader that every command uses.
            if let Err(e) = Workflow::parse(&page, &block.text) {
                panic!("{page}:{}: {e} {:?}", block.line, e.hint);
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} workflows were found");
}

/// Carries out the examples of a page on a stack of its own, as `verify` does.
fn execute(page: &str, text: &str) {
    let list = examples(text);
    let stack = Stack::new(&[ReleaseKind::V2, ReleaseKind::LossyMigration]);
    if list.iter().any(|e| e.command.contains("--detach")) {
        // A trial that is looked at must not be over before.
        stack.configure("watch: 2s", "watch: 1h");
    }
    let bin = tempfile::tempdir().expect("tempdir");
    std::os::unix::fs::symlink(PROGRAM, bin.path().join("switchback")).expect("links");
    if let Some((line, wrong)) = carry_out(&list, &stack.root, bin.path(), &|| false).expect("runs") {
        panic!("{page}:{line}: {wrong}");
    }
}

#[test]
fn fences_are_closed() {
    for (page, text) in pages() {
        let fences = text.lines().filter(|l| l.trim_start().starts_with("```")).count();
        assert_eq!(fences % 2, 0, "{page}: a block is not closed");
    }
}

#[test]
fn examples_in_the_documentation_are_executed() {
    let mut seen = 0;
    for (page, text) in pages() {
        if blocks(&text).iter().any(|b| b.info == "console") {
            execute(&page, &text);
            seen += 1;
        }
    }
    assert!(seen >= 2, "only {seen} pages with examples were found");
}

/// The name that a heading gets as the target of a link.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect()
}

fn without_code(text: &str) -> String {
    let mut fenced = false;
    let kept = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    let joined: Vec<&str> = kept.collect();
    joined.join("\n").split('`').step_by(2).collect::<Vec<_>>().join("``")
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for (page, text) in pages() {
        let folder = root().join(&page).parent().expect("a folder").to_owned();
        for link in without_code(&text).split("](").skip(1).filter_map(|r| r.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            assert!(target.exists(), "{page}: the link to {link} leads nowhere");
            if !heading.is_empty() {
                let there = fs::read_to_string(&target).expect("reads");
                let found = there.lines().filter(|l| l.starts_with('#')).any(|l| anchor(l) == heading);
                assert!(found, "{page}: {link}: there is no such heading");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} links were found");
}

#[test]
fn the_documentation_stands_alone() {
    let forbidden = [
        concat!("..", "/shared"),
        concat!("/work", "/"),
        concat!("/tmp", "/wt"),
        concat!("/root", "/"),
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("npm", "js.org"),
        concat!("python", "hosted.org"),
    ];
    for (page, text) in pages() {
        for word in forbidden {
            // `generations/N/work/` is no path of this machine.
            let whole = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric());
            let found = text.match_indices(word).any(|(at, _)| !word.starts_with('/') || whole(at));
            assert!(!found, "{page} says {word:?}");
        }
    }
}

#[test]
fn paths_of_the_program_exist_where_the_architecture_says() {
    let text = read("ARCHITECTURE.md");
    let mut seen = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let file =
            word.starts_with("crates/") || word.starts_with("examples/") || word.starts_with("scripts/");
        if file && !word.contains(['*', ' ', '{']) {
            assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}, which does not exist");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} paths were found");
}

#[test]
fn tests_named_by_the_architecture_exist() {
    let mut source = String::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists").map(|e| e.expect("lists").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                source.push_str(&fs::read_to_string(&entry).expect("reads"));
            }
        }
    }
    let text = read("ARCHITECTURE.md");
    let section = text.split("\n## Invariants\n").nth(1).expect("a section on invariants");
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let names = section.split('`').skip(1).step_by(2);
    let tests: BTreeSet<&str> = names
        .filter(|w| w.matches('_').count() >= 2 && w.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(tests.len() > 10, "{tests:?}");
    for test in tests {
        assert!(
            source.contains(&format!("fn {test}(")),
            "ARCHITECTURE.md names the test {test}, which does not exist"
        );
    }
}
