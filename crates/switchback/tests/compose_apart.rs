//! Compose: returning one service of two while the other's container goes on, and the drill on production. Needs the feature `faults`
//! for the kills.

mod common;

use common::bank::dump;
use common::docker::{Example, Stack, docker, free_port};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

const PROMOTE: [&str; 8] =
    ["promote", "bank=2", "spare=2", "--yes", "--detach", "--without-certificate", "--reason", "a test"];
const BACK: [&str; 4] = ["rollback", "--service", "bank", "--yes"];

/// Two banks, which know nothing of each other.
struct Pair {
    bank: Stack,
    spare_port: u16,
}

impl Pair {
    fn new() -> Self {
        let bank = Stack::compose(Example::Bank);
        let spare_port = (bank.port + 1..bank.port + 400)
            .find(|p| *p != free_port() && std::net::TcpListener::bind(("127.0.0.1", *p)).is_ok())
            .expect("a free port");
        let compose = fs::read_to_string(bank.root.join("compose.yaml")).expect("reads");
        let (head, tail) = compose.split_once("    healthcheck:").expect("a health check");
        let (_, volumes) = tail.split_once("\nvolumes:").expect("volumes");
        // Plain configuration of its own, which must not make the container of the one that stays anew.
        let config = "      - ./NAME.txt:/etc/NAME.txt:ro\n";
        let own = format!("{head}{}", config.replace("NAME", "bank"));
        let service = own.split_once("  bank:\n").expect("the service").1;
        let spare = service
            .replace("BANK_VERSION", "SPARE_VERSION")
            .replace("BANK_PORT:-18082", "SPARE_PORT")
            .replace("- books:", "- spare_books:")
            .replace("- receipts:", "- spare_receipts:")
            .replace("bank.txt", "spare.txt");
        let text = format!(
            "{own}  spare:\n{spare}\nvolumes:{}  spare_books:\n  spare_receipts:\n",
            volumes.trim_end().to_owned() + "\n"
        );
        fs::write(bank.root.join("compose.yaml"), text).expect("writes");
        fs::write(bank.root.join("bank.txt"), "bank, first\n").expect("writes");
        fs::write(bank.root.join("spare.txt"), "spare, first\n").expect("writes");
        bank.set("SPARE_VERSION", "1");
        bank.set("SPARE_PORT", &spare_port.to_string());
        bank.edit("switchback.yaml", "stable: 1s, start: 20s", "stable: 100ms, start: 60s");
        bank.edit("switchback.yaml", "watch: 5s, every: 500ms", "watch: 2h, every: 20s");
        let config = fs::read_to_string(bank.root.join("switchback.yaml")).expect("reads");
        let service =
            config.split_once("  bank:\n").expect("the service").1.split_once("\n\n").expect("an end").0;
        let config = config.replace("\n\nstores:", &format!("\n  spare:\n{service}\n\nstores:")).replace(
            "\n\nchecks:",
            "\n  spare_books: { kind: sqlite, volume: spare_books, path: bank.db }\n  \
                 spare_receipts: { kind: files, volume: spare_receipts }\n\nchecks:",
        );
        fs::write(bank.root.join("switchback.yaml"), config).expect("writes");
        bank.up();
        let pair = Self { bank, spare_port };
        pair.bank.wait_until("both answer", Duration::from_secs(60), || {
            [pair.bank.port, spare_port].iter().all(|p| pair.release(*p).is_some())
        });
        for _ in 0..3 {
            pair.transfer(pair.bank.port);
            pair.transfer(spare_port);
        }
        pair.bank.run(&["up", "--yes"]).expect(0);
        pair
    }

    /// At generation 2: both on release 2, with other configuration for the one that returns.
    fn upgraded() -> Self {
        let pair = Self::new();
        fs::write(pair.bank.root.join("bank.txt"), "bank, second\n").expect("writes");
        pair.bank.run(&PROMOTE).expect(0);
        pair.bank.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
        pair.bank
            .wait_until("the trial is over", Duration::from_secs(60), || pair.status()["trial"].is_null());
        pair
    }

    fn status(&self) -> Value {
        self.bank.run(&["status", "--json"]).expect(0).json()
    }

    fn get(&self, port: u16, path: &str) -> Option<String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        agent.get(format!("http://127.0.0.1:{port}{path}")).call().ok()?.body_mut().read_to_string().ok()
    }

    fn release(&self, port: u16) -> Option<u64> {
        serde_json::from_str::<Value>(&self.get(port, "/health")?).ok()?["release"].as_u64()
    }

    fn releases(&self) -> (Option<u64>, Option<u64>) {
        (self.release(self.bank.port), self.release(self.spare_port))
    }

    fn transfer(&self, port: u16) -> u64 {
        self.try_transfer(port).expect("answers")
    }

    fn try_transfer(&self, port: u16) -> Option<u64> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let body = r#"{ "from": 1, "to": 2, "amount": 1 }"#;
        let mut answer = agent
            .post(format!("http://127.0.0.1:{port}/transfer"))
            .header("Content-Type", "application/json")
            .send(body)
            .ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        serde_json::from_str::<Value>(&text).ok()?["id"].as_u64()
    }

    /// The numbers of all transfers in the database of a service that runs.
    fn transfers(&self, service: &str) -> BTreeSet<u64> {
        let ask = "import sqlite3, sys\n\
                   for row in sqlite3.connect(sys.argv[1]).execute('select id from transfers'): print(row[0])";
        let id = self.bank.container(service).expect("a container");
        let said = docker(&["exec", &id, "python3", "-c", ask, "/data/bank.db"]).expect(0).stdout;
        said.lines().map(|l| l.parse().expect("a number")).collect()
    }

    /// The volumes of production's stores by store, as the generation has them.
    fn volume(&self, generation: u64, store: &str) -> String {
        let path = self.bank.root.join(format!(".switchback/generations/{generation}/generation.json"));
        let text = fs::read_to_string(path).expect("reads");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let at = &found["instance"]["stores"][store]["mount"]["at"]["volume"];
        at.as_str().expect("a volume").to_owned()
    }

    /// What the databases of a generation hold: exactly comparable.
    fn held(&self, generation: u64, store: &str) -> Value {
        let volume = self.volume(generation, store);
        dump(std::slice::from_ref(&volume)).remove(&volume).expect("dumped")
    }

    fn spare(&self) -> String {
        self.bank.inspect("spare", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}")
    }
}

#[test]
fn one_service_of_a_compose_stack_goes_back_and_the_others_container_is_not_touched() {
    let pair = Pair::new();
    let before = ["books", "spare_books"].map(|s| pair.held(1, s));
    to_second(&pair);
    let ids = (pair.transfer(pair.bank.port), pair.transfer(pair.spare_port));
    let spare = pair.spare();
    let planned = pair.bank.run(&["rollback", "--service", "bank", "--dry-run"]).expect(0).stdout;
    assert!(planned.contains("Stop bank of generation 2"), "{planned}");
    let report = pair.bank.run(&[&BACK[..], &["--json"]].concat()).expect(0).json();
    eprintln!("times: {}", report["times"]);
    assert_eq!(pair.releases(), (Some(1), Some(2)));
    assert_eq!(pair.spare(), spare, "the other container was touched");
    let config = |service: &str| {
        let id = pair.bank.container(service).expect("a container");
        docker(&["exec", &id, "cat", &format!("/etc/{service}.txt")]).expect(0).stdout
    };
    assert_eq!((config("bank"), config("spare")), ("bank, first\n".into(), "spare, first\n".into()));
    assert_eq!(pair.held(3, "books"), before[0], "the data of before");
    assert_eq!(
        ["books", "spare_books"].map(|s| pair.held(1, s)),
        before,
        "the generation before was written to"
    );
    // Plain Compose agrees: neither container is made anew.
    let both = || (pair.bank.inspect("bank", "{{.Id}}"), pair.spare());
    let now = both();
    pair.bank.docker_compose(&["up", "-d", "--no-build"]).expect(0);
    assert_eq!(both(), now, "plain `docker compose up -d` changed something");
    // The later write of the one is exported, that of the other is there.
    let exports = pair.bank.root.join(".switchback/exports/generation-2");
    let complete: Value =
        serde_json::from_str(&fs::read_to_string(exports.join("complete.json")).expect("reads"))
            .expect("JSON");
    assert_eq!(
        complete.as_object().expect("stores").keys().collect::<Vec<_>>(),
        ["books", "receipts"],
        "{complete}"
    );
    assert!(pair.get(pair.spare_port, "/audit").is_some_and(|a| !a.contains("\"ok\": false")));
    assert_eq!(pair.transfer(pair.spare_port), ids.1 + 1, "the other one's writes go on");
    assert_eq!(pair.transfer(pair.bank.port), ids.0, "the number is given again");
    // Stopped, started, looked after; then the whole stack returns.
    pair.bank.run(&["gc", "--yes"]).expect(0);
    pair.bank.run(&["down", "--yes"]).expect(0);
    pair.bank.run(&["up"]).expect(0);
    assert_eq!(pair.releases(), (Some(1), Some(2)));
    let refused = pair.bank.run(&["rollback", "--to", "2", "--yes"]).expect(3).all();
    assert!(refused.contains("in common with generation 3"), "{refused}");
    pair.bank.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(pair.releases(), (Some(1), Some(1)));
    assert_eq!(["books", "spare_books"].map(|s| pair.held(1, s)), before);
    let complete = pair.bank.root.join(".switchback/exports/generation-3/complete.json");
    let complete: Value = serde_json::from_str(&fs::read_to_string(complete).expect("reads")).expect("JSON");
    assert!(complete["spare_books"].is_object() && complete["books"].is_object(), "{complete}");
}

fn to_second(pair: &Pair) {
    fs::write(pair.bank.root.join("bank.txt"), "bank, second\n").expect("writes");
    pair.bank.run(&PROMOTE).expect(0);
    pair.bank.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    pair.bank.wait_until("the trial is over", Duration::from_secs(60), || pair.status()["trial"].is_null());
}

#[test]
fn a_tie_in_the_compose_file_refuses_it_with_the_reason() {
    let pair = Pair::new();
    // In the service that stays.
    let path = pair.bank.root.join("compose.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let (head, tail) = text.split_once("  spare:\n").expect("the service");
    let restart = "    restart: unless-stopped\n";
    let tail = tail.replacen(restart, &format!("{restart}    depends_on: [bank]\n"), 1);
    fs::write(&path, format!("{head}  spare:\n{tail}")).expect("writes");
    to_second(&pair);
    let spare = pair.spare();
    let refused = pair.bank.run(&BACK).expect(3).all();
    assert!(refused.contains("spare is tied to bank: `depends_on` names it"), "{refused}");
    assert_eq!((pair.releases(), pair.spare()), ((Some(2), Some(2)), spare));
}

#[cfg(feature = "faults")]
#[test]
fn a_rollback_of_one_service_of_a_compose_stack_killed_at_any_point_ends_on_one_generation() {
    let pair = Pair::upgraded();
    let other = pair.transfer(pair.spare_port);
    let spare = pair.spare();
    let before = [(1, "books"), (1, "spare_books"), (2, "books")].map(|(g, s)| pair.held(g, s));
    let plan = pair.bank.run(&["rollback", "--service", "bank", "--dry-run", "--json"]).expect(0).json();
    let steps = plan["steps"].as_array().expect("steps").clone();
    let id = |s: &Value| s["id"].as_str().expect("an id").to_owned();
    let at = |n: usize| ["during", "after", "before"][n % 3];
    let sound = |case: &str, generation: u64| {
        let status = pair.status();
        assert!(status["unfinished"].is_null(), "{case}: {status}");
        assert_eq!(status["generation"], generation, "{case}");
        let release = if generation == 2 { 2 } else { 1 };
        assert_eq!(pair.releases(), (Some(release), Some(2)), "{case}");
        assert_eq!(pair.spare(), spare, "{case}: the other container was touched");
        let now = [(1, "books"), (1, "spare_books"), (2, "books")].map(|(g, s)| pair.held(g, s));
        assert_eq!(now, before, "{case}: data");
    };
    let kill = |env: &[(&str, &str)], case: &str| {
        let crashed = pair.bank.run_with(&BACK, env);
        assert_eq!(crashed.code, None, "{case}: the fault did not fire: {}", crashed.all());
        let resumed = pair.bank.run(&["resume", "--wait", "120s"]);
        assert!(matches!(resumed.code, Some(0 | 3 | 4)), "{case}: {:?} {}", resumed.code, resumed.all());
    };
    // Undone, it begins from the same state each time.
    for (n, step) in steps.iter().filter(|s| s["undo"] == "reverse").enumerate() {
        let case = format!("undo:{}:{}", id(step), at(n));
        kill(&[("SWITCHBACK_FAULT", &case), ("SWITCHBACK_FAULT_FAIL", "do:flip")], &case);
        sound(&case, 2);
    }
    // Done, it needs the service forward again: one more promotion each time.
    let points: Vec<String> =
        steps.iter().enumerate().map(|(n, s)| format!("do:{}:{}", id(s), at(n))).collect();
    let chosen = if common::docker::full() { points.len() } else { 1 };
    for case in points.iter().filter(|p| !p.contains(":checks:")).take(chosen) {
        kill(&[("SWITCHBACK_FAULT", case)], case);
        let generation = pair.status()["generation"].as_u64().expect("a number");
        assert_eq!(pair.releases(), (Some(1), Some(2)), "{case}");
        assert_eq!(pair.held(generation, "books"), before[0], "{case}: the data of before");
        // To the state from which the next one begins: the whole stack back, and forward.
        pair.bank.run(&["rollback", "--yes"]).expect(0);
        assert_eq!(pair.releases(), (Some(1), Some(1)), "{case}");
        pair.bank.set("BANK_VERSION", "1");
        pair.bank.set("SPARE_VERSION", "1");
        pair.bank.run(&PROMOTE).expect(0);
        pair.bank.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
        pair.bank
            .wait_until("the trial is over", Duration::from_secs(60), || pair.status()["trial"].is_null());
    }
    assert!(other > 0);
}

#[test]
fn a_drill_on_a_compose_production_loses_no_write_and_leaves_it_as_it_was() {
    let pair = Pair::upgraded();
    let pointer = fs::read_to_string(pair.bank.root.join(".switchback/current.json")).expect("reads");
    let images = || (pair.bank.inspect("bank", "{{.Image}}"), pair.bank.inspect("spare", "{{.Image}}"));
    let mounts = || {
        let all = pair.bank.inspect("bank", "{{range .Mounts}}{{.Name}} {{.Destination}};{{end}}");
        let mut all: Vec<String> = all.split(';').map(str::to_owned).collect();
        all.sort();
        all
    };
    let (was, mounted) = (images(), mounts());
    let volumes = || {
        let mut all: Vec<String> =
            common::docker::labelled("dev.switchback.stack", &stack_id(&pair))[2].clone();
        all.sort();
        all
    };
    let own = volumes();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (ran, (acknowledged, refused)) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut ids, mut refused) = (Vec::new(), 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match pair.try_transfer(pair.bank.port) {
                    Some(id) => ids.push(id),
                    None => refused += 1,
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (ids, refused)
        });
        std::thread::sleep(Duration::from_secs(1));
        let ran = pair.bank.run(&["drill", "rollback", "--production", "--yes", "--json"]);
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (ran, client.join().expect("ends"))
    });
    let report = ran.expect(0).json();
    eprintln!("times: {}; {} acknowledged, {refused} refused", report["times"], acknowledged.len());
    assert_eq!(report["conclusion"], "pass");
    assert!(refused > 0 && acknowledged.len() > 10);
    // No number was given twice: each acknowledged transfer is in the one database there is. (One may be there whose answer was lost.)
    assert!(acknowledged.is_sorted_by(|a, b| a < b), "{acknowledged:?}");
    let next = pair.transfer(pair.bank.port);
    assert!(next > *acknowledged.last().expect("some"), "writes are gone");
    let there: BTreeSet<u64> = pair.transfers("bank");
    let missing: Vec<_> = acknowledged.iter().filter(|id| !there.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let audit = pair.get(pair.bank.port, "/audit").expect("answers");
    assert!(!audit.contains("false"), "{audit}");
    assert_eq!(fs::read_to_string(pair.bank.root.join(".switchback/current.json")).expect("reads"), pointer);
    assert_eq!((images(), mounts()), (was, mounted));
    assert_eq!(volumes(), own, "volumes of the copy are left");
    assert!(report["certificate"]["signature"]["value"].is_string(), "{report}");
    // Where others share a network with the containers, what they write could not be kept apart.
    let network = format!("{}-edge", pair.bank.project);
    let label = format!("{}={}", common::docker::LABEL, pair.bank.project);
    docker(&["network", "create", "--label", &label, &network]).expect(0);
    let path = pair.bank.root.join("compose.yaml");
    let text = fs::read_to_string(&path).expect("reads");
    let text = text.replacen(
        "    restart: unless-stopped\n",
        "    restart: unless-stopped\n    networks: [default, edge]\n",
        1,
    );
    let text = text + &format!("\nnetworks:\n  edge: {{ external: true, name: {network} }}\n");
    fs::write(&path, text).expect("writes");
    pair.bank.run(&[&["promote"], &PROMOTE[3..]].concat()).expect(0);
    pair.bank.run(&["confirm", "--yes", "--reason", "test"]).expect(0);
    pair.bank.wait_until("the trial is over", Duration::from_secs(60), || pair.status()["trial"].is_null());
    let refused = pair.bank.run(&["drill", "rollback", "--production", "--yes"]).expect(3).all();
    assert!(refused.contains("is in the network edge"), "{refused}");
    // What shares the network goes before it.
    pair.bank.run(&["down", "--yes"]).expect(0);
    pair.bank.docker_compose(&["down"]).expect(0);
    docker(&["network", "rm", &network]).expect(0);
}

fn stack_id(pair: &Pair) -> String {
    fs::read_to_string(pair.bank.root.join(".switchback/id")).expect("an id").trim().to_owned()
}
