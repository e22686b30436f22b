//! Differences of shape in words; orphans and sequences.

use crate::changes::{diff, part};
use crate::cluster::{Cluster, as_server, bin, run};
use crate::content::print;
use switchback_core::data::PartChange;

const BASE: &str = "
CREATE TABLE t(id int PRIMARY KEY, a int, b varchar(10) DEFAULT 'x', c int);
INSERT INTO t SELECT i, i, 'b', i FROM generate_series(1, 10) i;
CREATE TABLE gone(x int); INSERT INTO gone VALUES (1); CREATE TABLE extra(x int);
CREATE INDEX idx_old ON t(a); CREATE INDEX idx_kept ON t(b);
CREATE VIEW v AS SELECT id FROM t; CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t;
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION trg();
CREATE TYPE mood_of_t AS ENUM ('a'); CREATE DOMAIN dom AS int CHECK (VALUE > 0); CREATE SEQUENCE seq;
CREATE ROLE reader; CREATE ROLE writer PASSWORD 'old'; CREATE ROLE leaver; CREATE SCHEMA s; CREATE TABLE pol(x int);
ALTER DATABASE app SET app.secret = 'hush-old';
";

const CHANGES: [(&str, &str); 30] = [
    (
        "ALTER TABLE t ADD COLUMN d int NOT NULL DEFAULT 7",
        "app: column public.t.d added (integer NOT NULL DEFAULT 7)",
    ),
    ("ALTER TABLE t DROP COLUMN c", "app: column public.t.c removed"),
    ("ALTER TABLE t ALTER a TYPE bigint", "app: column public.t.a: integer -> bigint"),
    (
        "ALTER TABLE t ALTER b DROP DEFAULT",
        "app: column public.t.b: character varying(10) DEFAULT 'x'::character varying -> character varying(10)",
    ),
    ("ALTER TABLE t ADD CHECK (a > 0)", "app: constraint t_a_check on public.t added (CHECK ((a > 0)))"),
    ("DROP INDEX idx_old", "app: index public.idx_old removed"),
    (
        "CREATE INDEX idx_new ON t(a)",
        "app: index public.idx_new added (CREATE INDEX idx_new ON public.t USING btree (a))",
    ),
    ("DROP TABLE gone", "app: table public.gone removed"),
    ("CREATE TABLE fresh(id int PRIMARY KEY)", "app: table public.fresh added (owner postgres)"),
    ("CREATE OR REPLACE VIEW v AS SELECT id, a FROM t", "app: view public.v redefined"),
    ("DROP MATERIALIZED VIEW mv", "app: materialized view public.mv removed"),
    (
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "app: function public.f(integer) redefined",
    ),
    ("ALTER TABLE t DISABLE TRIGGER tr", "app: trigger tr on public.t: CREATE TRIGGER"),
    (
        "ALTER TYPE mood_of_t ADD VALUE 'b'",
        "app: type public.mood_of_t: owner postgres, enum 'a' -> owner postgres, enum 'a', 'b'",
    ),
    (
        "ALTER DOMAIN dom SET NOT NULL",
        "app: type public.dom: owner postgres, domain integer dom_check CHECK ((VALUE > 0)) -> owner postgres, domain integer NOT NULL",
    ),
    ("ALTER SEQUENCE seq INCREMENT 5", "app: sequence public.seq: "),
    ("CREATE EXTENSION citext", "app: extension citext added (1.6 in schema public)"),
    (
        "GRANT SELECT ON t TO reader",
        "app: privileges relation public.t added (postgres=arwdDxt/postgres reader=r/postgres)",
    ),
    (
        "ALTER TABLE pol ENABLE ROW LEVEL SECURITY",
        "app: table public.pol: owner postgres -> owner postgres, row security",
    ),
    (
        "CREATE POLICY p ON pol USING (x > 0)",
        "app: policy p on public.pol added (permissive * to public using ((x > 0)) check ())",
    ),
    ("COMMENT ON TABLE pol IS 'said'", "app: comment table public.pol added (said)"),
    ("ALTER ROLE reader CREATEDB", "role reader: nologin -> createdb, nologin"),
    ("ALTER ROLE writer PASSWORD 'new'", "password writer changed"),
    ("DROP ROLE leaver", "role leaver removed"),
    ("GRANT reader TO writer", "membership writer in reader by postgres added (member)"),
    ("ALTER DATABASE app SET app.secret = 'hush-new'", "setting app.secret of all roles in app changed"),
    ("ALTER SCHEMA s OWNER TO reader", "app: schema s: owner postgres -> owner reader"),
    ("CREATE DATABASE second", "database second added (owner postgres, UTF8"),
    (
        "CREATE PUBLICATION pub FOR TABLE t",
        "app: publication pub added (owner postgres, all f, t t t t; public.t)",
    ),
    ("CREATE RULE r AS ON DELETE TO pol DO INSTEAD NOTHING", "app: rule r on public.pol added"),
];

#[test]
fn every_kind_of_change_of_the_shape_is_told_in_words() {
    let mut a = Cluster::new();
    a.sql("app", BASE);
    let b = a.copy();
    for (sql, _) in CHANGES {
        b.sql("app", sql);
    }
    let found = diff(&a, &b);
    let words = &found.schema_changes;
    for (sql, wanted) in CHANGES {
        assert!(words.iter().any(|w| w.starts_with(wanted)), "{sql}: {wanted} in {words:#?}");
    }
    assert!(!words.iter().any(|w| w.contains("hush") || w.contains("SCRAM")), "{words:#?}");
    // What comes with an extension or goes with a table is not told one by one.
    assert!(
        !words.iter().any(|w| w.contains("citext(") || w.contains("gone.x") || w.contains("fresh.id")),
        "{words:#?}"
    );
    let t = part(&found, "app.public.t");
    assert_eq!(
        (t.columns_added.clone(), t.columns_removed.clone()),
        (vec!["d".to_owned()], vec!["c".to_owned()])
    );
    assert_eq!((t.change, t.rows_changed), (PartChange::Changed, 0));
    assert_eq!(part(&found, "app.public.gone").change, PartChange::Dropped);
    assert_eq!(found.lost_or_altered(), 2, "a row of gone, one of mv");
    assert_eq!(part(&found, "app.public.fresh").change, PartChange::Added);
}

#[test]
fn added_columns_alone_and_wider_types_are_no_change_of_rows() {
    let mut a = Cluster::new();
    a.sql("app", BASE);
    let b = a.copy();
    b.sql("app", "DROP VIEW v");
    b.sql("app", "ALTER TABLE t ADD COLUMN d int DEFAULT 1, ADD e timestamptz DEFAULT now(), ALTER a TYPE bigint, ALTER b TYPE text");
    b.sql("app", "ALTER TABLE extra ADD COLUMN y int; ALTER TABLE t ALTER id TYPE bigint; VACUUM FULL t");
    let found = diff(&a, &b);
    let t = part(&found, "app.public.t");
    assert_eq!((t.change, t.rows_changed, t.before, t.after), (PartChange::ColumnsAdded, 0, 10, 10));
    assert_eq!(t.columns_added, ["d", "e"]);
    assert_eq!(part(&found, "app.public.extra").change, PartChange::ColumnsAdded);
    assert_eq!(found.lost_or_altered(), 0);
}

#[test]
fn new_orphans_are_found_also_behind_disabled_triggers_and_in_partitions() {
    let mut a = Cluster::new();
    a.sql(
        "app",
        "CREATE TABLE parent(x int, y text, PRIMARY KEY (x, y)); INSERT INTO parent VALUES (1, 'a'), (2, 'b');
         CREATE TABLE child(x int, y text, FOREIGN KEY (x, y) REFERENCES parent); INSERT INTO child VALUES (1, 'a'), (1, NULL);
         CREATE TABLE old(x int, y text); INSERT INTO old VALUES (8, 'q');
         ALTER TABLE old ADD FOREIGN KEY (x, y) REFERENCES parent NOT VALID;
         CREATE TABLE tree(k int, x int, y text, FOREIGN KEY (x, y) REFERENCES parent) PARTITION BY RANGE (k);
         CREATE TABLE leaf PARTITION OF tree DEFAULT; INSERT INTO tree VALUES (1, 2, 'b');",
    );
    let b = a.copy();
    b.sql("app", "SET session_replication_role = replica; DELETE FROM parent WHERE x = 2; INSERT INTO child VALUES (9, 'z'), (9, 'z');");
    assert_eq!(
        diff(&a, &b).new_orphans,
        [
            "app.public.child, foreign key child_x_y_fkey: 2 rows without parent in public.parent",
            "app.public.tree, foreign key tree_x_y_fkey: 1 row without parent in public.parent",
        ]
    );
    assert_eq!(diff(&b, &a).new_orphans, Vec::<String>::new());
}

#[test]
fn a_sequence_that_went_back_counts_as_loss_and_one_that_went_on_does_not() {
    let mut a = Cluster::new();
    a.sql("app", "CREATE SEQUENCE up; CREATE SEQUENCE far; CREATE SEQUENCE back; CREATE SEQUENCE down INCREMENT -1; CREATE SEQUENCE gone; SELECT setval('back', 50), setval('far', 1)");
    let b = a.copy();
    b.sql(
        "app",
        "SELECT nextval('up'), setval('far', 1000), setval('back', 49), nextval('down'); DROP SEQUENCE gone",
    );
    let found = diff(&a, &b);
    let told = |name: &str| {
        let p = part(&found, &format!("app.public.{name} (sequence)"));
        (p.change, p.rows_changed, p.notes.concat())
    };
    assert_eq!(told("far"), (PartChange::Changed, 0, "last value 1 -> 1000".to_owned()));
    assert_eq!(told("up").1, 0);
    assert!(told("down").2.contains("alone can do this"), "{:?}", told("down"));
    assert_eq!(told("back").1, 1);
    assert!(told("back").2.contains("went back"));
    assert_eq!(part(&found, "app.public.gone (sequence)").change, PartChange::Dropped);
    assert_eq!(found.lost_or_altered(), 2);
}

#[test]
fn a_restored_dump_equals_its_origin_in_content_and_shape() {
    let a = Cluster::new();
    a.sql("app", BASE);
    a.sql("app", crate::content::TYPES);
    a.sql(
        "app",
        "CREATE TABLE tree(k int, v text) PARTITION BY HASH (k); CREATE TABLE leaf_0 PARTITION OF tree FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE leaf_1 PARTITION OF tree FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO tree SELECT i, 'v' FROM generate_series(1, 100) i;
         CREATE POLICY p ON pol TO reader USING (true); GRANT INSERT, SELECT ON pol TO reader, writer; COMMENT ON COLUMN t.a IS 'said';
         CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq); CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);",
    );
    a.sql("app", "SELECT lo_from_bytea(70000, '\\x0102'); ALTER TABLE t DROP COLUMN c; CREATE EXTENSION hstore; CREATE STATISTICS st ON id, a FROM t; REFRESH MATERIALIZED VIEW mv");
    let file = a.folder.path().join("dump.sql");
    let dump = |program: &str, more: &[&str]| {
        run(as_server(&bin(program)).args(["-h", &a.socket(), "-U", "postgres"]).args(more))
    };
    let roles = dump("pg_dumpall", &["--roles-only"]).replace("CREATE ROLE postgres;", "");
    std::fs::write(&file, dump("pg_dump", &["app"])).unwrap();
    let b = Cluster::new();
    b.sql("postgres", &roles);
    run(b.psql("app").arg("-f").arg(&file));
    b.sql("app", "ALTER DATABASE app SET app.secret = 'hush-old'");
    let found = diff(&a, &b);
    assert!(
        found.is_empty(),
        "{:#?} {:#?}",
        found.schema_changes,
        found.parts.iter().filter(|p| p.change != PartChange::Unchanged).collect::<Vec<_>>()
    );
    assert_eq!(print(&a).digest, print(&b).digest);
}
