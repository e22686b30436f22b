//! A Compose stack: engine and Compose, the project's files and images, its data. Changes nothing of production.

mod data;
mod project;

use super::Findings;
use std::sync::Arc;
use switchback_core::config::Config;
use switchback_engine::docker::compose::ComposeCli;
use switchback_engine::docker::{Docker, DockerError, permissions};
use switchback_engine::home::Home;
use switchback_engine::runtime::compose::{CLOSED_HINT, closed};

pub use data::look as data;
pub use project::{Project, look as project};

/// The oldest engine that everything was tried on.
const OLDEST: (u32, u32) = (20, 10);

/// Looks at Compose and the engine; the engine, if it can be spoken to.
pub fn engine(findings: &mut Findings) -> Option<Arc<Docker>> {
    match ComposeCli::find() {
        Ok(cli) => findings.ok("compose", format!("Docker Compose {} is there", cli.version())),
        Err(e) => findings.problem(
            "compose",
            e.to_string(),
            "the old docker-compose (1.x, written in Python) cannot be used; `docker compose version` shows what is installed",
        ),
    }
    let docker = match Docker::connect() {
        Ok(docker) => docker,
        Err(e) => {
            findings.problem("engine", e.to_string(), format!("the engine is named by {}", chosen_by()));
            return None;
        }
    };
    match docker.info() {
        Ok(info) => {
            let kind = if info.rootless { ", rootless" } else { "" };
            let text = format!(
                "the Docker engine {} answers at {} (API {}, {}{kind}; named by {})",
                info.server_version,
                docker.endpoint(),
                info.api_version,
                info.storage_driver,
                chosen_by()
            );
            if number(&info.server_version).is_some_and(|found| found < OLDEST) {
                findings.warning("engine", text, "engine 20.10 and later were tried; update it");
            } else {
                findings.ok("engine", text);
            }
            if info.rootless {
                findings.warning(
                    "rootless",
                    "the engine is rootless: its helpers see and own files only as its user does",
                    "bind mounts with files of other users cannot be cloned; volumes can",
                );
            }
        }
        // Said below, with everything else that is refused.
        Err(DockerError::Forbidden { .. }) => {}
        Err(e) => findings.problem("engine", e.to_string(), "`docker info` tells more"),
    }
    if !docker.is_local() {
        findings.warning(
            "remote",
            format!("the engine runs elsewhere ({}): each step takes longer", docker.endpoint()),
            "run Switchback on the engine's host if you can; a watchdog cannot act while the network is gone",
        );
    }
    if let Some(host) = docker.closed_host() {
        findings.problem("ports", closed(&host), CLOSED_HINT);
    }
    allowed(&docker, findings).then(|| Arc::new(docker))
}

/// Reports what a proxy refuses; whether the rest can be looked at.
fn allowed(docker: &Docker, findings: &mut Findings) -> bool {
    match permissions::missing(docker) {
        Ok(missing) if missing.is_empty() => {
            findings.ok("permissions", "the engine permits everything that is needed");
            true
        }
        Ok(missing) => {
            for one in &missing {
                findings.problem(
                    "permissions",
                    format!(
                        "{} refuses {}, which is needed for {}",
                        docker.endpoint(),
                        one.section,
                        one.needed_for
                    ),
                    format!("allow {} in the proxy before the Docker socket", one.section),
                );
            }
            false
        }
        Err(e) => {
            findings.problem("permissions", e.to_string(), "`docker info` tells more");
            false
        }
    }
}

/// What decided which engine is used, as for the `docker` command.
fn chosen_by() -> &'static str {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if set("DOCKER_HOST") {
        "DOCKER_HOST"
    } else if set("DOCKER_CONTEXT") {
        "DOCKER_CONTEXT"
    } else {
        "the current context of the docker command"
    }
}

/// `20.10` of `20.10.24+dfsg1`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What the other parts look at.
pub struct Scene<'a> {
    pub home: &'a Home,
    pub config: &'a Config,
    pub docker: Option<&'a Arc<Docker>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_engines_are_read() {
        assert_eq!(number("20.10.24+dfsg1"), Some((20, 10)));
        assert!(number("19.03.15").is_some_and(|n| n < OLDEST));
        assert_eq!(number("dev"), None);
    }
}
