//! The same upgrade on other versions of the stack's database servers, as far as this host has them.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use crate::gather::Target;
use crate::runtime::Stage;
use std::collections::BTreeSet;
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;
use switchback_core::journal::Outcome;
use switchback_core::plan::Op;

/// Other versions that are tried of each server: each is a rehearsal.
const MOST: usize = 2;

/// Proves it.
pub fn prove(lab: &Lab<'_>) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "compat.database-versions",
        "the upgrade passes its rehearsal with the database's version of the stack, and with each newer version whose image this host has; nothing is pulled for it",
    );
    let sandbox = lab.sandbox()?;
    let stores: Vec<_> = sandbox.places.iter().filter(|(_, p)| p.kind != StoreKind::Files).collect();
    let mut servers: BTreeSet<&ServiceName> = BTreeSet::new();
    servers.extend(stores.iter().filter_map(|(_, p)| p.server.as_ref().map(|s| &s.service)));
    if servers.is_empty() {
        let fact = if stores.is_empty() {
            "the stack has no database".to_owned()
        } else {
            let names: Vec<&str> = stores.iter().map(|(n, _)| n.as_str()).collect();
            format!("{} is SQLite: a part of the application, without a version of its own", names.join(", "))
        };
        proof.not_applicable(fact);
        return Ok(proof);
    }
    let ran = lab.rehearsed()?;
    proof.runs.push(ran.plan.run.clone());
    if !ran.done() {
        proof.not_run(format!("the upgrade itself is refused: {}", ran.why()));
        return Ok(proof);
    }
    let new = ran.plan.instance("candidate/2").map(|i| sandbox.home.release(&i.release)).transpose()?;
    for service in servers {
        let image = new.as_ref().and_then(|r| r.services.get(service)).and_then(|s| s.image.as_ref());
        let tags = image.map(|i| lab.ground.image_tags(&i.reference)).transpose()?;
        let Some(known) = tags.flatten() else {
            proof.not_run(format!("the image of {service} has no tag, so no other version is known"));
            continue;
        };
        proof.measure(format!("{service} {}", known.current), "passes: the upgrade as it is");
        if known.newer.is_empty() {
            proof.not_run(format!(
                "this host has no newer image of {} than {}: pull one, and it is tried",
                known.repository, known.current
            ));
        }
        for tag in known.newer.iter().take(MOST) {
            other(lab, &mut proof, service, tag)?;
        }
    }
    Ok(proof)
}

/// Rehearses the upgrade with another version of a server.
fn other(lab: &Lab<'_>, proof: &mut Proof, service: &ServiceName, tag: &str) -> Result<(), Stop> {
    let sandbox = lab.sandbox()?;
    let mut config = sandbox.desired.clone();
    for (name, place) in &sandbox.places {
        let on_it = place.server.as_ref().is_some_and(|s| s.service == *service);
        if let Some(store) =
            config.stores.get_mut(name).filter(|_| on_it && place.kind == StoreKind::Postgres)
        {
            // Nobody has to allow it on a copy.
            store.major = major(tag).or(store.major);
        }
    }
    config.rehearsal.code_only_rollback = false;
    config.rehearsal.trace = false;
    let mut versions = sandbox.target.versions.clone();
    versions.insert(service.clone(), tag.to_owned());
    let target = Target { versions };
    let ran = lab.carry_out(&config, |s| s.plan_rehearsal(&config, &target, &Stage::quiet()))?;
    proof.runs.push(ran.plan.run.clone());
    judge(proof, format!("{service} {tag}"), &ran);
    Ok(())
}

/// Judges the rehearsal with another version.
fn judge(proof: &mut Proof, at: String, ran: &Ran) {
    let converted = ran.plan.steps.iter().any(|s| matches!(s.op, Op::Convert { .. }));
    let how = if converted { ", its data converted by dump and restore" } else { "" };
    match &ran.state.ended {
        Some(Outcome::Done) => {
            let checks = ran.report.checks.len();
            proof.measure(&at, format!("passes{how}; {checks} checks")).demand(true, at, "");
        }
        Some(Outcome::Refused { .. }) => {
            proof.measure(&at, "refused").demand(false, at, ran.why());
        }
        other => {
            proof.doubt(format!("{at}: {other:?}"));
        }
    }
}

/// The first number of a tag.
fn major(tag: &str) -> Option<u32> {
    let digits: String = tag.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::made_up::ran;
    use super::*;
    use switchback_core::plan::Procedure;

    #[test]
    fn a_version_of_the_database_that_the_upgrade_does_not_work_with_fails_its_row() {
        let mut seen = ran(Procedure::Rehearse);
        for (ended, word) in [
            (Some(Outcome::Done), "pass"),
            (Some(Outcome::Refused { reasons: vec!["rows are gone".to_owned()] }), "fail"),
            (None, "inconclusive"),
        ] {
            seen.state.ended = ended;
            let mut proof = Proof::new("compat.database-versions", "");
            judge(&mut proof, "db 17.2".to_owned(), &seen);
            assert_eq!(proof.verdict().word(), word);
        }
    }

    #[test]
    fn the_major_version_is_the_first_number() {
        assert_eq!((major("17.2-alpine"), major("v16"), major("latest")), (Some(17), Some(16), None));
    }
}
