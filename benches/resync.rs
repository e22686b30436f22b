//! How much faster is it to bring a clone of a large Postgres up to date than to clone it anew, when 1 % of its rows have
//! changed?
//!
//! `cargo bench --bench resync` fills a server by `pgbench -i` in the engine's own volumes; `-- 200` is the scale (200 is 3
//! GB). With `-- wide` it has documents of 1.8 kB instead of accounts of 0.1 kB: as much data in fewer rows. `REPEAT=3` repetitions of each kind of change, in turn: 1 % of the rows in one range, and 1 % scattered over the whole
//! table. In each of them, after the change and a checkpoint: a server is run on the clone and writes to it, as staging does;
//! then the clone is brought up to date, and another one is made anew, the other way round in every second repetition. It
//! needs the images of scripts/lib/images.sh and, on the engine's file system, about five times the size.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;

use common::docker::{Example, LABEL, Stack, docker, psql_in};
use samples::Samples;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switchback_core::config::Config;
use switchback_core::data::CopyStats;
use switchback_core::plan::{CloneMode, stores_in};
use switchback_core::release::{Instance, Release};
use switchback_engine::data::{ComposeData, Data as _, Work};
use switchback_engine::docker::Docker;
use switchback_engine::home::Home;
use switchback_engine::runtime::{Placement, Stage};
use switchback_engine::scratch::Scratch;
use switchback_engine::store::Progress;

/// 3 GB.
const SCALE: u64 = 200;
const ROWS_PER_SCALE: u64 = 100_000;
/// Documents that are as much data.
const DOCUMENTS_PER_SCALE: u64 = 7_500;
/// Longer than the time after which a file is taken for settled.
const SETTLE: Duration = Duration::from_secs(6);
const GB: f64 = 1e9;

struct Bench {
    stack: Stack,
    home: Home,
    config: Config,
    production: Instance,
    release: Release,
    data: ComposeData,
    temp: tempfile::TempDir,
}

impl Bench {
    fn start(scale: u64, wide: bool) -> Self {
        let stack = Stack::compose(Example::Ledger);
        stack.set("BANK_RATE", "0");
        stack.up();
        let id = stack.container("db").expect("a container");
        if wide {
            stack.psql("create table documents (id bigint primary key, n int not null, body text not null)");
            // As they are, in the table itself: that is what wide rows are.
            stack.psql("alter table documents alter body set storage plain, set (autovacuum_enabled = off)");
            let rows = scale * DOCUMENTS_PER_SCALE;
            stack.psql(&format!(
                "insert into documents select i, 0, repeat(md5(i::text), 56) from generate_series(0, {rows} - 1) i"
            ));
        } else {
            let scale = scale.to_string();
            docker(&["exec", &id, "pgbench", "-i", "-q", "-s", &scale, "-U", "ledger", "ledger"]).expect(0);
            // Nothing but what is asked for changes the table.
            stack.psql("alter table pgbench_accounts set (autovacuum_enabled = off)");
        }
        stack.psql("checkpoint");
        stack.run(&["up", "--yes"]).expect(0);
        let home = Home::open(&stack.root).expect("opens");
        let config = switchback_engine::world::config(&home).expect("reads");
        let pointer = home.pointer().expect("reads").expect("a generation");
        let production = home.generation(pointer.current).expect("reads").instance;
        let release = home.release(&production.release).expect("reads");
        let engine = Arc::new(Docker::connect().expect("connects"));
        let data = ComposeData::of_program(engine, PathBuf::from(common::PROGRAM));
        Self { stack, home, config, production, release, data, temp: tempfile::tempdir().expect("tempdir") }
    }

    fn instance(&self, name: &str) -> Instance {
        let mut copy = self.production.clone();
        copy.environment = name.to_owned();
        copy.dir = format!("staging/{name}");
        let suffix = format!("staging.{name}");
        copy.stores = stores_in(&self.production.stores, &copy.dir, &self.stack.project, &suffix);
        copy
    }

    /// Seconds, and what was moved.
    fn copy(&self, to: &Instance, anew: bool) -> (f64, CopyStats) {
        let at =
            |instance| Placement { home: &self.home, config: &self.config, instance, release: &self.release };
        let scratch = Scratch::create(&self.home, &to.dir).expect("creates");
        let progress = Progress::none();
        let work = Work { stage: Stage::quiet(), progress: &progress, temp: self.temp.path() };
        let (from, to) = (at(&self.production), at(to));
        let began = Instant::now();
        let output = match anew {
            true => self.data.clone(&from, &to, CloneMode::Live, &scratch, &work),
            false => self.data.refresh(&from, &to, CloneMode::Live, &scratch, &work),
        };
        let took = began.elapsed().as_secs_f64();
        let mut all = CopyStats::default();
        let output = output.expect("copies");
        eprintln!("{took:.2} s: {:?}", output.notes);
        output.copies.values().for_each(|c| all.add(c));
        (took, all)
    }

    fn discard(&self, instance: &Instance) {
        let scratch = Scratch::create(&self.home, &instance.dir).expect("creates");
        self.data.discard(&self.home, instance, &scratch).expect("discards");
        scratch.remove().expect("removes");
        // Giving the blocks back is not part of what comes next.
        rustix::fs::sync();
    }

    /// A server on the clone, and a few writes.
    fn use_clone(&self) {
        let name = format!("{}-used", self.stack.project);
        let label = format!("{LABEL}={}", self.stack.project);
        let mount = format!("{}_db.staging.kept:/var/lib/postgresql/data", self.stack.project);
        let run =
            ["run", "-d", "--init", "--network", "none", "--name", &name, "--label", &label, "-v", &mount];
        docker(&[&run[..], &["sbt/postgres:15"]].concat()).expect(0);
        self.stack.wait_until("the clone starts", Duration::from_secs(300), || {
            docker(&["exec", &name, "pg_isready", "-q", "-h", "127.0.0.1"]).code == Some(0)
        });
        psql_in(
            &name,
            "ledger",
            "create table if not exists of_staging (n int); insert into of_staging values (7)",
        );
        docker(&["stop", "-t", "120", &name]).expect(0);
        docker(&["rm", &name]).expect(0);
    }
}

fn main() {
    let scale = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(SCALE);
    let repeat: u64 = std::env::var("REPEAT").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    let wide = std::env::args().any(|a| a == "wide");
    let bench = Bench::start(scale, wide);
    let (table, key, value, each) = match wide {
        true => ("documents", "id", "n", DOCUMENTS_PER_SCALE),
        false => ("pgbench_accounts", "aid", "abalance", ROWS_PER_SCALE),
    };
    let rows = scale * each;
    let kept = bench.instance("kept");
    std::thread::sleep(SETTLE);
    let (first, _) = bench.copy(&kept, false);
    println!(
        "Scale {scale}, {rows} rows; median (fastest–slowest) of {repeat}, seconds. The first copy with a record took {first:.2} s.\n"
    );
    println!(
        "| 1 % of the rows | cloned anew | brought up to date | times faster | moved | read to compare | writers waited, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (kind, name) in ["in one range", "scattered"].into_iter().enumerate() {
        let (mut anew, mut refreshed, mut ratio) =
            (Samples::default(), Samples::default(), Samples::default());
        let (mut last, mut waited) = (CopyStats::default(), Samples::default());
        for round in 0..repeat {
            let condition = match kind {
                0 => {
                    let from = rows / (repeat + 1) * (round + 1);
                    format!("{key} between {from} and {}", from + rows / 100 - 1)
                }
                _ => format!("{key} % 100 = {round}"),
            };
            bench.use_clone();
            bench.stack.psql(&format!("update {table} set {value} = {value} + 1 where {condition}"));
            bench.stack.psql("checkpoint");
            std::thread::sleep(SETTLE);
            rustix::fs::sync();
            let other = bench.instance(&format!("new{kind}{round}"));
            let mut new = 0.0;
            let mut done = (0.0, CopyStats::default());
            for turn in 0..2 {
                if (turn + round) % 2 == 0 {
                    done = bench.copy(&kept, false);
                } else {
                    new = bench.copy(&other, true).0;
                }
            }
            bench.discard(&other);
            anew.add(new);
            refreshed.add(done.0);
            ratio.add(new / done.0);
            waited.add(done.1.writers_waited_ms as f64);
            last = done.1;
        }
        println!(
            "| {name} | {} | {} | {} | {:.2} of {:.2} GB | {:.2} GB | {:.0} |",
            anew.show(2),
            refreshed.show(2),
            ratio.show(2),
            last.bytes_written as f64 / GB,
            last.bytes as f64 / GB,
            last.bytes_read as f64 / GB,
            waited.median(),
        );
    }
    bench.discard(&kept);
}
