//! Tests of the plan for a clone by base backup, as far as no server is needed.

use super::super::facts::TablespaceFact;
use super::*;

fn connection(host: &str) -> Connection {
    Connection { host: host.into(), port: 5432, user: "app".into(), password: Some("s3cret".into()) }
}

fn rule(kind: &str, users: &[&str], address: Option<(&str, &str)>, method: &str) -> HbaRule {
    HbaRule {
        line: 7,
        kind: kind.into(),
        users: users.iter().map(|u| (*u).to_owned()).collect(),
        address: address.map(|(a, _)| a.to_owned()),
        netmask: address.map(|(_, m)| m.to_owned()),
        method: method.into(),
    }
}

fn facts() -> ServerFacts {
    serde_json::from_value(serde_json::json!({
        "version_num": 150_004, "version": "15.4", "role": "app", "superuser": true, "replication": true,
        "in_recovery": false, "data_checksums": false, "wal_level": "replica", "max_wal_senders": 10,
        "wal_senders": 0, "max_replication_slots": 10, "max_slot_wal_keep_size": "-1",
        "archive_mode": "off", "archives": false, "preload": "", "tablespaces": [], "slots": [],
        "prepared_transactions": 0, "unreadable_databases": [],
    }))
    .expect("complete")
}

#[test]
fn slots_have_names_that_postgres_takes_and_runs_have_their_own() {
    assert_eq!(slot_name("01ARZ3NDEKTSV4RRFFQ69G5FAV"), "switchback_01arz3ndektsv4rrffq69g5fav");
    let odd = ["", "a", "A'; DROP", "x/../y", &"Z".repeat(100)].map(slot_name);
    for name in &odd {
        assert!(name.len() <= SLOT_BYTES, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
    }
    assert_ne!(slot_name("a"), slot_name("A"));
}

#[test]
fn the_password_is_neither_in_the_arguments_nor_printed() {
    let mapping = Mapping { from: "/ts/a=b".into(), to: "/new/a".into() };
    let connection = connection("/var/run/postgresql");
    let command = base_backup(&connection, "switchback_x", "/clone", &[mapping]);
    assert!(command.argv.iter().all(|a| !a.contains("s3cret")));
    assert!(command.env.contains(&("PGPASSWORD".into(), "s3cret".into())));
    assert!(!format!("{command:?}{connection:?}").contains("s3cret"));
    assert!(command.argv.contains(&"/ts/a\\=b=/new/a".to_owned()), "{:?}", command.argv);
}

#[test]
fn the_control_file_is_read_and_an_unclean_stop_refused() {
    let text = "Database system identifier:           7300000000000000001\n\
                Database cluster state:               shut down\n\
                Latest checkpoint location:           2/3B000028\n\
                Latest checkpoint's TimeLineID:       1\n";
    let data = parse_controldata(text).unwrap();
    assert_eq!(data.shutdown_checkpoint().unwrap(), Lsn(0x2_3b00_0028));
    assert_eq!(data.checkpoint.to_string(), "2/3B000028");
    let unclean = parse_controldata(&text.replace("shut down", "in production")).unwrap();
    assert!(unclean.shutdown_checkpoint().unwrap_err().to_string().contains("in production"));
    assert!(parse_controldata("").is_err());
    assert!(parse_controldata(&text.replace("2/3B", "2/3X")).is_err());
}

#[test]
fn each_obstacle_to_replication_is_named() {
    let socket = connection("/run/s");
    assert!(refusals(&facts(), &socket, &[]).is_empty());
    let reason = |change: &dyn Fn(&mut ServerFacts)| {
        let mut facts = facts();
        change(&mut facts);
        let reasons = refusals(&facts, &socket, &[]);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.concat()
    };
    assert!(reason(&|f| (f.superuser, f.replication) = (false, false)).contains("may not replicate"));
    assert!(reason(&|f| f.wal_level = "minimal".into()).contains("wal_level"));
    assert!(reason(&|f| f.wal_senders = 9).contains("max_wal_senders"));
    assert!(reason(&|f| f.max_replication_slots = 0).contains("max_replication_slots is 0"));
    assert!(reason(&|f| f.in_recovery = true).contains("standby itself"));
    assert!(reason(&|f| f.version_num = 120_000).contains("13 or later"));
    let spaces = |f: &mut ServerFacts| {
        f.tablespaces = vec![TablespaceFact { name: "spc".into(), location: "/ts".into() }];
    };
    assert!(reason(&spaces).contains("tablespace spc at /ts"));
    let mut mapped = facts();
    spaces(&mut mapped);
    let mapping = Mapping { from: "/ts".into(), to: "/new".into() };
    assert!(refusals(&mapped, &socket, &[mapping]).is_empty());
    assert!(reason(&|f| f.hba = Some(Vec::new())).contains("local replication app"));
}

#[test]
fn the_first_matching_line_of_pg_hba_decides() {
    let loopback = Some(("127.0.0.1", "255.255.255.255"));
    let all = [rule("local", &["all"], None, "trust"), rule("host", &["all"], loopback, "scram-sha-256")];
    assert_eq!(hba_refusal(&all, &connection("/run/s")), None);
    assert_eq!(hba_refusal(&all, &connection("127.0.0.1")), None);
    assert_eq!(hba_refusal(&all, &connection("localhost")), None);
    assert!(hba_refusal(&all, &connection("10.0.0.1")).is_some());
    let without = Connection { password: None, ..connection("127.0.0.1") };
    assert!(hba_refusal(&all, &without).unwrap().contains("password"));
    let rejected = [rule("local", &["app"], None, "reject"), rule("local", &["all"], None, "trust")];
    assert!(hba_refusal(&rejected, &connection("/run/s")).unwrap().contains("line 7"));
    assert!(hba_refusal(&[rule("local", &["other"], None, "trust")], &connection("/run/s")).is_some());
}

#[test]
fn only_slots_of_finished_runs_are_abandoned() {
    let slot = |name: &str, active| SlotFact {
        name: name.into(),
        kind: "physical".into(),
        database: None,
        active,
        retained_bytes: Some(1),
    };
    let mut facts = facts();
    facts.slots = vec![slot("theirs", false), slot("switchback_01a", false), slot("switchback_01b", true)];
    let names: Vec<_> = abandoned_slots(&facts, &[]).iter().map(|s| s.name.clone()).collect();
    assert_eq!(names, ["switchback_01a"]);
    assert!(abandoned_slots(&facts, &["01A".to_owned()]).is_empty());
}
