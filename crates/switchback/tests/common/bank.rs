//! The bank as the crash tests use it: quick, shared by many cases, and looked at from outside after each of them.
//!
//! Nothing here asks Switchback what is there: images, mounts, data and leftovers are read from the engine.

use super::Ran;
use super::docker::{Example, Stack, docker};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A promotion to release 2 that needs no rehearsal.
pub const PROMOTE: [&str; 7] =
    ["promote", "bank=2", "--yes", "--detach", "--without-certificate", "--reason", "crash matrix"];
/// And the way back.
pub const ROLLBACK: [&str; 2] = ["rollback", "--yes"];

/// What is in the volumes mounted below /m: per volume its release, rows and files, as text that is compared exactly.
const DUMP: &str = r"
import hashlib, json, os, shutil, sqlite3
found = {}
for name in sorted(os.listdir('/m')):
    at = '/m/' + name
    if os.path.exists(at + '/bank.db'):
        for suffix in ('', '-wal'):
            if os.path.exists(at + '/bank.db' + suffix):
                shutil.copy(at + '/bank.db' + suffix, '/tmp/bank.db' + suffix)
        ask = lambda sql: sqlite3.connect('/tmp/bank.db').execute(sql).fetchall()
        rows = ask('select * from accounts') + ask('select id, debit, credit, amount from transfers order by id')
        found[name] = {'version': ask('pragma user_version')[0][0], 'check': ask('pragma integrity_check')[0][0],
                       'rows': len(rows), 'digest': hashlib.sha256(repr(rows).encode()).hexdigest()}
        for suffix in ('', '-wal', '-shm'):
            if os.path.exists('/tmp/bank.db' + suffix):
                os.unlink('/tmp/bank.db' + suffix)
    else:
        files = {f: hashlib.sha256(open(at + '/' + f, 'rb').read()).hexdigest() for f in sorted(os.listdir(at))}
        found[name] = {'files': files}
print(json.dumps(found))
";

/// The content of volumes, which must exist.
#[track_caller]
pub fn dump(volumes: &[String]) -> BTreeMap<String, Value> {
    for volume in volumes {
        docker(&["volume", "inspect", volume]).expect(0);
    }
    let mounts: Vec<String> = volumes.iter().map(|v| format!("{v}:/m/{v}:ro")).collect();
    let mut args = vec!["run", "--rm", "--network", "none"];
    mounts.iter().for_each(|m| args.extend(["-v", m]));
    args.extend(["sbt/bank:1", "python3", "-c", DUMP]);
    let found = docker(&args).expect(0).json();
    found.as_object().expect("volumes").iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A stack with some transfers, adopted as generation 1.
pub struct Bank {
    pub stack: Stack,
    /// What the original volumes held when generation 1 was adopted.
    before: BTreeMap<String, Value>,
}

impl Bank {
    /// Starts and adopts it. Its trials last longer than any test.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, with its files edited first.
    pub fn with(edit: impl FnOnce(&Stack)) -> Self {
        let stack = Stack::compose(Example::Bank);
        edit(&stack);
        // Docker's own health check answers after 2 s at the earliest.
        let compose = fs::read_to_string(stack.root.join("compose.yaml")).expect("reads");
        let (head, tail) = compose.split_once("    healthcheck:").expect("a health check");
        let (_, volumes) = tail.split_once("\nvolumes:").expect("volumes");
        fs::write(stack.root.join("compose.yaml"), format!("{head}\nvolumes:{volumes}")).expect("writes");
        stack.edit("switchback.yaml", "stable: 1s, start: 20s", "stable: 100ms, start: 60s");
        stack.edit("switchback.yaml", "watch: 5s, every: 500ms", "watch: 2h, every: 20s");
        stack.up();
        stack.wait_until("the bank answers", std::time::Duration::from_secs(60), || {
            matches!(stack.ask("GET", "/health", &[], None), Ok((200, _)))
        });
        for _ in 0..5 {
            stack.transfer();
        }
        stack.run(&["up", "--yes"]).expect(0);
        let before = dump(&Self::originals(&stack));
        Self { stack, before }
    }

    fn originals(stack: &Stack) -> Vec<String> {
        ["books", "receipts"].map(|v| format!("{}_{v}", stack.project)).to_vec()
    }

    pub fn status(&self) -> Value {
        self.stack.run(&["status", "--json"]).expect(0).json()
    }

    /// The generation that production points at.
    pub fn generation(&self) -> u64 {
        self.read("current.json")["current"].as_u64().expect("a generation")
    }

    fn read(&self, file: &str) -> Value {
        let path = self.stack.root.join(".switchback").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).expect("JSON")
    }

    /// The volumes of a generation, by store.
    fn volumes(&self, generation: u64) -> BTreeMap<String, String> {
        let stores =
            self.read(&format!("generations/{generation}/generation.json"))["instance"]["stores"].clone();
        let stores = stores.as_object().expect("stores").clone();
        let name = |v: &Value| v["mount"]["at"]["volume"].as_str().expect("a volume").to_owned();
        stores.iter().map(|(store, place)| (store.clone(), name(place))).collect()
    }

    /// Brings production to the old (1) or the new release, without any fault.
    #[track_caller]
    pub fn settle_on(&self, release: u64) {
        let now = if self.generation() == 1 { 1 } else { 2 };
        if now == release {
            return;
        }
        if release == 2 {
            self.promote(&[]).expect(0)
        } else {
            self.stack.run(&ROLLBACK).expect(0)
        };
    }

    /// Promotes, from a `.env` that still names the old release.
    pub fn promote(&self, env: &[(&str, &str)]) -> Ran {
        self.stack.set_version("1");
        self.stack.run_with(&PROMOTE, env)
    }

    /// Production must be healthy on exactly one generation, with the data of before, and tidy. Returns the release.
    #[track_caller]
    pub fn assert_sound(&self, case: &str) -> u64 {
        let status = self.status();
        assert!(status["unfinished"].is_null(), "{case}: {status}");
        let generation = self.generation();
        assert_eq!(status["generation"], generation, "{case}: {status}");
        let release = if generation == 1 { 1 } else { 2 };
        let volumes = self.volumes(generation);
        self.assert_container(case, release, &volumes);
        self.assert_data(case, release, &volumes);
        self.assert_tidy(case, release);
        self.assert_compose_agrees(case, generation);
        release
    }

    /// One container, running and not paused, of the release's image, on the generation's volumes; and it answers.
    #[track_caller]
    fn assert_container(&self, case: &str, release: u64, volumes: &BTreeMap<String, String>) {
        let all = self.stack.docker_compose(&["ps", "-aq", "--no-trunc"]).expect(0).stdout;
        assert_eq!(all.lines().count(), 1, "{case}: containers of the project: {all}");
        let found = docker(&["inspect", all.trim()]).expect(0).json()[0].clone();
        assert_eq!(found["State"]["Status"], "running", "{case}: {}", found["State"]);
        let image =
            docker(&["image", "inspect", "--format", "{{.Id}}", &format!("sbt/bank:{release}")]).expect(0);
        assert_eq!(found["Image"], image.stdout.trim(), "{case}: another image");
        let mounted: BTreeMap<&str, &str> = found["Mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .map(|m| (m["Destination"].as_str().expect("a path"), m["Name"].as_str().unwrap_or_default()))
            .collect();
        let wanted = BTreeMap::from([("/data", &*volumes["books"]), ("/receipts", &*volumes["receipts"])]);
        assert_eq!(mounted, wanted, "{case}: other mounts");
        let (code, body) =
            self.stack.ask("GET", "/health", &[], None).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!((code, &*body), (200, &*format!("{{\"release\": {release}}}")), "{case}");
    }

    /// The original volumes are exactly as before; the new generation's are the same, migrated.
    #[track_caller]
    fn assert_data(&self, case: &str, release: u64, volumes: &BTreeMap<String, String>) {
        let originals = Self::originals(&self.stack);
        let mut all = originals.clone();
        if release == 2 {
            all.extend(volumes.values().cloned());
        }
        let mut found = dump(&all);
        if release == 2 {
            let mut books = found.remove(&volumes["books"]).expect("dumped");
            assert_eq!(books["version"], 2, "{case}: not migrated");
            books["version"] = 1.into();
            assert_eq!(
                books, self.before[&originals[0]],
                "{case}: the new generation's rows are not the old ones"
            );
            let receipts = found.remove(&volumes["receipts"]).expect("dumped");
            assert_eq!(
                receipts, self.before[&originals[1]],
                "{case}: the new generation's files are not the old ones"
            );
        }
        assert_eq!(found, self.before, "{case}: the old generation's data changed");
    }

    /// Nothing in the engine that belongs to no generation, and nothing half-made in the folder.
    #[track_caller]
    fn assert_tidy(&self, case: &str, release: u64) {
        let id = fs::read_to_string(self.stack.root.join(".switchback/id")).expect("an id");
        let own = format!("label=dev.switchback.stack={}", id.trim());
        let project = format!("label=com.docker.compose.project={}", self.stack.project);
        let list = |args: &[&str], filter: &str| -> BTreeSet<String> {
            let ran = docker(&[args, &["--filter", filter]].concat()).expect(0);
            ran.stdout.lines().map(str::to_owned).collect()
        };
        let none = BTreeSet::new();
        assert_eq!(
            list(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"], &own),
            none,
            "{case}: containers"
        );
        assert_eq!(list(&["network", "ls", "--format", "{{.Name}}"], &own), none, "{case}: networks");
        let network = BTreeSet::from([format!("{}_default", self.stack.project)]);
        assert_eq!(list(&["network", "ls", "--format", "{{.Name}}"], &project), network, "{case}: networks");
        let originals: BTreeSet<String> = Self::originals(&self.stack).into_iter().collect();
        assert_eq!(list(&["volume", "ls", "-q"], &project), originals, "{case}: the user's volumes");
        let state = self.stack.root.join(".switchback");
        let mut owned = BTreeSet::new();
        for generation in names(&state.join("generations")) {
            for volume in self.volumes(generation.parse().expect("a number")).into_values() {
                owned.extend([format!("{volume}.base"), volume]);
            }
        }
        let strays: Vec<String> =
            list(&["volume", "ls", "-q"], &own).into_iter().filter(|v| !owned.contains(v)).collect();
        assert!(strays.is_empty(), "{case}: volumes of no generation: {strays:?}");
        if release == 2 {
            let generation = self.volumes(self.generation());
            let bases: BTreeSet<String> = generation.values().map(|v| format!("{v}.base")).collect();
            assert!(bases.is_subset(&list(&["volume", "ls", "-q"], &own)), "{case}: no base to export by");
        }
        assert_eq!(names(&state.join("staging")), Vec::<String>::new(), "{case}: staging is left");
        let everywhere = walk(&self.stack.root);
        let odd =
            |f: &&String| f.contains(".tmp-") || f.contains("partial") || f.contains("switchback-desired");
        assert_eq!(everywhere.iter().find(odd), None, "{case}: half-made files");
    }

    /// The lock file and `.env` say what runs: plain `docker compose up -d` changes nothing.
    #[track_caller]
    fn assert_compose_agrees(&self, case: &str, generation: u64) {
        let look = || self.stack.inspect("bank", "{{.Id}} {{.State.StartedAt}} {{.Config.Image}}");
        let (before, volumes) = (look(), self.volumes(generation));
        self.stack.docker_compose(&["up", "-d", "--no-build"]).expect(0);
        assert_eq!(look(), before, "{case}: plain `docker compose up -d` changed something");
        let model = self.stack.docker_compose(&["config", "--format", "json"]).expect(0).json();
        for (store, volume) in volumes {
            assert_eq!(
                model["volumes"][&store]["name"], volume,
                "{case}: the lock file names another volume"
            );
        }
    }
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<String> =
        entries.map(|e| e.expect("lists").file_name().to_string_lossy().into_owned()).collect();
    found.sort();
    found
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path.to_string_lossy().into_owned());
    }
    found
}
