//! What the output plugin `test_decoding` prints, as keys of rows that were written to.
//!
//! Owns what counts as known: a line that says which rows it is about, by the key that the table had when recording began.
//! Anything else names a table that has to be compared as a whole. It must never guess at a line.

use std::collections::{BTreeMap, BTreeSet};

/// Characters of a line that are asked for: values behind them are of no use, and may be large.
pub const LONGEST: usize = 16 * 1024;

/// A table by schema and name.
pub type Name = (String, String);

/// The columns of the key, by table, of tables whose rows can be told apart by it.
pub type Keyed = BTreeMap<Name, Vec<String>>;

/// Why a table has to be compared as a whole.
pub const NO_KEY: &str = "it is new, or its rows have no key that can be looked up";
/// Why a table has to be compared as a whole.
pub const TRUNCATED: &str = "it was truncated";
/// Why a table has to be compared as a whole.
pub const NOT_SAID: &str = "what was logged does not name the row";
/// Why a table has to be compared as a whole.
pub const TOO_MANY: &str = "too many of its rows were written to";

/// Rows of one table that were written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// By the values of their key.
    Rows(BTreeSet<Vec<String>>),
    /// Any of them; why.
    Whole(String),
}

/// What a run of lines was about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// By table.
    pub tables: BTreeMap<Name, Touched>,
    /// Why nothing is known of any table, if so.
    pub everything: Option<String>,
    /// About what it takes, in bytes.
    pub bytes: usize,
    /// Changes of rows.
    pub changes: u64,
}

impl Batch {
    fn whole(&mut self, table: Name, why: &str) {
        self.bytes += table.0.len() + table.1.len();
        self.tables.insert(table, Touched::Whole(why.to_owned()));
    }

    fn row(&mut self, table: &Name, key: Vec<String>) {
        let size = 32 + key.iter().map(|k| k.len() + 24).sum::<usize>();
        if let Touched::Rows(rows) =
            self.tables.entry(table.clone()).or_insert_with(|| Touched::Rows(BTreeSet::new()))
            && rows.insert(key)
        {
            self.bytes += size;
        }
    }

    /// Takes a line over. True if it ends a transaction.
    pub fn take(&mut self, line: &str, keyed: &Keyed) -> bool {
        if line == "COMMIT" || line.starts_with("COMMIT ") {
            return true;
        }
        if line == "BEGIN" || line.starts_with("BEGIN ") || line.starts_with("message: ") {
            return false;
        }
        if self.change(line, keyed).is_none() {
            self.everything = Some("a change was logged in a form that is not known".to_owned());
        }
        false
    }

    /// `None` if the line is not understood.
    fn change(&mut self, line: &str, keyed: &Keyed) -> Option<()> {
        let mut text = Text(line.strip_prefix("table ")?);
        let mut tables = vec![text.table()?];
        while text.skip(", ") {
            tables.push(text.table()?);
        }
        if !text.skip(": ") {
            return None;
        }
        self.changes += 1;
        if text.skip("TRUNCATE:") {
            tables.into_iter().for_each(|t| self.whole(t, TRUNCATED));
            return Some(());
        }
        let [table] = <[Name; 1]>::try_from(tables).ok()?;
        let Some(key) = keyed.get(&table) else {
            self.whole(table, NO_KEY);
            return Some(());
        };
        let cut = line.chars().count() >= LONGEST;
        let found = if text.skip("INSERT:") {
            text.key(key, cut)?.map(|k| vec![k])
        } else if text.skip("DELETE:") {
            text.key(key, cut)?.map(|k| vec![k])
        } else if text.skip("UPDATE:") {
            if text.skip(" old-key:") {
                let old = text.key(key, cut)?;
                let new = if text.skip(" new-tuple:") { text.key(key, cut)? } else { None };
                old.zip(new).map(|(a, b)| vec![a, b])
            } else {
                text.key(key, cut)?.map(|k| vec![k])
            }
        } else {
            return None;
        };
        match found {
            Some(keys) => keys.into_iter().for_each(|k| self.row(&table, k)),
            None => self.whole(table, NOT_SAID),
        }
        Some(())
    }
}

/// The rest of a line.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn skip(&mut self, what: &str) -> bool {
        self.0.strip_prefix(what).map(|rest| self.0 = rest).is_some()
    }

    /// `schema.table`, either quoted where it must be.
    fn table(&mut self) -> Option<Name> {
        let schema = self.name()?;
        if !self.skip(".") {
            return None;
        }
        Some((schema, self.name()?))
    }

    /// A name as the server quotes it.
    fn name(&mut self) -> Option<String> {
        if self.0.starts_with('"') {
            let (name, rest) = quoted(self.0, '"')?;
            self.0 = rest;
            return Some(name);
        }
        let end = self.0.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The values of the key among columns with their values. The outer `None`: it is not understood; the inner one: it does not
    /// hold all of the key. Of a line that was cut off the end does not matter if the key came before.
    fn key(&mut self, key: &[String], cut: bool) -> Option<Option<Vec<String>>> {
        let mut found: BTreeMap<&str, String> = BTreeMap::new();
        if self.skip(" (no-tuple-data)") {
            return Some(None);
        }
        while !self.0.is_empty() && !self.0.starts_with(" new-tuple:") {
            let Some((name, value)) = self.column() else {
                if cut {
                    self.0 = "";
                    break;
                }
                return None;
            };
            // What ends where the line was cut off may go on.
            if cut && self.0.is_empty() {
                break;
            }
            if let Some(column) = key.iter().find(|k| **k == name) {
                match value {
                    Some(value) => _ = found.insert(column, value),
                    None => return Some(None),
                }
            }
        }
        Some(key.iter().map(|k| found.remove(k.as_str())).collect())
    }

    /// ` name[type]:value`; no value where it is null or was not logged.
    fn column(&mut self) -> Option<(String, Option<String>)> {
        if !self.skip(" ") {
            return None;
        }
        let name = self.name()?;
        if !self.skip("[") {
            return None;
        }
        let mut depth = 1;
        let mut chars = self.0.char_indices();
        let mut in_quotes = false;
        let end = loop {
            let (at, c) = chars.next()?;
            match c {
                '"' => in_quotes = !in_quotes,
                '[' if !in_quotes => depth += 1,
                ']' if !in_quotes => {
                    depth -= 1;
                    if depth == 0 {
                        break at;
                    }
                }
                _ => {}
            }
        };
        self.0 = self.0.get(end + 1..)?;
        if !self.skip(":") {
            return None;
        }
        if self.0.starts_with('\'') || self.0.starts_with("B'") {
            let from = if self.0.starts_with('B') { self.0.get(1..)? } else { self.0 };
            let (value, rest) = quoted(from, '\'')?;
            self.0 = rest;
            return Some((name, Some(value)));
        }
        // Numbers, booleans, and what is no value. The last one of a line ends with it.
        let end = self.0.find(' ').unwrap_or(self.0.len());
        let (value, rest) = self.0.split_at(end);
        self.0 = rest;
        let value = (!matches!(value, "null" | "unchanged-toast-datum")).then(|| value.to_owned());
        Some((name, value))
    }
}

/// A quoted text at the beginning, in which the quote is doubled, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let at = rest.find(quote)?;
        value.push_str(rest.get(..at)?);
        rest = rest.get(at + 1..)?;
        match rest.strip_prefix(quote) {
            Some(more) => {
                value.push(quote);
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn name(table: &str) -> Name {
        ("public".to_owned(), table.to_owned())
    }

    fn keyed() -> Keyed {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        BTreeMap::from([
            (name("t"), words(&["id"])),
            (name("two"), words(&["a", "b c"])),
            (("Sch.ema".to_owned(), "T\"x, y: z".to_owned()), words(&["id"])),
        ])
    }

    fn rows(batch: &Batch, table: &Name) -> Vec<Vec<String>> {
        match batch.tables.get(table) {
            Some(Touched::Rows(rows)) => rows.iter().cloned().collect(),
            other => panic!("{other:?}"),
        }
    }

    fn one(line: &str) -> Batch {
        let mut batch = Batch::default();
        assert!(!batch.take(line, &keyed()), "{line}");
        batch
    }

    #[test]
    fn each_kind_of_change_names_its_rows() {
        for (line, found) in [
            (
                "table public.t: INSERT: id[integer]:7 note[text]:'it''s id[integer]:9' n[numeric]:null",
                vec!["7"],
            ),
            (
                "table public.t: INSERT: a[integer[]]:'{1,2}' \"o]:\"[public.\"x]: y\"]:'v' id[bigint]:-3",
                vec!["-3"],
            ),
            ("table public.t: UPDATE: id[integer]:7 big[text]:unchanged-toast-datum", vec!["7"]),
            (
                "table public.t: UPDATE: old-key: id[text]:'new-tuple: a' new-tuple: id[text]:'b' n[bit]:B'01'",
                vec!["b", "new-tuple: a"],
            ),
            ("table public.t: DELETE: id[uuid]:'0f'", vec!["0f"]),
        ] {
            let batch = one(line);
            assert_eq!(batch.everything, None, "{line}");
            assert_eq!(rows(&batch, &name("t")).concat(), found, "{line}");
        }
        let batch = one("table public.two: INSERT: \"b c\"[text]:' x' v[boolean]:true a[integer]:1");
        assert_eq!(rows(&batch, &name("two")), [["1", " x"]]);
        let batch = one("table \"Sch.ema\".\"T\"\"x, y: z\": DELETE: id[integer]:1");
        assert_eq!(batch.tables.keys().next().unwrap().1, "T\"x, y: z");
        assert!(Batch::default().take("COMMIT", &keyed()) && !Batch::default().take("BEGIN", &keyed()));
        assert_eq!(
            one("message: transactional: 1 prefix: table public.t: , sz: 1 content:x"),
            Batch::default()
        );
    }

    #[test]
    fn what_does_not_name_its_row_is_compared_as_a_whole() {
        for (line, table, why) in [
            ("table public.t: DELETE: (no-tuple-data)", "t", NOT_SAID),
            ("table public.t: INSERT: other[integer]:1", "t", NOT_SAID),
            ("table public.t: UPDATE: old-key: id[integer]:1 new-tuple: other[integer]:1", "t", NOT_SAID),
            ("table public.fresh: INSERT: id[integer]:1", "fresh", NO_KEY),
            ("table public.t: TRUNCATE: (no-flags)", "t", TRUNCATED),
            ("table public.fresh, public.t: TRUNCATE: restart_seqs cascade", "t", TRUNCATED),
        ] {
            let batch = one(line);
            assert_eq!(batch.everything, None, "{line}");
            assert_eq!(batch.tables.get(&name(table)), Some(&Touched::Whole(why.to_owned())), "{line}");
        }
        // A row that is named later does not make the table known again.
        let mut batch = one("table public.t: TRUNCATE: (no-flags)");
        batch.take("table public.t: INSERT: id[integer]:1", &keyed());
        assert_eq!(batch.tables[&name("t")], Touched::Whole(TRUNCATED.to_owned()));
    }

    #[test]
    fn a_line_that_is_not_understood_leaves_nothing_known() {
        for line in [
            "",
            "commit",
            "table public.t: MERGE: id[integer]:1",
            "table public.t: INSERT: id[integer]",
            "table public.t: INSERT: id[text]:'open",
            "table public: INSERT: id[integer]:1",
            "table public.t, public.two: INSERT: id[integer]:1",
        ] {
            assert!(one(line).everything.is_some(), "{line}");
        }
    }

    #[test]
    fn of_a_line_that_was_cut_off_only_a_whole_key_counts() {
        let long = "x".repeat(LONGEST);
        let cut = |line: String| line.chars().take(LONGEST).collect::<String>();
        let batch = one(&cut(format!("table public.t: INSERT: id[integer]:7 v[text]:'{long}'")));
        assert_eq!(rows(&batch, &name("t")), [["7"]]);
        let batch = one(&cut(format!("table public.t: INSERT: v[text]:'{long}' id[integer]:7")));
        assert_eq!(batch.tables[&name("t")], Touched::Whole(NOT_SAID.to_owned()));
        let at_the_end =
            format!("table public.t: INSERT: v[text]:'{}' id[integer]:7", "x".repeat(LONGEST - 54));
        for more in ["", "8", "89"] {
            let batch = one(&cut(format!("{at_the_end}{more}")));
            let whole = matches!(batch.tables[&name("t")], Touched::Whole(_));
            assert_eq!(whole, at_the_end.len() + more.len() >= LONGEST, "{more:?}");
        }
        let old = format!(
            "table public.t: UPDATE: old-key: id[integer]:7 v[text]:'{long}' new-tuple: id[integer]:8"
        );
        assert_eq!(one(&cut(old)).tables[&name("t")], Touched::Whole(NOT_SAID.to_owned()));
    }
}
