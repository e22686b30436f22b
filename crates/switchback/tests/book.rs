//! The documentation as a book: `docs/SUMMARY.md` held against the pages; manual pages held against the commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// The book has every page of the documentation, once.
#[test]
fn the_book_has_every_page() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).expect("reads");
    let mut pages: Vec<String> = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("reads").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") && !path.ends_with("SUMMARY.md") {
                let page =
                    path.strip_prefix(root().join("docs")).expect("below").to_string_lossy().into_owned();
                pages.push(page);
            }
        }
    }
    assert!(pages.len() > 40, "{pages:?}");
    for page in &pages {
        let times = summary.matches(&format!("]({page})")).count();
        assert_eq!(times, 1, "docs/SUMMARY.md names {page} {times} times");
    }
    assert_eq!(summary.matches("](").count(), pages.len(), "docs/SUMMARY.md names a page that is not there");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("folder");
    let program = || Command::new(env!("CARGO_BIN_EXE_switchback"));
    let pages = folder.path().join("man");
    assert!(program().arg("man").arg("--output").arg(&pages).status().expect("runs").success());
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(page("switchback.1").contains(".TH switchback 1"));
    let help = program().arg("--help").output().expect("runs").stdout;
    let help = String::from_utf8(help).expect("text");
    let (_, commands) = help.split_once("Commands:").expect("commands");
    let (commands, _) = commands.split_once("Options:").expect("options");
    let names =
        commands.lines().filter_map(|l| l.strip_prefix("  ")?.split(' ').next()).filter(|n| !n.is_empty());
    let mut found = 0;
    for name in names.filter(|n| *n != "help") {
        assert!(page(&format!("switchback-{name}.1")).contains("NAME"), "{name}");
        found += 1;
    }
    assert!(found > 25, "{found}");
    assert!(page("switchback-rollback.1").contains("switchback rollback \\-\\-to 3"), "examples are there");
    let printed = program().arg("man").output().expect("runs").stdout;
    assert!(String::from_utf8_lossy(&printed).contains("Exit codes: 0 done"));
}
