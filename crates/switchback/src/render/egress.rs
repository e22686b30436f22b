//! "What staging would have sent", as lines and words for every format.

use super::words::{count, one_line, shorten};
use switchback_core::egress::{Egress, Fate, Kind, Line};
use switchback_core::report::Report;

/// Lines that are shown; the JSON form has all of them.
pub const MOST_LINES: usize = 100;

/// The lines of all environments, what left first, then mails, then the rest.
pub fn lines(report: &Report) -> Vec<&Line> {
    let mut all: Vec<&Line> = report.egress.iter().flat_map(|e| &e.lines).collect();
    all.sort_by_key(|l| (l.outcome != Fate::Allowed, l.kind != Kind::Smtp, l.kind == Kind::Dns));
    all
}

/// Why an environment was not observed, and what was left out, one line each.
pub fn gaps(report: &Report) -> Vec<String> {
    let gap = |e: &Egress| {
        let why = e.not_observed.as_ref().map(|w| format!("{}: not observed: {w}", e.environment));
        let dropped = (e.dropped > 0).then(|| {
            format!("{}: {} more were seen and not written down", e.environment, count(e.dropped, "attempt"))
        });
        why.into_iter().chain(dropped)
    };
    let mut all: Vec<String> = report.egress.iter().flat_map(gap).collect();
    all.dedup();
    all
}

/// Whether anything was observed at all.
pub fn observed(report: &Report) -> bool {
    report.egress.iter().any(|e| e.not_observed.is_none())
}

/// What it came to, in a sentence.
pub fn sentence(report: &Report) -> String {
    let all = lines(report);
    if all.is_empty() {
        return if observed(report) { "nothing".to_owned() } else { "not observed".to_owned() };
    }
    let sum = |of: &dyn Fn(&Line) -> bool| all.iter().filter(|l| of(l)).map(|l| l.count).sum::<u64>();
    let mut parts = Vec::new();
    for (kinds, word) in [
        (&[Kind::Smtp][..], "mail"),
        (&[Kind::Http, Kind::Https][..], "request"),
        (&[Kind::Tcp, Kind::Udp][..], "other connection"),
        (&[Kind::Dns][..], "name only asked for"),
    ] {
        let n = sum(&|l| kinds.contains(&l.kind));
        if n > 0 {
            parts.push(if word.starts_with("name") { format!("{n} {word}") } else { count(n, word) });
        }
    }
    let left = sum(&|l| l.outcome == Fate::Allowed && l.kind != Kind::Dns);
    let end =
        if left == 0 { "none left".to_owned() } else { format!("{left} let out by staging.egress.allow") };
    format!("{}; {end}", parts.join(", "))
}

/// Where to, in a word.
pub fn destination(line: &Line) -> String {
    let port = if line.kind == Kind::Dns { String::new() } else { format!(":{}", line.port) };
    one_line(&format!("{}{port}", shorten(&line.host, 120)))
}

/// Recipients and examples, in a line.
pub fn details(line: &Line) -> String {
    let list: Vec<&str> = line.recipients.iter().chain(&line.examples).map(String::as_str).collect();
    one_line(&shorten(&list.join(", "), 300))
}
