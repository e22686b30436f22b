//! Sums over tables that are equal exactly where the rows are, in whatever order.
//!
//! Owns how they are made: two sums of the halves of each row's MD5 as 64-bit numbers, exact decimals.

use super::names::table as quoted;
use super::represent::digest;
use super::schema::Column;
use super::session::Row;
use super::{MyError, Result};

/// The sum of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub rows: u64,
    pub high: String,
    pub low: String,
}

/// Asks for the sum of some columns; answered by an `s` line with the number.
pub(super) fn query(number: usize, database: &str, table: &str, columns: &[&Column]) -> String {
    let half = |side: &str| format!("IFNULL(SUM(CAST(CONV({side}(h, 16), 16, 10) AS UNSIGNED)), 0)");
    let digest = if columns.is_empty() { "MD5('')".to_owned() } else { digest(columns) };
    format!(
        "SELECT 's', {number}, COUNT(*), COUNT(h), {}, {} FROM (SELECT {digest} AS h FROM {}) q;\n",
        half("LEFT"),
        half("RIGHT"),
        quoted(database, table)
    )
}

/// Takes an `s` line over.
pub(super) fn take(database: &str, row: &Row<'_>) -> Result<(usize, Sum)> {
    let (rows, told): (u64, u64) = (row.number(2)?, row.number(3)?);
    if told < rows {
        return Err(MyError::Unsupported {
            what: format!("database {database:?}"),
            why: "a value is too large to be compared; raise `max_allowed_packet` of the server".to_owned(),
        });
    }
    Ok((row.number(1)?, Sum { rows, high: row.text(4)?.to_owned(), low: row.text(5)?.to_owned() }))
}
