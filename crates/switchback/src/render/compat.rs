//! Which versions fit together, for people.

use std::fmt::Write as _;
use switchback_core::compat::{Cell, Compat, Fits};
use switchback_core::duration::human_ms;

/// The longest reason that is shown on a line.
const LONGEST: usize = 160;

fn word(fits: Fits) -> &'static str {
    match fits {
        Fits::RunsNow => "· runs now",
        Fits::Fits => "✓ fits",
        Fits::Refused => "✗ does not fit",
        Fits::CannotBeSaid => "? cannot be said",
        Fits::Failed => "✗ failed",
        Fits::NotTried => "– not tried",
    }
}

fn short(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    let cut: String = line.chars().take(LONGEST).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

fn name(compat: &Compat, cell: &Cell) -> String {
    let told = compat.axes.iter().map(|s| format!("{s} {}", cell.versions.get(s).map_or("", String::as_str)));
    told.collect::<Vec<_>>().join(", ")
}

/// The first line that says what speaks against a combination, and where to read on.
fn why(cell: &Cell) -> Option<String> {
    let first = cell.why.first().map(|w| short(w))?;
    let more = cell.why.len() - 1;
    let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    Some(format!("{first}{rest}"))
}

/// Rows of cells, with a head: a table for two services, a list for any other number.
fn table(compat: &Compat) -> Vec<Vec<String>> {
    if let [down, across] = compat.axes.as_slice() {
        let versions = |of| {
            let mut seen: Vec<&String> = Vec::new();
            for version in compat.cells.iter().filter_map(|c| c.versions.get(of)) {
                if !seen.contains(&version) {
                    seen.push(version);
                }
            }
            seen
        };
        let columns = versions(across);
        let mut rows = vec![vec![String::new()]];
        rows[0].extend(columns.iter().map(|v| format!("{across} {v}")));
        for row in versions(down) {
            let mut line = vec![format!("{down} {row}")];
            for column in &columns {
                let here =
                    |c: &&Cell| c.versions.get(down) == Some(row) && c.versions.get(across) == Some(column);
                line.push(compat.cells.iter().find(here).map_or("", |c| word(c.fits)).to_owned());
            }
            rows.push(line);
        }
        return rows;
    }
    let list = compat.cells.iter().map(|c| vec![name(compat, c), word(c.fits).to_owned()]);
    [vec!["versions".to_owned(), String::new()]].into_iter().chain(list).collect()
}

/// For a terminal.
pub fn terminal(compat: &Compat) -> String {
    let rows = table(compat);
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let mut text = String::from("\n");
    for row in &rows {
        let mut line = String::from(" ");
        for (number, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width(number) - cell.chars().count());
            let _ = write!(line, " {cell}{pad} ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for cell in &compat.cells {
        if let Some(why) = why(cell) {
            let _ = write!(text, "\n  {}: {why}", name(compat, cell));
            if let Some(run) = &cell.run {
                let _ = write!(text, "\n    switchback report {run}");
            }
            text.push('\n');
        }
    }
    text
}

/// As Markdown.
pub fn markdown(compat: &Compat) -> String {
    let safe = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ");
    let mut text = format!("# Versions of {} that fit together\n\n", safe(&compat.stack));
    for (number, row) in table(compat).iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|c| safe(c)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    for cell in &compat.cells {
        let took = cell.took_ms.map_or_else(String::new, |ms| format!(" ({})", human_ms(ms)));
        if let Some(why) = why(cell) {
            let _ = writeln!(text, "\n**{}**{took}: {}", safe(&name(compat, cell)), safe(&why));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use switchback_core::compat::{SCHEMA, combinations};
    use switchback_core::ids::ServiceName;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).expect("a name")
    }

    fn sample(axes: &[(&str, &[&str])]) -> Compat {
        let axes: Vec<(ServiceName, Vec<String>)> =
            axes.iter().map(|(s, v)| (service(s), v.iter().map(|v| (*v).to_owned()).collect())).collect();
        let cells = combinations(&axes).into_iter().map(|c| Cell::untried(c, &BTreeMap::new()));
        Compat {
            schema: SCHEMA.to_owned(),
            stack: "shop".to_owned(),
            at_ms: 0,
            axes: axes.into_iter().map(|(s, _)| s).collect(),
            cells: cells.collect(),
        }
    }

    #[test]
    fn two_services_make_a_table_and_reasons_are_below_it() {
        let mut compat = sample(&[("app", &["1", "2"]), ("db", &["15", "17"])]);
        compat.cells[0].fits = Fits::RunsNow;
        compat.cells[3].fits = Fits::Refused;
        compat.cells[3].run = Some("01RUN".to_owned());
        compat.cells[3].why = vec!["workflow orders: step 2 | fails".to_owned(), "other".to_owned()];
        let text = terminal(&compat);
        assert!(text.contains("         db 15        db 17"), "{text}");
        assert!(
            text.contains("  app 1  · runs now   – not tried\n  app 2  – not tried  ✗ does not fit\n"),
            "{text}"
        );
        assert!(text.contains("app 2, db 17: workflow orders: step 2 | fails (and 1 more)"), "{text}");
        assert!(text.contains("switchback report 01RUN"), "{text}");
        let table = markdown(&compat);
        assert!(
            table.contains("| app 2 | – not tried | ✗ does not fit |") && table.contains("2 \\| fails"),
            "{table}"
        );
    }

    #[test]
    fn other_numbers_of_services_make_a_list() {
        let text = terminal(&sample(&[("app", &["1", "2", "3"])]));
        assert!(text.contains("  app 3     – not tried"), "{text}");
    }
}
