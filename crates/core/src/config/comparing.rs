//! Checks that compare the old version with the new one: `checks.api` and `checks.performance`.

use super::check::Checker;
use super::{Config, ConfigError};
use crate::duration::Span;
use crate::ids::ServiceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An API that is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiCheck {
    /// The service that has it.
    pub service: ServiceName,
    /// Its port; by default the one of the health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Where it gives its OpenAPI document (3.0 or 3.1, JSON or YAML), such as `/openapi.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Paths whose answers are compared, such as `/api/notes?limit=5`; GET only. With a document, all that need nothing
    /// else are asked for besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<String>,
    /// Headers of every request; `{{env.NAME}}` stands for a variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Changes that are wanted: `RULE`, or `RULE METHOD /path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

/// A request whose times are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerformanceCheck {
    /// Name in reports.
    pub name: String,
    /// The service that is asked.
    pub service: ServiceName,
    /// Its port; by default the one of the health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// What is asked for, such as `/api/notes?limit=50`.
    pub path: String,
    /// GET, or what else; it is sent to clones only.
    #[serde(default = "defaults::method")]
    pub method: String,
    /// Headers; `{{env.NAME}}` stands for a variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// By how much (percent) the median may grow.
    #[serde(default = "defaults::p50")]
    pub p50: f64,
    /// By how much (percent) the 95th percentile may grow.
    #[serde(default = "defaults::p95")]
    pub p95: f64,
    /// By how much (percent) the processor time per request may grow.
    #[serde(default = "defaults::cpu")]
    pub cpu: f64,
    /// What is less than this does not count.
    #[serde(default = "defaults::floor")]
    pub floor: Span,
    /// Measuring ends after this time, with what there is.
    #[serde(default = "defaults::limit")]
    pub limit: Span,
}

mod defaults {
    use crate::duration::Span;
    pub fn method() -> String {
        "GET".to_owned()
    }
    /// See docs/upgrade-infrastructure/testing/performance.md for what these margins can tell apart.
    pub fn p50() -> f64 {
        10.0
    }
    pub fn p95() -> f64 {
        20.0
    }
    /// Processor time is counted in ticks of 10 ms, and shared hosts move it by a fifth.
    pub fn cpu() -> f64 {
        30.0
    }
    pub fn floor() -> Span {
        Span(std::time::Duration::from_millis(2))
    }
    pub fn limit() -> Span {
        Span::secs(60)
    }
}

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let known = |at: String, service: &ServiceName, port: Option<&String>| {
        let Some(found) = config.services.get(service) else {
            let message = format!("{at}: there is no service {:?}", service.as_str());
            return Err(checker.error(&format!("{at}.service"), message, None));
        };
        let name = port.map(String::as_str).or_else(|| found.main_port());
        match name {
            None => Err(checker.error(
                &format!("{at}.service"),
                format!("{at}: the service {service} has no port to ask"),
                Some("name its ports under `services`".into()),
            )),
            Some(name) if !found.ports.contains_key(name) => {
                let message = format!("{at}: the service {service} has no port {name:?}");
                Err(checker.error(&format!("{at}.port"), message, None))
            }
            Some(_) => Ok(()),
        }
    };
    let absolute = |at: String, path: &str| {
        if path.starts_with('/') && !path.contains(char::is_whitespace) {
            return Ok(());
        }
        let message = format!("{at}: {path:?} is no path of a request");
        Err(checker.error(&at, message, Some("begin with `/`, and write %20 for a space".into())))
    };
    for (index, api) in config.checks.api.iter().enumerate() {
        let at = format!("checks.api[{index}]");
        known(at.clone(), &api.service, api.port.as_ref())?;
        if api.document.is_none() && api.requests.is_empty() {
            let hint = "name a `document`, or `requests` whose answers are compared";
            let message = format!("{at}: there is nothing to compare");
            return Err(checker.error(&at, message, Some(hint.into())));
        }
        for path in api.document.iter().chain(&api.requests) {
            absolute(format!("{at}.requests"), path)?;
        }
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, check) in config.checks.performance.iter().enumerate() {
        let at = format!("checks.performance[{index}]");
        known(at.clone(), &check.service, check.port.as_ref())?;
        absolute(format!("{at}.path"), &check.path)?;
        if !names.insert(&check.name) {
            return Err(checker.error(&at, format!("{at}: there are two checks {:?}", check.name), None));
        }
        for (key, value) in [("p50", check.p50), ("p95", check.p95), ("cpu", check.cpu)] {
            if !(1.0..=1000.0).contains(&value) {
                let message = format!("{at}.{key} must be between 1 and 1000 percent");
                return Err(checker.error(&format!("{at}.{key}"), message, None));
            }
        }
    }
    Ok(())
}
