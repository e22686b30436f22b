//! Example rows, field by field, with the differing text marked.

use super::parts;
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use serde_json::{Map, Value};
use switchback_core::data::{PartDiff, RowChange, RowOp};

/// Longer values are cut; the difference stays in sight.
const MOST_CHARS: usize = 240;

/// The example rows of one table.
pub fn examples(part: &PartDiff) -> Markup {
    html! {
        div.examples {
            // What was lost matters most.
            @for op in [RowOp::Delete, RowOp::Update, RowOp::Insert] {
                @for change in part.examples.iter().filter(|c| c.op == op).take(5) { (example(change)) }
            }
        }
    }
}

fn example(change: &RowChange) -> Markup {
    let (word, tone) = match change.op {
        RowOp::Insert => ("added", Tone::Good),
        RowOp::Update => ("changed", Tone::Warn),
        RowOp::Delete => ("removed", Tone::Bad),
    };
    let empty = Map::new();
    let before = change.before.as_ref().unwrap_or(&empty);
    let after = change.row.as_ref().unwrap_or(&empty);
    let fields: Vec<&String> =
        before.keys().chain(after.keys().filter(|k| !before.contains_key(*k))).collect();
    let differs = |field: &&String| before.get(*field) != after.get(*field);
    let same = match change.op {
        RowOp::Update => fields.iter().filter(|f| !differs(f) && !change.key.contains_key(**f)).count(),
        RowOp::Insert | RowOp::Delete => 0,
    };
    html! {
        div.row-change.(parts::class(tone)) {
            p.key {
                (parts::chip(tone, word))
                @for (name, value) in &change.key { " " code { (words::shorten(name, 60)) " = " (plain(value)) } }
            }
            table {
                @if change.op == RowOp::Update {
                    thead { tr { th { "Field" } th { "Before" } th { "After" } } }
                }
                tbody {
                    @for field in fields.iter().filter(|f| change.op != RowOp::Update || differs(f)).take(40) {
                        tr {
                            th scope="row" { (words::shorten(field, 80)) }
                            @if change.op == RowOp::Update {
                                @let (old, new) = marked(before.get(*field), after.get(*field));
                                td.old { (old) } td.new { (new) }
                            } @else if change.op == RowOp::Delete {
                                td.old { (whole(before.get(*field))) }
                            } @else {
                                td.new { (whole(after.get(*field))) }
                            }
                        }
                    }
                }
            }
            @if same > 0 { p.hint { (words::count(same as u64, "other field")) " as before" } }
        }
    }
}

/// A value as text: strings without quotes, blobs by their size.
fn plain(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.len() == 1 => match map.get("$blob").and_then(Value::as_str) {
            Some(base64) => {
                format!("blob of about {} bytes: {base64}", base64.trim_end_matches('=').len() * 3 / 4)
            }
            None => value.to_string(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    words::shorten(&text, MOST_CHARS).into_owned()
}

fn whole(value: Option<&Value>) -> Markup {
    match value {
        None => html! { em { "no such column" } },
        Some(Value::Null) => html! { em { "NULL" } },
        Some(Value::String(text)) if text.is_empty() => html! { em { "empty" } },
        Some(value) => html! { (plain(value)) },
    }
}

/// Both texts, with what differs between their common beginning and end marked.
fn marked(old: Option<&Value>, new: Option<&Value>) -> (Markup, Markup) {
    let mark = |value: Option<&Value>| match value {
        // A column that is not there is no value that changed.
        None => whole(None),
        Some(_) => html! { mark { (whole(value)) } },
    };
    let (Some(Value::String(a)), Some(Value::String(b))) = (old, new) else {
        return (mark(old), mark(new));
    };
    if a.is_empty() || b.is_empty() {
        return (mark(old), mark(new));
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let show = |text: &[char]| {
        let cut = |chars: &[char]| -> String { chars.iter().collect() };
        let (front, middle, end) =
            (&text[..head], &text[head..text.len() - tail], &text[text.len() - tail..]);
        let lead =
            if front.len() > 60 { format!("…{}", cut(&front[front.len() - 60..])) } else { cut(front) };
        html! {
            (lead)
            @if middle.is_empty() { mark.nothing title="nothing here" { "‸" } }
            @else { mark { (words::shorten(&cut(middle), MOST_CHARS)) } }
            (words::shorten(&cut(end), 60))
        }
    };
    (show(&a), show(&b))
}
