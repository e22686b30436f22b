//! Names of images: `registry:5000/path/name:tag@sha256:...`.

use super::ModelError;
use std::fmt;

/// The name of an image, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Registry and path, as written.
    pub repository: String,
    /// The tag, if one is written.
    pub tag: Option<String>,
    /// `sha256:...`, if one is written.
    pub digest: Option<String>,
}

impl ImageName {
    /// Takes a name apart.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let refuse = |why| Err(ModelError::Image { name: text.to_owned(), why });
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest
            && !is_image_id(digest)
        {
            return refuse("after '@' comes sha256: and 64 hexadecimal digits");
        }
        // A ':' before the last '/' belongs to a registry's port.
        let path_at = name.rfind('/').map_or(0, |at| at + 1);
        let (repository, tag) = match name.get(path_at..).and_then(|last| last.rfind(':')) {
            Some(at) => (name.get(..path_at + at).unwrap_or(name), name.get(path_at + at + 1..)),
            None => (name, None),
        };
        if repository.is_empty() || repository.len() > 255 {
            return refuse("it must have 1 to 255 characters");
        }
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '[' | ']');
        if !repository.chars().all(allowed) || repository.split('/').any(str::is_empty) {
            return refuse("only letters, digits, '.', '_', '-' and single '/' may be used");
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return refuse(
                "a tag has 1 to 128 letters, digits, '_', '.' or '-', and starts with none of the last two",
            );
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same image with another tag; a digest would contradict it and is dropped.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ModelError> {
        if !is_tag(tag) {
            let why = "a version has 1 to 128 letters, digits, '_', '.' or '-', and starts with none of the last two";
            return Err(ModelError::Image { name: tag.to_owned(), why });
        }
        Ok(Self { repository: self.repository.clone(), tag: Some(tag.to_owned()), digest: None })
    }

    /// The tag; `latest` if none is written.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// The version for people: the tag, or the beginning of the digest where only that is written.
    pub fn version(&self) -> &str {
        match (&self.tag, &self.digest) {
            (None, Some(digest)) => digest.get(..19).unwrap_or(digest),
            _ => self.tag(),
        }
    }

    /// The last part of the path: `postgres` of `docker.io/library/postgres:15`.
    pub fn base(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether it is `sha256:` and 64 hexadecimal digits.
pub(super) fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Whether it is a tag by the rule of the distribution specification.
pub(super) fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}
