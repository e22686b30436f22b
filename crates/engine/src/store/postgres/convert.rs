//! Moving a cluster to another major version by dump and restore: what the new one is made like, what is taken over.
//!
//! Owns the arguments of `initdb`, the script that loads, and which settings go along. It starts no server; both must be on
//! clones.

use super::names::ident;
use super::{PgError, Psql, Result, session};
use std::collections::{BTreeMap, BTreeSet};

/// What a new cluster must be made like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The role that made the cluster.
    pub owner: String,
    /// Bytes of all databases.
    pub bytes: u64,
    encoding: String,
    collate: String,
    ctype: String,
    provider: String,
    locale: Option<String>,
    checksums: bool,
    segment_bytes: u64,
}

const SHAPE: &str = "COPY (SELECT 's', (SELECT rolname FROM pg_roles WHERE oid = 10), pg_encoding_to_char(encoding), datcollate, \
    datctype, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'), coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'), \
    current_setting('data_checksums') = 'on', pg_size_bytes(current_setting('wal_segment_size')), \
    (SELECT sum(pg_database_size(oid))::bigint FROM pg_database) FROM pg_database d WHERE datname = 'template0') TO STDOUT;";

/// Reads what a cluster is like.
pub fn shape(psql: &dyn Psql) -> Result<Shape> {
    let lines = session::cluster_lines(psql, &session::reading(SHAPE), &|| false)?;
    let line = lines.first().ok_or_else(|| PgError::protocol("postgres", "there is no template0"))?;
    Ok(Shape {
        owner: line.owned(1)?,
        encoding: line.owned(2)?,
        collate: line.owned(3)?,
        ctype: line.owned(4)?,
        provider: line.owned(5)?,
        locale: line.optional(6).map(str::to_owned),
        checksums: line.flag(7)?,
        segment_bytes: line.number(8)?,
        bytes: line.number(9)?,
    })
}

impl Shape {
    /// Arguments for the `initdb` of a major version.
    pub fn initdb(&self, major: u32) -> Vec<String> {
        let mut args = vec![
            format!("--username={}", self.owner),
            format!("--encoding={}", self.encoding),
            format!("--lc-collate={}", self.collate),
            format!("--lc-ctype={}", self.ctype),
            format!("--wal-segsize={}", self.segment_bytes >> 20),
        ];
        match (self.provider.as_str(), &self.locale) {
            ("i", Some(locale)) => {
                args.extend(["--locale-provider=icu".to_owned(), format!("--icu-locale={locale}")]);
            }
            ("b", Some(locale)) => {
                args.extend(["--locale-provider=builtin".to_owned(), format!("--builtin-locale={locale}")]);
            }
            _ => {}
        }
        match (self.checksums, major >= 18) {
            (true, _) => args.push("--data-checksums".to_owned()),
            // From this version on they are the default.
            (false, true) => args.push("--no-data-checksums".to_owned()),
            (false, false) => {}
        }
        args.extend(["--auth=trust", "--no-sync", "--no-instructions"].map(str::to_owned));
        args
    }

    /// The line of a dump that would make the role that is there already.
    pub fn first_role(&self) -> String {
        format!("CREATE ROLE {};", ident(&self.owner))
    }
}

/// Loads everything of one server into another; for `sh`, with the folders of both sockets, the role and [`Shape::first_role`].
/// Prints the size of the new cluster (its folder is the last argument) in KiB, a line every second. The loop reads no
/// further than the line that is left out; the rest passes untouched. Nothing is killed, and everything is waited for: the server is the
/// first process of its container, would inherit what nobody waits for, take it for one of its own that crashed, and begin anew from its log.
pub const LOAD: &str = r#"
from=$1 to=$2 user=$3 line=$4 new=$5
( while sleep 1; [ ! -e "$new.loaded" ]; do du -sk "$new" 2>/dev/null; done ) &
watch=$!
trap ': >"$new.loaded"; wait $watch' EXIT
{ pg_dumpall -h "$from" -U "$user" --quote-all-identifiers; echo $? >"$new.dumped"; } |
    { while IFS= read -r l; do [ "$l" = "$line" ] && break; printf '%s\n' "$l"; done; cat; } |
    psql -X -q -v ON_ERROR_STOP=1 -h "$to" -U "$user" -d postgres -f - >/dev/null || exit 1
[ "$(cat "$new.dumped")" = 0 ]
"#;

/// Settings of a cluster that is only being loaded: if it is interrupted, it is thrown away.
pub const LOADING: [&str; 13] = [
    // What was committed last is not on the disk: with a process that crashed, all of it is begun anew.
    "restart_after_crash=off",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=16GB",
    "checkpoint_timeout=1h",
    "maintenance_work_mem=256MB",
    // The shared memory of a container is small.
    "dynamic_shared_memory_type=mmap",
    "listen_addresses=",
    "port=5432",
];

const OBJECTS: &str = "COPY (SELECT 'o', what FROM ( \
    SELECT 'relation ' || n.nspname || '.' || c.relname || ' (' || c.relkind::text || ')', n.nspname, 'pg_class'::regclass, c.oid \
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I', 'c') \
    UNION ALL SELECT 'constraint ' || n.nspname || '.' || coalesce(r.relname || '.', '') || k.conname, n.nspname, 'pg_constraint'::regclass, k.oid \
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace LEFT JOIN pg_class r ON r.oid = k.conrelid WHERE k.contype <> 'n' \
    UNION ALL SELECT 'trigger ' || n.nspname || '.' || r.relname || '.' || t.tgname, n.nspname, 'pg_trigger'::regclass, t.oid \
        FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid JOIN pg_namespace n ON n.oid = r.relnamespace WHERE NOT t.tgisinternal \
    UNION ALL SELECT 'function ' || n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', n.nspname, \
        'pg_proc'::regclass, p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
    UNION ALL SELECT 'policy ' || n.nspname || '.' || r.relname || '.' || p.polname, n.nspname, 'pg_policy'::regclass, p.oid \
        FROM pg_policy p JOIN pg_class r ON r.oid = p.polrelid JOIN pg_namespace n ON n.oid = r.relnamespace \
    ) AS found(what, nspname, class, oid) WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT EXISTS \
    (SELECT FROM pg_depend d WHERE d.classid = found.class AND d.objid = found.oid AND d.deptype = 'e')) TO STDOUT;";

/// Names of everything that a dump makes besides rows: tables, indexes, constraints, triggers, functions and policies, with their database.
/// Those of extensions, which another version of the server has others of, are left out.
pub fn objects(psql: &dyn Psql) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for database in session::chosen(psql, &[])? {
        for line in session::lines(psql, &database, &session::reading(OBJECTS), &|| false)? {
            found.insert(format!("{database}: {}", line.owned(1)?));
        }
    }
    Ok(found)
}

/// Settings that name places, and would lead away from the new cluster.
const PLACES: [&str; 5] = ["config_file", "data_directory", "external_pid_file", "hba_file", "ident_file"];

const FILE_SETTINGS: &str = "COPY (SELECT 'f', name, setting FROM pg_file_settings WHERE error IS NULL AND name IS NOT NULL \
    AND setting IS NOT NULL AND sourcefile LIKE current_setting('data_directory') || '/%' ORDER BY seqno) TO STDOUT;";
const KNOWN_SETTINGS: &str =
    "COPY (SELECT 'k', name FROM pg_settings WHERE context <> 'internal') TO STDOUT;";

/// Settings of the old cluster's own files that the new one does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Lines for its `postgresql.auto.conf`.
    pub lines: String,
    /// Names that were taken over.
    pub taken: Vec<String>,
    /// Names that the new version does not know.
    pub unknown: Vec<String>,
}

/// Finds out which settings go along.
pub fn settings(old: &dyn Psql, new: &dyn Psql) -> Result<Settings> {
    let files = |psql: &dyn Psql| -> Result<BTreeMap<String, String>> {
        let lines = session::cluster_lines(psql, &session::reading(FILE_SETTINGS), &|| false)?;
        lines.iter().map(|l| Ok((l.owned(1)?, l.owned(2)?))).collect()
    };
    let (was, is) = (files(old)?, files(new)?);
    let known = session::cluster_lines(new, &session::reading(KNOWN_SETTINGS), &|| false)?;
    let known: Vec<&str> = known.iter().filter_map(|l| l.optional(1)).collect();
    let mut found = Settings::default();
    for (name, value) in was {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if is.get(&name) == Some(&value) || PLACES.contains(&name.as_str()) || !plain {
            continue;
        }
        // Settings of extensions are known only once those are loaded.
        if !known.contains(&name.as_str()) && !name.contains('.') {
            found.unknown.push(name);
            continue;
        }
        if value.contains(['\n', '\r']) {
            found.unknown.push(name);
            continue;
        }
        found.lines.push_str(&format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")));
        found.taken.push(name);
    }
    Ok(found)
}
