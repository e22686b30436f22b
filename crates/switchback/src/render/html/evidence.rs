//! What supports the verdict: copies, fingerprints, what was read back, certificate, exports, files.

use super::parts::{self, Section};
use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::data::{CopyStats, ExportStats};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::release::Certificate;
use switchback_core::report::{CopyLine, FingerprintLine, Report};

/// More lines than a person reads.
const MOST_LINES: usize = 200;

/// Writes that were saved from an abandoned generation.
pub fn exports(report: &Report) -> Option<Section> {
    if report.exports.is_empty() {
        return None;
    }
    let total: u64 = report.exports.values().map(ExportStats::total).sum();
    Some(Section {
        id: "exports",
        title: "Exported writes",
        wrong: false,
        open: total > 0,
        summary: html! {
            (words::count(total, "write")) " made since the promotion"
        },
        body: html! {
            p {
                @if total == 0 { "Nothing was written to the abandoned generation." }
                @else { "Written to the abandoned generation after its promotion; not part of the data that production runs on now. Decide for each whether to enter it again." }
            }
            @for (store, stats) in &report.exports {
                h3 { code { (store) } span.dim { " exported in " (human_ms(stats.took_ms)) } }
                div.scroll {
                    table {
                        thead { tr { th { "Table" } th.n { "Inserted" } th.n { "Updated" } th.n { "Deleted" } th { "File" } th { "BLAKE3" } } }
                        tbody {
                            @for (name, part) in stats.parts.iter().take(MOST_LINES) {
                                tr {
                                    td.name { code { (words::shorten(name, 200)) } }
                                    @for n in [part.inserted, part.updated, part.deleted] {
                                        td.n { @if n == 0 { span.none { "0" } } @else { (words::number(n)) } }
                                    }
                                    td.name { code { (words::shorten(&part.file, 200)) } }
                                    td { (parts::digest(&part.digest)) }
                                }
                            }
                        }
                    }
                }
                (parts::left_out(MOST_LINES.min(stats.parts.len()), stats.parts.len(), "table"))
            }
        },
    })
}

/// The permission to promote.
pub fn certificate(report: &Report) -> Option<Section> {
    let c = report.certificate.as_ref()?;
    Some(Section {
        id: "certificate",
        title: "Certificate",
        wrong: false,
        open: false,
        summary: html! { "permits the promotion until " (words::utc(c.expires_at_ms)) },
        body: html! {
            p { "Issued because this host rolled back this data, from the new release to the old one, within the budget. It permits exactly this change, on this host." }
            dl.facts {
                div { dt { "Issued by run" } dd { code { (c.run) } } }
                div { dt { "On host" } dd { (c.host) } }
                div { dt { "From release" } dd { (parts::digest(&c.from)) } }
                div { dt { "To release" } dd { (parts::digest(&c.to)) } }
                div { dt { "Issued" } dd { (words::utc(c.issued_at_ms)) } }
                div { dt { "Expires" } dd { (words::utc(c.expires_at_ms)) } }
                div { dt { "Data cloned" } dd { (human_bytes(c.data_bytes)) } }
                div { dt { "Rollback measured" } dd { (human_ms(c.rollback_ms)) (range(c)) } }
                div { dt { "Downtime predicted" } dd { (human_ms(c.downtime_ms)) } }
                div { dt { "Checks passed" } dd { (c.checks_passed) } }
                @if let Some(coverage) = &c.coverage {
                    div { dt { "Later writes" } dd {
                        (coverage.tables - coverage.exported.len() as u64) " of " (coverage.tables) " tables can be carried back"
                    } }
                }
                @if let Some(signature) = &c.signature {
                    div { dt { "Signed with" } dd { code { (signature.key.get(..16).unwrap_or_default()) "…" } } }
                }
            }
        },
    })
}

/// What rollbacks took in the rehearsals before, if they differ.
fn range(certificate: &Certificate) -> String {
    match certificate.rollback_range_ms {
        Some((least, most)) if least < most => {
            format!(" ({} to {} in the last rehearsals)", human_ms(least), human_ms(most))
        }
        _ => String::new(),
    }
}

/// Copies, fingerprints and what was read back.
pub fn copies(report: &Report) -> Option<Section> {
    let (copies, prints, facts) = (&report.copies, &report.fingerprints, &report.read_back);
    if copies.is_empty() && prints.is_empty() && facts.is_empty() {
        return None;
    }
    let equal = prints.iter().filter(|f| f.equal_to.is_some()).count();
    let words_of = [
        (copies.len(), "copy", "copies"),
        (equal, "equality confirmed", "equalities confirmed"),
        (facts.len(), "fact read back", "facts read back"),
    ];
    Some(Section {
        id: "evidence",
        title: "Copies and fingerprints",
        wrong: false,
        open: false,
        summary: html! {
            @for ((n, one, many), i) in words_of.iter().filter(|(n, ..)| *n > 0).zip(0..) {
                @if i > 0 { ", " }
                (n) " " (if *n == 1 { one } else { many })
            }
        },
        body: html! {
            @if !copies.is_empty() { h3 { "Copies" } (copy_table(copies)) }
            @if !prints.is_empty() { h3 { "Fingerprints" } (print_table(prints, report)) }
            @if !facts.is_empty() {
                h3 { "Read back from the system" }
                ul.ticks { @for fact in facts.iter().take(MOST_LINES) { li { (parts::icon(Tone::Good)) span { (fact) } } } }
                (parts::left_out(MOST_LINES.min(facts.len()), facts.len(), "fact"))
            }
        },
    })
}

fn copy_table(copies: &[CopyLine]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th { "Step" } th { "Store" } th.n { "Size" } th.n { "Written" } th.n { "Files" } th.n { "Took" } th.n { "Writers waited" } } }
                tbody {
                    @for copy in copies.iter().take(MOST_LINES) {
                        @let stats = &copy.stats;
                        tr {
                            td.wide { (words::shorten(&copy.step, 160)) (parts::notes(&stats.notes)) }
                            td { code { (copy.store) } }
                            td.n { (human_bytes(stats.bytes)) }
                            td.n { (human_bytes(stats.bytes_written)) }
                            td.n { (files(stats)) }
                            td.n { (human_ms(stats.took_ms)) }
                            td.n { (human_ms(stats.writers_waited_ms)) }
                        }
                    }
                }
            }
        }
        (parts::left_out(MOST_LINES.min(copies.len()), copies.len(), "line"))
    }
}

fn files(stats: &CopyStats) -> Markup {
    html! {
        (words::number(stats.files))
        @if stats.reflinked > 0 { small { (words::number(stats.reflinked)) " share blocks" } }
    }
}

fn print_table(prints: &[FingerprintLine], report: &Report) -> Markup {
    let title =
        |id: &str| report.steps.iter().find(|s| s.id == id).map_or(id.to_owned(), |s| s.title.clone());
    html! {
        div.scroll {
            table {
                thead { tr { th { "Step" } th { "Store" } th.n { "Items" } th.n { "Size" } th { "Content" } th { "Schema" } } }
                tbody {
                    @for line in prints.iter().take(MOST_LINES) {
                        tr {
                            td.wide {
                                (words::shorten(&line.step, 160))
                                @if let Some(other) = &line.equal_to {
                                    p.equal { (parts::icon(Tone::Good)) "equal, as demanded, to: " (words::shorten(&title(other), 160)) }
                                }
                            }
                            td { code { (line.store) } }
                            td.n { (words::number(line.fingerprint.items)) }
                            td.n { (human_bytes(line.fingerprint.bytes)) }
                            td { (parts::digest(&line.fingerprint.digest)) }
                            td { (parts::digest(&line.fingerprint.schema)) }
                        }
                    }
                }
            }
        }
        (parts::left_out(MOST_LINES.min(prints.len()), prints.len(), "line"))
    }
}

/// Files kept with the run.
pub fn artefacts(report: &Report) -> Option<Section> {
    let all = &report.artefacts;
    (!all.is_empty()).then(|| Section {
        id: "files",
        title: "Files",
        wrong: false,
        open: false,
        summary: html! { (words::count(all.len() as u64, "file")) " kept with the run" },
        body: html! {
            div.scroll {
                table {
                    thead { tr { th { "What" } th { "File" } th.n { "Size" } th { "BLAKE3" } } }
                    tbody {
                        @for artefact in all.iter().take(MOST_LINES) {
                            tr {
                                td.wide { (words::shorten(&artefact.title, 200)) }
                                td.name { (link(&artefact.path, &artefact.path)) }
                                td.n { (human_bytes(artefact.bytes)) }
                                td { code.digest title=(artefact.blake3) { (words::shorten(&artefact.blake3, 12)) } }
                            }
                        }
                    }
                }
            }
            (parts::left_out(MOST_LINES.min(all.len()), all.len(), "file"))
        },
    })
}

/// A link to a file of the run's folder; plain text if the path leads anywhere else.
pub fn link(path: &str, text: &str) -> Markup {
    let inside = !path.starts_with('/') && !path.contains('\\') && path.split('/').all(|part| part != "..");
    html! {
        @if inside { a href={ "./" (encode(path)) } { (words::shorten(text, 200)) } }
        @else { code { (words::shorten(text, 200)) } }
    }
}

/// Percent-encodes what RFC 3986 does not reserve for itself in a path.
fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
