//! Names: as SQL identifiers and literals, and as parts of a store.
//!
//! Owns all quoting. Every function is total: any text goes in.

use std::fmt::Write as _;

/// A name as an SQL identifier.
pub(super) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table with its database.
pub(super) fn table(database: &str, name: &str) -> String {
    format!("{}.{}", ident(database), ident(name))
}

/// Bytes as an SQL literal, whatever the mode of the server makes of backslashes.
pub(super) fn bytes(text: &str) -> String {
    let mut literal = String::from("X'");
    for byte in text.bytes() {
        let _ = write!(literal, "{byte:02X}");
    }
    literal.push('\'');
    literal
}

/// Text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("_utf8mb4 {}", bytes(text))
}

/// A condition that a column of `information_schema` is exactly this name: the comparison by its collation lets the server look only
/// where it has to, the one by bytes is exact.
pub(super) fn is(column: &str, name: &str) -> String {
    format!("{column} = {} AND BINARY {column} = {}", literal(name), bytes(name))
}

/// `database.table`; distinct names stay distinct.
pub(super) fn part(database: &str, table: &str) -> String {
    use super::super::postgres::names::database as component;
    format!("{}.{}", component(database), component(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_literals_end_where_they_should() {
        assert_eq!(ident("a`; DROP"), "`a``; DROP`");
        assert_eq!(literal("a'"), "_utf8mb4 X'6127'");
        assert_eq!(literal(""), "_utf8mb4 X''");
        assert_eq!(part("d", "a.b"), "d.\"a.b\"");
    }
}
