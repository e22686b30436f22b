//! Keeping a clone from acting on the world.
//!
//! Owns the settings its server must be started with and the SQL that disarms what no setting reaches.
//! It must never be pointed at production: the SQL writes.

use super::names::{ident, literal};
use super::{Psql, Result, names, session};

/// Files that must not be in the data directory of a clone that is to run by itself.
pub const ABSENT_FILES: [&str; 2] = ["standby.signal", "recovery.signal"];

/// Settings that a clone's server of this major version must be started with, as `-c name=value`.
///
/// They win over every configuration file. Names with a dot are accepted by servers without that
/// extension. `synchronous_standby_names` would make every commit wait for a standby that the clone does
/// not have.
pub fn harmless_settings(major: u32) -> Vec<(String, String)> {
    let mut settings = vec![
        ("archive_mode", "off"),
        ("archive_command", ""),
        ("restore_command", ""),
        ("archive_cleanup_command", ""),
        ("recovery_end_command", ""),
        ("max_logical_replication_workers", "0"),
        ("synchronous_standby_names", ""),
        // A server with less does not start on the copy of one that captures.
        ("wal_level", "logical"),
        ("cron.launch_active_jobs", "off"),
        ("timescaledb.max_background_workers", "0"),
        ("pg_partman_bgw.dbname", ""),
    ];
    if major >= 12 {
        settings.extend([("primary_conninfo", ""), ("primary_slot_name", "")]);
    }
    if major >= 15 {
        settings.push(("archive_library", ""));
    }
    if major >= 17 {
        settings.push(("sync_replication_slots", "off"));
    }
    settings.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Settings that a server needs to log which rows are written to; it keeps at most so much of its log for a reader that does not come.
pub fn logging_settings(wal_mib: u64) -> Vec<(String, String)> {
    let settings = [("wal_level", "logical".to_owned()), ("max_slot_wal_keep_size", format!("{wal_mib}MB"))];
    settings.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// A preloaded library that does things by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActingLibrary {
    /// Its name in `shared_preload_libraries`.
    pub name: String,
    /// Whether [`harmless_settings`] keep it quiet; if not, only an isolated network does.
    pub quiet: bool,
    /// What it does.
    pub what: &'static str,
}

/// Libraries that act by themselves: name, whether a setting stops it, what it does.
const ACTING: [(&str, bool, &str); 9] = [
    ("pg_cron", true, "runs jobs by the clock"),
    ("timescaledb", true, "runs its jobs by the clock"),
    ("pg_partman_bgw", true, "maintains partitions by the clock"),
    ("pg_net", false, "sends HTTP requests from a queue"),
    ("pglogical", false, "replicates from and to other servers"),
    ("bdr", false, "replicates from and to other servers"),
    ("pgautofailover", false, "talks to a monitor"),
    ("repmgr", false, "talks to other nodes"),
    ("citus", false, "talks to other nodes"),
];

/// Finds the libraries in `shared_preload_libraries` that act by themselves.
pub fn acting_libraries(preload: &str) -> Vec<ActingLibrary> {
    let loaded = preload.split(',').map(|l| {
        let l = l.trim().trim_matches(['"', '\'']);
        let l = l.rsplit('/').next().unwrap_or(l);
        l.strip_suffix(".so").unwrap_or(l)
    });
    loaded
        .filter_map(|l| ACTING.iter().find(|(name, _, _)| *name == l))
        .map(|(name, quiet, what)| ActingLibrary { name: (*name).to_owned(), quiet: *quiet, what })
        .collect()
}

/// What becomes of subscriptions on a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscriptions {
    /// They stay, disabled and without slot, so that a person can take them up again.
    Disable,
    /// They are dropped.
    Drop,
}

const LIST: &str = "COPY (SELECT 'u', subname, subenabled FROM pg_subscription WHERE subdbid = \
    (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY subname) TO STDOUT;";

/// Disarms subscriptions and drops replication slots of a clone that runs with [`harmless_settings`].
///
/// Never contacts the publisher: the slot is taken from the subscription first. Safe to repeat. Returns
/// what was done, in words.
pub fn make_harmless(psql: &dyn Psql, subscriptions: Subscriptions) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for database in session::databases(psql)? {
        let mut sql = String::new();
        for line in session::lines(psql, &database, &session::reading(LIST), &|| false)? {
            let name = line.text(1)?;
            let quoted = ident(name);
            // A subscription may lose its slot only while it is disabled.
            sql.push_str(&format!(
                "ALTER SUBSCRIPTION {quoted} DISABLE;\nALTER SUBSCRIPTION {quoted} SET (slot_name = NONE);\n"
            ));
            let what = match subscriptions {
                Subscriptions::Disable => "disabled and separated from its slot",
                Subscriptions::Drop => {
                    sql.push_str(&format!("DROP SUBSCRIPTION {quoted};\n"));
                    "dropped"
                }
            };
            done.push(format!("subscription {name} of database {}: {what}", names::database(&database)));
        }
        if !sql.is_empty() {
            session::lines(psql, &database, &session::writing(&sql), &|| false)?;
        }
    }
    let list =
        "COPY (SELECT 'l', slot_name, database FROM pg_replication_slots ORDER BY slot_name) TO STDOUT;";
    for line in session::cluster_lines(psql, &session::reading(list), &|| false)? {
        let name = line.text(1)?;
        // A logical slot can be dropped from any database since it has its own name.
        let sql = format!("COPY (SELECT pg_drop_replication_slot({})::text) TO STDOUT;", literal(name));
        match line.optional(2) {
            Some(database) => session::lines(psql, database, &session::writing(&sql), &|| false)?,
            None => session::cluster_lines(psql, &session::writing(&sql), &|| false)?,
        };
        done.push(format!("replication slot {name} dropped"));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_fit_the_version() {
        let has = |major, name| harmless_settings(major).iter().any(|(k, _)| k == name);
        assert!(!has(14, "archive_library") && has(15, "archive_library"));
        assert!(has(12, "primary_conninfo") && !has(11, "primary_conninfo"));
    }

    #[test]
    fn acting_libraries_are_recognised_however_they_are_written() {
        let found = acting_libraries("pg_stat_statements, \"pg_cron\",'$libdir/pg_net.so'");
        let names: Vec<_> = found.iter().map(|l| (l.name.as_str(), l.quiet)).collect();
        assert_eq!(names, [("pg_cron", true), ("pg_net", false)]);
        assert!(acting_libraries("").is_empty());
    }
}
