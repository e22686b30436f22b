//! Every format on every sample: snapshots, and that no text leaves its place.

use super::{html, junit, markdown, samples, terminal, trends_page};
use std::path::Path;
use switchback_core::analytics::{Period, Trends};

/// Every file is a picture of one pixel.
fn picture(_: &str) -> Option<Vec<u8>> {
    let text =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok()
}

#[test]
fn markdown_is_as_recorded() {
    for (name, report) in samples::all().into_iter().filter(|(name, _)| *name != "hostile") {
        insta::assert_snapshot!(format!("markdown_{name}"), markdown(&report));
    }
}

#[test]
fn junit_is_as_recorded() {
    for (name, report) in samples::all().into_iter().filter(|(name, _)| ["refused", "undone"].contains(name))
    {
        insta::assert_snapshot!(format!("junit_{name}"), junit(&report));
    }
}

#[test]
fn the_terminal_is_as_recorded() {
    for (name, report) in samples::all() {
        insta::assert_snapshot!(format!("terminal_{name}"), terminal(&report, false, 100));
    }
    insta::assert_snapshot!("terminal_color", format!("{:?}", terminal(&samples::refused(), true, 60)));
}

#[test]
fn the_terminal_keeps_its_width_and_its_colours() {
    for (name, report) in samples::all() {
        for width in [40, 80, 200] {
            let text = terminal(&report, false, width);
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{name}");
            let lines: Vec<&str> = text.lines().collect();
            assert!(name == "hostile" || width < 80 || lines.len() <= 40, "{name}: {} lines", lines.len());
            let commands: Vec<_> = report.next.iter().filter_map(|a| a.command.as_ref()).collect();
            for line in lines.iter().filter(|l| commands.is_empty() || !l.starts_with("      ")) {
                let wide = console::measure_text_width(line);
                assert!(
                    wide <= width.clamp(30, 110) || line.contains("switchback report"),
                    "{name}: {line:?}"
                );
            }
            let coloured = terminal(&report, true, width);
            assert_eq!(console::strip_ansi_codes(&coloured), text, "{name}");
        }
    }
}

#[test]
fn junit_can_be_read_and_counts_right() {
    for (name, report) in samples::all() {
        let text = junit(&report);
        let read = quick_junit::Report::deserialize_from_str(&text)
            .unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        let cases: usize = read
            .test_suites
            .iter()
            .filter(|s| !["run", "steps"].contains(&s.name.as_str()))
            .map(|s| s.test_cases.len())
            .sum();
        assert_eq!(cases, report.checks.len(), "{name}");
        assert!(
            !text.contains(
                |c: char| (c.is_control() && c != '\n' && c != '\r' && c != '\t') || c == '\u{ffff}'
            ),
            "{name}"
        );
    }
    let read = quick_junit::Report::deserialize_from_str(&junit(&samples::pass())).expect("valid");
    assert_eq!((read.failures, read.errors), (0, 0), "the old version on new data does not count");
    let read = quick_junit::Report::deserialize_from_str(&junit(&samples::refused())).expect("valid");
    assert!(read.failures >= 3 && read.errors == 1);
}

#[test]
fn markdown_keeps_texts_in_their_place() {
    let text = markdown(&samples::hostile());
    // Code shows tags as they are; everything else must have escaped them.
    let outside: String = text.lines().map(outside_code).collect();
    assert!(outside.contains("&lt;script"));
    assert!(
        !outside.contains("<script") && !outside.contains("<img") && !outside.contains("@everyone"),
        "{outside}"
    );
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'));
    assert!(text.len() < 60_000, "GitHub takes 65,536 characters; {}", text.len());
    for line in text.lines().filter(|l| l.starts_with('|')) {
        let bars = line.replace("\\|", "").matches('|').count();
        assert!((4..=8).contains(&bars), "{line}");
    }
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    for (name, report) in samples::all() {
        check_page(name, &html(&report, &picture));
    }
}

#[test]
fn the_page_of_a_time_shows_each_trend_and_is_whole_too() {
    let mut runs = samples::history();
    let period = Period::since(i64::MIN, samples::trends().period.until_ms, &runs);
    let page = trends_page(&samples::trends());
    check_page("trends", &page);
    for name in
        ["Upgrades", "Change failure rate", "Downtime of promotions", "Rollback time", "Time to restore"]
    {
        assert!(page.contains(&format!("<title>{name} per week</title>")), "{name}");
    }
    assert!(page.contains("Bad upgrades prevented") && page.contains("workflow/notes"));
    // A name that somebody chose.
    for run in &mut runs {
        for check in &mut run.report.checks {
            check.id = "workflow/</code><script>alert(1)</script>\u{202e}\"".to_owned();
        }
    }
    check_page("hostile trends", &trends_page(&Trends::build(&runs, period)));
    let nothing = trends_page(&Trends::build(&[], Period { from_ms: 0, until_ms: 86_400_000 }));
    check_page("no trends", &nothing);
    assert!(nothing.contains("Nothing to draw in this time") && !nothing.contains("<figure>"));
}

#[test]
fn the_trends_on_the_terminal_are_as_recorded() {
    insta::assert_snapshot!("terminal_trends", super::trends::text(&samples::trends()));
    let nothing = Trends::build(&[], Period { from_ms: 0, until_ms: 86_400_000 });
    assert_eq!(super::trends::text(&nothing), "No runs in this time.\n");
}

/// It is well-formed, and nothing is loaded or run.
fn check_page(name: &str, page: &str) {
    check_tags(name, page);
    let tags = tags(page);
    for tag in &tags {
        let lower = tag.to_ascii_lowercase();
        for bad in [
            "<script",
            "<iframe",
            "<object",
            "<embed",
            "<link",
            "<base",
            "<form",
            " onerror",
            " onload",
            " onclick",
            "javascript:",
        ] {
            assert!(!unquoted(&lower).contains(bad), "{name}: {tag}");
        }
        // Pictures are part of the page.
        if unquoted(&lower).contains("src=") {
            let data = attribute(tag, "src").is_some_and(|s| s.starts_with("data:image/png;base64,"));
            assert!(lower.starts_with("<img ") && data, "{name}: {tag}");
        }
        if let Some(href) = attribute(tag, "href") {
            assert!(href.starts_with('#') || href.starts_with("./"), "{name}: {tag}");
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"), "{name}");
    assert!(!page.contains(
        |c: char| (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202e}' | '\u{ffff}')
    ));
    assert!(page.len() < 900_000, "{name}: {} bytes", page.len());
    assert!(page.contains("default-src 'none'"), "{name}");
}

#[test]
fn links_stay_inside_the_run() {
    let page = html(&samples::hostile(), &picture);
    assert!(page.contains("../../etc/passwd") || page.contains("<code>"), "shown as text");
    assert!(!page.contains("href=\"../") && !page.contains("href=\"javascript"));
    assert!(page.contains("href=\"./javascript%3Aalert%284%29\""));
}

#[test]
fn what_is_wrong_is_unfolded() {
    let page = html(&samples::pass(), &picture);
    assert!(page.contains("<details class=\"section\" id=\"checks\">"));
    let page = html(&samples::refused(), &picture);
    for id in ["checks", "data", "steps"] {
        assert!(page.contains(&format!("<details class=\"section\" id=\"{id}\" open>")), "{id}");
    }
}

#[test]
fn numbers_and_times_are_for_people() {
    use super::words::{number, utc, visible};
    assert_eq!(
        [number(0), number(999), number(1_000), number(1_234_567)],
        ["0", "999", "1,000", "1,234,567"]
    );
    assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(utc(i64::MAX), format!("{} ms after 1970", i64::MAX));
    assert_eq!(visible("a\u{1b}[1m\u{7f}\u{202e}b\n"), "a␛[1m␡[U+202E]b\n");
}

/// To look at: `SWITCHBACK_SAMPLES=/tmp/render cargo test -p switchback samples_are_written`.
#[test]
fn samples_are_written() {
    let temporary = tempfile::tempdir().expect("a folder");
    let chosen = std::env::var_os("SWITCHBACK_SAMPLES");
    let dir = chosen.as_deref().map_or(temporary.path(), Path::new);
    std::fs::create_dir_all(dir).expect("made");
    std::fs::write(dir.join("trends.html"), trends_page(&samples::trends())).expect("written");
    for (name, report) in samples::all() {
        for (ending, text) in
            [("html", html(&report, &picture)), ("md", markdown(&report)), ("xml", junit(&report))]
        {
            let path = dir.join(format!("{name}.{ending}"));
            std::fs::write(&path, &text).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
    }
}

/// A line of Markdown without its code spans, which end at a run of as many backticks.
fn outside_code(line: &str) -> String {
    let line = line.replace("\\`", "");
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let fence = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        rest = &rest[at + fence..];
        loop {
            let end = rest.find('`').expect("every code span ends");
            let run = rest[end..].len() - rest[end..].trim_start_matches('`').len();
            rest = &rest[end + run..];
            if run == fence {
                break;
            }
        }
    }
    out + rest + "\n"
}

fn tags(page: &str) -> Vec<&str> {
    let body = page.split_once("</style>").map_or(page, |(_, body)| body);
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').expect("every tag ends");
        found.push(&rest[at..=at + end]);
        rest = &rest[at + end + 1..];
    }
    found
}

/// A tag without the values of its attributes (maud quotes all of them and escapes quotes).
fn unquoted(tag: &str) -> String {
    tag.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split_once('"')).map(|(value, _)| value)
}

fn check_tags(name: &str, page: &str) {
    // The tags before the end of the style sheet.
    let mut open: Vec<&str> = vec!["html", "head"];
    let void = ["br", "img"];
    for tag in tags(page) {
        let word = tag.trim_matches(['<', '>', '/']).split([' ', '\n']).next().unwrap_or_default();
        if tag.starts_with("</") {
            assert_eq!(open.pop(), Some(word), "{name}");
        } else if !void.contains(&word) && !tag.ends_with("/>") {
            open.push(word);
        }
    }
    assert!(open.is_empty(), "{name}: {open:?}");
}
