//! Keeping a staging copy's database servers from acting on the world.
//!
//! A clone of a Postgres server has production's archive command, subscriptions and jobs; one of MySQL, its events and replication. Throwaway servers are kept quiet by
//! [`crate::data`]; those that staging itself runs, by settings on their command line.

use super::instance::{command_of, write_model as write};
use super::isolation;
use crate::capture;
use crate::docker::Docker;
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::store::mysql::QUIET;
use crate::store::mysql::trace::{MAY, TRACED};
use crate::store::postgres::{harmless_settings, logging_settings};
use std::collections::BTreeMap;
use switchback_core::config::Capture;
use switchback_core::data::StoreKind;
use switchback_core::ids::ServiceName;

/// The oldest major version whose settings are given: newer ones know them too.
const SINCE: u32 = 13;
/// So many differences from production are told in a step's notes.
const TOLD: usize = 8;

/// Writes the model that an instance runs with. Says what differs from production.
pub fn write_model(docker: &Docker, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
    let mut commands = BTreeMap::new();
    let mut notes = Vec::new();
    // The first generation runs as the user started it.
    if at.instance.is_production() && at.instance.generation.0 > 1 {
        notes.extend(log_rows(docker, at)?);
    }
    if !at.instance.is_production() {
        isolation::prepare(docker, at)?;
        let servers = at.instance.stores.iter().filter_map(|(n, s)| Some((n, s.kind, s.server.as_ref()?)));
        for (name, kind, server) in servers {
            match quiet_command(docker, at, kind, &server.service)? {
                Some(mut command) => {
                    if at.config.archived().contains(name) {
                        // A copy has the slot of the archived log, which nobody releases there.
                        command.extend(["-c".to_owned(), "max_slot_wal_keep_size=64MB".to_owned()]);
                    }
                    // What the configuration says now counts, also for a generation that was made under an older one.
                    let user =
                        at.config.stores.get(name).and_then(|s| s.user.as_ref()).unwrap_or(&server.user);
                    // The new version of a rehearsal; a generation of an environment that a person keeps is the first.
                    if kind == StoreKind::Mysql
                        && at.instance.generation.0 > 1
                        && at.config.rehearsal.trace
                        && user == MAY
                    {
                        command.extend(TRACED.map(str::to_owned));
                    }
                    commands.insert(server.service.clone(), command);
                }
                None => notes.push(format!(
                    "{}: its command is its own, so its {} are production's here, too",
                    server.service,
                    if kind == StoreKind::Mysql {
                        "events and replication"
                    } else {
                        "archive command, subscriptions and jobs"
                    }
                )),
            }
        }
    }
    let differences = write(at, &commands)?;
    // Once is enough: every staging instance of a run is made the same way.
    if at.instance.generation.0 > 1 && !differences.is_empty() {
        let shown: Vec<String> = differences
            .iter()
            .take(TOLD)
            .map(|d| d.service.as_ref().map_or_else(|| d.what.clone(), |s| format!("{s}: {}", d.what)))
            .collect();
        let more = differences.len().saturating_sub(TOLD);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        notes.push(format!("differs from production: {}{more}", shown.join(", ")));
    }
    Ok(notes)
}

/// Has production's Postgres servers log which rows are written to, where that is wanted.
fn log_rows(docker: &Docker, at: &Placement<'_>) -> Result<Vec<String>, EngineError> {
    let (mut commands, mut notes) = (BTreeMap::new(), Vec::new());
    // A server with a slot does not start without them.
    let current = at.home.pointer()?.map(|p| at.home.generation(p.current)).transpose()?;
    let open = current.is_some_and(|g| !capture::open_spools(at.home, &g.instance).is_empty());
    if at.config.rollback.capture == Capture::Continuous || open {
        let servers = at.instance.stores.iter().filter(|(_, s)| s.kind == StoreKind::Postgres);
        for (name, server) in servers.filter_map(|(n, s)| Some((n, s.server.as_ref()?))) {
            let Some(mut command) = plain_command(docker, at, StoreKind::Postgres, &server.service)? else {
                notes.push(format!(
                    "{name}: {} has a command of its own, so later writes are compared",
                    server.service
                ));
                continue;
            };
            for (setting, value) in logging_settings(at.config.rollback.capture_wal_mib) {
                command.extend(["-c".to_owned(), format!("{setting}={value}")]);
            }
            commands.insert(server.service.clone(), command);
        }
    }
    capture::set_commands(at, &commands)?;
    Ok(notes)
}

/// The command of a server with the settings of a clone; `None` where it is no plain program of such a server.
fn quiet_command(
    docker: &Docker,
    at: &Placement<'_>,
    kind: StoreKind,
    service: &ServiceName,
) -> Result<Option<Vec<String>>, EngineError> {
    let Some(mut command) = plain_command(docker, at, kind, service)? else { return Ok(None) };
    if kind == StoreKind::Mysql {
        command.extend(QUIET.map(str::to_owned));
        return Ok(Some(command));
    }
    for (name, value) in harmless_settings(SINCE) {
        command.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    Ok(Some(command))
}

/// The command of a server; `None` where it is no plain program of such a server.
fn plain_command(
    docker: &Docker,
    at: &Placement<'_>,
    kind: StoreKind,
    service: &ServiceName,
) -> Result<Option<Vec<String>>, EngineError> {
    let mut command = command_of(at, service);
    if command.is_empty() {
        let image = at.release.services.get(service).and_then(|s| s.image.as_ref());
        if let Some(image) = image {
            command = docker.image(&image.id)?.map(|i| i.cmd).unwrap_or_default();
        }
    }
    let programs: &[&str] = if kind == StoreKind::Mysql { &["mariadbd", "mysqld"] } else { &["postgres"] };
    let plain = command.first().is_some_and(|c| programs.contains(&c.as_str()) || c.starts_with('-'));
    Ok(plain.then_some(command))
}
