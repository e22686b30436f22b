//! What the rehearsal's trace proves about the migration: which statements ran, and whom their locks would have kept waiting.

use super::database::{changes_of, migrations};
use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use switchback_core::data::StoreKind;
use switchback_core::duration::human_ms;
use switchback_core::ids::StoreName;
use switchback_core::plan::Op;
use switchback_core::trace::Trace;

/// Proves it.
pub fn prove(lab: &Lab<'_>, ran: &Ran) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "migration.locks",
        "every database that the migration changed was traced, and the trace shows the change: statements or transactions, their locks, and for how long nobody else could have read or written",
    )
    .of_run(&ran.plan.run);
    let places = &lab.sandbox()?.places;
    let databases: Vec<&StoreName> =
        places.iter().filter(|(_, p)| p.kind != StoreKind::Files).map(|(n, _)| n).collect();
    if databases.is_empty() {
        proof.not_applicable("the stack has no database");
        return Ok(proof);
    }
    if !ran.plan.steps.iter().any(|s| matches!(s.op, Op::TraceEnd { .. })) {
        proof.not_run("the migration was not traced: `rehearsal.trace` is off");
        return Ok(proof);
    }
    let mut changed = 0;
    for name in databases {
        let changes = ran.report.diffs.get(name).map(changes_of).unwrap_or_default();
        changed += changes.len();
        let Some(trace) = ran.report.traces.get(name) else {
            if !changes.is_empty() {
                proof.doubt(format!("{name} was not traced{}", because(ran, name)));
            }
            continue;
        };
        measure(&mut proof, name, trace);
        if let Some(first) = changes.first() {
            let what = format!("the trace shows nothing, and the data says otherwise: {first}");
            proof.demand(!trace.is_empty() && trace.calls() > 0, name.as_str(), what);
        } else {
            proof.demand(true, name.as_str(), "");
        }
    }
    if changed == 0 && migrations(ran).is_empty() {
        proof.not_run("this upgrade migrates nothing, so there was nothing to trace; name one that does");
    }
    Ok(proof)
}

/// Why a store has no trace, as the run says it.
fn because(ran: &Ran, name: &StoreName) -> String {
    let prefix = format!("{name}: the migration is not traced: ");
    let notes = ran.report.steps.iter().flat_map(|s| &s.notes);
    let said = notes.filter_map(|n| n.strip_prefix(&prefix)).next();
    said.map_or_else(String::new, |why| format!(": {why}"))
}

fn measure(proof: &mut Proof, name: &StoreName, trace: &Trace) {
    let ms = |us: u64| human_ms(us.div_ceil(1000));
    let (reads, writes) = trace.blocked_us();
    let did = match trace.file {
        Some(file) => {
            format!("{} transactions, {} changes of definitions", file.transactions, trace.calls())
        }
        None => format!("{} statements within {}", trace.calls(), ms(trace.span_us)),
    };
    proof.measure(name.as_str(), did).measure(
        format!("{name}, others would have waited"),
        format!("{} to read, {} to write", ms(reads), ms(writes)),
    );
    let strongest = trace.statements.iter().filter(|s| s.lock.is_some()).max_by_key(|s| s.held_us);
    if let Some(statement) = strongest {
        proof.measure(
            format!("{name}, the lock that was held longest"),
            format!("{}, for {}", statement.tag, ms(statement.held_us)),
        );
    }
    if !trace.errors.is_empty() {
        proof.measure(format!("{name}, statements that failed"), trace.errors.len());
    }
}
