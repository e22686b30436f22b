//! The numbers of a history, and how they went, for the terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use switchback_core::analytics::{Analytics, CheckCount, Spread, Trends, Width};
use switchback_core::duration::human_ms;

/// What is not known.
const NOTHING: &str = "–";
/// Checks that are named.
const NAMED: usize = 8;

/// The numbers of a time, one a line.
pub fn totals(found: &Analytics) -> String {
    let moment = |ms: Option<i64>| ms.map_or_else(|| NOTHING.to_owned(), day);
    let mut lines =
        vec![format!("{} runs, {} to {} (UTC)", found.runs, moment(found.from_ms), moment(found.to_ms))];
    let mut say = |name: &str, value: String| lines.push(format!("  {name:<22} {value}"));
    say("upgrades rehearsed", found.rehearsed.to_string());
    say("  refused", format!("{} bad upgrades that did not reach production", found.refused));
    say("  could not be judged", found.inconclusive.to_string());
    say("promoted", found.promoted.to_string());
    say("  rolled back", found.failed.to_string());
    say("  of these by itself", found.rolled_back.to_string());
    say("undone before", found.undone.to_string());
    say("rollbacks by command", found.rollbacks.to_string());
    say("change failure rate", rate(found.change_failure_rate));
    for (name, spread) in [
        ("time to restore", found.restore),
        ("rollback time", found.rollback),
        ("downtime of rollbacks", found.rollback_downtime),
        ("downtime of promotions", found.downtime),
    ] {
        let value = match spread.count {
            0 => NOTHING.to_owned(),
            count => format!(
                "{} in the middle, {} at most ({count})",
                human_ms(spread.median_ms),
                human_ms(spread.longest_ms)
            ),
        };
        say(name, value);
    }
    say("prevented by", named(&found.prevented_by));
    say("flaky checks", named(&found.flaky));
    lines.push(String::new());
    lines.join("\n")
}

/// The numbers of a time, and those of each of its days or weeks.
pub fn text(trends: &Trends) -> String {
    if trends.buckets.is_empty() {
        return "No runs in this time.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        heading(trends.width),
        "tried",
        "refused",
        "promoted",
        "rolled back",
        "failure rate",
        "downtime",
        "rollback time",
        "time to restore",
    ]);
    for bucket in &trends.buckets {
        table.add_row([
            day(bucket.period.from_ms),
            count(bucket.rehearsed),
            count(bucket.refused),
            count(bucket.promoted),
            count(bucket.failed),
            rate(bucket.change_failure_rate),
            spread(bucket.downtime),
            spread(bucket.rollback),
            spread(bucket.restore),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n{table}\n", totals(&trends.total))
}

/// The name of the column of days or weeks.
pub fn heading(width: Width) -> &'static str {
    match width {
        Width::Day => "day (UTC)",
        Width::Week => "week from",
    }
}

/// The date of a moment, UTC.
pub fn day(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| NOTHING.to_owned(), |t| t.strftime("%Y-%m-%d").to_string())
}

/// A share in percent.
pub fn rate(share: Option<f64>) -> String {
    share.map_or_else(|| NOTHING.to_owned(), |r| format!("{:.0} %", r * 100.0))
}

/// A number; nothing stands out less than a zero.
pub fn count(n: usize) -> String {
    if n == 0 { NOTHING.to_owned() } else { n.to_string() }
}

/// The middle, and the longest where there are several.
pub fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => NOTHING.to_owned(),
        Some(one) if one.count == 1 => human_ms(one.median_ms),
        Some(all) => format!("{} (≤ {})", human_ms(all.median_ms), human_ms(all.longest_ms)),
    }
}

fn named(all: &[CheckCount]) -> String {
    let words: Vec<String> = all.iter().take(NAMED).map(|c| format!("{} ({})", c.check, c.count)).collect();
    if words.is_empty() { NOTHING.to_owned() } else { words.join(", ") }
}
