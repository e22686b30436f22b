//! The plan of a rehearsal.

use super::{CheckPhase, CloneMode, Group, Majors, OnFailure, Op, Plan, Procedure, Steps, stores_in};
use crate::ids::{Digest, GenerationId, RunId, ServiceName, StackName};
use crate::release::{FORMAT, Instance, Shared};
use std::collections::BTreeMap;

/// What the plan of a rehearsal is made from.
#[derive(Debug, Clone)]
pub struct RehearseFacts {
    /// The new run.
    pub run: RunId,
    /// The stack.
    pub stack: StackName,
    /// UTC, milliseconds since 1970.
    pub now_ms: i64,
    /// Absolute path of the state folder.
    pub state_dir: String,
    /// Production as it is; nothing of it is changed.
    pub production: Instance,
    /// The release to try.
    pub target: Digest,
    /// Its versions.
    pub target_versions: BTreeMap<ServiceName, String>,
    /// Ports of the target release in production, to know the names.
    pub target_ports: BTreeMap<ServiceName, BTreeMap<String, u16>>,
    /// Services of the target release that have a migration command, in order.
    pub migrate: Vec<ServiceName>,
    /// Free ports to give out; enough for three times all ports.
    pub free_ports: Vec<u16>,
    /// Bytes that the clones need.
    pub need_bytes: u64,
    /// Rollback budget.
    pub budget_ms: u64,
    /// How long the certificate is valid.
    pub valid_ms: u64,
    /// Whether to try the old version on the migrated data.
    pub code_only: bool,
    /// Whether there are migration files to look at.
    pub lint: bool,
    /// Stores whose data is converted for servers of another major version.
    pub convert: Majors,
    /// Whether to record what the migration does to databases that can do so.
    pub trace: bool,
    /// Whether to record what databases are asked during the checks.
    pub queries: bool,
    /// Whether production is running (its stores are cloned live then).
    pub production_runs: bool,
}

/// Makes the plan of a rehearsal.
pub fn rehearse(facts: &RehearseFacts) -> Plan {
    let mut pool = facts.free_ports.iter().copied();
    let mut give = |like: &BTreeMap<ServiceName, BTreeMap<String, u16>>| -> BTreeMap<ServiceName, BTreeMap<String, u16>> {
        like.iter()
            .map(|(s, ports)| (s.clone(), ports.keys().map(|p| (p.clone(), pool.next().unwrap_or(0))).collect()))
            .collect()
    };
    let production = &facts.production;
    let candidate_ports = give(&facts.target_ports);
    let place = |environment: &str, generation: u32, new: bool, ports| {
        let dir = format!("staging/{}/{environment}/g{generation}", facts.run);
        Instance {
            environment: environment.to_owned(),
            generation: GenerationId(generation),
            release: if new { facts.target.clone() } else { production.release.clone() },
            versions: if new { facts.target_versions.clone() } else { production.versions.clone() },
            stores: stores_in(
                &production.stores,
                &format!("{}/{dir}", facts.state_dir),
                production.project.as_deref().unwrap_or(""),
                &dir.replace('/', ".").to_lowercase(),
            ),
            dir,
            ports,
            // Lower case, as Compose wants it; the run's end differs most between runs.
            project: production.project.as_ref().map(|_| {
                let run = facts.run.as_str().to_lowercase();
                format!("sb-{}-{environment}", run.get(run.len().saturating_sub(12)..).unwrap_or(&run))
            }),
            shared: Shared::default(),
            closed: false,
        }
    };
    // The old release keeps the candidate's port numbers where names agree: the same environment
    // is switched forward and back, as production will be.
    let mut old_ports = give(&production.ports);
    for (service, ports) in &mut old_ports {
        for (name, port) in ports {
            if let Some(same) = candidate_ports.get(service).and_then(|p| p.get(name)) {
                *port = *same;
            }
        }
    }
    let baseline = place("baseline", 1, false, give(&production.ports));
    let old = place("candidate", 1, false, old_ports);
    let new = place("candidate", 2, true, candidate_ports);
    let code_only = place("code-only", 1, false, give(&production.ports));

    let (prod, base, old_key, new_key, code_key) =
        (production.key(), baseline.key(), old.key(), new.key(), code_only.key());
    let mut steps = Steps::new();
    use CloneMode::{Cold, Live};
    use OnFailure::Continue;

    steps.add(
        "preflight",
        "Check disk space, artefacts and ports",
        Group::Prepare,
        Op::Preflight { target: new_key.clone(), need_bytes: facts.need_bytes },
    );
    if facts.lint {
        steps.add("lint", "Look at the migration files", Group::Prepare, Op::Lint).on_failure(Continue);
    }
    let mut staging = vec![base.clone(), old_key.clone(), new_key.clone()];
    if facts.code_only {
        staging.push(code_key.clone());
    }
    for key in &staging {
        let id = format!("prepare-{}", key.replace('/', "-"));
        steps
            .add(&id, format!("Prepare {key}"), Group::Prepare, Op::Prepare { instance: key.clone() })
            .reversible();
    }
    let mode = if facts.production_runs { Live } else { Cold };
    let title = if facts.production_runs {
        "Snapshot production while it runs"
    } else {
        "Snapshot production (it is not running)"
    };
    steps.add("snapshot", title, Group::Prepare, Op::Clone { from: prod, to: old_key.clone(), mode });
    steps.add(
        "fingerprint-snapshot",
        "Take the fingerprint of the snapshot",
        Group::Prepare,
        Op::Fingerprint { instance: old_key.clone(), mode: Cold, equal_to: None },
    );
    steps.add(
        "clone-baseline",
        "Clone the snapshot for the baseline",
        Group::Prepare,
        Op::Clone { from: old_key.clone(), to: base.clone(), mode: Cold },
    );
    steps.add(
        "verify-clone",
        "Compare the clone with the snapshot",
        Group::Prepare,
        Op::Fingerprint { instance: base.clone(), mode: Cold, equal_to: Some("fingerprint-snapshot".into()) },
    );
    if facts.queries {
        let op = Op::QueriesBegin { instance: base.clone(), beside: None };
        steps
            .add(
                "queries-begin-baseline",
                "Prepare to count the old version's statements",
                Group::Prepare,
                op,
            )
            .on_failure(Continue);
    }
    steps
        .add(
            "start-baseline",
            "Start the baseline: the old version on a clone",
            Group::Baseline,
            Op::Start { instance: base.clone() },
        )
        .reversible();
    steps
        .add(
            "start-old",
            "Start the old version in the candidate environment",
            Group::Baseline,
            Op::Start { instance: old_key.clone() },
        )
        .reversible();
    steps.add("stop-old", "Stop the old version", Group::Switch, Op::Stop { instance: old_key.clone() });
    steps.add(
        "clone-candidate",
        "Clone its data for the new generation",
        Group::Switch,
        Op::Clone { from: old_key.clone(), to: new_key.clone(), mode: Cold },
    );
    let mut started = vec!["clone-candidate".to_owned()];
    if !facts.convert.is_empty() {
        steps.convert(&new_key, &old_key, &facts.convert).on_failure(Continue).requires(&["clone-candidate"]);
        started = vec!["convert".to_owned()];
    }
    if facts.trace {
        let op = Op::TraceBegin { instance: new_key.clone() };
        let needs: Vec<&str> = started.iter().map(String::as_str).collect();
        steps
            .add("trace-begin", "Prepare to trace the migration", Group::Switch, op)
            .on_failure(Continue)
            .requires(&needs);
    }
    if facts.queries {
        let op = Op::QueriesBegin { instance: new_key.clone(), beside: Some(base.clone()) };
        let needs: Vec<&str> = started.iter().map(String::as_str).collect();
        steps
            .add("queries-begin", "Prepare to count the new version's statements", Group::Switch, op)
            .on_failure(Continue)
            .requires(&needs);
    }
    for service in &facts.migrate {
        let id = format!("migrate-{service}");
        let needs: Vec<&str> = started.iter().map(String::as_str).collect();
        let op = Op::Migrate { instance: new_key.clone(), service: service.clone(), source: old_key.clone() };
        steps
            .add(
                &id,
                format!(
                    "Migrate the data of {service} to {}",
                    facts.target_versions.get(service).map_or("", String::as_str)
                ),
                Group::Switch,
                op,
            )
            .on_failure(Continue)
            .requires(&needs);
        started = vec![id];
    }
    let needs: Vec<&str> = started.iter().map(String::as_str).collect();
    steps
        .add(
            "start-new",
            "Start the new version and wait until it is healthy",
            Group::Switch,
            Op::Start { instance: new_key.clone() },
        )
        .reversible()
        .on_failure(Continue)
        .requires(&needs);
    steps
        .add(
            "read-back-new",
            "Read back what runs",
            Group::Switch,
            Op::ReadBack { instance: new_key.clone() },
        )
        .on_failure(Continue)
        .requires(&["start-new"]);
    if facts.trace {
        // Also of a version that did not start: why is often found here.
        let op = Op::TraceEnd { instance: new_key.clone() };
        steps
            .add("trace-end", "Read what the migration did", Group::Check, op)
            .on_failure(Continue)
            .requires(&["trace-begin"]);
    }
    steps
        .add(
            "fingerprint-before",
            "Take the fingerprint of the old generation",
            Group::Check,
            Op::Fingerprint { instance: old_key.clone(), mode: Cold, equal_to: None },
        )
        .on_failure(Continue);
    steps
        .add(
            "diff",
            "Compare the data before and after the migration",
            Group::Check,
            Op::Diff { before: old_key.clone(), after: new_key.clone() },
        )
        .on_failure(Continue)
        .requires(&["start-new"]);
    if facts.queries {
        let op = Op::QueriesReset { instances: vec![base.clone(), new_key.clone()] };
        steps
            .add("queries-reset", "Count statements from here on", Group::Check, op)
            .on_failure(Continue)
            .requires(&["start-new"]);
    }
    let (old_side, new_side) = (base.clone(), new_key.clone());
    steps
        .add(
            "checks",
            "Run the checks on old and new side by side",
            Group::Check,
            Op::Check { instances: vec![base, new_key.clone()], phase: CheckPhase::Staging },
        )
        .on_failure(Continue)
        .requires(&["start-new"]);
    if facts.queries {
        let op = Op::Queries { before: old_side, after: new_side };
        steps
            .add("queries", "Compare what the databases were asked", Group::Check, op)
            .on_failure(Continue)
            .requires(&["queries-reset"]);
    }
    if facts.code_only {
        steps
            .add(
                "clone-code-only",
                "Clone the migrated data",
                Group::Check,
                Op::Clone { from: new_key.clone(), to: code_key.clone(), mode: Live },
            )
            .on_failure(Continue)
            .requires(&["start-new"]);
        steps
            .add(
                "start-code-only",
                "Try the old version on the migrated data",
                Group::Check,
                Op::Start { instance: code_key.clone() },
            )
            .reversible()
            .on_failure(Continue)
            .requires(&["clone-code-only"]);
        steps
            .add(
                "checks-code-only",
                "Run the checks on the old version with migrated data",
                Group::Check,
                Op::Check { instances: vec![code_key], phase: CheckPhase::CodeOnly },
            )
            .on_failure(Continue)
            .requires(&["start-code-only"]);
    }
    steps
        .add(
            "fingerprint-untouched",
            "Confirm that the old generation's data was not touched",
            Group::Check,
            Op::Fingerprint {
                instance: old_key.clone(),
                mode: Cold,
                equal_to: Some("fingerprint-before".into()),
            },
        )
        .on_failure(Continue)
        .requires(&["fingerprint-before"]);
    steps
        .add(
            "rollback-stop",
            "Roll back for real: stop the new version",
            Group::Rollback,
            Op::Stop { instance: new_key.clone() },
        )
        .on_failure(Continue);
    steps
        .add(
            "rollback-start",
            "Start the old generation",
            Group::Rollback,
            Op::Start { instance: old_key.clone() },
        )
        .reversible()
        .on_failure(Continue)
        .requires(&["rollback-stop"]);
    steps
        .add(
            "rollback-read-back",
            "Read back what runs",
            Group::Rollback,
            Op::ReadBack { instance: old_key.clone() },
        )
        .on_failure(Continue)
        .requires(&["rollback-start"]);
    steps
        .add(
            "checks-after-rollback",
            "Run the checks after the rollback",
            Group::After,
            Op::Check { instances: vec![old_key.clone()], phase: CheckPhase::AfterRollback },
        )
        .on_failure(Continue)
        .requires(&["rollback-start"]);
    steps.add(
        "dispose",
        "Dispose of the staging environments",
        Group::After,
        Op::Dispose { instances: staging },
    );
    steps.add(
        "certify",
        "Judge, and issue the certificate if everything passed",
        Group::After,
        Op::Certify { from: old_key, to: new_key, valid_ms: facts.valid_ms },
    );

    let mut instances: BTreeMap<String, Instance> =
        [production.clone(), baseline, old, new].into_iter().map(|i| (i.key(), i)).collect();
    if facts.code_only {
        instances.insert(code_only.key(), code_only);
    }
    Plan {
        format: FORMAT,
        run: facts.run.clone(),
        procedure: Procedure::Rehearse,
        stack: facts.stack.clone(),
        made_at_ms: facts.now_ms,
        from: production.versions.clone(),
        to: facts.target_versions.clone(),
        from_generation: Some(production.generation),
        to_generation: None,
        reason: None,
        budget_ms: facts.budget_ms,
        instances,
        steps: steps.0,
    }
}
