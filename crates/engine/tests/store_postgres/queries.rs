//! What a server counted of an application's statements, and how it would carry them out.

use crate::cluster::Cluster;
use std::collections::BTreeMap;
use switchback_core::queries::{Form, Queries, Use};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{fingerprint, queries};

const TABLES: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id int PRIMARY KEY, user_id int, note text);
    INSERT INTO shop.orders SELECT i, i % 500, 'note ' || i FROM generate_series(1, 20000) i;
    CREATE INDEX orders_user ON shop.orders (user_id);
    ALTER DATABASE app SET search_path = shop;
    ANALYZE;";

fn counting(setup: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.sql("app", setup);
    assert_eq!(queries::begin(&cluster).unwrap(), Ok(()));
    restart(&mut cluster);
    assert!(queries::counting(&cluster).unwrap());
    cluster
}

fn restart(cluster: &mut Cluster) {
    cluster.stop("fast");
    cluster.start();
}

fn read(cluster: &Cluster) -> BTreeMap<Form, Use> {
    queries::read(cluster, &Progress::none()).unwrap()
}

fn form(text: &str) -> Form {
    Form { database: "app".into(), text: text.into() }
}

const BY_USER: &str = "SELECT note FROM orders WHERE user_id = $1";

fn use_it(cluster: &Cluster) {
    cluster.sql("app", "UPDATE orders SET note = 'before the checks' WHERE id = 1");
    queries::reset(cluster).unwrap();
    for user in 0..20 {
        cluster.sql("app", &format!("BEGIN; SELECT note FROM orders WHERE user_id = {user}; COMMIT"));
    }
    cluster.sql("app", "INSERT INTO orders VALUES (30000, 7, E'it''s \\\\ :here; \"x\"')");
}

#[test]
fn what_was_asked_since_the_reset_is_counted_without_values() {
    let cluster = counting(TABLES);
    let before = fingerprint(&cluster, &[], &Progress::none()).unwrap();
    use_it(&cluster);
    let found = read(&cluster);
    let by_user = found.get(&form(BY_USER)).unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!((by_user.calls, by_user.rows), (20, 800));
    assert!(by_user.total_us > 0 && by_user.pages >= 20 * 40, "{by_user:?}");
    assert_eq!(found.get(&form("INSERT INTO orders VALUES ($1, $2, $3)")).map(|u| u.rows), Some(1));
    assert_eq!(found.len(), 2, "{found:#?}");
    // The database is as before, but for the row that was added.
    cluster.sql("app", "DELETE FROM orders WHERE id = 30000; UPDATE orders SET note = 'note 1' WHERE id = 1");
    assert_eq!(fingerprint(&cluster, &[], &Progress::none()).unwrap().digest, before.digest);
}

#[test]
fn a_lost_index_is_a_changed_plan() {
    let (old, new) = (counting(TABLES), counting(&format!("{TABLES} DROP INDEX shop.orders_user;")));
    use_it(&old);
    use_it(&new);
    let mut both = Queries::compare(read(&old), read(&new));
    let forms: Vec<Form> = both.heaviest.iter().map(|q| q.form.clone()).collect();
    let plans = |cluster: &Cluster| queries::plans(cluster, &forms, &Progress::none()).unwrap();
    let (old_plans, new_plans) = (plans(&old), plans(&new));
    for query in &mut both.heaviest {
        query.old_plan = old_plans.get(&query.form).cloned();
        query.new_plan = new_plans.get(&query.form).cloned();
    }
    let by_user = both.heaviest.iter().find(|q| q.form.text == BY_USER).expect("asked");
    assert!(by_user.plan_changed(), "{by_user:#?}");
    let nodes =
        |plan: &Option<switchback_core::queries::Scheme>| plan.clone().expect("a plan").nodes.join("\n");
    assert!(
        nodes(&by_user.old_plan).contains("on orders_user")
            || nodes(&by_user.old_plan).contains("using orders_user"),
        "{by_user:#?}"
    );
    assert_eq!(nodes(&by_user.new_plan), "Seq Scan on orders");
    assert_eq!(both.changed_plans(), 1, "{both:#?}");
    assert_eq!(old.sql("app", "SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'"), "0\n");
    assert_eq!(old.sql("app", "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'switchback'"), "0\n");
}

#[test]
fn texts_are_values_and_what_cannot_be_planned_is_left_out() {
    let cluster = counting(TABLES);
    let hostile = [
        "SELECT 1; DROP TABLE shop.orders",
        "SELECT $1",
        "DELETE FROM orders WHERE note = '\\'; DROP TABLE orders; --'",
        "DROP TABLE shop.orders",
        "no SQL at all \n\\! touch /tmp/switchback-was-here",
        "SELECT pg_sleep(1000)",
        "SELECT :user, $1::int",
    ];
    let forms: Vec<Form> = hostile.iter().map(|text| form(text)).collect();
    let plans = queries::plans(&cluster, &forms, &Progress::none()).unwrap();
    assert!(!std::path::Path::new("/tmp/switchback-was-here").exists());
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM shop.orders"), "20000\n");
    assert!(plans.contains_key(&form("SELECT pg_sleep(1000)")), "planned, not run: {plans:?}");
    assert!(!plans.contains_key(&form("DROP TABLE shop.orders")));
}

#[test]
fn libraries_of_the_user_stay_and_what_cannot_be_counted_is_told() {
    let mut cluster = Cluster::new();
    cluster.sql(
        "app",
        "CREATE ROLE poor LOGIN; ALTER SYSTEM SET shared_preload_libraries = auto_explain, 'pg_prewarm'",
    );
    restart(&mut cluster);
    for _ in 0..2 {
        assert_eq!(queries::begin(&cluster).unwrap(), Ok(()));
        restart(&mut cluster);
    }
    let loaded = cluster.sql("app", "SHOW shared_preload_libraries");
    assert_eq!(loaded.trim(), "auto_explain, pg_prewarm, pg_stat_statements");

    let mut cluster = Cluster::new();
    cluster.sql("app", "CREATE ROLE poor LOGIN");
    let owner = std::mem::replace(&mut cluster.user, "poor".into());
    let why = queries::begin(&cluster).unwrap().unwrap_err();
    assert!(why.contains("superuser"), "{why}");
    cluster.user = owner;
    cluster.options = "-c shared_preload_libraries=auto_explain".into();
    restart(&mut cluster);
    let why = queries::begin(&cluster).unwrap().unwrap_err();
    assert!(why.contains("command line"), "{why}");
    assert!(!queries::counting(&cluster).unwrap());
}

/// An application may have the extension itself.
#[test]
fn an_extension_that_is_there_is_used_and_stays() {
    let mut cluster = Cluster::new();
    cluster.sql("app", "ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements");
    restart(&mut cluster);
    cluster.sql("app", TABLES);
    cluster.sql("postgres", "CREATE SCHEMA own; CREATE EXTENSION pg_stat_statements WITH SCHEMA own");
    assert_eq!(queries::begin(&cluster).unwrap(), Ok(()));
    use_it(&cluster);
    assert_eq!(read(&cluster).len(), 2);
    assert_eq!(
        cluster.sql("postgres", "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'"),
        "1\n"
    );
}
