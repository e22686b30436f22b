//! What is known of applications that people host themselves, by the name of their image.
//!
//! Owns a table. What it says becomes comments or checks that are tried first; it must never decide anything alone.

use switchback_core::compose::ImageName;

/// An application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The last part of its images' names.
    names: &'static [&'static str],
    /// The path that says whether it is healthy.
    pub health: Option<&'static str>,
    /// The command that migrates its data; empty where it does so when it starts.
    pub migrate: &'static [&'static str],
    /// Tables that a new release rewrites.
    pub rewrites: &'static [&'static str],
}

const fn app(names: &'static [&'static str], health: Option<&'static str>) -> Known {
    Known { names, health, migrate: &[], rewrites: &[] }
}

const ALL: [Known; 22] = [
    Known {
        names: &["jupyterhub"],
        health: Some("/hub/api/health"),
        migrate: &["jupyterhub", "upgrade-db"],
        // The hub writes the scopes of its built-in roles whenever it starts.
        rewrites: &["roles"],
    },
    app(&["n8n"], Some("/healthz/readiness")),
    app(&["gitea", "forgejo"], Some("/api/healthz")),
    app(&["grafana", "grafana-oss", "grafana-enterprise"], Some("/api/health")),
    app(&["keycloak"], None),
    app(&["nextcloud"], Some("/status.php")),
    app(&["immich-server"], Some("/api/server/ping")),
    app(&["synapse"], Some("/health")),
    app(&["vaultwarden", "server-bitwarden"], Some("/alive")),
    app(&["homeassistant", "home-assistant"], None),
    app(&["paperless-ngx"], None),
    app(&["mealie"], Some("/api/app/about")),
    app(&["metabase"], Some("/api/health")),
    app(&["mattermost-team-edition", "mattermost-enterprise-edition"], Some("/api/v4/system/ping")),
    app(&["uptime-kuma"], None),
    app(&["authentik"], Some("/-/health/ready/")),
    app(&["open-webui"], Some("/health")),
    app(&["miniflux"], Some("/healthcheck")),
    Known {
        names: &["mastodon"],
        health: Some("/health"),
        migrate: &["bundle", "exec", "rails", "db:migrate"],
        rewrites: &[],
    },
    Known {
        names: &["superset"],
        health: Some("/health"),
        migrate: &["superset", "db", "upgrade"],
        rewrites: &[],
    },
    Known { names: &["airflow"], health: None, migrate: &["airflow", "db", "migrate"], rewrites: &[] },
    Known { names: &["outline"], health: Some("/_health"), migrate: &["yarn", "db:migrate"], rewrites: &[] },
];

/// The application of an image.
pub fn known(image: &str) -> Option<&'static Known> {
    let image = ImageName::parse(image).ok()?;
    let base = image.base().to_ascii_lowercase();
    ALL.iter().find(|k| k.names.contains(&base.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_are_known_by_the_last_part_of_their_image() {
        let hub = known("quay.io/jupyterhub/jupyterhub:5.4.6").expect("known");
        assert_eq!(hub.migrate, ["jupyterhub", "upgrade-db"]);
        assert_eq!(known("docker.n8n.io/n8nio/n8n@sha256:12"), None, "no image's name");
        assert!(known("n8nio/n8n").is_some_and(|k| k.migrate.is_empty()));
        assert_eq!(known("nginx:1"), None);
    }

    #[test]
    fn health_paths_are_absolute_and_names_are_single() {
        for known in ALL {
            assert!(known.health.is_none_or(|p| p.starts_with('/')), "{known:?}");
        }
        let mut names: Vec<&str> = ALL.iter().flat_map(|k| k.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
