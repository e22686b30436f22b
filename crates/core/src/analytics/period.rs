//! A time, and its division into days or weeks (UTC).

use super::Past;
use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;
/// Up to this length every day is shown; beyond it most days are empty, and a week says more.
const DAYS_UP_TO_MS: i64 = 14 * DAY_MS;

/// A time: UTC, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Its first millisecond.
    pub from_ms: i64,
    /// The first millisecond after it.
    pub until_ms: i64,
}

/// How long the parts of a period are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// Days, from midnight.
    Day,
    /// Weeks, from Monday.
    Week,
}

impl Width {
    /// The word for one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    fn ms(self) -> i64 {
        match self {
            Self::Day => DAY_MS,
            Self::Week => 7 * DAY_MS,
        }
    }

    /// The beginning of the one that a moment is in.
    fn beginning(self, at_ms: i64) -> i64 {
        // 1970 began on a Thursday, three days after a Monday.
        let shift = match self {
            Self::Day => 0,
            Self::Week => 3 * DAY_MS,
        };
        (at_ms + shift).div_euclid(self.ms()) * self.ms() - shift
    }
}

impl Period {
    /// All time.
    pub const ALL: Self = Self { from_ms: i64::MIN, until_ms: i64::MAX };

    /// From a moment until now. Days before the first run are left out: there is nothing to say of them. A run that a wrong clock
    /// dated later than now counts.
    pub fn since(from_ms: i64, now_ms: i64, runs: &[Past]) -> Self {
        let begins = runs.iter().map(|r| r.report.started_at_ms).filter(|at| *at >= from_ms);
        let first = begins.clone().min().map_or(from_ms, |at| Width::Day.beginning(at));
        let last = begins.max().map_or(now_ms, |at| now_ms.max(at.saturating_add(1)));
        let from_ms = from_ms.max(first);
        Self { from_ms, until_ms: last.max(from_ms) }
    }

    /// Whether a moment is in it.
    pub fn holds(self, at_ms: i64) -> bool {
        (self.from_ms..self.until_ms).contains(&at_ms)
    }

    /// The parts that suit its length.
    pub fn width(self) -> Width {
        if self.until_ms.saturating_sub(self.from_ms) <= DAYS_UP_TO_MS { Width::Day } else { Width::Week }
    }

    /// Its parts, oldest first; the first and the last may be shorter.
    pub fn parts(self, width: Width) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut from_ms = self.from_ms;
        while from_ms < self.until_ms {
            let until_ms = (width.beginning(from_ms) + width.ms()).min(self.until_ms);
            parts.push(Self { from_ms, until_ms });
            from_ms = until_ms;
        }
        parts
    }
}
