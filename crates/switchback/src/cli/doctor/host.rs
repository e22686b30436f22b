//! The host: kernel, disk, clock.

use super::Findings;
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::config::{Config, ProcessIsolation};
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::release::StorePlace;
use switchback_engine::detect::host;
use switchback_engine::engine::now_ms;
use switchback_engine::gather::{configured_stores, free_bytes};
use switchback_engine::home::{Home, STATE_DIR};
use switchback_engine::runtime::process::cell;
use switchback_engine::store;

/// Room that is left free besides the clones, as in the preflight of every run.
const RESERVE_BYTES: u64 = 64 << 20;
/// 2025-01-01T00:00:00Z: Switchback is younger.
const EARLIEST_MS: i64 = 1_735_689_600_000;

/// What every stack needs.
pub fn look(root: &Path, findings: &mut Findings) {
    kernel(findings);
    clock(findings);
    folder(&place(root), findings);
}

/// What a stack of local processes needs: room where its data and clones lie.
pub fn processes(root: &Path, home: Option<&Home>, config: Option<&Config>, findings: &mut Findings) {
    disk(root, &place(root), home, config, findings);
    isolation(config, findings);
}

/// Whether services of staging can be kept apart.
fn isolation(config: Option<&Config>, findings: &mut Findings) {
    let wanted = config.map_or(ProcessIsolation::Auto, |c| c.staging.isolation);
    match (wanted, cell::impossible()) {
        (ProcessIsolation::Off, _) => findings.warning(
            "isolation",
            "services of staging share this host's network and files (staging.isolation is `off`)",
            "remove it, so that they cannot reach production or mail anybody",
        ),
        (_, None) => findings.ok("isolation", "services of staging can have a network of their own"),
        (_, Some(why)) => findings.warning(
            "isolation",
            format!("services of staging share this host's network and files: {why}"),
            "allow unprivileged user namespaces, or run as root; until then `staging.env` should switch off what acts outside",
        ),
    }
}

/// The state folder, or where it will be made.
fn place(root: &Path) -> PathBuf {
    let state = root.join(STATE_DIR);
    if state.is_dir() { state } else { root.to_owned() }
}

fn kernel(findings: &mut Findings) {
    match host::pidfd() {
        Ok(()) => findings.ok("pidfd", "the kernel has pidfd: processes are signalled without mix-ups"),
        Err(e) => findings.problem(
            "pidfd",
            format!("the kernel refuses pidfd_open: {e}"),
            "Linux 5.4 or newer is needed; a container's seccomp profile may forbid it",
        ),
    }
    match host::subreaper() {
        Ok(()) => findings.ok("subreaper", "processes that detach themselves can be kept track of"),
        Err(e) => findings.problem(
            "subreaper",
            format!("the kernel refuses PR_SET_CHILD_SUBREAPER: {e}"),
            "Linux 3.4 or newer is needed",
        ),
    }
    let hidden = fs::read_to_string("/proc/1/stat").is_err();
    if hidden {
        findings.warning(
            "proc",
            "processes of other users cannot be seen (/proc is mounted with hidepid)",
            "a port that a stranger holds is then reported without its name",
        );
    }
}

fn clock(findings: &mut Findings) {
    if now_ms() < EARLIEST_MS {
        findings.problem(
            "clock",
            "the clock is years behind: trials and certificates would end at the wrong time",
            "set it, for example with chrony or systemd-timesyncd",
        );
    } else {
        findings.ok("clock", "the clock is plausible");
    }
}

fn folder(place: &Path, findings: &mut Findings) {
    match host::writable(place) {
        Ok(()) => findings.ok("writable", format!("{} can be written", place.display())),
        Err(e) => findings.problem(
            "writable",
            format!("{} cannot be written: {e}", place.display()),
            "run Switchback as the owner of the stack's folder",
        ),
    }
    match host::doubtful_file_system(place) {
        Some((name, why)) => findings.warning("file_system", format!("the state lies on {name}"), why),
        None => findings.ok("file_system", "the state lies on a local file system"),
    }
}

fn disk(root: &Path, place: &Path, home: Option<&Home>, config: Option<&Config>, findings: &mut Findings) {
    let stores: Vec<StorePlace> = match home {
        None => Vec::new(),
        Some(home) => {
            let current = home.pointer().ok().flatten().and_then(|p| home.generation(p.current).ok());
            match (current, config) {
                (Some(generation), _) => generation.instance.stores.into_values().collect(),
                (None, Some(config)) => configured_stores(home, config).into_values().collect(),
                (None, None) => Vec::new(),
            }
        }
    };
    let (mut total, mut copied, mut shared) = (0, 0, 0);
    for store in &stores {
        let path = Path::new(&store.path);
        if !path.exists() {
            continue; // reported with the configuration
        }
        let bytes = match store::size_bytes(store.kind, path) {
            Ok(bytes) => bytes,
            Err(e) => {
                findings.problem(
                    "store_size",
                    format!("cannot measure {}: {e}", store.path),
                    "check its permissions",
                );
                continue;
            }
        };
        total += bytes;
        let folder = path.parent().unwrap_or(root);
        if store::can_reflink(folder, place) { shared += 1 } else { copied += bytes }
    }
    if stores.is_empty() {
        return;
    }
    let copies = if config.is_none_or(|c| c.rehearsal.code_only_rollback) { 4 } else { 3 };
    let Ok(free) = free_bytes(place) else { return };
    let need = copied * copies + RESERVE_BYTES;
    let needs = format!(
        "a rehearsal needs {} ({copies} copies of {} and {} in reserve); {} are free",
        human_bytes(need),
        human_bytes(copied),
        human_bytes(RESERVE_BYTES),
        human_bytes(free)
    );
    if free < need {
        findings.problem("disk", needs, "free some space; `switchback gc` removes what is no longer needed");
    } else {
        findings.ok("disk", needs);
    }
    if copied == 0 && shared > 0 {
        findings.ok(
            "reflink",
            format!(
                "{} of data share blocks when cloned: the downtime of a promotion does not grow with them",
                human_bytes(total)
            ),
        );
        return;
    }
    if free < need.max(4 * host::PROBE_BYTES) {
        return;
    }
    match host::copy_bytes_per_s(place) {
        Ok(bytes_per_s) => {
            let ms = copied.saturating_mul(1000) / bytes_per_s.max(1);
            let text = format!(
                "{} of data must be copied (this file system shares no blocks), about {} of downtime per promotion at {}/s",
                human_bytes(copied),
                human_ms(ms),
                human_bytes(bytes_per_s)
            );
            // Half a minute is what people call an outage.
            if ms > 30_000 {
                findings.warning("reflink", text, "XFS or btrfs for data and state clones in an instant");
            } else {
                findings.ok("reflink", text);
            }
        }
        Err(e) => findings.problem(
            "throughput",
            format!("a probe file could not be written: {e}"),
            "check the disk",
        ),
    }
}
