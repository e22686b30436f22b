//! How long does the exact comparison of two Postgres databases take, beside what one would write in SQL?
//!
//! `cargo bench -p switchback-engine --bench integrity` makes two clusters of 6 million rows (0.6 GB), the second with three rows
//! changed; `-- 1000000` is the number of rows. `REPEAT=5` repetitions, in each of them every way once, in turn: the
//! comparison of Switchback, which names the rows; a fingerprint of one side; `md5` over the ordered rows of both sides at the same
//! time; and the server's own `hash_record_extended` summed up over both sides, the fastest that SQL can do. It needs the
//! server's programs (Debian: `postgresql`) and three times the size on the disk of /tmp.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(dead_code, reason = "the tests use more of it")]

#[path = "../crates/engine/tests/store_postgres/cluster.rs"]
mod cluster;

use cluster::Cluster;
use std::time::Instant;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres;

const ROWS: u64 = 6_000_000;

const MD5: &str = "SELECT md5(string_agg(md5(t::text), '' ORDER BY id)) FROM orders t";
const HASH: &str = "SELECT count(*), sum(hash_record_extended(t, 1)::numeric) FROM orders t";

/// Seconds, several times.
#[derive(Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn measure(&mut self, work: impl FnOnce()) {
        let began = Instant::now();
        work();
        self.0.push(began.elapsed().as_secs_f64());
    }

    fn show(mut list: Vec<f64>) -> String {
        list.sort_by(f64::total_cmp);
        match (list.first(), list.get(list.len() / 2), list.last()) {
            (Some(least), Some(median), Some(most)) => format!("{median:.2} ({least:.2}–{most:.2})"),
            _ => "–".to_owned(),
        }
    }

    /// The ratios within each repetition.
    fn over(&self, other: &Self) -> String {
        Self::show(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

fn both(a: &Cluster, b: &Cluster, sql: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| a.sql("app", sql));
        scope.spawn(|| b.sql("app", sql));
    });
}

/// Most memory that this process ever had, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    let rows: u64 = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(ROWS);
    let repeat: u32 = std::env::var("REPEAT").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    let mut a = Cluster::new();
    a.sql(
        "app",
        &format!(
            "CREATE TABLE orders (id bigint PRIMARY KEY, customer int, amount numeric(12,2), at timestamptz, note text);
             INSERT INTO orders SELECT i, i % 10007, i * 1.37, timestamptz '2024-01-01Z' + i * interval '7 s', 'order ' || md5(i::text)
             FROM generate_series(1, {rows}) i"
        ),
    );
    a.sql("app", "VACUUM ANALYZE");
    let size = a.sql("app", "SELECT pg_size_pretty(pg_table_size('orders'))");
    let b = a.copy();
    b.sql(
        "app",
        "UPDATE orders SET amount = amount + 0.01 WHERE id = 4711; UPDATE orders SET note = NULL WHERE id = 99; DELETE FROM orders WHERE id = 7",
    );
    println!("{rows} rows, {} a side; seconds, median (fastest–slowest) of {repeat}", size.trim());
    let (mut ours, mut one, mut md5, mut hash) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    // Both sides into memory, as far as they fit.
    both(&a, &b, HASH);
    let before = peak_bytes();
    for _ in 0..repeat {
        ours.measure(|| {
            let found = postgres::diff(&a, &b, &[], &Progress::none()).unwrap();
            let part = found.parts.iter().find(|p| p.name == "app.public.orders").unwrap();
            assert_eq!((part.rows_added, part.rows_removed, part.rows_changed), (0, 1, 2));
        });
        hash.measure(|| both(&a, &b, HASH));
        one.measure(|| {
            postgres::fingerprint(&a, &[], &Progress::none()).unwrap();
        });
        md5.measure(|| both(&a, &b, MD5));
    }
    println!("comparison, rows named             {}", Samples::show(ours.0.clone()));
    println!("fingerprint of one side            {}", Samples::show(one.0.clone()));
    println!("md5 over ordered rows, both sides  {}", Samples::show(md5.0.clone()));
    println!("hash_record_extended, both sides   {}", Samples::show(hash.0.clone()));
    println!("md5 / comparison                   {}  (wanted: 4 or more)", md5.over(&ours));
    println!("comparison / hash_record_extended  {}  (wanted: 1.3 or less)", ours.over(&hash));
    println!("memory of the comparison           {} MiB", peak_bytes().saturating_sub(before) >> 20);
}
