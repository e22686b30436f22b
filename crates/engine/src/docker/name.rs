//! Names that go into paths of the engine's API.
//!
//! Owns what such a name may look like. A name that could change the meaning of a request (with `/`, `?` or
//! `..`) must never be sent.

use super::DockerError;

/// Longest name that is accepted; Docker's own ids have 64 characters, volume names at most 255 bytes.
const LONGEST: usize = 255;

/// Checks the name or id of a container, volume or network.
pub(super) fn object<'a>(kind: &'static str, name: &'a str) -> Result<&'a str, DockerError> {
    let mut chars = name.bytes();
    let good = chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
        && name.len() <= LONGEST;
    if good { Ok(name) } else { Err(bad(kind, name)) }
}

/// Checks a reference of an image: `name`, `host:5000/path/name:tag`, `name@sha256:...` or `sha256:...`.
pub(super) fn image(reference: &str) -> Result<&str, DockerError> {
    let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-' | b'/' | b':' | b'@');
    let good = reference.bytes().all(known)
        && reference.split('/').all(|part| part.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric()))
        && !reference.contains("..")
        && reference.len() <= 2 * LONGEST;
    if good { Ok(reference) } else { Err(bad("image reference", reference)) }
}

/// Splits a reference into repository and tag (or digest). Without either the tag is `latest`.
pub(super) fn split(reference: &str) -> (&str, &str) {
    if let Some((repository, digest)) = reference.split_once('@') {
        return (repository, digest);
    }
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to the port of a registry.
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

fn bad(kind: &'static str, name: &str) -> DockerError {
    DockerError::BadName { kind, name: name.chars().take(LONGEST).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_a_request_are_refused() {
        for name in
            ["", "-x", "a/b", "../x", "a?force=1", "a b", "a%2e", "a#b", "ä", "a\nb", &"x".repeat(256)]
        {
            assert!(object("volume", name).is_err(), "{name:?}");
        }
        for name in ["a", "app_data.g7", "0123456789abcdef", "A-b"] {
            assert!(object("volume", name).is_ok(), "{name:?}");
        }
        for name in ["", "a?b", "../a", "a//b", "/a", "a b", "a/../b", "a#b", "a%2fb", "a/"] {
            assert!(image(name).is_err(), "{name:?}");
        }
        for name in ["a", "a:1", "host:5000/a/b:1", "a@sha256:00ff", "sha256:00ff", "n8nio/n8n:2.8.4"] {
            assert!(image(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn references_are_split_at_the_right_colon() {
        assert_eq!(split("host:5000/a"), ("host:5000/a", "latest"));
        assert_eq!(split("host:5000/a:2"), ("host:5000/a", "2"));
        assert_eq!(split("a@sha256:00"), ("a", "sha256:00"));
    }
}
