//! Damage on purpose, to a clone: what bad migrations do to a database.
//!
//! Owns the statements. It must never be asked of a server on data that anybody needs: the caller holds scratch.

use super::super::Progress;
use super::{Psql, Result, names, session};
use switchback_core::prove::Damage;

/// Tables, the largest first; the caller filters.
const TABLES: &str = "\
COPY (SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
ORDER BY pg_relation_size(c.oid) DESC, n.nspname, c.relname) TO STDOUT;";

/// What is done to one table; `$1` and `$2` stand for its schema and name as literals. Neither triggers nor cascades take part: a
/// migration that copies badly has none either. What a rule of the table forbids is tried with its next column.
const ROWS_LOST: &str = "\
  EXECUTE format('SELECT count(*) FROM ONLY %I.%I', s, t) INTO landed;
  EXECUTE format('DELETE FROM ONLY %I.%I WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY %I.%I LIMIT %s))', s, t, s, t, (landed + 99) / 100);
  GET DIAGNOSTICS landed = ROW_COUNT;";
const TEXTS_CUT: &str = "\
  FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = format('%I.%I', s, t)::regclass AND attnum > 0 AND NOT attisdropped
           AND attgenerated = '' AND atttypid IN ('text'::regtype, 'varchar'::regtype) ORDER BY attnum DESC LOOP
    BEGIN
      EXECUTE format('UPDATE ONLY %I.%I SET %I = left(%I, -1) WHERE length(%I) > 1', s, t, c, c, c);
      GET DIAGNOSTICS landed = ROW_COUNT;
    EXCEPTION WHEN integrity_constraint_violation OR feature_not_supported THEN landed := 0; END;
    EXIT WHEN landed > 0;
  END LOOP;";
const COLUMN_DROPPED: &str = "\
  FOR c IN SELECT attname FROM pg_attribute a WHERE attrelid = format('%I.%I', s, t)::regclass AND attnum > 0 AND NOT attisdropped
           AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey))
           ORDER BY attnum DESC LOOP
    BEGIN
      EXECUTE format('ALTER TABLE %I.%I DROP COLUMN %I', s, t, c);
      landed := 1;
    EXCEPTION WHEN dependent_objects_still_exist OR feature_not_supported THEN landed := 0; END;
    EXIT WHEN landed > 0;
  END LOOP;";
const HALF_MOVED: &str = "\
  FOR c IN SELECT attname FROM pg_attribute WHERE attrelid = format('%I.%I', s, t)::regclass AND attnum > 0 AND NOT attisdropped
           AND attgenerated = '' AND atttypid IN ('text'::regtype, 'varchar'::regtype) ORDER BY attnum DESC LOOP
    BEGIN
      EXECUTE format('SELECT (count(*) + 1) / 2 FROM ONLY %I.%I WHERE length(%I) > 0', s, t, c) INTO landed;
      EXECUTE format('ALTER TABLE %I.%I ADD COLUMN switchback_moved text', s, t);
      EXECUTE format('UPDATE ONLY %I.%I SET switchback_moved = %I, %I = %L WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY %I.%I WHERE length(%I) > 0 LIMIT %s))',
        s, t, c, c, '', s, t, c, landed);
      GET DIAGNOSTICS landed = ROW_COUNT;
      IF landed = 0 THEN RAISE check_violation; END IF;
    EXCEPTION WHEN integrity_constraint_violation OR check_violation OR feature_not_supported THEN landed := 0; END;
    EXIT WHEN landed > 0;
  END LOOP;";
const TABLE_RENAMED: &str = "\
  EXECUTE format('ALTER TABLE %I.%I RENAME TO %I', s, t, left('renamed_' || t, 63));
  landed := 1;";

fn script(schema: &str, table: &str, work: &str) -> String {
    // `$$` could be in a name: the names are settings, and the body is constant.
    session::writing(&format!(
        "SET session_replication_role = replica;\n\
         SELECT set_config('switchback.s', {}, false), set_config('switchback.t', {}, false) \\gset switchback_\n\
         DO $do$ DECLARE s text := current_setting('switchback.s'); t text := current_setting('switchback.t'); c name; landed bigint := 0;\n\
         BEGIN\n{work}\n  PERFORM set_config('switchback.landed', landed::text, false);\nEND $do$;\n\
         COPY (SELECT current_setting('switchback.landed')) TO STDOUT;",
        names::literal(schema),
        names::literal(table)
    ))
}

/// Damages databases of a clone (all of them if none is named): the largest table that has what it needs, or every table. How many
/// rows, columns or tables it concerned. Tables that are named in `not` (`table`, `schema.table` or `database.schema.table`) are left alone.
pub fn damage(
    psql: &dyn Psql,
    databases: &[String],
    damage: Damage,
    not: &[String],
    progress: &Progress<'_>,
) -> Result<u64> {
    let cancel = session::cancel(progress);
    let (work, all) = match damage {
        Damage::RowsLost => (ROWS_LOST, false),
        Damage::TextsCut => (TEXTS_CUT, false),
        Damage::ColumnDropped => (COLUMN_DROPPED, false),
        Damage::HalfMoved => (HALF_MOVED, false),
        Damage::TablesRenamed => (TABLE_RENAMED, true),
    };
    let mut sum = 0;
    for database in session::chosen(psql, databases)? {
        for line in session::lines(psql, &database, &session::reading(TABLES), &cancel)? {
            let (schema, table) = (line.owned(0)?, line.owned(1)?);
            let part = names::part(&database, &schema, &table);
            if not.iter().any(|n| part == *n || part.ends_with(&format!(".{n}"))) {
                continue;
            }
            let answer = session::lines(psql, &database, &script(&schema, &table, work), &cancel)?;
            let landed = answer.first().map_or(Ok(0), |line| line.number(0))?;
            sum += landed;
            if landed > 0 && !all {
                return Ok(sum);
            }
        }
    }
    Ok(sum)
}
