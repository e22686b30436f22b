use super::{Base, Bases, Begin, Kept, NoWay, Stretch, segment_name, useless, way, windows};
use crate::ids::{GenerationId, StoreName};
use std::collections::BTreeSet;

const SIZE: u64 = 16 << 20;

fn db() -> StoreName {
    StoreName::new("db").expect("a name")
}

fn stores() -> BTreeSet<StoreName> {
    BTreeSet::from([db()])
}

fn kept(generation: u32, parent: Option<u32>, (first, last): (u64, u64), (from, until): (i64, i64)) -> Kept {
    Kept {
        snapshot: format!("g{generation}-{first}"),
        stack: "s".to_owned(),
        stretch: Stretch {
            store: db(),
            chain: "c".to_owned(),
            generation: GenerationId(generation),
            parent: parent.map(GenerationId),
            born_ms: if generation == 1 { 0 } else { 250 },
            timeline: 1,
            size: SIZE,
            first,
            last,
            from_ms: from,
            until_ms: until,
        },
    }
}

fn bases(generation: u32, redo: u64) -> Bases {
    Bases::from([(db(), Base { chain: "c".to_owned(), generation: GenerationId(generation), redo })])
}

fn names(way: &super::Way) -> Vec<(String, String)> {
    let pieces = way.pieces.get(&db()).expect("pieces");
    pieces.iter().flat_map(|p| p.names.iter().map(|n| (p.snapshot.clone(), n[16..].to_owned()))).collect()
}

#[test]
fn segments_are_named_as_the_server_names_them() {
    assert_eq!(segment_name(1, 1, SIZE), "000000010000000000000001");
    assert_eq!(segment_name(3, 256 + 255, SIZE), "0000000300000001000000FF");
    assert_eq!(segment_name(1, 4, 1 << 30), "000000010000000100000000");
}

/// Generation 1 until 250, then 2 (a clone of it) until 400, then 1 again.
fn promoted_and_rolled_back() -> Vec<Kept> {
    vec![
        kept(1, None, (3, 4), (100, 200)),
        kept(2, Some(1), (5, 7), (200, 390)),
        kept(1, None, (5, 6), (400, 600)),
    ]
}

#[test]
fn the_way_follows_the_generation_that_was_production() {
    let (all, first) = (promoted_and_rolled_back(), bases(1, 3));
    let begins = [Begin { snapshot: "base", at_ms: 120, bases: &first }];
    let found = |at| way(&stores(), &begins, &all, at);
    let of = |snapshot: &str, n: &str| (snapshot.to_owned(), n.to_owned());
    let before = names(&found(150).expect("covered"));
    assert_eq!(before, [of("g1-3", "00000003"), of("g1-3", "00000004")]);
    let promoted = names(&found(300).expect("covered"));
    assert_eq!(promoted[1..3], [of("g1-3", "00000004"), of("g2-5", "00000005")]);
    assert_eq!(promoted.len(), 5);
    let back = names(&found(500).expect("covered"));
    assert_eq!(back[1..3], [of("g1-3", "00000004"), of("g1-5", "00000005")]);
    // What the generation that was left wrote last was not archived.
    assert_eq!(found(395), Err(NoWay::NotArchived(db())));
    assert_eq!(found(110), Err(NoWay::NoBase(db())));
    assert_eq!(windows(&stores(), &begins, &all), [(120, 390), (400, 600)]);
}

#[test]
fn a_backup_of_the_older_generation_counts_for_the_newer_one_only_from_before_it_was_made() {
    let all = promoted_and_rolled_back();
    let (first, late) = (bases(1, 3), bases(1, 6));
    let begins = [
        Begin { snapshot: "base", at_ms: 120, bases: &first },
        Begin { snapshot: "late", at_ms: 450, bases: &late },
    ];
    let at = |at| way(&stores(), &begins, &all, at).expect("covered").base;
    assert_eq!((at(300), at(440), at(450)), ("base".to_owned(), "base".to_owned(), "late".to_owned()));
    // Generation 2 again, after 1 was backed up: that backup is of another history.
    let mut again = all.clone();
    again.push(kept(2, Some(1), (8, 9), (700, 800)));
    assert_eq!(way(&stores(), &begins, &again, 750).expect("covered").base, "base");
}

#[test]
fn a_missing_segment_is_named() {
    let mut all = promoted_and_rolled_back();
    all.push(kept(1, None, (8, 8), (600, 700)));
    let first = bases(1, 3);
    let begins = [Begin { snapshot: "base", at_ms: 120, bases: &first }];
    let error = way(&stores(), &begins, &all, 650).expect_err("a gap");
    assert!(error.to_string().contains("000000010000000000000007"), "{error}");
    assert!(way(&stores(), &begins, &all, 599).is_ok());
    assert_eq!(windows(&stores(), &begins, &all), [(120, 390), (400, 600)]);
}

#[test]
fn another_chain_is_of_no_use() {
    let mut all = promoted_and_rolled_back();
    for one in &mut all {
        one.stretch.chain = "other".to_owned();
    }
    let first = bases(1, 3);
    let begins = [Begin { snapshot: "base", at_ms: 120, bases: &first }];
    assert_eq!(way(&stores(), &begins, &all, 150), Err(NoWay::NoBase(db())));
}

#[test]
fn what_no_kept_backup_needs_may_go() {
    let day = super::DAY_MS;
    let all = [
        kept(1, None, (3, 4), (0, day)),
        kept(1, None, (5, 6), (day, 2 * day)),
        kept(1, None, (7, 8), (2 * day, 3 * day)),
    ];
    let (first, second) = (bases(1, 3), bases(1, 6));
    let both = [
        Begin { snapshot: "a", at_ms: 10, bases: &first },
        Begin { snapshot: "b", at_ms: 2 * day - 10, bases: &second },
    ];
    let now = 3 * day;
    assert_eq!(useless(&both, &all, now, None), [""; 0]);
    assert_eq!(useless(&both[1..], &all, now, None), ["g1-3"]);
    // The last day and a half are kept: the way to its beginning starts at the first backup.
    assert_eq!(useless(&both, &all, now, Some(3 * day / 2)), [""; 0]);
    assert_eq!(useless(&both, &all, now, Some(day / 2)), ["g1-3"]);
    // Without a backup a chain is kept for a day: one may be being made.
    assert_eq!(useless(&[], &all, now + 1, None), ["g1-3", "g1-5"]);
}

#[test]
fn stretches_of_an_hour_become_one() {
    let (a, b) = (kept(1, None, (3, 4), (100, 200)).stretch, kept(1, None, (5, 5), (200, 300)).stretch);
    assert!(a.goes_on(&b) && !b.goes_on(&a));
    assert_eq!((a.with(&b).last, a.with(&b).until_ms), (5, 300));
    let late = Stretch { from_ms: 200, until_ms: 3_600_001, ..b };
    assert!(!a.goes_on(&late));
}
