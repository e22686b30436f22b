//! Lines of logs: which tell of errors, and which are the same message.

/// A line of a log that tells of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The message without what differs from time to time.
    pub template: String,
    /// Whether one of them is enough.
    pub fatal: bool,
}

impl Line {
    /// Reads a line; none if it tells of no error.
    pub fn read(line: &str) -> Option<Self> {
        is_error(line).then(|| Self { template: template(line), fatal: is_fatal(line) })
    }
}

const ERRORS: [&str; 9] =
    ["error", "fatal", "panic", "panicked", "traceback", "exception", "critical", "emerg", "segfault"];
const FATAL: [&str; 5] = ["fatal", "panic", "panicked", "segfault", "emerg"];
/// The longest template; two messages that begin alike for so long are one.
const LONGEST: usize = 160;

/// Whether a line tells of an error.
pub fn is_error(line: &str) -> bool {
    has_word(line, &ERRORS)
}

/// Whether a line tells of an error after which nothing goes on.
pub fn is_fatal(line: &str) -> bool {
    has_word(line, &FATAL)
}

fn has_word(line: &str, words: &[&str]) -> bool {
    let line = line.to_ascii_lowercase();
    words.iter().any(|word| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
            let rest = &line[at + word.len()..];
            let after = rest.chars().next().is_none_or(|c| !c.is_alphanumeric() || c == 's');
            // "errors: 0", "error=0", "error=null" and "no error" are none.
            let counted = rest.trim_start_matches('s').trim_start_matches(['"', '\'']);
            let none = nothing(counted.trim_start());
            let no = ["no", "without", "0", "zero"].iter().any(|n| {
                line[..at]
                    .trim_end()
                    .strip_suffix(n)
                    .is_some_and(|r| r.chars().next_back().is_none_or(|c| !c.is_alphanumeric()))
            });
            before && after && !none && !no
        })
    })
}

/// Whether what follows a word says that there is none of it: `: 0`, `=null`, `":[]`.
fn nothing(rest: &str) -> bool {
    let (value, assigned) = match (rest.strip_prefix('='), rest.strip_prefix(':')) {
        (Some(value), _) => (value, true),
        (_, Some(value)) => (value.trim_start(), false),
        _ => return false,
    };
    ["0", "null", "none", "false", "[]", "\"\"", "nil"].iter().any(|nothing| {
        let after = value.strip_prefix(nothing).map(|r| r.chars().next());
        // "error: none of them answered" is one.
        after.is_some_and(|c| c.is_none_or(|c| ",;}])".contains(c) || (assigned && c.is_whitespace())))
    })
}

/// A line without what differs from time to time: words with digits in them, and what is in quotes (but for a line of
/// JSON, where everything is).
pub fn template(line: &str) -> String {
    let json = line.trim_start().starts_with('{');
    let mut out = String::new();
    let mut quote = None;
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        if word.chars().any(|c| c.is_ascii_digit()) {
            if !out.ends_with('#') {
                out.push('#');
            }
        } else {
            out.push_str(word);
        }
        word.clear();
    };
    for c in line.trim().chars() {
        if out.chars().count() >= LONGEST {
            break;
        }
        match quote {
            Some(q) if c == q => {
                out.push(c);
                quote = None;
            }
            Some(_) => {}
            None if !json && (c == '"' || c == '`') => {
                flush(&mut word, &mut out);
                out.push(c);
                quote = Some(c);
            }
            None if c.is_whitespace() || "[](){}<>,;=|\"".contains(c) => {
                flush(&mut word, &mut out);
                let c = if c.is_whitespace() { ' ' } else { c };
                if !(c == ' ' && out.ends_with([' ', '#'])) {
                    out.push(c);
                }
            }
            None => word.push(c),
        }
    }
    flush(&mut word, &mut out);
    out.chars().take(LONGEST).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{is_error, is_fatal, template};

    #[test]
    fn errors_are_told_from_lines_that_say_there_are_none() {
        for line in [
            "ERROR: x",
            "2026 [error] y",
            "FATAL:  the database",
            "Traceback (most recent call last):",
            "level=error msg=\"lost\"",
            "{\"level\":\"error\"}",
            "thread 'main' panicked at src/main.rs:1",
            "2 errors: a and b",
            "error: 0x7f is no address",
            "error: none of them answered",
            "panic: nil map",
        ] {
            assert!(is_error(line), "{line}");
        }
        for line in [
            "started",
            "errors: 0",
            "error=null",
            "level=info error=0 took=3",
            "errors: 0, warnings: 2",
            "no error",
            "{\"error\":null}",
            "{\"errors\": []}",
            "0 errors",
            "without errors",
            "terrorise",
            "errorless",
            "GET /healthz 200",
        ] {
            assert!(!is_error(line), "{line}");
        }
    }

    #[test]
    fn what_is_fatal_is_an_error_too() {
        for line in ["FATAL: no", "panic: runtime error", "thread 'main' panicked at x"] {
            assert!(is_fatal(line) && is_error(line), "{line}");
        }
        for line in ["ERROR: no", "fatality 3", "it is not fatalistic"] {
            assert!(!is_fatal(line), "{line}");
        }
    }

    #[test]
    fn the_same_message_is_one_template() {
        let pairs = [
            (
                "2026-11-29T02:03:04.5Z ERROR order 17 of \"anna\" failed",
                "2026-11-30T12:00:00Z ERROR order 4 of \"bob\" failed",
            ),
            ("[pid 12] error: timeout after 31ms", "[pid 9981] error: timeout after 7ms"),
            (
                "error 3f2504e0-4f89-11d3-9a0c-0305e82c3301 gone",
                "error 11111111-4f89-11d3-9a0c-0305e82c3301 gone",
            ),
        ];
        for (a, b) in pairs {
            assert_eq!(template(a), template(b));
        }
        assert_ne!(template("error: disk full"), template("error: no such table"));
        let json = |text: &str| template(&format!(r#"{{"level":"error","at":17,"msg":"{text}"}}"#));
        assert_eq!(json("order 17 lost"), json("order 4 lost"));
        assert_ne!(json("order lost"), json("disk full"));
        assert_eq!(template("2026-11-29 02:03:04 ERROR order 17 failed"), "#ERROR order #failed");
        assert!(template(&"x".repeat(5000)).chars().count() <= 160);
    }
}
