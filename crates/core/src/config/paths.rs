//! `paths`: stops that upgrades may not leave out.

use super::check::Checker;
use super::{Config, ConfigError};
use crate::tags;
use std::cmp::Ordering;

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    for (number, stop) in config.paths.iter().enumerate() {
        let refuse = |key: &str, why: String, hint: &str| {
            let path = format!("paths[{number}].{key}");
            Err(checker.error(&path, format!("{path} {why}"), Some(hint.into())))
        };
        if !config.services.contains_key(&stop.service) {
            return refuse(
                "service",
                format!("is {:?}, which is no service", stop.service.as_str()),
                "name one of `services`",
            );
        }
        for (key, version) in [("before", &stop.before), ("through", &stop.through)] {
            if !tags::is_version(version) {
                return refuse(key, format!("{version:?} is no version"), "write numbers with dots: 2.0.0");
            }
        }
        if tags::order(&stop.through, &stop.before) != Some(Ordering::Less) {
            return refuse(
                "through",
                format!("{} is not before {}", stop.through, stop.before),
                "`through` is the last stop before `before`: { service: n8n, before: 2.0.0, through: 1.123.0 }",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn stops_are_versions_in_their_order() {
        let parse = |stop: &str| {
            let text = format!(
                "stack: s\nruntime: compose\nservices: {{ n8n: {{ health: {{ http: /, port: http }}, ports: {{ http: 5678 }} }} }}\npaths: [{stop}]\n"
            );
            Config::parse(&text, "f")
        };
        parse("{ service: n8n, before: 2.0.0, through: 1.123.0 }").expect("good");
        for (bad, why) in [
            ("{ service: n9n, before: 2.0.0, through: 1.123.0 }", "no service"),
            ("{ service: n8n, before: 2.0.0, through: latest }", "no version"),
            ("{ service: n8n, before: 1.0.0, through: 1.123.0 }", "not before"),
            ("{ service: n8n, before: 1.0.0, through: 1.0 }", "not before"),
            ("{ service: n8n, before: 1.0.0 }", "through"),
        ] {
            let error = parse(bad).expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
