//! Reads JUnit XML, as test runners write it.
//!
//! The file is hostile: no entity is ever expanded but the five of XML and numbers; size, depth
//! and the number of cases are bounded.

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};

/// Larger reports are refused.
pub const MAX_BYTES: u64 = 16 << 20;
/// JUnit needs five levels; nested suites a few more.
const MAX_DEPTH: usize = 64;
/// Each case becomes a line of the report.
const MAX_CASES: usize = 100_000;
/// The most text that is kept of one failure.
const MAX_TEXT: usize = 4096;

/// One test case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// `classname::name`.
    pub name: String,
    /// Time in milliseconds, if given.
    pub took_ms: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// How a test case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Passed,
    /// It was left out.
    Skipped,
    /// With a failure or an error: its message.
    Failed(String),
}

/// Why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JunitError {
    /// Not well-formed.
    #[error("not well-formed XML at byte {at}: {why}")]
    Malformed {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// Something is beyond a limit.
    #[error("more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// XML, but of something else.
    #[error("the file has no <testsuite>")]
    NotJunit,
}

/// Reads all test cases of a report.
pub fn parse(xml: &[u8]) -> Result<Vec<Case>, JunitError> {
    if xml.len() as u64 > MAX_BYTES {
        return Err(JunitError::TooMuch { what: "bytes", limit: MAX_BYTES });
    }
    let text = String::from_utf8_lossy(xml);
    let mut reader = Reader::from_str(&text);
    let mut report = Report::default();
    loop {
        let event = reader.read_event();
        let at = reader.buffer_position();
        let malformed = |why: String| JunitError::Malformed { at, why };
        match event.map_err(|e| malformed(e.to_string()))? {
            Event::Start(tag) => report.open(&tag)?,
            Event::Empty(tag) => {
                report.open(&tag)?;
                report.close();
            }
            Event::End(_) => report.close(),
            Event::Text(t) => report.text(&String::from_utf8_lossy(&t)),
            Event::CData(t) => report.text(&String::from_utf8_lossy(&t)),
            Event::GeneralRef(r) => {
                let raw = format!("&{};", String::from_utf8_lossy(&r));
                report.text(&plain(&raw));
            }
            Event::Eof if report.depth == 0 => break,
            Event::Eof => return Err(malformed("the file ends too early".into())),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
    }
    if report.suites == 0 {
        return Err(JunitError::NotJunit);
    }
    Ok(report.cases)
}

#[derive(Default)]
struct Report {
    cases: Vec<Case>,
    suites: u64,
    depth: usize,
    /// Depth of the open test case.
    case: Option<usize>,
    /// Depth of the open failure or error, and whether its message is still only from its text.
    failure: Option<usize>,
}

impl Report {
    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), JunitError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(JunitError::TooMuch { what: "levels", limit: MAX_DEPTH as u64 });
        }
        match tag.local_name().as_ref() {
            b"testsuite" | b"testsuites" => self.suites += 1,
            b"testcase" if self.case.is_none() => {
                let class = attribute(tag, "classname").filter(|c| !c.is_empty());
                let name = attribute(tag, "name").unwrap_or_else(|| "unnamed".into());
                let seconds: f64 =
                    attribute(tag, "time").and_then(|t| t.replace(',', "").parse().ok()).unwrap_or(0.0);
                self.push(class.map_or(name.clone(), |c| format!("{c}::{name}")), seconds)?;
                self.case = Some(self.depth);
            }
            b"skipped" if self.case.is_some() => {
                if let Some(case) = self.cases.last_mut()
                    && case.outcome == Outcome::Passed
                {
                    case.outcome = Outcome::Skipped;
                }
            }
            b"failure" | b"error" if self.failure.is_none() => {
                if self.case.is_none() {
                    // An error of a whole suite (a fixture that broke) has no case of its own.
                    self.push("suite".into(), 0.0)?;
                }
                let message = attribute(tag, "message").unwrap_or_default();
                if let Some(case) = self.cases.last_mut()
                    && !matches!(case.outcome, Outcome::Failed(_))
                {
                    case.outcome = Outcome::Failed(cut(&message));
                }
                self.failure = Some(self.depth);
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, name: String, seconds: f64) -> Result<(), JunitError> {
        if self.cases.len() >= MAX_CASES {
            return Err(JunitError::TooMuch { what: "test cases", limit: MAX_CASES as u64 });
        }
        // Saturates, and gives 0 for nonsense.
        let took_ms = (seconds * 1000.0) as u64;
        self.cases.push(Case { name, took_ms, outcome: Outcome::Passed });
        Ok(())
    }

    fn close(&mut self) {
        if self.failure == Some(self.depth) {
            self.failure = None;
        }
        if self.case == Some(self.depth) {
            self.case = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn text(&mut self, text: &str) {
        if self.failure.is_none() {
            return;
        }
        if let Some(Case { outcome: Outcome::Failed(message), .. }) = self.cases.last_mut()
            && message.len() < MAX_TEXT
        {
            message.push_str(&cut(text));
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// Replaces the entities of XML; text with any other is left as it is.
fn plain(raw: &str) -> String {
    unescape(raw).map_or_else(|_| raw.to_owned(), std::borrow::Cow::into_owned)
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = tag.attributes();
    for attribute in attributes.with_checks(false).filter_map(Result::ok) {
        if attribute.key.local_name().as_ref() == name.as_bytes() {
            return Some(plain(&String::from_utf8_lossy(&attribute.value)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cases_and_failures_are_read() {
        let xml = br#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="4">
            <testcase classname="a" name="ok" time="0.25"/>
            <testcase name="bad &lt;1&gt;"><failure message="1 &amp; 2">at <![CDATA[line <9>]]></failure></testcase>
            <testcase name="skip"><skipped/></testcase>
            <testcase name="err"><error>x &unknown; y</error><system-out>noise</system-out></testcase>
            </testsuite></testsuites>"#;
        let cases = parse(xml).expect("read");
        assert_eq!(cases[0], Case { name: "a::ok".into(), took_ms: 250, outcome: Outcome::Passed });
        assert_eq!(cases[1].name, "bad <1>");
        assert_eq!(cases[1].outcome, Outcome::Failed("1 & 2at line <9>".into()));
        assert_eq!(cases[2].outcome, Outcome::Skipped);
        assert_eq!(cases[3].outcome, Outcome::Failed("x &unknown; y".into()));
        let suite = parse(b"<testsuite><error message='fixture'/></testsuite>").expect("read");
        assert_eq!(suite[0].outcome, Outcome::Failed("fixture".into()));
    }

    #[test]
    fn hostile_reports_are_refused_or_harmless() {
        let bomb = br#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>
            <testsuite><testcase name="&b;"><failure>&b;</failure></testcase></testsuite>"#;
        assert_eq!(parse(bomb).expect("read")[0].outcome, Outcome::Failed("&b;".into()));
        let deep = "<testsuite>".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()), Err(JunitError::TooMuch { what: "levels", limit: 64 }));
        let many = format!("<testsuite>{}</testsuite>", "<testcase/>".repeat(MAX_CASES + 1));
        assert!(matches!(parse(many.as_bytes()), Err(JunitError::TooMuch { what: "test cases", .. })));
        assert!(matches!(parse(&vec![b' '; 17 << 20]), Err(JunitError::TooMuch { what: "bytes", .. })));
        assert!(matches!(parse(b"<testsuite><testcase>"), Err(JunitError::Malformed { .. })));
        assert_eq!(parse(b"<html></html>"), Err(JunitError::NotJunit));
        assert_eq!(parse(b""), Err(JunitError::NotJunit));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            parts in proptest::collection::vec("(<testsuite>|</testsuite>|<testcase name='a'|<failure>|</failure>|<error/>|>|&x;|<!\\[CDATA\\[|\\]\\]>|<skipped/>|</testcase>)", 0..20)
        ) {
            let _ = parse(&bytes);
            let _ = parse(parts.concat().as_bytes());
        }
    }
}
