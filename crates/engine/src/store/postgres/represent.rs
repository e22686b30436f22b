//! Equal values in different representations: 1.0 and 1.00, -0 and 0, numbers inside jsonb.
//!
//! Owns which types have several representations of a value. In doubt two texts are different values.

use super::lines::field;
use super::schema::Column;
use std::borrow::Cow;

fn is_number(column: &Column) -> bool {
    matches!(column.base.as_str(), "numeric" | "int2" | "int4" | "int8" | "float4" | "float8")
}

/// Arrays of numbers (`_numeric`) and jsonb: numbers between other characters.
fn holds_numbers(column: &Column) -> bool {
    matches!(
        column.base.as_str(),
        "jsonb" | "_jsonb" | "_numeric" | "_float4" | "_float8" | "numrange" | "nummultirange"
    )
}

/// Whether two fields (escaped, not identical) hold the same value.
pub(super) fn same_value(before: (&Column, &[u8]), after: (&Column, &[u8])) -> bool {
    let (Some(a), Some(b)) = (field(before.1), field(after.1)) else { return false };
    let (Ok(a), Ok(b)) = (String::from_utf8(a), String::from_utf8(b)) else { return false };
    if is_number(before.0) && is_number(after.0) {
        return plain(&a) == plain(&b);
    }
    holds_numbers(before.0) && before.0.base == after.0.base && normal(&a) == normal(&b)
}

/// A decimal number without superfluous zeros and sign of zero; anything else as it is.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(['e', 'E']) || !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Cow::Borrowed(text);
    }
    let text = match text.split_once('.') {
        Some((_, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => {
            text.trim_end_matches('0').trim_end_matches('.')
        }
        _ => text,
    };
    Cow::Borrowed(if text == "-0" { "0" } else { text })
}

/// A text with every number outside of double quotes made plain.
fn normal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
        if !quoted && (c == '-' || c.is_ascii_digit()) {
            let end = rest.find(|c| !number(c)).unwrap_or(rest.len());
            out.push_str(&plain(&rest[..end]));
            rest = &rest[end..];
            continue;
        }
        let mut step = c.len_utf8();
        if quoted && c == '\\' {
            step += rest[step..].chars().next().map_or(0, char::len_utf8);
        } else if c == '"' {
            quoted = !quoted;
        }
        out.push_str(&rest[..step]);
        rest = &rest[step..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(base: &str, a: &str, b: &str) -> bool {
        let column =
            Column { name: "c".into(), decl: base.into(), base: base.into(), default: None, constant: false };
        same_value((&column, a.as_bytes()), (&column, b.as_bytes()))
    }

    #[test]
    fn scale_and_sign_of_zero_are_representation() {
        assert!(same("numeric", "1.0", "1.00"));
        assert!(same("numeric", "10", "10.0"));
        assert!(same("float8", "-0", "0"));
        assert!(same("jsonb", r#"{"a": 1.50, "b": [2.0]}"#, r#"{"a": 1.5, "b": [2]}"#));
        assert!(same("_numeric", "{1.0,NULL}", "{1,NULL}"));
    }

    #[test]
    fn other_values_stay_different() {
        assert!(!same("numeric", "10", "1"));
        assert!(!same("numeric", "100", "1"));
        assert!(!same("numeric", "1.01", "1.1"));
        assert!(!same("numeric", "NaN", "0"));
        assert!(!same("numeric", "0", "\\N"));
        assert!(!same("text", "1.0", "1.00"));
        assert!(!same("jsonb", r#"{"a": "1.0"}"#, r#"{"a": "1.00"}"#));
        assert!(!same("jsonb", r#"{"a\\"1.0": 1}"#, r#"{"a\\"1.00": 1}"#));
    }
}
