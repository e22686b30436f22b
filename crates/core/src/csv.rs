//! Tables of comma-separated values, after RFC 4180.
//!
//! Owns quoting, and what keeps a spreadsheet from taking a text for a formula.

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A text that anybody may have written.
    Text(String),
    /// A whole number.
    Whole(u64),
    /// A share of a whole.
    Share(f64),
    /// No value: an empty field.
    Nothing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl<T> From<Option<T>> for Cell
where
    T: Into<Self>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A header and rows, as the text of a file: fields are quoted where they must be, lines end with CR and LF.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [Cell; N]>) -> String {
    let mut text = line(&header.map(Cell::from));
    for row in rows {
        text.push_str(&line(&row));
    }
    text
}

fn line(cells: &[Cell]) -> String {
    let fields: Vec<String> = cells.iter().map(field).collect();
    format!("{}\r\n", fields.join(","))
}

fn field(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => quoted(&harmless(text)),
        Cell::Whole(number) => number.to_string(),
        Cell::Share(share) => format!("{share:.4}"),
        Cell::Nothing => String::new(),
    }
}

/// Spreadsheets take what begins with one of these for a formula, which may start programs and send data away; an apostrophe before
/// it makes it a text (OWASP, "CSV Injection"). The wide forms count as the narrow ones where East Asian text is typed. A table is
/// also looked at in terminals: they must not obey it.
fn harmless(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let shown =
        text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c });
    formula.then_some('\'').into_iter().chain(shown).collect()
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be_and_lines_end_as_the_rfc_says() {
        let rows = [
            ["a, b".into(), Cell::Whole(7), Cell::Nothing],
            ["say \"no\"".into(), Cell::Share(0.5), "two\nlines".into()],
            ["plain".into(), None::<u64>.into(), Some(3_usize).into()],
        ];
        assert_eq!(
            table(["text", "n", "x"], rows),
            "text,n,x\r\n\"a, b\",7,\r\n\"say \"\"no\"\"\",0.5000,\"two\nlines\"\r\nplain,,3\r\n"
        );
    }

    #[test]
    fn no_text_is_a_formula() {
        for text in
            ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "=cmd|' /C calc'!A0, \"x\""]
        {
            let field = field(&text.into());
            assert!(field.starts_with('\'') || field.starts_with("\"'"), "{field}");
        }
        assert_eq!(field(&"app 1 -> 2".into()), "app 1 -> 2");
        assert_eq!(field(&"2-1=1".into()), "2-1=1");
        assert_eq!(field(&"\u{1b}[2Jgone\r".into()), "\u{fffd}[2Jgone\u{fffd}");
    }
}
