//! `promotion`: when production may be upgraded.

use crate::duration::Span;
use crate::ids::ServiceName;
use crate::tags::Follow;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

/// When production may be upgraded. Rollbacks are never held up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Promotion {
    /// Weekdays and times of the host in which a promotion may begin; at any time if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// A version whose image or program was made less than this ago is not promoted yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_age: Option<Span>,
    /// What `switchback auto` promotes by itself after a rehearsal that passed.
    pub auto: Auto,
    /// Services for whose images `switchback auto` asks the registry for newer versions, and how far they may be: `patch`, `minor` or
    /// `major`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub follow: Follow,
}

/// What is promoted without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// Nothing, and nobody is told that it could be: it is rehearsed, for whoever looks at the reports.
    Never,
    /// Nothing: it is rehearsed, and people are told that it can be promoted.
    #[default]
    Ask,
    /// Only new patch levels: `5.4.6` after `5.4.5`, for every service that changes.
    Patch,
    /// Everything.
    Always,
}

impl Auto {
    /// Whether a change of versions is promoted without asking.
    pub fn permits(self, from: &Versions, to: &Versions) -> bool {
        match self {
            Self::Never | Self::Ask => false,
            Self::Always => true,
            Self::Patch => {
                let mut changed =
                    to.iter().filter(|(name, version)| from.get(*name) != Some(*version)).peekable();
                // A change of configuration alone has no level.
                let any = changed.peek().is_some();
                any && from.keys().all(|name| to.contains_key(name))
                    && changed.all(|(name, version)| from.get(name).is_some_and(|old| is_patch(old, version)))
            }
        }
    }
}

/// Versions by service.
type Versions = BTreeMap<ServiceName, String>;

/// Whether only the third number went up: `v5.4.6` after `v5.4.5`, `17.2.1-alpine` after `17.2.0-alpine`.
fn is_patch(old: &str, new: &str) -> bool {
    let parse = |version: &str| {
        let (numbers, rest) = version.find(['-', '+']).map_or((version, ""), |at| version.split_at(at));
        let (prefix, numbers) = numbers.strip_prefix('v').map_or(("", numbers), |n| ("v", n));
        let parts: Option<Vec<u64>> = numbers.split('.').map(|n| n.parse().ok()).collect();
        match parts?.as_slice() {
            [major, minor, patch] => Some((prefix.to_owned(), *major, *minor, rest.to_owned(), *patch)),
            _ => None,
        }
    };
    let (Some(old), Some(new)) = (parse(old), parse(new)) else { return false };
    (&old.0, old.1, old.2, &old.3) == (&new.0, new.1, new.2, &new.3) && new.4 > old.4
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

/// A span of hours on some days of the week: `sat,sun 02:00-05:00`, `mon-fri 03:30-04:30`, `22:00-02:00`. One that goes past
/// midnight belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    text: String,
    days: [bool; 7],
    from: u16,
    to: u16,
}

impl Window {
    /// Whether a minute of a day is in it; days count from Monday, 0, minutes from midnight.
    pub fn contains(&self, day: usize, minute: u16) -> bool {
        let on = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.from < self.to {
            on(day) && (self.from..self.to).contains(&minute)
        } else {
            on(day) && minute >= self.from || on(day + 6) && minute < self.to
        }
    }

    /// Minutes until it is open, 0 if it is.
    pub fn opens_in(&self, day: usize, minute: u16) -> u32 {
        (0..8 * u32::from(DAY))
            .find(|ahead| {
                let then = u32::from(minute) + ahead;
                let (days, minute) = (then / u32::from(DAY), then % u32::from(DAY));
                self.contains(day + days as usize, u16::try_from(minute).unwrap_or(0))
            })
            .unwrap_or(0)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?} is no window: {what}; write it like  sat,sun 02:00-05:00  or  22:00-02:00")
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words.as_slice() {
            [hours] => ([true; 7], *hours),
            [days, hours] => (weekdays(days).map_err(|w| wrong(&w))?, *hours),
            _ => return Err(wrong("there are too many or too few words")),
        };
        let (from, to) = hours.split_once('-').ok_or_else(|| wrong("the hours have no end"))?;
        let (from, to) = (time(from).map_err(|w| wrong(&w))?, time(to).map_err(|w| wrong(&w))?);
        if from == to || from == DAY {
            return Err(wrong("it is never open"));
        }
        Ok(Self { text: text.to_owned(), days, from, to })
    }
}

fn weekdays(text: &str) -> Result<[bool; 7], String> {
    let number = |name: &str| {
        let lower = name.to_lowercase();
        DAYS.iter()
            .position(|d| lower.starts_with(d) && (lower.len() == 3 || lower.ends_with("day")))
            .ok_or_else(|| format!("{name:?} is no day ({})", DAYS.join(", ")))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        // `sat-mon` goes over the end of the week.
        let length = (last + 7 - first) % 7;
        for day in first..=first + length {
            if let Some(day) = days.get_mut(day % 7) {
                *day = true;
            }
        }
    }
    Ok(days)
}

fn time(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no time of day");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    if minutes.len() != 2 || hours.is_empty() || hours.len() > 2 {
        return Err(wrong());
    }
    let (hours, minutes) = (hours.parse::<u16>(), minutes.parse::<u16>());
    match (hours, minutes) {
        (Ok(24), Ok(0)) => Ok(DAY),
        (Ok(hours @ 0..24), Ok(minutes @ 0..60)) => Ok(hours * 60 + minutes),
        _ => Err(wrong()),
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Window {
    fn schema_name() -> Cow<'static, str> {
        "Window".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Days of the week (all if left out) and hours: `sat,sun 02:00-05:00`",
            "examples": ["sat,sun 02:00-05:00", "mon-fri 03:30-04:30", "22:00-02:00"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().expect(text)
    }

    #[test]
    fn windows_are_open_on_their_days_and_hours() {
        let weekend = window("sat,sun 02:00-05:00");
        assert!(weekend.contains(5, 120) && weekend.contains(6, 299));
        assert!(!weekend.contains(5, 119) && !weekend.contains(6, 300) && !weekend.contains(0, 180));
        let night = window("fri 22:00-02:00");
        assert!(night.contains(4, 22 * 60) && night.contains(5, 119));
        assert!(!night.contains(4, 60) && !night.contains(5, 120) && !night.contains(5, 22 * 60));
        assert!(window("Saturday-Mon 00:00-24:00").contains(0, 1439));
        assert!(!window("sat-mon 00:00-24:00").contains(1, 0));
        assert!((0..7).all(|day| window("3:00-4:00").contains(day, 180)));
    }

    #[test]
    fn the_next_opening_is_found_across_days_and_weeks() {
        let weekend = window("sun 02:00-03:00");
        assert_eq!(weekend.opens_in(6, 130), 0);
        assert_eq!(weekend.opens_in(6, 110), 10);
        assert_eq!(weekend.opens_in(6, 180), 7 * 1440 - 60);
        assert_eq!(weekend.opens_in(5, 0), 1440 + 120);
        assert_eq!(window("fri 22:00-02:00").opens_in(5, 100), 0);
    }

    #[test]
    fn only_what_the_policy_names_is_promoted_without_asking() {
        let versions = |list: &[(&str, &str)]| -> Versions {
            list.iter().map(|(n, v)| (ServiceName::new(*n).expect("a name"), (*v).to_owned())).collect()
        };
        let from = versions(&[("app", "5.4.5"), ("db", "17.2-alpine")]);
        let case = |app: &str, db: &str| {
            let to = versions(&[("app", app), ("db", db)]);
            assert!(!Auto::Never.permits(&from, &to));
            [Auto::Ask, Auto::Patch, Auto::Always].map(|a| a.permits(&from, &to))
        };
        assert_eq!(case("5.4.6", "17.2-alpine"), [false, true, true]);
        assert_eq!(case("5.5.0", "17.2-alpine"), [false, false, true]);
        assert_eq!(case("5.4.4", "17.2-alpine"), [false, false, true]);
        // What has no third number has no patch level; nor has another variant, or a change of configuration.
        assert_eq!(case("5.4.6", "17.3-alpine"), [false, false, true]);
        assert_eq!(case("5.4.6-rc1", "17.2-alpine"), [false, false, true]);
        assert_eq!(case("5.4.5", "17.2-alpine"), [false, false, true]);
        assert_eq!(case("latest", "17.2-alpine"), [false, false, true]);
        assert!(is_patch("v1.2.9-alpine", "v1.2.10-alpine") && !is_patch("1.2.9", "v1.2.10"));
        assert!(!Auto::Patch.permits(&from, &versions(&[("app", "5.4.6")])));
    }

    #[test]
    fn what_is_no_window_is_told() {
        for text in [
            "",
            "sat",
            "sat 02:00",
            "someday 02:00-03:00",
            "sat 2-3",
            "sat 02:00-02:00",
            "25:00-26:00",
            "02:60-03:00",
            "a b c",
            "24:00-02:00",
            "satx 02:00-03:00",
        ] {
            let why = text.parse::<Window>().expect_err(text);
            assert!(why.contains("no window"), "{why}");
        }
    }
}
