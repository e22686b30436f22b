//! Stops that a release demands on the way to another one, and the search for those that nobody wrote down.

use crate::ids::ServiceName;
use crate::tags;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A stop that an upgrade of a service may not leave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The service.
    pub service: ServiceName,
    /// Who goes to this version or a later one, ...
    pub before: String,
    /// ... from one before this, goes through this one first.
    pub through: String,
}

/// What an upgrade leaves out, or why that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand<'s> {
    /// This stop.
    Skipped(&'s Stop),
    /// Nobody can tell: this is no version.
    Unknown(&'s Stop, String),
}

fn later(a: &str, b: &str) -> Option<bool> {
    tags::order(a, b).map(|o| o == Ordering::Greater)
}

/// The first stop that an upgrade of a service leaves out.
pub fn skipped<'s>(stops: &'s [Stop], service: &ServiceName, from: &str, to: &str) -> Option<Demand<'s>> {
    let mut found: Option<&Stop> = None;
    for stop in stops.iter().filter(|s| s.service == *service && from != to) {
        let (Some(begins), Some(reaches)) = (later(&stop.through, from), later(&stop.before, to)) else {
            let word = if tags::order(from, &stop.through).is_none() { from } else { to };
            return Some(Demand::Unknown(stop, word.to_owned()));
        };
        // The nearest is the next.
        if begins && !reaches && found.is_none_or(|f| later(&f.through, &stop.through) == Some(true)) {
            found = Some(stop);
        }
    }
    found.map(Demand::Skipped)
}

/// A way from one version through others, with the stops that it leaves out put in.
pub fn with_stops(stops: &[Stop], service: &ServiceName, from: &str, way: &[String]) -> Vec<String> {
    let (mut whole, mut at) = (Vec::new(), from.to_owned());
    for next in way {
        // Each is later than the one before: it ends.
        while let Some(Demand::Skipped(stop)) = skipped(stops, service, &at, next)
            && stop.through != *next
        {
            at.clone_from(&stop.through);
            whole.push(at.clone());
        }
        whole.push(next.clone());
        at.clone_from(next);
    }
    whole
}

/// Versions that may be stops between two, oldest first: the newest of each first and second number. At most so many: the last ones of
/// each first number stay longest.
pub fn between(from: &str, to: &str, all: &[String], most: usize) -> Vec<String> {
    let mut newest: BTreeMap<Vec<u64>, &String> = BTreeMap::new();
    for tag in all {
        if !tags::alike(tag, to) || later(tag, from) != Some(true) || later(to, tag) != Some(true) {
            continue;
        }
        let Some(numbers) = tags::numbers(tag) else { continue };
        let key: Vec<u64> = numbers.into_iter().take(2).collect();
        match newest.get(&key) {
            Some(known) if later(tag, known) != Some(true) => {}
            _ => {
                newest.insert(key, tag);
            }
        }
    }
    let mut kept: Vec<(Vec<u64>, &String)> = newest.into_iter().collect();
    while kept.len() > most {
        // Of two of the same first number the older one goes; else every version is a major one of its own.
        let first = |n: usize| kept.get(n).and_then(|(k, _)| k.first().copied());
        let go = (0..kept.len().saturating_sub(1)).find(|n| first(*n) == first(n + 1)).unwrap_or(0);
        kept.remove(go);
    }
    kept.into_iter().map(|(_, tag)| tag.clone()).collect()
}

/// What to try next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This way, with the target at its end or not.
    Try(Vec<String>),
    /// This way leads to the target.
    Holds(Vec<String>),
    /// None that could be tried does.
    Breaks,
    /// More would have to be tried than was allowed.
    Enough,
}

/// The search for a way: as far as possible in one step, and on from there.
#[derive(Debug, Clone)]
pub struct Search {
    /// Versions that may be stops, oldest first.
    pub candidates: Vec<String>,
    /// Where to.
    pub target: String,
    /// The most tries.
    pub most: usize,
    /// What was tried, and whether it held.
    pub tried: Vec<(Vec<String>, bool)>,
}

impl Search {
    fn known(&self, way: &[String]) -> Option<bool> {
        self.tried.iter().find(|(w, _)| w == way).map(|(_, held)| *held)
    }

    /// What to try next.
    pub fn next(&self) -> Next {
        let mut dead: BTreeSet<Vec<String>> = BTreeSet::new();
        let mut base: Vec<String> = Vec::new();
        loop {
            let on = |stop: &String| [&base[..], std::slice::from_ref(stop)].concat();
            let whole = on(&self.target);
            match self.known(&whole) {
                Some(true) => return Next::Holds(whole),
                None => return self.allowed(whole),
                Some(false) => {}
            }
            let begin =
                base.last().and_then(|l| self.candidates.iter().position(|c| c == l)).map_or(0, |n| n + 1);
            let left: Vec<&String> =
                self.candidates.iter().skip(begin).filter(|c| !dead.contains(&on(c))).collect();
            // The last one that is reached, taking it that those before it are, too.
            let (mut low, mut high) = (0, left.len());
            while low < high {
                let middle = usize::midpoint(low, high);
                let Some(stop) = left.get(middle) else { break };
                match self.known(&on(stop)) {
                    None => return self.allowed(on(stop)),
                    Some(true) => low = middle + 1,
                    Some(false) => high = middle,
                }
            }
            match low.checked_sub(1).and_then(|n| left.get(n)) {
                Some(stop) => base = on(stop),
                // From here nothing is reached: another stop before it may do better.
                None if base.is_empty() => return Next::Breaks,
                None => {
                    dead.insert(base);
                    base = Vec::new();
                }
            }
        }
    }

    fn allowed(&self, way: Vec<String>) -> Next {
        if self.tried.len() >= self.most { Next::Enough } else { Next::Try(way) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> ServiceName {
        ServiceName::new("app").expect("a name")
    }

    fn stop(before: &str, through: &str) -> Stop {
        Stop { service: app(), before: before.to_owned(), through: through.to_owned() }
    }

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn a_stop_that_is_left_out_is_found() {
        let stops = [stop("3.0.0", "2.9.1"), stop("2.0.0", "1.123.0")];
        let at = |from, to| match skipped(&stops, &app(), from, to) {
            Some(Demand::Skipped(s)) => s.through.clone(),
            Some(Demand::Unknown(..)) => "?".to_owned(),
            None => String::new(),
        };
        assert_eq!(at("1.71.3", "2.8.4"), "1.123.0");
        assert_eq!(at("1.71.3", "3.1.0"), "1.123.0", "the nearest first");
        for (from, to) in
            [("1.71.3", "1.123.0"), ("1.123.0", "2.0.0"), ("1.124.0", "2.8.4"), ("2.0.0", "2.8.4")]
        {
            assert_eq!(at(from, to), "", "{from} -> {to}");
        }
        assert_eq!(at("2.0.0", "3.0.0"), "2.9.1");
        assert_eq!(at("2.0.0", "1.0.0"), "", "back is no upgrade");
        assert_eq!((at("latest", "2.8.4").as_str(), at("1.71.3", "latest").as_str()), ("?", "?"));
        assert_eq!(skipped(&stops, &ServiceName::new("other").expect("a name"), "1.0.0", "9.0.0"), None);
    }

    #[test]
    fn stops_are_put_into_a_way() {
        let stops = [stop("3.0.0", "2.9.1"), stop("2.0.0", "1.123.0")];
        let way = |from, way: &[&str]| with_stops(&stops, &app(), from, &words(way));
        assert_eq!(way("1.71.3", &["3.1.0"]), words(&["1.123.0", "2.9.1", "3.1.0"]));
        assert_eq!(way("1.71.3", &["1.123.0", "3.1.0"]), words(&["1.123.0", "2.9.1", "3.1.0"]));
        assert_eq!(way("2.9.1", &["3.1.0"]), words(&["3.1.0"]));
    }

    #[test]
    fn candidates_are_the_newest_of_each_minor_version() {
        let all = words(&[
            "1.9.0",
            "1.10.0",
            "1.10.5",
            "1.10.5-alpine",
            "1.2.0",
            "2.0.0",
            "2.1.0",
            "2.0.1",
            "latest",
            "0.9.0",
            "2.1.0-rc.1",
        ]);
        assert_eq!(between("1.2.0", "2.1.0", &all, 9), words(&["1.9.0", "1.10.5", "2.0.1"]));
        assert_eq!(between("1.2.0", "2.1.0", &all, 2), words(&["1.10.5", "2.0.1"]));
        assert_eq!(between("1.2.0-alpine", "2.1.0-alpine", &all, 9), words(&["1.10.5-alpine"]));
    }

    /// Searches where steps hold as told; what was tried, and how it ended.
    fn search(
        candidates: &[&str],
        target: &str,
        most: usize,
        holds: impl Fn(&str, &str) -> bool,
    ) -> (Search, Next) {
        let mut search =
            Search { candidates: words(candidates), target: target.to_owned(), most, tried: Vec::new() };
        loop {
            match search.next() {
                Next::Try(way) => {
                    let from = std::iter::once("0").chain(way.iter().map(String::as_str));
                    let held = from.clone().zip(from.skip(1)).all(|(a, b)| holds(a, b));
                    assert!(!search.tried.iter().any(|(w, _)| *w == way), "tried twice: {way:?}");
                    search.tried.push((way, held));
                }
                end => return (search, end),
            }
        }
    }

    #[test]
    fn a_way_is_found_in_few_tries() {
        let all: Vec<String> = (1..64).map(|n| n.to_string()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let number = |w: &str| w.parse::<u32>().expect("a number");
        // Steps of at most 40.
        let (search, end) = search(&all, "64", 20, |a, b| number(b) - number(a) <= 40);
        assert_eq!(end, Next::Holds(words(&["40", "64"])));
        assert!(search.tried.len() <= 8, "{:?}", search.tried);
    }

    #[test]
    fn the_furthest_stop_is_not_taken_for_the_only_one() {
        // Both 1 and 2 are reached; only 1 leads on.
        let (_, end) = search(&["1", "2"], "3", 20, |a, b| matches!((a, b), ("0", "1" | "2") | ("1", "3")));
        assert_eq!(end, Next::Holds(words(&["1", "3"])));
    }

    #[test]
    fn where_nothing_holds_it_ends_and_what_was_tried_is_known() {
        let (done, end) = search(&["1", "2", "3"], "4", 20, |_, _| false);
        assert_eq!(end, Next::Breaks);
        assert!(done.tried.len() <= 4 && done.tried[0].0 == words(&["4"]), "{:?}", done.tried);
        let (done, end) = search(&["1", "2", "3"], "4", 2, |_, _| false);
        assert_eq!((end, done.tried.len()), (Next::Enough, 2));
    }
}
