//! What `COPY ... TO STDOUT` prints: lines of fields.
//!
//! Owns cutting the output of psql into lines and fields. It must never hold more than one batch.

use super::{PgError, Result};
use std::io::{self, Write};

/// Undoes the escapes of COPY's text format in one field. `None` is NULL.
pub(super) fn field(raw: &[u8]) -> Option<Vec<u8>> {
    if raw == b"\\N" {
        return None;
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        // The server writes no octal or hexadecimal escapes.
        text.push(match bytes.next() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(&other) => other,
            None => b'\\',
        });
    }
    Some(text)
}

/// The fields of a line, still escaped.
pub(super) fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b'\t')
}

/// A line whose fields are all text.
#[derive(Debug)]
pub(super) struct Texts {
    database: String,
    fields: Vec<Option<String>>,
}

impl Texts {
    pub(super) fn parse(database: &str, line: &[u8]) -> Self {
        let text = |raw| field(raw).map(|f| String::from_utf8_lossy(&f).into_owned());
        Self { database: database.to_owned(), fields: split(line).map(text).collect() }
    }

    pub(super) fn tag(&self) -> &str {
        self.fields.first().and_then(Option::as_deref).unwrap_or("")
    }

    /// A field that may be NULL.
    pub(super) fn optional(&self, i: usize) -> Option<&str> {
        self.fields.get(i).and_then(Option::as_deref)
    }

    pub(super) fn text(&self, i: usize) -> Result<&str> {
        self.optional(i)
            .ok_or_else(|| PgError::protocol(&self.database, format!("no field {i} in {:?}", self.tag())))
    }

    pub(super) fn owned(&self, i: usize) -> Result<String> {
        Ok(self.text(i)?.to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, i: usize) -> Result<T> {
        let text = self.text(i)?;
        text.parse().map_err(|_| PgError::protocol(&self.database, format!("{text:?} is not a number")))
    }

    pub(super) fn flag(&self, i: usize) -> Result<bool> {
        Ok(self.text(i)? == "t")
    }
}

/// Passes complete lines on.
pub(in crate::store) struct Cutter<F: FnMut(&[u8]) -> io::Result<()>> {
    rest: Vec<u8>,
    each: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Cutter<F> {
    pub(in crate::store) fn new(each: F) -> Self {
        Self { rest: Vec::new(), each }
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Cutter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut from = 0;
        while let Some(at) = bytes[from..].iter().position(|b| *b == b'\n') {
            let line = &bytes[from..from + at];
            if self.rest.is_empty() {
                (self.each)(line)?;
            } else {
                self.rest.extend_from_slice(line);
                (self.each)(&self.rest)?;
                self.rest.clear();
            }
            from += at + 1;
        }
        self.rest.extend_from_slice(&bytes[from..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_null_is_not_the_text_of_it() {
        assert_eq!(field(b"\\N"), None);
        assert_eq!(field(b"\\\\N").as_deref(), Some(&b"\\N"[..]));
        assert_eq!(field(b"a\\tb\\nc\\\\d\\r\\b\\f\\v").as_deref(), Some(&b"a\tb\nc\\d\r\x08\x0c\x0b"[..]));
        assert_eq!(field(b"").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn lines_arrive_whole_however_the_output_is_cut() {
        let text = b"one\n\ntwo\tx\nlast";
        for size in 1..=text.len() {
            let mut seen = Vec::new();
            let mut cutter = Cutter::new(|l: &[u8]| {
                seen.push(l.to_vec());
                Ok(())
            });
            for chunk in text.chunks(size) {
                cutter.write_all(chunk).unwrap();
            }
            assert_eq!(seen, [&b"one"[..], b"", b"two\tx"]);
        }
    }
}
