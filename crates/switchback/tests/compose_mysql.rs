//! A stack on MariaDB: its migrations compared row by row, a rollback with the later writes exported, another version of the server.

mod common;

use common::docker::{DB_PASSWORD, Example, Stack, docker, need};
use common::upgrade::{assert_no_secret_is_told, derived_image, exported, generation, report, staging_left};
use serde_json::{Value, json};
use std::fs;

/// The releases of the shop and their migrations; 1 has none.
const MIGRATIONS: [&str; 4] = [
    "DO 1",
    "ALTER TABLE orders ADD COLUMN state varchar(20) NOT NULL DEFAULT 'open', MODIFY note varchar(300)",
    "DELETE FROM orders WHERE id % 100 = 0",
    "UPDATE orders SET total = -total WHERE id = 7",
];

fn shop() -> Stack {
    need(&["sbt/mariadb:10.11", "sbt/mariadb:11.8"]);
    for (number, migration) in (1..).zip(MIGRATIONS) {
        derived_image(
            &format!("sbt/shop:{number}"),
            &format!("FROM sbt/mariadb:10.11\nRUN echo \"{migration};\" > /migration.sql\n"),
        );
    }
    let stack = Stack::compose(Example::Shop);
    stack.set("DB_IMAGE", "sbt/mariadb:10.11");
    stack.docker_compose(&["up", "-d", "--wait", "db"]).expect(0);
    mariadb(
        &stack,
        "CREATE TABLE users (id int PRIMARY KEY AUTO_INCREMENT, name varchar(80) NOT NULL);
         CREATE TABLE orders (id int PRIMARY KEY AUTO_INCREMENT, user_id int NOT NULL, total decimal(10,2), note varchar(200), FOREIGN KEY (user_id) REFERENCES users (id));
         INSERT INTO users (name) SELECT CONCAT('user ', seq) FROM seq_1_to_50;
         INSERT INTO orders (user_id, total, note) SELECT 1 + seq % 50, seq / 7, CONCAT('order ', seq) FROM seq_1_to_1000;",
    );
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

fn mariadb(stack: &Stack, sql: &str) -> String {
    let container = stack.container("db").expect("it runs");
    let asked = [
        "exec",
        "-e",
        &format!("MYSQL_PWD={DB_PASSWORD}"),
        &container,
        "mariadb",
        "-uroot",
        "-BN",
        "shop",
        "-e",
        sql,
    ];
    docker(&asked).expect(0).stdout.trim().to_owned()
}

fn part<'r>(report: &'r Value, name: &str) -> &'r Value {
    let parts = report["diffs"]["books"]["parts"].as_array().expect("parts");
    parts.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn migrations_are_compared_and_a_rollback_exports_later_writes() {
    let stack = shop();
    let config = stack.root.join("switchback.yaml");
    let own = fs::read_to_string(&config).expect("reads");
    stack.run(&["init", "--yes", "--force"]).expect(0);
    let found = fs::read_to_string(&config).expect("reads");
    assert!(found.contains("books: { kind: mysql, service: db }"), "{found}");
    fs::write(&config, own).expect("writes");

    // Rows that a migration loses, and values that a rule forbids.
    stack.set("SHOP_VERSION", "3");
    let ran = stack.run(&["rehearse"]).expect(3);
    assert!(ran.all().contains("10 of 1000 rows are gone"), "{}", ran.all());
    let bad = report(&stack);
    let trace = &bad["traces"]["books"];
    let told =
        |text: &str| trace["statements"].as_array().is_some_and(|all| all.iter().any(|s| s["text"] == text));
    assert!(trace["timed"] == true && told("DELETE FROM orders WHERE id % ? = ?"), "{trace}");
    let orders = part(&bad, "shop.orders");
    assert_eq!(
        (&orders["rows_removed"], &orders["before"], &orders["after"]),
        (&json!(10), &json!(1000), &json!(990))
    );
    assert!(bad.to_string().contains("10 of 1000 rows are gone"), "{bad}");
    stack.set("SHOP_VERSION", "4");
    stack.run(&["rehearse"]).expect(3);
    let bad = report(&stack);
    assert_eq!(part(&bad, "shop.orders")["rows_changed"], 1);
    let example = &part(&bad, "shop.orders")["examples"][0];
    assert_eq!((&example["before"]["total"], &example["row"]["total"]), (&json!("1.00"), &json!("-1.00")));
    assert!(bad.to_string().contains("SELECT COUNT(*) FROM orders WHERE total < 0"), "{bad}");

    // A column more.
    stack.set("SHOP_VERSION", "2");
    stack.run(&["rehearse"]).expect(0);
    let good = report(&stack);
    assert_eq!(good["conclusion"], "pass", "{good}");
    let orders = part(&good, "shop.orders");
    assert_eq!((&orders["change"], &orders["columns_added"]), (&json!("columns_added"), &json!(["state"])));
    assert_eq!(part(&good, "shop.users")["change"], "unchanged");
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    assert_eq!(mariadb(&stack, "SELECT COUNT(*) FROM orders"), "1000");

    stack.run(&["promote", "--yes", "--detach"]).expect(0);
    assert_eq!(generation(&stack), 2);
    mariadb(
        &stack,
        "INSERT INTO orders (user_id, total, note, state) VALUES (3, 9.99, 'later', 'paid'); UPDATE users SET name = 'renamed' WHERE id = 5",
    );
    stack.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(generation(&stack), 1);
    assert_eq!(mariadb(&stack, "SELECT COUNT(*), MAX(note = 'later') FROM orders"), "1000\t0");
    assert_eq!(mariadb(&stack, "SELECT name FROM users WHERE id = 5"), "user 5");
    let writes = exported(&stack, 2, "books");
    let rows: Vec<&Value> = writes.values().flatten().collect();
    assert_eq!(rows.len(), 2, "{:?}", rows.iter().take(5).collect::<Vec<_>>());
    assert!(
        rows.iter()
            .any(|r| r["op"] == "insert" && r["row"]["note"] == "later" && r["row"]["total"] == "9.99"),
        "{rows:?}"
    );
    assert!(rows.iter().any(|r| r["op"] == "update" && r["before"]["name"] == "user 5"), "{rows:?}");
    assert_no_secret_is_told(&stack, &[DB_PASSWORD]);
}

#[test]
fn another_version_of_the_server_is_rehearsed_and_taken_back() {
    let stack = shop();
    let version = |stack: &Stack| mariadb(stack, "SELECT VERSION()");
    assert!(version(&stack).starts_with("10.11."));
    let sums = mariadb(&stack, "CHECKSUM TABLE orders, users");
    stack.set("DB_IMAGE", "sbt/mariadb:11.8");
    stack.run(&["rehearse"]).expect(0);
    let rehearsal = report(&stack);
    assert_eq!(part(&rehearsal, "shop.orders")["change"], "unchanged", "{rehearsal}");
    stack.run(&["promote", "--yes", "--detach"]).expect(0);
    assert!(version(&stack).starts_with("11.8."), "{}", version(&stack));
    mariadb(&stack, "DELETE FROM orders WHERE id = 1");
    stack.run(&["rollback", "--yes"]).expect(0);
    assert!(version(&stack).starts_with("10.11."), "{}", version(&stack));
    assert_eq!(mariadb(&stack, "CHECKSUM TABLE orders, users"), sums);
    let writes = exported(&stack, 2, "books");
    assert!(writes.values().flatten().any(|r| r["op"] == "delete" && r["before"]["id"] == 1), "{writes:?}");
}
