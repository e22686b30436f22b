//! Several stacks on one host: the order in which they are upgraded.

use crate::ids::StackName;
use std::collections::{BTreeMap, BTreeSet};

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A stack comes after one that is not there.
    #[error("{stack} comes after {missing}, and there is no such stack")]
    Unknown {
        /// Which.
        stack: StackName,
        /// After which.
        missing: StackName,
    },
    /// Stacks come after each other.
    #[error("{} come after each other", .0.iter().map(StackName::as_str).collect::<Vec<_>>().join(", "))]
    Circle(Vec<StackName>),
}

/// Puts stacks in order: each after those that it names; else by name.
pub fn order(stacks: &BTreeMap<StackName, Vec<StackName>>) -> Result<Vec<StackName>, OrderError> {
    for (stack, after) in stacks {
        if let Some(missing) = after.iter().find(|name| !stacks.contains_key(*name)) {
            return Err(OrderError::Unknown { stack: stack.clone(), missing: missing.clone() });
        }
    }
    let mut left: BTreeMap<&StackName, BTreeSet<&StackName>> =
        stacks.iter().map(|(name, after)| (name, after.iter().collect())).collect();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let Some(next) = left.iter().find(|(_, after)| after.is_empty()).map(|(name, _)| *name) else {
            return Err(OrderError::Circle(left.keys().map(|name| (*name).clone()).collect()));
        };
        left.remove(next);
        left.values_mut().for_each(|after| _ = after.remove(next));
        ordered.push(next.clone());
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(stacks: &[(&str, &[&str])]) -> Result<Vec<String>, OrderError> {
        let name = |text: &&str| StackName::new(*text).expect("a name");
        let all = stacks.iter().map(|(n, after)| (name(n), after.iter().map(name).collect())).collect();
        Ok(order(&all)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_comes_after_those_that_it_names() {
        let all: [(&str, &[&str]); 4] = [("a", &["d"]), ("b", &[]), ("c", &["a", "b"]), ("d", &["b"])];
        assert_eq!(ordered(&all).expect("an order"), ["b", "d", "a", "c"]);
        assert!(ordered(&[]).expect("an order").is_empty());
    }

    #[test]
    fn circles_and_strangers_are_named() {
        let why = ordered(&[("a", &["b"]), ("b", &["a"]), ("c", &[])]).expect_err("a circle").to_string();
        assert_eq!(why, "a, b come after each other");
        let why = ordered(&[("a", &["z"])]).expect_err("a stranger").to_string();
        assert_eq!(why, "a comes after z, and there is no such stack");
    }
}
