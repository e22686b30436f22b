//! What the gateway of an environment is told: where it listens, where ports lead, and its rules.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use switchback_core::config::{Destination, EgressDefault, host_matches};
use switchback_core::egress::Fate;

/// Everything the gateway needs to know. Holds the key of the environment's own authority.
#[derive(Clone, Serialize, Deserialize)]
pub struct GatewayConfig {
    /// The Compose project, taken away from the names of containers to have those of services.
    pub project: String,
    /// Its own addresses on the staging networks: what names are answered with, and where the sink listens.
    pub addresses: Vec<Ipv4Addr>,
    /// Who knows the names of containers, and (for what is let out) those of the world.
    pub resolver: SocketAddr,
    /// Ports that lead to services.
    pub ingress: Vec<Ingress>,
    /// What becomes of what is sent.
    pub rules: Rules,
}

/// A port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Where the gateway listens, on every address.
    pub listen: u16,
    /// The name of the service on its networks.
    pub service: String,
    /// Its port.
    pub port: u16,
}

/// What becomes of what is sent.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Rules {
    /// Where no other rule says something else.
    pub default: EgressDefault,
    /// What is let out.
    pub allow: Vec<Destination>,
    /// Canned answers.
    pub stubs: Vec<Canned>,
    /// Signs the certificates of canned answers.
    pub authority: Option<Authority>,
}

/// A canned answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canned {
    /// A name, or `*.domain`.
    pub host: String,
    /// Only on this port.
    pub port: Option<u16>,
    /// Only for this method.
    pub method: Option<String>,
    /// Only for this path; with `*` at its end, every one that begins so.
    pub path: Option<String>,
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// Content, in base 64.
    pub body: String,
}

/// Certificate and key of an environment's own authority, as PEM.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The certificate; services trust it.
    pub certificate: String,
    /// The key; only the gateway has it.
    pub key: String,
}

impl Rules {
    /// Whether a destination is let out.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.allow.iter().any(|d| d.covers(host, port))
    }

    /// The one named destination that everything on a port goes to, where the rules name exactly one.
    ///
    /// Neither HTTP nor TLS says where it wants to go on such a port (IMAP, a database).
    pub fn only_on(&self, port: u16) -> Option<&Destination> {
        let mut named = self.allow.iter().filter(|d| d.port == Some(port));
        let first = named.next().filter(|d| !d.host.starts_with("*."))?;
        named.next().is_none().then_some(first)
    }

    /// Whether requests to a host on a port may have a canned answer.
    pub fn stubbed(&self, host: &str, port: u16) -> bool {
        self.stubs.iter().any(|s| s.port.is_none_or(|p| p == port) && host_matches(&s.host, host))
    }

    /// The canned answer to a request, the first that fits.
    pub fn stub(&self, (host, port): (&str, u16), method: &str, path: &str) -> Option<&Canned> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        self.stubs.iter().find(|s| {
            s.port.is_none_or(|p| p == port)
                && host_matches(&s.host, host)
                && s.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
                && s.path.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
                    Some(beginning) => path.starts_with(beginning),
                    None => path == wanted,
                })
        })
    }

    /// Whether a name is answered with the gateway's address.
    pub fn knows(&self, host: &str) -> bool {
        self.default == EgressDefault::Record
            || self.allow.iter().any(|d| host_matches(&d.host, host))
            || self.stubs.iter().any(|s| host_matches(&s.host, host))
    }

    /// What becomes of what no rule names.
    pub fn fate(&self) -> Fate {
        match self.default {
            EgressDefault::Record => Fate::Recorded,
            EgressDefault::Deny => Fate::Denied,
        }
    }

    /// Ports that the rules name.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let allowed = self.allow.iter().filter_map(|d| d.port);
        allowed.chain(self.stubs.iter().filter_map(|s| s.port)).collect::<Vec<_>>().into_iter()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn canned(host: &str, path: Option<&str>) -> Canned {
        Canned {
            host: host.into(),
            port: None,
            method: None,
            path: path.map(str::to_owned),
            status: 200,
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }

    #[test]
    fn the_first_canned_answer_that_fits_is_taken() {
        let mut only_post = canned("api.x", Some("/v1/*"));
        only_post.method = Some("POST".into());
        only_post.status = 201;
        let rules = Rules { stubs: vec![only_post, canned("api.x", Some("/v1/a"))], ..Rules::default() };
        let status = |method, path| rules.stub(("API.x", 443), method, path).map(|s| s.status);
        assert_eq!(status("post", "/v1/a?q=1"), Some(201));
        assert_eq!(status("GET", "/v1/a?q=1"), Some(200));
        assert_eq!(status("GET", "/v1/b"), None);
        assert!(rules.stub(("other", 443), "GET", "/v1/a").is_none());
    }

    #[test]
    fn a_port_leads_out_only_where_one_destination_is_named_for_it() {
        let rule = |allow: &[&str]| Rules {
            allow: allow.iter().map(|a| Destination::parse(a).expect("a destination")).collect(),
            ..Rules::default()
        };
        assert_eq!(rule(&["db.x:5432", "y"]).only_on(5432).map(|d| d.host.clone()), Some("db.x".into()));
        assert!(rule(&["db.x:5432", "e.x:5432"]).only_on(5432).is_none());
        assert!(rule(&["*.x:5432"]).only_on(5432).is_none());
        assert!(rule(&["db.x"]).only_on(5432).is_none());
    }
}
