//! Random differences against a comparison that is as simple as can be.

use crate::server::Server;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use switchback_engine::store::Progress;
use switchback_engine::store::mysql::diff;

/// A small generator of numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The rows by key, told by the server as one text each.
fn naive(server: &Server) -> BTreeMap<String, String> {
    let all = server.app("SELECT id, HEX(CONCAT_WS('#', IFNULL(HEX(a), 'none'), IFNULL(b, 'none'), IFNULL(HEX(c), 'none'))) FROM t;");
    all.lines().filter_map(|l| l.split_once('\t')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn counts_are_those_of_a_naive_comparison() {
    let mut dice = Dice(29);
    let mut a = Server::new();
    a.app("CREATE TABLE t (id int PRIMARY KEY, a varchar(50), b decimal(10,3), c blob); INSERT INTO t SELECT seq, CONCAT('row ', seq), seq / 3, UNHEX(MD5(seq)) FROM seq_1_to_3000;");
    let b = a.copy();
    for round in 0..12 {
        let mut sql = String::new();
        for _ in 0..1 + dice.roll(40) {
            let id = 1 + dice.roll(3500);
            let _ = match dice.roll(7) {
                0 => writeln!(sql, "DELETE FROM t WHERE id = {id};"),
                1 => writeln!(sql, "REPLACE INTO t VALUES ({id}, NULL, 1, X'00');"),
                2 => writeln!(sql, "UPDATE t SET b = b + 0.001 WHERE id = {id};"),
                3 => writeln!(sql, "UPDATE t SET a = NULL WHERE id = {id};"),
                4 => writeln!(sql, "UPDATE t SET a = CONCAT(a, ' ') WHERE id = {id};"),
                5 => writeln!(sql, "UPDATE t SET c = CONCAT(c, X'00') WHERE id = {id};"),
                _ => writeln!(sql, "UPDATE t SET a = a, b = b WHERE id = {id};"),
            };
        }
        b.app(&sql);
        let (old, new) = (naive(&a), naive(&b));
        let added = new.keys().filter(|k| !old.contains_key(*k)).count() as u64;
        let removed = old.keys().filter(|k| !new.contains_key(*k)).count() as u64;
        let changed = old.iter().filter(|(k, v)| new.get(*k).is_some_and(|n| n != *v)).count() as u64;
        let found = diff(&a, &b, &[], &Progress::none()).unwrap();
        let t = found.parts.iter().find(|p| p.name == "app.t").unwrap();
        assert_eq!(
            (t.rows_added, t.rows_removed, t.rows_changed),
            (added, removed, changed),
            "round {round}:\n{sql}"
        );
        assert_eq!(t.after, new.len() as u64);
    }
}
