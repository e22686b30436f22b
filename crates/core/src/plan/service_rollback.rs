//! The plan of a rollback of single services, and what forbids one.
//!
//! The next generation is made of the services' version and data of the generation before, and of everything else as it is: other
//! services go on running, on the very same data.

use super::{CheckPhase, CloneMode, Group, OnFailure, Op, Plan, Procedure, Steps, stores_in};
use crate::ids::{Digest, GenerationId, RunId, ServiceName, StackName, StoreName};
use crate::release::{FORMAT, Instance, Shared};
use std::collections::{BTreeMap, BTreeSet};

/// What the plan is made from.
#[derive(Debug, Clone)]
pub struct ServiceRollbackFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Absolute path of the state folder.
    pub state_dir: String,
    /// Production as it is.
    pub leave: Instance,
    /// The generation whose version and data the services get.
    pub target: Instance,
    /// The services that go back.
    pub services: Vec<ServiceName>,
    /// Their stores.
    pub stores: BTreeSet<StoreName>,
    /// The number of the new generation.
    pub next: GenerationId,
    /// Its release: the services' of the generation before, all else of production's.
    pub release: Digest,
    /// What production would roll back to now.
    pub pointer_previous: Option<GenerationId>,
    /// Bytes that the copies need.
    pub need_bytes: u64,
    /// Rollback budget.
    pub budget_ms: u64,
    /// Length of the trial that goes on for the other services, if there is one.
    pub watch_ms: Option<u64>,
    /// Why.
    pub reason: String,
}

/// Makes the plan. Data is copied before anything stops, as nothing runs on what is copied.
pub fn service_rollback(facts: &ServiceRollbackFacts) -> Plan {
    let (leave, target) = (&facts.leave, &facts.target);
    let new = made(facts);
    let (old_key, key, from) = (leave.key(), new.key(), leave.generation);
    let words = facts.services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    let mut steps = Steps::new();
    let op = Op::Preflight { target: key.clone(), need_bytes: facts.need_bytes };
    steps.add("preflight", "Check disk space, artefacts and ports", Group::Prepare, op);
    let op = Op::Prepare { instance: key.clone() };
    steps.add("prepare", format!("Prepare generation {}", facts.next), Group::Prepare, op).reversible();
    let op = Op::Clone { from: target.key(), to: key.clone(), mode: CloneMode::Cold };
    let title = format!("Clone the data that {words} had in generation {}", target.generation);
    steps.add("clone", title, Group::Prepare, op);
    let op = Op::Base { instance: key.clone(), source: target.key() };
    steps.add("base", "Keep a clone to recognise later writes by", Group::Prepare, op);
    let op = Op::StopServices { instance: old_key.clone(), services: facts.services.clone() };
    steps.add("stop-new", format!("Stop {words} of generation {from}"), Group::Rollback, op).reversible();
    let op = Op::StartServices {
        instance: key.clone(),
        services: facts.services.clone(),
        instead_of: old_key.clone(),
    };
    let title = format!("Start {words} of generation {} and wait until healthy", facts.next);
    steps.add("start-old", title, Group::Rollback, op).reversible();
    let op = Op::ReadBack { instance: key.clone() };
    steps.add("read-back", "Read back what runs", Group::Rollback, op);
    let op = Op::Flip {
        from: Some(from),
        from_previous: facts.pointer_previous,
        to: facts.next,
        to_previous: Some(target.generation),
    };
    let title = format!("Point production at generation {}", facts.next);
    steps.add("flip", title, Group::Rollback, op).reversible();
    let op = Op::Check { instances: vec![key.clone()], phase: CheckPhase::Production };
    let title = "Run the checks that are safe on production";
    steps.add("checks", title, Group::After, op).on_failure(OnFailure::Continue);
    let op = Op::Export { abandoned: old_key };
    let title = format!("Export what was written to {words} since generation {from} was made");
    steps.add("export", title, Group::After, op).on_failure(OnFailure::Continue);
    if let Some(watch_ms) = facts.watch_ms {
        let op = Op::BeginTrial { instance: key, watch_ms };
        let title = "Go on with the trial of the other services";
        steps.add("begin-trial", title, Group::After, op).on_failure(OnFailure::Continue);
    }
    Plan {
        format: FORMAT,
        run: facts.run.clone(),
        procedure: Procedure::ServiceRollback,
        stack: facts.stack.clone(),
        made_at_ms: facts.now_ms,
        from: leave.versions.clone(),
        to: new.versions.clone(),
        from_generation: Some(from),
        to_generation: Some(facts.next),
        reason: Some(facts.reason.clone()),
        budget_ms: facts.budget_ms,
        instances: [leave.clone(), target.clone(), new].into_iter().map(|i| (i.key(), i)).collect(),
        steps: steps.0,
    }
}

/// The generation that is made.
fn made(facts: &ServiceRollbackFacts) -> Instance {
    let (leave, target) = (&facts.leave, &facts.target);
    let back = |name: &ServiceName| facts.services.contains(name);
    let dir = format!("generations/{}", facts.next);
    let mut shared = Shared::default();
    for name in leave.versions.keys().filter(|n| !back(n)) {
        shared.services.insert(name.clone(), leave.dir_of(name.as_str()).to_owned());
    }
    let mut stores = leave.stores.clone();
    for name in leave.stores.keys().filter(|n| !facts.stores.contains(*n)) {
        shared.stores.insert(name.clone(), leave.dir_of_store(name).to_owned());
    }
    let mut own = target.stores.clone();
    own.retain(|name, _| facts.stores.contains(name));
    stores.extend(stores_in(
        &own,
        &format!("{}/{dir}", facts.state_dir),
        leave.project.as_deref().unwrap_or(""),
        &format!("g{}", facts.next),
    ));
    let mut new = Instance {
        generation: facts.next,
        release: facts.release.clone(),
        stores,
        dir,
        shared,
        closed: false,
        ..leave.clone()
    };
    for name in &facts.services {
        match target.versions.get(name) {
            Some(version) => new.versions.insert(name.clone(), version.clone()),
            None => new.versions.remove(name),
        };
        match target.ports.get(name) {
            Some(ports) => new.ports.insert(name.clone(), ports.clone()),
            None => new.ports.remove(name),
        };
    }
    new
}

/// What the services of an instance use, as far as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Stores, by service. A database's server uses its store, and so does who speaks to it.
    pub stores: BTreeMap<ServiceName, BTreeSet<StoreName>>,
    /// Services that it cannot do without, or shares something with, by service: with how that is known.
    pub needs: BTreeMap<ServiceName, BTreeMap<ServiceName, String>>,
    /// Data that belongs to no store and that it writes to, by service.
    pub others: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Configuration files of the release, by service.
    pub files: BTreeMap<ServiceName, BTreeSet<String>>,
}

/// Why services cannot go back alone; empty if they can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ties {
    /// In words.
    pub reasons: Vec<String>,
    /// Services that would have to go back with them; empty if that would not help.
    pub with: BTreeSet<ServiceName>,
}

/// Looks for what ties services to others, in the present and in the previous generation. `changed` are the configuration files whose
/// content differs between the two.
pub fn ties(
    services: &[ServiceName],
    all_stores: &BTreeSet<StoreName>,
    (now, before): (&Uses, &Uses),
    changed: &BTreeSet<String>,
) -> Ties {
    let mut found = Ties::default();
    let mut say = |with: Option<&ServiceName>, reason: String| {
        found.with.extend(with.cloned());
        if !found.reasons.contains(&reason) {
            found.reasons.push(reason);
        }
    };
    let back = |name: &ServiceName| services.contains(name);
    for uses in [now, before] {
        for store in services.iter().filter_map(|s| uses.stores.get(s)).flatten() {
            for (other, _) in uses.stores.iter().filter(|(n, s)| !back(n) && s.contains(store)) {
                say(Some(other), format!("{other} uses the store {store} as well"));
            }
        }
        for (user, needed) in uses.needs.iter().filter(|(n, _)| !back(n)) {
            for (name, how) in needed.iter().filter(|(n, _)| back(n)) {
                say(Some(user), format!("{user} is tied to {name}: {how}"));
            }
        }
        for other in uses.others.iter().filter(|(n, _)| !back(n)) {
            for own in uses.others.iter().filter(|(n, _)| back(n)) {
                for place in other.1.intersection(own.1) {
                    say(Some(other.0), format!("{} and {} both write to {place}", own.0, other.0));
                }
            }
        }
        for other in uses.files.iter().filter(|(n, _)| !back(n)) {
            for own in uses.files.iter().filter(|(n, _)| back(n)) {
                for file in other.1.intersection(own.1).filter(|f| changed.contains(*f)) {
                    let reason = format!(
                        "{} and {} both have the configuration file {file}, which the release changed",
                        own.0, other.0
                    );
                    say(Some(other.0), reason);
                }
            }
        }
    }
    for store in all_stores {
        if !now.stores.values().any(|s| s.contains(store)) {
            say(None, format!("no service names the store {store}, so it cannot be told whose it is"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).expect("valid")
    }
    fn store(name: &str) -> StoreName {
        StoreName::new(name).expect("valid")
    }

    /// `a` has the store `a`, `b` the store `b`; neither knows the other.
    fn apart() -> Uses {
        let own = |name: &str| (service(name), BTreeSet::from([store(name)]));
        Uses { stores: BTreeMap::from([own("a"), own("b")]), ..Uses::default() }
    }

    fn judged(now: &Uses, before: &Uses, changed: &[&str]) -> Ties {
        let all = BTreeSet::from([store("a"), store("b")]);
        ties(&[service("a")], &all, (now, before), &changed.iter().map(|c| (*c).to_owned()).collect())
    }

    #[test]
    fn services_that_have_nothing_in_common_are_not_tied() {
        assert_eq!(judged(&apart(), &apart(), &["other.yaml"]), Ties::default());
    }

    #[test]
    fn a_store_that_another_service_uses_ties_also_if_only_the_release_before_did() {
        let mut shared = apart();
        shared.stores.get_mut("b").expect("there").insert(store("a"));
        for (now, before) in [(&shared, &apart()), (&apart(), &shared)] {
            let found = judged(now, before, &[]);
            assert_eq!(found.reasons, ["b uses the store a as well"]);
            assert_eq!(found.with, BTreeSet::from([service("b")]));
        }
    }

    #[test]
    fn who_needs_the_service_is_tied_to_it_and_whom_it_needs_is_not() {
        let needs = |user: &str, name: &str| {
            let how = BTreeMap::from([(service(name), "depends_on".to_owned())]);
            Uses { needs: BTreeMap::from([(service(user), how)]), ..apart() }
        };
        assert_eq!(judged(&needs("b", "a"), &apart(), &[]).reasons, ["b is tied to a: depends_on"]);
        assert_eq!(judged(&needs("a", "b"), &apart(), &[]), Ties::default());
    }

    #[test]
    fn data_that_both_write_to_ties_and_configuration_only_where_the_release_changed_it() {
        let both = |what: &str| {
            let own = |name: &str| (service(name), BTreeSet::from([what.to_owned()]));
            BTreeMap::from([own("a"), own("b")])
        };
        let media = Uses { others: both("/srv/media"), ..apart() };
        assert_eq!(judged(&media, &apart(), &[]).reasons, ["a and b both write to /srv/media"]);
        let files = Uses { files: both("common.env"), ..apart() };
        assert_eq!(judged(&files, &files, &[]), Ties::default());
        let found = judged(&files, &files, &["common.env"]);
        assert_eq!(found.reasons.len(), 1);
        assert!(found.reasons[0].contains("common.env"), "{found:?}");
    }

    #[test]
    fn a_store_that_nobody_names_forbids_it() {
        let mut unnamed = apart();
        unnamed.stores.remove("b");
        let found = judged(&unnamed, &unnamed, &[]);
        assert!(found.reasons[0].contains("no service names the store b") && found.with.is_empty());
    }

    #[test]
    fn the_new_generation_has_the_others_where_they_are_and_the_services_where_they_were() {
        let old = super::super::tests::instance(2, "1");
        let leave = Instance {
            versions: BTreeMap::from([(service("a"), "2".to_owned()), (service("b"), "2".to_owned())]),
            stores: ["a", "b"]
                .map(|s| {
                    let place = old.stores.values().next().expect("one").clone();
                    let path = format!("/s/.switchback/generations/3/stores/{s}/{s}.db");
                    (store(s), crate::release::StorePlace { path, ..place })
                })
                .into(),
            ..super::super::tests::instance(3, "2")
        };
        let mut target =
            Instance { generation: GenerationId(1), dir: "generations/1".into(), ..leave.clone() };
        target.versions.insert(service("a"), "1".into());
        for place in target.stores.values_mut() {
            place.path = place.path.replace("generations/3", "generations/1");
        }
        let plan = service_rollback(&ServiceRollbackFacts {
            run: "R".into(),
            stack: StackName::new("s").expect("valid"),
            now_ms: 0,
            state_dir: "/s/.switchback".into(),
            leave: leave.clone(),
            target,
            services: vec![service("a")],
            stores: BTreeSet::from([store("a")]),
            next: GenerationId(4),
            release: Digest::of(b"mixed"),
            pointer_previous: Some(GenerationId(1)),
            need_bytes: 0,
            budget_ms: 1,
            watch_ms: None,
            reason: "test".into(),
        });
        let new = plan.instance("production/4").expect("there");
        assert_eq!(new.stores["b"], leave.stores["b"]);
        assert_eq!(new.stores["a"].path, "/s/.switchback/generations/4/stores/a/a.db");
        assert_eq!((new.dir_of("a"), new.dir_of("b")), ("generations/4", "generations/3"));
        assert_eq!(new.versions, BTreeMap::from([(service("a"), "1".into()), (service("b"), "2".into())]));
        assert_eq!(new.own().stores.keys().map(StoreName::as_str).collect::<Vec<_>>(), ["a"]);
        assert_eq!(new.shared.generations(), BTreeSet::from([GenerationId(3)]));
        // Nothing but the named services is stopped or started.
        for step in &plan.steps {
            assert!(!matches!(step.op, Op::Stop { .. } | Op::Start { .. }), "{step:?}");
        }
    }
}
