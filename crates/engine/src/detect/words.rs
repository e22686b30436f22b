//! Small languages: a command line, a version, a name.

use super::DetectError;
use regex::Regex;
use std::sync::LazyLock;

/// Splits a line into words: blanks separate, quotes and backslashes keep together, as in a shell.
///
/// Nothing else of a shell works, so its operators are refused rather than passed on as words.
pub fn split_line(line: &str) -> Result<Vec<String>, DetectError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => text.extend(chars.next()),
                        Some(other) => text.push(other),
                        None => {
                            return Err(DetectError::new(
                                format!("the command has an unclosed {c}"),
                                "close the quote",
                            ));
                        }
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '|' | '&' | ';' | '<' | '>' | '`' => {
                return Err(DetectError::new(
                    format!("the command uses {c:?}, and it is not run by a shell"),
                    "quote it if it is part of an argument, or write  sh -c '...'",
                ));
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if words.is_empty() {
        return Err(DetectError::new("the command is empty", "name the program and its arguments"));
    }
    Ok(words)
}

/// Interpreters: the version in the path of one of these is not the version of the service.
const INTERPRETERS: [&str; 13] =
    ["python", "pypy", "node", "nodejs", "ruby", "java", "jdk", "jre", "openjdk", "php", "deno", "bun", "go"];

/// Programs that install interpreters; every version in a path below one of them is an interpreter's.
const MANAGERS: [&str; 10] =
    ["pyenv", "rbenv", "nodenv", "goenv", "nvm", "volta", "asdf", "mise", "sdkman", "conda"];

/// Whether a path component belongs to a program that installs interpreters.
pub(super) fn is_manager(component: &str) -> bool {
    MANAGERS.contains(&component.trim_start_matches('.'))
}

fn is_interpreter(name: &str) -> bool {
    let name = name.trim_end_matches(['-', '_', 'v']).to_ascii_lowercase();
    INTERPRETERS.contains(&name.as_str())
}

/// Takes a path component apart that names a version: `hub-3.1.1` is (`hub-`, `3.1.1`).
///
/// `before` is the component before it, which tells an interpreter's version from the service's.
pub(super) fn version_of<'a>(before: &str, component: &'a str) -> Option<(&'a str, &'a str)> {
    static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^((?:[A-Za-z][A-Za-z0-9_-]*?[-_])?v?)(\d+(?:\.\d+)+(?:[-+][0-9A-Za-z][0-9A-Za-z.-]*)?)$")
            .ok()
    });
    let found = VERSION.as_ref()?.captures(component)?;
    let (prefix, version) = (found.get(1)?.as_str(), found.get(2)?.as_str());
    // An address, `127.0.0.1`, is four numbers; versions of four numbers exist but are rare in paths.
    let address = version.parse::<std::net::Ipv4Addr>().is_ok();
    let interpreter = is_interpreter(prefix) || (matches!(prefix, "" | "v") && is_interpreter(before));
    (!address && !interpreter).then_some((prefix, version))
}

/// Numbers of a version, for ordering.
pub(super) fn version_key(version: &str) -> (Vec<u64>, String) {
    let numbers = version.split(['.', '-', '+']).map_while(|p| p.parse().ok()).collect();
    (numbers, version.to_owned())
}

/// Makes a name of a stack, service or store out of any text.
pub(super) fn name_from(text: &str, otherwise: &str) -> String {
    let mapped: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let name: String = mapped.trim_matches(['-', '_']).chars().take(63).collect();
    if name.is_empty() { otherwise.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_a_shell_does() {
        let split = |l| split_line(l).expect("valid");
        assert_eq!(split(r#"a 'b c' "d \"e" f\ g ''"#), ["a", "b c", "d \"e", "f g", ""]);
        for bad in ["", "  ", "a 'b", "a | b", "a > b", "a; b", "a && b"] {
            assert!(split_line(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(split("a '|' \\;"), ["a", "|", ";"]);
    }

    #[test]
    fn versions_are_told_from_interpreters_and_addresses() {
        assert_eq!(version_of("releases", "1.0.0"), Some(("", "1.0.0")));
        assert_eq!(version_of("opt", "hub-3.1.1"), Some(("hub-", "3.1.1")));
        assert_eq!(version_of("opt", "v2.0-rc.1"), Some(("v", "2.0-rc.1")));
        for (before, no) in [
            ("lib", "python3.12"),
            ("opt", "node-v20.1.0"),
            ("node", "v20.1.0"),
            ("x", "127.0.0.1"),
            ("x", "7"),
            ("x", "app.db"),
        ] {
            assert_eq!(version_of(before, no), None, "{no}");
        }
        assert!(version_key("10.0.0") > version_key("9.1.0"));
    }

    #[test]
    fn any_text_becomes_a_name() {
        assert_eq!(name_from("my app.db", "x"), "my-app-db");
        assert_eq!(name_from("../..", "x"), "x");
        assert_eq!(name_from("\u{1b}[31mä", "x"), "31m");
    }
}
