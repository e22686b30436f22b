//! Proof that checks can fail: known-bad upgrades, which check has to catch each, and what came of it.

use crate::check::CheckKind;
use serde::{Deserialize, Serialize};

/// The name of the format.
pub const SCHEMA: &str = "switchback.prove/1";

/// What a bad migration does to a database, made on purpose in a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A column of the largest table is gone.
    ColumnDropped,
    /// One row in a hundred of the largest table is gone.
    RowsLost,
    /// The last letter of every text in a column of the largest table is gone.
    TextsCut,
    /// Every table has another name: no old version can work on it.
    TablesRenamed,
    /// A column of the largest table is moved into another one, for half of its rows.
    HalfMoved,
}

/// How a mutant gets into the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// By a proxy before the new version's ports.
    Proxy,
    /// In a clone of the data, between the migration and the comparison.
    Data(Damage),
    /// In a clone of the data, on which the old version is started then.
    Irreversible(Damage),
    /// By a program that runs beside the service, in its container or cell.
    Beside(Beside),
    /// A service that others need stands still.
    Still,
    /// A migration that never ends.
    Hanging,
    /// A way from the environment to production.
    Exposed,
    /// A service that ends again and again.
    Ending,
    /// A variable that a service no longer gets.
    Lacking,
    /// A budget that is smaller than the time that stopping and starting takes.
    OverBudget,
}

/// What a program beside a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It keeps a processor busy.
    Busy,
    /// It takes more and more memory.
    Growing,
}

/// A known-bad upgrade, or a control.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Stable: `M01` to `M30`; controls are `C0` and `C1`.
    pub id: &'static str,
    /// What is wrong with it.
    pub name: &'static str,
    /// Kinds of check of which one has to fail; none for controls.
    pub expects: &'static [CheckKind],
    /// How it is made.
    pub injection: Injection,
    /// Which check to add where it survives or cannot be tried.
    pub advice: &'static str,
}

impl Mutant {
    /// What has to catch it, in words: kinds of check, or a limit that no check is needed for.
    pub fn catchers(&self) -> Vec<&'static str> {
        match self.injection {
            Hanging => vec!["migrate_deadline"],
            Ending => vec!["watchdog"],
            Lacking => vec!["settings"],
            OverBudget => vec!["rollback.budget"],
            _ => self.expects.iter().map(|k| k.as_str()).collect(),
        }
    }
}

use CheckKind::{Api, Health, Integrity, Isolation, Journey, Performance, Workflow};
use Injection::{Data, Ending, Exposed, Hanging, Irreversible, Lacking, OverBudget, Proxy, Still};

/// The controls and the mutants.
pub const TABLE: &[Mutant] = &[
    Mutant {
        id: "C0",
        name: "nothing: the same release",
        expects: &[],
        injection: Proxy,
        advice: "checks that fail without a fault say nothing; see which failed",
    },
    Mutant {
        id: "C1",
        name: "harmless: one more property in answers, 3 % slower",
        expects: &[],
        injection: Proxy,
        advice: "a check is stricter than clients are",
    },
    Mutant {
        id: "M01",
        name: "a request that writes answers 500",
        expects: &[Workflow],
        injection: Proxy,
        advice: "add a workflow that writes something",
    },
    Mutant {
        id: "M02",
        name: "200 with an error in the content",
        expects: &[Workflow, Api],
        injection: Proxy,
        advice: "let a workflow look at the content of an answer, not only at its status",
    },
    Mutant {
        id: "M03",
        name: "every answer takes half as long again",
        expects: &[Performance],
        injection: Proxy,
        advice: "name a request under checks.performance",
    },
    Mutant {
        id: "M04",
        name: "8 % of answers take 400 ms more",
        expects: &[Performance],
        injection: Proxy,
        advice: "name a request under checks.performance",
    },
    Mutant {
        id: "M05",
        name: "a processor hog beside the service",
        expects: &[Performance],
        injection: Injection::Beside(Beside::Busy),
        advice: "name a request under checks.performance",
    },
    Mutant {
        id: "M06",
        name: "a column is dropped",
        expects: &[Integrity],
        injection: Data(Damage::ColumnDropped),
        advice: "list the database under stores",
    },
    Mutant {
        id: "M07",
        name: "one row in a hundred is lost",
        expects: &[Integrity],
        injection: Data(Damage::RowsLost),
        advice: "list the database under stores",
    },
    Mutant {
        id: "M08",
        name: "texts are cut short",
        expects: &[Integrity],
        injection: Data(Damage::TextsCut),
        advice: "list the database under stores",
    },
    Mutant {
        id: "M09",
        name: "what is sent is not all kept",
        expects: &[Workflow],
        injection: Proxy,
        advice: "let a workflow read back what it wrote, property by property",
    },
    Mutant {
        id: "M10",
        name: "numbers are off by one",
        expects: &[Api, Integrity],
        injection: Proxy,
        advice: "name the requests whose values matter under checks.api",
    },
    Mutant {
        id: "M11",
        name: "times are an hour off, letters outside of ASCII are broken",
        expects: &[Api, Integrity],
        injection: Proxy,
        advice: "name requests with times or such letters under checks.api",
    },
    Mutant {
        id: "M12",
        name: "it crashes again and again after a while",
        expects: &[],
        injection: Ending,
        advice: "see rollback.failures and rollback.triggers.restarts",
    },
    Mutant {
        id: "M13",
        name: "it leaks memory",
        expects: &[Performance],
        injection: Injection::Beside(Beside::Growing),
        advice: "name a request under checks.performance",
    },
    Mutant {
        id: "M14",
        name: "its port is another one",
        expects: &[Workflow, Api],
        injection: Proxy,
        advice: "add a workflow",
    },
    Mutant {
        id: "M15",
        name: "a variable of its environment is gone",
        expects: &[],
        injection: Lacking,
        advice: "name the file with the variables as env_file",
    },
    Mutant {
        id: "M16",
        name: "the migration hangs",
        expects: &[],
        injection: Hanging,
        advice: "an application that migrates itself is ended by health.start",
    },
    Mutant {
        id: "M17",
        name: "the migration does half and says it is done",
        expects: &[Integrity],
        injection: Data(Damage::HalfMoved),
        advice: "list the database under stores",
    },
    Mutant {
        id: "M18",
        name: "uploads are refused",
        expects: &[Workflow],
        injection: Proxy,
        advice: "add a workflow that uploads a file",
    },
    Mutant {
        id: "M19",
        name: "a valid login is refused",
        expects: &[Workflow, Api],
        injection: Proxy,
        advice: "add a workflow that logs in",
    },
    Mutant {
        id: "M20",
        name: "everybody gets in without a login",
        expects: &[Workflow],
        injection: Proxy,
        advice: "add a workflow that expects 401 or 403 without a login",
    },
    Mutant {
        id: "M21",
        name: "a property of an answer has another name",
        expects: &[Api, Workflow],
        injection: Proxy,
        advice: "name the request under checks.api",
    },
    Mutant {
        id: "M22",
        name: "a number became text",
        expects: &[Api, Workflow],
        injection: Proxy,
        advice: "name the request under checks.api",
    },
    Mutant {
        id: "M23",
        name: "a parameter became required",
        expects: &[Api, Workflow],
        injection: Proxy,
        advice: "name the request under checks.api",
    },
    Mutant {
        id: "M24",
        name: "a worker stands still",
        expects: &[Workflow],
        injection: Still,
        advice: "add a workflow that waits for the work to be done",
    },
    Mutant {
        id: "M25",
        name: "an exception in the page's script",
        expects: &[Journey],
        injection: Proxy,
        advice: "name a journey under checks.journeys",
    },
    Mutant {
        id: "M26",
        name: "a style sheet is missing",
        expects: &[Journey],
        injection: Proxy,
        advice: "name a journey under checks.journeys",
    },
    Mutant {
        id: "M27",
        name: "the old version does not run on migrated data",
        expects: &[Health, Workflow],
        injection: Irreversible(Damage::TablesRenamed),
        advice: "add a workflow that reads what is stored",
    },
    Mutant {
        id: "M28",
        name: "the rollback takes longer than its budget",
        expects: &[],
        injection: OverBudget,
        advice: "set rollback.budget",
    },
    Mutant {
        id: "M29",
        name: "healthy, and answers 503 to everything else",
        expects: &[Workflow, Api],
        injection: Proxy,
        advice: "add a workflow",
    },
    Mutant {
        id: "M30",
        name: "staging reaches production",
        expects: &[Isolation],
        injection: Exposed,
        advice: "environments of this runtime have no isolation that could be tried",
    },
];

/// What came of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A check that has to fail did.
    Caught {
        /// Which.
        by: String,
        /// What it said.
        why: String,
    },
    /// No check that has to fail did.
    Survived {
        /// What failed instead, if anything.
        instead: Vec<String>,
        /// Which check to add.
        advice: String,
    },
    /// A control passed, as it has to.
    Passed,
    /// A control did not pass.
    Alarmed {
        /// What failed.
        why: String,
    },
    /// The fault did not land, so nothing is known.
    Unviable {
        /// Why.
        why: String,
    },
    /// There is nothing that it could be tried on.
    NotApplicable {
        /// Why.
        why: String,
        /// Which check to add.
        advice: String,
    },
}

/// One row of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which mutant.
    pub id: String,
    /// What is wrong with it.
    pub name: String,
    /// Kinds of check of which one has to fail.
    pub expects: Vec<String>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Checks that failed besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// How often the fault landed.
    pub landed: usize,
    /// Wall time in milliseconds.
    pub took_ms: u64,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    /// [`SCHEMA`].
    pub schema: String,
    /// The stack.
    pub stack: String,
    /// When it began (UTC, milliseconds since 1970).
    pub at_ms: i64,
    /// Repetitions of the controls.
    pub controls: usize,
    /// All rows, in order.
    pub rows: Vec<Row>,
}

/// The numbers of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Mutants that were caught.
    pub caught: usize,
    /// Mutants that survived.
    pub survived: usize,
    /// Mutants that could not be tried here.
    pub untried: usize,
    /// Controls that raised an alarm.
    pub alarms: usize,
}

impl Proved {
    /// Counts.
    pub fn score(&self) -> Score {
        let mut score = Score::default();
        for row in &self.rows {
            match row.outcome {
                Outcome::Caught { .. } => score.caught += 1,
                Outcome::Survived { .. } => score.survived += 1,
                Outcome::Alarmed { .. } => score.alarms += 1,
                Outcome::Passed => {}
                _ => score.untried += 1,
            }
        }
        score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_two_controls_and_thirty_mutants_in_order() {
        let ids: Vec<&str> = TABLE.iter().map(|m| m.id).collect();
        let mut expected = vec!["C0".to_owned(), "C1".to_owned()];
        expected.extend((1..=30).map(|n| format!("M{n:02}")));
        assert_eq!(ids, expected);
        for mutant in TABLE.iter().filter(|m| m.id.starts_with('M')) {
            assert!(!mutant.catchers().is_empty() && !mutant.advice.is_empty(), "{}", mutant.id);
        }
    }
}
