//! What the documentation says of the acceptance criteria is complete: for each, what makes it fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::criteria::Catalogue;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// The section of the page on validation that says what makes each row fail.
fn section() -> String {
    let page = root().join("docs/upgrade-infrastructure/validation/README.md");
    let page = fs::read_to_string(page).expect("reads");
    let text = page.split("\n## Can each row fail?\n").nth(1).expect("the section");
    text[..text.find("\n## ").unwrap_or(text.len())].to_owned()
}

/// Words in code, of a text.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The sources of the tests of the workspace.
fn source() -> String {
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
    source
}

#[test]
fn every_criterion_is_listed_with_what_makes_it_fail_or_as_one_without() {
    let text = section();
    let all: BTreeSet<String> =
        Catalogue::built_in().expect("the catalogue").criteria.into_iter().map(|c| c.id).collect();
    let rows = |text: &str| -> BTreeSet<String> {
        code(text).filter(|w| all.contains(*w)).map(str::to_owned).collect()
    };
    let (tables, prose): (Vec<&str>, Vec<&str>) = text.lines().partition(|l| l.starts_with('|'));
    let fails = rows(&tables.join("\n"));
    let without = prose.iter().find(|l| l.starts_with("Without a negative control are ")).expect("the rest");
    let without = rows(without);
    let both: Vec<_> = fails.intersection(&without).collect();
    assert!(both.is_empty(), "{both:?} are said to have a negative control, and to have none");
    let listed: BTreeSet<String> = fails.union(&without).cloned().collect();
    let missing: Vec<_> = all.difference(&listed).collect();
    assert!(missing.is_empty(), "nothing is said of {missing:?}");
    assert!(without.len() <= 2, "a criterion got no negative control: {without:?}");
    // What has the form of a criterion is one.
    let areas = ["staging.", "validation.", "database.", "rollback.", "documentation.", "integration."];
    for word in code(&tables.join("\n")).filter(|w| areas.iter().any(|a| w.starts_with(a))) {
        assert!(all.contains(word), "{word} is no criterion");
    }
}

#[test]
fn the_tests_that_it_names_exist_and_the_safeguards_are_those_that_are_tried() {
    let (text, source) = (section(), source());
    let tests: BTreeSet<&str> = code(&text)
        .filter(|w| w.matches('_').count() >= 3 && w.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(tests.len() > 12, "{tests:?}");
    for test in tests {
        assert!(source.contains(&format!("fn {test}(")), "there is no test {test}");
    }
    // The table of the safeguards, line by line, is the one of the test that switches them off.
    let gaps = fs::read_to_string(root().join("crates/switchback/tests/gaps.rs")).expect("reads");
    let mut seen = 0;
    for line in gaps.lines().map(str::trim).filter(|l| l.starts_with("(Gap::")) {
        let criteria: BTreeSet<&str> =
            line.split('"').skip(1).step_by(2).filter(|w| w.contains('.')).collect();
        let name = line["(Gap::".len()..].split(',').next().expect("a name");
        let mut word = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !word.is_empty() {
                word.push('-');
            }
            word.push(c.to_ascii_lowercase());
        }
        let row = text.lines().find(|l| l.starts_with(&format!("| `{word}`: ")));
        let row = row.unwrap_or_else(|| panic!("the safeguard {word} has no row"));
        let said: BTreeSet<&str> = code(row).skip(1).collect();
        assert_eq!(said, criteria, "{word}");
        seen += 1;
    }
    assert!(seen >= 18, "{seen}");
}
