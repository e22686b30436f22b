//! The migration of a real application on Postgres, timed at several sizes: what is expected at production's size is what it takes there.

mod common;

use common::docker::{Example, Stack};
use common::upgrade::{containers, generation, report, staging_left};
use serde_json::Value;

/// A large table that every revision of the application's migration goes over, as one does that fills a new column.
const LARGE: [&str; 3] = [
    "create table kept (id serial primary key, n int not null, body text)",
    "insert into kept (n, body) select i, repeat('x', 150) from generate_series(1, 1000000) i",
    "create function goes_over() returns trigger language plpgsql as 'begin update public.kept set n = n + 1; return null; end'",
];

fn took(points: &[Value], percent: u64) -> Vec<u64> {
    let of = |p: &&Value| p["percent"].as_u64() == Some(percent);
    points.iter().filter(of).map(|p| p["took_ms"].as_u64().expect("a time")).collect()
}

#[test]
fn what_is_expected_at_productions_size_is_what_it_takes() {
    let stack = Stack::compose(Example::JupyterHub);
    // For a machine that does other things as well.
    stack.edit("switchback.yaml", "start: 90s", "start: 4m");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 20s");
    stack.up();
    stack.seed(&["--users", "20", "--groups", "3"]);
    for statement in LARGE {
        stack.psql(statement);
    }
    stack.psql(
        "create trigger goes_over after update on alembic_version for each statement execute function goes_over()",
    );
    stack.run(&["up", "--yes"]).expect(0);
    let (running, rows) = (containers(&stack), stack.psql("select sum(n), count(*) from kept"));

    stack.run(&["scaling", "hub=5.4.6", "--sizes", "10,25,50"]).expect(0);
    let small = report(&stack);
    let found = &small["scaling"];
    let points = found["points"].as_array().expect("points").clone();
    assert_eq!(points.len(), 6, "{found}");
    let kept = found["sizes"]["10"]["db"]["rows"].as_u64().expect("rows");
    assert!((98_000..102_000).contains(&kept), "{found}");
    let (low, high) = {
        let now = &found["predictions"][0];
        (now["low_ms"].as_u64().expect("low"), now["high_ms"].as_u64().expect("high"))
    };

    stack.run(&["scaling", "hub=5.4.6", "--sizes", "50,100"]).expect(0);
    let whole = report(&stack);
    let measured = took(whole["scaling"]["points"].as_array().expect("points"), 100);
    assert_eq!(measured.len(), 2, "{whole}");
    // A machine that does other things meanwhile is slower or faster by more than the interval knows.
    for ms in &measured {
        assert!(
            (low * 6 / 10..=high * 16 / 10).contains(ms),
            "{measured:?} ms at production's size; expected {low} to {high} from {points:?}"
        );
    }
    assert_eq!(containers(&stack), running, "production was touched");
    assert_eq!(stack.psql("select sum(n), count(*) from kept"), rows);
    assert_eq!((generation(&stack), staging_left(&stack)), (1, Vec::new()));
    eprintln!("expected {low} to {high} ms at production's size, took {measured:?}; {found}");
}
