//! Asking a running SQLite store for one value, without being able to change it.

use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A query that takes longer is given up; it would hold up a probe of a trial.
const DEADLINE: Duration = Duration::from_secs(30);

/// The first column of the first row; `null` if there is no row. `?1`, `?2` are bound to `values`.
pub fn sqlite_value(path: &Path, sql: &str, values: &[Value]) -> Result<Value, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|e| e.to_string())?;
    let mut ask = || -> rusqlite::Result<Value> {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "query_only", true)?;
        let began = Instant::now();
        connection.progress_handler(10_000, Some(move || began.elapsed() > DEADLINE))?;
        let mut statement = connection.prepare(sql)?;
        let bound: Vec<Sql> = values.iter().map(to_sql).collect();
        let mut rows = statement.query(rusqlite::params_from_iter(bound))?;
        match rows.next()? {
            None => Ok(Value::Null),
            Some(row) => Ok(from_sql(row.get_ref(0)?)),
        }
    };
    ask().map_err(|e| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            format!("the query took longer than {} s", DEADLINE.as_secs())
        }
        _ => e.to_string(),
    })
}

fn to_sql(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::Null,
        Value::Bool(b) => Sql::Integer(i64::from(*b)),
        Value::Number(n) => {
            n.as_i64().map_or_else(|| Sql::Real(n.as_f64().unwrap_or(f64::NAN)), Sql::Integer)
        }
        Value::String(s) => Sql::Text(s.clone()),
        other => Sql::Text(other.to_string()),
    }
}

fn from_sql(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => i.into(),
        ValueRef::Real(r) => r.into(),
        ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned().into(),
        ValueRef::Blob(b) => format!("blob of {} bytes", b.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_nothing_can_be_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a.db");
        Connection::open(&path)
            .expect("opens")
            .execute_batch("create table t(a); insert into t values (7)")
            .expect("fills");
        assert_eq!(sqlite_value(&path, "select a + ?1 from t", &[3.into()]), Ok(10.into()));
        assert_eq!(
            sqlite_value(&path, "select a from t where a = ?1", &["'; drop table t;--".into()]),
            Ok(Value::Null)
        );
        assert!(sqlite_value(&path, "delete from t", &[]).is_err());
        assert!(sqlite_value(&path, "select nope from t", &[]).is_err());
    }
}
