//! How long do a backup and a restore of a large Postgres take, beside plain restic on the same machine?
//!
//! `cargo bench --bench backup` fills a server by `pgbench -i` in the engine's own volumes; `-- 200` is the scale (200 is 3
//! GB); `-- --dir /mnt/xfs` has the data in a folder, which may lie where blocks are shared, and measures backups only; `-- --restore` only the way back; `-- --keep` backups only, with `clone: keep`. The repositories lie in the temporary folder (`TMPDIR`). `REPEAT=3` repetitions of each, in turn:
//!
//! - backup: 1 % of the rows changed in one range, or scattered over the whole table, then `switchback backup`;
//!   `restic backup` of the volumes' folders into a repository of its own, while production runs; and the same of one moment: the
//!   services paused, `cp -a`, the services going on, `restic backup` of the copy, which is removed;
//! - restore: everything of the stack is removed; `switchback restore` and `up` from the repository and its key; then, from the
//!   same repository, `restic restore` into the volumes and `docker compose up --wait`, without and with `--verify`, by which restic
//!   reads again what it wrote. Each until the engine has seen all services healthy; `up` waits two seconds more, in which they stay so.
//!
//! It needs restic, the images of scripts/lib/images.sh, and about six times the size.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "../crates/switchback/tests/common/mod.rs"]
mod common;
#[path = "common/samples.rs"]
mod samples;

use common::docker::{Example, Stack, docker};
use common::upgrade::{burn_down, empty, mountpoint};
use samples::{Named, Samples};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// 3 GB.
const SCALE: u64 = 200;
const ROWS_PER_SCALE: u64 = 100_000;
const STORES: [&str; 3] = ["db", "books", "receipts"];

fn shown(steps: &Named) -> String {
    steps.iter().map(|(id, s)| format!("{id} {}", s.show(2))).collect::<Vec<_>>().join(", ")
}

/// Seconds that something takes until it is on the disk.
fn timed(work: impl FnOnce()) -> f64 {
    rustix::fs::sync();
    let began = Instant::now();
    work();
    rustix::fs::sync();
    began.elapsed().as_secs_f64()
}

struct Restic {
    repository: PathBuf,
    key: PathBuf,
    cache: PathBuf,
}

impl Restic {
    fn run(&self, args: &[&str]) {
        let output = Command::new("restic")
            .args(["-q", "-r"])
            .arg(&self.repository)
            .arg("--password-file")
            .arg(&self.key)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("restic is installed");
        // 3: a file of a running server vanished meanwhile.
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn main() {
    let (mut scale, mut dir, mut only_restore, mut keep) = (SCALE, None, false, false);
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.parse()) {
            ("--dir", _) => dir = args.next().map(PathBuf::from),
            ("--restore", _) => only_restore = true,
            ("--keep", _) => keep = true,
            (_, Ok(rows)) => scale = rows,
            _ => panic!("{arg}: neither a scale, nor --dir FOLDER, --restore, --keep"),
        }
    }
    let repeat: u64 = std::env::var("REPEAT").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    let rows = scale * ROWS_PER_SCALE;
    let beside = tempfile::tempdir().expect("a folder");
    let at = |name: &str| beside.path().join(name);

    let stack = Stack::compose(Example::Ledger);
    stack.set("BANK_RATE", "0");
    let data = dir.as_ref().map(|d| d.join(&stack.project));
    if let Some(data) = &data {
        place_in(&stack, data);
    }
    let path = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let more = if keep { ", clone: keep" } else { "" };
    let backup =
        format!("backup: {{ repository: \"{}\", keep: {{ last: 100 }}{more} }}", at("ours").display());
    fs::write(&path, format!("{text}\n{backup}\n")).expect("writes");
    stack.up();
    let id = stack.container("db").expect("a container");
    let scale_text = scale.to_string();
    docker(&["exec", &id, "pgbench", "-i", "-q", "-s", &scale_text, "-U", "ledger", "ledger"]).expect(0);
    // Nothing but what is asked for changes the table.
    stack.psql("alter table pgbench_accounts set (autovacuum_enabled = off)");
    stack.psql("checkpoint");
    stack.run(&["up", "--yes"]).expect(0);
    stack.run(&["backup", "init", "--quiet"]).expect(0);
    let key = at("key");
    fs::copy(stack.root.join(".switchback/backup.key"), &key).expect("copies");

    let restic = Restic { repository: at("restic"), key: key.clone(), cache: at("cache") };
    restic.run(&["init"]);
    let folders: Vec<PathBuf> = STORES.iter().map(|name| folder_of(&stack, data.as_deref(), name)).collect();
    let folders: Vec<&str> = folders.iter().map(|f| f.to_str().expect("text")).collect();
    let theirs = || restic.run(&[&["backup"], &folders[..]].concat());
    let ours = || drop(stack.run(&["backup", "--quiet"]).expect(0));
    let restic_of_copies =
        Restic { repository: at("restic-of-copies"), key: key.clone(), cache: at("cache-of-copies") };
    restic_of_copies.run(&["init"]);
    let of_one_moment = || {
        let services = ["db", "bank"].map(|s| stack.container(s).expect("it runs"));
        docker(&["pause", &services[0], &services[1]]).expect(0);
        // On the same file system, and at the same place each time.
        let up = Path::new(folders[0]).parent().and_then(Path::parent).expect("a folder");
        let copy = up.join("switchback-bench");
        fs::create_dir(&copy).expect("makes");
        for (name, folder) in STORES.iter().zip(&folders) {
            copy_all(Path::new(folder), &copy.join(name));
        }
        docker(&["unpause", &services[0], &services[1]]).expect(0);
        // A copy has other inodes; what has the same size and time of change is the same.
        restic_of_copies.run(&["backup", "--ignore-inode", "--ignore-ctime", copy.to_str().expect("text")]);
        fs::remove_dir_all(&copy).expect("removes");
    };
    let first = (timed(ours), timed(theirs));
    of_one_moment();
    let place = dir.map_or("the engine's volumes".to_owned(), |d| d.display().to_string());
    println!("Scale {scale}, {rows} rows, in {place}; median (fastest–slowest) of {repeat}, seconds.\n");
    println!("First backup: {:.1}, restic {:.1}.\n", first.0, first.1);
    println!(
        "| 1 % of the rows | backup | restic | ratio | cp, restic, rm | ratio | steps |\n|---|---|---|---|---|---|---|"
    );
    let kinds = if only_restore { &[][..] } else { &["in one range", "scattered"] };
    for (kind, name) in kinds.iter().enumerate() {
        let [mut own, mut plain, mut ratio, mut moment, mut of_moment]: [Samples; 5] =
            std::array::from_fn(|_| Samples::default());
        let mut steps = Named::default();
        for round in 0..repeat {
            let condition = match kind {
                0 => {
                    let from = rows / (repeat + 1) * (round + 1);
                    format!("aid between {from} and {}", from + rows / 100 - 1)
                }
                _ => format!("aid % 100 = {round}"),
            };
            stack.psql(&format!("update pgbench_accounts set abalance = abalance + 1 where {condition}"));
            stack.psql("checkpoint");
            let mut took = [0.0; 3];
            for turn in 0..3 {
                let which = (turn + round) % 3;
                took[usize::try_from(which).unwrap_or(0)] = match which {
                    0 => timed(ours),
                    1 => timed(theirs),
                    _ => timed(of_one_moment),
                };
            }
            let [a, b, c] = took;
            steps.add_steps(&stack.report());
            own.add(a);
            plain.add(b);
            ratio.add(a / b);
            moment.add(c);
            of_moment.add(a / c);
        }
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} |",
            own.show(2),
            plain.show(2),
            ratio.show(2),
            moment.show(2),
            of_moment.show(2),
            shown(&steps)
        );
    }

    if let Some(data) = data {
        burn_down(&stack);
        fs::remove_dir_all(&data).expect("removes");
        return;
    }
    if keep {
        return;
    }
    let [mut fetched, mut own, mut whole, mut plain, mut ratio, mut verified, mut of_verified]: [Samples; 7] =
        std::array::from_fn(|_| Samples::default());
    let same = Restic { repository: at("ours"), key, cache: at("cache-of-ours") };
    burn_down(&stack);
    for _ in 0..repeat {
        let began = begun();
        restore(&stack, &same);
        fetched.add(since(began));
        stack.run(&["up", "--yes", "--quiet"]).expect(0);
        whole.add(since(began));
        let ours = healthy(&stack, began);
        own.add(ours);
        burn_down(&stack);
        for (options, took, of) in
            [(&[][..], &mut plain, &mut ratio), (&["--verify"], &mut verified, &mut of_verified)]
        {
            // A bare machine has no cache.
            let _ = fs::remove_dir_all(&same.cache);
            let began = begun();
            restore_by_hand(&stack, &same, options);
            let by_hand = healthy(&stack, began);
            took.add(by_hand);
            of.add(ours / by_hand);
            let counted = stack.psql("select count(*) from pgbench_accounts");
            assert_eq!(counted.trim(), rows.to_string());
            // Switchback knows nothing of what was brought back by hand.
            stack.docker_compose(&["down"]).expect(0);
            for name in STORES {
                docker(&["volume", "rm", &format!("{}_{name}", stack.project)]).expect(0);
            }
            empty(&stack.root);
        }
    }
    println!(
        "\n| of it the restore | until all services are healthy | until `up` said so | restic restore, compose up, until healthy | ratio | with --verify | ratio |\n|---|---|---|---|---|---|---|"
    );
    println!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        fetched.show(2),
        own.show(2),
        whole.show(2),
        plain.show(2),
        ratio.show(2),
        verified.show(2),
        of_verified.show(2)
    );
}

/// Puts the data of the stores into a folder, which may lie where blocks are shared.
fn place_in(stack: &Stack, data: &Path) {
    let mut volumes = "volumes:\n".to_owned();
    for name in STORES {
        let device = data.join(name);
        fs::create_dir_all(&device).expect("creates");
        let device = device.display();
        volumes += &format!("  {name}: {{ driver_opts: {{ type: none, o: bind, device: \"{device}\" }} }}\n");
    }
    stack.edit("compose.yaml", "volumes:\n  db:\n  books:\n  receipts:\n", &volumes);
}

/// Where the files of a store lie.
fn folder_of(stack: &Stack, data: Option<&Path>, name: &str) -> PathBuf {
    data.map_or_else(|| mountpoint(&format!("{}_{name}", stack.project)), |data| data.join(name))
}

/// Now, when nothing waits to be written.
fn begun() -> SystemTime {
    rustix::fs::sync();
    SystemTime::now()
}

fn since(began: SystemTime) -> f64 {
    began.elapsed().expect("time goes on").as_secs_f64()
}

/// Seconds until the engine saw the last of the services healthy for the first time.
fn healthy(stack: &Stack, began: SystemTime) -> f64 {
    let unix = |t: SystemTime| t.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let (since, until) = (format!("{:.3}", unix(began)), format!("{:.3}", unix(SystemTime::now())));
    let project = format!("label=com.docker.compose.project={}", stack.project);
    // Who has no health check is there when it is started.
    let events = docker(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &project,
        "--filter",
        "event=health_status",
        "--filter",
        "event=start",
        "--format",
        "{{.TimeNano}} {{.Actor.ID}} {{.Action}}",
    ]);
    let events = events.expect(0);
    let (mut started, mut well): (BTreeMap<String, f64>, BTreeMap<String, f64>) = Default::default();
    for line in events.stdout.lines() {
        let mut words = line.splitn(3, ' ');
        let at: f64 = words.next().and_then(|n| n.parse().ok()).expect("a time");
        let id = words.next().expect("an id").to_owned();
        match words.next() {
            Some("start") => started.entry(id).or_insert(at / 1e9),
            Some("health_status: healthy") => well.entry(id).or_insert(at / 1e9),
            _ => continue,
        };
    }
    assert!(
        started.len() == 2 && well.len() == 1,
        "db has a health check, bank has none:\n{}",
        events.stdout
    );
    started.into_values().chain(well.into_values()).fold(0.0, f64::max) - unix(began)
}

fn restore(stack: &Stack, from: &Restic) {
    let output = Command::new(common::PROGRAM)
        .arg("restore")
        .arg("--from")
        .arg(&from.repository)
        .arg("--key-file")
        .arg(&from.key)
        .arg("--into")
        .arg(&stack.root)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What docs/upgrade-infrastructure/backup says that one does without Switchback.
fn restore_by_hand(stack: &Stack, from: &Restic, options: &[&str]) {
    stack.docker_compose(&["version"]).expect(0);
    let mut staged: Option<PathBuf> = None;
    for name in STORES {
        let volume = format!("{}_{name}", stack.project);
        let label = format!("com.docker.compose.project={}", stack.project);
        let named = format!("com.docker.compose.volume={name}");
        docker(&["volume", "create", "--label", &label, "--label", &named, &volume]).expect(0);
        let folder = mountpoint(&volume);
        // On the same file system: what was restored is only renamed.
        let parent = folder.parent().expect("a folder").to_owned();
        let target = staged.get_or_insert_with(|| {
            let target = parent.join("restored");
            from.run(&[&["restore", "latest", "--target", target.to_str().expect("text")], options].concat());
            target
        });
        fs::remove_dir(&folder).expect("a new volume is empty");
        fs::rename(target.join("stores").join(name), &folder).expect("renames");
    }
    let staged = staged.expect("restored");
    copy_all(&staged.join("stack"), &stack.root);
    fs::remove_dir_all(&staged).expect("removes");
    stack.docker_compose(&["up", "-d", "--wait", "--no-build"]).expect(0);
}

fn copy_all(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp");
    assert!(done.success());
}
