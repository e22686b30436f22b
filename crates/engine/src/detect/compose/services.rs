//! The services: which port they are used by, and what answers there now.

use super::FoundService;
use super::known::known;
use crate::check::http::probe_http;
use crate::docker::Container;
use crate::runtime::compose::{ComposeRuntime, is_one_off};
use std::time::Duration;
use switchback_core::compose::{DetectedService, Model};

/// A service that has not answered by then is not one that a first check should rely on.
const PATIENCE: Duration = Duration::from_secs(3);
/// Paths that many services answer when they are healthy.
const HEALTH_PATHS: [&str; 5] = ["/health", "/healthz", "/api/health", "/ping", "/-/healthy"];

/// Describes the services; those that run are asked with GET.
pub fn look(
    runtime: Option<&ComposeRuntime>,
    model: &Model,
    detected: Vec<DetectedService>,
    containers: &[(String, Container)],
) -> Vec<FoundService> {
    let mut found = Vec::new();
    for service in detected {
        let published = model.service(&service.name).is_some_and(|s| {
            s.ports().iter().any(|p| Some(p.container) == service.port && p.protocol == "tcp")
        });
        let application = service.image.as_deref().and_then(known);
        let mut one = FoundService {
            port: None,
            published,
            health: service.health,
            healthy_path: None,
            front_page: None,
            asked: false,
            known: application,
            image: service.image,
            software: service.software,
            name: service.name,
        };
        // Databases speak their own protocols; most close the connection or wait at a GET.
        if one.software.is_none()
            && let Some(port) = service.port
        {
            ask(runtime, containers, &mut one, port);
            let http = one.front_page.is_some() || !one.asked;
            one.port = Some((if http { "http" } else { "tcp" }.to_owned(), port));
        }
        found.push(one);
    }
    found
}

fn ask(
    runtime: Option<&ComposeRuntime>,
    containers: &[(String, Container)],
    one: &mut FoundService,
    port: u16,
) {
    let own = containers.iter().filter(|(s, c)| s == one.name.as_str() && !is_one_off(c));
    let Some((_, container)) = own.into_iter().find(|(_, c)| c.state.running && !c.state.paused) else {
        return;
    };
    let Some((host, port)) = runtime.and_then(|r| r.reached(container, port)) else { return };
    one.asked = true;
    let get = |path: &str| probe_http(&format!("http://{host}:{port}{path}"), &(100..=599), PATIENCE).ok();
    one.front_page = get("/");
    if one.front_page.is_none() {
        return; // nobody speaks HTTP there
    }
    let paths = one.known.and_then(|k| k.health).into_iter().chain(HEALTH_PATHS);
    one.healthy_path = paths.into_iter().find(|path| get(path) == Some(200)).map(str::to_owned);
    // A page for everything says nothing about health.
    if one.healthy_path.is_some() && get("/switchback-asks-for-what-is-not-there") == Some(200) {
        one.healthy_path = None;
    }
}
