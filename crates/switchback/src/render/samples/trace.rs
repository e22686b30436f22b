//! An invented trace of a migration.

use switchback_core::lint::{Lint, LintFinding};
use switchback_core::trace::{
    Effect, Existence, FailedStatement, FileUse, Lock, Statement, TableTrace, Trace,
};

fn statement(at_us: u64, took_us: u64, held_us: u64, tag: &str, text: &str, effect: Effect) -> Statement {
    Statement {
        database: "ledger".to_owned(),
        at_us,
        tag: tag.to_owned(),
        text: text.to_owned(),
        calls: 1,
        took_us,
        held_us,
        lock: None,
        locked: Vec::new(),
        objects: Vec::new(),
        dropped: Vec::new(),
        rewrote: Vec::new(),
        effect,
    }
}

fn table(name: &str, lock: Lock, reads_blocked_us: u64, writes_blocked_us: u64) -> TableTrace {
    TableTrace {
        name: name.to_owned(),
        lock: Some(lock),
        reads_blocked_us,
        writes_blocked_us,
        bytes_before: 41 << 20,
        bytes_after: 41 << 20,
        ..TableTrace::default()
    }
}

/// Locks of several kinds, a rewritten table, a new one, one that is gone, and a statement that failed.
pub fn trace() -> Trace {
    let entries = vec!["ledger.public.entry".to_owned()];
    let alter = "alter table entry alter column amount type numeric(14,2)";
    let insert = "insert into account_note (account, note) values (?, ?)";
    Trace {
        file: None,
        statements: vec![
            Statement {
                lock: Some(Lock::AccessExclusive),
                locked: entries.clone(),
                objects: vec!["table public.entry".to_owned()],
                rewrote: vec!["public.entry".to_owned()],
                ..statement(0, 1_840_000, 1_902_300, "ALTER TABLE", alter, Effect::Destroys)
            },
            Statement {
                lock: Some(Lock::Share),
                locked: entries,
                objects: vec!["index public.entry_day".to_owned()],
                ..statement(
                    1_902_400,
                    410_000,
                    410_800,
                    "CREATE INDEX",
                    "create index entry_day on entry (day)",
                    Effect::Adds,
                )
            },
            Statement { calls: 48, ..statement(2_313_500, 9_600, 400, "INSERT", insert, Effect::Adds) },
            Statement {
                lock: Some(Lock::AccessExclusive),
                locked: vec!["ledger.public.<old & gone>".to_owned()],
                dropped: vec!["table public.<old & gone>".to_owned()],
                ..statement(
                    2_330_000,
                    4_100,
                    4_400,
                    "DROP TABLE",
                    "drop table \"<old & gone>\"",
                    Effect::Destroys,
                )
            },
            statement(
                3_060_000,
                600,
                900,
                "CREATE VIEW",
                "create or replace view balance as select 1",
                Effect::Redefines,
            ),
        ],
        left_out: 0,
        tables: vec![
            TableTrace {
                existence: Existence::Gone,
                bytes_after: 0,
                ..table("ledger.public.<old & gone>", Lock::AccessExclusive, 4_400, 4_400)
            },
            TableTrace {
                rewritten: true,
                bytes_after: 47 << 20,
                ..table("ledger.public.entry", Lock::AccessExclusive, 1_902_300, 2_313_100)
            },
            TableTrace {
                lock: None,
                inserted: 48,
                existence: Existence::New,
                bytes_before: 0,
                bytes_after: 24_576,
                ..table("ledger.public.account_note", Lock::AccessShare, 0, 0)
            },
        ],
        reads: 31,
        reads_us: 12_400,
        errors: vec![FailedStatement {
            database: "ledger".to_owned(),
            sqlstate: "42P07".to_owned(),
            message: "relation \"entry_day\" already exists".to_owned(),
            text: "create index entry_day on entry (day)".to_owned(),
        }],
        span_us: 3_061_000,
        wal_bytes: 61 << 20,
        bytes_before: 118 << 20,
        bytes_after: 124 << 20,
        timed: true,
        notes: Vec::new(),
    }
}

/// Two findings in migration files.
pub fn lint() -> Lint {
    let finding = |line, rule: &str, message: &str, help: Option<&str>| LintFinding {
        file: "migrations/014_day.sql".to_owned(),
        line,
        rule: rule.to_owned(),
        level: "warning".to_owned(),
        message: message.to_owned(),
        help: help.map(str::to_owned),
    };
    Lint {
        tool: "squawk".to_owned(),
        files: 14,
        findings: vec![
            finding(
                3,
                "require-concurrent-index-creation",
                "During normal index creation, table updates are blocked.",
                Some("Use `concurrently` to avoid blocking writes."),
            ),
            finding(9, "ban-drop-table", "Dropping a table may break existing clients.", None),
        ],
        ..Lint::default()
    }
}

/// What can be seen of a SQLite database.
pub fn file() -> Trace {
    let one = |at_us, took_us, tag: &str, text: &str, effect| Statement {
        database: "notes.db".to_owned(),
        ..statement(at_us, took_us, took_us, tag, text, effect)
    };
    Trace {
        statements: vec![
            Statement {
                objects: vec!["table note".to_owned()],
                rewrote: vec!["note".to_owned()],
                ..one(
                    0,
                    214_000,
                    "ALTER TABLE",
                    "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL, tag TEXT)",
                    Effect::Redefines,
                )
            },
            Statement {
                dropped: vec!["table reminder".to_owned()],
                ..one(214_300, 3_100, "DROP TABLE", "drop table reminder", Effect::Destroys)
            },
        ],
        span_us: 217_400,
        bytes_before: 9 << 20,
        bytes_after: 14 << 20,
        file: Some(FileUse {
            transactions: 3,
            writers_blocked_us: 217_100,
            longest_write_us: 214_000,
            readers_blocked_us: 18_200,
            wal: false,
        }),
        ..Trace::default()
    }
}
