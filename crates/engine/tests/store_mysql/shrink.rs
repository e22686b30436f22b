//! Fewer rows of large tables, and still a database that makes sense.

use crate::server::Server;
use switchback_engine::store::Progress;
use switchback_engine::store::mysql::{Pages, integrity, shrink};

const SHOP: &str = "\
CREATE TABLE users (id int PRIMARY KEY AUTO_INCREMENT, email varchar(80) NOT NULL UNIQUE);
CREATE TABLE `or``ders` (id int PRIMARY KEY AUTO_INCREMENT, user_id int NOT NULL, parent int, note varchar(200), FOREIGN KEY (user_id) REFERENCES users (id), FOREIGN KEY (parent) REFERENCES `or``ders` (id));
CREATE TABLE `lines` (o int, n int, body varchar(200), PRIMARY KEY (o, n), FOREIGN KEY (o) REFERENCES `or``ders` (id) ON DELETE CASCADE);
CREATE TABLE pinned (id int PRIMARY KEY, o int, n int, FOREIGN KEY (o, n) REFERENCES `lines` (o, n));
CREATE TABLE knex_migrations (id int PRIMARY KEY);
INSERT INTO users (email) SELECT CONCAT('u', seq, '@example.com') FROM seq_1_to_200;
INSERT INTO `or``ders` (id, user_id, parent, note) SELECT seq, 1 + seq % 200, IF(seq % 10 = 0, seq - 1, NULL), REPEAT('x', 150) FROM seq_1_to_4000;
INSERT INTO `lines` SELECT a.seq, b.seq, REPEAT('y', 100) FROM seq_1_to_4000 a, seq_1_to_4 b;
INSERT INTO pinned VALUES (1, 77, 3);
INSERT INTO knex_migrations SELECT seq FROM seq_1_to_1500;
";

#[test]
fn a_share_is_left_of_large_tables_and_every_reference_leads_somewhere() {
    let server = Server::new();
    server.app(SHOP);
    let not = ["knex_migrations".to_owned()];
    let whole = shrink(&server, &[], 100, &not, &Progress::none()).unwrap();
    assert_eq!((whole.tables, whole.rows), (2, 200 + 4000 + 16_000 + 1 + 1500));
    let left = shrink(&server, &[], 25, &not, &Progress::none()).unwrap();
    let count =
        |table: &str| -> u64 { server.app(&format!("SELECT COUNT(*) FROM {table}")).trim().parse().unwrap() };
    for (table, low, high) in [
        ("users", 200, 200),
        ("`or``ders`", 800, 1150),
        ("`lines`", 3200, 4300),
        ("knex_migrations", 1500, 1500),
    ] {
        let found = count(table);
        assert!((low..=high).contains(&found), "{table}: {found}, {left:?}");
    }
    assert_eq!(count("pinned") + left.followed, 1, "{left:?}");
    assert!(left.bytes * 2 < whole.bytes, "{left:?} of {whole:?}");
    assert_eq!(integrity(&server, &[], Pages::Check, &Progress::none()).unwrap(), Vec::<String>::new());
}
