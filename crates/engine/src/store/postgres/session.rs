//! Sessions: what every script begins with, and scripts whose answer is short.
//!
//! Owns the settings that make text output exact and the same on every server. It must never start a
//! script without them.

use super::super::Progress;
use super::lines::{Cutter, Texts};
use super::{PgError, Psql, Result};

/// The longest wait for a lock that is going on (ms), the connections of clients, and the most there can be. Before version 14
/// the beginning of the statement stands for that of the wait.
pub const SESSIONS: &str = "\
SELECT (SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - \
COALESCE((to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start))) * 1000, 0)::bigint \
FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted) \
|| ' ' || (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') \
|| ' ' || current_setting('max_connections')";

/// Transactions of all databases so far, also those that were rolled back. What a session did is counted once a second at the most.
pub const TRANSACTIONS: &str = "SELECT COALESCE(sum(xact_commit + xact_rollback), 0)::bigint FROM pg_stat_database WHERE datname IS NOT NULL";

/// Pins everything that text output depends on; `row_security = off` turns silently missing rows into
/// an error. `VERBOSITY verbose` adds the SQLSTATE. A database of the encoding SQL_ASCII may hold any bytes,
/// which the server would refuse to send as UTF-8; `\gset` keeps an answer from being printed. Our own statements are told from others
/// by the name `switchback` in them.
const PREAMBLE: &str = "\
\\set VERBOSITY verbose
\\set ON_ERROR_STOP 1
SELECT pg_catalog.set_config('client_encoding', CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false) AS switchback \\gset
SET client_min_messages = error;
SET application_name = 'switchback';
SET standard_conforming_strings = on;
SET search_path = pg_catalog;
SET \"TimeZone\" = 'UTC';
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET lc_monetary = 'C';
SET quote_all_identifiers = off;
SET row_security = off;
SET statement_timeout = 0;
SET lock_timeout = '30s';
SET idle_in_transaction_session_timeout = 0;
SET jit = off;
";

/// The last line of every script: output without it was cut off.
pub(super) const END: &[u8] = b"end";

/// Databases asked about the cluster: the first that exists. `template1` only as the last resort, because
/// a session in it keeps others from creating databases.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// A script that reads in one snapshot and cannot write.
pub(super) fn reading(body: &str) -> String {
    format!(
        "{PREAMBLE}BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n{body}\nCOMMIT;\nCOPY (SELECT 'end') TO STDOUT;\n"
    )
}

/// A script whose statements commit one by one.
pub(super) fn writing(body: &str) -> String {
    format!("{PREAMBLE}{body}\nCOPY (SELECT 'end') TO STDOUT;\n")
}

/// Runs a script, handing over every line but the last.
pub(super) fn each_line(
    psql: &dyn Psql,
    database: &str,
    sql: &str,
    cancel: &dyn Fn() -> bool,
    mut each: impl FnMut(Texts) -> Result<()>,
) -> Result<()> {
    let mut ended = false;
    let mut failed = None;
    let mut out = Cutter::new(|line: &[u8]| {
        if line == END {
            ended = true;
            return Ok(());
        }
        each(Texts::parse(database, line)).map_err(|e| {
            failed = Some(e);
            std::io::Error::other("refused")
        })
    });
    let result = psql.script(database, sql, &mut out, cancel);
    drop(out);
    if let Some(error) = failed {
        return Err(error);
    }
    result?;
    if ended { Ok(()) } else { Err(PgError::protocol(database, "it ended early")) }
}

/// Runs a script and returns its lines.
pub(super) fn lines(
    psql: &dyn Psql,
    database: &str,
    sql: &str,
    cancel: &dyn Fn() -> bool,
) -> Result<Vec<Texts>> {
    let mut all = Vec::new();
    each_line(psql, database, sql, cancel, |line| {
        all.push(line);
        Ok(())
    })?;
    Ok(all)
}

/// Runs a script about the cluster as a whole, in whatever database can be used for that.
pub(super) fn cluster_lines(psql: &dyn Psql, sql: &str, cancel: &dyn Fn() -> bool) -> Result<Vec<Texts>> {
    match lines(psql, MAINTENANCE[0], sql, cancel) {
        Err(PgError::Server { sqlstate, message, .. })
            if sqlstate.is_empty() && message.contains(&format!("\"{}\"", MAINTENANCE[0])) =>
        {
            lines(psql, MAINTENANCE[1], sql, cancel)
        }
        other => other,
    }
}

/// The databases that hold content: neither templates nor closed to connections, sorted.
pub fn databases(psql: &dyn Psql) -> Result<Vec<String>> {
    let sql = reading(
        "COPY (SELECT 'd', datname FROM pg_database WHERE datallowconn AND NOT datistemplate \
         ORDER BY datname COLLATE \"C\") TO STDOUT;",
    );
    cluster_lines(psql, &sql, &|| false)?.iter().map(|l| l.owned(1)).collect()
}

/// The databases asked for; all of them if none was named. One that is missing is an error.
pub(super) fn chosen(psql: &dyn Psql, wanted: &[String]) -> Result<Vec<String>> {
    let all = databases(psql)?;
    if wanted.is_empty() {
        return Ok(all);
    }
    let mut chosen = wanted.to_vec();
    chosen.sort();
    chosen.dedup();
    match chosen.iter().find(|d| !all.contains(d)) {
        Some(missing) => Err(PgError::Unsupported {
            what: format!("database {missing:?}"),
            why: format!("this server has no such database that can be read; it has {}", all.join(", ")),
        }),
        None => Ok(chosen),
    }
}

/// What stops a script: the caller's wish.
pub(super) fn cancel<'a>(progress: &'a Progress<'_>) -> impl Fn() -> bool + 'a {
    || (progress.cancel)()
}
