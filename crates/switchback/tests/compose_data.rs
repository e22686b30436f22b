//! Data of Compose stacks on file systems that copy (ext4) and that share blocks (XFS): whole upgrades, no torn copy
//! while money moves, and no acknowledged write that is lost.

mod common;

use common::PROGRAM;
use common::docker::{
    DB_PASSWORD, Example, LABEL, Stack, assert_accounts_balance_in, docker, full, psql_in, ran,
};
use common::upgrade::{
    PATIENCE, assert_same_tree, containers, exported, generation, id, report, staging_left, state, tree,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use switchback_core::plan::{CloneMode, stores_in};
use switchback_engine::data::{ComposeData, Data as _, Work};
use switchback_engine::docker::Docker;
use switchback_engine::home::Home;
use switchback_engine::runtime::{Placement, Stage};
use switchback_engine::scratch::Scratch;
use switchback_engine::store::Progress;

/// An exchange whose data lie in a folder of a file system.
struct Exchange {
    // Before the folder: what runs goes first.
    stack: Stack,
    data: tempfile::TempDir,
}

impl Exchange {
    /// Money moves in PostgreSQL, and in the bank of its own accord.
    #[track_caller]
    fn start(place: &Path, bank_rate: u32) -> Self {
        let stack = Stack::compose(Example::Exchange);
        let data = tempfile::Builder::new().prefix("exchange-").tempdir_in(place).expect("tempdir");
        for folder in ["db", "books", "receipts"] {
            fs::create_dir(data.path().join(folder)).expect("creates");
        }
        stack.set("DATA_DIR", &data.path().to_string_lossy());
        stack.set("BANK_RATE", &bank_rate.to_string());
        stack.up();
        stack.open_accounts();
        stack.psql("create table bank.notes (id bigint primary key)");
        stack.run(&["up", "--yes"]).expect(0);
        Self { stack, data }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    /// The folder of the clones of this stack.
    fn beside(&self) -> PathBuf {
        self.data.path().join(format!(".switchback-{}", id(&self.stack)))
    }

    /// Names of what is beside production's data.
    fn clones(&self) -> BTreeSet<String> {
        let all = fs::read_dir(self.beside()).into_iter().flatten().flatten();
        all.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Two people who write all the time and remember what was acknowledged.
struct Writers {
    ended: Arc<AtomicBool>,
    bank: Option<std::thread::JoinHandle<BTreeSet<u64>>>,
    container: String,
    notes: tempfile::TempDir,
    seen: Arc<Mutex<u64>>,
}

impl Writers {
    #[track_caller]
    fn start(stack: &Stack) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(0));
        let bank = std::thread::spawn({
            let (ended, port, seen) = (Arc::clone(&ended), stack.port, Arc::clone(&seen));
            move || {
                let agent: ureq::Agent = ureq::Agent::config_builder()
                    .http_status_as_error(false)
                    .proxy(None)
                    .timeout_global(Some(Duration::from_secs(10)))
                    .build()
                    .into();
                let mut known = BTreeSet::new();
                while !ended.load(Ordering::Relaxed) {
                    let answer = agent
                        .post(format!("http://127.0.0.1:{port}/transfer"))
                        .send(r#"{"from": 3, "to": 4, "amount": 1}"#);
                    if let Ok(mut answer) = answer
                        && answer.status() == 201
                        && let Ok(text) = answer.body_mut().read_to_string()
                    {
                        let value: Value = serde_json::from_str(&text).expect("JSON");
                        known.insert(value["id"].as_u64().expect("a number"));
                        *seen.lock().expect("unpoisoned") = known.len() as u64;
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                known
            }
        });
        let notes = tempfile::tempdir().expect("tempdir");
        let container = format!("{}-notes", stack.project);
        let script = "n=0; while :; do n=$((n+1)); \
                      psql -XqAt -c \"insert into bank.notes values ($n)\" && echo $n >> /notes/known; sleep 0.05; done";
        let output = Command::new("docker")
            .args([
                "run",
                "-d",
                "--init",
                "--name",
                &container,
                "--label",
                &format!("{LABEL}={}", stack.project),
            ])
            .args(["--network", &format!("{}_default", stack.project)])
            .args(["-v", &format!("{}:/notes", notes.path().display())])
            .args([
                "-e",
                "PGPASSWORD",
                "-e",
                "PGHOST=db",
                "-e",
                "PGCONNECT_TIMEOUT=2",
                "-e",
                "PGUSER=exchange",
            ])
            .args(["-e", "PGDATABASE=exchange", "--entrypoint", "sh", "sbt/postgres:15", "-c", script])
            .env("PGPASSWORD", DB_PASSWORD)
            .output()
            .expect("docker is installed");
        ran(&output).expect(0);
        Self { ended, bank: Some(bank), container, notes, seen }
    }

    fn known_notes(&self) -> BTreeSet<u64> {
        let text = fs::read_to_string(self.notes.path().join("known")).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|l| l.parse().expect("a number")).collect()
    }

    /// Waits until both have written so much more.
    #[track_caller]
    fn wait_for(&self, stack: &Stack, more: usize) {
        let (bank, notes) = (*self.seen.lock().expect("unpoisoned"), self.known_notes().len());
        stack.wait_until("both write on", PATIENCE, || {
            *self.seen.lock().expect("unpoisoned") >= bank + more as u64
                && self.known_notes().len() >= notes + more
        });
    }

    /// Ends both: numbers of transfers and of notes that were acknowledged.
    fn stop(mut self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        docker(&["rm", "-f", &self.container]);
        self.ended.store(true, Ordering::Relaxed);
        let transfers = self.bank.take().expect("not ended yet").join().expect("ends");
        (transfers, self.known_notes())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        docker(&["rm", "-f", &self.container]);
    }
}

/// The folder on a file system that shares blocks, if the machine was prepared.
fn reflink_place() -> Option<PathBuf> {
    let place = std::env::var_os("SWITCHBACK_TEST_REFLINK_DIR").map(PathBuf::from);
    if place.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "SWITCHBACK_TEST_REFLINK_DIR must be set in CI; use scripts/test"
        );
        eprintln!("SKIPPED: SWITCHBACK_TEST_REFLINK_DIR is not set; scripts/test sets it");
    }
    place
}

/// Every clone of the last run shares its blocks and wrote none, or none does.
#[track_caller]
fn assert_copies(stack: &Stack, shared: bool) {
    let report = report(stack);
    let copies = report["copies"].as_array().expect("copies");
    assert!(copies.len() >= 3, "{copies:?}");
    for copy in copies {
        let number = |name: &str| copy["stats"][name].as_u64().expect("a number");
        if shared {
            assert_eq!((number("reflinked") > 0, number("bytes_written")), (true, 0), "{copy}");
        } else {
            assert_eq!(number("reflinked"), 0, "{copy}");
            assert!(number("bytes_written") > 0 || number("bytes") == 0, "{copy}");
        }
    }
}

fn keys(rows: &[Value]) -> BTreeSet<u64> {
    rows.iter().map(|r| r["key"]["id"].as_u64().expect("an id")).collect()
}

/// Rehearsal, promotion and rollback, while money moves all the time.
fn upgraded_under_load(place: &Path, shared: bool) {
    let exchange = Exchange::start(place, 10);
    let stack = &exchange.stack;
    let load = stack.start_load(30);
    let writers = Writers::start(stack);
    writers.wait_for(stack, 10);
    let running = containers(stack);
    let began = Instant::now();
    stack.run(&["rehearse", "bank=2"]).expect(0);
    let rehearsal = report(stack);
    eprintln!(
        "MEASURED exchange on {}: rehearsal {:?}, writers waited {} ms",
        place.display(),
        began.elapsed(),
        rehearsal["times"]["writers_waited_ms"]
    );
    assert!(!rehearsal["certificate"].is_null(), "{rehearsal}");
    assert_copies(stack, shared);
    assert_eq!(containers(stack), running, "a rehearsal restarted production");
    assert_eq!(staging_left(stack), Vec::<String>::new());
    assert_eq!(exchange.clones(), BTreeSet::new());
    writers.wait_for(stack, 10);

    stack.run(&["promote", "bank=2", "--yes"]).expect(0);
    eprintln!("MEASURED exchange: down {} ms by the promotion", report(stack)["times"]["downtime_ms"]);
    assert_eq!(generation(stack), 2);
    assert_copies(stack, shared);
    let lock = fs::read_to_string(stack.root.join("switchback.lock.yaml")).expect("reads");
    let clones = exchange.beside().join("g2");
    assert!(lock.contains(&*clones.to_string_lossy()), "{lock}");
    let before = containers(stack);
    stack.docker_compose(&["up", "-d"]).expect(0);
    assert_eq!(containers(stack), before, "`docker compose up -d` changed what runs");
    let originals = || ["db", "books", "receipts"].map(|name| tree(&exchange.folder(name)));
    let left = originals();
    writers.wait_for(stack, 20);
    stack.run(&["gc", "--yes"]).expect(0);
    assert_eq!(exchange.clones(), BTreeSet::from(["g2".to_owned(), "g2.base".to_owned()]));
    for (was, is) in left.iter().zip(&originals()) {
        assert_same_tree(was, is, "the data of generation 1");
    }

    stack.run(&["rollback", "--yes"]).expect(0);
    eprintln!(
        "MEASURED exchange: down {} ms by the rollback",
        report(stack)["times"]["rollback_downtime_ms"]
    );
    assert_eq!(generation(stack), 1);
    writers.wait_for(stack, 10);
    let (transfers, notes) = writers.stop();
    load.stop();
    // The bank's numbers begin again where generation 1 stopped: a transfer after the rollback may have the number
    // of one after the promotion. Notes have their own.
    let export = exported(stack, 2, "db");
    let later =
        export.iter().find(|(file, _)| file.contains("notes")).map(|(_, rows)| keys(rows)).expect("notes");
    let here: BTreeSet<u64> =
        stack.psql("select id from bank.notes").lines().map(|l| l.parse().expect("a number")).collect();
    let lost: Vec<&u64> = notes.iter().filter(|n| !later.contains(n) && !here.contains(n)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?} of {}", notes.len());
    assert!(later.len() >= 20, "{} notes in the export", later.len());
    assert_eq!(
        later.intersection(&here).count(),
        0,
        "notes of the generation that was left are in the older one"
    );
    let exported_transfers = keys(&exported(stack, 2, "books")["transfers.jsonl"]);
    let most = stack.bank()["transfers"].as_u64().expect("a number");
    let lost: Vec<&u64> =
        transfers.iter().filter(|n| **n > most && !exported_transfers.contains(n)).collect();
    assert!(
        lost.is_empty(),
        "acknowledged and lost: {lost:?} of {}; exported {:?} to {:?}, {most} in the older generation",
        transfers.len(),
        exported_transfers.first(),
        exported_transfers.last()
    );
    stack.assert_accounts_balance();
    assert_eq!(stack.bank()["ok"], true, "{}", stack.bank());
    assert_eq!(exchange.clones(), BTreeSet::from(["g2".to_owned(), "g2.base".to_owned()]));
}

#[test]
fn data_in_folders_on_a_file_system_that_copies_is_upgraded_and_rolled_back_under_load() {
    upgraded_under_load(&std::env::temp_dir(), false);
}

#[test]
fn data_in_folders_on_a_file_system_that_shares_blocks_is_upgraded_and_nothing_is_copied() {
    let Some(place) = reflink_place() else { return };
    upgraded_under_load(&place, true);
}

/// Clones while money moves, as the rehearsal does; each must be of one moment.
fn cut_without_tearing(place: &Path, shared: bool, times: u32) {
    let exchange = Exchange::start(place, 50);
    let stack = &exchange.stack;
    let load = stack.start_load(200);
    let transfers = || stack.psql("select count(*) from bank.transfers").parse::<u64>().expect("a number");
    stack.wait_until("transfers", PATIENCE, || transfers() > 200);
    let home = Home::open(&stack.root).expect("opens");
    let config = switchback_engine::world::config(&home).expect("reads");
    let pointer = home.pointer().expect("reads").expect("a generation");
    let production = home.generation(pointer.current).expect("reads").instance;
    let release = home.release(&production.release).expect("reads");
    let data = ComposeData::of_program(Arc::new(Docker::connect().expect("connects")), PROGRAM.into());
    let temp = tempfile::tempdir().expect("tempdir");
    let (mut waited, mut counts) = (Vec::new(), Vec::new());
    for number in 0..times {
        let dir = format!("staging/cut{number}");
        let mut copy = production.clone();
        copy.environment = "cut".into();
        copy.stores = stores_in(
            &production.stores,
            &format!("{}/{dir}", state(stack).display()),
            &stack.project,
            &dir.replace('/', "."),
        );
        copy.dir = dir;
        let scratch = Scratch::create(&home, &copy.dir).expect("creates");
        fn at<'a>(
            home: &'a Home,
            config: &'a switchback_core::config::Config,
            instance: &'a switchback_core::release::Instance,
            release: &'a switchback_core::release::Release,
        ) -> Placement<'a> {
            Placement { home, config, instance, release }
        }
        let (from, to) = (at(&home, &config, &production, &release), at(&home, &config, &copy, &release));
        let progress = Progress::none();
        let work = Work { stage: Stage::quiet(), progress: &progress, temp: temp.path() };
        let output = data.clone(&from, &to, CloneMode::Live, &scratch, &work).expect("clones");
        waited.push(output.copies.values().map(|c| c.writers_waited_ms).max().expect("copies"));
        for (store, copied) in &output.copies {
            assert_eq!(copied.reflinked > 0, shared, "{store}: {copied:?}");
            assert!(!shared || copied.bytes_written == 0, "{store}: {copied:?}");
        }
        for store in copy.stores.keys() {
            let wrong = data.integrity(&to, store, CloneMode::Cold, &work).expect("looks");
            assert_eq!(wrong, Vec::<String>::new(), "cut {number}, {store}");
        }
        let folder = exchange.beside().join(format!("staging.cut{number}"));
        counts.push(audit_postgres(stack, &clone_of(&folder, "db"), number));
        audit_bank(stack, &clone_of(&folder, "books"), &clone_of(&folder, "receipts"), number);
        data.discard(&home, &copy, &scratch).expect("discards");
        scratch.remove().expect("removes");
        assert!(!folder.exists(), "{} is left", folder.display());
    }
    assert!(counts.is_sorted() && counts.first() < counts.last(), "nothing moved: {counts:?}");
    load.stop();
    waited.sort_unstable();
    eprintln!(
        "MEASURED {times} cuts on {}: writers waited {} ms (median), {} ms (most); {} transfers at the end",
        place.display(),
        waited[waited.len() / 2],
        waited.last().expect("cuts"),
        transfers()
    );
    stack.assert_accounts_balance();
    assert_eq!(stack.bank()["ok"], true);
}

/// The clone of a mount in the folder of an instance, by how its name begins.
#[track_caller]
fn clone_of(folder: &Path, begins: &str) -> PathBuf {
    let all: Vec<PathBuf> = fs::read_dir(folder).expect("lists").map(|e| e.expect("lists").path()).collect();
    let mut found =
        all.iter().filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(begins)));
    found.next().unwrap_or_else(|| panic!("no {begins} in {all:?}")).clone()
}

/// Starts a container on a clone and removes it in the end.
fn with_container<T>(stack: &Stack, number: u32, args: &[&str], work: impl FnOnce(&str) -> T) -> T {
    let name = format!("{}-cut{number}", stack.project);
    let label = format!("{LABEL}={}", stack.project);
    let run = ["run", "-d", "--init", "--network", "none", "--name", &name, "--label", &label];
    docker(&[&run[..], args].concat()).expect(0);
    let value = work(&name);
    docker(&["rm", "-f", &name]).expect(0);
    value
}

/// The number of transfers in a clone of the database, whose sum must be right.
fn audit_postgres(stack: &Stack, clone: &Path, number: u32) -> u64 {
    let mount = format!("{}:/var/lib/postgresql/data", clone.display());
    with_container(stack, number, &["-v", &mount, "sbt/postgres:15"], |name| {
        stack.wait_until("the clone of the database starts", PATIENCE, || {
            docker(&["exec", name, "pg_isready", "-q", "-h", "127.0.0.1"]).code == Some(0)
        });
        psql_in(name, "exchange", "select count(*) from bank.notes");
        assert_accounts_balance_in(name, "exchange")
    })
}

fn audit_bank(stack: &Stack, books: &Path, receipts: &Path, number: u32) {
    let mounts = [format!("{}:/data", books.display()), format!("{}:/receipts", receipts.display())];
    with_container(stack, number, &["-v", &mounts[0], "-v", &mounts[1], "sbt/bank:1"], |name| {
        let ask = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:8080/audit').read().decode())";
        let mut answer = String::new();
        stack.wait_until("the clone of the bank answers", PATIENCE, || {
            let ran = docker(&["exec", name, "python3", "-c", ask]);
            answer.clone_from(&ran.stdout);
            ran.code == Some(0)
        });
        let audit: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(audit["ok"], true, "cut {number} is torn: {audit}");
    });
}

/// Twenty with the long runs; a torn copy shows in one of three where nobody is paused.
fn cuts() -> u32 {
    if full() { 20 } else { 6 }
}

#[test]
fn no_copy_is_torn_on_a_file_system_that_copies() {
    cut_without_tearing(&std::env::temp_dir(), false, cuts());
}

#[test]
fn no_copy_is_torn_on_a_file_system_that_shares_blocks() {
    let Some(place) = reflink_place() else { return };
    cut_without_tearing(&place, true, cuts());
}
