//! Taking rows away from a sandbox's data, inside containers.

use crate::docker::{BoundMount, Docker, ExecSpec, HELPER_LABEL, NetworkMode, RunSpec, STACK_LABEL, helper};
use crate::error::EngineError;
use crate::home::Home;
use crate::runtime::compose::container_of;
use crate::verify::mutate::{MUTATE_VERB, Mutation};
use std::collections::BTreeMap;
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;
use switchback_core::release::{Instance, MountPlace, Server, StorePlace};

/// Where a volume is seen by the helper: a path that only a sandbox's data has.
const TARGET: &str = "/.switchback/verify/data";
/// Every user table with its number of rows; `%I` quotes what needs quotes.
const TABLES: &str = "SELECT format('%I.%I', schemaname, tablename) || ' ' || (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I.%I', schemaname, tablename), false, true, '')))[1]::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema');\n";

fn internal(detail: impl Into<String>) -> EngineError {
    EngineError::Internal { detail: detail.into() }
}

/// Takes rows away; the store must be a volume of the sandbox.
pub fn lose_rows(
    docker: &Docker,
    home: &Home,
    instance: &Instance,
    (store, not): (&StoreName, &[String]),
) -> Result<Mutation, EngineError> {
    let place = instance.stores.get(store).ok_or_else(|| internal(format!("there is no store {store}")))?;
    let Some(MountPlace::Volume(volume)) = place.mount.as_ref().map(|m| &m.at) else {
        return Err(internal(format!("{store} lies in no volume")));
    };
    // Only data of a sandbox is ever damaged, whoever calls this.
    let id = home.id()?;
    if !super::super::super::sandbox::is_inside(home.root())
        || docker.scratch_volume(volume, &id, &[])?.is_none()
    {
        return Err(internal(format!("{volume} is not a sandbox's")));
    }
    match &place.server {
        Some(server) => from_server(docker, instance, server, not),
        None => from_files(docker, &id, place, volume),
    }
}

fn from_files(docker: &Docker, id: &str, place: &StorePlace, volume: &str) -> Result<Mutation, EngineError> {
    let verb = if place.kind == StoreKind::Sqlite { "lose-rows" } else { "lose-file" };
    let target = format!("{TARGET}/{}", place.path);
    let spec = RunSpec {
        image: helper::ensure(docker, &helper::this_program())?,
        entrypoint: Some([helper::PROGRAM, MUTATE_VERB, verb, &target, "-"].map(str::to_owned).to_vec()),
        user: Some("0:0".to_owned()),
        mounts: vec![BoundMount {
            place: MountPlace::Volume(volume.to_owned()),
            target: TARGET.to_owned(),
            read_only: false,
        }],
        network: NetworkMode::None,
        cap_drop_all: true,
        cap_add: vec!["DAC_OVERRIDE".to_owned()],
        read_only_root: true,
        unlabelled: true,
        labels: BTreeMap::from([
            (STACK_LABEL.to_owned(), id.to_owned()),
            (HELPER_LABEL.to_owned(), "1".to_owned()),
        ]),
        ..RunSpec::default()
    };
    let mut out = Vec::new();
    let ended = docker.run(&spec, None, &mut out, &|| false)?;
    if ended.code != 0 {
        return Err(internal(format!("no rows were taken away: {}", ended.stderr_tail.trim())));
    }
    serde_json::from_slice(&out).map_err(|e| internal(format!("unexpected answer of a helper: {e}")))
}

fn from_server(
    docker: &Docker,
    instance: &Instance,
    server: &Server,
    not: &[String],
) -> Result<Mutation, EngineError> {
    let Some(container) = container_of(docker, instance, &server.service)? else {
        return Err(internal(format!("{} has no container", server.service)));
    };
    let variable = |name: &str| {
        container.env.iter().find_map(|e| e.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let password = server.password_env.as_deref().and_then(variable);
    let database = server.databases.first().cloned().or_else(|| variable("POSTGRES_DB"));
    let database = database.unwrap_or_else(|| server.user.clone());
    let ask = |sql: &str| -> Result<String, EngineError> {
        let argv =
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &server.user, "-d", &database];
        let spec = ExecSpec {
            argv: argv.map(str::to_owned).to_vec(),
            env: password.iter().map(|p| ("PGPASSWORD".to_owned(), p.clone())).collect(),
            ..ExecSpec::default()
        };
        let (mut input, mut out) = (sql.as_bytes(), Vec::new());
        let ended = docker.exec(&container.id, &spec, Some(&mut input), &mut out, &|| false)?;
        if ended.code != 0 {
            return Err(internal(format!("no rows were taken away: {}", ended.stderr_tail.trim())));
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    };
    let tables = ask(TABLES)?;
    let bare = |table: &str| table.rsplit('.').next().unwrap_or(table).trim_matches('"').to_owned();
    let largest = tables
        .lines()
        .filter_map(|l| l.rsplit_once(' '))
        .filter_map(|(table, rows)| Some((rows.parse::<u64>().ok()?, table)))
        .filter(|(rows, table)| {
            let name = bare(table);
            *rows > 0 && !crate::ops::is_bookkeeping(&name) && !not.contains(&name)
        })
        .max();
    let Some((before, table)) = largest else { return Err(internal("no table has a row to lose")) };
    // One in a hundred: few enough that only an exact comparison notices. No trigger and no cascade takes part.
    let lose = (before / 100).max(1);
    let sql = format!(
        "SET session_replication_role = replica;\nWITH gone AS (DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT {lose})) RETURNING 1) SELECT count(*) FROM gone;\n"
    );
    let lost = ask(&sql)?.trim().parse().unwrap_or(0);
    Ok(Mutation { part: bare(table), before, lost })
}
