//! The stacks that the Compose tests stand on, run with plain `docker compose`: what they are said to do, they do.
//! When one of these fails, so will the tests that upgrade them, for a reason that is not Switchback's.

mod common;

use common::docker::{Example, Stack, docker, full};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn jupyterhub_5_refuses_the_database_of_3_until_it_is_migrated_and_3_refuses_it_then() {
    let stack = Stack::compose(Example::JupyterHub);
    stack.up();
    stack.seed(&["--users", "5", "--groups", "2"]);
    let people = stack.people();
    assert_eq!(people["users"].len(), 6, "ann and the five: {people:?}");
    assert_eq!(people["group lab1"], ["user0001", "user0003", "user0005"]);
    assert_eq!(stack.hub_version(), "3.1.1");
    assert_eq!(stack.failing_workflows(), BTreeMap::new());
    let refuses = || {
        stack.docker_compose(&["up", "-d", "--no-build", "hub"]).expect(0);
        stack.wait_until("the hub refuses", Duration::from_secs(60), || {
            stack
                .docker_compose(&["logs", "--no-color", "hub"])
                .all()
                .contains("Found database schema version")
        });
        stack.docker_compose(&["stop", "hub"]).expect(0);
    };

    stack.set_version("5.4.6");
    refuses();
    let migrate = [
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "hub",
        "jupyterhub",
        "upgrade-db",
        "-f",
        "/conf/jupyterhub_config.py",
    ];
    stack.docker_compose(&migrate).expect(0);
    stack.up();
    assert_eq!(stack.hub_version(), "5.4.6");
    assert_eq!(stack.people(), people, "the migration changed users or groups");
    assert_eq!(stack.failing_workflows(), BTreeMap::new());
    assert_eq!(stack.psql("select version_num from alembic_version"), "4621fec11365");

    stack.set_version("3.1.1");
    refuses();
}

#[test]
fn postgres_behaves_like_the_official_image() {
    let stack = Stack::compose(Example::JupyterHub);
    stack.docker_compose(&["up", "-d", "--wait", "db"]).expect(0);
    let inside = |args: &[&str]| stack.docker_compose(&[&["exec", "-T", "db"], args].concat());

    // The socket and the loopback interface trust, everybody else has a password.
    inside(&["psql", "-U", "hub", "-d", "hub", "-c", "select 1"]).expect(0);
    inside(&["psql", "-h", "127.0.0.1", "-U", "hub", "-d", "hub", "-c", "select 1"]).expect(0);
    let outside = inside(&["psql", "-w", "-h", "db", "-U", "hub", "-d", "hub", "-c", "select 1"]).expect(2);
    assert!(outside.stderr.contains("no password supplied"), "{}", outside.stderr);
    // So a copy can be taken inside the container only.
    inside(&["pg_basebackup", "-U", "hub", "-D", "/tmp/copy", "-X", "stream", "-c", "fast"]).expect(0);
    inside(&["pg_basebackup", "-h", "127.0.0.1", "-U", "hub", "-D", "/tmp/copy2", "-X", "none"]).expect(0);
    let outside = inside(&["pg_basebackup", "-w", "-h", "db", "-U", "hub", "-D", "/tmp/copy3"]).expect(1);
    assert!(outside.stderr.contains("no pg_hba.conf entry for replication"), "{}", outside.stderr);

    assert_eq!(stack.psql("create extension amcheck; create extension pageinspect; select 1"), "1");
    assert_eq!(stack.psql("show data_directory"), "/var/lib/postgresql/data");
    assert_eq!(stack.psql("select datcollate from pg_database where datname = 'hub'"), "en_US.utf8");
    assert_eq!(stack.psql("show listen_addresses"), "*");
    assert_eq!(stack.inspect("db", "{{.Config.StopSignal}}"), "SIGINT");

    stack.docker_compose(&["stop", "db"]).expect(0);
    assert_eq!(stack.inspect("db", "{{.State.ExitCode}}"), "0");
    // Arguments reach the server; an existing database is left as it is.
    stack.edit(
        "compose.yaml",
        "restart: unless-stopped\n    environment:\n      POSTGRES_USER",
        "command: [-c, max_connections=37]\n    environment:\n      POSTGRES_USER",
    );
    stack.docker_compose(&["up", "-d", "--wait", "db"]).expect(0);
    assert_eq!(stack.psql("show max_connections"), "37");
    assert!(stack.docker_compose(&["logs", "db"]).all().contains("Skipping initialization"));
}

#[test]
fn the_accounting_load_goes_on_after_the_database_was_away_and_the_sum_holds() {
    let stack = Stack::compose(Example::JupyterHub);
    stack.docker_compose(&["up", "-d", "--wait", "db"]).expect(0);
    stack.open_accounts();
    let load = stack.start_load(100);
    let transfers = || stack.psql("select count(*) from bank.transfers").parse::<u64>().expect("a number");
    stack.wait_until("transfers", Duration::from_secs(20), || transfers() > 20);
    // Ended at once, in the middle of whatever it did.
    stack.docker_compose(&["kill", "db"]).expect(0);
    stack.docker_compose(&["up", "-d", "--wait", "db"]).expect(0);
    let before = stack.assert_accounts_balance();
    stack.wait_until("more transfers", Duration::from_secs(20), || transfers() > before + 20);
    load.stop();
    stack.assert_accounts_balance();

    // The audit finds what it is there for.
    stack.psql("update bank.accounts set balance = balance + 1 where id = 5");
    let found = stack.psql("select total - expected, unexplained from bank.audit");
    assert_eq!(found, "1|1");
}

#[test]
fn the_bank_migrates_by_command_and_its_books_balance() {
    let stack = Stack::compose(Example::Bank);
    stack.set("BANK_RATE", "50");
    stack.up();
    stack.wait_until("transfers of its own", Duration::from_secs(20), || {
        stack.bank()["transfers"].as_u64() > Some(20)
    });
    let number = stack.transfer();
    let audit = stack.bank();
    assert_eq!((&audit["ok"], &audit["release"]), (&true.into(), &1.into()), "{audit}");
    assert!(audit["transfers"].as_u64() >= Some(number), "{audit}");
    stack.docker_compose(&["stop", "bank"]).expect(0);
    assert_eq!(stack.inspect("bank", "{{.State.ExitCode}}"), "0");

    stack.set_version("2");
    stack.docker_compose(&["up", "-d", "bank"]).expect(0);
    stack.wait_until("release 2 refuses", Duration::from_secs(20), || {
        stack
            .docker_compose(&["logs", "--no-color", "bank"])
            .all()
            .contains("the database has version 1, this is release 2")
    });
    stack.docker_compose(&["stop", "bank"]).expect(0);
    stack.docker_compose(&["run", "--rm", "-T", "bank", "python3", "/app/bank.py", "migrate"]).expect(0);
    stack.up();
    let audit = stack.bank();
    assert_eq!((&audit["ok"], &audit["release"]), (&true.into(), &2.into()), "{audit}");
    assert_eq!(stack.failing_workflows(), BTreeMap::new());

    // The audit finds a receipt that is gone, and one that is torn.
    stack.docker_compose(&["exec", "-T", "bank", "rm", "/receipts/00000001"]).expect(0);
    stack.docker_compose(&["exec", "-T", "bank", "truncate", "-s", "3", "/receipts/00000002"]).expect(0);
    let wrong = stack.bank()["wrong"].to_string();
    assert!(wrong.contains("transfer 1 has no right receipt") && wrong.contains("transfer 2 has"), "{wrong}");
}

#[test]
fn a_dropped_stack_leaves_nothing_in_the_engine() {
    let stack = Stack::compose(Example::Bank);
    stack.up();
    let (project, root) = (stack.project.clone(), stack.root.clone());
    let left = || {
        let filter = format!("label=com.docker.compose.project={project}");
        [&["ps", "-aq"][..], &["volume", "ls", "-q"], &["network", "ls", "-q"]]
            .map(|list| docker(&[list, &["--filter", &filter]].concat()).expect(0).stdout.lines().count())
    };
    assert_eq!(left(), [1, 2, 1]);
    drop(stack);
    assert_eq!(left(), [0, 0, 0]);
    assert!(!root.exists());
}

/// n8n migrates when it starts; the old release starts on the migrated database and says that it is well.
#[test]
fn n8n_2_breaks_the_banner_and_n8n_1_breaks_all_webhooks_on_the_database_of_2() {
    if !full() {
        eprintln!("SKIPPED: long; scripts/test --full runs it");
        return;
    }
    let stack = Stack::compose(Example::N8n);
    let limit = Duration::from_secs(240);
    let ready = || matches!(stack.ask("GET", "/healthz/readiness", &[], None), Ok((200, _)));
    let switch = |version| {
        stack.set_version(version);
        stack.docker_compose(&["up", "-d", "--no-build", "n8n"]).expect(0);
        stack.wait_until("n8n is ready", limit, ready);
    };
    switch("1.71.3");
    stack.seed(&[]);
    let right = || stack.order() == (200, Some(42));
    stack.wait_until("orders are added up", limit, right);
    assert_eq!(stack.banner(), (200, Some("Corner Shop".into())));
    assert_eq!(stack.ask("POST", "/webhook/order", &[], None).expect("answers").0, 403);
    assert_eq!(stack.failing_workflows(), BTreeMap::new());
    stack.seed(&[]);
    assert_eq!(
        stack.psql("select count(*) from workflow_entity where active"),
        "2",
        "seeding again changes nothing"
    );

    switch("2.8.4");
    stack.wait_until("orders are added up", limit, right);
    assert_eq!(stack.failing_workflows().into_keys().collect::<Vec<_>>(), ["shop-banner.yaml"]);
    assert_eq!(stack.banner().0, 500, "n8n 2 lets no workflow read its environment");

    switch("1.71.3");
    stack.wait_until("webhooks are there, and fail", limit, || stack.order().0 == 500);
    assert_eq!(stack.banner().0, 500);
    assert!(ready(), "and says that it is ready");
}
