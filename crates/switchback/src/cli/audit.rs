//! The audit trail: whether the journal is as it was written.

use super::run::journal;
use super::{Exit, Global, Output, Trouble};
use clap::{Args, Subcommand};
use serde::Serialize;
use switchback_core::ids::RunId;
use switchback_engine::certificate;
use switchback_engine::home::Home;
use switchback_engine::journal::Journal;

/// What to do with the audit trail.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Confirm that no event of the journal was changed, removed or reordered
    #[command(
        after_help = "Examples:\n  switchback audit verify\n  switchback audit verify --head 3fa9c1d2e4b5\n  switchback audit verify --before"
    )]
    Verify(VerifyArgs),
}

/// Options of audit verify.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// A chain value that was noted earlier, elsewhere: the journal must still contain it
    #[arg(long, value_name = "HASH")]
    pub head: Option<String>,
    /// Look at the journal that a backup brought along (`restore --from`), instead of this stack's own
    #[arg(long)]
    pub before: bool,
}

#[derive(Serialize)]
struct Answer {
    events: usize,
    runs: usize,
    first_at_ms: Option<i64>,
    last_at_ms: Option<i64>,
    head: String,
    /// Number of the event whose chain value was given.
    known_at: Option<i64>,
    certificates: usize,
    /// Those that do not count: run, and why.
    certificates_refused: Vec<(RunId, String)>,
}

/// The shortest beginning of a chain value that is taken: 48 bits.
const SHORTEST: usize = 12;

/// Checks the audit trail.
pub fn audit(global: &Global, command: &AuditCommand) -> Result<Exit, Trouble> {
    let AuditCommand::Verify(args) = command;
    let home = Home::open(&global.directory)?;
    let out = Output::new(global.json);
    let path = home.before().join("journal.db");
    let found = if !args.before {
        journal(&home)?
    } else if path.exists() {
        Journal::open_read(&path)?
    } else {
        return Err(Trouble::refused(
            "no journal came with a backup",
            "only `switchback restore --from` brings one; it lies in .switchback/before",
        ));
    };
    let Some(journal) = found else {
        return Err(Trouble::refused("there is no journal yet", "`switchback up` begins one"));
    };
    if let Some(given) = &args.head
        && (given.len() < SHORTEST || !given.bytes().all(|c| c.is_ascii_hexdigit()))
    {
        return Err(Trouble::usage(
            format!("{given:?} is no chain value"),
            format!("at least {SHORTEST} hexadecimal digits, as `switchback audit verify` prints them"),
        ));
    }
    // Reading confirms every link.
    let records = journal.all()?;
    let (_, head) = journal.tip()?;
    let known_at = match &args.head {
        None => None,
        Some(given) => Some(journal.find_chain(&given.to_lowercase())?.ok_or_else(|| {
            Trouble::refused(
                format!("no event of the journal has the chain value {given}"),
                "the journal was replaced or rewritten since that value was noted, or the value is another stack's",
            )
        })?),
    };
    let certificates = certificate::certificates(&journal)?;
    let mut refused = Vec::new();
    for one in &certificates {
        // The key that signed them is gone with the machine; no backup holds it.
        if !args.before
            && let Err(why) = certificate::check_signature(&home, one)?
        {
            refused.push((one.run.clone(), why));
        }
    }
    let runs: std::collections::BTreeSet<&str> = records.iter().map(|r| r.run.as_str()).collect();
    let answer = Answer {
        events: records.len(),
        runs: runs.len(),
        first_at_ms: records.first().map(|r| r.at_ms),
        last_at_ms: records.last().map(|r| r.at_ms),
        head,
        known_at,
        certificates: certificates.len(),
        certificates_refused: refused,
    };
    let exit = if answer.certificates_refused.is_empty() { Exit::Done } else { Exit::Refused };
    if out.is_json() {
        out.json(&answer)?;
        return Ok(exit);
    }
    out.line(&format!(
        "{} events of {} runs, and none was changed, removed or reordered.",
        answer.events, answer.runs
    ))?;
    if let Some(at) = answer.known_at {
        out.line(&format!("Event {at} has the chain value that was noted."))?;
    }
    match answer.certificates {
        0 => {}
        n if args.before => out.line(&format!("{n} certificates, signed with the key of that machine."))?,
        n if exit == Exit::Done => out.line(&format!("{n} certificates, and each is as it was signed."))?,
        n => {
            for (run, why) in &answer.certificates_refused {
                out.line(&format!("Of {n} certificates, that of {run} does not count: {why}"))?;
            }
        }
    }
    out.line(&format!(
        "Chain value of the last event: {}\nNote it elsewhere; `--head` finds out later whether the past was rewritten.",
        answer.head
    ))?;
    Ok(exit)
}
