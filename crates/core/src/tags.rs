//! Tags of images as versions: which of a registry's tags are newer than the one in use, and by how much.
//!
//! Only tags of one form are compared: `17.2-alpine` with `17.4-alpine`, never with `17.4`, `17-alpine` or `v17.4-alpine`. What has no
//! number in it (`latest`) has no newer one.

use crate::ids::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// How far a version is from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The first two numbers are the same.
    Patch,
    /// The first number is the same.
    Minor,
    /// The first number differs.
    Major,
}

impl Level {
    /// The word for it, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        }
    }
}

/// A tag, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag<'t> {
    prefix: &'t str,
    numbers: Vec<u64>,
    /// What follows the numbers, with the numbers in it taken out: `-alpine#` of `-alpine3.20`.
    form: String,
    within: Vec<u64>,
}

/// Words of versions that are not finished.
const UNFINISHED: [&str; 11] =
    ["alpha", "beta", "canary", "dev", "edge", "experimental", "nightly", "pre", "preview", "rc", "snapshot"];

impl<'t> Tag<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let rest = text.strip_prefix('v').unwrap_or(text);
        let prefix = text.get(..text.len() - rest.len())?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (numbers, variant) = rest.split_at(end);
        let numbers: Option<Vec<u64>> = numbers.split('.').map(number).collect();
        let numbers = numbers.filter(|n| n.len() <= 4)?;
        // `17abc` and dates without dots are no versions.
        if !(variant.is_empty() || variant.starts_with(['-', '_', '+'])) {
            return None;
        }
        let (mut form, mut within) = (String::new(), Vec::new());
        let mut left = variant;
        while let Some(c) = left.chars().next() {
            let digits = left.find(|c: char| !c.is_ascii_digit()).unwrap_or(left.len());
            if digits > 0 {
                within.push(number(left.get(..digits)?)?);
                form.push('#');
                left = left.get(digits..)?;
            } else {
                form.push(c.to_ascii_lowercase());
                left = left.get(c.len_utf8()..)?;
            }
        }
        Some(Self { prefix, numbers, form, within })
    }

    fn alike(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.numbers.len() == other.numbers.len()
            && self.form == other.form
            && self.within.len() == other.within.len()
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| self.within.cmp(&other.within))
    }

    fn level_to(&self, other: &Self) -> Level {
        match self.numbers.iter().zip(&other.numbers).position(|(a, b)| a != b) {
            Some(0) => Level::Major,
            Some(1) => Level::Minor,
            _ => Level::Patch,
        }
    }

    /// A commit's hash or a date says nothing of what is in it.
    fn is_finished(&self) -> bool {
        let words = self.form.split(|c: char| !c.is_ascii_lowercase());
        !words.into_iter().any(|word| UNFINISHED.contains(&word))
    }
}

fn number(text: &str) -> Option<u64> {
    // More digits are a build number or a date, which is newer than any version.
    (1..=9).contains(&text.len()).then(|| text.parse().ok()).flatten()
}

/// The newest tag of each level that is newer than the one in use.
pub fn newer<'t>(current: &str, all: impl IntoIterator<Item = &'t str>) -> BTreeMap<Level, String> {
    let Some(now) = Tag::parse(current) else { return BTreeMap::new() };
    let mut best: BTreeMap<Level, (Tag<'t>, &'t str)> = BTreeMap::new();
    for text in all {
        let Some(tag) = Tag::parse(text) else { continue };
        if !now.alike(&tag) || now.order(&tag) != Ordering::Less || (now.is_finished() && !tag.is_finished())
        {
            continue;
        }
        let level = now.level_to(&tag);
        if best.get(&level).is_none_or(|(known, _)| known.order(&tag) == Ordering::Less) {
            best.insert(level, (tag, text));
        }
    }
    best.into_iter().map(|(level, (_, text))| (level, text.to_owned())).collect()
}

/// Whether a tag is a version that can have a newer one.
pub fn is_version(tag: &str) -> bool {
    Tag::parse(tag).is_some()
}

/// The numbers of a tag, whatever follows them.
pub fn numbers(tag: &str) -> Option<Vec<u64>> {
    Some(Tag::parse(tag)?.numbers)
}

/// Which of two tags is the later version by its numbers, whatever else their forms are; `None` if one is no version.
pub fn order(a: &str, b: &str) -> Option<Ordering> {
    let (mut a, mut b) = (numbers(a)?, numbers(b)?);
    let most = a.len().max(b.len());
    a.resize(most, 0);
    b.resize(most, 0);
    Some(a.cmp(&b))
}

/// Whether a tag has the form of another one, and is as finished.
pub fn alike(a: &str, b: &str) -> bool {
    match (Tag::parse(a), Tag::parse(b)) {
        (Some(a), Some(b)) => a.alike(&b) && (a.is_finished() || !b.is_finished()),
        _ => false,
    }
}

/// Services whose images are followed, and how far.
pub type Follow = BTreeMap<ServiceName, Level>;

/// The newest tag that is not further away than a level.
pub fn within(found: &BTreeMap<Level, String>, most: Level) -> Option<&String> {
    found.range(..=most).next_back().map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(current: &str, all: &[&str]) -> Vec<(Level, String)> {
        newer(current, all.iter().copied()).into_iter().collect()
    }

    fn of(level: Level, tag: &str) -> (Level, String) {
        (level, tag.to_owned())
    }

    #[test]
    fn the_newest_of_each_level_is_found_by_number_and_not_by_letter() {
        let all =
            ["1.9.0", "1.9.10", "1.9.9", "1.10.2", "1.10.1", "2.0.0", "10.1.0", "latest", "1.9", "1.9.8"];
        assert_eq!(
            found("1.9.8", &all),
            [of(Level::Patch, "1.9.10"), of(Level::Minor, "1.10.2"), of(Level::Major, "10.1.0")]
        );
        assert!(found("10.1.0", &all).is_empty());
        assert!(found("latest", &all).is_empty() && !is_version("latest"));
    }

    #[test]
    fn only_tags_of_the_same_form_count() {
        let all =
            ["17.4", "17.4-alpine", "17.5-alpine3.20", "v17.6", "18-alpine", "17.4-bookworm", "18.0-alpine"];
        assert_eq!(
            found("17.2-alpine", &all),
            [of(Level::Minor, "17.4-alpine"), of(Level::Major, "18.0-alpine")]
        );
        assert_eq!(found("17.5-alpine3.19", &all), [of(Level::Patch, "17.5-alpine3.20")]);
        assert_eq!(found("v17.5", &all), [of(Level::Minor, "v17.6")]);
        assert_eq!(found("17-alpine", &all), [of(Level::Major, "18-alpine")]);
    }

    #[test]
    fn what_is_not_finished_is_offered_only_to_what_is_not_either() {
        let all =
            ["2.0.0-rc.1", "2.0.0-rc.2", "1.2.3-beta", "1.2.4", "2.0.0-rc.2-alpine", "2.0.0-prerelease"];
        assert_eq!(found("1.2.3", &all), [of(Level::Patch, "1.2.4")]);
        assert_eq!(found("2.0.0-rc.1", &all), [of(Level::Patch, "2.0.0-rc.2")]);
    }

    #[test]
    fn hashes_dates_and_absurd_numbers_are_no_versions() {
        for tag in [
            "sha-1a2b3c",
            "1a2b3c4",
            "99999999999",
            "20241130123456",
            "1..2",
            ".1",
            "",
            "1.2.3.4.5",
            "v",
            "-1",
        ] {
            assert!(!is_version(tag), "{tag}");
        }
    }

    #[test]
    fn a_level_limits_how_far_is_followed() {
        let all = newer("1.2.3", ["1.2.9", "2.0.0"]);
        assert_eq!(within(&all, Level::Minor).map(String::as_str), Some("1.2.9"));
        assert_eq!(within(&all, Level::Major).map(String::as_str), Some("2.0.0"));
        assert_eq!(within(&newer("1.2.3", ["1.3.0"]), Level::Patch), None);
    }
}
