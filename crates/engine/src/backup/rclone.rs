//! A repository in a place that rclone knows: its own server of restic's protocol, for as long as it is needed.

use super::vault::Key;
use crate::error::EngineError;
use crate::exec::guarded::{NOT_INSTALLED, end, guarded};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The place may be far away.
const READY: Duration = Duration::from_secs(60);
/// Lines that are told when it does not start.
const TOLD: usize = 3;
/// What it says when it listens, before the address.
const LISTENS: &str = "Serving restic REST API on ";

/// The server; it ends with this.
pub struct Serving {
    child: Option<Child>,
    url: Key,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving(rclone)")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child);
        }
    }
}

impl Serving {
    /// Starts one for a place, with more variables.
    pub fn start(remote: &str, variables: &BTreeMap<String, String>) -> Result<Self, EngineError> {
        let refused = |why: String| {
            EngineError::refused(
                format!("rclone does not serve {remote}: {why}"),
                "`rclone lsd REMOTE:` must work without a question, as the user who runs Switchback",
            )
        };
        if remote.is_empty() || remote.starts_with('-') || !remote.contains(':') {
            return Err(refused("write rclone:REMOTE:PATH".to_owned()));
        }
        if let Some(option) = holds_secret(remote) {
            // Its address is shown, and stands in the list of processes.
            return Err(EngineError::refused(
                format!("the address of the repository holds a secret ({option})"),
                "make a remote of it with `rclone config`, or put it into `backup.env_file` as RCLONE_CONFIG_NAME_OPTION=VALUE",
            ));
        }
        let password = Key::generate()?;
        let argv = ["rclone", "serve", "restic", "--addr", "127.0.0.1:0", remote].map(Into::into);
        let mut child = guarded(&argv)
            .envs(variables)
            // It asks for nobody, and tells the password to no list of processes.
            .env("RCLONE_ASK_PASSWORD", "false")
            .env("RCLONE_USER", "switchback")
            .env("RCLONE_PASS", password.reveal())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| refused(e.to_string()))?;
        let (send, said) = channel();
        if let Some(stderr) = child.stderr.take() {
            // Read to its end: it must not wait for somebody who reads what it says.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    let _ = send.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        let mut serving = Self { child: Some(child), url: password.clone() };
        let deadline = Instant::now() + READY;
        let mut last: VecDeque<String> = VecDeque::new();
        loop {
            match said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(address) = listening(&line) {
                        let with = format!("http://switchback:{}@{address}/", password.reveal());
                        serving.url =
                            Key::of(&with).ok_or_else(|| refused("it listens nowhere".to_owned()))?;
                        return Ok(serving);
                    }
                    if last.len() == TOLD {
                        last.pop_front();
                    }
                    last.push_back(line.trim().to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(refused(format!("it does not listen after {} s", READY.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = serving.child.take().map(|mut c| c.wait());
                    let missing = matches!(status, Some(Ok(s)) if s.code() == Some(NOT_INSTALLED));
                    let why = if missing {
                        "the program rclone is not installed".to_owned()
                    } else {
                        last.make_contiguous().join("; ")
                    };
                    return Err(refused(why));
                }
            }
        }
    }

    /// Where it listens, with its password.
    pub fn url(&self) -> &Key {
        &self.url
    }
}

/// The option of an address that would tell a secret.
fn holds_secret(remote: &str) -> Option<&str> {
    let options = remote.split(',').filter_map(|option| option.split_once('=')).map(|(name, _)| name);
    let secret = |name: &&str| {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = name.to_ascii_lowercase();
        plain
            && !name.ends_with("_file")
            && ["pass", "secret", "token", "key_pem", "api_key"].iter().any(|s| name.contains(s))
    };
    options.into_iter().find(secret)
}

/// `HOST:PORT` out of the line that says where it listens.
fn listening(line: &str) -> Option<&str> {
    let (_, address) = line.split_once(LISTENS)?;
    let address = address.trim().trim_start_matches('[').trim_end_matches(']');
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    address.starts_with("127.0.0.1:").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::{Serving, holds_secret, listening};
    use std::collections::BTreeMap;

    #[test]
    fn the_address_is_taken_from_what_it_says() {
        let old =
            "2026/11/30 00:00:00 NOTICE: sftp root: Serving restic REST API on [http://127.0.0.1:38415/]";
        assert_eq!(listening(old), Some("127.0.0.1:38415"));
        assert_eq!(
            listening("NOTICE: Serving restic REST API on http://127.0.0.1:80/"),
            Some("127.0.0.1:80")
        );
        assert_eq!(listening("Serving restic REST API on [http://0.0.0.0:80/]"), None);
    }

    #[test]
    fn an_address_with_a_secret_in_it_is_not_used() {
        assert_eq!(holds_secret(":sftp,host=nas,user=me,pass=abc:/x"), Some("pass"));
        assert_eq!(holds_secret(":s3,secret_access_key=abc:/x"), Some("secret_access_key"));
        assert_eq!(holds_secret(":sftp,host=nas,key_file=/etc/k,key_file_pass_file=/etc/p:/x"), None);
        assert_eq!(holds_secret("nas:/backups/pass=1"), None);
        let refused = Serving::start(":sftp,pass=abc:/x", &BTreeMap::new()).expect_err("refused").to_string();
        assert!(refused.contains("pass") && !refused.contains("abc"), "{refused}");
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        for remote in ["", "--config=x:", "nothing"] {
            assert!(Serving::start(remote, &BTreeMap::new()).is_err(), "{remote:?}");
        }
    }
}
