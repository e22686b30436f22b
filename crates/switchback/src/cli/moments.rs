//! Moments that can be returned to: archiving logs, and which times are covered.

use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use crate::render::backup::utc;
use std::fmt;
use switchback_core::backup::Snapshot;
use switchback_core::config::Config;
use switchback_core::wal;
use switchback_engine::backup::vault::{Task, Vault};
use switchback_engine::backup::{self, wal as logs};
use switchback_engine::engine::Notice;
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::store::Progress as Work;
use switchback_engine::world::World;

/// A moment that somebody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(i64);

impl Moment {
    /// UTC, milliseconds since 1970.
    pub fn ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&utc(self.0))
    }
}

/// Reads a moment.
pub fn moment(text: &str) -> Result<Moment, String> {
    let at: jiff::Timestamp = text.trim().parse().map_err(|_| {
        "write a time with its zone: 2026-11-30T02:10:00Z, or 2026-11-30T03:10:00+01:00".to_owned()
    })?;
    Ok(Moment(at.as_millisecond()))
}

/// The stores whose log is archived, in words.
pub fn names(config: &Config) -> String {
    let all = config.archived();
    all.iter().map(switchback_core::ids::StoreName::as_str).collect::<Vec<_>>().join(", ")
}

/// Archives what was written since the last time.
pub fn archive(global: &Global, home: &Home, config: &Config) -> Result<Exit, Trouble> {
    let progress = Progress::new(global.quiet);
    let cancel = super::run::cancel_on_signals();
    let asked = || cancel.requested();
    let report = |done, total| progress.notice(&Notice::Doing { text: "archiving the log", done, total });
    let done = logs::round(home, config, &Work { cancel: &asked, report: &report })?;
    drop(progress);
    keeper::spawn(home)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&done)?;
        return Ok(Exit::Done);
    }
    if done.is_empty() {
        out.line("Nothing was archived: production does not run.")?;
    }
    for (store, shipped) in &done {
        let until = utc(shipped.until_ms);
        out.line(&format!("{store}: {} segments; archived up to {until}", shipped.segments))?;
        if let Some(note) = &shipped.note {
            out.line(&format!("  {note}"))?;
        }
        if shipped.needs_backup {
            out.line("  no backup goes before it yet: `switchback backup`; the keeper makes one by itself")?;
        }
    }
    Ok(Exit::Done)
}

/// The times that can be returned to.
pub fn windows(
    home: &Home,
    config: &Config,
    world: &World,
    vault: &Vault,
    own: &[Snapshot],
) -> Result<Vec<(i64, i64)>, EngineError> {
    if own.iter().all(|s| s.bases.is_empty()) {
        return Ok(Vec::new());
    }
    let all = backup::ask(home, world, vault, &Task::Logs, &Work::none())?;
    let kept = logs::kept(all, config.stack.as_str());
    Ok(wal::windows(&config.archived(), &logs::begins(own), &kept))
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_has_a_zone() {
        assert_eq!(moment("1970-01-01T00:00:01.5Z").expect("reads").ms(), 1500);
        assert_eq!(moment("1970-01-01T01:00:00+01:00").expect("reads").ms(), 0);
        for bad in ["2026-11-30", "2026-11-30T02:10:00", "yesterday", "", "; drop"] {
            assert!(moment(bad).expect_err(bad).contains("zone"), "{bad}");
        }
    }
}
