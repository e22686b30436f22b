//! Backups and drills that should have been made by the clock, and were not: told once a day.
//!
//! A failure is told when it happens; this is for what never began: a stack that is always busy, a run that waits for a person, a
//! timer that was switched off and on again.

use super::newest;
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::home::{Home, read_json, write_json};
use crate::notify;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use switchback_core::config::Config;
use switchback_core::duration::{Span, human_ms};
use switchback_core::notify::Severity;
use switchback_core::plan::Procedure;

/// Told again after this time.
const AGAIN_MS: i64 = 24 * 60 * 60 * 1000;
/// What is scheduled is late when so many times the time between two has passed.
const TIMES: i64 = 2;

/// What is remembered of one that is scheduled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    /// When it was first looked for. UTC, milliseconds since 1970.
    first_ms: i64,
    /// When it was last told that it is late.
    told_ms: Option<i64>,
}

type Marks = BTreeMap<String, Mark>;

/// One that is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// A backup or a drill.
    pub procedure: Procedure,
    /// How often it should be made.
    pub every: Span,
    /// Since the last that went well, or since it was first looked for.
    pub waited_ms: i64,
}

impl Scheduled {
    /// Whether it should have been made long ago.
    pub fn is_late(&self) -> bool {
        let every = i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX);
        self.waited_ms > every.saturating_mul(TIMES)
    }
}

fn file(home: &Home) -> PathBuf {
    home.state().join("late.json")
}

fn marks(home: &Home) -> Result<Marks, EngineError> {
    let file = file(home);
    if file.exists() { read_json(&file) } else { Ok(Marks::new()) }
}

/// What is scheduled, and how long ago it was made.
pub fn scheduled(home: &Home, config: &Config) -> Result<Vec<Scheduled>, EngineError> {
    of(home, config, &marks(home)?, now_ms())
}

fn of(home: &Home, config: &Config, marks: &Marks, now: i64) -> Result<Vec<Scheduled>, EngineError> {
    let mut found = Vec::new();
    let Some(backup) = &config.backup else { return Ok(found) };
    for (procedure, every) in [(Procedure::Backup, backup.every), (Procedure::Drill, backup.drill)] {
        let Some(every) = every else { continue };
        let first = marks.get(procedure.as_str()).map_or(now, |m| m.first_ms);
        let last = newest(home, procedure)?.map_or(first, |(at, _)| at);
        found.push(Scheduled { procedure, every, waited_ms: now.saturating_sub(last) });
    }
    Ok(found)
}

/// Tells what is late, unless it was told today.
pub fn tell(home: &Home, config: &Config, say: &dyn Fn(&str)) -> Result<(), EngineError> {
    let (now, was) = (now_ms(), marks(home)?);
    let mut marks = Marks::new();
    for one in of(home, config, &was, now)? {
        let name = one.procedure.as_str();
        let mut mark = was.get(name).copied().unwrap_or(Mark { first_ms: now, told_ms: None });
        if !one.is_late() {
            mark.told_ms = None;
        } else if mark.told_ms.is_none_or(|at| at.saturating_add(AGAIN_MS) <= now) {
            let waited = human_ms(u64::try_from(one.waited_ms).unwrap_or(0));
            let event = if one.procedure == Procedure::Backup { "backup_missed" } else { "drill_missed" };
            let title = format!(
                "{}: no {} went well for {waited}; there should be one every {}",
                config.stack,
                one.procedure.noun(),
                one.every
            );
            say(&title);
            let lines =
                ["`switchback status` says what keeps it, `switchback doctor` what is wrong".to_owned()];
            notify::tell(home, config, notify::message(config, Severity::Bad, event, title, &lines));
            mark.told_ms = Some(now);
        }
        marks.insert(name.to_owned(), mark);
    }
    if marks != was { write_json(&file(home), &marks) } else { Ok(()) }
}
