//! Requests to a server that keeps a repository, again where the server or the line failed.

use rustic_core::{ErrorKind, RusticError, RusticResult};
use std::io::Read as _;
use std::thread::sleep;
use std::time::Duration;
use ureq::{Agent, RequestExt as _};

/// Large packs take their time on slow lines.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Attempts in all, where the server or the line fails.
const ATTEMPTS: u32 = 4;
/// The longest file: packs of the library have at most 4 GiB.
const LONGEST: u64 = 4 << 30;

/// A server.
#[derive(Debug)]
pub(super) struct Http {
    /// Its address, for people.
    pub(super) shown: String,
    agent: Agent,
}

impl Http {
    pub(super) fn new(shown: String) -> Self {
        let agent = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        Self { shown, agent: agent.into() }
    }

    pub(super) fn failed(&self, doing: &str, why: &str) -> Box<RusticError> {
        RusticError::new(ErrorKind::Backend, format!("cannot {doing} at {}: {why}", self.shown))
    }

    /// Asks; the statuses in `fine` are answers.
    pub(super) fn ask(
        &self,
        doing: &str,
        method: &str,
        url: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        fine: &[u16],
    ) -> RusticResult<(u16, Vec<u8>)> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut request = ureq::http::Request::builder().method(method).uri(url);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let sent = match body {
                Some(body) => request
                    .body(body)
                    .map_err(ureq::Error::from)
                    .and_then(|r| r.with_agent(&self.agent).run()),
                None => {
                    request.body(()).map_err(ureq::Error::from).and_then(|r| r.with_agent(&self.agent).run())
                }
            };
            let (why, again) = match sent {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let mut content = Vec::new();
                    let read = answer.into_body().into_reader().take(LONGEST).read_to_end(&mut content);
                    match read {
                        Ok(_) if fine.contains(&status) => return Ok((status, content)),
                        Ok(_) => {
                            (format!("status {status}{}", code(&content)), status >= 500 || status == 429)
                        }
                        Err(e) => (e.to_string(), true),
                    }
                }
                Err(e) => (e.to_string(), true),
            };
            if !again || attempt == ATTEMPTS {
                return Err(self.failed(doing, &why));
            }
            sleep(Duration::from_millis(250 << attempt));
        }
    }

    /// A part of a file out of an answer: a server that does not know ranges sends everything.
    pub(super) fn part(
        &self,
        (status, content): (u16, Vec<u8>),
        offset: u32,
        length: u32,
    ) -> RusticResult<bytes::Bytes> {
        let content = bytes::Bytes::from(content);
        let from = if status == 200 { offset as usize } else { 0 };
        let to = from.saturating_add(length as usize);
        if content.len() < to {
            return Err(self.failed("read", "the file is shorter than it should be"));
        }
        Ok(content.slice(from..to))
    }
}

/// What to ask for a part of a file.
pub(super) fn range(offset: u32, length: u32) -> [(&'static str, String); 1] {
    let end = u64::from(offset) + u64::from(length).saturating_sub(1);
    [("range", format!("bytes={offset}-{end}"))]
}

/// The name that an S3 server gives to an error, as ` (AccessDenied)`.
fn code(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(&content[..content.len().min(4096)]);
    let found = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let plain = |name: &&str| name.len() <= 60 && name.chars().all(|c| c.is_ascii_alphanumeric());
    found.map(|(name, _)| name).filter(plain).map(|name| format!(" ({name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{code, range};

    #[test]
    fn the_name_of_an_error_is_told_and_nothing_else_of_an_answer() {
        assert_eq!(
            code(b"<?xml?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>"),
            " (NoSuchBucket)"
        );
        for other in [&b"<Code>\x1b[31m</Code>"[..], b"<Code>", b"", b"\xff\xfe"] {
            assert_eq!(code(other), "");
        }
        assert_eq!(range(10, 5)[0].1, "bytes=10-14");
    }
}
