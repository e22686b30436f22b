use super::words::locked_by_text;
use super::*;

const MS: i64 = 1000;

fn table(name: &str, before: Option<(u64, u64)>, after: Option<(u64, u64)>) -> RawTable {
    RawTable { database: "app".into(), name: name.into(), was: None, before, after, rows: (0, 0, 0) }
}

fn line(tag: &str, text: &str, began_ms: i64, took_ms: i64, transaction: &str) -> LogLine {
    LogLine {
        database: "app".into(),
        pid: 7,
        ended_us: (began_ms + took_ms) * MS,
        took_us: u64::try_from(took_ms * MS).expect("not negative"),
        tag: tag.into(),
        transaction: transaction.into(),
        text: text.into(),
    }
}

fn event(tag: &str, began_ms: i64, took_ms: i64, locks: &[(Lock, &str)]) -> DdlEvent {
    DdlEvent {
        database: "app".into(),
        pid: 7,
        began_us: began_ms * MS,
        ended_us: (began_ms + took_ms) * MS,
        tag: tag.into(),
        text: tag.into(),
        locks: locks.iter().map(|(l, t)| (*l, (*t).to_owned())).collect(),
        ..DdlEvent::default()
    }
}

#[test]
fn a_lock_is_held_to_the_end_of_its_transaction() {
    let raw = Raw {
        timed: true,
        tables: vec![
            table("public.orders", Some((1, 8192)), Some((1, 8192))),
            table("public.note", Some((2, 0)), Some((9, 0))),
        ],
        events: vec![
            event("ALTER TABLE", 100, 5, &[(Lock::AccessExclusive, "public.orders")]),
            event(
                "CREATE INDEX",
                400,
                50,
                &[(Lock::AccessExclusive, "public.orders"), (Lock::Share, "public.note")],
            ),
        ],
        lines: vec![
            line("BEGIN", "", 99, 0, "3/5"),
            line("ALTER TABLE", "alter table orders add c int", 100, 5, "3/5"),
            line("UPDATE", "update orders set c = 17", 105, 200, "3/5"),
            line("CREATE INDEX", "create index on note (id)", 400, 50, "3/5"),
            line("SELECT", "", 450, 100, "3/5"),
            line("COMMIT", "", 600, 3, ""),
            line("SELECT", "", 5000, 1, ""),
        ],
        ..Raw::default()
    };
    let trace = assemble(raw);
    let tags: Vec<_> =
        trace.statements.iter().map(|s| (s.tag.as_str(), s.at_us / 1000, s.held_us / 1000)).collect();
    assert_eq!(tags, [("ALTER TABLE", 0, 503), ("UPDATE", 5, 498), ("CREATE INDEX", 300, 203)]);
    let blocked: Vec<_> = trace
        .tables
        .iter()
        .map(|t| {
            (t.name.as_str(), t.lock, t.reads_blocked_us / 1000, t.writes_blocked_us / 1000, t.rewritten)
        })
        .collect();
    assert_eq!(
        blocked,
        [
            ("app.public.note", Some(Lock::Share), 0, 203, true),
            ("app.public.orders", Some(Lock::AccessExclusive), 503, 503, false),
        ]
    );
    assert_eq!(trace.statements[1].text, "update orders set c = ?");
    assert_eq!(trace.blocked_us(), (503_000, 503_000));
}

#[test]
fn without_a_commit_a_transaction_ends_with_its_last_statement() {
    // The extended protocol commits at the next `Sync`, which is not logged: the session was idle afterwards, not locking.
    let raw = Raw {
        timed: true,
        tables: vec![table("public.orders", Some((1, 0)), Some((1, 0)))],
        events: vec![event("ALTER TABLE", 100, 5, &[(Lock::AccessExclusive, "public.orders")])],
        lines: vec![
            line("ALTER TABLE", "alter table orders add c int", 100, 5, "3/5"),
            line("SELECT", "", 90_000, 1, "3/6"),
        ],
        ..Raw::default()
    };
    assert_eq!(assemble(raw).tables[0].reads_blocked_us, 5_000);
}

#[test]
fn nobody_waits_for_a_table_that_was_not_there() {
    let raw = Raw {
        tables: vec![table("public.new", None, Some((4, 8192)))],
        events: vec![event("CREATE TABLE", 100, 5, &[(Lock::AccessExclusive, "public.new")])],
        ..Raw::default()
    };
    let trace = assemble(raw);
    assert_eq!(trace.statements[0].lock, None);
    assert_eq!((trace.tables[0].existence, trace.tables[0].lock), (Existence::New, None));
    assert_eq!(trace.tables[0].reads_blocked_us, 0);
    assert!(!trace.timed);
}

#[test]
fn a_removed_table_was_locked_although_the_catalogue_no_longer_knows_it() {
    let mut drop = event("DROP TABLE", 10, 2, &[]);
    drop.dropped = vec![
        Dropped { kind: "table".into(), name: "public.old".into(), original: true },
        Dropped { kind: "index".into(), name: "public.old_pkey".into(), original: false },
    ];
    let raw =
        Raw { tables: vec![table("public.old", Some((4, 100)), None)], events: vec![drop], ..Raw::default() };
    let trace = assemble(raw);
    let statement = &trace.statements[0];
    assert_eq!(statement.lock, Some(Lock::AccessExclusive));
    assert_eq!(statement.locked, ["app.public.old"]);
    assert_eq!(statement.dropped, ["table public.old"]);
    assert_eq!(statement.effect, Effect::Destroys);
    assert_eq!(trace.tables[0].existence, Existence::Gone);
}

#[test]
fn statements_of_one_form_are_counted_together() {
    let lines = (0..5_000)
        .map(|i| line("INSERT", &format!("insert into t values ({i}, 'n{i}')"), i, 1, ""))
        .collect();
    let trace = assemble(Raw { lines, timed: true, ..Raw::default() });
    assert_eq!(trace.statements.len(), 1);
    assert_eq!(trace.statements[0].text, "insert into t values (?, ?)");
    assert_eq!((trace.statements[0].calls, trace.statements[0].took_us), (5_000, 5_000_000));
}

#[test]
fn of_too_many_statements_the_longest_and_the_definitions_are_kept() {
    let mut lines: Vec<_> = (0..1_000)
        .map(|i| line("UPDATE", &format!("update t{i} set a = 1"), i * 10, if i == 500 { 9 } else { 1 }, ""))
        .collect();
    lines.push(line("ALTER TABLE", "alter table x add y int", 20_000, 0, ""));
    let mut alter = event("ALTER TABLE", 20_000, 0, &[]);
    alter.objects = vec!["table public.x".into()];
    let trace = assemble(Raw { lines, events: vec![alter], timed: true, ..Raw::default() });
    assert_eq!(trace.statements.len(), MOST_STATEMENTS);
    assert_eq!(trace.left_out, 1_001 - MOST_STATEMENTS as u64);
    assert!(trace.statements.iter().any(|s| s.tag == "ALTER TABLE"));
    assert!(trace.statements.iter().any(|s| s.text == "update t500 set a = ?"));
}

#[test]
fn values_never_get_into_a_report() {
    let cases = [
        (
            "UPDATE",
            "update t set a='it''s', b=E'a\\'b', c=1.5e3 -- x\nwhere d = $1",
            "update t set a=?, b=?, c=? where d = $1",
        ),
        (
            "INSERT",
            "insert into t1 values (U&'d\\0061', B'1', \"Col\")",
            "insert into t1 values (?, ?, \"Col\")",
        ),
        ("DO", "do $$ begin perform f('x'); end $$;", "do $$ begin perform f(?); end $$"),
        (
            "CREATE TABLE",
            "create table t (a text default 'new', b varchar(20))",
            "create table t (a text default 'new', b varchar(20))",
        ),
        ("ALTER ROLE", "alter role r password 'p'", "alter role r password ?"),
        (
            "ALTER TABLE",
            "alter table t add c int; alter role r password 'p'",
            "alter table t add c int; alter role r password ?",
        ),
        ("CREATE INDEX", "create index /* a /* b */ c */ on t (a)", "create index on t (a)"),
        // Cut off in the middle.
        ("UPDATE", "update t set a = 'sec", "update t set a = ?"),
    ];
    for (tag, text, wanted) in cases {
        assert_eq!(without_values(tag, text), wanted);
    }
    assert!(without_values("UPDATE", &"ä".repeat(5_000)).chars().count() <= 1_001);
}

#[test]
fn locks_are_read_from_texts_where_nothing_else_tells() {
    type Wanted = Option<(Lock, &'static [&'static str])>;
    let cases: [(&str, &str, Wanted); 16] = [
        (
            "TRUNCATE TABLE",
            "truncate table only a.b, \"C d\" cascade",
            Some((Lock::AccessExclusive, &["a.b", "C d"])),
        ),
        ("TRUNCATE TABLE", "TRUNCATE t", Some((Lock::AccessExclusive, &["t"]))),
        (
            "LOCK TABLE",
            "lock table a, b in share row exclusive mode nowait",
            Some((Lock::ShareRowExclusive, &["a", "b"])),
        ),
        ("LOCK TABLE", "LOCK a", Some((Lock::AccessExclusive, &["a"]))),
        ("VACUUM", "vacuum (full, analyze) a (x), b", Some((Lock::AccessExclusive, &["a", "b"]))),
        ("VACUUM", "vacuum full verbose a", Some((Lock::AccessExclusive, &["a"]))),
        ("VACUUM", "vacuum a", Some((Lock::ShareUpdateExclusive, &["a"]))),
        ("VACUUM", "vacuum", None),
        ("CLUSTER", "cluster a using a_pkey", Some((Lock::AccessExclusive, &["a"]))),
        ("REINDEX", "reindex table concurrently a", Some((Lock::ShareUpdateExclusive, &["a"]))),
        ("UPDATE", "with x as (select 1) update only T set a = 1", Some((Lock::RowExclusive, &["t"]))),
        ("DELETE", "delete from a.b using c", Some((Lock::RowExclusive, &["a.b"]))),
        ("COPY", "copy a (x, y) from stdin", Some((Lock::RowExclusive, &["a"]))),
        ("COPY", "copy a (x, y) to stdout", None),
        ("COPY", "copy (select x from a) to stdout", None),
        ("SELECT", "select 1", None),
    ];
    for (tag, text, wanted) in cases {
        let wanted = wanted.map(|(lock, names)| (lock, names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(locked_by_text(tag, text), wanted, "{text}");
    }
}

#[test]
fn what_a_statement_means_for_going_back() {
    let column = [Dropped { kind: "table column".into(), name: "public.t.c".into(), original: true }];
    let index = [Dropped { kind: "index".into(), name: "public.i".into(), original: true }];
    assert_eq!(effect("ALTER TABLE", "alter table t add c int", &[], 0), Effect::Adds);
    assert_eq!(effect("ALTER TABLE", "alter table t drop column c", &column, 0), Effect::Destroys);
    assert_eq!(effect("ALTER TABLE", "alter table t alter c type int", &[], 4), Effect::Destroys);
    assert_eq!(
        effect("ALTER TABLE", "alter table t add c uuid default gen_random_uuid()", &[], 2),
        Effect::Adds
    );
    assert_eq!(effect("ALTER TABLE", "alter table t rename to u", &[], 0), Effect::Redefines);
    assert_eq!(effect("DROP INDEX", "drop index i", &index, 0), Effect::Redefines);
    assert_eq!(effect("CREATE FUNCTION", "create or replace function f()", &[], 0), Effect::Redefines);
    assert_eq!(effect("CREATE INDEX", "create index i on t (a)", &[], 0), Effect::Adds);
    assert_eq!(
        effect("INSERT", "insert into t values (1) on conflict do update set a = 1", &[], 0),
        Effect::Destroys
    );
    assert_eq!(effect("INSERT", "insert into t values (1) on conflict do nothing", &[], 0), Effect::Adds);
    assert_eq!(effect("UPDATE", "update t set a = 1", &[], 0), Effect::Destroys);
}

#[test]
fn locks_have_their_names_and_their_order() {
    assert_eq!(Lock::parse("AccessExclusiveLock"), Some(Lock::AccessExclusive));
    assert_eq!(Lock::parse("share update exclusive"), Some(Lock::ShareUpdateExclusive));
    assert_eq!(Lock::parse("SIReadLock"), None);
    assert!(Lock::Share > Lock::ShareUpdateExclusive && Lock::AccessExclusive > Lock::Exclusive);
    assert!(Lock::Share.blocks_writes() && !Lock::Share.blocks_reads());
    assert!(!Lock::ShareUpdateExclusive.blocks_writes());
}
