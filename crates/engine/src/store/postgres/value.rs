//! Values as JSON, without loss.
//!
//! Owns the choice of the JSON type: integers and booleans as such, `bytea` as `{"$blob": base64}`,
//! everything else as the text that Postgres itself would read back, because JSON numbers would round.

use super::lines::field;
use super::schema::Column;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// A field of COPY's text format as JSON.
pub(super) fn json(column: &Column, raw: &[u8]) -> Value {
    let Some(bytes) = field(raw) else { return Value::Null };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // Only databases with the encoding SQL_ASCII hold such text.
        Err(e) => return json!({ "$text_base64": BASE64_STANDARD.encode(e.as_bytes()) }),
    };
    match column.base.as_str() {
        "int2" | "int4" | "int8" => text.parse::<i64>().map_or(Value::String(text), Value::from),
        "bool" if text == "t" || text == "f" => Value::Bool(text == "t"),
        "bytea" => match text.strip_prefix("\\x").and_then(unhex) {
            Some(bytes) => json!({ "$blob": BASE64_STANDARD.encode(bytes) }),
            None => Value::String(text),
        },
        _ => Value::String(text),
    }
}

/// Hexadecimal digits as bytes.
pub(in crate::store) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    if !digits.remainder().is_empty() {
        return None;
    }
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.map(|d| Some(nibble(d[0])? << 4 | nibble(d[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(base: &str) -> Column {
        Column { name: "c".into(), decl: base.into(), base: base.into(), default: None, constant: false }
    }

    #[test]
    fn values_keep_their_exact_form() {
        assert_eq!(json(&column("int8"), b"9223372036854775807"), json!(i64::MAX));
        assert_eq!(json(&column("bool"), b"t"), json!(true));
        assert_eq!(json(&column("numeric"), b"1.00"), json!("1.00"));
        assert_eq!(json(&column("bytea"), b"\\\\x00ff"), json!({ "$blob": "AP8=" }));
        assert_eq!(json(&column("text"), b"\\N"), Value::Null);
        assert_eq!(json(&column("text"), b"a\\nb"), json!("a\nb"));
        assert_eq!(json(&column("text"), b"\xff"), json!({ "$text_base64": "/w==" }));
    }
}
