//! Output that breaks off: an error, never an answer.

use crate::cluster::Cluster;
use std::io::Write;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{self, PgError, Psql, Result};

/// How the output ends early.
#[derive(Clone, Copy)]
enum End {
    /// As if everything had been fine.
    Quietly,
    /// With the server gone.
    Error,
}

/// Passes on at most so many bytes of the `nth` script.
struct Cut<'a> {
    cluster: &'a Cluster,
    nth: usize,
    bytes: usize,
    end: End,
    scripts: std::sync::atomic::AtomicUsize,
    hit: std::sync::atomic::AtomicBool,
}

impl Psql for Cut<'_> {
    fn script(
        &self,
        database: &str,
        sql: &str,
        out: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut all = Vec::new();
        self.cluster.script(database, sql, &mut all, cancel)?;
        if self.scripts.fetch_add(1, Relaxed) != self.nth || self.bytes >= all.len() {
            return out.write_all(&all).map_err(PgError::Output);
        }
        self.hit.store(true, Relaxed);
        out.write_all(&all[..self.bytes]).map_err(PgError::Output)?;
        match self.end {
            End::Quietly => Ok(()),
            End::Error => Err(PgError::from_stderr(database, b"server closed the connection unexpectedly")),
        }
    }
}

#[test]
fn output_that_breaks_off_anywhere_is_an_error_and_never_an_answer() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('v', 9) FROM generate_series(1, 300) i;
         CREATE TABLE u(x int); CREATE SEQUENCE s",
    );
    let b = a.copy();
    b.sql("app", "UPDATE t SET v = 'w' WHERE id % 3 = 0; INSERT INTO u VALUES (1)");
    let cut =
        |cluster, nth, bytes, end| Cut { cluster, nth, bytes, end, scripts: 0.into(), hit: false.into() };
    let databases = ["app".to_owned()];
    let mut broken = 0;
    // Scripts of a comparison: databases, globals, shape, sums, rows.
    for nth in 0..5 {
        for bytes in [0, 40, 1500] {
            for end in [End::Quietly, End::Error] {
                let psql = cut(&b, nth, bytes, end);
                let found = postgres::diff(&a, &psql, &databases, &Progress::none());
                if psql.hit.into_inner() {
                    broken += 1;
                    let error =
                        found.expect_err(&format!("script {nth} cut after {bytes} bytes")).to_string();
                    assert!(error.contains("early") || error.contains("closed the connection"), "{error}");
                } else {
                    assert_eq!(found.unwrap().lost_or_altered(), 100);
                }
            }
        }
        let psql = cut(&a, nth, 30, End::Quietly);
        let found = postgres::fingerprint(&psql, &databases, &Progress::none());
        assert_eq!(found.is_err(), psql.hit.into_inner(), "script {nth}");
    }
    assert!(broken >= 20, "{broken}");
}
