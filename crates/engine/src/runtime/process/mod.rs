//! The process runtime: services as local processes.
//!
//! Exit codes mislead (a failed start can exit 0, a clean stop 143), so nothing here judges by them: a
//! service is up when its health check says so and stays so, and down when no process of it is left.

mod apart;
pub mod cell;
mod driver;
mod faults;
pub mod health;
mod logs;
mod preflight;
pub mod shim;
pub mod start;
pub mod table;

pub use crate::runtime::{Placement, ProbeResult};
pub use driver::ProcessRuntime;
pub use health::probe;
pub(crate) use preflight::ports_are_free;
pub use start::{resolve_program, service_environment};

use crate::error::{EngineError, io};
use crate::fault::{Gap, gap};
use crate::home::Home;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use switchback_core::config::{Service, StopSignal};
use switchback_core::ids::ServiceName;
use switchback_core::journal::ServiceTimes;
use switchback_core::release::Instance;
use table::Process;

/// The marker that every process of a service carries: `STATE-ID:INSTANCE-FOLDER:SERVICE`.
pub fn marker(home: &Home, instance: &Instance, service: &str) -> Result<String, EngineError> {
    // Empty stands for the instance as a whole.
    Ok(format!("{}:{}:{service}", home.id()?, instance.dir_of(service)))
}

/// The live processes of one service of an instance.
pub fn service_members(
    home: &Home,
    instance: &Instance,
    service: &ServiceName,
) -> Result<Vec<Process>, EngineError> {
    let wanted = marker(home, instance, service.as_str())?;
    let migrating = format!("{wanted}#migrate");
    Ok(table::members(&table::read_all(), |m| m == wanted || m == migrating))
}

/// The live processes of an instance.
pub fn instance_members(home: &Home, instance: &Instance) -> Result<Vec<Process>, EngineError> {
    let prefix = marker(home, instance, "")?;
    let elsewhere = shared_markers(home, instance)?;
    Ok(table::members(&table::read_all(), |m| m.starts_with(&prefix) || elsewhere.iter().any(|e| e == m)))
}

/// The markers of services that go on as those of other instances.
fn shared_markers(home: &Home, instance: &Instance) -> Result<Vec<String>, EngineError> {
    instance.shared.services.keys().map(|name| marker(home, instance, name.as_str())).collect()
}

/// The live processes below a folder of the state (`staging/RUN`, or "" for the whole stack), except below some
/// folders in it.
pub fn members_below(home: &Home, dir: &str, except: &[String]) -> Result<Vec<Process>, EngineError> {
    let id = home.id()?;
    let prefix = format!("{id}:{dir}");
    let spared: Vec<String> = except.iter().map(|e| format!("{id}:{e}/")).collect();
    let wanted = |m: &str| m.starts_with(&prefix) && !spared.iter().any(|s| m.starts_with(s));
    Ok(table::members(&table::read_all(), wanted))
}

/// Kills whatever a crashed run left running below a folder of the state.
pub fn kill_below(home: &Home, dir: &str, except: &[String]) -> Result<(), EngineError> {
    for _ in 0..100 {
        let members = members_below(home, dir, except)?;
        if members.is_empty() {
            return Ok(());
        }
        for process in &members {
            send(process, Signal::KILL);
        }
        wait_for_any(&members, Duration::from_millis(50));
    }
    Err(EngineError::Internal { detail: format!("processes below {dir} survive SIGKILL") })
}

/// Stops a service: signal to its process groups, then waiting until nobody is left, then KILL.
pub fn stop(
    home: &Home,
    instance: &Instance,
    name: &ServiceName,
    service: &Service,
) -> Result<ServiceTimes, EngineError> {
    let began = Instant::now();
    let signal = match service.stop.signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
    };
    let times = |killed| ServiceTimes {
        stopped_after_ms: Some(elapsed_ms(began)),
        killed,
        ..ServiceTimes::default()
    };
    let mut signalled: BTreeSet<(i32, u64)> = BTreeSet::new();
    let kill_at = began + service.stop.grace.0;
    // KILL cannot be refused; processes that stay longer hang in the kernel (dead disk, NFS).
    let give_up_at = kill_at + Duration::from_secs(20);
    let mut killed = false;
    loop {
        let members = service_members(home, instance, name)?;
        if members.is_empty() {
            return Ok(times(killed));
        }
        let now = Instant::now();
        if now >= give_up_at {
            let pids: Vec<String> = members.iter().map(|p| p.pid.to_string()).collect();
            return Err(EngineError::Refused {
                message: format!("{name} does not end: processes {} survive SIGKILL", pids.join(", ")),
                hint: Some(
                    "they hang in the kernel, usually on a dead disk or network mount; see `dmesg`"
                        .to_owned(),
                ),
            });
        }
        if now >= kill_at {
            killed = true;
            for process in &members {
                send(process, Signal::KILL);
            }
        } else {
            // The shim first, so that it does not restart what is about to end.
            let (shims, others): (Vec<&Process>, Vec<&Process>) =
                members.iter().partition(|p| p.session == p.pid);
            for shim in shims {
                if signalled.insert((shim.pid, shim.started)) {
                    send(shim, Signal::TERM);
                }
            }
            let groups: BTreeSet<i32> = others.iter().map(|p| p.group).collect();
            for group in groups {
                let started = others.iter().find(|p| p.pid == group).map_or(0, |p| p.started);
                if signalled.insert((-group, started))
                    && let Some(pid) = Pid::from_raw(group)
                {
                    let _ = rustix::process::kill_process_group(pid, signal);
                }
            }
        }
        wait_for_any(&members, kill_at.saturating_duration_since(Instant::now()));
    }
}

/// Signals exactly this process, even if its id is reused meanwhile.
fn send(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    // The descriptor names whoever has the id now; compare the start time before signalling.
    let same = table::read_one(process.pid).is_some_and(|p| p.started == process.started);
    if same {
        let _ = rustix::process::pidfd_send_signal(fd, signal);
    }
}

/// Waits until one of the processes ends, at most 50 ms (new members may appear) and at least 1 ms.
fn wait_for_any(members: &[Process], at_most: Duration) {
    let fds: Vec<_> = members
        .iter()
        .filter_map(|p| rustix::process::pidfd_open(Pid::from_raw(p.pid)?, PidfdFlags::empty()).ok())
        .collect();
    let mut polls: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let wait = at_most.clamp(Duration::from_millis(1), Duration::from_millis(50));
    let timeout =
        rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::try_from(wait.as_nanos()).unwrap_or(50_000_000) };
    if polls.is_empty() {
        std::thread::sleep(wait);
    } else {
        let _ = poll(&mut polls, Some(&timeout));
    }
}

/// Confirms that exactly this instance runs in its environment.
///
/// Compared: the marker of every process (instance and service), the working folder of the main process, and that the
/// configured ports are held by the service's own processes. Returns what was compared, or the differences.
pub fn read_back(
    home: &Home,
    instance: &Instance,
    services: &std::collections::BTreeMap<ServiceName, Service>,
) -> Result<Result<Vec<String>, Vec<String>>, EngineError> {
    if gap(Gap::ReadBack) {
        return Ok(Ok(Vec::new()));
    }
    let all = table::read_all();
    let mut equal = Vec::new();
    let mut differences = Vec::new();
    let id = home.id()?;
    if instance.is_production() {
        let prefix = format!("{id}:generations/");
        let own = format!("{id}:{}:", instance.dir);
        let shared = shared_markers(home, instance)?;
        let strangers = table::members(&all, |m| {
            m.starts_with(&prefix) && !m.starts_with(&own) && !shared.iter().any(|s| s == m)
        });
        for stranger in &strangers {
            differences.push(format!(
                "process {} of another generation runs ({})",
                stranger.pid,
                stranger.marker.as_deref().unwrap_or("no marker")
            ));
        }
        if strangers.is_empty() {
            equal.push(format!("no process of another generation than {} runs", instance.generation));
        }
    }
    for name in services.keys() {
        let work = home.state().join(instance.dir_of(name.as_str())).join("work");
        let work = work.canonicalize().map_err(io("open", &work))?;
        let marker = marker(home, instance, name.as_str())?;
        let members = table::members(&all, |m| m == marker);
        let version = instance.versions.get(name).map_or("", String::as_str);
        let placed = members.iter().find(|p| {
            p.session != p.pid
                && std::fs::read_link(format!("/proc/{}/cwd", p.pid)).is_ok_and(|cwd| cwd == work)
        });
        match placed {
            Some(process) => equal.push(format!(
                "{name} {version}: process {} runs in generation {} of {}",
                process.pid, instance.generation, instance.environment
            )),
            None if members.is_empty() => differences.push(format!("{name}: no process runs")),
            // A service may change its folder (daemons often do); the marker alone then tells.
            None => equal
                .push(format!("{name} {version}: {} processes carry the instance's marker", members.len())),
        }
        // The port that health checks ask must be the service's own: a stranger there would answer for it. Other
        // ports may be opened later.
        let main = services[name].main_port();
        for (port_name, port) in instance.ports.get(name).into_iter().flatten() {
            if Some(port_name.as_str()) != main {
                continue;
            }
            let holders = table::listeners(*port, &members);
            match holders.first() {
                Some(pid) => {
                    equal.push(format!("{name}: port {port} ({port_name}) is held by its process {pid}"));
                }
                None if table::port_taken(*port) => {
                    differences.push(format!(
                        "{name}: port {port} ({port_name}) is held by a process that is not the service's"
                    ));
                }
                None => differences.push(format!("{name}: nobody listens on port {port} ({port_name})")),
            }
        }
    }
    Ok(if differences.is_empty() { Ok(equal) } else { Err(differences) })
}

/// Milliseconds since then.
pub fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
