//! Triggers: what a trial is watched for, and when a sample is reason enough to act.
//!
//! Pure: the watchdog brings samples, this says what follows. The same samples give the same decisions, so that a
//! decision can be looked into afterwards.

mod growth;
mod kept;
mod logs;
mod rules;
mod sample;

pub use logs::{Line, is_error, is_fatal, template};
pub use sample::{Before, CheckSample, DatabaseSample, Sample, ServiceSample};

use crate::config::{Action, Triggers};
use kept::Samples;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What a trial is watched for, besides failed probes in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A service ended and was started again.
    Restarts,
    /// Checks fail now and then.
    Errors,
    /// Checks take longer than before.
    Latency,
    /// Error messages that are new.
    Logs,
    /// Memory runs out.
    Memory,
    /// Disk space runs out.
    Disk,
    /// Locks and connections of a database.
    Database,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Restarts, Self::Errors, Self::Latency, Self::Logs, Self::Memory, Self::Disk, Self::Database];

    /// The word for it, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarts => "restarts",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Logs => "logs",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Database => "database",
        }
    }

    /// What the configuration says is to be done.
    pub fn action(self, of: &Triggers) -> Action {
        match self {
            Self::Restarts => of.restarts.action,
            Self::Errors => of.errors.action,
            Self::Latency => of.latency.action,
            Self::Logs => of.logs.action,
            Self::Memory => of.memory.action,
            Self::Disk => of.disk.action,
            Self::Database => of.database.action,
        }
    }

    fn debounce(self) -> Debounce {
        // (bad looks, of so many that could be judged, good looks in a row that clear it)
        let (bad, of, clear) = match self {
            // Counted over a period by themselves.
            Self::Restarts | Self::Errors | Self::Latency => (1, 1, 3),
            Self::Logs => (1, 1, 6),
            Self::Memory | Self::Disk => (3, 3, 3),
            Self::Database => (2, 3, 3),
        };
        Debounce { bad, of, clear }
    }
}

struct Debounce {
    bad: usize,
    of: usize,
    clear: usize,
}

/// What one look says about one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Signal {
    /// Nothing can be said.
    Unknown,
    /// All is well.
    Good,
    /// Not well, and not bad enough yet.
    Doubt(String),
    /// As bad as the rule says.
    Bad(String),
}

/// Where a trigger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing speaks against the release.
    Quiet,
    /// Something does; the trial does not end well meanwhile.
    Suspect,
    /// It fired.
    Fired,
}

/// A trigger that stands differently than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub trigger: Trigger,
    /// Where it stands now.
    pub standing: Standing,
    /// What is to be done when it fires.
    pub action: Action,
    /// What was seen, in words.
    pub why: String,
}

struct State {
    standing: Standing,
    signals: VecDeque<Signal>,
    good: usize,
    why: String,
}

/// Judges one trial.
pub struct Judge {
    triggers: Triggers,
    before: Before,
    watch_ms: i64,
    samples: Samples,
    states: BTreeMap<Trigger, State>,
}

impl Judge {
    /// For a trial of this length, with what was seen before the promotion.
    pub fn new(triggers: &Triggers, before: Before, watch_ms: u64) -> Self {
        let quiet =
            || State { standing: Standing::Quiet, signals: VecDeque::new(), good: 0, why: String::new() };
        let states = Trigger::ALL
            .into_iter()
            .filter(|t| t.action(triggers) != Action::Off)
            .map(|t| (t, quiet()))
            .collect();
        // As far back as a rule looks.
        let long = (watch_ms / rules::GROWTH_PARTS)
            .max(triggers.restarts.within.as_millis())
            .max(triggers.errors.within.as_millis());
        Self {
            triggers: triggers.clone(),
            before,
            watch_ms: i64::try_from(watch_ms).unwrap_or(i64::MAX),
            samples: Samples::new(i64::try_from(long).unwrap_or(i64::MAX)),
            states,
        }
    }

    /// Takes one more look into account; what stands differently now.
    pub fn look(&mut self, sample: Sample) -> Vec<Change> {
        self.samples.push(sample);
        let mut changes = Vec::new();
        for (trigger, state) in &mut self.states {
            let signal = rules::signal(*trigger, &self.samples, &self.before, &self.triggers, self.watch_ms);
            let was = state.standing;
            let why = state.take(signal, &trigger.debounce());
            if state.standing != was {
                let action = trigger.action(&self.triggers);
                state.why.clone_from(&why);
                changes.push(Change { trigger: *trigger, standing: state.standing, action, why });
            }
        }
        changes
    }

    /// The first trigger that has fired and asks for a rollback.
    pub fn condemned(&self) -> Option<Trigger> {
        self.states
            .iter()
            .find(|(t, s)| s.standing == Standing::Fired && t.action(&self.triggers) == Action::Rollback)
            .map(|(t, _)| *t)
    }

    /// Where every trigger stands, and why.
    pub fn standings(&self) -> Vec<Change> {
        let change = |(trigger, state): (&Trigger, &State)| Change {
            trigger: *trigger,
            standing: state.standing,
            action: trigger.action(&self.triggers),
            why: state.why.clone(),
        };
        self.states.iter().map(change).collect()
    }

    /// Why a trigger stands where it does.
    pub fn why(&self, trigger: Trigger) -> String {
        self.states.get(&trigger).map(|s| s.why.clone()).unwrap_or_default()
    }

    /// What keeps the trial from ending well.
    pub fn open(&self) -> Vec<Trigger> {
        self.states
            .iter()
            .filter(|(t, s)| s.standing != Standing::Quiet && t.action(&self.triggers) >= Action::Hold)
            .map(|(t, _)| *t)
            .collect()
    }
}

impl State {
    /// Moves on with one more signal; why it stands where it does.
    fn take(&mut self, signal: Signal, debounce: &Debounce) -> String {
        match &signal {
            Signal::Unknown => return String::new(),
            Signal::Good => self.good += 1,
            Signal::Doubt(_) | Signal::Bad(_) => self.good = 0,
        }
        self.signals.push_back(signal.clone());
        while self.signals.len() > debounce.of {
            self.signals.pop_front();
        }
        let bad = self.signals.iter().filter(|s| matches!(s, Signal::Bad(_))).count();
        match signal {
            Signal::Good | Signal::Unknown => {
                if self.standing != Standing::Quiet && self.good >= debounce.clear {
                    self.standing = Standing::Quiet;
                    return format!("nothing of it in {} looks", self.good);
                }
                String::new()
            }
            Signal::Bad(why) if bad >= debounce.bad => {
                self.standing = Standing::Fired;
                why
            }
            Signal::Bad(why) | Signal::Doubt(why) => {
                if self.standing == Standing::Quiet {
                    self.standing = Standing::Suspect;
                }
                why
            }
        }
    }
}

#[cfg(test)]
mod tests;
