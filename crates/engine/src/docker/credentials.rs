//! Credentials of registries, as `docker login` keeps them.
//!
//! Owns reading them for one pull. They must never be written anywhere or put into an argument list.

use super::DockerError;
use super::endpoint::{config_dir, config_file, variable};
use crate::exec::{self, Exec};
use crate::registry::Login;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard::auth::DockerCredentials;
use serde_json::Value;
use std::time::Duration;

/// The key under which the public registry's credentials are kept.
const HUB: &str = "https://index.docker.io/v1/";

/// Credential programs ask a key ring, perhaps a person; after this the pull goes on without.
const HELPER: Duration = Duration::from_secs(30);

/// The registry that an image comes from: its first part, if that looks like a host.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    }
}

/// The credentials for an image; `None` if nobody logged in.
pub(super) fn find(reference: &str) -> Result<Option<DockerCredentials>, DockerError> {
    let Some(dir) = config_dir(&variable) else { return Ok(None) };
    let config = config_file(&dir)?;
    let host = registry(reference);
    let program = config["credHelpers"][host].as_str().or(config["credsStore"].as_str());
    if let Some(program) = program.filter(|p| p.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'))
        && let Some(found) = ask(program, host)
    {
        return Ok(Some(found));
    }
    Ok(stored(&config, host))
}

/// The same for whoever speaks to a registry without the engine.
pub fn registry_login(reference: &str) -> Result<Login, DockerError> {
    let Some(found) = find(reference)? else { return Ok(Login::default()) };
    Ok(Login { user: found.username.zip(found.password), token: found.identitytoken })
}

fn ask(program: &str, host: &str) -> Option<DockerCredentials> {
    let mut exec = Exec::new([format!("docker-credential-{program}"), "get".to_owned()], HELPER);
    exec.stdin = Some(host.as_bytes().to_vec());
    // Without the program, or without an entry in it, the pull is tried anonymously and says what it lacks.
    let output = exec::run(&exec).ok().filter(exec::Output::success)?;
    let answer: Value = serde_json::from_str(&output.stdout_tail).ok()?;
    credentials(host, answer["Username"].as_str()?, answer["Secret"].as_str()?)
}

fn stored(config: &Value, host: &str) -> Option<DockerCredentials> {
    let entry = config["auths"]
        .as_object()?
        .iter()
        .find(|(key, _)| *key == host || key.trim_start_matches("https://").trim_end_matches('/') == host)?
        .1;
    if let Some(token) = entry["identitytoken"].as_str().filter(|t| !t.is_empty()) {
        return credentials(host, "<token>", token);
    }
    let both = BASE64_STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let both = String::from_utf8(both).ok()?;
    let (user, password) = both.split_once(':')?;
    credentials(host, user, password)
}

fn credentials(host: &str, user: &str, secret: &str) -> Option<DockerCredentials> {
    let mut found =
        DockerCredentials { serveraddress: Some(host.to_owned()), ..DockerCredentials::default() };
    // Credential programs return a token instead of a password under this name.
    if user == "<token>" {
        found.identitytoken = Some(secret.to_owned());
    } else {
        found.username = Some(user.to_owned());
        found.password = Some(secret.to_owned());
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_are_found_for_the_registry_of_the_image_only() {
        let config = json!({"auths": {
            HUB: {"auth": BASE64_STANDARD.encode("me:hub:secret")},
            "https://reg.example:5000": {"identitytoken": "t"},
        }});
        let hub = stored(&config, registry("n8nio/n8n:2")).expect("logged in");
        assert_eq!((hub.username.as_deref(), hub.password.as_deref()), (Some("me"), Some("hub:secret")));
        let own = stored(&config, registry("reg.example:5000/a/b@sha256:00")).expect("logged in");
        assert_eq!((own.identitytoken.as_deref(), own.username), (Some("t"), None));
        assert!(stored(&config, registry("reg.example/a")).is_none());
        assert!(stored(&Value::Null, registry("postgres:16")).is_none());
    }
}
