//! What would make a clone touch production, said before it happens.

use super::super::places::{FoundRelease, Role, role};
use super::super::substitute::Mention;
use super::super::variables::external_server;
use super::{Draft, FoundStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

impl Draft<'_> {
    pub(super) fn check_secrets(&mut self, secrets: &BTreeMap<String, String>, stores: &[FoundStore]) {
        for (key, value) in secrets {
            if value.contains(['\n', '\r']) {
                self.warnings
                    .push(format!("{key} has several lines, which an env file cannot hold: it was left out"));
            }
            if stores.iter().any(|s| s.full.to_str().is_some_and(|p| value.contains(p))) {
                self.warnings.push(format!(
                    "{key} looks like a secret and names a store: staging would use production's data. Split it, so that `env` can say {{store.NAME}}"
                ));
            }
        }
    }

    /// Data on a server is not cloned.
    pub(super) fn check_servers<'v>(&mut self, variables: impl Iterator<Item = (&'v String, &'v String)>) {
        for (key, value) in variables {
            if let Some(server) = external_server(value) {
                self.warnings.push(format!(
                    "{key} names a {server} server, which is not cloned: staging would talk to production's. Give it another one under `staging.env.{key}`"
                ));
            }
        }
    }

    /// Whether every store, port and file is really reached through its placeholder.
    pub(super) fn check_use(
        &mut self,
        command: &[String],
        migrate: &[String],
        env: &BTreeMap<String, String>,
        ports: &BTreeMap<String, u16>,
        stores: &[FoundStore],
        config: &[String],
    ) {
        let texts: Vec<&String> = command.iter().chain(migrate).chain(env.values()).collect();
        let uses = |p: &str| texts.iter().any(|t| t.contains(&format!("{{{p}}}")));
        for store in stores.iter().filter(|s| !uses(&format!("store.{}", s.name))) {
            self.warnings.push(format!(
                "neither the command nor `env` says {{store.{0}}} ({1}): the service finds it by itself, so a clone would run on production's data, or on none. Pass the path as an argument or a variable",
                store.name, store.path
            ));
        }
        for (name, port) in ports.iter().filter(|(n, _)| !uses(&format!("port.{n}"))) {
            let place = config.iter().find(|c| {
                std::fs::read_to_string(self.root.join(c)).is_ok_and(|t| t.contains(&port.to_string()))
            });
            let place = place.map_or_else(String::new, |c| format!(" (it may be set in {c})"));
            self.warnings.push(format!(
                "neither the command nor `env` says {{port.{name}}}{place}: a clone would listen on production's port {port}. Pass the port as an argument or a variable"
            ));
        }
        let Some(running) = self.running else { return };
        for listener in running.listeners.iter().filter(|l| !ports.values().any(|p| *p == l.port)) {
            self.warnings.push(format!(
                "the service also listens on port {}: if it is fixed, a clone would collide with production. Add it under `ports` and pass it as {{port.NAME}}",
                listener.port
            ));
        }
    }

    /// Paths that the service writes to and that production and staging would share.
    pub(super) fn check_traces(
        &mut self,
        seen: &[Mention],
        stores: &[FoundStore],
        release: Option<&FoundRelease>,
    ) {
        let stored = |p: &Path| {
            stores.iter().any(|s| p.starts_with(&s.full)) || release.is_some_and(|r| p.starts_with(&r.path))
        };
        let mut shared: BTreeSet<PathBuf> = BTreeSet::new();
        let traces = seen.iter().filter(|m| role(m, self.root, &self.base) == Role::Traces);
        shared.extend(traces.map(|m| m.path.clone()));
        if let Some(running) = self.running {
            shared.extend(running.written.iter().filter(|f| self.is_own(f)).cloned());
            for file in running.written.iter().filter(|f| release.is_some_and(|r| f.starts_with(&r.path))) {
                self.warnings.push(format!(
                    "{} is written inside the release: its hash changes by itself",
                    file.display()
                ));
            }
        }
        for path in shared.iter().filter(|p| !stored(p)) {
            self.warnings.push(format!(
                "{} is written by production and would be written by staging too. Let the service write to its output, or to a path below its working folder",
                path.display()
            ));
        }
    }
}
