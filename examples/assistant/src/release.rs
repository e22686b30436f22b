//! Owns what a release directory says: its manifest (`release.json`), migrations and page.
//!
//! Only reads and writes these files; which faulty releases there are is decided in `kind`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The contents of `release.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The release's version, such as `2.0.0`.
    pub version: String,
    /// What its notes can do beyond title, body and tags.
    #[serde(default)]
    pub features: BTreeSet<Feature>,
    /// How the program behaves under this release.
    #[serde(default)]
    pub settings: Settings,
}

/// Something a release's schema and API have beyond 1.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Notes have `priority` and `done`.
    Priorities,
    /// Notes can have reminders.
    Reminders,
}

/// How the program behaves under a release; each default is the healthy behaviour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many database connections there are at most.
    pub pool_size: u32,
    /// How long a request waits for a connection before it is answered with 503.
    pub pool_wait_ms: u64,
    /// Whether each request that used a connection forgets to give it back.
    pub leak_connections: bool,
    /// Whether `serve` migrates an older database by itself.
    pub auto_migrate: bool,
    /// Whether `migrate` says it is done without having done anything.
    pub skip_migrations: bool,
    /// How long `migrate` waits, with its transaction open, before it commits.
    pub migrate_wait_ms: u64,
    /// After which time of service the program exits with status 1.
    pub crash_after_ms: Option<u64>,
    /// Why `/health` answers 503; absent when it answers 200.
    pub unhealthy_because: Option<String>,
    /// Whether SIGTERM is ignored.
    pub ignore_term: bool,
    /// By how much answers of the API come later.
    pub slow_ms: u64,
    /// Which request to the API is answered with 500: every so many; 0 for none.
    pub fail_every: u32,
    /// How much memory is lost.
    pub leak_mib_per_s: usize,
    /// How many error messages `serve` writes.
    pub complaints_per_s: u64,
    /// What `serve` complains about, before it exits with status 0 without serving.
    pub start_error: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // SQLite has one writer at a time; a few readers beside it are all a household needs.
            pool_size: 8,
            // Longer than any statement of this program takes, shorter than a person waits.
            pool_wait_ms: 2_000,
            leak_connections: false,
            auto_migrate: false,
            skip_migrations: false,
            migrate_wait_ms: 0,
            crash_after_ms: None,
            unhealthy_because: None,
            ignore_term: false,
            slow_ms: 0,
            fail_every: 0,
            leak_mib_per_s: 0,
            complaints_per_s: 0,
            start_error: None,
        }
    }
}

impl Manifest {
    /// Reads the manifest of the release in `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("release.json");
        let text = fs::read_to_string(&path).map_err(|e| Error::release(&path, e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| Error::release(&path, e.to_string()))
    }

    /// Writes the manifest of the release in `dir`, replacing the one that is there.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(dir.join("release.json"), text)
    }

    /// Tells whether the release has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// One SQL file of a release.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    /// Its number, from the start of the file name; the schema version it leads to.
    pub version: u32,
    /// Its file name.
    pub name: String,
    /// Its statements.
    pub sql: String,
}

/// A release directory as it was when it was read.
#[derive(Debug)]
pub(crate) struct Release {
    /// Where it is.
    pub dir: PathBuf,
    /// Its `release.json`.
    pub manifest: Manifest,
    /// Its migrations, numbered 1, 2, 3 and so on without a gap.
    pub migrations: Vec<Migration>,
}

impl Release {
    /// Reads the manifest and the migrations of the release in `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest: Manifest::read(dir)?,
            migrations: read_migrations(&dir.join("migrations"))?,
        })
    }

    /// The schema version that the release works with.
    pub fn schema(&self) -> u32 {
        self.migrations.last().map_or(0, |m| m.version)
    }

    /// Reads a file of the page, such as `index.html`.
    pub fn read_web(&self, name: &str) -> Result<String, Error> {
        let path = self.dir.join("web").join(name);
        fs::read_to_string(&path).map_err(|e| Error::release(&path, e.to_string()))
    }
}

fn read_migrations(dir: &Path) -> Result<Vec<Migration>, Error> {
    let mut migrations = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::release(dir, e.to_string()))? {
        let path = entry.map_err(|e| Error::release(dir, e.to_string()))?.path();
        if path.extension().is_none_or(|e| e != "sql") {
            continue;
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let version = name
            .split('_')
            .next()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| Error::release(&path, "its name does not start with a number and `_`"))?;
        let sql = fs::read_to_string(&path).map_err(|e| Error::release(&path, e.to_string()))?;
        migrations.push(Migration { version, name, sql });
    }
    migrations.sort_by_key(|m| m.version);
    for (expected, migration) in (1..).zip(&migrations) {
        if migration.version != expected {
            let reason = format!("expected migration {expected} here: numbers must have no gaps");
            return Err(Error::release(&dir.join(&migration.name), reason));
        }
    }
    if migrations.is_empty() {
        return Err(Error::release(dir, "there are no migrations"));
    }
    Ok(migrations)
}
