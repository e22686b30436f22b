//! Values as JSON, without loss, and the answer to a person's own query.
//!
//! Owns the choice of the JSON type: integers as such, bytes as `{"$blob": base64}`, everything else as the text that the server
//! itself would read back, because JSON numbers would round.

use super::super::postgres::value::unhex;
use super::schema::{Class, Column};
use super::{Client, MyError, Result, session};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

/// A value as `represent::shown` writes it. `None` if it is neither.
fn one(column: &Column, told: &str) -> Option<Value> {
    if told == "n" {
        return Some(Value::Null);
    }
    let bytes = unhex(told.strip_prefix('v')?)?;
    if column.class == Class::Bytes {
        return Some(json!({ "$blob": BASE64_STANDARD.encode(bytes) }));
    }
    let text = String::from_utf8(bytes).ok()?;
    Some(match column.class {
        Class::Integer | Class::Bits => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => text.into(),
        },
        _ => text.into(),
    })
}

/// The same for people: what is too large to be sent is told to be so.
pub(super) fn shown(columns: &[&Column], told: &[&str]) -> Map<String, Value> {
    let large = || json!({ "$left_out": "too large to be shown" });
    columns.iter().zip(told).map(|(c, t)| (c.name.clone(), one(c, t).unwrap_or_else(large))).collect()
}

/// The columns of a row as JSON.
pub(super) fn row(database: &str, columns: &[&Column], told: &[&str]) -> Result<Map<String, Value>> {
    if columns.len() != told.len() {
        return Err(MyError::protocol(database, "a row has another number of columns"));
    }
    let pairs = columns.iter().zip(told).map(|(column, told)| {
        let value = one(column, told).ok_or_else(|| MyError::Unsupported {
            what: format!("column {:?} of database {database:?}", column.name),
            why: "a value is too large to be read; raise `max_allowed_packet` of the server".to_owned(),
        })?;
        Ok((column.name.clone(), value))
    });
    pairs.collect()
}

/// The first value that a query of one column yields. `?1` and so on in it stand for `values`.
pub fn asked(
    client: &dyn Client,
    database: Option<&str>,
    sql: &str,
    values: &[Value],
) -> std::result::Result<Value, String> {
    let mut query = sql.trim().trim_end_matches(';').to_owned();
    for (number, value) in values.iter().enumerate().rev() {
        query = query.replace(&format!("?{}", number + 1), &literal(value));
    }
    let used = database.map_or_else(String::new, |d| format!("USE {};\n", super::names::ident(d)));
    // JSON tells numbers and texts apart.
    let body = format!(
        "{used}WITH asked(v) AS (\n{query}\n) SELECT 'v', HEX(CONVERT(JSON_ARRAY(v) USING utf8mb4)) FROM asked LIMIT 1;"
    );
    let mut found = None;
    session::each_line(client, database.unwrap_or_default(), &session::reading(&body), &|| false, |row| {
        found = Some(row.name(1)?);
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    let text = found.ok_or("the query yields no row")?;
    let list: Vec<Value> = serde_json::from_str(&text).map_err(|e| format!("unexpected answer: {e}"))?;
    list.into_iter().next().ok_or_else(|| "the query yields no column".to_owned())
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => super::names::literal(s),
        other => super::names::literal(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Fresh;
    use super::*;

    fn column(class: Class) -> Column {
        Column { name: "c".to_owned(), class, stored: true, mixed: false, fresh: Fresh::Null }
    }

    #[test]
    fn values_keep_their_exact_form() {
        assert_eq!(one(&column(Class::Integer), "v2D35"), Some(json!(-5)));
        assert_eq!(
            one(&column(Class::Integer), "v3138343436373434303733373039353531363135"),
            Some(json!(u64::MAX))
        );
        assert_eq!(one(&column(Class::Other), "v312E3030"), Some(json!("1.00")));
        assert_eq!(one(&column(Class::Bytes), "v00FF"), Some(json!({ "$blob": "AP8=" })));
        assert_eq!(one(&column(Class::Text), "n"), Some(Value::Null));
        assert_eq!(one(&column(Class::Text), "v"), Some(json!("")));
        // What the server could not send is no value.
        assert_eq!(one(&column(Class::Text), "NULL"), None);
    }
}
