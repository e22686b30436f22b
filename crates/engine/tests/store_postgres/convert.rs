//! What a conversion to another major version must bring along besides rows.

use crate::cluster::Cluster;
use switchback_engine::store::postgres::convert::objects;

#[test]
fn what_a_dump_makes_besides_rows_is_named_and_what_is_missing_shows() {
    let cluster = Cluster::new();
    cluster.sql(
        "app",
        "CREATE SCHEMA \"odd; --\"; CREATE TABLE \"odd; --\".t (id int PRIMARY KEY, v text CHECK (v <> ''), UNIQUE (v));
         CREATE INDEX plain ON \"odd; --\".t (v); CREATE VIEW seen AS SELECT 1; CREATE SEQUENCE counted;
         CREATE TABLE u (t int REFERENCES \"odd; --\".t); CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
         CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER tr BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION g(); CREATE POLICY p ON u USING (true)",
    );
    let all = objects(&cluster).expect("reads");
    for what in [
        "relation odd; --.t (r)",
        "relation odd; --.plain (i)",
        "relation odd; --.t_pkey (i)",
        "relation public.seen (v)",
        "relation public.counted (S)",
        "constraint odd; --.t.t_pkey",
        "constraint odd; --.t.t_v_check",
        "constraint public.u.u_t_fkey",
        "trigger public.u.tr",
        "function public.f(a integer)",
        "policy public.u.p",
    ] {
        assert!(all.contains(&format!("app: {what}")), "{what}: {all:?}");
    }
    assert!(!all.iter().any(|o| o.contains("pg_catalog")), "{all:?}");
    cluster.sql("app", "DROP INDEX \"odd; --\".plain; ALTER TABLE u DROP CONSTRAINT u_t_fkey");
    let left = objects(&cluster).expect("reads");
    let gone: Vec<&String> = all.difference(&left).collect();
    assert_eq!(gone, ["app: constraint public.u.u_t_fkey", "app: relation odd; --.plain (i)"]);
}
