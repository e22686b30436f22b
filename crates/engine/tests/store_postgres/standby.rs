//! A clone by base backup and streaming, while money moves between accounts.

use crate::cluster::{Cluster, as_server, bin, give_to_server, run};
use crate::content::print;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::standby::{
    self, Command, Connection, Mapping, abandoned_slots, base_backup, caught_up, controldata, drop_slot,
    parse_controldata, promote, refusals, slot_name, standby_settings, warnings,
};
use switchback_engine::store::postgres::{PgError, compare_fingerprints, diff, server_facts};

fn execute(command: &Command) -> String {
    let mut c = as_server(&bin(&command.argv[0]));
    c.args(&command.argv[1..]).envs(command.env.iter().cloned());
    run(&mut c)
}

const ACCOUNTS: i64 = 200;

#[test]
fn a_standby_made_under_load_is_promoted_without_losing_a_transfer() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        &format!(
            "CREATE TABLE account(id int PRIMARY KEY, sum bigint NOT NULL); INSERT INTO account SELECT i, 1000 FROM generate_series(1, {ACCOUNTS}) i;
             CREATE TABLE transfer(id serial PRIMARY KEY, a int, b int, amount int); CREATE UNLOGGED TABLE loose(x int); INSERT INTO loose VALUES (1);"
        ),
    );
    let connection =
        Connection { host: a.socket(), port: 5432, user: "postgres".into(), password: Some("s3cret".into()) };
    let (space, place) = (a.folder.path().join("space=1"), a.folder.path().join("clone's"));
    std::fs::create_dir(&space).unwrap();
    give_to_server(&space);
    a.sql("postgres", &format!("CREATE TABLESPACE spc LOCATION '{}'", space.display()));
    a.sql("app", "CREATE TABLE far(x int) TABLESPACE spc; INSERT INTO far VALUES (1)");
    let facts = server_facts(&a).unwrap();
    assert_eq!(refusals(&facts, &connection, &[]).len(), 1, "the tablespace");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mappings = [Mapping { from: text(&space), to: text(&place) }];
    assert_eq!(refusals(&facts, &connection, &mappings), Vec::<String>::new());
    assert!(warnings(&facts)[0].contains("max_slot_wal_keep_size"));
    let mut b = Cluster::empty();
    let transfers = a.folder.path().join("transfer.sql");
    std::fs::write(
        &transfers,
        format!(
            "\\set a random(1, {ACCOUNTS})\n\\set b random(1, {ACCOUNTS})\n\\set n random(1, 50)\nBEGIN;\n\
             UPDATE account SET sum = sum - :n WHERE id = least(:a, :b);\nUPDATE account SET sum = sum + :n WHERE id = greatest(:a, :b);\n\
             INSERT INTO transfer(a, b, amount) VALUES (least(:a, :b), greatest(:a, :b), :n);\nCOMMIT;\n"
        ),
    )
    .unwrap();
    let mut load = as_server(&bin("pgbench"))
        .args(["-n", "-c", "2", "-T", "60", "-h", &a.socket(), "-U", "postgres", "-f"])
        .arg(&transfers)
        .arg("app")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let slot = slot_name("01ARZ3NDEKTSV4RRFFQ69G5FAV");
    execute(&base_backup(&connection, &slot, b.data().to_str().unwrap(), &mappings));
    b.options = standby_settings(&a).unwrap().iter().map(|(k, v)| format!(" -c {k}='{v}'")).collect();
    b.start();
    let moved = || a.sql("app", "SELECT count(*) FROM transfer").trim().parse::<i64>().unwrap();
    let (before, deadline) = (moved(), Instant::now() + Duration::from_secs(20));
    while moved() < before + 200 {
        assert!(Instant::now() < deadline, "no load");
    }
    assert!(server_facts(&b).unwrap().in_recovery);
    // A standby can be read too; unlogged tables are empty there.
    assert_eq!(print(&b).parts["app.public.loose (unlogged)"].items, 0);
    assert!(diff(&a, &b, &[], &Progress::none()).is_ok());
    let told = refusals(&server_facts(&b).unwrap(), &connection, &[]).concat();
    assert!(told.contains("standby itself"), "{told}");
    assert!(matches!(drop_slot(&a, &slot), Err(PgError::Server { .. })), "the slot is in use");
    load.kill().unwrap();
    load.wait().unwrap();
    // Sessions of the load end with their socket; then the content rests.
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    while a.sql("app", busy).trim() != "0" {
        assert!(Instant::now() < deadline + Duration::from_secs(20));
    }
    let last = print(&a);
    let started = Instant::now();
    a.stop("fast");
    let control = parse_controldata(&execute(&controldata(a.data().to_str().unwrap()))).unwrap();
    let lsn = control.shutdown_checkpoint().unwrap();
    while !caught_up(&b, lsn).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(30), "never past {lsn}");
    }
    assert!(!caught_up(&b, standby::Lsn(lsn.0 + (1 << 20))).unwrap());
    promote(&b).unwrap();
    eprintln!("stop, catch up, promote: {:?}", started.elapsed());
    let auto = std::fs::read_to_string(b.data().join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("primary_conninfo =") && !auto.contains("s3cret"), "{auto}");
    let difference = compare_fingerprints(&last, &print(&b));
    assert!(!difference.schema, "{difference:?}");
    assert_eq!(difference.tables, ["app.public.loose (unlogged)"], "a base backup leaves unlogged rows out");
    assert!(difference.sequences.iter().all(|s| s == "app.public.transfer_id_seq (sequence)"));
    let sum = b.sql("app", "SELECT sum(sum) FROM account");
    assert_eq!(sum.trim(), (ACCOUNTS * 1000).to_string());
    // The standby's sequence is ahead, never behind: no number is handed out twice.
    a.start();
    let found = diff(&a, &b, &[], &Progress::none()).unwrap();
    let sequence = found.parts.iter().find(|p| p.name.ends_with("(sequence)")).unwrap();
    assert_eq!(sequence.rows_changed, 0, "{sequence:?}");
    b.sql("app", "INSERT INTO transfer(a, b, amount) VALUES (1, 2, 3)");
    // The slot was left behind on the old server: found, and dropped.
    let facts = server_facts(&a).unwrap();
    let left: Vec<_> = abandoned_slots(&facts, &[]).iter().map(|s| s.name.clone()).collect();
    assert_eq!(left, [slot.as_str()]);
    drop_slot(&a, &slot).unwrap();
    drop_slot(&a, &slot).unwrap();
    assert!(server_facts(&a).unwrap().slots.is_empty());
}

#[test]
fn an_unclean_stop_is_no_end_to_catch_up_with() {
    let mut a = Cluster::new();
    a.stop("immediate");
    let text = execute(&controldata(a.data().to_str().unwrap()));
    let error = parse_controldata(&text).unwrap().shutdown_checkpoint().unwrap_err().to_string();
    assert!(error.contains("in production"), "{error}");
    assert!(Path::new(&a.data()).exists());
}
