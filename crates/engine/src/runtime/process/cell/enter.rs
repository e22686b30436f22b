//! Going into a cell: what a service, its migration, its health command and the attacker are started through.

use super::Cell;
use crate::error::EngineError;
use crate::runtime::process::table;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    CapabilitySet, ThreadNameSpaceType, move_into_thread_name_spaces, remove_capability_from_bounding_set,
};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The hidden command: `__inside PID STARTED NAME PROGRAM ARGUMENTS...`.
pub const INSIDE_VERB: &str = "__inside";

/// Rights of root with which one could leave a cell, change its networks or look into other processes (capabilities(7)).
const TAKEN: [CapabilitySet; 9] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::MKNOD,
    CapabilitySet::BPF,
];

/// The words before a program that is to run inside.
pub fn words(cell: &Cell, program: &Path, name: &str) -> Vec<String> {
    let program = program.to_string_lossy().into_owned();
    vec![program, INSIDE_VERB.to_owned(), cell.pid.to_string(), cell.started.to_string(), name.to_owned()]
}

/// Becomes another program, inside. Returns only if it cannot.
pub fn run(args: &[String]) -> Result<(), EngineError> {
    let broken = |detail: String| EngineError::Internal { detail: format!("cannot go inside: {detail}") };
    let [pid, started, name, program, rest @ ..] = args else {
        return Err(broken("arguments are missing".to_owned()));
    };
    let number = pid.parse::<i32>().ok();
    let pid = number.and_then(Pid::from_raw).ok_or_else(|| broken(format!("{pid:?} is no process id")))?;
    let handle =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|e| broken(format!("the gateway is gone: {e}")))?;
    // The descriptor names whoever has the id now.
    let same = table::read_one(pid.as_raw_nonzero().get()).is_some_and(|p| p.started.to_string() == *started);
    if !same {
        return Err(broken("the gateway is gone".to_owned()));
    }
    let mut spaces = ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
    let user = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).ok();
    if user(&pid.as_raw_nonzero().to_string()) != user("self") {
        spaces |= ThreadNameSpaceType::USER;
    }
    // Another mount namespace begins at its root.
    let folder = std::env::current_dir().map_err(|e| broken(e.to_string()))?;
    move_into_thread_name_spaces(handle.as_fd(), spaces).map_err(|e| broken(e.to_string()))?;
    std::env::set_current_dir(&folder).map_err(|e| broken(format!("{}: {e}", folder.display())))?;
    for right in TAKEN {
        // Without it in the first place there is nothing to take.
        let _ = remove_capability_from_bounding_set(right);
    }
    let error = Command::new(program).arg0(name).args(rest).exec();
    Err(EngineError::Internal { detail: format!("cannot start {program}: {error}") })
}
