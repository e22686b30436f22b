//! Progress on standard error: one line per finished step, and on a terminal what is happening now.

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::journal::{Event, Record};
use switchback_core::next::is_code_only;
use switchback_core::plan::Plan;
use switchback_engine::engine::Notice;

/// Writes progress.
pub struct Progress {
    bar: ProgressBar,
    term: Term,
    quiet: bool,
}

impl Progress {
    /// Progress on standard error; `quiet` writes nothing.
    pub fn new(quiet: bool) -> Self {
        let term = Term::stderr();
        let bar = if term.is_term() && !quiet {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}  {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, term, quiet }
    }

    /// Takes a notice of the engine.
    pub fn notice(&self, notice: &Notice<'_>) {
        if self.quiet {
            return;
        }
        match notice {
            Notice::Recorded(plan, record) => self.recorded(plan, record),
            Notice::Doing { text, done, total } if *total > 0 => {
                self.bar.set_message(format!("{text}: {} of {}", human_bytes(*done), human_bytes(*total)));
            }
            Notice::Doing { text, .. } => self.bar.set_message((*text).to_owned()),
        }
    }

    /// Whether what is being done is shown as it goes, on a terminal.
    pub fn is_live(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Writes a line of its own.
    pub fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.bar.is_hidden() {
            let _ = self.term.write_line(text);
        } else {
            self.bar.println(text);
        }
    }

    fn recorded(&self, plan: &Plan, record: &Record) {
        let title = |id: &switchback_core::ids::StepId| {
            plan.step(id).map_or_else(|| id.to_string(), |s| s.title.clone())
        };
        let (green, red, yellow, dim) =
            (style().green(), style().red().bold(), style().yellow(), style().dim());
        match &record.event {
            Event::Started { step, attempt } => {
                self.bar.enable_steady_tick(Duration::from_millis(100));
                let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
                self.bar.set_message(format!("{}{again}", title(step)));
            }
            Event::Finished { step, output, took_ms } => {
                let notes = if output.notes.is_empty() {
                    String::new()
                } else {
                    format!("  {}", output.notes.join(" · "))
                };
                self.line(&format!(
                    "  {} {}  {}{}",
                    green.apply_to("✓"),
                    title(step),
                    dim.apply_to(human_ms(*took_ms)),
                    dim.apply_to(notes)
                ));
            }
            // Whether the old version runs on migrated data is a finding, not a failure.
            Event::Failed { step, error, took_ms, .. } if plan.step(step).is_some_and(is_code_only) => {
                let line = format!(
                    "  {} {}  {}",
                    yellow.apply_to("○"),
                    title(step),
                    dim.apply_to(human_ms(*took_ms))
                );
                self.line(&line);
                self.line(&format!("    {}", dim.apply_to(format!("not possible: {}", error.message))));
            }
            Event::Failed { step, error, took_ms, .. } => {
                self.line(&format!(
                    "  {} {}  {}",
                    red.apply_to("✗"),
                    title(step),
                    dim.apply_to(human_ms(*took_ms))
                ));
                self.line(&format!("    {}", error.message));
                let mut details = error.details.clone();
                details.dedup(); // a service that is restarted says the same each time
                for detail in &details {
                    self.line(&format!("    {} {}", dim.apply_to("│"), dim.apply_to(detail)));
                }
            }
            Event::Skipped { step, .. } => {
                self.line(&format!("  {} {}", dim.apply_to("–"), dim.apply_to(title(step))));
            }
            Event::UndoStarted { step, .. } => self.bar.set_message(format!("undoing: {}", title(step))),
            Event::Undone { step, took_ms, output } => {
                self.line(&format!(
                    "  {} undone: {}  {}",
                    yellow.apply_to("↶"),
                    title(step),
                    dim.apply_to(human_ms(*took_ms))
                ));
                for note in &output.notes {
                    self.line(&format!("    {note}"));
                }
            }
            Event::UndoFailed { step, error, .. } => {
                self.line(&format!(
                    "  {} could not be undone: {}: {}",
                    red.apply_to("✗"),
                    title(step),
                    error.message
                ));
            }
            Event::Ended { .. } | Event::Interrupted { .. } => self.bar.disable_steady_tick(),
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> Style {
    Style::new().for_stderr()
}
