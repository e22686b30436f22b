//! Runs of the past, and what they say of each other: which rollback left which promotion, and since when that one had failed.

use crate::ids::RunId;
use crate::journal::{Record, TRIAL_FAILED};
use crate::plan::{Plan, Procedure};
use crate::report::{Conclusion, Report};
use crate::times;

/// A run: its report, and the moments of it that matter to others.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// What there is to say about the run alone.
    pub report: Report,
    /// Since when what it promoted had failed, as its trial saw it; UTC, milliseconds since 1970.
    pub failing_since_ms: Option<i64>,
    /// When production answered again in a rollback; UTC, milliseconds since 1970.
    pub answered_again_ms: Option<i64>,
}

impl Past {
    /// Projects a run. `tool` and `host` are named in its report.
    pub fn build(plan: &Plan, records: &[Record], tool: &str, host: &str) -> Self {
        let back = matches!(plan.procedure, Procedure::Rollback | Procedure::ServiceRollback);
        Self {
            report: Report::build(plan, records, tool, host),
            failing_since_ms: (plan.procedure == Procedure::Promote)
                .then(|| times::failing_since(records))
                .flatten(),
            answered_again_ms: back
                .then(|| times::answered_again_at(records, "stop-new", "start-old"))
                .flatten(),
        }
    }

    /// Whether it promoted an upgrade, whatever became of that afterwards.
    pub fn promoted(&self) -> bool {
        self.report.procedure == Procedure::Promote
            && matches!(
                self.report.conclusion,
                Conclusion::Pass | Conclusion::OnTrial | Conclusion::RolledBack
            )
    }

    /// Whether it is a promotion that failed on trial.
    pub fn failed_on_trial(&self) -> bool {
        self.promoted() && self.report.trial.as_ref().is_some_and(|t| t.state == "failed")
    }

    /// Whether it returned production, or single services of it, to what ran before.
    pub fn rolled_back(&self) -> bool {
        matches!(self.report.procedure, Procedure::Rollback | Procedure::ServiceRollback)
            && self.report.conclusion == Conclusion::Pass
    }

    /// Whether nobody asked for it: a trial had failed.
    pub fn by_itself(&self) -> bool {
        self.report.reason.as_deref().is_some_and(|r| r.starts_with(TRIAL_FAILED))
    }

    fn began(&self) -> (i64, &RunId) {
        (self.report.started_at_ms, &self.report.run)
    }
}

/// The rollback that left what a promotion brought, if one did: the first after it.
pub fn left_by<'a>(runs: &'a [Past], promotion: &Past) -> Option<&'a Past> {
    let brought = promotion.report.to_generation.filter(|_| promotion.promoted())?;
    runs.iter()
        .filter(|r| r.rolled_back() && r.report.from_generation == Some(brought))
        .filter(|r| r.began() > promotion.began())
        .min_by_key(|r| r.began())
}

/// From the failure until production answered again, in milliseconds. The failure of a release that was still on trial is the first
/// bad sign; without one, and after the trial, a rollback is counted from its command on.
pub fn time_to_restore(runs: &[Past], rollback: &Past) -> Option<u64> {
    let answered = rollback.answered_again_ms.filter(|_| rollback.rolled_back())?;
    let failing = runs
        .iter()
        .filter(|p| p.promoted() && p.report.to_generation == rollback.report.from_generation)
        .filter(|p| left_by(runs, p).is_some_and(|r| r.report.run == rollback.report.run))
        .max_by_key(|p| p.began())
        .and_then(|p| p.failing_since_ms);
    let from = failing.unwrap_or(i64::MAX).min(rollback.report.started_at_ms);
    u64::try_from(answered - from).ok()
}
