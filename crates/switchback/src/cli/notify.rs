//! Trying the receivers of notifications.

use super::upgrade::open;
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde_json::json;
use switchback_core::notify::Severity;
use switchback_engine::notify as sender;

/// Options of notify.
#[derive(Debug, Clone, Args)]
pub struct NotifyArgs {
    /// What to say
    #[arg(default_value = "this is a test of Switchback's notifications")]
    pub text: String,
}

/// Tells every receiver, and says how it went.
pub fn notify(global: &Global, args: &NotifyArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    if config.notify.is_empty() {
        return Err(Trouble::refused(
            "nobody is to be told anything: switchback.yaml has no `notify`",
            format!("for example  notify: [\"env:NTFY_URL\"]; known are {}", switchback_core::notify::FORMS),
        ));
    }
    let message = sender::message(&config, Severity::Info, "test", args.text.clone(), &[]);
    let told = sender::tell_now(&home, &config, &message);
    let out = Output::new(global.json);
    if out.is_json() {
        let all: Vec<_> = told
            .iter()
            .map(|(receiver, result)| {
                json!({ "receiver": receiver, "told": result.is_ok(), "why": result.as_ref().err() })
            })
            .collect();
        out.json(&all)?;
    } else {
        for (receiver, result) in &told {
            out.line(&match result {
                Ok(()) => format!("✓ {receiver}"),
                Err(why) => format!("✗ {receiver}: {why}"),
            })?;
        }
    }
    let failed = told.iter().any(|(_, result)| result.is_err());
    Ok(if failed { Exit::Refused } else { Exit::Done })
}
