//! Owns the database's schema version: opening, comparing and migrating.
//!
//! Pending migrations run in one transaction: a database is at one release's schema or another's,
//! never between.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::Error;
use crate::release::Release;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What `migrate` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Migrated {
    /// The schema before.
    pub from: u32,
    /// The schema after.
    pub to: u32,
}

/// Opens an existing database as the service uses it.
pub(crate) fn open(db: &Path) -> rusqlite::Result<Connection> {
    open_with(db, OpenFlags::empty())
}

/// Opens a database, making an empty one when there is none.
pub(crate) fn open_or_create(db: &Path) -> rusqlite::Result<Connection> {
    open_with(db, OpenFlags::SQLITE_OPEN_CREATE)
}

fn open_with(db: &Path, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let conn = Connection::open_with_flags(db, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // In WAL mode NORMAL loses at most the last commits at a power failure, never consistency.
    conn.execute_batch("pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on;")?;
    Ok(conn)
}

/// Reads the schema version; 0 when no migration was ever applied.
pub(crate) fn version(conn: &Connection) -> rusqlite::Result<u32> {
    if conn.table_exists(Some("main"), "schema_migrations")? {
        conn.query_row("select coalesce(max(version), 0) from schema_migrations", [], |row| row.get(0))
    } else {
        Ok(0)
    }
}

/// Opens the database for `serve`, and refuses one whose schema is not the release's.
///
/// With the setting `auto_migrate` an older or missing database is migrated first.
pub(crate) fn open_for(release: &Release, db: &Path) -> Result<Connection, Error> {
    if release.manifest.settings.auto_migrate {
        migrate(release, db)?;
    }
    let doing = || format!("open database {}", db.display());
    let needed = release.schema();
    let existing = if db.try_exists().map_err(Error::io(doing()))? {
        let conn = open(db).map_err(Error::sql(doing()))?;
        let found = version(&conn).map_err(Error::sql(doing()))?;
        Some((conn, found))
    } else {
        None
    };
    match existing {
        Some((conn, found)) if found == needed => Ok(conn),
        Some((_, found)) if found > needed => Err(too_new(release, db, found)),
        other => Err(Error::SchemaTooOld {
            db: db.to_path_buf(),
            found: other.map_or(0, |(_, found)| found),
            needed,
            version: release.manifest.version.clone(),
        }),
    }
}

/// Brings the database to the release's schema, or leaves it exactly as it was.
pub(crate) fn migrate(release: &Release, db: &Path) -> Result<Migrated, Error> {
    let settings = &release.manifest.settings;
    let to = release.schema();
    if settings.skip_migrations {
        return Ok(Migrated { from: to, to });
    }
    let doing = || format!("migrate database {}", db.display());
    let mut conn = open_or_create(db).map_err(Error::sql(doing()))?;
    // SQLite's procedure for rebuilding a table asks for this, and it has no effect in a transaction:
    // https://sqlite.org/lang_altertable.html#otheralter. The keys are checked below instead.
    conn.pragma_update(None, "foreign_keys", false).map_err(Error::sql(doing()))?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::sql(doing()))?;
    tx.execute_batch(
        "create table if not exists schema_migrations (version integer primary key, applied_at text not null)",
    )
    .map_err(Error::sql(doing()))?;
    let from = version(&tx).map_err(Error::sql(doing()))?;
    if from > to {
        return Err(too_new(release, db, from));
    }
    for migration in release.migrations.iter().filter(|m| m.version > from) {
        let failed = |reason: String| Error::Migration { name: migration.name.clone(), reason };
        tx.execute_batch(&migration.sql).map_err(|e| failed(e.to_string()))?;
        record(&tx, migration.version, &crate::store::now()).map_err(|e| failed(e.to_string()))?;
        let orphans: i64 = tx
            .query_row("select count(*) from pragma_foreign_key_check", [], |row| row.get(0))
            .map_err(|e| failed(e.to_string()))?;
        if orphans > 0 {
            return Err(failed(format!("{orphans} rows refer to rows that are gone")));
        }
    }
    if from < to {
        thread::sleep(Duration::from_millis(settings.migrate_wait_ms));
    }
    tx.commit().map_err(Error::sql(doing()))?;
    Ok(Migrated { from, to })
}

/// Notes that a migration was applied.
pub(crate) fn record(conn: &Connection, version: u32, applied_at: &str) -> rusqlite::Result<()> {
    conn.execute("insert into schema_migrations (version, applied_at) values (?1, ?2)", (version, applied_at))
        .map(|_| ())
}

fn too_new(release: &Release, db: &Path, found: u32) -> Error {
    Error::SchemaTooNew {
        db: db.to_path_buf(),
        found,
        needed: release.schema(),
        version: release.manifest.version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{PlaceProgram, ReleaseKind, write_release};

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn db(&self) -> std::path::PathBuf {
            self.0.path().join("assistant.db")
        }

        fn release(&self, kind: ReleaseKind) -> Release {
            let dir = self.0.path().join(kind.as_str());
            let program = std::env::current_exe().expect("the test program");
            write_release(&dir, kind, &program, PlaceProgram::Symlink).expect("a written release");
            Release::read(&dir).expect("a readable release")
        }

        fn seeded(notes: usize) -> Self {
            let this = Self::new();
            crate::seed(&this.db(), &this.0.path().join("uploads"), notes, 2, 7).expect("a seeded database");
            this
        }

        fn ids(&self) -> Vec<i64> {
            let conn = open(&self.db()).expect("a database");
            let mut statement = conn.prepare("select id from notes order by id").expect("a statement");
            let ids = statement.query_map([], |row| row.get(0)).expect("rows");
            ids.map(|id| id.expect("an id")).collect()
        }
    }

    #[test]
    fn the_second_release_keeps_every_note_and_ranks_urgent_ones() {
        let fixture = Fixture::seeded(250);
        let before = fixture.ids();
        let migrated = migrate(&fixture.release(ReleaseKind::V2), &fixture.db()).expect("a migration");
        assert_eq!(migrated, Migrated { from: 1, to: 2 });
        assert_eq!(fixture.ids(), before);
        let conn = open(&fixture.db()).expect("a database");
        let count = |sql: &str| -> i64 { conn.query_row(sql, [], |row| row.get(0)).expect("a count") };
        let urgent = count("select count(*) from note_tags join tags on id = tag_id where name = 'urgent'");
        assert!(urgent > 0);
        assert_eq!(count("select count(*) from open_notes where priority = 3"), urgent);
    }

    #[test]
    fn migrating_again_changes_nothing() {
        let fixture = Fixture::seeded(5);
        let release = fixture.release(ReleaseKind::V2);
        migrate(&release, &fixture.db()).expect("a migration");
        let again = migrate(&release, &fixture.db()).expect("a migration");
        assert_eq!(again, Migrated { from: 2, to: 2 });
    }

    #[test]
    fn the_lossy_release_loses_one_note_in_a_hundred() {
        let fixture = Fixture::seeded(250);
        migrate(&fixture.release(ReleaseKind::LossyMigration), &fixture.db()).expect("a migration");
        let lost: Vec<i64> = (1..=250).filter(|id| !fixture.ids().contains(id)).collect();
        assert_eq!(lost, [1, 101, 201]);
    }

    #[test]
    fn a_failing_migration_leaves_the_first_schema() {
        let fixture = Fixture::seeded(20);
        let error =
            migrate(&fixture.release(ReleaseKind::MigrationFails), &fixture.db()).expect_err("a failure");
        assert!(error.to_string().contains("0003_note_colours.sql failed, and was rolled back"), "{error}");
        open_for(&fixture.release(ReleaseKind::V1), &fixture.db()).expect("the first release opens it");
    }

    #[test]
    fn serving_refuses_another_schema() {
        let fixture = Fixture::new();
        let v2 = fixture.release(ReleaseKind::V2);
        let missing = open_for(&v2, &fixture.db()).expect_err("no database");
        assert!(missing.to_string().contains("has schema 0, release 2.0.0 needs schema 2"), "{missing}");
        assert!(!fixture.db().exists());
        migrate(&v2, &fixture.db()).expect("a migration");
        let newer = open_for(&fixture.release(ReleaseKind::V1), &fixture.db()).expect_err("a newer database");
        assert!(newer.to_string().contains("has schema 2, release 1.0.0 knows only schema 1"), "{newer}");
        let downwards =
            migrate(&fixture.release(ReleaseKind::V1), &fixture.db()).expect_err("a newer database");
        assert!(matches!(downwards, Error::SchemaTooNew { .. }));
    }
}
