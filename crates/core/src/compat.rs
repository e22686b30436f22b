//! Which versions of services fit together.

use crate::ids::ServiceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form of the result.
pub const SCHEMA: &str = "switchback.compat/1";

/// What came of one combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fits {
    /// Production runs it.
    RunsNow,
    /// Its rehearsal passed.
    Fits,
    /// Its rehearsal found something that speaks against it, or was refused.
    Refused,
    /// Its rehearsal could not say.
    CannotBeSaid,
    /// Its rehearsal ended in another way.
    Failed,
    /// It was not rehearsed.
    NotTried,
}

/// One combination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The version of each service.
    pub versions: BTreeMap<ServiceName, String>,
    /// What came of it.
    pub fits: Fits,
    /// The exit code of its rehearsal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<i32>,
    /// Its run, for the report.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<String>,
    /// What speaks against it, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub why: Vec<String>,
    /// Wall time in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub took_ms: Option<u64>,
}

impl Cell {
    /// One that was not rehearsed yet. `present` is what production runs.
    pub fn untried(versions: BTreeMap<ServiceName, String>, present: &BTreeMap<ServiceName, String>) -> Self {
        let runs = versions.iter().all(|(service, version)| present.get(service) == Some(version));
        let fits = if runs { Fits::RunsNow } else { Fits::NotTried };
        Self { versions, fits, exit: None, run: None, why: Vec::new(), took_ms: None }
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compat {
    /// [`SCHEMA`].
    pub schema: String,
    /// The stack.
    pub stack: String,
    /// When it began, in milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// The services, in the order in which they were named.
    pub axes: Vec<ServiceName>,
    /// The combinations: the versions of the last service change first.
    pub cells: Vec<Cell>,
}

/// Every combination of the versions of services; the last one's change first.
pub fn combinations(axes: &[(ServiceName, Vec<String>)]) -> Vec<BTreeMap<ServiceName, String>> {
    let mut all = vec![BTreeMap::new()];
    for (service, versions) in axes {
        let extended = all.iter().flat_map(|base| {
            versions.iter().map(|version| {
                let mut one = base.clone();
                one.insert(service.clone(), version.clone());
                one
            })
        });
        all = extended.collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(name: &str, versions: &[&str]) -> (ServiceName, Vec<String>) {
        let versions = versions.iter().map(|v| (*v).to_owned()).collect();
        (ServiceName::new(name).unwrap_or_else(|_| unreachable!("is a name")), versions)
    }

    #[test]
    fn every_combination_is_there_once_and_what_runs_is_known() {
        let axes = [axis("app", &["1", "2"]), axis("db", &["15", "16", "17"])];
        let all = combinations(&axes);
        let told: Vec<String> =
            all.iter().map(|c| c.values().cloned().collect::<Vec<_>>().join("/")).collect();
        assert_eq!(told, ["1/15", "1/16", "1/17", "2/15", "2/16", "2/17"]);
        let present: BTreeMap<_, _> =
            all[0].clone().into_iter().chain([axis("other", &[]).0].map(|s| (s, "9".to_owned()))).collect();
        let runs: Vec<Fits> = all.into_iter().map(|c| Cell::untried(c, &present).fits).collect();
        assert_eq!(runs[0], Fits::RunsNow);
        assert!(runs[1..].iter().all(|f| *f == Fits::NotTried));
    }
}
