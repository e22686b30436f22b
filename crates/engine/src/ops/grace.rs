//! How long services may take to end.
//!
//! A rollback has a budget, and what it returns to has to start within it: a service that does not end must not use it up.

use super::Context;
use crate::fault::Way;
use std::collections::BTreeMap;
use std::time::Duration;
use switchback_core::config::{Config, RuntimeKind, Service};
use switchback_core::duration::Span;
use switchback_core::ids::ServiceName;
use switchback_core::plan::Procedure;
use switchback_core::release::{Instance, Release};

/// The part of the budget that stopping may take: the start of what is returned to takes longer.
const PART: u32 = 3;

/// The longest that a service of an environment may take to end before the environment is removed.
const OF_WHAT_GOES: Duration = Duration::from_secs(3);

/// Gives services whose data is thrown away next only a moment: nothing is gained by waiting for those that do not end.
pub fn of_what_goes(release: &mut Release) {
    for service in release.services.values_mut() {
        let grace = &mut service.definition.stop.grace.0;
        *grace = (*grace).min(OF_WHAT_GOES);
    }
}

/// Where a rollback leaves an instance: cuts the grace of its services so that stopping all of them takes at most a third of
/// the budget. What each of those that were cut would have had.
pub fn within_the_budget(
    context: &Context<'_>,
    instance: &Instance,
    release: &mut Release,
) -> BTreeMap<ServiceName, Span> {
    let returns = matches!(context.plan.procedure, Procedure::Rollback | Procedure::ServiceRollback);
    let leaves = instance.is_production() && Some(instance.generation) == context.plan.from_generation;
    if context.way != Way::Do || !returns || !leaves {
        return BTreeMap::new();
    }
    let services: BTreeMap<ServiceName, Service> =
        release.services.iter().map(|(name, s)| (name.clone(), s.definition.clone())).collect();
    let order = Config::start_order(&services);
    let grace = |name: &ServiceName| services[name].stop.grace.0;
    // Containers of a group are stopped at the same time, processes one after the other.
    let one_after_the_other: Vec<Duration> = match context.config.runtime {
        RuntimeKind::Compose => order.iter().filter_map(|group| group.iter().map(grace).max()).collect(),
        RuntimeKind::Process => order.iter().flatten().map(grace).collect(),
    };
    let most = most(&one_after_the_other, Duration::from_millis(context.plan.budget_ms) / PART);
    let mut cut = BTreeMap::new();
    for (name, service) in &mut release.services {
        let grace = &mut service.definition.stop.grace;
        if grace.0 > most {
            cut.insert(name.clone(), *grace);
            grace.0 = most;
        }
    }
    cut
}

/// The most that each may have, so that all of them, one after the other, have no more than `all`.
fn most(graces: &[Duration], all: Duration) -> Duration {
    let mut sorted = graces.to_vec();
    sorted.sort();
    let (mut left, mut others) = (all, u32::try_from(sorted.len()).unwrap_or(u32::MAX));
    for grace in sorted {
        let share = left / others;
        if grace > share {
            return share;
        }
        left -= grace;
        others -= 1;
    }
    Duration::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_never_takes_more_than_its_part() {
        let secs = |all: &[u64]| all.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let hundred = Duration::from_secs(100);
        assert_eq!(most(&[], hundred), Duration::MAX);
        assert_eq!(most(&secs(&[10, 30, 60]), hundred), Duration::MAX, "all of it fits");
        assert_eq!(most(&secs(&[600]), hundred), hundred);
        // Who needs little leaves more to the others.
        assert_eq!(most(&secs(&[600, 10, 600]), hundred), Duration::from_secs(45));
        assert_eq!(most(&secs(&[200, 200, 200, 200]), hundred), Duration::from_secs(25));
        for graces in [&[1, 99, 300][..], &[50, 51], &[0, 0, 101], &[7, 7, 7, 95, 400]] {
            let graces = secs(graces);
            let most = most(&graces, hundred);
            let all: Duration = graces.iter().map(|g| (*g).min(most)).sum();
            assert!(all <= hundred && all + Duration::from_micros(1) > hundred, "{graces:?}: {all:?}");
        }
    }
}
