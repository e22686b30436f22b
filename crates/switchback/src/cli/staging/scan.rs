//! Finding columns that are likely to hold personal data or secrets, and proposing rules for them.

use super::super::output::printable;
use super::super::upgrade::open;
use super::super::{Exit, Global, Output, Trouble};
use super::ScanArgs;
use crate::progress::Progress;
use serde::Serialize;
use std::collections::BTreeMap;
use switchback_core::anonymise::{self, Column, Finding, Likelihood, Mask, propose};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::Instance;
use switchback_engine::data::Work;
use switchback_engine::environments;
use switchback_engine::home::Home;
use switchback_engine::runtime::{Placement, Stage};
use switchback_engine::store;
use switchback_engine::world::World;

#[derive(Debug, Serialize)]
struct Found {
    /// As a rule names it.
    column: String,
    /// Its type.
    sql_type: String,
    #[serde(flatten)]
    finding: Finding,
    /// The mask of the rule that it has.
    rule: Option<Mask>,
}

#[derive(Debug, Serialize)]
struct Scan {
    /// `production`, or the environment.
    of: String,
    /// Columns that were looked at.
    columns: usize,
    /// Stores whose content no rule can reach.
    files: Vec<StoreName>,
    findings: Vec<Found>,
    /// Findings without a rule.
    without_rule: usize,
}

/// Looks at production, or at an environment.
pub fn scan(global: &Global, args: &ScanArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let world = World::open(&config)?;
    let (of, instance) = instance(&home, args.environment.as_deref())?;
    let release = home.release(&instance.release)?;
    let at = Placement { home: &home, config: &config, instance: &instance, release: &release };
    let running = !world.runtime.running(&home, &instance)?.is_empty();
    let mode = if running { CloneMode::Live } else { CloneMode::Cold };
    if mode == CloneMode::Cold && instance.stores.values().any(|s| s.kind.has_server()) {
        // A server would have to be started on it, and a server writes.
        return Err(Trouble::refused(
            format!("{of} is not running"),
            "start it, or scan an environment that runs",
        ));
    }
    let progress = Progress::new(global.quiet);
    // A private copy, where one is needed, is removed at once; only the owner can read it there.
    let temp = home.state();
    let silent = store::Progress::none();
    let work = Work { stage: Stage::quiet(), progress: &silent, temp: &temp };
    let rules = anonymise::rules(&config.staging.anonymise).map_err(|(rule, why)| {
        Trouble::usage(format!("staging.anonymise: {rule}: {why}"), "correct switchback.yaml")
    })?;
    let mut scan = Scan { of, columns: 0, files: Vec::new(), findings: Vec::new(), without_rule: 0 };
    for (name, place) in &instance.stores {
        if place.kind == StoreKind::Files {
            scan.files.push(name.clone());
            continue;
        }
        progress.line(&format!("looking at {name}"));
        let samples = world.data.samples(&at, name, mode, &work)?;
        let columns: Vec<Column> = samples.iter().map(|s| s.column.clone()).collect();
        let own: Vec<_> = rules.iter().filter(|r| r.store == *name).cloned().collect();
        // A rule that means nothing is told when it is used; here the others still count.
        let masks: BTreeMap<usize, Mask> = match anonymise::assign(&own, &columns, &[]) {
            Ok(masks) => masks,
            Err(errors) => {
                for error in errors {
                    progress.line(&format!("  ! staging.anonymise: {}", printable(&error)));
                }
                own.iter()
                    .filter_map(|r| anonymise::assign(std::slice::from_ref(r), &columns, &[]).ok())
                    .flatten()
                    .collect()
            }
        };
        scan.columns += columns.len();
        for (index, sample) in samples.iter().enumerate() {
            if let Some(finding) = propose(sample) {
                let column = format!("{name}.{}", sample.column.path());
                let rule = masks.get(&index).copied();
                scan.findings.push(Found { column, sql_type: sample.column.sql_type.clone(), finding, rule });
            }
        }
    }
    drop(progress);
    scan.findings
        .sort_by(|a, b| b.finding.likelihood.cmp(&a.finding.likelihood).then(a.column.cmp(&b.column)));
    scan.without_rule = scan.findings.iter().filter(|f| f.rule.is_none()).count();
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&scan)?;
    } else {
        print(&out, &scan)?;
    }
    let likely = |f: &&Found| f.rule.is_none() && f.finding.likelihood == Likelihood::Likely;
    Ok(if args.check && scan.findings.iter().any(|f| likely(&f)) { Exit::Refused } else { Exit::Done })
}

fn instance(home: &Home, environment: Option<&str>) -> Result<(String, Instance), Trouble> {
    if let Some(name) = environment {
        return Ok((name.to_owned(), environments::get(home, name)?.instance));
    }
    let Some(pointer) = home.pointer()? else {
        return Err(Trouble::refused(
            "production was never started by Switchback",
            "`switchback up` takes it over",
        ));
    };
    Ok(("production".to_owned(), home.generation(pointer.current)?.instance))
}

fn print(out: &Output, scan: &Scan) -> Result<(), Trouble> {
    out.line(&format!(
        "{}: {} of {} columns are likely to hold personal data or secrets, {} of them without a rule",
        scan.of,
        scan.findings.len(),
        scan.columns,
        scan.without_rule
    ))?;
    for found in &scan.findings {
        let rule = found.rule.map_or("NO RULE".to_owned(), |m| format!("rule: {}", m.as_str()));
        let example = found.finding.example.as_deref().map_or_else(String::new, |e| format!(", such as {e}"));
        out.line(&format!(
            "  {:<6} {:<44} {:<10} {}{example}  [{rule}]",
            found.finding.likelihood.as_str(),
            printable(&found.column),
            found.finding.mask.as_str(),
            printable(&found.finding.why)
        ))?;
    }
    if !scan.files.is_empty() {
        let names: Vec<&str> = scan.files.iter().map(StoreName::as_str).collect();
        out.line(&format!("Not looked into, and not masked: the files in {}", names.join(", ")))?;
    }
    let without: Vec<&Found> = scan.findings.iter().filter(|f| f.rule.is_none()).collect();
    if !without.is_empty() {
        out.line("\nFor switchback.yaml, after you have read it (`keep` says that somebody looked):\n\nstaging:\n  anonymise:")?;
        for found in without {
            // A key with quotes in it, or that YAML would take for something else.
            let plain = found.column.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'));
            let key =
                if plain { found.column.clone() } else { format!("'{}'", found.column.replace('\'', "''")) };
            out.line(&format!("    {}: {}", printable(&key), found.finding.mask.as_str()))?;
        }
    }
    Ok(())
}
