//! Clones that staging has written to are brought to production's present state while production is written to: in
//! volumes, and in folders on file systems that copy (ext4) and that share blocks (XFS). About a minute each.

mod common;

use common::PROGRAM;
use common::docker::{Example, LABEL, Stack, assert_accounts_balance_in, docker, labelled, psql_in};
use common::upgrade::{PATIENCE, state};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use switchback_core::config::Config;
use switchback_core::data::CopyStats;
use switchback_core::journal::Output;
use switchback_core::plan::{CloneMode, stores_in};
use switchback_core::release::{Instance, MountPlace, Release};
use switchback_engine::data::{ComposeData, Data as _, Work};
use switchback_engine::docker::Docker;
use switchback_engine::home::Home;
use switchback_engine::runtime::{Placement, Stage};
use switchback_engine::scratch::Scratch;
use switchback_engine::store::Progress;

/// A stack in use, and an instance beside it as staging has one.
struct Resync {
    stack: Stack,
    _data: Option<tempfile::TempDir>,
    home: Home,
    config: Config,
    production: Instance,
    release: Release,
    staging: Instance,
    data: ComposeData,
    temp: tempfile::TempDir,
}

impl Resync {
    /// In volumes, or in folders below a place.
    fn start(place: Option<&Path>) -> Self {
        let stack = Stack::compose(if place.is_some() { Example::Exchange } else { Example::Ledger });
        let data = place.map(|place| {
            let data = tempfile::Builder::new().prefix("resync-").tempdir_in(place).expect("tempdir");
            for folder in ["db", "books", "receipts"] {
                std::fs::create_dir(data.path().join(folder)).expect("creates");
            }
            stack.set("DATA_DIR", &data.path().to_string_lossy());
            data
        });
        stack.set("BANK_RATE", "20");
        stack.up();
        stack.open_accounts();
        // Large enough for what is moved to be little beside it.
        stack.psql(
            "create table bank.ballast as select n, repeat('x', 400) as pad from generate_series(1, 60000) n",
        );
        stack.psql("create extension if not exists amcheck");
        stack.run(&["up", "--yes"]).expect(0);
        let home = Home::open(&stack.root).expect("opens");
        let config = switchback_engine::world::config(&home).expect("reads");
        let pointer = home.pointer().expect("reads").expect("a generation");
        let production = home.generation(pointer.current).expect("reads").instance;
        let release = home.release(&production.release).expect("reads");
        let mut staging = production.clone();
        staging.environment = "try".into();
        staging.dir = "staging/try".into();
        let dir = format!("{}/{}", state(&stack).display(), staging.dir);
        staging.stores = stores_in(&production.stores, &dir, &stack.project, "staging.try");
        let engine = Arc::new(Docker::connect().expect("connects"));
        let data_seam = ComposeData::of_program(engine, PROGRAM.into());
        let temp = tempfile::tempdir().expect("tempdir");
        Self { stack, _data: data, home, config, production, release, staging, data: data_seam, temp }
    }

    fn at<'a>(&'a self, instance: &'a Instance) -> Placement<'a> {
        Placement { home: &self.home, config: &self.config, instance, release: &self.release }
    }

    fn scratch(&self) -> Scratch {
        Scratch::create(&self.home, &self.staging.dir).expect("creates")
    }

    fn with_work<T>(&self, does: impl FnOnce(&Work<'_>) -> T) -> T {
        let progress = Progress::none();
        does(&Work { stage: Stage::quiet(), progress: &progress, temp: self.temp.path() })
    }

    fn refresh(&self, mode: CloneMode) -> Output {
        let (from, to) = (self.at(&self.production), self.at(&self.staging));
        let scratch = self.scratch();
        self.with_work(|work| self.data.refresh(&from, &to, mode, &scratch, work).expect("refreshes"))
    }

    /// As an argument of `docker run -v`.
    fn mount(&self, instance: &Instance, store: &str) -> String {
        let (_, place) = instance.stores.iter().find(|(name, _)| name.as_str() == store).expect("a store");
        match &place.mount.as_ref().expect("a mount").at {
            MountPlace::Volume(name) => name.clone(),
            MountPlace::Dir(path) => path.clone(),
        }
    }

    /// Runs a container on places of the clone; it is killed in the end, or stopped.
    fn with_container<T>(&self, args: &[&str], stop: bool, work: impl FnOnce(&str) -> T) -> T {
        let name = format!("{}-try", self.stack.project);
        let label = format!("{LABEL}={}", self.stack.project);
        let run = ["run", "-d", "--init", "--network", "none", "--name", &name, "--label", &label];
        docker(&[&run[..], args].concat()).expect(0);
        let value = work(&name);
        if stop {
            docker(&["stop", "-t", "60", &name]).expect(0);
        }
        docker(&["rm", "-f", &name]).expect(0);
        value
    }

    fn database(&self) -> &'static str {
        if self.stack.example == Example::Ledger { "ledger" } else { "exchange" }
    }

    fn with_postgres<T>(&self, stop: bool, work: impl FnOnce(&str) -> T) -> T {
        let mount = format!("{}:/var/lib/postgresql/data", self.mount(&self.staging, "db"));
        self.with_container(&["-v", &mount, "sbt/postgres:15"], stop, |name| {
            self.stack.wait_until("the clone of the database starts", PATIENCE, || {
                docker(&["exec", name, "pg_isready", "-q", "-h", "127.0.0.1"]).code == Some(0)
            });
            work(name)
        })
    }

    /// What people do in staging.
    fn write_to_staging(&self, stop: bool) {
        let database = self.database();
        self.with_postgres(stop, |name| {
            psql_in(
                name,
                database,
                "create table bank.of_staging as select * from generate_series(1, 5000) n;
                 update bank.accounts set balance = balance + 7 where id % 3 = 0;
                 delete from bank.ballast where n < 1000;
                 checkpoint",
            );
            psql_in(name, database, "vacuum full bank.transfers");
        });
        let mounts = ["books:/data", "receipts:/receipts"].map(|m| {
            let (store, target) = m.split_once(':').expect("two");
            format!("{}:{target}", self.mount(&self.staging, store))
        });
        let script = "import sqlite3, os, glob
db = sqlite3.connect('/data/bank.db')
db.execute('delete from transfers where id % 2 = 0'); db.commit()
open('/receipts/of-staging', 'w').write('x')
[os.remove(f) for f in sorted(glob.glob('/receipts/*'))[:3]]
os.kill(os.getpid(), 9)";
        let run = ["run", "--rm", "--network", "none", "-v", &mounts[0], "-v", &mounts[1]];
        docker(&[&run[..], &["--entrypoint", "python3", "sbt/bank:1", "-c", script]].concat());
    }

    /// The clone is of one moment, sound, and has nothing of staging's. The number of transfers in it.
    fn audit(&self) -> u64 {
        for store in self.staging.stores.keys() {
            let at = self.at(&self.staging);
            let wrong =
                self.with_work(|work| self.data.integrity(&at, store, CloneMode::Cold, work)).expect("looks");
            assert_eq!(wrong, Vec::<String>::new(), "{store}");
        }
        let mounts = ["books:/data", "receipts:/receipts"].map(|m| {
            let (store, target) = m.split_once(':').expect("two");
            format!("{}:{target}", self.mount(&self.staging, store))
        });
        let bank = ["-e", "BANK_RATE=0", "-v", &mounts[0], "-v", &mounts[1], "sbt/bank:1"];
        self.with_container(&bank, false, |name| {
            let ask = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:8080/audit').read().decode())";
            let mut answer = String::new();
            self.stack.wait_until("the clone of the bank answers", PATIENCE, || {
                let ran = docker(&["exec", name, "python3", "-c", ask]);
                answer.clone_from(&ran.stdout);
                ran.code == Some(0)
            });
            let audit: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(audit["ok"], true, "torn: {audit}");
            let left = docker(&["exec", name, "ls", "/receipts"]).expect(0).stdout;
            assert!(!left.contains("of-staging"), "{left}");
        });
        self.with_postgres(false, |name| {
            let found = psql_in(
                name,
                self.database(),
                "select to_regclass('bank.of_staging') is null, count(*) from bank.ballast",
            );
            assert_eq!(found, "t|60000", "staging's writes are left");
            assert_accounts_balance_in(name, self.database())
        })
    }

    /// Every file of a place with owner, mode and checksum.
    fn listing(&self, instance: &Instance, store: &str) -> Vec<String> {
        let mount = format!("{}:/v:ro", self.mount(instance, store));
        let script = "cd /v && find . ! -type s -printf '%p %U:%G %m %y %l %T@ ' \\( -type f -printf '%s' -o -true \\) -printf '\\n' | sort \
                      && find . -type f -exec sha256sum {} + | sort -k2";
        let run = ["run", "--rm", "--network", "none", "-v", &mount, "--entrypoint", "sh"];
        let out = docker(&[&run[..], &["sbt/postgres:15", "-c", script]].concat()).expect(0).stdout;
        out.lines().map(str::to_owned).collect()
    }

    fn transfers(&self) -> u64 {
        self.stack.psql("select count(*) from bank.transfers").parse().expect("a number")
    }
}

fn sum(output: &Output) -> CopyStats {
    let mut all = CopyStats::default();
    output.copies.values().for_each(|c| all.add(c));
    all
}

fn resynchronised_under_load(place: Option<&Path>, shared: bool) {
    let resync = Resync::start(place);
    let stack = &resync.stack;
    let load = stack.start_load(50);
    stack.wait_until("the load runs", PATIENCE, || resync.transfers() > 20);
    let first = resync.refresh(CloneMode::Live);
    let mut last = 0;
    assert_eq!(sum(&first).reflinked > 0, shared, "{first:?}");
    for round in 0..2 {
        resync.write_to_staging(round % 2 == 0);
        let before = resync.transfers();
        let output = resync.refresh(CloneMode::Live);
        let after = resync.transfers();
        eprintln!("MEASURED {:?}", output.notes);
        let found = resync.audit();
        assert!((before..=after).contains(&found) && found > last, "{found}, not in {before}..={after}");
        last = found;
        let all = sum(&output);
        if shared {
            assert_eq!((all.bytes_written, all.reflinked > 0), (0, true), "{all:?}");
        } else {
            assert!(all.bytes_saved > all.bytes / 4 && all.bytes_read > 0, "{all:?}");
            assert!(output.notes.iter().any(|n| n.contains("moved")), "{:?}", output.notes);
        }
    }
    // Something runs on the clone: it is left alone.
    let mount = format!("{}:/v", resync.mount(&resync.staging, "db"));
    resync.with_container(&["-v", &mount, "--entrypoint", "sleep", "sbt/postgres:15", "600"], false, |_| {
        let (from, to, scratch) =
            (resync.at(&resync.production), resync.at(&resync.staging), resync.scratch());
        let refused =
            resync.with_work(|work| resync.data.refresh(&from, &to, CloneMode::Live, &scratch, work));
        assert!(refused.is_err_and(|e| e.to_string().contains("runs on the data")));
    });
    load.stop();
    // Stopped, both sides can be compared exactly.
    resync.write_to_staging(false);
    stack.docker_compose(&["stop"]).expect(0);
    resync.refresh(CloneMode::Cold);
    for store in ["db", "books", "receipts"] {
        let (was, is) = (resync.listing(&resync.production, store), resync.listing(&resync.staging, store));
        assert_eq!(was, is, "{store}");
    }
    let scratch = resync.scratch();
    resync.data.discard(&resync.home, &resync.staging, &scratch).expect("discards");
    scratch.remove().expect("removes");
    let id = std::fs::read_to_string(state(stack).join("id")).expect("an id");
    assert_eq!(labelled("dev.switchback.stack", id.trim())[2], Vec::<String>::new(), "volumes are left");
    if let Some(data) = &resync._data {
        let beside = data.path().join(format!(".switchback-{}", id.trim()));
        let left: Vec<PathBuf> =
            std::fs::read_dir(&beside).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

#[test]
fn clones_in_volumes_are_brought_up_to_date_under_load() {
    resynchronised_under_load(None, false);
}

#[test]
fn clones_in_folders_are_brought_up_to_date_under_load() {
    resynchronised_under_load(Some(&std::env::temp_dir()), false);
}

#[test]
fn clones_that_share_blocks_are_made_anew() {
    let Some(place) = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR") else {
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR names no folder on XFS or btrfs");
        return;
    };
    resynchronised_under_load(Some(Path::new(&place)), true);
}
