//! Names: as SQL identifiers and literals, as parts of a store, as file names.
//!
//! Owns all quoting that the server does not do itself. Every function is total: any text goes in.

use std::fmt::Write as _;

/// Longest part of a name kept readable in a file name: names have at most 255 bytes.
const FILE_NAME_PART: usize = 180;

/// A name as an SQL identifier. psql replaces no variables within double quotes.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Text as an SQL literal, right with and without `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// One component of a part's name: as it is, or in double quotes where it could be misread.
fn component(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '$';
    if !name.is_empty() && name.chars().all(plain) {
        return name.to_owned();
    }
    let mut text = String::from("\"");
    for c in name.chars() {
        match c {
            '"' => text.push_str("\"\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(text, "{}", c.escape_default());
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// `database.schema.relation`; distinct names stay distinct.
pub(super) fn part(database: &str, schema: &str, relation: &str) -> String {
    format!("{}.{}.{}", component(database), component(schema), component(relation))
}

/// The part that holds the large objects of a database. A real component with a blank is quoted.
pub(super) fn large_objects(database: &str) -> String {
    format!("{}.large objects", component(database))
}

/// A database as it appears in words.
pub(in crate::store) fn database(database: &str) -> String {
    component(database)
}

/// A part's name as a file name: everything but `[A-Za-z0-9_-]` and single dots percent-encoded.
/// Distinct names stay distinct, also where they are cut.
pub(in crate::store) fn file(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        let dot = byte == b'.' && !text.is_empty() && !text.ends_with('.');
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || dot {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    if text.is_empty() {
        text.push('%');
    }
    if text.len() > FILE_NAME_PART {
        text.truncate(FILE_NAME_PART);
        let _ = write!(text, "%{}", &blake3::hash(name.as_bytes()).to_hex()[..32]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const HOSTILE: [&str; 10] = [
        "a",
        "a.b",
        "a\"b",
        "a\"\"b",
        "..",
        "x'; DROP TABLE y; --",
        "line\nbreak",
        "line\\nbreak",
        "日本",
        ":name",
    ];

    #[test]
    fn identifiers_and_literals_end_where_they_should() {
        assert_eq!(ident("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("a'b\\c"), "E'a''b\\\\c'");
    }

    #[test]
    fn parts_of_distinct_relations_have_distinct_names() {
        let mut seen = BTreeSet::new();
        for a in HOSTILE {
            for b in HOSTILE {
                assert!(seen.insert(part("d", a, b)), "{a:?} {b:?}");
            }
        }
        assert_eq!(part("d", "a.b", "c"), "d.\"a.b\".c");
        assert!(!part("d", "x", "line\nbreak").contains('\n'));
    }

    #[test]
    fn file_names_stay_in_their_folder_and_distinct() {
        let long: Vec<String> = (0..3).map(|i| format!("{}{i}", "x".repeat(300))).collect();
        let names = HOSTILE.iter().map(|n| (*n).to_owned()).chain(long).chain([String::new()]);
        let mut seen = BTreeSet::new();
        for name in names {
            let file = file(&name);
            assert!(!file.contains('/') && !file.starts_with('.') && !file.contains(".."), "{file}");
            assert!(file.len() < 240, "{file}");
            assert!(seen.insert(file));
        }
    }
}
