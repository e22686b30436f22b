//! Room that tables and indexes take more than their rows need.
//!
//! Owns when it is told: sizes say little about small tables, and rows may have become wider for a reason. It decides nothing.

use super::schema::Table;
use switchback_core::duration::human_bytes;

/// Less than this is not told.
const WORTH: u64 = 1 << 20;
/// What a table may grow beyond its rows without being told, in percent.
const PERCENT: u64 = 30;

/// What there is to tell of a table that had and has so many rows.
pub(super) fn notes(before: &Table, after: &Table, (was, is): (u64, u64)) -> Vec<String> {
    let mut notes = Vec::new();
    let grown = |old: u64, new: u64| {
        // More rows take more room.
        let rows = u128::from(is.max(1)).max(u128::from(was.max(1)));
        let expected = u128::from(old) * rows / u128::from(was.max(1));
        let limit = expected * u128::from(100 + PERCENT) / 100 + u128::from(WORTH);
        was > 0 && u128::from(new) > limit
    };
    if grown(before.bytes, after.bytes) {
        let dead = match after.dead {
            0 => String::new(),
            rows => format!(", {rows} dead rows among it"),
        };
        notes.push(format!(
            "takes {} on the disk instead of {}{dead}: what rewritten rows leave is used again after a VACUUM, and given back by VACUUM FULL only",
            human_bytes(after.bytes),
            human_bytes(before.bytes)
        ));
    }
    if grown(before.index_bytes, after.index_bytes) {
        notes.push(format!(
            "its indexes take {} instead of {}",
            human_bytes(after.index_bytes),
            human_bytes(before.index_bytes)
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::schema::Kind;
    use super::*;

    fn table(mib: u64, index_mib: u64, dead: u64) -> Table {
        Table {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            kind: Kind::Table,
            populated: true,
            bytes: mib << 20,
            index_bytes: index_mib << 20,
            dead,
            columns: Vec::new(),
            key: Vec::new(),
        }
    }

    #[test]
    fn growth_beyond_the_rows_is_told_and_other_growth_is_not() {
        let told = notes(&table(100, 10, 0), &table(200, 10, 1000), (1000, 1000));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("1000 dead rows"), "{told:?}");
        let quiet = [
            // Twice the rows, little, wider by a quarter, empty before, and smaller.
            notes(&table(100, 10, 0), &table(200, 20, 0), (1000, 2000)),
            notes(&table(0, 0, 0), &table(1, 1, 500), (1000, 1000)),
            notes(&table(100, 10, 0), &table(125, 10, 0), (1000, 1000)),
            notes(&table(0, 0, 0), &table(500, 50, 0), (0, 1000)),
            notes(&table(100, 10, 0), &table(50, 5, 0), (1000, 1000)),
        ];
        assert!(quiet.iter().all(Vec::is_empty), "{quiet:?}");
        assert_eq!(notes(&table(100, 10, 0), &table(100, 40, 0), (1000, 1000)).len(), 1);
    }
}
