//! Damage that has to be found, and changes that are harmless.

use crate::server::Server;
use switchback_core::data::PartChange;
use switchback_core::prove::Damage;
use switchback_engine::store::Progress;
use switchback_engine::store::mysql::{Pages, damage, diff, integrity};

const SHOP: &str = "\
CREATE TABLE users (id int PRIMARY KEY AUTO_INCREMENT, email varchar(80) NOT NULL UNIQUE, name text, born date, seen datetime, places int);
CREATE TABLE orders (id int PRIMARY KEY AUTO_INCREMENT, user_id int NOT NULL, total decimal(10,2), note varchar(200), FOREIGN KEY (user_id) REFERENCES users (id));
INSERT INTO users (email, name, born, seen, places) SELECT CONCAT('u', seq, '@example.com'), CONCAT('User ', seq), '2000-01-01', '2026-11-29 21:00:00', seq FROM seq_1_to_200;
INSERT INTO orders (user_id, total, note) SELECT 1 + seq % 200, seq / 7, CONCAT('order ', seq) FROM seq_1_to_2000;
";

fn shop() -> Server {
    let server = Server::new();
    server.app(SHOP);
    server
}

/// Whether something is lost or altered, orphaned or broken.
fn harm(before: &Server, after: &Server) -> Vec<String> {
    let found = diff(before, after, &[], &Progress::none()).unwrap();
    let mut harm: Vec<String> = found
        .parts
        .iter()
        .filter(|p| {
            p.rows_removed + p.rows_changed > 0
                || p.change == PartChange::Dropped
                || !p.columns_removed.is_empty()
        })
        .map(|p| p.name.clone())
        .collect();
    harm.extend(found.new_orphans);
    harm.extend(integrity(after, &[], Pages::Check, &Progress::none()).unwrap());
    harm
}

#[test]
fn every_damage_is_found() {
    let mut a = shop();
    for kind in
        [Damage::RowsLost, Damage::TextsCut, Damage::ColumnDropped, Damage::HalfMoved, Damage::TablesRenamed]
    {
        let b = a.copy();
        let landed = damage(&b, &[], kind, &[], &Progress::none()).unwrap();
        assert!(landed > 0, "{kind:?}");
        let harm = harm(&a, &b);
        assert!(harm.iter().any(|h| h.starts_with("app.orders")), "{kind:?}: {harm:?}");
        let spared = a.copy();
        let not = ["orders".to_owned()];
        damage(&spared, &[], kind, &not, &Progress::none()).unwrap();
        let found = diff(&a, &spared, &[], &Progress::none()).unwrap();
        let orders = found.parts.iter().find(|p| p.name == "app.orders").unwrap();
        assert_eq!(orders.change, PartChange::Unchanged, "{kind:?}");
    }
}

#[test]
fn damage_of_migrations_is_found() {
    let mut a = shop();
    let all = [
        "DELETE FROM orders WHERE id = 1000",
        "UPDATE orders SET total = total + 0.01 WHERE id = 7",
        "UPDATE orders SET note = NULL WHERE id = 7",
        "UPDATE orders SET note = CONCAT(note, ' ') WHERE id = 7",
        "ALTER TABLE orders MODIFY note varchar(8)",
        "ALTER TABLE orders MODIFY total decimal(10,1)",
        "ALTER TABLE users MODIFY born int",
        "SET foreign_key_checks = 0; DELETE FROM users WHERE id = 3",
        "SET foreign_key_checks = 0; TRUNCATE users",
        "UPDATE orders a JOIN orders b ON a.id = 1 AND b.id = 2 SET a.note = b.note, b.note = a.note",
        "ALTER TABLE users CONVERT TO CHARACTER SET latin1; UPDATE users SET name = '?' WHERE id = 1",
        "RENAME TABLE orders TO orders_old; CREATE TABLE orders LIKE orders_old",
        "ALTER TABLE orders DROP COLUMN total",
        "UPDATE orders SET user_id = 1",
        "DROP TABLE orders",
        "SET foreign_key_checks = 0; DROP TABLE users",
        "ALTER TABLE orders DROP COLUMN total, ADD COLUMN total decimal(10,2) AS (0) STORED",
        "ALTER TABLE users MODIFY places varchar(20); UPDATE users SET places = CONCAT(places, ' ') WHERE id = 3",
    ];
    for migration in all {
        let b = a.copy();
        b.app(&format!("SET sql_mode = ''; {migration};"));
        assert!(!harm(&a, &b).is_empty(), "{migration}");
    }
}

#[test]
fn harmless_migrations_raise_no_alarm() {
    let mut a = shop();
    let all = [
        "ALTER TABLE users ADD COLUMN phone varchar(20)",
        "ALTER TABLE orders ADD COLUMN state varchar(10) NOT NULL DEFAULT 'open'",
        "CREATE INDEX by_total ON orders (total)",
        "ALTER TABLE orders ENGINE = InnoDB, FORCE",
        "OPTIMIZE TABLE orders",
        "ALTER TABLE orders MODIFY id bigint NOT NULL AUTO_INCREMENT",
        "ALTER TABLE orders MODIFY note varchar(500)",
        "ALTER TABLE orders MODIFY total decimal(12,4)",
        "ALTER TABLE users MODIFY seen datetime(6)",
        "ALTER TABLE users MODIFY places varchar(20)",
        "ALTER TABLE users MODIFY places int(8) zerofill",
        "ALTER TABLE users CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
        "CREATE TABLE audit (id int PRIMARY KEY); INSERT INTO audit VALUES (1)",
        "CREATE VIEW totals AS SELECT SUM(total) FROM orders",
        "INSERT INTO orders (user_id, total) VALUES (1, 1)",
        "ANALYZE TABLE users, orders",
    ];
    for migration in all {
        let b = a.copy();
        b.app(&format!("{migration};"));
        assert_eq!(harm(&a, &b), Vec::<String>::new(), "{migration}");
    }
}

#[test]
fn a_table_that_is_written_anew_is_told() {
    let mut a = shop();
    let b = a.copy();
    b.app("ALTER TABLE orders MODIFY id bigint NOT NULL AUTO_INCREMENT; ALTER TABLE users ADD COLUMN phone varchar(20), ALGORITHM = INSTANT;");
    let found = diff(&a, &b, &[], &Progress::none()).unwrap();
    let notes = |name: &str| found.parts.iter().find(|p| p.name == name).unwrap().notes.clone();
    assert!(notes("app.orders").iter().any(|n| n.starts_with("written anew")), "{found:?}");
    assert_eq!(notes("app.users"), Vec::<String>::new());
}
