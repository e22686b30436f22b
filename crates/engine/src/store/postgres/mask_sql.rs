//! The SQL of masks: an expression for each that makes, inside the server, the same values as `core::anonymise` makes.
//!
//! The key is never in the text of an expression: it is in two settings of the session, which are in no catalogue and no file.

use super::names::{ident, literal};
use std::fmt::Write as _;
use switchback_core::anonymise::{
    CITIES, Column, FIRST_NAMES, Family, Key, LAST_NAMES, LOREM, Mask, SHORTEST_EMAIL, STREETS, days,
};

/// Settings of the session that masks: nothing of it is logged, triggers and checks of references are off. `\gset` keeps the
/// answers from being printed.
pub(super) fn session(key: &Key) -> String {
    let (inner, outer) = key.pads();
    format!(
        "SET log_statement = 'none';\nSET log_min_duration_statement = -1;\nSET log_min_error_statement = 'panic';\n\
         SET log_duration = off;\nSET \"pg_stat_statements.track\" = 'none';\nSET \"auto_explain.log_min_duration\" = -1;\n\
         SET session_replication_role = 'replica';\nSET synchronous_commit = off;\n\
         SELECT set_config('switchback.inner', '{inner}', false) \\gset switchback_\n\
         SELECT set_config('switchback.outer', '{outer}', false) \\gset switchback_\n{JSON}"
    )
}

/// Replaces every text in a JSON document. A function of the session: it goes with it, and knows no key.
const JSON: &str = "\
CREATE FUNCTION pg_temp.switchback_json(doc jsonb) RETURNS jsonb LANGUAGE plpgsql AS $switchback$
BEGIN
  CASE jsonb_typeof(doc)
    WHEN 'object' THEN
      RETURN coalesce((SELECT jsonb_object_agg(key, pg_temp.switchback_json(value)) FROM jsonb_each(doc)), '{}');
    WHEN 'array' THEN
      RETURN coalesce((SELECT jsonb_agg(pg_temp.switchback_json(value) ORDER BY place) FROM jsonb_array_elements(doc) WITH ORDINALITY AS e(value, place)), '[]');
    WHEN 'string' THEN
      RETURN CASE WHEN doc = '\"\"' THEN doc ELSE to_jsonb('masked'::text) END;
    ELSE
      RETURN doc;
  END CASE;
END $switchback$;
";

/// HMAC-SHA-256 of the mask's name and a value, in hexadecimal. `h` in what is made of it.
fn mac(mask: Mask, value: &str) -> String {
    format!(
        "encode(sha256(decode(current_setting('switchback.outer'), 'hex') || sha256(decode(current_setting('switchback.inner'), 'hex') || convert_to('{}:' || {value}, 'UTF8'))), 'hex')",
        mask.as_str()
    )
}

/// The byte at a place of the digest, as a number.
fn byte(place: usize) -> String {
    format!("get_byte(decode(substr(h, {}, 2), 'hex'), 0)", 2 * place + 1)
}

fn pick(list: &[&str], place: usize) -> String {
    let words: Vec<String> = list.iter().map(|w| literal(w)).collect();
    format!("(ARRAY[{}])[1 + {} % {}]", words.join(","), byte(place), list.len())
}

/// So many bits of the digest's beginning, as a number that is not negative.
fn bits(count: usize) -> String {
    format!("('x' || substr(h, 1, {}))::bit({count})::bigint", count.div_ceil(4))
}

/// A text made of the digest `h` and of the value.
fn text(mask: Mask, value: &str, limit: Option<u32>) -> String {
    match mask {
        Mask::Email => {
            let room = limit.map_or(16, |l| l.saturating_sub(SHORTEST_EMAIL - 6).min(16));
            format!("'u' || substr(h, 1, {room}) || '@example.invalid'")
        }
        Mask::Name => format!("{} || ' ' || {}", pick(&FIRST_NAMES, 0), pick(&LAST_NAMES, 1)),
        Mask::Phone => format!("'+999' || lpad(({} % 1000000000)::text, 9, '0')", bits(56)),
        Mask::Address => format!(
            "(1 + {} % 200)::text || ' ' || {} || ', ' || {}",
            byte(2),
            pick(&STREETS, 0),
            pick(&CITIES, 1)
        ),
        Mask::Text => {
            format!(
                "left(repeat({}, length({value}) / {} + 1), length({value}))",
                literal(LOREM),
                LOREM.len()
            )
        }
        Mask::Token => format!("left(repeat(h, length({value}) / 64 + 1), length({value}))"),
        _ => "h".to_owned(),
    }
}

/// The expression that masks one value of a column; `value` is not null.
fn one(key: &Key, column: &Column, mask: Mask, value: &str) -> String {
    let as_text = format!("{value}::text");
    let made = match (mask, column.family) {
        (Mask::Text, Family::Json) => return format!("pg_temp.switchback_json({value}::jsonb)"),
        (Mask::DateShift, _) => {
            return if column.sql_type == "date" {
                format!("{value} + ({})", days(key))
            } else {
                format!("{value} + make_interval(days => {})", days(key))
            };
        }
        (Mask::Hash, Family::Integer(2)) => bits(12),
        (Mask::Hash, Family::Integer(4)) => bits(28),
        (Mask::Hash, Family::Integer(_) | Family::Decimal) => bits(60),
        (Mask::Hash, Family::Uuid) => "substr(h, 1, 32)".to_owned(),
        (Mask::Hash, Family::Bytes) => "decode(h, 'hex')".to_owned(),
        _ => format!("CASE WHEN {as_text} = '' THEN '' ELSE {} END", text(mask, &as_text, column.limit)),
    };
    let digested = if column.family == Family::Bytes { format!("encode({value}, 'hex')") } else { as_text };
    // OFFSET keeps the planner from computing the digest once for each mention.
    format!("(SELECT {made} FROM (SELECT {} AS h OFFSET 0) digest)", mac(mask, &digested))
}

/// `column = masked`, for an UPDATE.
pub(super) fn assignment(key: &Key, column: &Column, mask: Mask) -> String {
    let name = ident(&column.name);
    if mask == Mask::Null {
        return format!("{name} = NULL");
    }
    let made = if column.array {
        format!(
            "(SELECT array_agg(CASE WHEN v IS NULL THEN NULL ELSE {} END ORDER BY place) FROM unnest(t.{name}) WITH ORDINALITY AS list(v, place))",
            one(key, column, mask, "v")
        )
    } else {
        one(key, column, mask, &format!("t.{name}"))
    };
    // An empty list stays one.
    let empty =
        if column.array { format!(" WHEN cardinality(t.{name}) = 0 THEN t.{name}") } else { String::new() };
    format!("{name} = CASE WHEN t.{name} IS NULL THEN NULL{empty} ELSE ({made})::{} END", column.sql_type)
}

/// A comma-separated list of counts of values.
pub(super) fn counts(columns: &[&Column]) -> String {
    columns.iter().fold(String::new(), |mut text, c| {
        let _ = write!(text, ", count({})", ident(&c.name));
        text
    })
}
