//! What is done to an environment on purpose, for the proof that its checks would notice.
//!
//! It must never be done to production, nor outlast the proof.

use super::{marker, service_members, table};
use crate::error::EngineError;
use crate::runtime::Placement;
use rustix::process::{Pid, Signal, kill_process};
use switchback_core::ids::ServiceName;
use switchback_core::release::Release;

fn must_be_staging(at: &Placement<'_>) -> Result<(), EngineError> {
    if at.instance.is_production() {
        return Err(EngineError::Internal { detail: "faults are for staging only".to_owned() });
    }
    Ok(())
}

/// Lets the processes of a service stand still, or go on; how many.
pub fn still(at: &Placement<'_>, name: &ServiceName, on: bool) -> Result<usize, EngineError> {
    must_be_staging(at)?;
    let all = service_members(at.home, at.instance, name)?;
    let signal = if on { Signal::STOP } else { Signal::CONT };
    let pids = all.iter().filter_map(|p| Pid::from_raw(p.pid));
    Ok(pids.filter(|pid| kill_process(*pid, signal).is_ok()).count())
}

/// Kills the processes of a service, but not the shim, which may start it again; how many.
pub fn end(at: &Placement<'_>, name: &ServiceName) -> Result<usize, EngineError> {
    must_be_staging(at)?;
    let all = service_members(at.home, at.instance, name)?;
    let own = all.iter().filter(|p| p.pid != p.session).filter_map(|p| Pid::from_raw(p.pid));
    Ok(own.filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count())
}

/// A variable of a service or its file of variables, and what is told of the settings without it.
pub fn lacking(release: &Release) -> Option<(String, Vec<String>)> {
    let mut without = release.clone();
    let variable = without.services.values_mut().find_map(|s| Some(s.definition.env.pop_first()?.0));
    let file = || release.services.values().find_map(|s| s.definition.env_file.clone());
    let what = variable.or_else(file)?;
    without.config.remove(&what);
    Some((what, switchback_core::settings::changes(release, &without)))
}

/// The words that start a program as one of a service's own. The mark belongs to all of a session, and whoever stops the service ends
/// all of that: only what is in a session of its own may carry it, never a program in the caller's.
pub fn marked(
    at: &Placement<'_>,
    name: &ServiceName,
    program: &[String],
) -> Result<Vec<String>, EngineError> {
    let mark = format!("{}={}", table::MARKER, marker(at.home, at.instance, name.as_str())?);
    let words = ["setsid", "-w", "env", mark.as_str()].map(str::to_owned);
    Ok(words.into_iter().chain(program.iter().cloned()).collect())
}
