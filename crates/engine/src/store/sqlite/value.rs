//! SQLite values: exact encoding, order and JSON.
//!
//! Owns what "equal" means: the same storage class and the same bytes. The one exception is -0.0,
//! which SQLite itself prints and compares as 0.0.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use std::cmp::Ordering;

fn real_bits(real: f64) -> u64 {
    if real == 0.0 { 0 } else { real.to_bits() }
}

/// Appends the canonical form: a type tag, then a fixed-size value or length and bytes.
pub(super) fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => out.push(0),
        ValueRef::Integer(n) => {
            out.push(1);
            out.extend_from_slice(&n.to_le_bytes());
        }
        ValueRef::Real(r) => {
            out.push(2);
            out.extend_from_slice(&real_bits(r).to_le_bytes());
        }
        ValueRef::Text(bytes) => {
            out.push(3);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        ValueRef::Blob(bytes) => {
            out.push(4);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

/// Whether two values are the same in type and bytes.
pub(super) fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Null, ValueRef::Null) => true,
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a == b,
        (ValueRef::Real(a), ValueRef::Real(b)) => real_bits(a) == real_bits(b),
        (ValueRef::Text(a), ValueRef::Text(b)) | (ValueRef::Blob(a), ValueRef::Blob(b)) => a == b,
        _ => false,
    }
}

/// The byte order of text under BINARY, which is that of the database's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextOrder {
    Utf8,
    Utf16Le,
    Utf16Be,
}

impl TextOrder {
    pub(super) fn of(encoding: &str) -> Self {
        match encoding {
            "UTF-16le" => Self::Utf16Le,
            "UTF-16be" => Self::Utf16Be,
            _ => Self::Utf8,
        }
    }

    fn cmp(self, a: &[u8], b: &[u8]) -> Ordering {
        let units = |text: &[u8]| String::from_utf8_lossy(text).encode_utf16().collect::<Vec<_>>();
        match self {
            Self::Utf8 => a.cmp(b),
            Self::Utf16Be => units(a).cmp(&units(b)),
            Self::Utf16Le => {
                let swapped = |t| units(t).into_iter().map(u16::swap_bytes).collect::<Vec<_>>();
                swapped(a).cmp(&swapped(b))
            }
        }
    }
}

/// The order of `ORDER BY x COLLATE BINARY`: NULL, numbers, text, blobs (sqlite.org/datatype3.html).
pub(super) fn order(a: ValueRef<'_>, b: ValueRef<'_>, text: TextOrder) -> Ordering {
    match (a, b) {
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        (ValueRef::Real(a), ValueRef::Real(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (ValueRef::Integer(a), ValueRef::Real(b)) => int_real(a, b),
        (ValueRef::Real(a), ValueRef::Integer(b)) => int_real(b, a).reverse(),
        (ValueRef::Text(a), ValueRef::Text(b)) => text.cmp(a, b),
        (ValueRef::Blob(a), ValueRef::Blob(b)) => a.cmp(b),
        _ => class(a).cmp(&class(b)),
    }
}

fn class(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 1,
        ValueRef::Text(_) => 2,
        ValueRef::Blob(_) => 3,
    }
}

/// Like [`order`], and an integer before an equal real, as `ORDER BY x, typeof(x)` has it.
pub(super) fn order_typed(a: ValueRef<'_>, b: ValueRef<'_>, text: TextOrder) -> Ordering {
    let rank = |v| matches!(v, ValueRef::Real(_));
    order(a, b, text).then_with(|| rank(a).cmp(&rank(b)))
}

/// Compares exactly, as SQLite does: no rounding of large integers.
fn int_real(int: i64, real: f64) -> Ordering {
    // 2^63 as a real; every i64 lies in -2^63 .. 2^63.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if real >= LIMIT {
        return Ordering::Less;
    }
    if real < -LIMIT {
        return Ordering::Greater;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "in range by the checks above; the fraction is compared next"
    )]
    let whole = real.trunc() as i64;
    int.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&real.fract()).unwrap_or(Ordering::Equal))
}

/// The value as JSON, without loss.
pub(super) fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(r) => match serde_json::Number::from_f64(r) {
            Some(number) => Value::Number(number),
            None => json!({ "$real": if r.is_nan() { "nan" } else if r > 0.0 { "inf" } else { "-inf" } }),
        },
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ "$text_base64": BASE64_STANDARD.encode(bytes) }),
        },
        ValueRef::Blob(bytes) => json!({ "$blob": BASE64_STANDARD.encode(bytes) }),
    }
}
