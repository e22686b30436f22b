//! `staging.egress`: what becomes of what the services of a staging copy send out.

use super::check::Checker;
use super::{Config, ConfigError, ProcessIsolation, RuntimeKind};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The most bytes of all canned answers together.
pub const STUB_BYTES: u64 = 1 << 20;

/// What becomes of what staging sends out: one word, or a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Egress {
    /// What becomes of all that is not named below.
    pub default: EgressDefault,
    /// Destinations that are let out: `host`, `host:port`, `*.domain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Canned answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stubs: Vec<Stub>,
}

/// What becomes of what no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressDefault {
    /// Mails and requests are taken, recorded, and go nowhere.
    #[default]
    Record,
    /// Names are not found and connections get no answer; both are recorded.
    Deny,
}

/// A canned answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stub {
    /// The host of the request: a name, or `*.domain`.
    pub host: String,
    /// Only on this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Only this path; with a `*` at its end, every path that begins so. A query is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status of the answer.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers of the answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The answer's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A file with the answer's content, relative to the stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

fn ok() -> u16 {
    200
}

/// The mapping, as written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "EgressRules")]
#[derive(Default)]
struct Rules {
    /// What becomes of all that is not named below.
    default: EgressDefault,
    /// Destinations that are let out: `host`, `host:port`, `*.domain`.
    allow: Vec<String>,
    /// Canned answers.
    stubs: Vec<Stub>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Egress")]
#[expect(dead_code, reason = "it only describes the file")]
enum Written {
    Word(EgressDefault),
    Rules(Rules),
}

impl JsonSchema for Egress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Written::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Egress {
    // Not an untagged enum: its errors would name neither key nor value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Egress;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`record`, `deny`, or a mapping with default, allow and stubs")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Egress, E> {
                let default = match word {
                    "record" => EgressDefault::Record,
                    "deny" => EgressDefault::Deny,
                    other => return Err(E::unknown_variant(other, &["record", "deny"])),
                };
                Ok(Egress { default, ..Egress::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Egress, A::Error> {
                let Rules { default, allow, stubs } = Rules::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Egress { default, allow, stubs })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A destination: a name or `*.domain`, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// In lower case; `*.` at its beginning means everything below.
    pub host: String,
    /// Every port, where none is given.
    pub port: Option<u16>,
}

impl Destination {
    /// Reads `host`, `host:port`, `*.domain`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((host, port)) => match port.parse::<u16>() {
                Ok(number) if number > 0 => (host, Some(number)),
                _ => return Err(format!("{port:?} is no port")),
            },
        };
        host_pattern(host)?;
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Whether it means this host and port.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|p| p == port) && host_matches(&self.host, host)
    }
}

/// Whether a pattern (`name` or `*.domain`) means a host; letters' case and a dot at the end do not count.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.')),
        None => host == pattern,
    }
}

fn host_pattern(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    if name.len() <= 253 && !name.is_empty() && name.split('.').all(label) {
        Ok(())
    } else {
        Err(format!("{host:?} is no host name"))
    }
}

pub(super) fn check(config: &Config, checker: &Checker<'_>) -> Result<(), ConfigError> {
    let staging = &config.staging;
    if config.runtime == RuntimeKind::Process && !staging.replace_secrets.is_empty() {
        return Err(checker.error(
            "staging.replace_secrets",
            "`staging.replace_secrets` belongs to `runtime: compose`, and the runtime is `process`",
            Some("set other values under `staging.env`".into()),
        ));
    }
    if config.runtime == RuntimeKind::Compose && staging.isolation != ProcessIsolation::Auto {
        return Err(checker.error(
            "staging.isolation",
            "`staging.isolation` belongs to `runtime: process`: containers of a copy are always isolated",
            Some("remove it".into()),
        ));
    }
    if staging.isolation == ProcessIsolation::Off && staging.egress != Egress::default() {
        return Err(checker.error(
            "staging.egress",
            "`staging.egress` needs isolation, and `staging.isolation` is `off`",
            Some("remove one of them".into()),
        ));
    }
    for (index, allowed) in staging.egress.allow.iter().enumerate() {
        if let Err(why) = Destination::parse(allowed) {
            let at = format!("staging.egress.allow[{index}]");
            return Err(checker.error(
                &at,
                format!("{at}: {why}"),
                Some("write `host`, `host:443` or `*.domain`".into()),
            ));
        }
    }
    for (index, stub) in staging.egress.stubs.iter().enumerate() {
        if let Err((why, hint)) = check_stub(stub) {
            let at = format!("staging.egress.stubs[{index}]");
            return Err(checker.error(&at, format!("{at}: {why}"), Some(hint.into())));
        }
    }
    for (index, name) in staging.replace_secrets.iter().enumerate() {
        let good = !name.is_empty()
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'));
        if !good {
            let at = format!("staging.replace_secrets[{index}]");
            return Err(checker.error(
                &at,
                format!("{at}: {name:?} is no name of a variable or of a Compose secret"),
                Some("name the variable, never its value".into()),
            ));
        }
    }
    Ok(())
}

type Why = (String, &'static str);

fn check_stub(stub: &Stub) -> Result<(), Why> {
    host_pattern(&stub.host).map_err(|why| (why, "write a name, or `*.domain`"))?;
    if stub.port == Some(0) {
        return Err(("port 0 is no port".into(), "leave it out to mean every port"));
    }
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
    };
    if let Some(method) = stub.method.as_deref().filter(|m| !token(m)) {
        return Err((format!("{method:?} is no method"), "for example GET or POST"));
    }
    if let Some(path) = stub.path.as_deref().filter(|p| !p.starts_with('/') || p.contains(['?', '#', ' '])) {
        return Err((
            format!("{path:?} is no path"),
            "a path begins with `/` and has no query; `*` at its end means everything that begins so",
        ));
    }
    if !(200..=599).contains(&stub.status) {
        return Err((format!("{} is no status of an answer", stub.status), "for example 200"));
    }
    for (name, value) in &stub.headers {
        if !token(name) || value.chars().any(char::is_control) {
            return Err((
                format!("{name:?} is no header that can be sent"),
                "one line, no control characters",
            ));
        }
        if ["content-length", "transfer-encoding", "connection"].contains(&name.to_ascii_lowercase().as_str())
        {
            return Err((format!("the header {name} is set by Switchback"), "remove it"));
        }
    }
    match (&stub.body, &stub.file) {
        (Some(_), Some(_)) => Err(("`body` and `file` exclude each other".into(), "keep one of them")),
        (None, Some(file)) => {
            let path = std::path::Path::new(file);
            let up = path.components().any(|c| matches!(c, std::path::Component::ParentDir));
            if path.is_absolute() || up || file.is_empty() {
                return Err((
                    format!("{file:?} does not lie in the stack"),
                    "write it relative to the stack",
                ));
            }
            Ok(())
        }
        (Some(body), None) if body.len() as u64 > STUB_BYTES => {
            Err((format!("the body is longer than {STUB_BYTES} bytes"), "shorten it"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(egress: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("stack: s\nruntime: compose\nstaging:\n  egress: {egress}\n"), "f")
    }

    #[test]
    fn a_word_or_a_mapping_says_what_becomes_of_egress() {
        let of = |text: &str| parse(text).expect("a configuration").staging.egress;
        assert_eq!(of("record"), Egress::default());
        assert_eq!(of("deny").default, EgressDefault::Deny);
        let rules =
            of("{ allow: ['api.example.com:443', '*.example.org'], stubs: [ { host: x.y, body: '{}' } ] }");
        assert_eq!(
            (rules.default, rules.allow.len(), rules.stubs[0].status),
            (EgressDefault::Record, 2, 200)
        );
        let again = serde_yaml_ng::to_string(&rules).expect("text");
        assert_eq!(serde_yaml_ng::from_str::<Egress>(&again).expect("the same"), rules);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, says) in [
            ("denny", "denny"),
            ("{ alow: [] }", "alow"),
            ("{ allow: ['https://x'] }", "staging.egress.allow[0]"),
            ("{ allow: ['x:0'] }", "no port"),
            ("{ stubs: [ { host: 'a b' } ] }", "no host name"),
            ("{ stubs: [ { host: a, path: x } ] }", "no path"),
            ("{ stubs: [ { host: a, status: 7 } ] }", "no status"),
            ("{ stubs: [ { host: a, body: x, file: y } ] }", "exclude each other"),
            ("{ stubs: [ { host: a, file: ../y } ] }", "does not lie in the stack"),
            ("{ stubs: [ { host: a, headers: { 'x y': z } } ] }", "no header"),
            ("{ stubs: [ { host: a, headers: { Connection: z } } ] }", "set by Switchback"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(error.line > 0, "{text}: no line in {error:?}");
        }
    }

    #[test]
    fn patterns_mean_what_is_below_and_nothing_else() {
        let d = |t: &str| Destination::parse(t).expect("a destination");
        assert!(d("*.example.com").covers("a.b.Example.com.", 1));
        for no in ["example.com", "xexample.com", ".example.com", "example.com.evil"] {
            assert!(!d("*.example.com").covers(no, 1), "{no}");
        }
        assert!(d("API.x:443").covers("api.x", 443) && !d("api.x:443").covers("api.x", 80));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let process = "stack: s\nservices: { a: { version: '1', command: [x], health: { command: [x] } } }\n";
        let refused = |text: String, word: &str| {
            let error = Config::parse(&text, "f").expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(format!("{process}staging: {{ replace_secrets: [A] }}\n"), "runtime: compose");
        refused(format!("{process}staging: {{ isolation: off, egress: deny }}\n"), "needs isolation");
        refused(
            "stack: s\nruntime: compose\nstaging: { isolation: required }\n".to_owned(),
            "always isolated",
        );
        Config::parse(&format!("{process}staging: {{ isolation: required, egress: deny }}\n"), "f")
            .expect("accepted");
    }
}
