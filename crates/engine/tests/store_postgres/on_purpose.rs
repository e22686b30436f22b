//! Damage that the proof of the checks makes: it lands where it may, and the comparison finds it.

use crate::changes::diff;
use crate::cluster::Cluster;
use switchback_core::data::PartChange;
use switchback_core::prove::Damage;
use switchback_engine::store::Progress;
use switchback_engine::store::postgres::damage;

const DATA: &str = "
    CREATE SCHEMA \"odd.one\";
    CREATE TABLE \"odd.one\".\"it's $do$\" (id serial PRIMARY KEY, n int NOT NULL, body text NOT NULL);
    INSERT INTO \"odd.one\".\"it's $do$\" (n, body) SELECT i, 'the end ' || i FROM generate_series(1, 300) i;
    CREATE TABLE journal (id int, body text);
    INSERT INTO journal SELECT i, repeat('a', 100) FROM generate_series(1, 5000) i;
    CREATE TABLE small (id int REFERENCES \"odd.one\".\"it's $do$\" ON DELETE CASCADE);
    INSERT INTO small VALUES (1);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''a trigger took part''; END';
    CREATE TRIGGER watch BEFORE UPDATE OR DELETE ON \"odd.one\".\"it's $do$\" FOR EACH ROW EXECUTE FUNCTION watch();";

#[test]
fn damage_on_purpose_lands_in_the_largest_table_that_may_be_damaged_and_is_found() {
    for (what, landed) in [
        (Damage::RowsLost, 3),
        (Damage::TextsCut, 300),
        (Damage::ColumnDropped, 1),
        (Damage::HalfMoved, 150),
        (Damage::TablesRenamed, 2),
    ] {
        let mut before = Cluster::new();
        before.sql("app", DATA);
        let after = before.copy();
        let not = ["public.journal".to_owned()];
        let done = damage(&after, &[], what, &not, &Progress::none());
        assert_eq!(done.expect("damages"), landed, "{what:?}");
        let found = diff(&before, &after);
        let part = |name: &str| {
            let named = found.parts.iter().find(|p| p.name.contains(name) && !p.name.contains('('));
            named.unwrap_or_else(|| panic!("{name} in {:?}", found.parts))
        };
        let odd = part("it's $do$");
        match what {
            Damage::RowsLost => assert_eq!((odd.change, odd.rows_removed), (PartChange::Changed, 3)),
            Damage::TextsCut => assert_eq!((odd.change, odd.rows_changed), (PartChange::Changed, 300)),
            Damage::ColumnDropped => assert_eq!(odd.columns_removed, ["body"]),
            Damage::HalfMoved => {
                assert_eq!((odd.change, odd.rows_changed), (PartChange::Changed, 150));
                assert_eq!(odd.columns_added, ["switchback_moved"]);
            }
            Damage::TablesRenamed => assert_eq!(odd.change, PartChange::Dropped),
        }
        assert_eq!(part("app.public.journal").change, PartChange::Unchanged, "{what:?}");
    }
}
