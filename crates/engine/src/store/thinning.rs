//! Fewer rows, and still a database that makes sense: which statements leave a share of the rows of large tables.
//!
//! Owns the order and the conditions; dialects own how they are written. It knows no server. Rows go parents first, so that
//! children follow the parents that are gone, and a share is left of each family and not of each table alone. Small tables, and what
//! they refer to, are kept: settings, roles and accounts are what an application does not start without.

use std::collections::BTreeSet;

/// Tables with fewer rows are kept whole: they hold settings, and no migration takes long on them.
pub const LARGE: u64 = 1000;
/// Rows can refer to rows that refer to rows; longer chains than this have no end but a circle.
pub const ROUNDS: usize = 32;

/// A table with its rows.
#[derive(Debug, Clone)]
pub struct Table {
    /// Quoted, as a statement names it.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Kept whole, whatever its size.
    pub whole: bool,
}

/// A foreign key.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The table that has it: number in the list of tables.
    pub child: usize,
    /// Quoted; a partition of that table, maybe.
    pub child_name: String,
    /// Its columns, quoted.
    pub columns: Vec<String>,
    /// The table that it leads to.
    pub parent: usize,
    /// Quoted.
    pub parent_name: String,
    /// The columns it leads to, quoted, in the order of `columns`.
    pub keys: Vec<String>,
}

/// How statements are written.
pub trait Dialect {
    /// Deletes the rows of a child that refer to nothing.
    fn orphans(&self, reference: &Reference) -> String;
    /// Deletes rows by chance until about `target` are left, but none that `but` is true of.
    fn share(&self, table: &Table, target: u64, but: &[String]) -> String;
}

/// A small table may refer to a row of a large one that refers to another, and so on: longer chains are left to the repair.
const CHAIN: usize = 6;

/// Rows of a table that small tables refer to, directly or by way of large ones: conditions on the table, any of which is enough.
fn needed(tables: &[Table], references: &[Reference], path: &[usize]) -> Vec<String> {
    let Some(table) = path.last() else { return Vec::new() };
    let mut all = Vec::new();
    for reference in references.iter().filter(|r| r.parent == *table && !path.contains(&r.child)) {
        let mut only: Vec<String> = reference.columns.iter().map(|c| format!("{c} IS NOT NULL")).collect();
        if is_large(&tables[reference.child]) {
            let longer = [path, &[reference.child]].concat();
            let through = if longer.len() > CHAIN { Vec::new() } else { needed(tables, references, &longer) };
            if through.is_empty() {
                continue;
            }
            only.push(format!("({})", through.join(" OR ")));
        }
        all.push(format!(
            "({}) IN (SELECT {} FROM {} WHERE {})",
            reference.keys.join(", "),
            reference.columns.join(", "),
            reference.child_name,
            only.join(" AND ")
        ));
    }
    all
}

/// Whether rows of a table are removed.
pub fn is_large(table: &Table) -> bool {
    table.rows >= LARGE && !table.whole
}

/// Large tables, parents before children; circles are cut anywhere.
fn order(tables: &[Table], references: &[Reference]) -> Vec<usize> {
    let mut left: BTreeSet<usize> = (0..tables.len()).filter(|t| is_large(&tables[*t])).collect();
    let mut order = Vec::new();
    while let Some(first) = left.first().copied() {
        let waits =
            |t: usize| references.iter().any(|r| r.child == t && r.parent != t && left.contains(&r.parent));
        let next = left.iter().copied().find(|t| !waits(*t)).unwrap_or(first);
        left.remove(&next);
        order.push(next);
    }
    order
}

/// The statements that leave a share (in percent) of the rows, in their order.
pub fn statements(
    tables: &[Table],
    references: &[Reference],
    percent: u8,
    dialect: &dyn Dialect,
) -> Vec<String> {
    let mut all = Vec::new();
    let mut done = BTreeSet::new();
    for table in order(tables, references) {
        let gone = |r: &&Reference| r.child == table && r.parent != table && done.contains(&r.parent);
        all.extend(references.iter().filter(gone).map(|r| dialect.orphans(r)));
        let but = needed(tables, references, &[table]);
        let target = (tables[table].rows.saturating_mul(u64::from(percent))).div_ceil(100);
        all.push(dialect.share(&tables[table], target, &but));
        done.insert(table);
    }
    all
}

/// The statements that remove what refers to nothing, with the table that each concerns. To be repeated until nothing is removed.
pub fn repairs(references: &[Reference], dialect: &dyn Dialect) -> Vec<(usize, String)> {
    references.iter().map(|r| (r.child, dialect.orphans(r))).collect()
}

/// The dialect of SQLite and of Postgres differ in little.
pub fn orphans(delete: &str, reference: &Reference) -> String {
    let child = &reference.child_name;
    let filled: Vec<String> = reference.columns.iter().map(|c| format!("{child}.{c} IS NOT NULL")).collect();
    let same: Vec<String> = reference
        .columns
        .iter()
        .zip(&reference.keys)
        .map(|(column, key)| format!("sb_parent.{key} = {child}.{column}"))
        .collect();
    format!(
        "{delete} {child} WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS sb_parent WHERE {})",
        filled.join(" AND "),
        reference.parent_name,
        same.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl Dialect for Words {
        fn orphans(&self, r: &Reference) -> String {
            format!("{} without {}", r.child_name, r.parent_name)
        }
        fn share(&self, table: &Table, target: u64, but: &[String]) -> String {
            format!(
                "{} to {target}{}",
                table.name,
                but.iter().map(|b| format!(" but {b}")).collect::<String>()
            )
        }
    }

    fn tables(rows: &[(&str, u64)]) -> Vec<Table> {
        rows.iter()
            .map(|(n, rows)| Table { name: (*n).to_owned(), rows: *rows, whole: *n == "migrations" })
            .collect()
    }

    fn refers(tables: &[Table], child: &str, parent: &str) -> Reference {
        let at = |name: &str| tables.iter().position(|t| t.name == name).expect("a table");
        Reference {
            child: at(child),
            child_name: child.to_owned(),
            columns: vec![format!("{parent}_id")],
            parent: at(parent),
            parent_name: parent.to_owned(),
            keys: vec!["id".to_owned()],
        }
    }

    #[test]
    fn parents_come_first_and_what_small_tables_need_stays() {
        let all = tables(&[
            ("lines", 9000),
            ("orders", 3000),
            ("users", 20),
            ("migrations", 5000),
            ("settings", 3),
        ]);
        let references = [
            refers(&all, "lines", "orders"),
            refers(&all, "orders", "users"),
            refers(&all, "settings", "orders"),
        ];
        assert_eq!(
            statements(&all, &references, 25, &Words),
            [
                "orders to 750 but (id) IN (SELECT orders_id FROM settings WHERE orders_id IS NOT NULL)",
                "lines without orders",
                "lines to 2250",
            ]
        );
        assert_eq!(repairs(&references, &Words).len(), 3);

        let through = [refers(&all, "lines", "orders"), refers(&all, "settings", "lines")];
        let found = statements(&all, &through, 25, &Words);
        assert_eq!(
            found[0],
            "orders to 750 but (id) IN (SELECT orders_id FROM lines WHERE orders_id IS NOT NULL AND \
             ((id) IN (SELECT lines_id FROM settings WHERE lines_id IS NOT NULL)))"
        );
    }

    #[test]
    fn circles_and_references_to_oneself_end() {
        let all = tables(&[("a", 2000), ("b", 2000), ("tree", 2000)]);
        let references = [refers(&all, "a", "b"), refers(&all, "b", "a"), refers(&all, "tree", "tree")];
        assert_eq!(
            statements(&all, &references, 50, &Words),
            ["tree to 1000", "a to 1000", "b without a", "b to 1000"]
        );
    }
}
