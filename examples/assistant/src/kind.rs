//! Owns the list of releases there are, good and faulty, and writes them to disk.
//!
//! A release differs from another only by its files: migrations, page and settings.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::release::{Feature, Manifest, Settings};

/// A release that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReleaseKind {
    /// 1.0.0: notes, tags and uploads.
    V1,
    /// 2.0.0: priorities and reminders, with a migration that keeps every row.
    V2,
    /// 2.1.0: its migration loses one note in a hundred, and succeeds.
    LossyMigration,
    /// 2.1.1: adding a note answers 500, while `/health` stays green.
    BrokenWorkflow,
    /// 2.2.0: every request keeps a connection; after 40 the API answers 503.
    LeakyPool,
    /// 2.2.1: exits with status 1 after a while.
    CrashLater,
    /// 2.3.0: `/health` always answers 503.
    NeverHealthy,
    /// 2.3.1: its migration fails and is rolled back.
    MigrationFails,
    /// 2.3.2: its migration never ends.
    MigrationHangs,
    /// 2.3.3: its migration does nothing and says it is done.
    MigrationNoop,
    /// 2.4.0: as 2.0.0, but `serve` migrates.
    AutoMigrate,
    /// 2.5.0: ignores SIGTERM.
    IgnoresTerm,
    /// 2.5.1: `serve` complains and exits with status 0.
    StartFailsExit0,
    /// 2.5.2: the page asks for an address that the program does not have.
    BrokenPage,
    /// 2.6.0: answers of the API come 150 ms later.
    SlowsDown,
    /// 2.6.1: every seventh request to the API is answered with 500.
    FailsSometimes,
    /// 2.6.2: 8 MiB of memory are lost each second.
    LosesMemory,
    /// 2.6.3: three error messages a second, and all works.
    Complains,
}

/// How the program gets into a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceProgram {
    /// Its bytes are copied.
    Copy,
    /// A symbolic link names its absolute path.
    Symlink,
}

/// A name that is no release kind.
#[derive(Debug, thiserror::Error)]
#[error("there is no release kind `{0}`")]
pub struct UnknownKind(String);

type EmbeddedSql = (&'static str, &'static str);

const INITIAL: EmbeddedSql = ("0001_initial.sql", include_str!("../migrations/0001_initial.sql"));
const PRIORITIES: EmbeddedSql =
    ("0002_priorities_and_reminders.sql", include_str!("../migrations/0002_priorities_and_reminders.sql"));
const REBUILD_NOTES: EmbeddedSql =
    ("0003_rebuild_notes.sql", include_str!("../migrations/0003_rebuild_notes.sql"));
const NOTE_SEARCH: EmbeddedSql = ("0003_note_search.sql", include_str!("../migrations/0003_note_search.sql"));
const NOTE_COLOURS: EmbeddedSql =
    ("0003_note_colours.sql", include_str!("../migrations/0003_note_colours.sql"));

/// The first migration's statements, from which `seed` makes a database without a release.
pub(crate) const INITIAL_SQL: &str = INITIAL.1;

/// A day: longer than any time-out, so that to whoever waits it is forever.
const FOREVER_MS: u64 = 24 * 60 * 60 * 1_000;

impl ReleaseKind {
    /// Lists every kind, by version.
    pub fn all() -> &'static [Self] {
        &[
            Self::V1,
            Self::V2,
            Self::LossyMigration,
            Self::BrokenWorkflow,
            Self::LeakyPool,
            Self::CrashLater,
            Self::NeverHealthy,
            Self::MigrationFails,
            Self::MigrationHangs,
            Self::MigrationNoop,
            Self::AutoMigrate,
            Self::IgnoresTerm,
            Self::StartFailsExit0,
            Self::BrokenPage,
            Self::SlowsDown,
            Self::FailsSometimes,
            Self::LosesMemory,
            Self::Complains,
        ]
    }

    /// The kind's name, as written on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::LossyMigration => "lossy-migration",
            Self::BrokenWorkflow => "broken-workflow",
            Self::LeakyPool => "leaky-pool",
            Self::CrashLater => "crash-later",
            Self::NeverHealthy => "never-healthy",
            Self::MigrationFails => "migration-fails",
            Self::MigrationHangs => "migration-hangs",
            Self::MigrationNoop => "migration-noop",
            Self::AutoMigrate => "auto-migrate",
            Self::IgnoresTerm => "ignores-term",
            Self::StartFailsExit0 => "start-fails-exit0",
            Self::BrokenPage => "broken-page",
            Self::SlowsDown => "slows-down",
            Self::FailsSometimes => "fails-sometimes",
            Self::LosesMemory => "loses-memory",
            Self::Complains => "complains",
        }
    }

    /// The version written in the release's manifest.
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
            Self::LossyMigration => "2.1.0",
            Self::BrokenWorkflow => "2.1.1",
            Self::LeakyPool => "2.2.0",
            Self::CrashLater => "2.2.1",
            Self::NeverHealthy => "2.3.0",
            Self::MigrationFails => "2.3.1",
            Self::MigrationHangs => "2.3.2",
            Self::MigrationNoop => "2.3.3",
            Self::AutoMigrate => "2.4.0",
            Self::IgnoresTerm => "2.5.0",
            Self::StartFailsExit0 => "2.5.1",
            Self::BrokenPage => "2.5.2",
            Self::SlowsDown => "2.6.0",
            Self::FailsSometimes => "2.6.1",
            Self::LosesMemory => "2.6.2",
            Self::Complains => "2.6.3",
        }
    }

    /// The schema version that the release works with.
    pub fn schema(self) -> usize {
        self.migrations().len()
    }

    /// The manifest that the release is written with.
    pub fn manifest(self) -> Manifest {
        let features = match self {
            Self::V1 => [].into(),
            _ => [Feature::Priorities, Feature::Reminders].into(),
        };
        Manifest { version: self.version().to_owned(), features, settings: self.settings() }
    }

    fn settings(self) -> Settings {
        let healthy = Settings::default();
        match self {
            Self::LeakyPool => Settings {
                leak_connections: true,
                // Enough for a look at the page and a smoke test, not for an afternoon.
                pool_size: 40,
                pool_wait_ms: 200,
                ..healthy
            },
            Self::CrashLater => Settings {
                // Past a start-up check, within a short soak.
                crash_after_ms: Some(4_000),
                ..healthy
            },
            Self::NeverHealthy => Settings {
                unhealthy_because: Some("the reminder scheduler did not start".to_owned()),
                ..healthy
            },
            Self::MigrationHangs => Settings { migrate_wait_ms: FOREVER_MS, ..healthy },
            Self::MigrationNoop => Settings { skip_migrations: true, ..healthy },
            Self::AutoMigrate => Settings { auto_migrate: true, ..healthy },
            Self::IgnoresTerm => Settings { ignore_term: true, ..healthy },
            Self::StartFailsExit0 => Settings {
                start_error: Some("cannot read the licence key: no such file".to_owned()),
                ..healthy
            },
            Self::SlowsDown => Settings { slow_ms: 150, ..healthy },
            Self::FailsSometimes => Settings { fail_every: 7, ..healthy },
            Self::LosesMemory => Settings { leak_mib_per_s: 8, ..healthy },
            Self::Complains => Settings { complaints_per_s: 3, ..healthy },
            _ => healthy,
        }
    }

    fn migrations(self) -> Vec<EmbeddedSql> {
        let mut files = vec![INITIAL];
        if self != Self::V1 {
            files.push(PRIORITIES);
        }
        files.extend(match self {
            Self::LossyMigration => Some(REBUILD_NOTES),
            Self::BrokenWorkflow => Some(NOTE_SEARCH),
            Self::MigrationFails => Some(NOTE_COLOURS),
            _ => None,
        });
        files
    }

    fn index_html(self) -> String {
        let page = match self {
            Self::V1 => include_str!("../web/v1/index.html"),
            _ => include_str!("../web/v2/index.html"),
        };
        let page = page.replace("{{version}}", self.version());
        match self {
            Self::BrokenPage => page.replace("/api/", "/api/v3/"),
            _ => page,
        }
    }

    fn style_css(self) -> &'static str {
        match self {
            Self::V1 => include_str!("../web/v1/style.css"),
            _ => include_str!("../web/v2/style.css"),
        }
    }
}

impl fmt::Display for ReleaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReleaseKind {
    type Err = UnknownKind;

    /// Accepts a kind's name or its version.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all()
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text || kind.version() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Writes a release to `dir`, replacing the one that is there.
///
/// `dir` gets `bin/assistant`, `migrations/*.sql`, `web/index.html`, `web/style.css` and, last,
/// `release.json`. Other files in `dir` stay.
pub fn write_release(dir: &Path, kind: ReleaseKind, program: &Path, how: PlaceProgram) -> io::Result<()> {
    let migrations = dir.join("migrations");
    match fs::remove_dir_all(&migrations) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => fs::create_dir_all(&migrations)?,
    }
    for (name, sql) in kind.migrations() {
        fs::write(migrations.join(name), sql)?;
    }
    let web = dir.join("web");
    fs::create_dir_all(&web)?;
    fs::write(web.join("index.html"), kind.index_html())?;
    fs::write(web.join("style.css"), kind.style_css())?;
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    place_program(program, &bin, how)?;
    kind.manifest().write(dir)
}

/// Puts the program beside its final name and renames it, since a running program cannot be written to.
fn place_program(program: &Path, bin: &Path, how: PlaceProgram) -> io::Result<()> {
    let new = bin.join(".assistant.new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let program = program.canonicalize()?;
    match how {
        PlaceProgram::Copy => fs::copy(&program, &new).map(|_| ())?,
        PlaceProgram::Symlink => std::os::unix::fs::symlink(&program, &new)?,
    }
    fs::rename(&new, bin.join("assistant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name_and_version() {
        for kind in ReleaseKind::all() {
            assert_eq!(kind.as_str().parse::<ReleaseKind>().ok(), Some(*kind));
            assert_eq!(kind.version().parse::<ReleaseKind>().ok(), Some(*kind));
        }
        assert!("v9".parse::<ReleaseKind>().is_err());
    }

    #[test]
    fn a_written_release_reads_back() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = std::env::current_exe().expect("the test program");
        for kind in ReleaseKind::all() {
            // The same folder each time: a release must not keep migrations of the one before.
            write_release(dir.path(), *kind, &program, PlaceProgram::Symlink).expect("the release");
            let release = crate::release::Release::read(dir.path()).expect("a readable release");
            assert_eq!(release.manifest, kind.manifest());
            assert_eq!(release.schema() as usize, kind.schema());
            assert!(release.read_web("index.html").expect("a page").contains(kind.version()));
            assert!(dir.path().join("bin/assistant").exists());
        }
    }
}
