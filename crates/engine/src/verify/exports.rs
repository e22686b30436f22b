//! Whether the export of a rollback holds every write: three independent counts of the same rows.

use super::lab::{Lab, Ran};
use super::proof::{Proof, Stop};
use crate::error::{EngineError, io};
use crate::runtime::Placement;
use serde_json::Value;
use std::fs;
use std::path::Path;
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::data::{ExportStats, StoreDiff, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::Instance;

/// Rows (or files) added, changed and removed.
type Counts = (u64, u64, u64);

/// Proves that nothing written to the abandoned generation is missing in the export.
pub fn prove(
    lab: &Lab<'_>,
    ran: &Ran,
    abandoned: &Instance,
    before_writes: &Instance,
    checks: &[CheckResult],
) -> Result<Proof, Stop> {
    let mut proof = Proof::new(
        "rollback.writes",
        "the lines of the export are counted, and no row that came, changed or went since the promotion is missing in them; every row that the workflows are known to have left is among them",
    )
    .of_run(&ran.plan.run);
    let home = &lab.sandbox()?.home;
    let wrote = checks.iter().filter(|c| c.kind == CheckKind::Workflow && c.verdict == Verdict::Pass).count();
    proof.measure("workflows run after the promotion", wrote);
    let mut left_by_workflows = 0;
    for (name, place) in &abandoned.stores {
        let Some(stats) = ran.report.exports.get(name) else {
            proof.demand(false, name.as_str(), "nothing of it was exported");
            continue;
        };
        let Some((since_promotion, by_workflows)) = differences(lab, abandoned, before_writes, name)? else {
            proof.demand(false, name.as_str(), "there is nothing that it could be compared with");
            continue;
        };
        let (exact, left) = (count(&since_promotion), count(&by_workflows));
        let out = home.export_dir(abandoned.generation).join(name.as_str());
        let (lines, in_lines) = read_lines(&out, stats)?;
        let exported = exported(stats);
        left_by_workflows += left.0 + left.1 + left.2;
        proof.measure(
            name.as_str(),
            format!(
                "{} lines: {} added, {} changed, {} removed; {} of them written by the workflows",
                lines.len(),
                exported.0,
                exported.1,
                exported.2,
                left.0 + left.1 + left.2
            ),
        );
        let at = name.as_str();
        proof.demand(
            in_lines == exported,
            at,
            format!("the files hold {in_lines:?}, the manifest {exported:?}"),
        );
        // Files are exported one by one, under other names of parts.
        let differ = match place.kind {
            StoreKind::Files => vec![(at.to_owned(), exact, exported)],
            _ => by_table(at, &since_promotion, stats),
        };
        for (what, exact, exported) in differ {
            proof.demand(
                covers(exported, exact),
                what,
                format!("the difference since the promotion is {exact:?}, exported were {exported:?}"),
            );
        }
        for missing in missing_rows(place.kind, &by_workflows, &lines) {
            proof.demand(false, at, format!("written by a workflow and not in the export: {missing}"));
        }
    }
    proof.demand(ran.done(), "rollback", ran.why());
    if left_by_workflows == 0 {
        proof.not_run("no workflow left anything behind, so nothing could be missing; add one that writes");
    }
    Ok(proof)
}

/// What was written since the promotion, and since the workflows were run; `None` without earlier data.
fn differences(
    lab: &Lab<'_>,
    abandoned: &Instance,
    before_writes: &Instance,
    store: &StoreName,
) -> Result<Option<(StoreDiff, StoreDiff)>, Stop> {
    let data = &lab.world.data;
    lab.placed(abandoned, |after, work| {
        let base = data.base(after);
        let (base, earlier) =
            (Placement { instance: &base, ..*after }, Placement { instance: before_writes, ..*after });
        if !data.exists(&base, store)? || !data.exists(&earlier, store)? {
            return Ok(None);
        }
        let since_promotion = data.diff(&base, after, CloneMode::Cold, store, work)?;
        Ok(Some((since_promotion, data.diff(&earlier, after, CloneMode::Cold, store, work)?)))
    })
}

fn count(diff: &StoreDiff) -> Counts {
    diff.parts
        .iter()
        .fold((0, 0, 0), |(a, c, r), p| (a + p.rows_added, c + p.rows_changed, r + p.rows_removed))
}

/// Whether an export has at least what differs. A row that has another key since is changed for the one, and removed and added for
/// the other.
fn covers(exported: Counts, exact: Counts) -> bool {
    exported.0 + exported.1 >= exact.0 + exact.1 && exported.2 + exported.1 >= exact.2 + exact.1
}

/// What differs and what was exported, table by table. Where a sequence stands is no row.
fn by_table(store: &str, diff: &StoreDiff, stats: &ExportStats) -> Vec<(String, Counts, Counts)> {
    let tables = diff.parts.iter().filter(|p| !p.name.ends_with(" (sequence)"));
    tables
        .map(|p| {
            let exact = (p.rows_added, p.rows_changed, p.rows_removed);
            let found = stats.parts.get(&p.name).map_or((0, 0, 0), |e| (e.inserted, e.updated, e.deleted));
            (format!("{store}.{}", p.name), exact, found)
        })
        .collect()
}

fn exported(stats: &ExportStats) -> Counts {
    stats.parts.values().fold((0, 0, 0), |(a, c, r), p| (a + p.inserted, c + p.updated, r + p.deleted))
}

/// Reads every line of every file of an export, and counts what each says.
fn read_lines(out: &Path, stats: &ExportStats) -> Result<(Vec<(String, Value)>, Counts), EngineError> {
    let mut lines = Vec::new();
    let mut counts = (0, 0, 0);
    for (name, part) in &stats.parts {
        let path = out.join(&part.file);
        if part.inserted + part.updated + part.deleted == 0 && !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        for line in text.lines() {
            let value: Value = serde_json::from_str(line)
                .map_err(|e| EngineError::Damaged { what: path.clone(), detail: e.to_string() })?;
            match value.get("op").and_then(Value::as_str) {
                Some("insert") => counts.0 += 1,
                Some("update") => counts.1 += 1,
                Some("delete") => counts.2 += 1,
                other => {
                    return Err(EngineError::Damaged {
                        what: path,
                        detail: format!("a line does {other:?}"),
                    });
                }
            }
            lines.push((name.clone(), value));
        }
    }
    Ok((lines, counts))
}

/// Rows and files that the difference shows and the export does not.
fn missing_rows(kind: StoreKind, diff: &StoreDiff, lines: &[(String, Value)]) -> Vec<String> {
    let mut missing = Vec::new();
    for part in &diff.parts {
        if kind == StoreKind::Files {
            let touched = part.rows_added + part.rows_changed + part.rows_removed > 0;
            let there = lines.iter().any(|(_, l)| l.get("path").and_then(Value::as_str) == Some(&part.name));
            if touched && !there {
                missing.push(part.name.clone());
            }
            continue;
        }
        for example in &part.examples {
            // The export may know the row by another key: that which it had before.
            let key = &example.key;
            let in_row =
                |line: &Value| key.iter().all(|(n, v)| line.get("row").and_then(|r| r.get(n)) == Some(v));
            let is = |line: &Value| {
                line.get("key").and_then(Value::as_object) == Some(key) || (!key.is_empty() && in_row(line))
            };
            if !lines.iter().any(|(table, line)| *table == part.name && is(line)) {
                missing.push(format!("{} {}", part.name, Value::Object(key.clone())));
            }
        }
    }
    missing
}
