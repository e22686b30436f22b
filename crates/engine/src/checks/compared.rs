//! Checks that look at the old and the new version at the same time: APIs and performance.

use super::Target;
use crate::check::{api, browser, performance};
use crate::runtime::Usage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::config::{ApiCheck, PerformanceCheck};
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;
use switchback_core::journey::Journey;
use switchback_core::look::Approved;
use switchback_core::workflow::{Endpoint, Redactor, Scope, Template};

/// Runs them, the old version first in `sides`.
pub fn compare(
    apis: &[ApiCheck],
    times: &[PerformanceCheck],
    sides: (&Target<'_>, &Target<'_>),
    say: &dyn Fn(&str),
    cancelled: &dyn Fn() -> bool,
    results: &mut Vec<CheckResult>,
) {
    let (old, new) = sides;
    let exercised = exercised(results, &new.environment);
    for check in apis {
        say(&format!("API of {}, old and new", check.service));
        let result = prepared(sides, &check.service, &check.headers).map(|p| {
            let sides = api::Sides {
                old: &p.old,
                new: &p.new,
                headers: p.headers,
                redactor: p.redactor,
                environment: new.environment.clone(),
                exercised: exercised.clone(),
                cancelled,
            };
            api::run(check, &sides)
        });
        results.push(
            result.unwrap_or_else(|why| {
                inconclusive(format!("api/{}", check.service), CheckKind::Api, new, why)
            }),
        );
    }
    for check in times {
        say(&format!("performance {}, old and new in turn", check.name));
        let usage = |of_new: bool| {
            let target = if of_new { new } else { old };
            let all = target.world.runtime.usage(&target.placement).ok()?;
            let own = all.get(&check.service).copied()?;
            Some(Usage { transactions: transactions(target), ..own })
        };
        let result = prepared(sides, &check.service, &check.headers).map(|p| {
            let sides = performance::Sides {
                old: &p.old,
                new: &p.new,
                headers: p.headers,
                redactor: p.redactor,
                environment: new.environment.clone(),
                usage: &usage,
                requests: times.len(),
                run_dir: new.run_dir.to_owned(),
                cancelled,
                say,
            };
            performance::run(check, &sides)
        });
        results.push(result.unwrap_or_else(|why| {
            inconclusive(format!("performance/{}", check.name), CheckKind::Performance, new, why)
        }));
    }
}

/// Transactions so far of all Postgres databases together; none if there is none that answers.
fn transactions(target: &Target<'_>) -> Option<u64> {
    let stores = target.placement.instance.stores.iter();
    let servers = stores.filter(|(_, place)| place.kind == StoreKind::Postgres && place.server.is_some());
    let mut sum = None;
    for (name, _) in servers {
        let found = target.sql(name, crate::store::postgres::TRANSACTIONS, &[]).ok()?;
        let count = found.as_u64().or_else(|| found.as_str()?.parse().ok())?;
        *sum.get_or_insert(0) += count;
    }
    sum
}

/// Walks journeys in a browser, on the old side and then on the new one.
pub fn walk(
    (journeys, approved): (&[(String, Journey)], &Approved),
    (old, new): (&Target<'_>, &Target<'_>),
    say: &dyn Fn(&str),
    cancelled: &dyn Fn() -> bool,
    results: &mut Vec<CheckResult>,
) {
    for (id, journey) in journeys {
        say(&format!("journey {id} in a browser, old and new"));
        let (old_ends, new_ends) = (old.endpoints(), new.endpoints());
        let known = |target: &Target<'_>, name: &str| {
            std::env::var(name).ok().or_else(|| target.world.runtime.variable(&target.placement, name))
        };
        let (of_old, of_new) = (|name: &str| known(old, name), |name: &str| known(new, name));
        let ids = [old, new].map(|t| format!("{}-{}", t.run, t.environment.replace(' ', "-")));
        let side = |target: &Target<'_>| {
            let redactor = Redactor::from_values(target.world.runtime.secrets(&target.placement));
            (target.environment.clone(), redactor)
        };
        let ((old_name, old_redactor), (new_name, new_redactor)) = (side(old), side(new));
        let sides = [
            browser::Side {
                environment: old_name,
                scope: Scope { run_id: &ids[0], endpoints: &old_ends, env: &of_old, vars: BTreeMap::new() },
                redactor: old_redactor,
            },
            browser::Side {
                environment: new_name,
                scope: Scope { run_id: &ids[1], endpoints: &new_ends, env: &of_new, vars: BTreeMap::new() },
                redactor: new_redactor,
            },
        ];
        results.extend(browser::run(id, journey, &sides, new.run_dir, approved, cancelled));
    }
}

fn inconclusive(id: String, kind: CheckKind, target: &Target<'_>, why: String) -> CheckResult {
    super::blank(id, kind, target, Verdict::Inconclusive { why }, Instant::now())
}

struct Prepared {
    old: Endpoint,
    new: Endpoint,
    headers: Vec<(String, String)>,
    redactor: Redactor,
}

fn prepared(
    (old, new): (&Target<'_>, &Target<'_>),
    service: &ServiceName,
    headers: &BTreeMap<String, String>,
) -> Result<Prepared, String> {
    let endpoint = |target: &Target<'_>| {
        let found = target.endpoints().remove(service);
        found.ok_or_else(|| format!("{} has no service {service}", target.environment))
    };
    let (old_endpoint, new_endpoint) = (endpoint(old)?, endpoint(new)?);
    let known =
        |name: &str| std::env::var(name).ok().or_else(|| new.world.runtime.variable(&new.placement, name));
    let mut secrets = old.world.runtime.secrets(&old.placement);
    secrets.extend(new.world.runtime.secrets(&new.placement));
    let scope = Scope { run_id: new.run, endpoints: &BTreeMap::new(), env: &known, vars: BTreeMap::new() };
    let mut filled = Vec::new();
    for (name, text) in headers {
        let value = Template::parse(text)
            .and_then(|t| t.render(&scope).map_err(|e| e.to_string()))
            .map_err(|e| format!("the header {name}: {e}"))?;
        if value != *text {
            secrets.push(value.clone());
        }
        filled.push((name.clone(), value));
    }
    let redactor = Redactor::from_values(secrets);
    Ok(Prepared { old: old_endpoint, new: new_endpoint, headers: filled, redactor })
}

/// The requests that workflows made, from what their steps saw: `POST /api/notes -> 201`.
fn exercised(results: &[CheckResult], environment: &str) -> BTreeSet<String> {
    let workflows = results.iter().filter(|c| c.kind == CheckKind::Workflow && c.environment == environment);
    let steps = workflows.flat_map(|c| &c.steps);
    steps.filter_map(|s| s.seen.split_once(" -> ").map(|(request, _)| request.to_owned())).collect()
}
