//! The building blocks of the page: sections, chips, icons, codes, numbers.

use crate::render::words::{self, Tone};
use maud::{Markup, html};
use switchback_core::ids::Digest;

/// A part of the page that can be folded away.
pub struct Section {
    /// For links.
    pub id: &'static str,
    /// Its name.
    pub title: &'static str,
    /// What it says, in a few words.
    pub summary: Markup,
    /// Whether something in it is wrong.
    pub wrong: bool,
    /// Whether it is unfolded.
    pub open: bool,
    /// Its content.
    pub body: Markup,
}

impl Section {
    pub fn render(&self) -> Markup {
        html! {
            details.section id=(self.id) open[self.open] {
                summary {
                    h2 { (self.title) }
                    span.gist { (self.summary) }
                }
                div.inside { (self.body) }
            }
        }
    }
}

/// Links to the sections.
pub fn contents(sections: &[Option<Section>]) -> Markup {
    html! {
        nav.contents aria-label="Sections" {
            @for section in sections.iter().flatten() {
                a href={ "#" (section.id) } {
                    (section.title)
                    @if section.open && section.wrong { (icon(Tone::Bad)) }
                }
            }
        }
    }
}

/// The icons, once per page.
pub fn symbols() -> Markup {
    html! {
        svg.symbols width="0" height="0" aria-hidden="true" {
            symbol id="i-good" viewBox="0 0 16 16" { path d="M3.2 8.6l3.2 3.2 6.4-7.2" {} }
            symbol id="i-bad" viewBox="0 0 16 16" { path d="M4 4l8 8M12 4l-8 8" {} }
            symbol id="i-warn" viewBox="0 0 16 16" { path d="M8 3v6.2M8 12.4v.4" {} }
            symbol id="i-info" viewBox="0 0 16 16" { path d="M8 3.6V8l3 2.4" {} circle cx="8" cy="8" r="6.2" {} }
            symbol id="i-quiet" viewBox="0 0 16 16" { path d="M4 8h8" {} }
            symbol id="i-brand" viewBox="0 0 24 24" { path d="M5 20h9a3.5 3.5 0 0 0 0-7h-4a3.5 3.5 0 0 1 0-7h9M15.5 2.5L19 6l-3.5 3.5" {} }
            symbol id="i-shield" viewBox="0 0 16 16" { path d="M8 1.8l5 1.9v4c0 3-2 5.3-5 6.5-3-1.2-5-3.5-5-6.5v-4z" {} }
        }
    }
}

/// The mark of a tone.
pub fn icon(tone: Tone) -> Markup {
    html! { svg.icon.(class(tone)) aria-hidden="true" { use href={ "#i-" (class(tone)) } {} } }
}

/// The name of a tone in the style sheet.
pub fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Info => "info",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
        Tone::Quiet => "quiet",
    }
}

/// A word with its mark.
pub fn chip(tone: Tone, word: &str) -> Markup {
    html! { span.chip.(class(tone)) { (icon(tone)) (word) } }
}

/// A digest, shortened; the whole one is in its title.
pub fn digest(digest: &Digest) -> Markup {
    html! { code.digest title=(digest.as_str()) { (digest.short()) } }
}

/// A command to copy: a click selects all of it.
pub fn command(text: &str) -> Markup {
    html! { pre.command { code { (text) } } }
}

/// A list of notes, if there are any.
pub fn notes(notes: &[String]) -> Markup {
    html! {
        @if !notes.is_empty() {
            ul.notes {
                @for note in notes.iter().take(20) { li { (words::shorten(note, 2000)) } }
                @if notes.len() > 20 { li { "and " (notes.len() - 20) " more" } }
            }
        }
    }
}

/// Says that a list was cut.
pub fn left_out(shown: usize, all: usize, noun: &str) -> Markup {
    html! {
        @if all > shown {
            p.left-out {
                (words::count((all - shown) as u64, noun)) " more "
                @if all - shown == 1 { "is" } @else { "are" } " left out here; the JSON report has all of them."
            }
        }
    }
}

/// A share of a whole as a thin bar. Purely visual: the numbers stand beside it.
pub fn bar(share: f64, tone: Tone) -> Markup {
    let width = (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0;
    html! {
        svg.bar.(class(tone)) width="100%" height="6" aria-hidden="true" {
            rect.track width="100%" height="6" rx="3" {}
            // A sliver stays visible however small the share is.
            rect.fill width={ (width.max(1.5)) "%" } height="6" rx="3" {}
        }
    }
}
