//! Judging what a migration did to the data.

use super::data::working;
use super::{Context, Failed};
use crate::fault::{Gap, gap};
use std::collections::BTreeMap;
use std::time::Instant;
use switchback_core::check::{CheckKind, CheckResult, CheckStep, Failure, Overall, Verdict, overall};
use switchback_core::data::{PartChange, PartDiff, StoreDiff, StoreKind};
use switchback_core::ids::StoreName;
use switchback_core::journal::{ErrorKind, Output, StepError};
use switchback_core::plan::CloneMode;
use switchback_core::release::Instance;

/// Tables in which migration tools keep their own books; a migration is expected to change them.
///
/// Alembic, Rails and many others, TypeORM and Laravel, Django, Flyway, Liquibase, Entity Framework, Knex,
/// Prisma, golang-migrate, SQLite itself.
pub(crate) const BOOKKEEPING: [&str; 12] = [
    "alembic_version",
    "schema_migrations",
    "ar_internal_metadata",
    "migrations",
    "django_migrations",
    "flyway_schema_history",
    "databasechangelog",
    "__efmigrationshistory",
    "knex_migrations",
    "knex_migrations_lock",
    "_prisma_migrations",
    "sqlite_sequence",
];

/// Problems of the data from before the upgrade that are named one by one.
const KNOWN_BEFORE: usize = 5;

/// Whether a table holds a migration tool's own books.
pub fn is_bookkeeping(table: &str) -> bool {
    BOOKKEEPING.contains(&table.to_ascii_lowercase().as_str())
}

/// Looks for damage in the data of an instance that runs. It was in what was backed up, too: that decides nothing here, and is told.
pub fn integrity(context: &Context<'_>, key: &str) -> Result<Output, Failed> {
    let instance = context.instance(key)?;
    let release = context.release(instance)?;
    let at = context.placement(instance, &release);
    let data = &context.world.data;
    let mut output = Output::default();
    for name in instance.stores.keys() {
        if !data.exists(&at, name)? {
            continue;
        }
        let found =
            working(context, "looking for damage", |w| data.integrity(&at, name, CloneMode::Live, w))?;
        if found.is_empty() {
            output.notes.push(format!("{name}: no damage found"));
        }
        let more = found.len().saturating_sub(KNOWN_BEFORE);
        output.notes.extend(found.into_iter().take(KNOWN_BEFORE).map(|p| format!("WARNING: {name}: {p}")));
        if more > 0 {
            output.notes.push(format!("WARNING: {name}: {more} more"));
        }
    }
    context.midway();
    Ok(output)
}

/// Compares two instances' data and judges the difference.
pub fn diff(context: &Context<'_>, before: &str, after: &str) -> Result<Output, Failed> {
    let (before, after) = (context.instance(before)?, context.instance(after)?);
    let (old, new) = (context.release(before)?, context.release(after)?);
    let (was, is) = (context.placement(before, &old), context.placement(after, &new));
    let data = &context.world.data;
    let mut output = Output::default();
    for (name, place) in &after.stores {
        let began = Instant::now();
        if !before.stores.contains_key(name) || !data.exists(&was, name)? {
            continue;
        }
        if gap(Gap::Comparison) {
            output.checks.push(result(name, after, Vec::new(), began, None));
            continue;
        }
        context.say(&format!("comparing {name}"));
        let mut failures = Vec::new();
        if data.exists(&is, name)? {
            let found = working(context, "comparing", |w| data.diff(&was, &is, CloneMode::Live, name, w))?;
            failures.extend(losses(name, place.kind, &found, &context.config.checks.expected_changes));
            let sound = working(context, "checking", |w| data.integrity(&was, name, CloneMode::Cold, w))?;
            let problems = working(context, "checking", |w| data.integrity(&is, name, CloneMode::Live, w))?;
            let mut before = Vec::new();
            for problem in problems {
                if sound.contains(&problem) {
                    before.push(problem);
                } else {
                    failures.push(Failure { at: name.to_string(), what: problem, ..Failure::default() });
                }
            }
            output.notes.push(summary(name, &found));
            // The upgrade did not do it, so it decides nothing; a person should know nevertheless.
            let more = before.len().saturating_sub(KNOWN_BEFORE);
            output.notes.extend(
                before.into_iter().take(KNOWN_BEFORE).map(|p| format!("{name}: {p} (so it was before)")),
            );
            if more > 0 {
                output.notes.push(format!("{name}: {more} more that were so before"));
            }
            output.diffs.insert(name.clone(), found);
        } else {
            failures.push(Failure {
                at: name.to_string(),
                what: "the store is gone".to_owned(),
                ..Failure::default()
            });
        }
        output.checks.push(result(name, after, failures, began, output.diffs.get(name)));
    }
    context.midway();
    if overall(&output.checks) == Overall::Fail {
        let message = output
            .checks
            .iter()
            .filter_map(|c| match &c.verdict {
                Verdict::Fail { reasons } => Some(
                    reasons.iter().map(|r| format!("{}: {}", r.at, r.what)).collect::<Vec<_>>().join("; "),
                ),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join("; ");
        let error = StepError {
            kind: ErrorKind::Refused,
            message,
            hint: Some("if a change is intended, add it to checks.expected_changes (store.table)".to_owned()),
            details: Vec::new(),
        };
        return Err(Failed { error, output: Box::new(output) });
    }
    Ok(output)
}

fn result(
    name: &StoreName,
    after: &Instance,
    failures: Vec<Failure>,
    began: Instant,
    diff: Option<&StoreDiff>,
) -> CheckResult {
    let steps = diff.map_or_else(Vec::new, |d| {
        d.parts
            .iter()
            .take(100)
            .map(|p| CheckStep {
                name: p.name.clone(),
                ok: !failures.iter().any(|f| f.at == format!("{name}.{}", p.name)),
                took_ms: 0,
                seen: describe(p),
            })
            .collect()
    });
    CheckResult {
        looks: Vec::new(),
        id: format!("integrity/{name}"),
        kind: CheckKind::Integrity,
        environment: after.environment.clone(),
        verdict: Verdict::from_failures(failures),
        took_ms: crate::runtime::process::elapsed_ms(began),
        measured: BTreeMap::new(),
        steps,
        artefacts: Vec::new(),
    }
}

fn summary(name: &StoreName, diff: &StoreDiff) -> String {
    let count = |change| diff.parts.iter().filter(|p| p.change == change).count();
    let lost = diff.lost_or_altered();
    format!(
        "{name}: {} unchanged, {} with new columns, {} changed, {} new, {} dropped; {lost} rows or files lost or altered",
        diff.unchanged,
        count(PartChange::ColumnsAdded),
        count(PartChange::Changed),
        count(PartChange::Added),
        count(PartChange::Dropped),
    )
}

/// What happened to one table or file, in words.
pub fn describe(part: &PartDiff) -> String {
    let mut words = Vec::new();
    match part.change {
        PartChange::Unchanged => return "unchanged".to_owned(),
        PartChange::Added => return format!("new ({})", part.after),
        PartChange::Dropped => return format!("dropped ({} before)", part.before),
        PartChange::ColumnsAdded | PartChange::Changed => {}
    }
    if !part.columns_added.is_empty() {
        words.push(format!("columns added: {}", part.columns_added.join(", ")));
    }
    if !part.columns_removed.is_empty() {
        words.push(format!("columns removed: {}", part.columns_removed.join(", ")));
    }
    for (count, what) in
        [(part.rows_added, "added"), (part.rows_removed, "removed"), (part.rows_changed, "changed")]
    {
        if count > 0 {
            words.push(format!("{count} {what}"));
        }
    }
    words.extend(part.notes.iter().cloned());
    if words.is_empty() { "changed".to_owned() } else { words.join("; ") }
}

/// Whether a table or file may change: somebody declared it, or it is a migration tool's own.
pub fn may_change(store: &StoreName, kind: StoreKind, part: &str, expected: &[String]) -> bool {
    let mut names = vec![part];
    // Tables of servers are named `database.schema.table` or `database.table`; a person may leave out what is clear.
    if kind.has_server() {
        names.extend(part.match_indices('.').map(|(at, _)| &part[at + 1..]));
    }
    let table = names.last().copied().unwrap_or(part);
    names.iter().any(|name| expected.iter().any(|e| *e == format!("{store}.{name}")))
        || expected.iter().any(|e| *e == format!("{store}.*"))
        || (kind != StoreKind::Files && is_bookkeeping(table))
}

/// What in a difference is a loss that nobody declared.
pub fn losses(store: &StoreName, kind: StoreKind, diff: &StoreDiff, expected: &[String]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for part in diff.parts.iter().filter(|p| !may_change(store, kind, &p.name, expected)) {
        let mut words = Vec::new();
        let thing = if kind == StoreKind::Files { "files" } else { "rows" };
        match part.change {
            PartChange::Dropped => words.push("is gone".to_owned()),
            PartChange::Unchanged | PartChange::Added | PartChange::ColumnsAdded => {}
            PartChange::Changed if kind == StoreKind::Files => words.push(describe(part)),
            PartChange::Changed => {
                if part.rows_removed > 0 {
                    words.push(format!("{} of {} {thing} are gone", part.rows_removed, part.before));
                }
                if part.rows_changed > 0 {
                    words.push(format!("{} of {} {thing} were altered", part.rows_changed, part.before));
                }
            }
        }
        if !part.columns_removed.is_empty() && part.change != PartChange::Dropped {
            words.push(format!("columns are gone: {}", part.columns_removed.join(", ")));
        }
        if !words.is_empty() {
            let example = part.examples.iter().find(|e| e.before.is_some());
            failures.push(Failure {
                at: format!("{store}.{}", part.name),
                what: words.join(", "),
                expected: example
                    .and_then(|e| e.before.as_ref())
                    .map(|r| shorten(&serde_json::Value::Object(r.clone()).to_string())),
                got: example.map(|e| {
                    e.row.as_ref().map_or_else(
                        || "nothing".to_owned(),
                        |r| shorten(&serde_json::Value::Object(r.clone()).to_string()),
                    )
                }),
                reproduce: None,
            });
        }
    }
    for orphan in &diff.new_orphans {
        failures.push(Failure {
            at: store.to_string(),
            what: format!("orphaned foreign keys: {orphan}"),
            ..Failure::default()
        });
    }
    failures
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
