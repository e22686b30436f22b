//! The SQL of carrying writes.
//!
//! Owns when a write may be applied: a new row where its key is free, a changed column where the old value is still there, a
//! deletion where the row is as it was. Values that differ are never overwritten. Values reach the server as data of COPY only.

use super::fingerprint::Position;
use super::names::{ident, literal};
use super::schema::Sequence;
use super::{Psql, Result, session};
use std::collections::{BTreeMap, BTreeSet};

/// A column of the target, with its positions among what is read of the two states.
pub(super) struct Column {
    pub name: String,
    /// As `format_type` writes it.
    pub decl: String,
    /// Without length and precision: a cast to a type with them cuts values off, without a word.
    pub plain: String,
    pub before: Option<usize>,
    pub after: Option<usize>,
}

/// A table that takes writes.
pub(super) struct Target {
    pub part: String,
    pub schema: String,
    pub name: String,
    /// Whether its rows are named by the same key.
    pub same_key: bool,
    pub columns: Vec<Column>,
    /// Columns that it does not have.
    pub left_out: Vec<String>,
    /// What rows are named by; empty where it is all of their values.
    pub key: Vec<String>,
    /// Columns whose values the upgrade rewrote.
    pub rewritten: BTreeSet<String>,
    /// Whether rows exist that follow a row when it goes, as conditions with the row called `t`.
    pub followers: Vec<String>,
}

impl Target {
    fn relation(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }

    /// `t.column` equals a field, as the type writes it.
    fn equal(&self, number: usize, column: &Column, field: char) -> String {
        format!(
            "(t.{}::text IS NOT DISTINCT FROM (r.{field}{number}::{})::text)",
            ident(&column.name),
            column.decl
        )
    }

    fn columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate()
    }

    /// The row that is named by its key: fields of the old or the new state.
    fn named(&self, field: char) -> String {
        let all: Vec<String> = self
            .columns()
            .filter(|(_, c)| self.key.contains(&c.name))
            .map(|(i, c)| format!("t.{} = r.{field}{i}::{}", ident(&c.name), c.decl))
            .collect();
        if all.is_empty() { "false".to_owned() } else { all.join(" AND ") }
    }

    fn all(&self, of: impl Fn(usize, &Column) -> Option<String>) -> String {
        let all: Vec<String> = self.columns().filter_map(|(i, c)| of(i, c)).collect();
        if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
    }
}

/// A script that applies lines of data, and answers with a line for each: a, number, what became of it, why.
pub(super) fn applying(target: &Target, data: &str) -> String {
    let fields: Vec<String> = target.columns().map(|(i, _)| format!("b{i} text, a{i} text")).collect();
    // No name can end the body: the tag is not known before.
    let tag = format!("$switchback_{}$", ulid::Ulid::generate());
    format!(
        "CREATE TEMPORARY TABLE switchback_lines (n int8, op text, {});\n\
         CREATE TEMPORARY TABLE switchback_said (n int8, said text, why text);\n\
         COPY pg_temp.switchback_lines FROM STDIN;\n{data}\\.\n\
         BEGIN;\nSET CONSTRAINTS ALL IMMEDIATE;\nDO {tag}{}{tag};\nCOMMIT;\n\
         COPY (SELECT 'a', n, said, why FROM pg_temp.switchback_said ORDER BY n) TO STDOUT;",
        fields.join(", "),
        body(target)
    )
}

fn body(target: &Target) -> String {
    let relation = target.relation();
    let changed = |i: usize| format!("r.b{i} IS DISTINCT FROM r.a{i}");
    let kept = |i: usize| format!("r.b{i} IS NOT DISTINCT FROM r.a{i}");
    let both = |c: &Column| c.before.is_some() && c.after.is_some();
    let given: Vec<(usize, &Column)> = target.columns().filter(|(_, c)| c.after.is_some()).collect();
    let names: Vec<String> = given.iter().map(|(_, c)| ident(&c.name)).collect();
    let values: Vec<String> = given.iter().map(|(i, c)| format!("r.a{i}::{}", c.plain)).collect();
    let sets: Vec<String> = target
        .columns()
        .filter(|(_, c)| both(c) && !target.key.contains(&c.name))
        .map(|(i, c)| {
            let name = ident(&c.name);
            format!("{name} = CASE WHEN {} THEN r.a{i}::{} ELSE t.{name} END", changed(i), c.plain)
        })
        .collect();
    let same_as_new = target.all(|i, c| c.after.map(|_| target.equal(i, c, 'a')));
    let is_old = target.all(|i, c| {
        let counts = c.before.is_some() && !target.rewritten.contains(&c.name);
        counts.then(|| target.equal(i, c, 'b'))
    });
    let was = target.all(|i, c| both(c).then(|| format!("({} OR {})", kept(i), target.equal(i, c, 'b'))));
    let is = target.all(|i, c| both(c).then(|| format!("({} OR {})", kept(i), target.equal(i, c, 'a'))));
    let (by_new, by_old) = (target.named('a'), target.named('b'));
    let own = if target.key.is_empty() { is_old.clone() } else { format!("{by_old} AND {is_old}") };
    let insert = if names.is_empty() {
        "s := 'already';".to_owned()
    } else {
        format!(
            "INSERT INTO {relation} ({}) OVERRIDING SYSTEM VALUE VALUES ({}) ON CONFLICT DO NOTHING;\n\
             GET DIAGNOSTICS c = ROW_COUNT;\n\
             IF c > 0 THEN s := 'done'; ELSE\n\
             PERFORM FROM ONLY {relation} t WHERE {same_as_new};\n\
             s := CASE WHEN FOUND THEN 'already' ELSE 'taken' END; END IF;",
            names.join(", "),
            values.join(", ")
        )
    };
    let update = if sets.is_empty() {
        "s := 'already';".to_owned()
    } else {
        format!(
            "UPDATE ONLY {relation} t SET {} WHERE {by_new} AND {was};\n\
             GET DIAGNOSTICS c = ROW_COUNT;\n\
             IF c > 0 THEN s := 'done'; ELSE\n\
             PERFORM FROM ONLY {relation} t WHERE {by_new} AND {is};\n\
             IF FOUND THEN s := 'already'; ELSE\n\
             PERFORM FROM ONLY {relation} t WHERE {by_new};\n\
             s := CASE WHEN FOUND THEN 'differs' ELSE 'gone' END; END IF; END IF;",
            sets.join(", ")
        )
    };
    let followers =
        if target.followers.is_empty() { "false".to_owned() } else { target.followers.join(" OR ") };
    let delete = format!(
        "PERFORM FROM ONLY {relation} t WHERE {own} AND ({followers});\n\
         IF FOUND THEN s := 'later'; ELSE\n\
         DELETE FROM ONLY {relation} WHERE ctid = (SELECT t.ctid FROM ONLY {relation} t WHERE {own} LIMIT 1);\n\
         GET DIAGNOSTICS c = ROW_COUNT;\n\
         IF c > 0 THEN s := 'done'; ELSE\n\
         PERFORM FROM ONLY {relation} t WHERE {by_old};\n\
         s := CASE WHEN FOUND THEN 'differs' ELSE 'already' END; END IF; END IF;"
    );
    let cut: Vec<String> = target
        .columns()
        .filter(|(_, c)| c.after.is_some() && c.decl != c.plain)
        .map(|(i, c)| {
            let (name, plain) = (literal(&c.name), &c.plain);
            let lost = format!("(r.a{i}::{})::{plain} IS DISTINCT FROM r.a{i}::{plain}", c.decl);
            format!(", CASE WHEN {} AND {lost} THEN {name} END", changed(i))
        })
        .collect();
    // 53: no space or memory, 57: stopped, 58: the system failed, XX: damaged. All else is about the row.
    format!(
        "\nDECLARE r record; c int8; s text; w text; cn text; col text;\nBEGIN\n\
         FOR r IN SELECT * FROM pg_temp.switchback_lines ORDER BY n LOOP\n\
         s := NULL; w := NULL;\nBEGIN\n\
         w := CASE WHEN r.op = 'd' THEN '' ELSE concat_ws(', ', NULL{}) END;\n\
         IF w <> '' THEN s := 'refused'; w := 'a value is too long or too precise for ' || w;\n\
         ELSIF r.op = 'i' THEN\n{insert}\nELSIF r.op = 'u' THEN\n{update}\nELSE\n{delete}\nEND IF;\n\
         EXCEPTION\nWHEN foreign_key_violation THEN s := 'later';\n\
         WHEN unique_violation OR exclusion_violation THEN s := 'taken';\n\
         WHEN OTHERS THEN\n\
         IF left(SQLSTATE, 2) IN ('53', '57', '58', 'XX') THEN RAISE; END IF;\n\
         GET STACKED DIAGNOSTICS cn = CONSTRAINT_NAME, col = COLUMN_NAME;\n\
         s := 'refused'; w := SQLSTATE || CASE WHEN cn <> '' THEN ', constraint ' || cn ELSE '' END || CASE WHEN col <> '' THEN ', column ' || col ELSE '' END;\n\
         END;\n\
         INSERT INTO pg_temp.switchback_said VALUES (r.n, s, w);\n\
         END LOOP;\nEND\n",
        cut.concat()
    )
}

/// A statement after which a sequence is at least where another one stands.
pub(super) fn sequence(sequence: &Sequence, at: Position) -> String {
    let name = format!("{}.{}", ident(&sequence.schema), ident(&sequence.name));
    let further = if sequence.increment < 0 { "<" } else { ">" };
    let tag = format!("$switchback_{}$", ulid::Ulid::generate());
    format!(
        "DO {tag}BEGIN PERFORM setval({}::regclass, {}, {}) FROM {name} WHERE {} {further} last_value OR ({} = last_value AND {} AND NOT is_called); END{tag};\n",
        literal(&name),
        at.last,
        at.called,
        at.last,
        at.last,
        at.called
    )
}

/// Rows that go or change together with a row: conditions by schema and table.
pub(super) fn followers(
    psql: &dyn Psql,
    database: &str,
    cancel: &dyn Fn() -> bool,
) -> Result<BTreeMap<(String, String), Vec<String>>> {
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in session::lines(psql, database, &session::reading(FOLLOWERS), cancel)? {
        found.entry((line.owned(1)?, line.owned(2)?)).or_default().push(line.owned(3)?);
    }
    Ok(found)
}

/// The types of columns without length and precision, by schema, table and column.
pub(super) type Plain = BTreeMap<(String, String, String), String>;

/// Reads them.
pub(super) fn plain_types(psql: &dyn Psql, database: &str, cancel: &dyn Fn() -> bool) -> Result<Plain> {
    let lines = session::lines(psql, database, &session::reading(PLAIN), cancel)?;
    lines.iter().map(|l| Ok(((l.owned(1)?, l.owned(2)?, l.owned(3)?), l.owned(4)?))).collect()
}

const PLAIN: &str = "\
COPY (SELECT 'p', n.nspname, c.relname, a.attname,
    format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END, -1)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND (a.atttypmod <> -1 OR t.typtype = 'd') AND c.relkind = 'r'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') TO STDOUT;";

/// Statements that switch the triggers of users off, and on again.
pub(super) fn triggers(
    psql: &dyn Psql,
    database: &str,
    cancel: &dyn Fn() -> bool,
) -> Result<(String, String)> {
    // Triggers on DDL must not run for what is done here.
    let replica = "SET session_replication_role = 'replica';\n";
    let (mut off, mut on) = (String::new(), String::new());
    for line in session::lines(psql, database, &session::reading(TRIGGERS), cancel)? {
        let table = format!("{}.{}", ident(line.text(1)?), ident(line.text(2)?));
        let name = ident(line.text(3)?);
        let always = if line.text(4)? == "A" { "ALWAYS " } else { "" };
        off.push_str(&format!("ALTER TABLE ONLY {table} DISABLE TRIGGER {name};\n"));
        on.push_str(&format!("ALTER TABLE ONLY {table} ENABLE {always}TRIGGER {name};\n"));
    }
    if off.is_empty() {
        return Ok((off, on));
    }
    Ok((format!("{replica}{off}"), format!("{replica}{on}")))
}

const TRIGGERS: &str = "\
COPY (SELECT 't', n.nspname, c.relname, g.tgname, g.tgenabled
  FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND c.relkind IN ('r', 'p')
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY c.relkind, 2, 3, 4) TO STDOUT;";

const FOLLOWERS: &str = "\
COPY (SELECT 'g', m.nspname, r.relname,
    format('EXISTS (SELECT FROM %I.%I c WHERE %s)', n.nspname, t.relname,
      (SELECT string_agg(format('t.%I OPERATOR(%I.%s) c.%I', pa.attname, o.nspname, op.oprname, ca.attname), ' AND ')
       FROM unnest(f.conkey, f.confkey, f.conpfeqop) u(child, parent, eq)
       JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = u.child
       JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = u.parent
       JOIN pg_operator op ON op.oid = u.eq JOIN pg_namespace o ON o.oid = op.oprnamespace))
  FROM pg_constraint f
  JOIN pg_class t ON t.oid = f.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace m ON m.oid = r.relnamespace
  WHERE f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd')) TO STDOUT;";
