//! Sessions: what every script begins with, and scripts whose answer is short.
//!
//! Owns the settings that make text output exact and the same on every server. It must never start a script without them.

use super::super::Progress;
use super::super::postgres::lines::Cutter;
use super::super::postgres::value::unhex;
use super::{Client, MyError, Result};

/// Pins everything that text output depends on.
const PREAMBLE: &str = "\
SET NAMES utf8mb4;
SET time_zone = '+00:00';
SET sql_mode = '';
SET SESSION group_concat_max_len = 1048576;
SET SESSION lock_wait_timeout = 30 /*M! , SESSION max_statement_time = 0 */ /*!50708 , SESSION max_execution_time = 0 */;
SET SESSION net_write_timeout = 31536000, SESSION net_read_timeout = 31536000;
SET SESSION sql_select_limit = 18446744073709551615, SESSION sort_buffer_size = 67108864;
SET SESSION innodb_lock_wait_timeout = 30;
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
";

/// The last line of every script: output without it was cut off.
const END: &[u8] = b"end";

/// Databases of the server itself.
const OWN: &str = "'information_schema', 'performance_schema', 'mysql', 'sys'";

/// A script that reads in one snapshot and cannot write.
pub(super) fn reading(body: &str) -> String {
    format!(
        "{PREAMBLE}START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;\n{body}\nCOMMIT;\nSELECT 'end';\n"
    )
}

/// A script whose statements commit one by one, without foreign keys.
pub(super) fn writing(body: &str) -> String {
    format!("{PREAMBLE}SET SESSION foreign_key_checks = 0;\n{body}\nSELECT 'end';\n")
}

/// A line of fields. Whatever could hold a tab or a line break is asked for in hexadecimal digits.
#[derive(Debug)]
pub(super) struct Row<'a> {
    database: &'a str,
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn parse(database: &'a str, line: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(line).map_err(|_| MyError::protocol(database, "it is not UTF-8"))?;
        Ok(Self { database, fields: text.split('\t').collect() })
    }

    pub(super) fn tag(&self) -> &'a str {
        self.fields.first().copied().unwrap_or("")
    }

    pub(super) fn text(&self, i: usize) -> Result<&'a str> {
        let none = || MyError::protocol(self.database, format!("no field {i} in {:?}", self.tag()));
        self.fields.get(i).copied().ok_or_else(none)
    }

    pub(super) fn rest(&self, from: usize) -> &[&'a str] {
        self.fields.get(from..).unwrap_or_default()
    }

    /// A field in hexadecimal digits.
    pub(super) fn name(&self, i: usize) -> Result<String> {
        let text = self.text(i)?;
        let bytes = unhex(text)
            .ok_or_else(|| MyError::protocol(self.database, format!("{text:?} are no hexadecimal digits")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, i: usize) -> Result<T> {
        let text = self.text(i)?;
        text.parse().map_err(|_| MyError::protocol(self.database, format!("{text:?} is not a number")))
    }
}

/// Runs a script, handing over every line but the last.
pub(super) fn each_line(
    client: &dyn Client,
    database: &str,
    sql: &str,
    cancel: &dyn Fn() -> bool,
    mut each: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let mut ended = false;
    let mut failed = None;
    let mut out = Cutter::new(|line: &[u8]| {
        if line == END {
            ended = true;
            return Ok(());
        }
        Row::parse(database, line).and_then(|row| each(&row)).map_err(|e| {
            failed = Some(e);
            std::io::Error::other("refused")
        })
    });
    let result = client.script(database, sql, &mut out, cancel);
    drop(out);
    if let Some(error) = failed {
        return Err(error);
    }
    result?;
    if ended { Ok(()) } else { Err(MyError::protocol(database, "it ended early")) }
}

/// The databases that hold content, sorted.
pub fn databases(client: &dyn Client) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT 'd', HEX(SCHEMA_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ({OWN});"
    );
    let mut found = Vec::new();
    each_line(client, "", &reading(&sql), &|| false, |row| {
        found.push(row.name(1)?);
        Ok(())
    })?;
    found.sort();
    Ok(found)
}

/// The databases asked for; all of them if none was named. One that is missing is an error.
pub(super) fn chosen(client: &dyn Client, wanted: &[String]) -> Result<Vec<String>> {
    let all = databases(client)?;
    if wanted.is_empty() {
        return Ok(all);
    }
    let mut chosen = wanted.to_vec();
    chosen.sort();
    chosen.dedup();
    match chosen.iter().find(|d| !all.contains(d)) {
        Some(missing) => Err(MyError::Unsupported {
            what: format!("database {missing:?}"),
            why: format!("this server has no such database; it has {}", all.join(", ")),
        }),
        None => Ok(chosen),
    }
}

/// What stops a script: the caller's wish.
pub(super) fn cancel<'a>(progress: &'a Progress<'_>) -> impl Fn() -> bool + Sync + 'a {
    || (progress.cancel)()
}
