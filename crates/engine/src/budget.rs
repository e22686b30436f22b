//! Whether a rollback would be done in time, from what was measured.

use crate::error::EngineError;
use crate::home::Home;
use crate::journal::Journal;
use switchback_core::config::{Capture, Config, Writes};
use switchback_core::data::StoreKind;
use switchback_core::duration::human_ms;
use switchback_core::ids::RunId;
use switchback_core::journal::Record;
use switchback_core::plan::{Op, Plan, Procedure};
use switchback_core::release::Certificate;
use switchback_core::times;

/// What a rollback is expected to take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    /// The longest of the last ones, by their rehearsals.
    rollback: u64,
    /// How long production stops once more to bring later writes back; none where they are only exported.
    carry: Option<u64>,
}

impl Expected {
    /// Refuses a promotion whose way back takes longer than it may.
    fn within(self, budget: u64) -> Result<(), EngineError> {
        let all = self.rollback.saturating_add(self.carry.unwrap_or(0));
        if all <= budget {
            return Ok(());
        }
        let carry = self.carry.map_or_else(String::new, |ms| {
            format!(", bringing later writes back another {}: together {}", human_ms(ms), human_ms(all))
        });
        let hint = match self.carry {
            Some(_) => {
                "raise the budget; or `rollback.capture: continuous`, with which later writes need not be searched for; or `rollback.writes: export`"
            }
            None => {
                "raise the budget, or find out why stopping and starting takes so long, and rehearse again"
            }
        };
        Err(EngineError::refused(
            format!(
                "a rollback would take about {}{carry}; `rollback.budget` is {}",
                human_ms(self.rollback),
                human_ms(budget)
            ),
            hint,
        ))
    }
}

/// Refuses a promotion whose rollback would not be done within the budget.
pub fn holds(
    home: &Home,
    config: &Config,
    plan: &Plan,
    certificate: &Certificate,
) -> Result<(), EngineError> {
    let rollback = certificate
        .rollback_range_ms
        .map_or(certificate.rollback_ms, |(_, most)| most.max(certificate.rollback_ms));
    let carry = match config.rollback.writes {
        Writes::Export => None,
        Writes::Carry => Some(carrying(home, config, certificate)?),
    };
    Expected { rollback, carry }.within(plan.budget_ms)
}

/// How long production would stop for it: as in the rehearsal's own switch, and for comparing everything where only that tells
/// what was written; or as long as it took the last time, if that was longer.
fn carrying(home: &Home, config: &Config, certificate: &Certificate) -> Result<u64, EngineError> {
    let Some(journal) = Journal::open_read(&home.state().join("journal.db"))? else { return Ok(0) };
    let known = config.rollback.capture == Capture::Continuous
        && config.stores.values().all(|s| s.kind == StoreKind::Postgres);
    let comparing = if known {
        0
    } else {
        let (plan, _, records) = journal.load(&certificate.run)?;
        let diffs = plan.steps.iter().filter(|s| matches!(s.op, Op::Diff { .. }));
        diffs.filter_map(|s| took(&records, s.id.as_str())).max().unwrap_or(0)
    };
    let took_last = |run: &RunId| Ok(Some(took(&journal.load(run)?.2, "carry").unwrap_or(0)));
    let last = journal.newest_of(|p| p == Procedure::Carry, took_last)?.unwrap_or(0);
    // With the capture on, what the last one took may have been without it.
    let searching = if known { comparing } else { comparing.max(last) };
    Ok(certificate.downtime_ms.saturating_add(searching))
}

fn took(records: &[Record], step: &str) -> Option<u64> {
    times::between(records, step, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_cannot_hold_is_refused_with_its_numbers() {
        let say = |rollback, carry, budget| {
            Expected { rollback, carry }.within(budget).map_err(|e| e.to_string()).err().unwrap_or_default()
        };
        assert_eq!(say(4000, None, 4000), "");
        assert_eq!(say(4000, Some(1000), 5000), "");
        assert_eq!(say(4200, None, 4000), "a rollback would take about 4.2 s; `rollback.budget` is 4.0 s");
        assert_eq!(
            say(4000, Some(9000), 10_000),
            "a rollback would take about 4.0 s, bringing later writes back another 9.0 s: together 13.0 s; `rollback.budget` is 10.0 s"
        );
        assert!(!say(u64::MAX, Some(1), 10).is_empty());
    }
}
