//! Asks registries which tags an image has (OCI distribution specification 1.1, "Content discovery").
//!
//! Answers are hostile: they are bounded, and a password goes only to the registry itself or to where it sends its clients over TLS.

use crate::docker::registry_login;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::time::{Duration, Instant};
use switchback_core::compose::ImageName;

/// Where images without a host come from: the public registry, by the name under which engines keep its login.
const HUB: &str = "index.docker.io";
const HUB_DOMAIN: &str = "docker.io";
/// One request.
const LIMIT: Duration = Duration::from_secs(20);
/// All of one image: some have tens of thousands of tags, a thousand a page.
const IN_ALL: Duration = Duration::from_secs(90);
const PAGES: usize = 100;
const PAGE_BYTES: u64 = 4 << 20;
const TAGS: usize = 100_000;

/// An image's place in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// With the scheme, without a `/` at its end.
    base: String,
    path: String,
}

impl Place {
    fn of(image: &ImageName) -> Self {
        let (host, path) = match image.repository.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
            _ => (HUB, image.repository.clone()),
        };
        if host.strip_suffix(HUB_DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
            let path = if path.contains('/') { path } else { format!("library/{path}") };
            return Self { base: format!("https://{HUB}"), path };
        }
        let scheme = if is_own(host) { "http" } else { "https" };
        Self { base: format!("{scheme}://{host}"), path }
    }
}

/// Whether a host is this one, which engines speak to without TLS.
fn is_own(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What is sent to be let in.
enum Pass {
    Nobody,
    Header(String),
}

struct Session {
    agent: ureq::Agent,
    until: Instant,
}

struct Answer {
    status: u16,
    link: Option<String>,
    challenge: Option<String>,
    body: String,
}

/// All tags of an image; an error says in words why there are none.
pub fn tags(image: &ImageName, cancelled: &dyn Fn() -> bool) -> Result<Vec<String>, String> {
    let place = Place::of(image);
    let login = registry_login(&image.to_string()).map_err(|e| e.to_string())?;
    let own = place.base.starts_with("http:");
    let session = Session {
        // A redirect could lead a password elsewhere, and no registry sends its list of tags that way.
        agent: ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .max_redirects(0)
            // A proxy is for the world outside of this host.
            .proxy(if own { None } else { ureq::Proxy::try_from_env() })
            .build()
            .into(),
        until: Instant::now() + IN_ALL,
    };
    let mut url = format!("{}/v2/{}/tags/list?n=1000", place.base, place.path);
    let mut pass = Pass::Nobody;
    let mut asked = false;
    let mut found = Vec::new();
    for _ in 0..PAGES {
        if cancelled() {
            return Err("interrupted".to_owned());
        }
        let mut answer = session.get(&url, &pass)?;
        if answer.status == 401 && !asked {
            asked = true;
            pass = session.let_in(&place, answer.challenge.as_deref().unwrap_or_default(), &login)?;
            answer = session.get(&url, &pass)?;
        }
        match answer.status {
            200 => {}
            401 | 403 => return Err(format!("it answers {}: `docker login` there may help", answer.status)),
            404 => return Err("it does not know the image".to_owned()),
            429 => return Err("it was asked too often (429); later it may answer".to_owned()),
            other => return Err(format!("it answers {other}")),
        }
        let page: Value =
            serde_json::from_str(&answer.body).map_err(|e| format!("its answer is not JSON: {e}"))?;
        let list = page.get("tags").and_then(Value::as_array);
        found.extend(list.into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)));
        if found.len() > TAGS {
            return Err(format!("it has more than {TAGS} tags"));
        }
        match answer.link.as_deref().and_then(|link| next(link, &place)) {
            Some(following) if following != url => url = following,
            _ => return Ok(found),
        }
    }
    Err(format!("its list has more than {PAGES} pages"))
}

/// The next page, if a `Link` header names one of the same registry (RFC 8288).
fn next(link: &str, place: &Place) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.replace('"', "").contains("rel=next") {
        return None;
    }
    if target.starts_with('/') && !target.starts_with("//") {
        return Some(format!("{}{target}", place.base));
    }
    target.starts_with(&format!("{}/", place.base)).then(|| target.to_owned())
}

impl Session {
    fn finish(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, String> {
        let mut answer = answer.map_err(|e| e.to_string())?;
        if Instant::now() > self.until {
            return Err(format!("it took longer than {} s", IN_ALL.as_secs()));
        }
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, link, challenge) =
            (answer.status().as_u16(), header("link"), header("www-authenticate"));
        let body = answer
            .body_mut()
            .with_config()
            .limit(PAGE_BYTES)
            .read_to_string()
            .map_err(|e| format!("its answer cannot be read: {e}"))?;
        Ok(Answer { status, link, challenge, body })
    }

    fn get(&self, url: &str, pass: &Pass) -> Result<Answer, String> {
        let mut get = self.agent.get(url).header("Accept", "application/json");
        if let Pass::Header(value) = pass {
            get = get.header("Authorization", value);
        }
        self.finish(get.call())
    }

    /// Answers a challenge: with the password itself, or with a token that it buys.
    fn let_in(&self, place: &Place, challenge: &str, login: &Login) -> Result<Pass, String> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(login.basic().map_or(Pass::Nobody, Pass::Header));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(format!("it asks for a login of an unknown kind ({scheme})"));
        }
        let value = |name: &str| parameter(parameters, name);
        let realm = value("realm").ok_or("it does not say where tokens come from")?;
        let secure = realm.starts_with("https://") || realm.starts_with(&format!("{}/", place.base));
        if !secure {
            return Err(format!("it sends its clients to {realm}, which is not secure"));
        }
        let scope = value("scope").unwrap_or_else(|| format!("repository:{}:pull", place.path));
        let service = value("service").unwrap_or_default();
        let answer = if let Some(token) = &login.token {
            let form = [
                ("grant_type", "refresh_token"),
                ("service", &service),
                ("client_id", "switchback"),
                ("scope", &scope),
                ("refresh_token", token),
            ];
            self.finish(self.agent.post(&realm).send_form(form))?
        } else {
            let mut get = self.agent.get(&realm).query("service", &service).query("scope", &scope);
            if let Some(value) = login.basic() {
                get = get.header("Authorization", value);
            }
            self.finish(get.call())?
        };
        if answer.status != 200 {
            return Err(format!("{realm} answers {}: `docker login` may help", answer.status));
        }
        let body: Value =
            serde_json::from_str(&answer.body).map_err(|e| format!("{realm} gave no token: {e}"))?;
        let token = ["token", "access_token"].iter().find_map(|key| body.get(*key)?.as_str());
        token.map(|t| Pass::Header(format!("Bearer {t}"))).ok_or_else(|| format!("{realm} gave no token"))
    }
}

/// What somebody logged in with.
#[derive(Default)]
pub struct Login {
    /// Name and password.
    pub user: Option<(String, String)>,
    /// Instead of them, a token that buys others.
    pub token: Option<String>,
}

impl Login {
    fn basic(&self) -> Option<String> {
        let (name, password) = self.user.as_ref()?;
        Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}"))))
    }
}

/// A parameter of a challenge, quoted or not (RFC 9110, 11.2).
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let (key, after) = rest.split_once('=')?;
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = left;
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
