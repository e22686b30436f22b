//! What a masked value looks like.
//!
//! Everything is made from an HMAC-SHA-256 (RFC 2104) of the mask's name and the value, so that the same value becomes the
//! same everywhere, and nobody without the key can tell which it was. The engine's SQL for Postgres makes the very same values
//! inside the server.

use super::words::{CITIES, FIRST_NAMES, LAST_NAMES, LOREM, STREETS};
use super::{Mask, SHORTEST_EMAIL};
use std::fmt::Write as _;

/// The secret that masks are made with. Has no `Debug`: it must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The inner and outer pads of HMAC, in hexadecimal: what a server needs to compute the same.
    pub fn pads(&self) -> (String, String) {
        let pad = |with: u8| {
            let mut text = String::with_capacity(2 * BLOCK);
            for index in 0..BLOCK {
                let byte = self.0.get(index).copied().unwrap_or(0) ^ with;
                let _ = write!(text, "{byte:02x}");
            }
            text
        };
        (pad(0x36), pad(0x5c))
    }

    /// Bytes in hexadecimal, and back: for the way to a helper.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads what [`Key::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn mac(&self, mask: Mask, value: &str) -> [u8; 32] {
        let mut mac = hmac_sha256::HMAC::new(self.0);
        mac.update(mask.as_str());
        mac.update(":");
        mac.update(value);
        mac.finalize()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// By how many days dates are moved: 30 to 364, backwards or forwards; the same for everything.
pub fn days(key: &Key) -> i64 {
    let mac = key.mac(Mask::DateShift, "");
    let days = 30 + i64::from(u16::from_be_bytes([mac[0], mac[1]]) % 335);
    if mac[2].is_multiple_of(2) { days } else { -days }
}

/// A masked text; `limit` is the most characters that it may have. Only for masks that make texts.
pub fn masked(key: &Key, mask: Mask, value: &str, limit: Option<u32>) -> String {
    let mac = key.mac(mask, value);
    let digits = hex(&mac);
    let length = value.chars().count();
    let pick = |list: &[&'static str], byte: usize| list[usize::from(mac[byte]) % list.len()];
    let text = match mask {
        Mask::Email => {
            let room = limit.map_or(16, |l| l.saturating_sub(SHORTEST_EMAIL - 6).min(16) as usize);
            format!("u{}@example.invalid", &digits[..room])
        }
        Mask::Name => format!("{} {}", pick(&FIRST_NAMES, 0), pick(&LAST_NAMES, 1)),
        Mask::Phone => {
            let mut number = 0u64;
            for byte in &mac[..7] {
                number = (number << 8) | u64::from(*byte);
            }
            format!("+999{:09}", number % 1_000_000_000)
        }
        Mask::Address => {
            format!("{} {}, {}", 1 + u32::from(mac[2]) % 200, pick(&STREETS, 0), pick(&CITIES, 1))
        }
        Mask::Text => LOREM.chars().cycle().take(length).collect(),
        Mask::Token => digits.chars().cycle().take(length).collect(),
        Mask::Hash => digits,
        Mask::DateShift | Mask::Null | Mask::Keep => String::new(),
    };
    match limit {
        Some(limit) => text.chars().take(limit as usize).collect(),
        None => text,
    }
}

impl Key {
    /// A masked number of at most 60 bits: [`Mask::Hash`] of its decimal form.
    pub fn number(&self, value: i64) -> i64 {
        let mac = self.mac(Mask::Hash, &value.to_string());
        let mut number = 0i64;
        for byte in &mac[..8] {
            number = (number << 8) | i64::from(*byte);
        }
        (number >> 4) & 0x0fff_ffff_ffff_ffff
    }

    /// Masked bytes: [`Mask::Hash`] of their hexadecimal form.
    pub fn bytes(&self, value: &[u8]) -> Vec<u8> {
        self.mac(Mask::Hash, &hex(value)).to_vec()
    }
}

/// A date or time as SQLite applications write them, moved: `2026-11-27…`; none if it is no date.
pub fn shifted(value: &str, days: i64) -> Option<String> {
    let (date, rest) = (value.get(..10)?, value.get(10..)?);
    let date: jiff::civil::Date = date.parse().ok()?;
    let moved = date.checked_add(jiff::Span::new().try_days(days).ok()?).ok()?;
    Some(format!("{moved}{rest}"))
}
