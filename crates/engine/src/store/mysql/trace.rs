//! Tracing what a migration does while it runs: the server's log of slow statements, for which every statement is slow.
//!
//! Owns the settings that a traced server is started with, and reading its log. It must only be used on clones. Locks are not in that
//! log, nor which tables were written anew.

use super::super::Progress;
use super::{Client, Result, session};
use switchback_core::trace::{LogLine, Raw};

/// What a server of a staging environment is started with besides, to be traced. `loose`: MySQL and MariaDB do not know the same ones.
pub const TRACED: [&str; 5] = [
    "--log-output=TABLE",
    "--slow-query-log=1",
    "--long-query-time=0",
    "--loose-log-slow-admin-statements=1",
    "--loose-log-slow-slave-statements=0",
];

/// Who may read that log and switch it off.
pub const MAY: &str = "root";

/// Statements that are read.
const MOST_LINES: u64 = 200_000;

/// Reads what was logged in the last `ago_ms`, or since the server started where nobody knows since when, and ends the logging; `None`
/// where it was not traced.
pub fn read(client: &dyn Client, ago_ms: Option<u64>, progress: &Progress<'_>) -> Result<Option<Raw>> {
    let cancel = || (progress.cancel)();
    let mut since = None;
    // Uptime is a status, which has another place in each of the two servers; this statement is the same.
    let ask = "SELECT 'v', @@GLOBAL.slow_query_log, @@GLOBAL.long_query_time = 0, FIND_IN_SET('TABLE', @@GLOBAL.log_output) > 0;\n\
        SHOW GLOBAL STATUS LIKE 'Uptime';";
    let mut traced = false;
    session::each_line(client, "mysql", &session::reading(ask), &cancel, |row| {
        match row.tag() {
            "v" => traced = (1..=3).all(|i| row.text(i).is_ok_and(|v| v == "1")),
            "Uptime" => since = Some(row.number::<u64>(1)?),
            _ => {}
        }
        Ok(())
    })?;
    let Some(uptime) = since.filter(|_| traced) else { return Ok(None) };
    // From here on nothing is logged: this session neither.
    let off = "SET GLOBAL slow_query_log = 0;";
    session::each_line(client, "mysql", &session::writing(off), &cancel, |_| Ok(()))?;
    let mut raw = Raw { timed: true, ..Raw::default() };
    raw.notes
        .push("this server does not tell locks; what was written anew stands with the comparison".to_owned());
    // A migration may have had a server of its own before this one.
    let ago_us = ago_ms.map_or(uptime.saturating_mul(1_000_000), |ms| ms.saturating_mul(1000));
    let seconds = "UNIX_TIMESTAMP(start_time)";
    // The times are of the server's own zone, as its UNIX_TIMESTAMP takes them.
    let sql = format!(
        "SET SESSION time_zone = @@GLOBAL.time_zone;\n\
         SELECT 'l', HEX(IF(db = '', '-', db)), thread_id, CAST({seconds} * 1000000 AS SIGNED), \
         CAST(TIME_TO_SEC(query_time) * 1000000 + MICROSECOND(query_time) AS UNSIGNED), HEX(LEFT(CONVERT(sql_text USING utf8mb4), 4000)) \
         FROM mysql.slow_log WHERE start_time >= NOW(6) - INTERVAL {ago_us} MICROSECOND \
         ORDER BY start_time LIMIT {MOST_LINES};"
    );
    session::each_line(client, "mysql", &session::reading(&sql), &cancel, |row| {
        if row.tag() != "l" {
            return Ok(());
        }
        let text = row.name(5)?;
        let tag = tag(&text);
        let took_us: u64 = row.number(4)?;
        if text.starts_with('#') || own(&text) || tag.is_empty() {
            return Ok(());
        }
        if matches!(tag.as_str(), "SELECT" | "SHOW") {
            raw.reads.0 += 1;
            raw.reads.1 += took_us;
            return Ok(());
        }
        raw.lines.push(LogLine {
            database: row.name(1)?,
            pid: row.number(2)?,
            ended_us: row.number(3)?,
            took_us,
            tag,
            transaction: String::new(),
            text,
        });
        Ok(())
    })?;
    if raw.lines.len() as u64 + raw.reads.0 >= MOST_LINES {
        raw.notes.push(format!("more than {MOST_LINES} statements were logged; the later ones are left out"));
    }
    Ok(Some(raw))
}

/// Statements that Switchback asked of the server meanwhile.
fn own(text: &str) -> bool {
    [
        "@@GLOBAL.slow_query_log",
        "SET GLOBAL slow_query_log",
        "SESSION net_write_timeout",
        "SESSION sql_select_limit",
    ]
    .iter()
    .any(|part| text.contains(part))
}

/// What a statement is: its first word, and the second one of those that define something. Nothing for what only sets up a session.
fn tag(text: &str) -> String {
    let mut text = text.trim_start();
    while let Some((_, after)) = text.strip_prefix("/*").and_then(|inside| inside.split_once("*/")) {
        text = after.trim_start();
    }
    let mut words = text
        .split_whitespace()
        .map(|w| w.trim_matches(|c: char| !c.is_ascii_alphabetic()).to_ascii_uppercase());
    let first = words.by_ref().find(|w| !w.is_empty()).unwrap_or_default();
    if matches!(
        first.as_str(),
        "SET" | "USE" | "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "PREPARE" | "DEALLOCATE"
    ) {
        return String::new();
    }
    if !matches!(first.as_str(), "CREATE" | "ALTER" | "DROP" | "RENAME" | "TRUNCATE") {
        return first;
    }
    const KINDS: [&str; 9] =
        ["TABLE", "INDEX", "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "DATABASE", "USER", "EVENT"];
    match words.take(6).find(|w| KINDS.contains(&w.as_str())) {
        Some(kind) => format!("{first} {kind}"),
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn a_statement_is_named_by_what_it_does() {
        for (text, named) in [
            ("alter table `orders` add column x int", "ALTER TABLE"),
            ("CREATE UNIQUE INDEX i ON t (x)", "CREATE INDEX"),
            ("create or replace algorithm=merge view v as select 1", "CREATE VIEW"),
            ("DROP TABLE IF EXISTS t", "DROP TABLE"),
            ("truncate t", "TRUNCATE"),
            ("/* tool */ update t set x = 1", "UPDATE"),
            ("INSERT INTO t VALUES (1)", "INSERT"),
            ("SET NAMES utf8mb4", ""),
            ("COMMIT", ""),
            ("", ""),
        ] {
            assert_eq!(tag(text), named, "{text}");
        }
    }
}
