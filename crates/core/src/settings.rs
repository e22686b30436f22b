//! What two releases differ in besides their versions: variables, commands, ports, mounts, files. For people, and without any value:
//! values may be secrets.

use crate::config::Service;
use crate::ids::{Digest, ServiceName};
use crate::release::Release;
use std::collections::BTreeMap;

/// How variables are told about.
pub(crate) const VARIABLE: (&str, &str) = ("the variable ", "has another value");

/// Differences of two maps, by the names of their entries: what stands before a name, and what is said of another value.
pub(crate) fn named<T: PartialEq>(
    (thing, changed): (&str, &str),
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in old {
        match new.get(name) {
            None => found.push(format!("{thing}{name} is gone")),
            Some(other) if other != value => found.push(format!("{thing}{name} {changed}")),
            Some(_) => {}
        }
    }
    found.extend(new.keys().filter(|n| !old.contains_key(*n)).map(|n| format!("{thing}{n} is new")));
    found
}

/// Differences between services with the same name, and services that only one side has.
pub(crate) fn by_service<'a, T>(
    old: &BTreeMap<&'a ServiceName, T>,
    new: &BTreeMap<&'a ServiceName, T>,
    compare: impl Fn(&T, &T) -> Vec<String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, was) in old {
        match new.get(name) {
            None => found.push(format!("the service {name} is gone")),
            Some(is) => found.extend(compare(was, is).into_iter().map(|text| format!("{name}: {text}"))),
        }
    }
    found.extend(new.keys().filter(|n| !old.contains_key(*n)).map(|n| format!("the service {n} is new")));
    found
}

/// Differences of the files of two releases.
pub fn files(old: &BTreeMap<String, Digest>, new: &BTreeMap<String, Digest>) -> Vec<String> {
    named(("the file ", "has another content"), old, new)
}

/// What the configuration of local services differs in.
pub fn changes(old: &Release, new: &Release) -> Vec<String> {
    let mut found = by_service(&definitions(old), &definitions(new), |a, b| service(a, b));
    found.extend(files(&old.config, &new.config));
    found
}

fn definitions(release: &Release) -> BTreeMap<&ServiceName, &Service> {
    release.services.iter().map(|(name, s)| (name, &s.definition)).collect()
}

fn service(old: &Service, new: &Service) -> Vec<String> {
    let mut found = named(VARIABLE, &old.env, &new.env);
    found.extend(named(("the port ", "is another one"), &old.ports, &new.ports));
    for (thing, same) in [
        ("the command", old.command == new.command),
        ("the migration command", old.migrate == new.migrate),
        ("the file of variables", old.env_file == new.env_file),
        ("the health check", old.health == new.health),
        ("what it needs", old.needs == new.needs),
        ("how it is stopped", old.stop == new.stop),
        ("when it is restarted", old.restart == new.restart),
    ] {
        if !same {
            found.push(format!("{thing} differs"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_and_values_are_not() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let old = map(&[("A", "1"), ("B", "s3cret"), ("C", "same")]);
        let new = map(&[("B", "t0ken"), ("C", "same"), ("D", "x")]);
        assert_eq!(
            named(VARIABLE, &old, &new),
            ["the variable A is gone", "the variable B has another value", "the variable D is new"]
        );
    }
}
