//! How pages of a new version look, against those of the old one; and which new looks a person approved.

use crate::check::CheckResult;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A page at one place of a journey, in the new version against the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The name of the picture.
    pub name: String,
    /// Pixels that differ, of a million.
    pub changed_ppm: u64,
    /// Places on the page that differ.
    pub places: u64,
    /// What a screen reader no longer finds: `button "Add"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// What a screen reader finds that was not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<String>,
    /// Digest of the new look: pixels and what a screen reader finds.
    pub digest: String,
    /// Whether a person approved exactly this look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
    /// Paths of the pictures, relative to the run's folder: old, new, and what differs.
    pub pictures: Vec<String>,
}

impl Look {
    /// Whether the new version looks otherwise.
    pub fn differs(&self) -> bool {
        self.changed_ppm > 0 || !self.gone.is_empty() || !self.fresh.is_empty()
    }

    /// How it differs, in words.
    pub fn words(&self) -> String {
        let mut parts = Vec::new();
        if self.changed_ppm > 0 {
            let places =
                if self.places == 1 { "1 place".to_owned() } else { format!("{} places", self.places) };
            parts.push(format!("{} of the picture differ, in {places}", percent(self.changed_ppm)));
        }
        for (list, what) in [(&self.gone, "gone"), (&self.fresh, "new")] {
            if !list.is_empty() {
                let few: Vec<&str> = list.iter().take(3).map(String::as_str).collect();
                let more = list.len().saturating_sub(few.len());
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                parts.push(format!("{what}: {}{rest}", few.join(", ")));
            }
        }
        if parts.is_empty() { "as before".to_owned() } else { parts.join("; ") }
    }
}

fn percent(ppm: u64) -> String {
    if ppm < 100 { "less than 0.01 %".to_owned() } else { format!("{:.2} %", ppm as f64 / 10_000.0) }
}

/// Looks that a person approved: digests by check (`journey/notes`) and picture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Approved(pub BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Approved {
    /// Whether a look was approved.
    pub fn has(&self, check: &str, picture: &str, digest: &str) -> bool {
        self.0.get(check).and_then(|p| p.get(picture)).is_some_and(|d| d.contains(digest))
    }

    /// Approves the looks of checks that differ, if they are wanted; returns `check/picture` of those that were not before.
    pub fn approve(&mut self, checks: &[CheckResult], wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut added = Vec::new();
        for check in checks {
            for look in check.looks.iter().filter(|l| l.differs()) {
                let name = format!("{}/{}", check.id, look.name);
                if !wanted(&name) {
                    continue;
                }
                let of_picture =
                    self.0.entry(check.id.clone()).or_default().entry(look.name.clone()).or_default();
                if of_picture.insert(look.digest.clone()) {
                    added.push(name);
                }
            }
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckKind, Verdict};

    fn check(looks: Vec<Look>) -> CheckResult {
        CheckResult {
            id: "journey/notes".into(),
            kind: CheckKind::Journey,
            environment: "candidate".into(),
            verdict: Verdict::Pass,
            took_ms: 0,
            measured: BTreeMap::new(),
            steps: Vec::new(),
            artefacts: Vec::new(),
            looks,
        }
    }

    #[test]
    fn only_what_differs_is_approved_and_only_exactly_so() {
        let look = |name: &str, changed_ppm, digest: &str| Look {
            name: name.into(),
            changed_ppm,
            digest: digest.into(),
            ..Look::default()
        };
        let checks = [check(vec![look("end", 12_345, "a"), look("start", 0, "b")])];
        let mut approved = Approved::default();
        assert_eq!(approved.approve(&checks, |n| n != "journey/notes/end"), Vec::<String>::new());
        assert_eq!(approved.approve(&checks, |_| true), ["journey/notes/end"]);
        assert_eq!(approved.approve(&checks, |_| true), Vec::<String>::new());
        assert!(approved.has("journey/notes", "end", "a"));
        assert!(!approved.has("journey/notes", "end", "b") && !approved.has("journey/notes", "start", "b"));
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let look = Look {
            changed_ppm: 12_345,
            places: 2,
            gone: vec!["button \"Add\"".into()],
            fresh: (0..5).map(|i| format!("link \"{i}\"")).collect(),
            ..Look::default()
        };
        assert_eq!(
            look.words(),
            "1.23 % of the picture differ, in 2 places; gone: button \"Add\"; new: link \"0\", link \"1\", link \"2\" and 2 more"
        );
        assert_eq!(Look::default().words(), "as before");
    }
}
