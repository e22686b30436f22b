//! The processes of this host, and which of them belong to a service.
//!
//! Membership is never decided by a stored process id, which may have been reused. It is read from the
//! kernel: processes whose initial environment carries the service's marker, everything in their
//! sessions, and all descendants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The environment variable that marks every process of a service.
pub const MARKER: &str = "SWITCHBACK_INSTANCE";

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// State letter of `/proc/PID/stat` (`Z` is a zombie).
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// The marker it was started with.
    pub marker: Option<String>,
}

/// Reads all live processes. Zombies are left out: they hold nothing.
pub fn read_all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(read_one).filter(|p| !matches!(p.state, 'Z' | 'X')).collect()
}

/// Reads one process; `None` if there is none of that id.
pub fn read_one(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything, brackets included.
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |i: usize| fields.get(i)?.parse::<i32>().ok();
    // Kernel threads (children of 2) have no environment; they are most of the table on many hosts.
    let environ = match number(1) {
        Some(2) => Vec::new(),
        _ => fs::read(format!("/proc/{pid}/environ")).unwrap_or_default(),
    };
    let marker = environ.split(|b| *b == 0).find_map(|entry| {
        let text = std::str::from_utf8(entry).ok()?;
        Some(text.strip_prefix(MARKER)?.strip_prefix('=')?.to_owned())
    });
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        started: fields.get(19)?.parse().ok()?,
        marker,
    })
}

/// The processes that belong to services whose marker satisfies the condition.
pub fn members(all: &[Process], wanted: impl Fn(&str) -> bool) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let own_session = all.iter().find(|p| p.pid == own).map(|p| p.session);
    let mut inside: BTreeSet<i32> =
        all.iter().filter(|p| p.marker.as_deref().is_some_and(&wanted)).map(|p| p.pid).collect();
    let sessions: BTreeSet<i32> = all
        .iter()
        .filter(|p| inside.contains(&p.pid) && Some(p.session) != own_session)
        .map(|p| p.session)
        .collect();
    // A process that overwrote its environment (Postgres, nginx) is still in its service's session.
    inside.extend(all.iter().filter(|p| sessions.contains(&p.session) && p.marker.is_none()).map(|p| p.pid));
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut todo: Vec<i32> = inside.iter().copied().collect();
    while let Some(parent) = todo.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            // A descendant with a marker of its own belongs to that service (nested stacks).
            let foreign = child.marker.as_deref().is_some_and(|m| !wanted(m));
            if !foreign && inside.insert(child.pid) {
                todo.push(child.pid);
            }
        }
    }
    inside.remove(&own);
    all.iter().filter(|p| inside.contains(&p.pid)).cloned().collect()
}

/// The pids that listen on a TCP port of this host, among the given processes.
pub fn listeners(port: u16, among: &[Process]) -> Vec<i32> {
    let mut inodes = listening_inodes(port, None);
    // Services of a cell have a network of their own, all of them the same.
    if let Some(first) = among.first() {
        inodes.extend(listening_inodes(port, Some(first.pid)));
    }
    let holds = |pid: i32| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten().any(|fd| {
            fs::read_link(fd.path())
                .ok()
                .and_then(|l| Some(l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
                .is_some_and(|i| inodes.contains(&i))
        })
    };
    among.iter().map(|p| p.pid).filter(|pid| holds(*pid)).collect()
}

/// The sockets on a port, in this network or that of a process.
fn tcp_rows(port: u16, of: Option<i32>) -> Vec<(u8, String)> {
    let mut rows = Vec::new();
    let of = of.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    for file in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{of}/net/{file}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let local_port = local.rsplit(':').next().and_then(|p| u16::from_str_radix(p, 16).ok());
            if local_port == Some(port) {
                rows.push((u8::from_str_radix(state, 16).unwrap_or(0), (*inode).to_owned()));
            }
        }
    }
    rows
}

/// TCP_LISTEN in the kernel's numbering (include/net/tcp_states.h).
const LISTEN: u8 = 10;
/// TCP_TIME_WAIT in the kernel's numbering.
const TIME_WAIT: u8 = 6;

fn listening_inodes(port: u16, of: Option<i32>) -> BTreeSet<String> {
    tcp_rows(port, of).into_iter().filter(|(s, _)| *s == LISTEN).map(|(_, i)| i).collect()
}

/// Whether anything on this host listens on the port.
pub fn port_taken(port: u16) -> bool {
    !listening_inodes(port, None).is_empty()
}

/// Whether connections that were closed on this port are still being waited for by the kernel, in this network or that
/// of a process.
pub fn port_in_time_wait(port: u16, of: Option<i32>) -> bool {
    tcp_rows(port, of).iter().any(|(s, _)| *s == TIME_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32, marker: Option<&str>) -> Process {
        Process {
            pid,
            state: 'S',
            parent,
            group: pid,
            session,
            started: 1,
            marker: marker.map(str::to_owned),
        }
    }

    #[test]
    fn members_are_found_by_marker_session_and_descent() {
        let all = [
            process(10, 1, 10, Some("me:app")),
            process(11, 10, 10, Some("me:app")),
            process(12, 11, 10, None),          // cleared its environment
            process(13, 12, 13, None),          // and its child left the session
            process(14, 10, 14, Some("other")), // belongs to another service
            process(20, 1, 20, None),
        ];
        let found: Vec<i32> = members(&all, |m| m == "me:app").iter().map(|p| p.pid).collect();
        assert_eq!(found, [10, 11, 12, 13]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = i32::try_from(std::process::id()).expect("fits");
        assert!(read_all().iter().any(|p| p.pid == own));
    }
}
