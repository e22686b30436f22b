//! How long does production stop for bringing later writes back, where everything is compared, and where it was kept which rows
//! were written to?
//!
//! `cargo bench --bench carry` fills a server by `pgbench -i` in the engine's own volumes; `-- 4 40` are the scales (40 is 600
//! MB). `WRITES=1000` rows are written after each promotion, the same ones. Both ways are taken in turn, on one stack each. It
//! needs the images of scripts/lib/images.sh and about six times the size on the engine's file system.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;

use common::docker::{Example, Stack, docker};
use serde_json::Value;
use std::time::Duration;

/// 60 and 600 MB.
const SCALES: [u64; 2] = [4, 40];

fn main() {
    let given: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let scales = if given.is_empty() { SCALES.to_vec() } else { given };
    let writes: u64 = std::env::var("WRITES").ok().and_then(|w| w.parse().ok()).unwrap_or(1000);
    println!(
        "| database | later writes | found by | searching and carrying, ms | outage of the carry, ms | export, ms |"
    );
    println!("|---|---|---|---|---|---|");
    for scale in scales {
        for capture in ["compare", "continuous"] {
            let case = one(scale, writes, capture);
            println!(
                "| {} MB | {writes} | {capture} | {} | {} | {} |",
                case.megabytes, case.carry, case.outage, case.export
            );
        }
    }
}

struct Case {
    megabytes: u64,
    carry: u64,
    outage: u64,
    export: u64,
}

fn step(report: &Value, id: &str) -> (u64, u64) {
    let steps = report["steps"].as_array().expect("steps");
    let found = steps.iter().find(|s| s["id"] == id).expect("the step");
    (found["began_ms"].as_u64().unwrap_or(0), found["took_ms"].as_u64().expect("a time"))
}

fn one(scale: u64, writes: u64, capture: &str) -> Case {
    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    stack.edit("switchback.yaml", "rollback: {", &format!("rollback: {{ capture: {capture},"));
    stack.up();
    let id = stack.container("db").expect("a container");
    docker(&["exec", &id, "pgbench", "-i", "-q", "-s", &scale.to_string(), "-U", "ledger", "ledger"])
        .expect(0);
    let size = stack.psql("select pg_database_size('ledger') / 1000000");
    stack.run(&["up", "--yes"]).expect(0);
    stack.run(&["rehearse", "bank=2", "--quiet"]).expect(0);
    stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);
    // Scattered over the whole table.
    let rows = scale * 100_000;
    stack.psql(&format!(
        "update pgbench_accounts set abalance = abalance + 1 where aid in (select 1 + (g * 7919) % {rows} from generate_series(1, {writes}) g)"
    ));
    if capture == "continuous" {
        stack.wait_until("they are kept", Duration::from_secs(120), || {
            let status = stack.run(&["status", "--json"]).expect(0).json();
            status["capture"]["db"]["changes"].as_u64() >= Some(writes)
        });
    }
    let rolled = stack.run(&["rollback", "--yes", "--json"]).expect(0).json();
    let done = stack.run(&["carry", "--yes", "--detach", "--json"]).expect(0).json();
    let updated = done["carried"]["db"]["parts"]["ledger.public.pgbench_accounts"]["updated"].as_u64();
    assert_eq!(updated, Some(writes), "{done}");
    let (stopped, _) = step(&done, "stop-old");
    let (started, took) = step(&done, "start-new");
    Case {
        megabytes: size.parse().unwrap_or(0),
        carry: step(&done, "carry").1,
        outage: started + took - stopped,
        export: step(&rolled, "export").1,
    }
}
