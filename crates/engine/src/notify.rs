//! Telling people: sends messages to the receivers that the configuration names.
//!
//! Owns sending, with a time limit and a few tries, and the log of what could not be sent. It must never make what it
//! tells about fail, and never write an address where others can read it.

use crate::engine::now_ms;
use crate::error::EngineError;
use crate::fault::{Gap, gap};
use crate::home::Home;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::notify::{Message, Receiver, Severity};
use switchback_core::workflow::Redactor;

/// The most that one try takes.
const LIMIT: Duration = Duration::from_secs(10);
/// Tries, and the wait before each but the first.
const TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)];
/// Lines of a message; what is left out stands in the report.
const LINES: usize = 12;

/// The receivers of a stack, each with the text that named it (for messages, without secrets).
pub fn receivers(home: &Home, config: &Config) -> Vec<(String, Result<Receiver, String>)> {
    let all = config.notify.iter().enumerate();
    all.map(|(index, text)| {
        let receiver = resolve(home, text).and_then(|url| Receiver::parse(&url));
        let shown = receiver.as_ref().map_or_else(|_| format!("notify[{index}]"), Receiver::shown);
        (shown, receiver)
    })
    .collect()
}

/// Reads `env:NAME` and `file:PATH`: an address holds secrets, and a configuration is often shared.
pub(crate) fn resolve(home: &Home, text: &str) -> Result<String, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name)
            .map_err(|_| format!("the variable {name} is not set where Switchback was started"));
    }
    if let Some(path) = text.strip_prefix("file:") {
        let path = home.root().join(Path::new(path));
        return std::fs::read_to_string(&path)
            .map(|t| t.trim().to_owned())
            .map_err(|e| format!("{} cannot be read: {e}", path.display()));
    }
    Ok(text.to_owned())
}

/// A message of a stack.
pub fn message(
    config: &Config,
    severity: Severity,
    event: &str,
    title: impl Into<String>,
    lines: &[String],
) -> Message {
    let mut kept: Vec<String> = lines.iter().take(LINES).cloned().collect();
    if lines.len() > LINES {
        kept.push(format!("… and {} lines more", lines.len() - LINES));
    }
    Message {
        stack: config.stack.clone(),
        host: crate::host_name(),
        at_ms: now_ms(),
        severity,
        event: event.to_owned(),
        title: title.into(),
        lines: kept,
    }
}

/// A log that reaches this size begins anew; the one before is kept.
const LOG_BYTES: u64 = 1 << 20;

/// Tells every receiver, without waiting for any of them. Trouble goes to `.switchback/notify.log`.
pub fn tell(home: &Home, config: &Config, message: Message) {
    if config.notify.is_empty() || gap(Gap::Notifications) {
        return;
    }
    let (home, config) = (home.clone(), config.clone());
    let work = move || {
        for (shown, result) in tell_now(&home, &config, &message) {
            let outcome = match result {
                Ok(()) => "told".to_owned(),
                Err(e) => format!("NOT told: {e}"),
            };
            let path = home.state().join("notify.log");
            if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES) {
                let _ = std::fs::rename(&path, path.with_extension("log.1"));
            }
            if let Ok(mut log) = OpenOptions::new().append(true).create(true).open(path) {
                let _ = writeln!(log, "{} {} {shown}: {outcome}", jiff::Timestamp::now(), message.event);
            }
        }
    };
    let thread = std::thread::spawn(work);
    UNDERWAY.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
}

/// Messages that are being sent.
static UNDERWAY: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until every message is sent or given up: before a program ends.
pub fn settle() {
    let all = std::mem::take(&mut *UNDERWAY.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in all {
        let _ = thread.join();
    }
}

/// Tells every receiver, one after another, and says how it went.
pub fn tell_now(home: &Home, config: &Config, message: &Message) -> Vec<(String, Result<(), String>)> {
    let all = receivers(home, config);
    let found = all.into_iter().map(|(shown, receiver)| {
        let result = receiver.and_then(|receiver| {
            let redactor = Redactor::from_values(receiver.secrets());
            send(&receiver, message).map_err(|e| redactor.redact(&e))
        });
        (shown, result)
    });
    found.collect()
}

fn send(receiver: &Receiver, message: &Message) -> Result<(), String> {
    let mut last = String::new();
    for wait in TRIES {
        std::thread::sleep(wait);
        match send_once(receiver, message) {
            Ok(()) => return Ok(()),
            // What it refuses now it refuses later.
            Err((why, false)) => return Err(why),
            Err((why, true)) => last = why,
        }
    }
    Err(last)
}

/// Sends once; an error says whether trying again may help.
fn send_once(receiver: &Receiver, message: &Message) -> Result<(), (String, bool)> {
    match (receiver, receiver.request(message)) {
        (_, Some(request)) => {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(LIMIT))
                .max_redirects(0)
                .build()
                .into();
            let mut post = agent.post(&request.url);
            for (name, value) in &request.headers {
                post = post.header(*name, value);
            }
            let answer = post.send(&request.body).map_err(|e| (e.to_string(), true))?;
            let status = answer.status().as_u16();
            match status {
                200..300 => Ok(()),
                429 | 500.. => Err((format!("it answered {status}"), true)),
                _ => Err((format!("it answered {status}"), false)),
            }
        }
        (Receiver::Smtp { tls, host, port, login, from, to }, None) => {
            let plain = |e: &dyn std::fmt::Display| (e.to_string(), false);
            let parameters = TlsParameters::new(host.clone()).map_err(|e| plain(&e))?;
            let secure = if *tls { Tls::Wrapper(parameters) } else { Tls::Opportunistic(parameters) };
            // A password is never sent over a connection that anybody can read.
            let secure = match (secure, login) {
                (Tls::Opportunistic(parameters), Some(_)) => Tls::Required(parameters),
                (secure, _) => secure,
            };
            let mut transport =
                SmtpTransport::builder_dangerous(host).port(*port).timeout(Some(LIMIT)).tls(secure);
            if let Some((user, password)) = login {
                transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
            }
            let mut mail = lettre::Message::builder()
                .from(from.parse().map_err(|e| plain(&e))?)
                .subject(format!("[switchback] {}: {}", message.stack, message.title));
            for address in to {
                mail = mail.to(address.parse().map_err(|e| plain(&e))?);
            }
            let mail = mail.body(message.text()).map_err(|e| plain(&e))?;
            transport.build().send(&mail).map(drop).map_err(|e| (e.to_string(), !e.is_permanent()))
        }
        (Receiver::Http { .. }, None) => Err(("it has no request".to_owned(), false)),
    }
}

/// Refuses addresses that cannot be read, before they are needed.
pub fn check(home: &Home, config: &Config) -> Result<(), EngineError> {
    for (shown, receiver) in receivers(home, config) {
        if let Err(why) = receiver {
            return Err(EngineError::refused(
                format!("{shown} in switchback.yaml: {why}"),
                "`switchback notify` tries all of them",
            ));
        }
    }
    Ok(())
}
