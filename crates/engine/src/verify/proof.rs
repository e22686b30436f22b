//! Building a piece of evidence: measured values, what was demanded of them, and what was wrong.

use crate::engine::now_ms;
use crate::error::EngineError;
use std::collections::BTreeMap;
use switchback_core::check::Failure;
use switchback_core::criteria::Judgement;
use switchback_core::ids::RunId;

/// Why a phase ended early.
#[derive(Debug)]
pub enum Stop {
    /// A person asked for it.
    Interrupted,
    /// It could not go on.
    Error(EngineError),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Error(error)
    }
}

impl From<crate::store::StoreError> for Stop {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Error(error.into())
    }
}

/// Evidence in the making.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Its id.
    pub id: String,
    /// What is demanded, in words.
    pub threshold: String,
    /// Measured values.
    pub measured: BTreeMap<String, String>,
    /// Runs it is taken from.
    pub runs: Vec<RunId>,
    /// UTC, milliseconds since 1970.
    pub started_at_ms: i64,
    /// UTC, milliseconds since 1970.
    pub ended_at_ms: i64,
    failures: Vec<Failure>,
    doubt: Option<String>,
    not_run: Option<String>,
    fact: Option<String>,
    demands: u32,
}

impl Proof {
    /// Begins a piece of evidence.
    pub fn new(id: impl Into<String>, threshold: impl Into<String>) -> Self {
        let now = now_ms();
        Self {
            id: id.into(),
            threshold: threshold.into(),
            measured: BTreeMap::new(),
            runs: Vec::new(),
            started_at_ms: now,
            ended_at_ms: now,
            failures: Vec::new(),
            doubt: None,
            not_run: None,
            fact: None,
            demands: 0,
        }
    }

    /// Names a run that it is taken from.
    pub fn of_run(mut self, run: &RunId) -> Self {
        self.runs.push(run.clone());
        self
    }

    /// Records a measured value.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, texts and references alike")]
    pub fn measure(&mut self, name: impl Into<String>, value: impl ToString) -> &mut Self {
        self.measured.insert(name.into(), value.to_string());
        self
    }

    /// Demands that something holds.
    pub fn demand(&mut self, holds: bool, at: impl Into<String>, what: impl Into<String>) -> &mut Self {
        self.demands += 1;
        if !holds {
            self.failures.push(Failure { at: at.into(), what: what.into(), ..Failure::default() });
        }
        self
    }

    /// Demands that something was measured and holds; not measured is a doubt.
    pub fn demand_known<T>(
        &mut self,
        value: Option<T>,
        holds: impl FnOnce(&T) -> bool,
        at: &str,
        what: &str,
    ) -> &mut Self {
        match value {
            Some(value) => {
                let holds = holds(&value);
                self.demand(holds, at, what)
            }
            None => self.doubt(format!("{at} was not measured")),
        }
    }

    /// Records that something could not be observed.
    pub fn doubt(&mut self, why: impl Into<String>) -> &mut Self {
        self.doubt.get_or_insert(why.into());
        self
    }

    /// Records that there was nothing to try.
    pub fn not_run(&mut self, why: impl Into<String>) -> &mut Self {
        self.not_run.get_or_insert(why.into());
        self
    }

    /// Records that the stack has nothing that it could be tried on: a fact that was observed, never a setting.
    pub fn not_applicable(&mut self, fact: impl Into<String>) -> &mut Self {
        self.fact.get_or_insert(fact.into());
        self
    }

    /// The verdict: a failure outweighs a doubt, a doubt outweighs what was not tried. Without a single
    /// demand nothing was proved.
    pub fn verdict(&self) -> Judgement {
        if !self.failures.is_empty() {
            Judgement::Fail { reasons: self.failures.clone() }
        } else if let Some(why) = &self.doubt {
            Judgement::Inconclusive { why: why.clone() }
        } else if let Some(why) = &self.not_run {
            Judgement::NotRun { why: why.clone() }
        } else if self.demands > 0 {
            Judgement::Pass
        } else if let Some(why) = &self.fact {
            Judgement::NotApplicable { why: why.clone() }
        } else {
            Judgement::NotRun { why: "nothing was demanded of it".to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_without_a_demand_that_held() {
        let mut proof = Proof::new("x", "");
        assert_eq!(proof.verdict().word(), "not run");
        proof.not_applicable("there is nothing");
        assert_eq!(proof.verdict().word(), "not applicable");
        proof.demand(true, "a", "b");
        assert_eq!(proof.verdict(), Judgement::Pass);
        proof.not_run("nobody tried");
        assert_eq!(proof.verdict().word(), "not run");
        proof.demand_known(None::<u8>, |_| true, "the time", "is short");
        assert_eq!(proof.verdict().word(), "inconclusive");
        proof.demand(false, "a", "b");
        assert_eq!(proof.verdict().word(), "fail");
    }
}
