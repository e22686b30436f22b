//! What a container uses: processor time and memory.

use super::error::Call;
use super::{Docker, DockerError};
use crate::exec::used_by;
use bollard::query_parameters::{StatsOptions, TopOptions};
use futures_util::StreamExt as _;

/// What a running container has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Memory in use now, without the page cache that can be given back, in bytes.
    pub memory_bytes: u64,
}

impl Docker {
    /// What a container uses; zeros for one that does not run.
    pub fn stats(&self, id: &str) -> Result<Stats, DockerError> {
        let options = StatsOptions { stream: false, one_shot: true };
        let mut answers = self.client.stats(id, Some(options));
        let call = Call::read("ask what is used by the container", "CONTAINERS");
        let next = async {
            match answers.next().await {
                Some(answer) => answer.map(Some),
                None => Ok(None),
            }
        };
        let Some(found) = self.ask(call, id, next)? else { return Ok(Stats::default()) };
        if found.memory_stats.as_ref().and_then(|m| m.usage).unwrap_or_default() == 0 && self.is_local() {
            return self.stats_of_processes(id);
        }
        let cpu_ns =
            found.cpu_stats.and_then(|c| c.cpu_usage).and_then(|u| u.total_usage).unwrap_or_default();
        let memory = found.memory_stats.unwrap_or_default();
        let extra = memory.stats.unwrap_or_default();
        // cgroup v2 calls it `inactive_file`, v1 `total_inactive_file`.
        let cache = extra.get("inactive_file").or_else(|| extra.get("total_inactive_file")).copied();
        let used = memory.usage.unwrap_or_default();
        Ok(Stats { cpu_ms: cpu_ns / 1_000_000, memory_bytes: used.saturating_sub(cache.unwrap_or_default()) })
    }

    /// The same from the processes of a container on this host: at once, where an engine takes up to a second to look, and where it
    /// has no cgroups that count. Memory that processes share counts for each of them.
    pub fn stats_of_processes(&self, id: &str) -> Result<Stats, DockerError> {
        let options = TopOptions { ps_args: "-eo pid,comm".to_owned() };
        let call = Call::read("list the processes of the container", "CONTAINERS");
        let found = self.ask(call, id, self.client.top_processes(id, Some(options)))?;
        let pids = found.processes.unwrap_or_default().into_iter().filter_map(|p| p.first()?.parse().ok());
        let mut sum = Stats::default();
        for (cpu_ms, memory_bytes) in pids.map(used_by) {
            sum.cpu_ms += cpu_ms;
            sum.memory_bytes += memory_bytes;
        }
        Ok(sum)
    }
}
