//! The part of Switchback that touches the world.
//!
//! Dependency direction inside: runtimes and stores never import each other; checks see an
//! environment only through endpoints and store handles.

mod apart;
pub mod auto;
pub mod backup;
pub mod budget;
pub mod capture;
pub mod carry;
pub mod certificate;
pub mod check;
pub mod checks;
pub mod data;
pub mod detect;
pub mod docker;
pub mod drill;
pub mod engine;
pub mod environments;
pub mod error;
pub mod exec;
pub mod fault;
pub mod gateway;
pub mod gather;
pub mod give_way;
mod history;
pub mod home;
pub mod journal;
pub mod keeper;
pub mod left;
pub mod lock;
pub mod mask_key;
pub mod notify;
pub mod ops;
pub mod outdated;
pub mod path;
pub mod policy;
pub mod prove;
mod registry;
pub mod runtime;
pub mod scaling;
pub mod scratch;
pub mod session;
pub mod stacks;
pub mod store;
pub mod taken_back;
pub mod tidy;
pub mod verify;
pub mod watch;
pub mod world;

/// The name of this host, as `uname -n` prints it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Memory that programs of this host can still get without swapping, in bytes.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
