use super::*;
use std::collections::BTreeSet;

fn key() -> Key {
    Key::new([7; 32])
}

fn column(table: &str, name: &str, family: Family) -> Column {
    Column {
        database: "shop".into(),
        schema: "public".into(),
        table: table.into(),
        name: name.into(),
        family,
        sql_type: "text".into(),
        array: false,
        limit: None,
        required: false,
        computed: false,
    }
}

fn parsed(all: &[(&str, Mask)]) -> Vec<Rule> {
    rules(&all.iter().map(|(t, m)| ((*t).to_owned(), *m)).collect()).expect("rules")
}

#[test]
fn masks_are_deterministic_keyed_and_of_their_form() {
    let of = |mask, value: &str| masked(&key(), mask, value, None);
    assert_eq!(of(Mask::Email, "ada@example.org"), of(Mask::Email, "ada@example.org"));
    assert_ne!(of(Mask::Email, "ada@example.org"), of(Mask::Email, "eve@example.org"));
    assert_ne!(of(Mask::Email, "a@b.c"), masked(&Key::new([8; 32]), Mask::Email, "a@b.c", None));
    assert!(of(Mask::Email, "x").ends_with("@example.invalid"));
    assert!(of(Mask::Phone, "+49 30 1234").starts_with("+999") && of(Mask::Phone, "1").len() == 13);
    assert_eq!(of(Mask::Text, "Ärger").chars().count(), 5);
    assert_eq!(of(Mask::Token, "0123456789").len(), 10);
    assert_eq!(of(Mask::Token, &"x".repeat(200)).len(), 200);
    assert_eq!(of(Mask::Name, "Grace Hopper").split(' ').count(), 2);
    assert!(of(Mask::Address, "x").contains(", "));
    // A limit of the column is kept, and an address stays one.
    for limit in SHORTEST_EMAIL..40 {
        let text = masked(&key(), Mask::Email, "ada@example.org", Some(limit));
        assert!(text.len() <= limit as usize && text.ends_with("@example.invalid"), "{limit}: {text}");
    }
    assert_eq!(masked(&key(), Mask::Hash, "x", Some(8)).len(), 8);
    assert!(key().number(5) >= 0 && key().number(5) != key().number(6));
}

#[test]
fn a_million_addresses_stay_distinct() {
    let all: BTreeSet<String> =
        (0..1_000_000).map(|n| masked(&key(), Mask::Email, &format!("user{n}@example.org"), None)).collect();
    assert_eq!(all.len(), 1_000_000);
}

#[test]
fn the_key_is_hmac_sha_256() {
    // RFC 4231, test case 2 has another key length; this one was computed with openssl:
    // printf 'hash:what do ya want' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707...07
    let (inner, outer) = key().pads();
    assert_eq!((inner.len(), outer.len()), (128, 128));
    assert!(inner.starts_with("3131") && inner.ends_with("3636"), "{inner}");
    assert!(outer.starts_with("5b5b") && outer.ends_with("5c5c"), "{outer}");
    assert_eq!(Key::from_hex(&key().to_hex()).map(|k| k.to_hex()), Some("07".repeat(32)));
    assert!(Key::from_hex("07").is_none() && Key::from_hex(&"é".repeat(32)).is_none());
}

#[test]
fn dates_move_together_and_keep_their_form() {
    let days = days(&key());
    assert!((30..365).contains(&days.abs()));
    let moved = shifted("2026-02-28T10:00:00Z", days).expect("a date");
    assert!(moved.ends_with("T10:00:00Z") && moved.len() == 20, "{moved}");
    assert_eq!(shifted(&shifted("2024-02-29", 40).expect("a date"), -40).as_deref(), Some("2024-02-29"));
    assert_eq!(shifted("yesterday", 40), None);
    assert_eq!(shifted("Übermorgen", 40), None);
}

#[test]
fn rules_mean_columns_and_the_one_that_names_more_counts() {
    let columns = [
        column("users", "email", Family::Text),
        Column { schema: "crm".into(), ..column("users", "email", Family::Text) },
        column("users", "id", Family::Integer(8)),
    ];
    let rules = parsed(&[("db.users.email", Mask::Email), ("db.crm.users.email", Mask::Null)]);
    let masks = assign(&rules, &columns, &[]).expect("fits");
    assert_eq!(masks, BTreeMap::from([(0, Mask::Email), (1, Mask::Null)]));
    assert_eq!(by_table(&columns, &masks).len(), 2);
}

#[test]
fn a_rule_that_cannot_be_carried_out_is_an_error() {
    let mut columns = [
        column("users", "email", Family::Text),
        column("users", "id", Family::Integer(8)),
        column("users", "born", Family::Date),
        column("orders", "user_id", Family::Integer(8)),
    ];
    let said = |columns: &[Column], rules: &[(&str, Mask)], references: &[(usize, usize)]| {
        assign(&parsed(rules), columns, references).expect_err("refused").join("\n")
    };
    assert!(said(&columns, &[("db.users.mail", Mask::Email)], &[]).contains("the table has email, id"));
    assert!(said(&columns, &[("db.user.mail", Mask::Email)], &[]).contains("no such table"));
    assert!(said(&columns, &[("db.users.id", Mask::Email)], &[]).contains("holds no texts"));
    assert!(said(&columns, &[("db.users.born", Mask::Hash)], &[]).contains("has no digest"));
    assert!(said(&columns, &[("db.users.id", Mask::Hash)], &[(3, 1)]).contains("both need the same mask"));
    let both = [("db.users.id", Mask::Hash), ("db.orders.user_id", Mask::Hash)];
    assert!(assign(&parsed(&both), &columns, &[(3, 1)]).is_ok());
    columns[0].required = true;
    assert!(said(&columns, &[("db.users.email", Mask::Null)], &[]).contains("must have a value"));
    columns[0].limit = Some(20);
    assert!(said(&columns, &[("db.users.email", Mask::Email)], &[]).contains("at least 23 characters"));
    columns[0].computed = true;
    assert!(said(&columns, &[("db.users.email", Mask::Hash)], &[]).contains("computes"));
}

#[test]
fn names_with_dots_and_quotes_can_be_written() {
    let odd = Column { table: "a.b\"c".into(), ..column("x", "email", Family::Text) };
    let text = format!("db.{}", odd.path());
    assert_eq!(text, "db.shop.public.\"a.b\"\"c\".email");
    assert_eq!(assign(&parsed(&[(&text, Mask::Email)]), &[odd], &[]).expect("fits").len(), 1);
    for bad in ["db", "db.x", "db..x", "db.\"x.y", "a.b.c.d.e.f", "../x.y.z"] {
        assert!(rules(&BTreeMap::from([(bad.to_owned(), Mask::Null)])).is_err(), "{bad}");
    }
}
