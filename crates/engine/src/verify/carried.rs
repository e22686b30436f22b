//! Whether later writes come back into the version before: each is there, or in quarantine with a reason.

use super::lab::{Fingerprints, Lab, Ran};
use super::proof::{Proof, Stop};
use super::rollback::{fingerprints, runs};
use crate::carry;
use crate::ops::{differing, may_change};
use std::collections::BTreeMap;
use switchback_core::carry::CarriedPart;
use switchback_core::config::Config;
use switchback_core::data::ExportStats;
use switchback_core::duration::human_ms;
use switchback_core::ids::{Digest, StoreName};
use switchback_core::plan;
use switchback_core::release::Instance;

/// Carries the writes that a rollback exported, holds what was done against the export, and returns.
pub fn prove(
    lab: &Lab<'_>,
    config: &Config,
    rolled: &Ran,
    abandoned: &Instance,
    old: &Instance,
) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "rollback.carried",
        "every exported write is in the next generation of the old version, or in quarantine with a reason; the generation before was not written to, and production returned to it",
    );
    let home = lab.sandbox()?.home.clone();
    let exports = &rolled.report.exports;
    if exports.values().all(|e| e.total() == 0) {
        proof.not_run("no workflow left anything behind, so nothing could be carried; add one that writes");
        return Ok(proof);
    }
    let before = fingerprints(lab, old)?;
    let facts = match carry::facts(&home, config, lab.world, Some(abandoned.generation), false) {
        Ok((facts, _)) => facts,
        Err(why) => {
            proof.doubt(format!("they cannot be carried: {why}"));
            return Ok(proof);
        }
    };
    let ran = lab.carry_out(config, |_| Ok(plan::promote(&facts)))?;
    proof.runs.push(ran.plan.run.clone());
    if let Some(ms) = ran.report.times.downtime_ms {
        proof.measure("downtime of carrying", human_ms(ms));
    }
    accounted(&mut proof, &ran, exports);
    if ran.done() {
        let back = lab.roll_back(config, "verify: return from what was carried")?;
        proof.runs.push(back.plan.run.clone());
        proof.demand(back.done(), "return", back.why());
    } else {
        // Nothing fitted, or what was carried did not pass the checks: production must be as it was.
        proof.doubt(format!("what could be carried did not reach production: {}", ran.why()));
    }
    if let Err(wrong) = runs(lab, old)? {
        proof.demand(false, "return", wrong.join("; "));
    }
    // It runs before and after; what its services write when they start and stop is not carried.
    let expected = &config.checks.expected_changes;
    let kept = |mut all: Fingerprints| {
        for (name, place) in &old.stores {
            let Some(found) = all.get_mut(name).filter(|f| !f.parts.is_empty()) else { continue };
            found.parts.retain(|part, _| !may_change(name, place.kind, part, expected));
            let parts: Vec<String> = found.parts.iter().map(|(n, p)| format!("{n:?} {}", p.digest)).collect();
            found.digest = Digest::of(format!("{} {}", found.schema, parts.join("\n")).as_bytes());
        }
        all
    };
    let differing = differing(&kept(before), &kept(fingerprints(lab, old)?));
    proof.demand(differing.is_empty(), "the generation before", format!("changed: {}", differing.join(", ")));
    Ok(proof)
}

/// Holds what was done with the writes of each table against the export.
fn accounted(proof: &mut Proof, ran: &Ran, exports: &BTreeMap<StoreName, ExportStats>) {
    for (name, done) in &ran.report.carried {
        let sum = |of: fn(&CarriedPart) -> u64| done.sum(of);
        if sum(CarriedPart::total) == 0 {
            continue;
        }
        proof.measure(
            name.as_str(),
            format!(
                "{} carried, {} there already, {} in quarantine",
                sum(CarriedPart::carried),
                sum(|p| p.already),
                sum(|p| p.quarantined)
            ),
        );
        for (part, found) in &done.parts {
            let exported = exports.get(name).and_then(|e| e.parts.get(part));
            let exported = exported.map_or(0, |p| p.inserted + p.updated + p.deleted);
            proof.demand(
                found.total() == exported,
                format!("{name}.{part}"),
                format!("{exported} writes are in the export, {} were looked at", found.total()),
            );
            proof.demand(
                found.why.values().sum::<u64>() == found.quarantined,
                format!("{name}.{part}"),
                "a write is in quarantine without a reason",
            );
        }
    }
}
