//! Rows as text that is equal exactly where the values are.
//!
//! Owns how each type is told. Where a part of it is too large for `max_allowed_packet` the server makes the whole NULL, which `sums`
//! and `merge` notice.

use super::names::ident;
use super::schema::{Class, Column, Fresh};

/// A number or time without zeros at the end of its fraction: 1.50 is 1.5, also after the column got more places.
fn trimmed(name: &str) -> String {
    let text = format!("CONCAT({name})");
    format!("IF(LOCATE('.', {text}), TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {text})), {text})")
}

/// A value, never NULL; texts and bytes by their digest.
fn one(column: &Column) -> String {
    let name = ident(&column.name);
    let told = match column.class {
        Class::Text => format!("MD5(CONVERT({name} USING utf8mb4))"),
        Class::Bytes => format!("MD5({name})"),
        Class::Shape => format!("ST_SRID({name}), ':', MD5(ST_AsBinary({name}))"),
        // As text a FLOAT has six digits; as a DOUBLE it has all of them.
        Class::Float => format!("{name} + 0e0"),
        // Without the zeros of ZEROFILL.
        Class::Bits | Class::Integer => format!("{name} + 0"),
        Class::Fraction => trimmed(&name),
        Class::Other => name.clone(),
    };
    let told = match column.class {
        Class::Text | Class::Bytes | Class::Shape => told,
        _ if column.mixed => format!("MD5(CONVERT(CONCAT({told}) USING utf8mb4))"),
        _ => told,
    };
    format!("IF({name} IS NULL, 'n', CONCAT('v', {told}))")
}

/// Whether a row has in a column what it got when the column was added: `|d`, else `|v`.
pub(super) fn as_added(column: &Column) -> String {
    let name = ident(&column.name);
    match column.fresh {
        Fresh::Null => format!("IF({name} IS NULL, '|d', '|v')"),
        Fresh::Default => format!("IF(BINARY {name} <=> BINARY DEFAULT({name}), '|d', '|v')"),
        Fresh::Zero => format!("IF(HEX({name}) IN ('', '0'), '|d', '|v')"),
        Fresh::Own => "'|v'".to_owned(),
    }
}

/// The digest of some columns of a row. Neither digests nor numbers have a `|` in them.
pub(super) fn digest(columns: &[&Column]) -> String {
    let all: Vec<String> = columns.iter().map(|c| one(c)).collect();
    format!("MD5(CONCAT({}))", all.join(", '|', "))
}

/// A value for a person or a file: `n` for NULL, else `v` and hexadecimal digits.
pub(super) fn shown(column: &Column) -> String {
    let name = ident(&column.name);
    let told = match column.class {
        Class::Text => format!("CONVERT({name} USING utf8mb4)"),
        Class::Bytes => name.clone(),
        Class::Shape => format!("CONCAT(ST_SRID({name}), ':', ST_AsText({name}))"),
        Class::Float => format!("CONCAT({name} + 0e0)"),
        Class::Bits => format!("CONCAT({name} + 0)"),
        Class::Integer | Class::Fraction | Class::Other => format!("CONCAT({name})"),
    };
    format!("IF({name} IS NULL, 'n', CONCAT('v', HEX({told})))")
}
