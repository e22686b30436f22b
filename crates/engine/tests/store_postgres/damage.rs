//! What bad migrations do to data, one kind at a time, is found and named; what good ones do raises no alarm.

use crate::changes::diff;
use crate::cluster::Cluster;
use switchback_core::data::{PartChange, StoreDiff};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{self, Amcheck};

const DATA: &str = "
    CREATE TYPE state AS ENUM ('open', 'paid', 'shipped');
    CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, mail varchar(40) UNIQUE, note text, vip boolean NOT NULL DEFAULT false);
    INSERT INTO customer (name, mail, note, vip)
      SELECT 'Jürgen ' || i || ' ', 'mail' || i || '@example.org', nullif('note ' || i, 'note 7'), i % 5 = 0 FROM generate_series(1, 400) i;
    CREATE TABLE orders (id serial PRIMARY KEY, customer int NOT NULL REFERENCES customer, amount numeric(12,4) NOT NULL, ratio float8,
      state state NOT NULL DEFAULT 'open', at timestamptz NOT NULL DEFAULT now(), tags text[] NOT NULL DEFAULT '{}', doc jsonb, raw bytea, span interval);
    INSERT INTO orders (customer, amount, ratio, state, at, tags, doc, raw, span)
      SELECT 1 + i % 400, i * 1.2345, i / 3.0, 'paid', timestamptz '2024-01-01Z' + i * interval '1 hour', ARRAY['a' || i, 'b'],
        jsonb_build_object('k', i, 'x', 'y'), decode(lpad(to_hex(i), 8, '0'), 'hex'), i * interval '1 minute' FROM generate_series(1, 2000) i;
    CREATE INDEX orders_at ON orders (at);
    CREATE TABLE visit (page text, hits int);
    INSERT INTO visit SELECT 'p' || i % 10, 1 FROM generate_series(1, 100) i;
    CREATE TABLE log (id int, at date NOT NULL) PARTITION BY RANGE (at);
    CREATE TABLE log_24 PARTITION OF log FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE log_25 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    INSERT INTO log SELECT i, date '2024-06-01' + i FROM generate_series(1, 400) i;
    CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) FROM orders GROUP BY customer;
    CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touched BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION touched();
    ALTER TABLE customer ADD CONSTRAINT named CHECK (name <> '');
    SELECT lo_from_bytea(4711, 'large'), lo_from_bytea(4712, 'other');
    GRANT SELECT ON orders TO reader;";

/// Kinds of damage: what it is, how it is done, and what of it must be named.
const DAMAGE: [(&str, &str, &str); 38] = [
    ("a row is gone", "DELETE FROM orders WHERE id = 1999", "app.public.orders"),
    ("a row in every seventh", "DELETE FROM orders WHERE id % 7 = 0", "app.public.orders"),
    ("all rows", "TRUNCATE visit", "app.public.visit"),
    (
        "one of several equal rows",
        "DELETE FROM visit WHERE ctid = (SELECT min(ctid) FROM visit)",
        "app.public.visit",
    ),
    (
        "equal rows made one",
        "CREATE TABLE v AS SELECT DISTINCT * FROM visit; DROP TABLE visit; ALTER TABLE v RENAME TO visit",
        "app.public.visit",
    ),
    ("a table", "DROP TABLE visit", "app.public.visit"),
    ("a column", "ALTER TABLE customer DROP COLUMN note", "app.public.customer"),
    (
        "a column made anew, empty",
        "ALTER TABLE customer DROP COLUMN note; ALTER TABLE customer ADD COLUMN note text",
        "app.public.customer",
    ),
    (
        "one byte of a text",
        "UPDATE customer SET name = replace(name, 'Jürgen 8 ', 'Jürgen 9 ') WHERE id = 8",
        "app.public.customer",
    ),
    ("a value became null", "UPDATE customer SET note = NULL WHERE id = 3", "app.public.customer"),
    ("null became empty", "UPDATE customer SET note = '' WHERE note IS NULL", "app.public.customer"),
    (
        "texts were cut",
        "ALTER TABLE customer ALTER COLUMN mail TYPE varchar(20) USING left(mail, 15)",
        "app.public.customer",
    ),
    ("blanks at the end", "UPDATE customer SET name = trim(name)", "app.public.customer"),
    ("letters' case", "UPDATE customer SET mail = upper(mail) WHERE id = 5", "app.public.customer"),
    (
        "encoded twice",
        "UPDATE customer SET name = convert_from(convert_to(name, 'UTF8'), 'LATIN1')",
        "app.public.customer",
    ),
    (
        "numbers were rounded",
        "ALTER TABLE orders ALTER COLUMN amount TYPE numeric(12,2)",
        "app.public.orders",
    ),
    ("money became floating", "ALTER TABLE orders ALTER COLUMN amount TYPE real", "app.public.orders"),
    ("precision of floats", "ALTER TABLE orders ALTER COLUMN ratio TYPE real", "app.public.orders"),
    (
        "times moved by a zone",
        "ALTER TABLE orders ALTER COLUMN at TYPE timestamp USING at AT TIME ZONE 'Europe/Berlin'",
        "app.public.orders",
    ),
    ("times cut to days", "UPDATE orders SET at = date_trunc('day', at)", "app.public.orders"),
    ("a boolean turned round", "UPDATE customer SET vip = NOT vip WHERE id = 10", "app.public.customer"),
    ("a state mapped wrongly", "UPDATE orders SET state = 'open' WHERE id = 77", "app.public.orders"),
    (
        "order within an array",
        "UPDATE orders SET tags = ARRAY[tags[2], tags[1]] WHERE id = 4",
        "app.public.orders",
    ),
    ("a key of a document", "UPDATE orders SET doc = doc - 'x' WHERE id = 6", "app.public.orders"),
    (
        "a number in a document became a text",
        "UPDATE orders SET doc = jsonb_set(doc, '{k}', to_jsonb((doc ->> 'k'))) WHERE id = 6",
        "app.public.orders",
    ),
    ("one byte of bytes", "UPDATE orders SET raw = set_byte(raw, 3, 255) WHERE id = 12", "app.public.orders"),
    (
        "values of two rows swapped",
        "UPDATE orders a SET amount = b.amount FROM orders b WHERE (a.id, b.id) IN ((1, 2), (2, 1))",
        "app.public.orders",
    ),
    (
        "keys numbered anew",
        "ALTER TABLE visit ADD id serial; UPDATE orders SET id = id + 10000",
        "app.public.orders",
    ),
    (
        "rows of a partition",
        "ALTER TABLE log DETACH PARTITION log_24; DROP TABLE log_24",
        "app.public.log_24",
    ),
    ("a view left unfilled", "REFRESH MATERIALIZED VIEW totals WITH NO DATA", "app.public.totals"),
    ("a large object", "SELECT lo_unlink(4712)", "app.large objects"),
    ("a byte of a large object", "SELECT lo_put(4711, 0, 'L')", "app.large objects"),
    ("a sequence set back", "SELECT setval('orders_id_seq', 1)", "app.public.orders_id_seq"),
    (
        "references to nothing",
        "SET session_replication_role = replica; UPDATE orders SET customer = 99999 WHERE id = 9",
        "orders",
    ),
    ("a foreign key", "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey", "orders_customer_fkey"),
    ("a unique index", "ALTER TABLE customer DROP CONSTRAINT customer_mail_key", "customer_mail_key"),
    ("a privilege", "REVOKE SELECT ON orders FROM reader", "orders"),
    ("a trigger", "DROP TRIGGER touched ON customer", "touched"),
];

/// Migrations that keep everything.
const HARMLESS: [(&str, &str); 18] = [
    ("a new column", "ALTER TABLE customer ADD COLUMN phone text"),
    ("a new column with a default", "ALTER TABLE customer ADD COLUMN kind text NOT NULL DEFAULT 'person'"),
    (
        "a new column that writes the table anew",
        "ALTER TABLE orders ADD COLUMN token uuid DEFAULT gen_random_uuid()",
    ),
    (
        "a generated column",
        "ALTER TABLE orders ADD COLUMN gross numeric GENERATED ALWAYS AS (amount * 1.19) STORED",
    ),
    (
        "a new table",
        "CREATE TABLE parcel (id serial PRIMARY KEY, orders int REFERENCES orders); INSERT INTO parcel (orders) VALUES (1)",
    ),
    ("an index more, one rebuilt", "CREATE INDEX ON orders (state); REINDEX INDEX orders_at"),
    ("VACUUM FULL", "VACUUM FULL orders"),
    ("CLUSTER", "CLUSTER orders USING orders_at"),
    ("ANALYZE", "ANALYZE"),
    ("rows written anew as they are", "UPDATE customer SET name = name || ''"),
    ("a wider number", "ALTER TABLE visit ALTER COLUMN hits TYPE bigint"),
    ("a wider text", "ALTER TABLE customer ALTER COLUMN mail TYPE text"),
    ("a constraint more", "ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0)"),
    ("NOT NULL where nothing is null", "ALTER TABLE orders ALTER COLUMN doc SET NOT NULL"),
    (
        "a constraint with another name",
        "ALTER TABLE orders RENAME CONSTRAINT orders_customer_fkey TO orders_customer",
    ),
    ("a value more of a type", "ALTER TYPE state ADD VALUE 'returned'"),
    ("new rows, numbers that went on", "INSERT INTO customer (name, mail) VALUES ('new', 'new@example.org')"),
    (
        "another partition",
        "CREATE TABLE log_26 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    ),
];

/// Everything that a person would be told of, loss and changed definitions apart.
fn told(found: &StoreDiff, problems: &[String]) -> (Vec<String>, Vec<String>) {
    let mut loss: Vec<String> = found
        .parts
        .iter()
        .filter(|p| {
            p.change == PartChange::Dropped
                || p.rows_removed + p.rows_changed > 0
                || !p.columns_removed.is_empty()
        })
        .map(|p| p.name.clone())
        .collect();
    loss.extend(found.new_orphans.iter().cloned());
    loss.extend(problems.iter().cloned());
    (loss, found.schema_changes.clone())
}

#[test]
fn every_kind_of_damage_is_named_and_harmless_migrations_raise_no_alarm() {
    let mut before = Cluster::new();
    before.sql("postgres", "CREATE ROLE reader");
    before.sql("app", DATA);
    before.sql("postgres", "CREATE DATABASE seed TEMPLATE app");
    let after = before.copy();
    let chosen = ["app".to_owned()];
    let integrity = || postgres::integrity(&after, &chosen, Amcheck::Skip, &Progress::none()).unwrap();
    let sound = integrity();
    let compare = |migration: &str| {
        after.sql("postgres", "DROP DATABASE app");
        after.sql("postgres", "CREATE DATABASE app TEMPLATE seed");
        after.sql("app", migration);
        let found = postgres::diff(&before, &after, &chosen, &Progress::none()).unwrap();
        let problems: Vec<String> = integrity().into_iter().filter(|p| !sound.contains(p)).collect();
        told(&found, &problems)
    };
    let (loss, definitions) = compare("SELECT 1");
    assert_eq!((loss, definitions), (Vec::<String>::new(), Vec::<String>::new()), "nothing was done");

    let mut missed = Vec::new();
    for (kind, migration, wanted) in DAMAGE {
        let (loss, definitions) = compare(migration);
        if !loss.iter().chain(&definitions).any(|t| t.contains(wanted)) {
            missed.push(format!("{kind}: {wanted} is not in {loss:?} {definitions:?}"));
        }
    }
    let mut alarms = Vec::new();
    for (kind, migration) in HARMLESS {
        let (loss, _) = compare(migration);
        if !loss.is_empty() {
            alarms.push(format!("{kind}: {loss:?}"));
        }
    }
    assert!(missed.is_empty() && alarms.is_empty(), "missed {missed:#?}\nfalse alarms {alarms:#?}");
    assert!(diff(&before, &before).is_empty());
}
