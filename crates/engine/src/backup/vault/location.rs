//! Where a repository lies, and the key that opens it.

use crate::backup::rclone::Serving;
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir, sync_dir, write_atomic};
use crate::notify::resolve;
use crate::runtime::process::start::read_env_file;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use switchback_core::config::Backup;

/// The key of a repository. It is sent, never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Words of a new key: 160 random bits, in groups that can be copied by hand.
const GROUPS: usize = 8;
/// Letters and digits that are not taken for each other.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl Key {
    /// A new one.
    pub fn generate() -> Result<Self, EngineError> {
        let mut bytes = [0_u8; GROUPS * 4];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        if got.ok() != Some(bytes.len()) {
            return Err(EngineError::Internal { detail: "the system gave too few random bytes".to_owned() });
        }
        let groups: Vec<String> = bytes
            .chunks(4)
            .map(|c| c.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect())
            .collect();
        Ok(Self(groups.join("-")))
    }

    /// The one that somebody typed or a file holds; `None` if there is none.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.len() <= 1024 && !text.contains('\n')).then(|| Self(text.to_owned()))
    }

    /// The text: for its owner, and for the repository.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where a repository lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// A folder: an absolute path.
    Folder(String),
    /// A REST server: `http://...`. It may hold a password.
    Rest(Key),
    /// A bucket of an object store.
    S3(S3Place),
    /// A place that rclone knows.
    Rclone {
        /// `REMOTE:PATH`.
        remote: String,
        /// Where it is served, with a password.
        url: Key,
    },
}

/// A bucket, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Place {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in it, without `/` around it; empty for the bucket itself.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Who asks.
    pub id: Key,
    /// What requests are signed with.
    pub secret: Key,
    /// Of a login that ends.
    pub token: Option<Key>,
}

/// The variables that say who asks for a bucket, as every program names them.
const S3_VARIABLES: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

impl S3Place {
    /// Reads `https://HOST/BUCKET/PREFIX` or `HOST/BUCKET/PREFIX`; `variable` says who asks.
    fn of(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some((scheme, _)) => return Err(format!("s3 is reached by http or https, not by {scheme}")),
            None => ("https", text),
        };
        let mut parts = rest.splitn(3, '/');
        let (host, bucket) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        if host.is_empty() || bucket.is_empty() || host.contains('@') {
            return Err("write s3:https://HOST/BUCKET/FOLDER".to_owned());
        }
        let value = |name: &str| variable(name).filter(|v| !v.trim().is_empty());
        let region = value("AWS_REGION").or_else(|| value("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !region.chars().all(plain) {
            return Err("AWS_REGION is no name of a region".to_owned());
        }
        let key = |name: &str| -> Result<Key, String> {
            value(name).as_deref().and_then(Key::of).ok_or_else(|| {
                format!(
                    "{name} is not set: put {} and {} into `backup.env_file`, or into the environment",
                    S3_VARIABLES[0], S3_VARIABLES[1]
                )
            })
        };
        // The host of all regions sends requests for a bucket in another one somewhere else.
        let host =
            if host == "s3.amazonaws.com" { format!("s3.{region}.amazonaws.com") } else { host.to_owned() };
        Ok(Self {
            endpoint: format!("{scheme}://{host}"),
            bucket: bucket.to_owned(),
            prefix: parts.next().unwrap_or("").trim_matches('/').to_owned(),
            region,
            id: key(S3_VARIABLES[0])?,
            secret: key(S3_VARIABLES[1])?,
            token: value("AWS_SESSION_TOKEN").as_deref().and_then(Key::of),
        })
    }
}

impl Location {
    /// Reads what is written: a folder, `rest:URL`, `s3:URL`. `variable` says who asks for a bucket.
    fn of(text: &str, root: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        if let Some(url) = text.strip_prefix("rest:") {
            return Ok(Self::Rest(Key(url.to_owned())));
        }
        if let Some(place) = text.strip_prefix("s3:") {
            return Ok(Self::S3(S3Place::of(place, variable)?));
        }
        let path: PathBuf = root.join(text).components().collect();
        Ok(Self::Folder(path.to_string_lossy().into_owned()))
    }

    /// Whether what a process of this user writes there is like what is there: helpers write as their own user. Somewhere else than
    /// in a folder, nobody owns anything.
    pub fn is_ours(&self) -> bool {
        let Self::Folder(path) = self else { return true };
        std::fs::metadata(Path::new(path).join("config"))
            .is_ok_and(|m| m.uid() == rustix::process::geteuid().as_raw())
    }

    /// For people: without user and password.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Rclone { remote, .. } => format!("rclone:{remote}"),
            Self::S3(place) => {
                let slash = if place.prefix.is_empty() { "" } else { "/" };
                format!("s3:{}/{}{slash}{}", place.endpoint, place.bucket, place.prefix)
            }
            Self::Rest(url) => {
                let url = url.reveal();
                match (url.find("://"), url.find('@')) {
                    (Some(scheme), Some(at)) if at > scheme => {
                        format!("rest:{}{}", &url[..scheme + 3], &url[at + 1..])
                    }
                    _ => format!("rest:{url}"),
                }
            }
        }
    }
}

/// A repository and its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vault {
    /// Where it lies.
    pub location: Location,
    /// What opens it.
    pub key: Key,
    /// What that key guards, once it opened it: finding that out takes half a second, on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Key>,
    /// What serves it meanwhile.
    #[serde(skip)]
    pub serving: Option<Arc<Serving>>,
}

/// The file that holds the key of a stack's backups.
pub fn key_file(home: &Home, backup: &Backup) -> PathBuf {
    match &backup.key_file {
        Some(path) => home.root().join(path),
        None => home.state().join("backup.key"),
    }
}

impl Vault {
    /// The one of a stack; refused where it has no key yet.
    pub fn of_stack(home: &Home, backup: &Backup) -> Result<Self, EngineError> {
        Self::with_key(home, backup, Self::kept_key(home, backup)?)
    }

    /// The key of a stack's repository; refused where it has none yet.
    pub fn kept_key(home: &Home, backup: &Backup) -> Result<Key, EngineError> {
        let file = key_file(home, backup);
        match std::fs::read_to_string(&file) {
            Ok(text) => Key::of(&text).ok_or_else(|| EngineError::Damaged {
                what: file.clone(),
                detail: "it holds no key: one line of text is expected".to_owned(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(EngineError::refused(
                format!("there is no key for the backups ({})", file.display()),
                "`switchback backup init` makes repository and key; or put the key of a repository that exists into that file",
            )),
            Err(e) => Err(io("read", &file)(e)),
        }
    }

    /// The one of a stack, with a key that was not kept yet.
    pub fn with_key(home: &Home, backup: &Backup, key: Key) -> Result<Self, EngineError> {
        let text = resolve(home, &backup.repository).map_err(|why| {
            EngineError::refused(format!("backup.repository: {why}"), "see switchback.yaml")
        })?;
        let file = backup.env_file.as_ref().map(|path| home.root().join(path));
        Self::at(text.trim(), home.root(), file.as_deref(), key)
    }

    /// The one at a place, as it is written; `variables` is a file with lines `NAME=VALUE` for it, behind which are those of this
    /// process.
    pub fn at(text: &str, root: &Path, variables: Option<&Path>, key: Key) -> Result<Self, EngineError> {
        let known = variables.map(read_env_file).transpose()?.unwrap_or_default();
        if let Some(remote) = text.strip_prefix("rclone:") {
            let serving = Serving::start(remote, &known)?;
            let location = Location::Rclone { remote: remote.to_owned(), url: serving.url().clone() };
            return Ok(Self { location, key, opened: None, serving: Some(Arc::new(serving)) });
        }
        let variable = |name: &str| known.get(name).cloned().or_else(|| std::env::var(name).ok());
        let location = Location::of(text, root, &variable)
            .map_err(|why| EngineError::refused(why, "see `backup.repository` in the documentation"))?;
        Ok(Self { location, key, opened: None, serving: None })
    }
}

/// Keeps a new key, for its owner's eyes only. Refuses to replace one.
pub fn keep_key(file: &Path, key: &Key) -> Result<(), EngineError> {
    if file.exists() {
        return Err(EngineError::refused(
            format!("{} exists already", file.display()),
            "what it opens would be lost with it; move it away yourself",
        ));
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    create_dir(folder)?;
    write_atomic(file, format!("{}\n", key.reveal()).as_bytes())?;
    rustix::fs::chmod(file, Mode::from_raw_mode(0o600)).map_err(|e| io("set the mode of", file)(e.into()))?;
    sync_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password_and_a_key_not_at_all() {
        let at = |text| Location::of(text, Path::new("/srv/stack"), &|_| None).expect("a place");
        assert_eq!(at("../backup"), Location::Folder("/srv/stack/../backup".into()));
        assert_eq!(at("/b").shown(), "/b");
        let secret = at("rest:http://me:pw@host:8000/x/");
        assert_eq!(secret.shown(), "rest:http://host:8000/x/");
        assert!(!format!("{secret:?}").contains("pw"));
        let key = Key::generate().expect("random");
        assert_eq!((key.reveal().len(), key.reveal().matches('-').count()), (39, 7));
        assert_ne!(Key::generate().expect("random"), key);
        assert_eq!(format!("{key:?}"), "(hidden)");
        assert_eq!(Key::of(&format!("  {}\n", key.reveal())), Some(key));
        assert_eq!(Key::of(" \n"), None);
    }

    #[test]
    fn a_bucket_is_asked_for_in_the_name_of_somebody_who_is_not_shown() {
        let known = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("the-id".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("the-secret".to_owned()),
            "AWS_DEFAULT_REGION" => Some("eu-central-1".to_owned()),
            _ => None,
        };
        let at = |text: &str| Location::of(text, Path::new("/"), &known);
        let place = |text: &str| match at(text) {
            Ok(Location::S3(place)) => place,
            other => panic!("{other:?}"),
        };
        let usual = place("s3:s3.amazonaws.com/backups/home/pa/");
        assert_eq!(usual.endpoint, "https://s3.eu-central-1.amazonaws.com");
        assert_eq!((usual.bucket.as_str(), usual.prefix.as_str()), ("backups", "home/pa"));
        let own = at("s3:http://minio.lan:9000/backups").expect("a place");
        assert_eq!(own.shown(), "s3:http://minio.lan:9000/backups");
        assert!(!format!("{own:?}").contains("the-secret"), "{own:?}");
        for (text, why) in [
            ("s3:bucket", "write s3:"),
            ("s3:https://me@host/b", "write s3:"),
            ("s3:ftp://host/b", "not by ftp"),
        ] {
            assert!(at(text).expect_err(text).contains(why));
        }
        let nobody = Location::of("s3:host/bucket", Path::new("/"), &|_| None).expect_err("nobody asks");
        assert!(nobody.contains("AWS_ACCESS_KEY_ID is not set"), "{nobody}");
    }
}
