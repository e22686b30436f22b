//! A Postgres stack under Compose: does the rollback's time grow with the data, what is it above the floor, what would a
//! user do otherwise, and how long is a promotion down, with shared blocks and without?
//!
//! `cargo bench --bench compose` runs every size on the engine's own volumes; `-- 0.1 1 --dir /mnt/xfs` runs some sizes
//! (GB) with the data in a folder instead, which may lie on XFS. `REPEAT=3` repetitions, `LOAD=100` transfers per second
//! all the time (0 for none). It needs the images of scripts/lib/images.sh. What is measured, per repetition:
//!
//! - floor: `docker compose stop`, then `up --force-recreate`, by hand, until healthy and stable by the same rules;
//! - plain: the same with `docker compose start`, which makes no containers;
//! - a promotion and the rollback.
//!
//! Once per size: dump and restore (as the tools do by themselves, and tuned: light compression, two jobs); stop, tar and untar; the clone of data at rest against `cp -a`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;

use common::docker::{Example, Stack, docker};
use samples::Samples;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use switchback_core::release::MountPlace;
use switchback_engine::docker::hands::{CutMode, CutPair, Hands, Sharing};
use switchback_engine::docker::{Docker, helper};
use switchback_engine::store::Progress;

/// GB of `pgbench -i` data; scale 1 is 15 MB.
const SIZES: [f64; 3] = [0.1, 1.0, 5.0];
const SCALES_PER_GB: f64 = 66.0;
/// The longer of the stability times in the stack's configuration: the default, of the database.
const STABLE: Duration = Duration::from_secs(2);
/// How long the load writes before production is stopped, by hand or by the rollback.
const WRITTEN: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

#[derive(Default)]
struct Size {
    rollback: Samples,
    floor: Samples,
    plain: Samples,
    over_floor: Samples,
    over_plain: Samples,
    downtime: Samples,
    over_downtime: Samples,
    how: String,
    dump: f64,
    fast_dump: f64,
    tar: f64,
    clone: Option<(f64, f64)>,
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut sizes, mut dir) = (Vec::new(), None);
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.parse()) {
            ("--dir", _) => dir = args.next().map(PathBuf::from),
            (_, Ok(gb)) => sizes.push(gb),
            _ => panic!("{arg}: neither a size in GB nor --dir FOLDER"),
        }
    }
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let repeat = number("REPEAT", 3);
    let place = dir.as_ref().map_or("the engine's volumes".to_owned(), |d| d.display().to_string());
    println!("Data in {place}; median (fastest–slowest) of {repeat}, ms.\n");
    println!(
        "| GB | rollback | floor: stop, recreate | ratio | plain stop, start | ratio | promotion down | over the floor | how | dump + restore | the same, tuned | stop, tar, untar | clone / cp -a |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut medians = Vec::new();
    for gb in sizes {
        let size = measure(gb, dir.as_ref(), repeat);
        medians.push(size.rollback.median());
        println!(
            "| {gb} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} ({:.0} x) | {:.0} ({:.0} x) | {:.0} ({:.0} x) | {} |",
            size.rollback.show(0),
            size.floor.show(0),
            size.over_floor.show(2),
            size.plain.show(0),
            size.over_plain.show(2),
            size.downtime.show(0),
            size.over_downtime.show(0),
            size.how,
            size.dump,
            size.dump / size.rollback.median(),
            size.fast_dump,
            size.fast_dump / size.rollback.median(),
            size.tar,
            size.tar / size.rollback.median(),
            size.clone
                .map_or("–".to_owned(), |(ours, cp)| format!("{ours:.0} / {cp:.0} ({:.2})", ours / cp)),
        );
    }
    let (min, max) =
        (medians.iter().copied().fold(f64::NAN, f64::min), medians.iter().copied().fold(f64::NAN, f64::max));
    println!("\nslowest / fastest size: {:.3}", max / min);
}

fn measure(gb: f64, dir: Option<&PathBuf>, repeat: usize) -> Size {
    let stack = Stack::compose(Example::Ledger);
    let data = dir.map(|d| d.join(&stack.project));
    if let Some(data) = &data {
        let mut volumes = "volumes:\n".to_owned();
        for name in ["db", "books", "receipts"] {
            let device = data.join(name);
            std::fs::create_dir_all(&device).expect("creates");
            volumes += &format!(
                "  {name}: {{ driver_opts: {{ type: none, o: bind, device: \"{}\" }} }}\n",
                device.display()
            );
        }
        stack.edit("compose.yaml", "volumes:\n  db:\n  books:\n  receipts:\n", &volumes);
    }
    stack.set("BANK_RATE", "0");
    stack.up();
    fill(&stack, gb);
    let mut size = Size {
        dump: dump_and_restore(&stack, &["-Fc"], &[]),
        fast_dump: dump_and_restore(&stack, &["-Fc", "-Z", "1"], &["-j", "2"]),
        tar: tar_and_untar(&stack),
        ..Size::default()
    };
    if data.is_none() {
        size.clone = Some(clone_against_cp(&stack));
    }
    stack.run(&["up", "--yes"]).expect(0);
    stack.open_accounts();
    for round in 0..repeat {
        let load = (number("LOAD", 100) > 0)
            .then(|| stack.start_load(u32::try_from(number("LOAD", 100)).expect("a rate")));
        // Some writes before each stop, as there are before the rollback.
        std::thread::sleep(WRITTEN);
        let floor = by_hand(&stack, &["up", "-d", "--no-build", "--force-recreate"]);
        std::thread::sleep(WRITTEN);
        let plain = by_hand(&stack, &["start"]);
        let promote =
            ["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "benchmark"];
        stack.run(&promote).expect(0);
        stack.assert_accounts_balance();
        let report = stack.report();
        let downtime = report["times"]["downtime_ms"].as_f64().expect("a time");
        if round == 0 {
            let text = report.to_string();
            let ways = [
                ("a standby took over", "standby"),
                ("passes while it runs", "passes"),
                ("(reflink)", "shared blocks"),
            ];
            size.how = ways.iter().find(|(sign, _)| text.contains(sign)).map_or("copy", |w| w.1).to_owned();
        }
        std::thread::sleep(WRITTEN);
        stack.run(&["rollback", "--yes", "--quiet"]).expect(0);
        drop(load);
        stack.assert_accounts_balance();
        let rollback = stack.report()["times"]["rollback_ms"].as_f64().expect("a time");
        size.rollback.add(rollback);
        size.floor.add(floor);
        size.plain.add(plain);
        size.over_floor.add(rollback / floor);
        size.over_plain.add(rollback / plain);
        size.downtime.add(downtime);
        // A promotion's downtime ends with the first healthy answer, the floor with the stability time.
        size.over_downtime.add(downtime - (floor - STABLE.as_secs_f64() * 1000.0));
        stack.run(&["gc", "--yes", "--lose-writes-of", &(round + 2).to_string()]);
    }
    drop(stack);
    if let Some(data) = data {
        // Clones of volumes lie beside them.
        std::fs::remove_dir_all(&data).expect("removes");
    }
    size
}

fn fill(stack: &Stack, gb: f64) {
    let id = stack.container("db").expect("a container");
    let scale = (gb * SCALES_PER_GB).ceil().to_string();
    docker(&["exec", &id, "pgbench", "-i", "-q", "-s", &scale, "-U", "ledger", "ledger"]).expect(0);
    stack.psql("checkpoint");
}

/// Both containers healthy by their own checks and the bank by its health check.
fn settle(stack: &Stack) {
    let began = Instant::now();
    loop {
        let db = stack.container("db").is_some_and(|id| {
            docker(&["inspect", "--format", "{{.State.Health.Status}}", &id]).stdout.trim() == "healthy"
        });
        if db && stack.ask("GET", "/health", &[], None).is_ok_and(|a| a.0 == 200) {
            break;
        }
        assert!(began.elapsed() < SETTLE, "not healthy");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(STABLE);
}

fn by_hand(stack: &Stack, start: &[&str]) -> f64 {
    let began = Instant::now();
    stack.docker_compose(&["stop"]).expect(0);
    stack.docker_compose(start).expect(0);
    settle(stack);
    ms(began)
}

/// What a user does otherwise: a dump before the upgrade, and restoring it.
fn dump_and_restore(stack: &Stack, how_dumped: &[&str], how_restored: &[&str]) -> f64 {
    let id = stack.container("db").expect("a container");
    let run = |args: &[&str]| {
        docker(&[&["exec", &id], args].concat()).expect(0);
    };
    let began = Instant::now();
    run(&[&["pg_dump", "-U", "ledger", "-f", "/tmp/dump"], how_dumped, &["ledger"]].concat());
    run(&["createdb", "-U", "ledger", "restored"]);
    run(&[&["pg_restore", "-U", "ledger", "-d", "restored"], how_restored, &["/tmp/dump"]].concat());
    let took = ms(began);
    run(&["dropdb", "-U", "ledger", "restored"]);
    run(&["rm", "/tmp/dump"]);
    took
}

fn shell(volumes: &[(&str, &str)], script: &str) {
    let mounts: Vec<String> = volumes.iter().map(|(name, at)| format!("{name}:{at}")).collect();
    let mut args = vec!["run", "--rm", "--network", "none"];
    for mount in &mounts {
        args.extend(["-v", mount]);
    }
    args.extend(["--entrypoint", "sh", "sbt/postgres:15", "-c", script]);
    docker(&args).expect(0);
}

/// Stop, archive, start; stop, unpack over it, start.
fn tar_and_untar(stack: &Stack) -> f64 {
    let (volume, kept) = (format!("{}_db", stack.project), format!("{}_kept", stack.project));
    let label = format!("dev.switchback.test={}", stack.project);
    docker(&["volume", "create", "--label", &label, &kept]).expect(0);
    let mounts = [(volume.as_str(), "/data"), (kept.as_str(), "/kept")];
    let began = Instant::now();
    stack.docker_compose(&["stop"]).expect(0);
    shell(&mounts, "cd /data && tar cf /kept/all.tar . && sync /kept/all.tar");
    shell(&mounts, "cd /data && find . -mindepth 1 -delete && tar xf /kept/all.tar && sync -f .");
    stack.docker_compose(&["start"]).expect(0);
    settle(stack);
    let took = ms(began);
    docker(&["volume", "rm", &kept]).expect(0);
    took
}

/// The clone of data at rest without shared blocks, and `cp -a` of the same; the faster of two each, in turn.
fn clone_against_cp(stack: &Stack) -> (f64, f64) {
    stack.docker_compose(&["stop"]).expect(0);
    let engine = Docker::connect().expect("an engine");
    let program = PathBuf::from(common::PROGRAM);
    let image = helper::ensure(&engine, &program).expect("a helper");
    let id = format!("bench-{}", stack.project);
    let hands = Hands::new(&engine, image, id.clone());
    let source = format!("{}_db", stack.project);
    let (mut ours, mut cp) = (f64::INFINITY, f64::INFINITY);
    for round in 0..2 {
        let name = format!("{}-clone-{round}", stack.project);
        let target = engine.volume_create(&name, &id, &[], &[]).expect("a volume");
        let (from, to) = (MountPlace::Volume(source.clone()), target.place());
        let began = Instant::now();
        let pair = CutPair { from: (&from, ""), to: (&to, ""), record: None, leave_out: &[] };
        hands
            .cut(&[pair], Sharing::No, CutMode::Stopped, &Progress::none(), &mut |_| Ok(()))
            .expect("clones");
        ours = ours.min(ms(began));
        engine.volume_remove(&target).expect("removes");
        let target = engine.volume_create(&name, &id, &[], &[]).expect("a volume");
        let began = Instant::now();
        shell(&[(&source, "/from"), (&name, "/to")], "cp -a /from/. /to/ && sync -f /to");
        cp = cp.min(ms(began));
        engine.volume_remove(&target).expect("removes");
    }
    stack.docker_compose(&["start"]).expect(0);
    settle(stack);
    (ours, cp)
}
