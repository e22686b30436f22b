//! The data: sizes, room, sharing of blocks, and what the Postgres servers say.

use super::super::Findings;
use super::{Project, Scene};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use switchback_core::data::StoreKind;
use switchback_core::duration::human_bytes;
use switchback_core::ids::{Digest, GenerationId, StoreName};
use switchback_core::release::{FORMAT, Instance, MountPlace, PRODUCTION, Release, Shared};
use switchback_engine::data::{ComposeData, MountFacts};
use switchback_engine::docker::Docker;
use switchback_engine::gather::{RESERVE_BYTES, free_bytes};
use switchback_engine::runtime::Placement;
use switchback_engine::runtime::compose::{engine_free_bytes, of_project};

/// Looks at the data of production.
pub fn look(scene: &Scene<'_>, project: &Project, findings: &mut Findings) {
    let Some(docker) = scene.docker else { return };
    let data = ComposeData::new(Arc::clone(docker));
    let (instance, release) = production(scene, project);
    match data.mount_facts(scene.home, &instance) {
        Ok(facts) => {
            present(&facts, findings);
            room(scene, docker, &facts, findings);
            sharing(&facts, findings);
        }
        Err(e) => findings.error("stores", &e),
    }
    let running: Vec<String> = of_project(docker, project.model.project())
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, c)| c.state.running)
        .map(|(service, _)| service)
        .collect();
    let at = Placement { home: scene.home, config: &project.config, instance: &instance, release: &release };
    for (name, place) in instance.stores.iter().filter(|(_, p)| p.kind == StoreKind::Postgres) {
        let Some(server) = &place.server else { continue };
        if running.iter().any(|s| s == server.service.as_str()) {
            postgres(&data, &at, name, findings);
        } else {
            findings.warning(
                "postgres",
                format!("{name}: {} does not run, so it could not be asked", server.service),
                "`switchback up` starts it",
            );
        }
    }
}

/// Production's current generation, or what would become the first.
fn production(scene: &Scene<'_>, project: &Project) -> (Instance, Release) {
    let home = scene.home;
    let current = home.pointer().ok().flatten().and_then(|p| home.generation(p.current).ok());
    if let Some(generation) = current
        && let Ok(release) = home.release(&generation.instance.release)
    {
        return (generation.instance, release);
    }
    let mut stores = project.stores.clone();
    // What only the engine knows the name of is found by `up`.
    stores.retain(
        |_, p| !matches!(p.mount.as_ref().map(|m| &m.at), Some(MountPlace::Volume(name)) if name.is_empty()),
    );
    let instance = Instance {
        environment: PRODUCTION.to_owned(),
        generation: GenerationId(1),
        release: Digest(String::new()),
        versions: BTreeMap::new(),
        dir: "generations/1".to_owned(),
        stores,
        ports: BTreeMap::new(),
        project: Some(project.model.project().to_owned()),
        shared: Shared::default(),
        closed: false,
    };
    (instance, Release { format: FORMAT, services: BTreeMap::new(), config: BTreeMap::new(), model: None })
}

fn names(stores: &[StoreName]) -> String {
    stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ")
}

fn shown(at: &MountPlace) -> String {
    match at {
        MountPlace::Volume(name) => format!("the volume {name}"),
        MountPlace::Dir(path) => path.clone(),
    }
}

fn present(facts: &[MountFacts], findings: &mut Findings) {
    for mount in facts {
        match mount.bytes {
            Some(bytes) => findings.ok(
                "stores",
                format!("{}: {} of data on {}", names(&mount.stores), human_bytes(bytes), shown(&mount.at)),
            ),
            None => findings.warning(
                "stores",
                format!("{}: {} does not exist", names(&mount.stores), shown(&mount.at)),
                "the engine makes it at the first start; if there was data, it is elsewhere",
            ),
        }
    }
}

/// Compares what clones need with what is free, where they will lie.
fn room(scene: &Scene<'_>, docker: &Docker, facts: &[MountFacts], findings: &mut Findings) {
    let copies = if scene.config.rehearsal.code_only_rollback { 4 } else { 3 };
    // Per place: none is the engine's own, else the folder of the host.
    let mut needs: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    let mut there: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for mount in facts {
        let bytes = if mount.shared == Some(true) { 0 } else { mount.bytes.unwrap_or(0) };
        *needs.entry(mount.beside.as_deref()).or_default() += bytes;
        there.extend(mount.free_bytes.map(|free| (mount.beside.as_deref(), free)));
    }
    for (place, bytes) in needs {
        let (here, shown) = match place {
            None => (engine_free_bytes(docker), "where the engine keeps its data".to_owned()),
            Some(path) => {
                let free = docker.is_local().then(|| free_bytes(Path::new(path)).ok()).flatten();
                (free, format!("at {path}"))
            }
        };
        let Some(free) = here.or_else(|| there.get(&place).copied()) else {
            findings.ok("disk", format!("{shown}: the free space is not known here"));
            continue;
        };
        let need = bytes.saturating_mul(copies).saturating_add(RESERVE_BYTES);
        let text = format!(
            "{shown}: a rehearsal needs {} ({copies} copies of {} and {} in reserve); {} are free",
            human_bytes(need),
            human_bytes(bytes),
            human_bytes(RESERVE_BYTES),
            human_bytes(free)
        );
        if free < need {
            findings.problem(
                "disk",
                text,
                "free some space; `switchback gc` removes what is no longer needed",
            );
        } else {
            findings.ok("disk", text);
        }
    }
}

fn sharing(facts: &[MountFacts], findings: &mut Findings) {
    let of = |wanted: Option<bool>| -> Vec<&MountFacts> {
        facts.iter().filter(|m| m.bytes.is_some() && m.shared == wanted).collect()
    };
    let total = |mounts: &[&MountFacts]| human_bytes(mounts.iter().filter_map(|m| m.bytes).sum());
    let list =
        |mounts: &[&MountFacts]| mounts.iter().map(|m| names(&m.stores)).collect::<Vec<_>>().join(", ");
    let (shared, copied, unknown) = (of(Some(true)), of(Some(false)), of(None));
    if !shared.is_empty() {
        findings.ok(
            "reflink",
            format!(
                "{}: {} share blocks when cloned (reflink): a rehearsal pauses its services for well under a second, however much it is",
                list(&shared),
                total(&shared)
            ),
        );
    }
    if !copied.is_empty() {
        findings.ok(
            "reflink",
            format!(
                "{}: {} are copied (this file system shares no blocks): most of it while the services run, the rest in a pass that pauses them for at most 2 s; XFS or btrfs would take no time",
                list(&copied),
                total(&copied)
            ),
        );
    }
    if !unknown.is_empty() {
        findings.ok(
            "reflink",
            format!(
                "{}: whether {} share blocks when cloned is found out by the first rehearsal",
                list(&unknown),
                total(&unknown)
            ),
        );
    }
}

fn postgres(data: &ComposeData, at: &Placement<'_>, name: &StoreName, findings: &mut Findings) {
    let facts = match data.postgres_facts(at, name) {
        Ok(facts) => facts,
        // The server's own words, for example that the role does not exist.
        Err(e) => return findings.error("postgres", &e),
    };
    let server = &facts.server;
    let databases: Vec<&str> = server.databases.iter().map(|d| d.name.as_str()).collect();
    let archive = if server.archives { ", archives its WAL" } else { "" };
    findings.ok(
        "postgres",
        format!(
            "{name}: Postgres {} answers as role {} (databases: {}{archive})",
            server.version,
            server.role,
            databases.join(", ")
        ),
    );
    for warning in server.warnings() {
        findings.warning(
            "postgres",
            format!("{name}: {warning}"),
            "see the documentation on Postgres stores",
        );
    }
    if server.archives {
        findings.warning(
            "postgres",
            format!("{name}: the server archives its WAL"),
            "copies of it in staging never do; take a new base backup after a promotion or a rollback: WAL of two histories would meet in the archive",
        );
    }
    if facts.refusals.is_empty() {
        findings.ok("replication", format!("{name}: the server can be copied by replication"));
        for cost in &facts.costs {
            findings.warning("replication", format!("{name}: {cost}"), "watch the disk during a rehearsal");
        }
    } else {
        findings.ok(
            "replication",
            format!(
                "{name}: no copy by replication, its files are cloned instead: {}",
                facts.refusals.join("; ")
            ),
        );
    }
}
