//! Masking: the values, their consistency, and that nothing of the old ones is left in any file.

use super::cluster::{Cluster, as_server, bin, run};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use switchback_core::anonymise::{Family, Key, Mask, MaskedStore, Rule, days, masked, propose, rules};
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::{self, LEFT_BEHIND, PgError};

fn key() -> Key {
    Key::new([42; 32])
}

fn parsed(all: &[(&str, Mask)]) -> Vec<Rule> {
    rules(&all.iter().map(|(t, m)| ((*t).to_owned(), *m)).collect()).unwrap()
}

fn mask(cluster: &Cluster, all: &[(&str, Mask)]) -> Result<MaskedStore, PgError> {
    postgres::mask(cluster, &[], &parsed(all), &key(), &Progress::none())
}

/// Every value that is personal has this in it.
const MARK: &str = "pii7f";

/// 10,000 personal values in every way a table can keep them: rows, dead rows, indexes, TOAST, statistics, JSON, lists, a
/// materialised view, another schema that refers to them.
const SEED: &str = "
CREATE TABLE users (id bigint PRIMARY KEY, email varchar(60) UNIQUE NOT NULL, name text, phone text, home text,
  born date, seen timestamptz, secret char(40), tags text[], profile jsonb, note text, kept text, at int);
ALTER TABLE users ALTER note SET STORAGE EXTERNAL;
CREATE INDEX ON users (lower(email)); CREATE INDEX ON users USING gin (profile);
CREATE TABLE orders (id serial PRIMARY KEY, email varchar(60) REFERENCES users (email), total int);
CREATE TABLE audit (what text);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (OLD.email); RETURN NEW; END $$;
CREATE TRIGGER watch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION watch();
INSERT INTO users SELECT n, 'pii7f'||n||'@mail.test', 'pii7f name '||n, 'pii7f+49'||n, 'pii7f street '||n,
  date '2000-01-01' + n, timestamptz '2020-01-01 00:00:00+00' + n * interval '1 hour', md5(n::text)||'pii7f'||n % 100,
  ARRAY['pii7f a'||n, NULL, ''], jsonb_build_object('mail', 'pii7f'||n, 'n', n, 'deep', jsonb_build_array('pii7f', '', true)),
  repeat('pii7f note '||n||' ', CASE WHEN n % 50 = 0 THEN 400 ELSE 1 END), 'kept '||n, n
  FROM generate_series(1, 1000) n;
INSERT INTO orders (email, total) SELECT email, id FROM users;
CREATE MATERIALIZED VIEW directory AS SELECT id, email FROM users;
CREATE STATISTICS both_ (mcv) ON name, home FROM users;
ANALYZE;
";

fn holding(folder: &Path, mark: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, mark, found);
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(mark.len()).any(|w| w == mark)
        {
            found.push(path.display().to_string());
        }
    }
}

const RULES: [(&str, Mask); 13] = [
    ("db.users.email", Mask::Email),
    ("db.orders.email", Mask::Email),
    ("db.app.public.users.name", Mask::Name),
    ("db.users.phone", Mask::Phone),
    ("db.users.home", Mask::Address),
    ("db.users.born", Mask::DateShift),
    ("db.users.seen", Mask::DateShift),
    ("db.users.secret", Mask::Token),
    ("db.users.tags", Mask::Hash),
    ("db.users.profile", Mask::Text),
    ("db.users.note", Mask::Text),
    ("db.users.kept", Mask::Keep),
    ("db.users.at", Mask::Hash),
];

#[test]
fn no_file_of_the_cluster_keeps_any_of_ten_thousand_masked_values() {
    let mut cluster = Cluster::new();
    cluster.sql("app", SEED);
    // Rows that are dead already, before anything is masked; and a log of the server's own in its folder.
    cluster.sql("app", "UPDATE users SET note = note || 'pii7f dead'; CHECKPOINT");
    fs::create_dir_all(cluster.data().join("log")).unwrap();
    fs::write(cluster.data().join("log/postgresql.log"), format!("LOG: {MARK}")).unwrap();
    let mut before = Vec::new();
    holding(&cluster.data(), MARK.as_bytes(), &mut before);
    assert!(before.len() > 5, "the search finds what is there: {before:?}");
    assert!(before.iter().any(|f| f.contains("pg_wal")), "{before:?}");

    cluster.sql("app", "DELETE FROM audit");
    let done = mask(&cluster, &RULES).unwrap();
    let total: u64 = done.columns.iter().map(|c| c.values).sum();
    assert_eq!((done.columns.len(), total), (12, 12_000), "{done:?}");
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM audit"), "0\n", "a trigger kept old values");
    cluster.sql("app", "VACUUM FULL audit");

    cluster.stop("fast");
    run(as_server(&bin("pg_resetwal")).arg("-D").arg(cluster.data()));
    for folder in LEFT_BEHIND {
        for entry in fs::read_dir(cluster.data().join(folder)).into_iter().flatten() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let mut after = Vec::new();
    holding(&cluster.data(), MARK.as_bytes(), &mut after);
    assert_eq!(after, Vec::<String>::new(), "old values are left");
    // The key is not there either: with it, values could be guessed.
    let (inner, outer) = key().pads();
    for part in [inner, outer, key().to_hex()] {
        let mut found = Vec::new();
        holding(&cluster.data(), &part.as_bytes()[..40], &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    // It starts, is sound, and what belonged together still does.
    cluster.start();
    assert_eq!(cluster.sql("app", "SELECT count(*), count(DISTINCT email) FROM users"), "1000|1000\n");
    let joined = "SELECT count(*) FROM orders o JOIN users u USING (email) WHERE o.total = u.id";
    assert_eq!(cluster.sql("app", joined), "1000\n");
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM directory d JOIN users USING (id, email)"), "1000\n");
    assert_eq!(cluster.sql("app", "SELECT kept FROM users WHERE id = 7"), "kept 7\n");
    let integrity =
        postgres::integrity(&cluster, &["app".into()], postgres::Amcheck::MayCreate, &Progress::none());
    assert_eq!(integrity.unwrap(), Vec::<String>::new());
}

#[test]
fn the_server_makes_the_values_that_the_program_makes() {
    let cluster = Cluster::new();
    cluster.sql("app", SEED);
    let row = "SELECT email, name, phone, home, born, note, secret, tags[1], profile->'deep', at, profile->>'mail' FROM users WHERE id = 50";
    let was = cluster.sql("app", row);
    mask(&cluster, &RULES).unwrap();
    let is = cluster.sql("app", row);
    let (was, is): (Vec<&str>, Vec<&str>) =
        (was.trim_end().split('|').collect(), is.trim_end().split('|').collect());
    let of = |mask, value: &str, limit| masked(&key(), mask, value, limit);
    assert_eq!(is[0], of(Mask::Email, was[0], Some(60)));
    assert_eq!(is[1], of(Mask::Name, was[1], None));
    assert_eq!(is[2], of(Mask::Phone, was[2], None));
    assert_eq!(is[3], of(Mask::Address, was[3], None));
    assert_eq!(is[5], of(Mask::Text, was[5], None));
    // char(40) is compared without the blanks at its end.
    assert_eq!(is[6].trim_end(), of(Mask::Token, was[6].trim_end(), Some(40)));
    assert_eq!(is[7], of(Mask::Hash, was[7], None));
    assert_eq!((is[8], is[10]), ("[\"masked\", \"\", true]", "masked"));
    assert_ne!(is[9], was[9]);
    let moved = switchback_core::anonymise::shifted(was[4], days(&key())).unwrap();
    assert_eq!(is[4], moved);
    let hours = "SELECT max(seen) - min(seen) FROM users";
    assert_eq!(cluster.sql("app", hours), "41 days 15:00:00\n", "distances stay");
    assert_eq!(cluster.sql("app", "SELECT tags[2] IS NULL AND tags[3] = '' FROM users WHERE id = 1"), "t\n");
}

#[test]
fn odd_types_names_and_tables_are_masked_too() {
    let cluster = Cluster::new();
    cluster.sql(
        "app",
        "CREATE DOMAIN mail AS varchar(40); CREATE SCHEMA \"Odd.one\";
         CREATE TABLE \"Odd.one\".\"it's; --\" (\"na\"\"me\" mail, id uuid DEFAULT gen_random_uuid(), raw bytea, n numeric, s smallint);
         INSERT INTO \"Odd.one\".\"it's; --\" VALUES ('a@b.test', DEFAULT, '\\x0102', 12.5, 3), (NULL, NULL, NULL, NULL, NULL);
         CREATE TABLE log (id int, who text, day date) PARTITION BY RANGE (day);
         CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
         INSERT INTO log SELECT n, 'pii7f', '2020-06-01' FROM generate_series(1, 10) n;
         CREATE TABLE parent (who text); CREATE TABLE child () INHERITS (parent);
         INSERT INTO child VALUES ('pii7f');",
    );
    let table = "db.app.\"Odd.one\".it's; --";
    let done = mask(
        &cluster,
        &[
            (&format!("{table}.\"na\"\"me\""), Mask::Email),
            (&format!("{table}.id"), Mask::Hash),
            (&format!("{table}.raw"), Mask::Hash),
            (&format!("{table}.n"), Mask::Hash),
            (&format!("{table}.s"), Mask::Null),
            ("db.log.who", Mask::Token),
            ("db.parent.who", Mask::Name),
        ],
    )
    .unwrap();
    assert_eq!(done.columns.iter().map(|c| c.values).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 10, 1], "{done:?}");
    let odd = "SELECT \"na\"\"me\" LIKE 'u%@example.invalid', length(raw), s IS NULL, n > 1 FROM \"Odd.one\".\"it's; --\" WHERE n IS NOT NULL";
    assert_eq!(cluster.sql("app", odd), "t|32|t|t\n");
    assert_eq!(cluster.sql("app", "SELECT count(DISTINCT who), min(length(who)) FROM log"), "1|5\n");
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM child WHERE who LIKE 'pii7f%'"), "0\n");
}

#[test]
fn rules_that_cannot_be_carried_out_change_nothing() {
    let cluster = Cluster::new();
    cluster.sql("app", SEED);
    let before = cluster.sql("app", "SELECT md5(string_agg(u::text, '' ORDER BY id)) FROM users u");
    for (all, why) in [
        (&[("db.users.mail", Mask::Email)][..], "the table has id, email"),
        (&[("db.orders.email", Mask::Email)], "both need the same mask"),
        (&[("db.users.email", Mask::Null)], "must have a value"),
        (&[("db.users.born", Mask::Name)], "holds no texts"),
        (&[("db.nobody.email", Mask::Name)], "no such table"),
    ] {
        let error = mask(&cluster, all).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(cluster.sql("app", "SELECT md5(string_agg(u::text, '' ORDER BY id)) FROM users u"), before);
}

#[test]
fn personal_data_is_found_and_not_found_again_once_it_is_masked() {
    let cluster = Cluster::new();
    cluster.sql("app", SEED);
    let find = || -> BTreeMap<String, Mask> {
        let samples = postgres::samples(&cluster, &["app".into()], 100, &Progress::none()).unwrap();
        assert!(samples.iter().any(|s| s.column.family == Family::Json && !s.values.is_empty()));
        samples.iter().filter_map(|s| Some((s.column.path(), propose(s)?.mask))).collect()
    };
    let found = find();
    assert_eq!(found.get("app.public.users.email"), Some(&Mask::Email), "{found:?}");
    assert_eq!(found.get("app.public.orders.email"), Some(&Mask::Email), "{found:?}");
    assert!(!found.contains_key("app.public.users.kept"), "{found:?}");
    mask(&cluster, &RULES).unwrap();
    let left = find();
    assert!(!left.values().any(|m| matches!(m, Mask::Email | Mask::Phone)), "{left:?}");
}
