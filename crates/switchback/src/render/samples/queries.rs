//! Invented statistics of statements.

use switchback_core::queries::{Form, Queries, Query, Scheme, Use};

fn query(text: &str, old: Option<Use>, new: Option<Use>) -> Query {
    let form = Form { database: "ledger".to_owned(), text: text.to_owned() };
    Query { form, old, new, old_plan: None, new_plan: None }
}

fn usage(calls: u64, total_us: u64, pages: u64) -> Option<Use> {
    Some(Use { calls, total_us, rows: calls * 12, pages })
}

/// A statement whose plan changed, one that is asked for each row now, one that is new, and one that is gone.
pub fn queries() -> Queries {
    let scheme = |cost: f64, nodes: &[&str]| {
        Some(Scheme { cost, nodes: nodes.iter().map(|n| (*n).to_owned()).collect() })
    };
    let by_day = "select * from entry where day = $1 order by id limit $2";
    Queries {
        old: Use { calls: 612, total_us: 418_000, rows: 7_344, pages: 9_120 },
        new: Use { calls: 2_904, total_us: 1_966_000, rows: 8_110, pages: 141_300 },
        heaviest: vec![
            Query {
                old_plan: scheme(24.6, &["Limit", "  Sort", "    Index Scan using entry_day on entry"]),
                new_plan: scheme(9_310.0, &["Limit", "  Sort", "    Seq Scan on entry"]),
                ..query(by_day, usage(120, 96_000, 2_400), usage(120, 1_320_000, 126_000))
            },
            query(
                "select name from account where id = $1",
                usage(40, 11_000, 160),
                usage(2_280, 402_000, 9_120),
            ),
            query("insert into account_note (account, note) values ($1, $2)", None, usage(24, 14_000, 96)),
            query("select count(*) from entry", usage(6, 61_000, 5_000), None),
        ],
        left_out: 31,
        notes: Vec::new(),
    }
}
