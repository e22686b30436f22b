//! Notifications: who is told, and what exactly is sent.
//!
//! Owns the URLs that name receivers and the messages as each receiver wants them. Sending is the engine's. An address
//! holds secrets: nothing here shows more of one than its kind and host.

use crate::ids::StackName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something went well.
    Good,
    /// Something to know.
    Info,
    /// Something is wrong, or was and has been dealt with.
    Bad,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The stack.
    pub stack: StackName,
    /// The host.
    pub host: String,
    /// UTC, milliseconds since 1970.
    pub at_ms: i64,
    /// How much it matters.
    pub severity: Severity,
    /// What happened: `trial_failed`, `rolled_back`, `environment_not_well` ...
    pub event: String,
    /// In one line.
    pub title: String,
    /// The rest, in lines; without secrets.
    pub lines: Vec<String>,
}

impl Message {
    /// Everything, as plain text.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("stack {} on {}", self.stack, self.host));
        text
    }
}

/// Who is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Receiver {
    /// An HTTP endpoint of some kind.
    Http {
        /// Which.
        kind: HttpKind,
        /// Where to.
        url: String,
        /// A token for the `Authorization` or `X-Gotify-Key` header.
        token: Option<String>,
    },
    /// A mail server.
    Smtp {
        /// TLS from the beginning (`smtps`), else STARTTLS where the server offers it.
        tls: bool,
        /// Name of the server.
        host: String,
        /// Its port.
        port: u16,
        /// User and password.
        login: Option<(String, String)>,
        /// The sender's address.
        from: String,
        /// The receivers' addresses.
        to: Vec<String>,
    },
}

/// Kinds of HTTP receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpKind {
    /// ntfy.
    Ntfy,
    /// An incoming webhook of Slack, or of what understands the same (Mattermost, Rocket.Chat).
    Slack,
    /// A webhook of Discord.
    Discord,
    /// A bot of Telegram; the URL's fragment is the chat.
    Telegram,
    /// Gotify.
    Gotify,
    /// Anything that takes JSON: the [`Message`] itself.
    Webhook,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// An HTTP request that tells a receiver. Its URL may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// What may be written.
pub const FORMS: &str = "ntfy://HOST/TOPIC, slack://hooks.slack.com/services/…, discord://ID/TOKEN, telegram://BOT_TOKEN/CHAT, \
                         gotify://HOST/TOKEN, https://HOST/PATH (JSON), smtp://USER:PASSWORD@HOST:587/?from=A&to=B, smtps://…";

impl Receiver {
    /// Reads a receiver's URL. An error never shows more than its scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("it is no URL; known are {FORMS}"))?;
        let (scheme, plain) = match scheme.strip_suffix("+http") {
            Some(scheme) => (scheme, true),
            None => (scheme, false),
        };
        let web = if plain { "http" } else { "https" };
        let need =
            |ok: bool, what: &str| if ok { Ok(()) } else { Err(format!("a {scheme} URL needs {what}")) };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        need(!host.is_empty(), "a host")?;
        let http = |kind, url: String, token: Option<&str>| {
            Ok(Self::Http { kind, url, token: token.map(str::to_owned) })
        };
        match scheme {
            "ntfy" => {
                need(!path.is_empty() && !path.contains('/'), "a topic: ntfy://HOST/TOPIC")?;
                http(HttpKind::Ntfy, format!("{web}://{host}/#{path}"), login)
            }
            "slack" => {
                need(!path.is_empty(), "the path of its webhook")?;
                http(HttpKind::Slack, format!("{web}://{host}/{path}"), None)
            }
            "discord" => {
                need(!path.is_empty() && !path.contains('/'), "an id and a token: discord://ID/TOKEN")?;
                http(HttpKind::Discord, format!("{web}://discord.com/api/webhooks/{host}/{path}"), None)
            }
            "telegram" => {
                need(
                    !path.is_empty() && !path.contains('/'),
                    "a token and a chat: telegram://BOT_TOKEN/CHAT",
                )?;
                http(
                    HttpKind::Telegram,
                    format!("{web}://api.telegram.org/bot{host}/sendMessage#{path}"),
                    None,
                )
            }
            "gotify" => {
                need(!path.is_empty() && !path.contains('/'), "a token: gotify://HOST/TOKEN")?;
                http(HttpKind::Gotify, format!("{web}://{host}/message"), Some(path))
            }
            "https" | "http" => http(HttpKind::Webhook, text.to_owned(), None),
            "smtp" | "smtps" => Self::smtp(scheme == "smtps", login, host, path),
            other => Err(format!("{other:?} is not known; known are {FORMS}")),
        }
    }

    fn smtp(tls: bool, login: Option<&str>, host: &str, path: &str) -> Result<Self, String> {
        let default = if tls { 465 } else { 587 };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| "its port is no number".to_owned())?),
            None => (host, default),
        };
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) =
                    login.split_once(':').ok_or("a user needs a password: smtp://USER:PASSWORD@HOST")?;
                Some((decode(user)?, decode(password)?))
            }
        };
        let (mut from, mut to) = (None, Vec::new());
        for (name, value) in path.trim_start_matches('?').split('&').filter_map(|p| p.split_once('=')) {
            let value = decode(value)?;
            match name {
                "from" => from = Some(value),
                "to" => to.extend(value.split(',').map(|a| a.trim().to_owned())),
                other => return Err(format!("{other:?} is not known; known are from and to")),
            }
        }
        let from = from.ok_or("it needs a sender: ?from=ADDRESS")?;
        if to.is_empty() || to.iter().chain([&from]).any(|a| !a.contains('@')) {
            return Err("it needs addresses: ?from=ADDRESS&to=ADDRESS,ADDRESS".to_owned());
        }
        Ok(Self::Smtp { tls, host: host.to_owned(), port, login, from, to })
    }

    /// Its kind and host, without what may be secret.
    pub fn shown(&self) -> String {
        match self {
            Self::Smtp { host, to, .. } => format!("mail to {} by {host}", to.join(", ")),
            Self::Http { kind, url, .. } => {
                let host = url.split("://").nth(1).unwrap_or("").split(['/', '?', '#']).next().unwrap_or("");
                let host = host.rsplit('@').next().unwrap_or("");
                format!("{} at {host}", format!("{kind:?}").to_lowercase())
            }
        }
    }

    /// What must not be shown of it anywhere.
    pub fn secrets(&self) -> Vec<String> {
        match self {
            Self::Smtp { login, .. } => login.iter().map(|(_, password)| password.clone()).collect(),
            Self::Http { url, token, .. } => {
                let path = url.split("://").nth(1).and_then(|r| r.split_once('/')).map(|(_, p)| p.to_owned());
                path.into_iter().chain(token.clone()).filter(|s| s.len() >= 4).collect()
            }
        }
    }

    /// The request that tells an HTTP receiver; none for mail.
    pub fn request(&self, message: &Message) -> Option<Request> {
        let Self::Http { kind, url, token } = self else { return None };
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        let title = format!("{}: {}", message.stack, message.title);
        let text = message.text();
        let (base, fragment) = url.split_once('#').unwrap_or((url, ""));
        let body = match kind {
            HttpKind::Ntfy => {
                headers.extend(token.iter().map(|t| ("Authorization", format!("Bearer {t}"))));
                let (priority, tag) = match message.severity {
                    Severity::Good => (3, "white_check_mark"),
                    Severity::Info => (3, "information_source"),
                    Severity::Bad => (5, "rotating_light"),
                };
                json!({ "topic": fragment, "title": title, "message": text, "priority": priority, "tags": [tag] })
            }
            HttpKind::Slack => json!({ "text": format!("*{}*\n{}", escape(&title), escape(&text)) }),
            // 2000 characters are the most that Discord takes.
            HttpKind::Discord => {
                json!({ "content": cut(&format!("**{title}**\n{text}"), 1900), "allowed_mentions": { "parse": [] } })
            }
            // 4096 characters are the most that Telegram takes.
            HttpKind::Telegram => {
                json!({ "chat_id": fragment, "text": cut(&format!("{title}\n{text}"), 4000) })
            }
            HttpKind::Gotify => {
                headers.extend(token.iter().map(|t| ("X-Gotify-Key", t.clone())));
                let priority = if message.severity == Severity::Bad { 8 } else { 4 };
                json!({ "title": title, "message": text, "priority": priority })
            }
            HttpKind::Webhook => json!({ "schema": "switchback.message/1", "message": message }),
        };
        Some(Request { url: base.to_owned(), headers, body: body.to_string() })
    }
}

/// Slack reads `&`, `<` and `>` as its own.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most).chain(['…']).collect()
}

/// `%40` and its like.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: Vec<u8> = rest.by_ref().take(2).collect();
        let digits = String::from_utf8_lossy(&digits).into_owned();
        bytes.push(
            u8::from_str_radix(&digits, 16)
                .map_err(|_| "a % is followed by two hexadecimal digits".to_owned())?,
        );
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            stack: StackName::new("shop").expect("a name"),
            host: "host1".into(),
            at_ms: 0,
            severity: Severity::Bad,
            event: "rolled_back".into(),
            title: "rolled back <now>".into(),
            lines: vec!["health/app failed 3 times".into()],
        }
    }

    fn sent(url: &str) -> (String, serde_json::Value, Vec<(&'static str, String)>) {
        let request = Receiver::parse(url).expect(url).request(&message()).expect("a request");
        (request.url, serde_json::from_str(&request.body).expect("JSON"), request.headers)
    }

    #[test]
    fn every_receiver_gets_what_it_understands() {
        let (url, body, headers) = sent("ntfy://tok@ntfy.example.org/alerts");
        assert_eq!(
            (url.as_str(), &body["topic"], &body["priority"]),
            ("https://ntfy.example.org/", &"alerts".into(), &5.into())
        );
        assert!(headers.contains(&("Authorization", "Bearer tok".to_owned())));
        let (url, body, _) = sent("slack://hooks.slack.com/services/T/B/x");
        assert_eq!(url, "https://hooks.slack.com/services/T/B/x");
        assert!(
            body["text"].as_str().expect("text").starts_with("*shop: rolled back &lt;now&gt;*\nhealth/app")
        );
        assert_eq!(sent("discord://1/abc").0, "https://discord.com/api/webhooks/1/abc");
        let (url, body, _) = sent("telegram://1:abc/-42");
        assert_eq!(
            (url.as_str(), &body["chat_id"]),
            ("https://api.telegram.org/bot1:abc/sendMessage", &"-42".into())
        );
        let (url, _, headers) = sent("gotify+http://localhost:8080/tok");
        assert_eq!(url, "http://localhost:8080/message");
        assert!(headers.contains(&("X-Gotify-Key", "tok".to_owned())));
        let (url, body, _) = sent("https://example.org/hook?x=1");
        assert_eq!(
            (url.as_str(), &body["message"]["event"]),
            ("https://example.org/hook?x=1", &"rolled_back".into())
        );
        let mail = Receiver::parse("smtp://me%40x.org:p%3Aw@mail.x.org/?from=me@x.org&to=a@x.org,b@x.org")
            .expect("mail");
        let Receiver::Smtp { port, login, to, .. } = &mail else { panic!("{mail:?}") };
        assert_eq!((*port, login.clone(), to.len()), (587, Some(("me@x.org".into(), "p:w".into())), 2));
    }

    #[test]
    fn mistakes_are_told_without_showing_the_address() {
        for (url, says) in [
            ("hello", "no URL"),
            ("pager://x/secret-value", "not known"),
            ("ntfy://host", "a topic"),
            ("discord://secret-value", "an id and a token"),
            ("smtp://u:secret-value@h", "a sender"),
            ("smtp://u@h/?from=a@b&to=c@d", "needs a password"),
            ("smtp://h:x/?from=a@b&to=c@d", "port"),
            ("smtp://h/?from=a&to=c@d", "addresses"),
        ] {
            let error = Receiver::parse(url).expect_err(url);
            assert!(error.contains(says) && !error.contains("secret-value"), "{url}: {error}");
        }
    }

    #[test]
    fn no_secret_of_an_address_is_shown() {
        for url in [
            "ntfy://secretsecret@h/t",
            "slack://h/secretsecret",
            "gotify://h/secretsecret",
            "https://h/secretsecret",
        ] {
            let receiver = Receiver::parse(url).expect(url);
            assert!(!format!("{receiver:?} {}", receiver.shown()).contains("secretsecret"), "{url}");
            assert!(receiver.secrets().iter().any(|s| s.contains("secretsecret")), "{url}");
        }
    }
}
