//! A running process: who serves a port, and what it was started with and has open.

use super::DetectError;
use super::scan::is_sqlite;
use super::sockets::{Listener, inode_of, listening};
use crate::runtime::process::{resolve_program, table};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that listens on a port.
    Port(u16),
    /// The one with an id.
    Pid(i32),
}

/// A running service as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The main process.
    pub pid: i32,
    /// Its working folder.
    pub cwd: PathBuf,
    /// Program (full path) and arguments.
    pub argv: Vec<String>,
    /// The environment it was started with.
    pub env: BTreeMap<String, String>,
    /// The environment of the login shell of whoever asks; what is equal there was not set for the service.
    pub login: BTreeMap<String, String>,
    /// Ports that it and its children listen on.
    pub listeners: BTreeSet<Listener>,
    /// SQLite databases that are open.
    pub databases: BTreeSet<PathBuf>,
    /// Other regular files that are open for writing.
    pub written: BTreeSet<PathBuf>,
    /// The systemd unit that started it.
    pub unit: Option<String>,
    /// What could not be seen.
    pub warnings: Vec<String>,
}

/// Looks at a running process and everything that belongs to it.
pub fn inspect(which: Which) -> Result<Running, DetectError> {
    let all = table::read_all();
    let sockets = listening();
    let pid = match which {
        Which::Pid(pid) => pid,
        Which::Port(port) => holder_of(port, &sockets, &all)?,
    };
    let Some(found) = all.iter().find(|p| p.pid == pid) else {
        return Err(DetectError::new(
            format!("there is no process {pid}"),
            "`--port PORT` finds the process by its port",
        ));
    };
    if let Some(marker) = &found.marker {
        return Err(DetectError::new(
            format!("process {pid} already runs under Switchback ({marker})"),
            "its stack has a switchback.yaml; `switchback -C FOLDER status` shows it",
        ));
    }
    let top = climb(pid, &all, &sockets);
    readable(top)?;
    let members = family(top, &all);
    let mut warnings = Vec::new();
    let cwd = fs::read_link(proc_path(top, "cwd"))
        .map_err(|e| DetectError::new(format!("process {top} cannot be looked at: {e}"), "try again"))?;
    let (env, odd) = environment(top);
    if !odd.is_empty() {
        warnings.push(format!("left out of `env`, as not UTF-8: {}", odd.join(", ")));
    }
    let argv = command_line(top, &cwd, &env)?;
    let mut running = Running {
        pid: top,
        cwd,
        argv,
        env,
        login: login_environment(&all),
        listeners: BTreeSet::new(),
        databases: BTreeSet::new(),
        written: BTreeSet::new(),
        unit: unit(top),
        warnings,
    };
    for member in &members {
        open_files(*member, &sockets, &mut running);
    }
    Ok(running)
}

fn proc_path(pid: i32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}

/// The links in `/proc/PID/fd`: number and target.
fn descriptors(pid: i32) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(proc_path(pid, "fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, fs::read_link(e.path()).ok()?)))
        .collect()
}

fn sockets_of(pid: i32, sockets: &BTreeMap<u64, Listener>) -> BTreeSet<u64> {
    let links = descriptors(pid);
    let inodes = links.iter().filter_map(|(_, l)| inode_of(l.to_str()?));
    inodes.filter(|i| sockets.contains_key(i)).collect()
}

fn holder_of(
    port: u16,
    sockets: &BTreeMap<u64, Listener>,
    all: &[table::Process],
) -> Result<i32, DetectError> {
    if !sockets.values().any(|l| l.port == port) {
        return Err(DetectError::new(
            format!("nothing listens on port {port}"),
            "start the service first, or describe it with --command (then --port only names its port)",
        ));
    }
    let holds =
        |pid: i32| sockets_of(pid, sockets).iter().any(|i| sockets.get(i).is_some_and(|l| l.port == port));
    all.iter().map(|p| p.pid).find(|pid| holds(*pid)).ok_or_else(|| {
        DetectError::new(
            format!("the process that listens on port {port} belongs to somebody else"),
            "run `switchback init` as the user that runs the service",
        )
    })
}

/// From a worker to the process that started it.
///
/// A parent belongs to the service if it holds one of its listening sockets (a pre-forking master), or
/// runs the same program in the same process group. Shells, terminals and supervisors do neither.
fn climb(pid: i32, all: &[table::Process], sockets: &BTreeMap<u64, Listener>) -> i32 {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut top = pid;
    while let Some(process) = all.iter().find(|p| p.pid == top) {
        let Some(parent) = all.iter().find(|p| p.pid == process.parent && p.pid > 1 && p.pid != own) else {
            break;
        };
        let shared = !sockets_of(top, sockets).is_disjoint(&sockets_of(parent.pid, sockets));
        let exe = |pid| fs::read_link(proc_path(pid, "exe")).ok();
        let same = parent.group == process.group && exe(parent.pid).is_some() && exe(parent.pid) == exe(top);
        if !shared && !same {
            break;
        }
        top = parent.pid;
    }
    top
}

/// A process and all its descendants.
fn family(top: i32, all: &[table::Process]) -> Vec<i32> {
    let mut members = vec![top];
    let mut at = 0;
    while let Some(parent) = members.get(at).copied() {
        members.extend(all.iter().filter(|p| p.parent == parent && p.pid != top).map(|p| p.pid));
        at += 1;
    }
    members
}

fn readable(pid: i32) -> Result<(), DetectError> {
    if let Err(e) = fs::read_dir(proc_path(pid, "fd")) {
        let owner = fs::metadata(proc_path(pid, "")).map_or(0, |m| m.uid());
        return Err(DetectError::new(
            format!("process {pid} of user {owner} cannot be looked at: {e}"),
            "run `switchback init` as the user that runs the service",
        ));
    }
    let root = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    if root(&proc_path(pid, "root/")) != root(Path::new("/")) {
        return Err(DetectError::new(
            format!("process {pid} runs in a container or a chroot"),
            "this runtime looks after local processes; its files are not where this host has them",
        ));
    }
    Ok(())
}

/// The environment, and the names of variables that are not text.
fn environment(pid: i32) -> (BTreeMap<String, String>, Vec<String>) {
    let bytes = fs::read(proc_path(pid, "environ")).unwrap_or_default();
    let (mut env, mut odd) = (BTreeMap::new(), Vec::new());
    for entry in bytes.split(|b| *b == 0).filter(|e| !e.is_empty()) {
        match std::str::from_utf8(entry) {
            Ok(text) => {
                if let Some((key, value)) = text.split_once('=') {
                    env.insert(key.to_owned(), value.to_owned());
                }
            }
            Err(_) => {
                let name = entry.split(|b| *b == b'=').next().unwrap_or_default();
                odd.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    (env, odd)
}

/// What the leader of this program's own session was started with.
fn login_environment(all: &[table::Process]) -> BTreeMap<String, String> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let leader = all.iter().find(|p| p.pid == own).map_or(0, |p| p.session);
    if leader == own || leader <= 1 { BTreeMap::new() } else { environment(leader).0 }
}

fn command_line(pid: i32, cwd: &Path, env: &BTreeMap<String, String>) -> Result<Vec<String>, DetectError> {
    let hint = "give its command with --command \"PROGRAM ARGUMENTS\"";
    let bytes = fs::read(proc_path(pid, "cmdline")).unwrap_or_default();
    let text = String::from_utf8(bytes)
        .map_err(|_| DetectError::new(format!("the command line of process {pid} is not UTF-8"), hint))?;
    let mut argv: Vec<String> = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    let path = env.get("PATH").map(String::as_str);
    let Some(first) = argv.first_mut() else {
        return Err(DetectError::new(format!("process {pid} has no command line"), hint));
    };
    // A name is not resolved through links: the link is what an upgrade moves.
    if let Some(full) = resolve_program(first, path, cwd) {
        *first = full.to_string_lossy().into_owned();
        return Ok(argv);
    }
    // The process wrote a title over its arguments (nginx, Postgres, setproctitle).
    if argv.len() == 1 && argv.iter().any(|a| a.trim().is_empty() || a.contains(' ')) {
        return Err(DetectError::new(
            format!("process {pid} has replaced its command line by a title"),
            hint,
        ));
    }
    match fs::read_link(proc_path(pid, "exe")) {
        Ok(exe) if exe.exists() => {
            if let Some(first) = argv.first_mut() {
                *first = exe.to_string_lossy().into_owned();
            }
            Ok(argv)
        }
        _ => Err(DetectError::new(format!("the program of process {pid} is gone from the disk"), hint)),
    }
}

fn open_files(pid: i32, sockets: &BTreeMap<u64, Listener>, running: &mut Running) {
    for (number, link) in descriptors(pid) {
        if let Some(inode) = link.to_str().and_then(inode_of) {
            running.listeners.extend(sockets.get(&inode).cloned());
            continue;
        }
        // Standard streams belong to whoever started it; Switchback keeps its own logs.
        if number <= 2 || !link.is_absolute() || !fs::metadata(&link).is_ok_and(|m| m.is_file()) {
            continue;
        }
        if is_sqlite(&link) {
            running.databases.insert(link);
        } else if open_for_writing(pid, number) {
            running.written.insert(link);
        }
    }
    let databases: Vec<String> = running.databases.iter().map(|d| d.to_string_lossy().into_owned()).collect();
    running.written.retain(|f| {
        let name = f.to_string_lossy();
        !databases.iter().any(|d| {
            name.strip_prefix(d.as_str()).is_some_and(|rest| matches!(rest, "-wal" | "-shm" | "-journal"))
        })
    });
}

/// From `flags` in `/proc/PID/fdinfo/FD`: octal, the lowest two bits are the access mode.
fn open_for_writing(pid: i32, number: u32) -> bool {
    let text = fs::read_to_string(proc_path(pid, &format!("fdinfo/{number}"))).unwrap_or_default();
    let flags = text.lines().find_map(|l| l.strip_prefix("flags:"));
    flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok()).is_some_and(|f| f & 3 != 0)
}

/// The systemd service whose control group it is in; sessions and user managers are none.
fn unit(pid: i32) -> Option<String> {
    let text = fs::read_to_string(proc_path(pid, "cgroup")).ok()?;
    let last = text.lines().find_map(|l| l.rsplit('/').next().filter(|n| n.ends_with(".service")))?;
    (!last.starts_with("user@")).then(|| last.to_owned())
}
