//! Bringing a backup back: to production, or on a machine that has nothing of the stack.

use super::consent::{confirm, declined};
use super::moments::Moment;
use super::run::cancel_on_signals;
use super::trial::follow;
use super::upgrade::{carry_out_end, open, session, show_plan};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use crate::render::backup as render;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use switchback_core::backup::names_snapshot;
use switchback_core::plan;
use switchback_engine::backup::vault::{Key, Vault};
use switchback_engine::backup::{facts, restore as bring};
use switchback_engine::engine::Notice;
use switchback_engine::runtime::Stage;
use switchback_engine::store::Progress as Work;
use switchback_engine::world::World;

/// Options of restore.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Which backup: `latest`, or the beginning of an id
    #[arg(long, value_name = "ID", default_value = "latest", value_parser = snapshot)]
    pub snapshot: String,
    /// On a machine that has nothing of the stack: the repository (a folder, rest:URL, s3:URL or rclone:REMOTE:PATH)
    #[arg(long, value_name = "REPOSITORY", requires_all = ["key_file", "into"])]
    pub from: Option<String>,
    /// With --from: the file that holds the key
    #[arg(long, value_name = "FILE", requires = "from")]
    pub key_file: Option<PathBuf>,
    /// With --from: a file of variables for s3 or rclone (AWS_ACCESS_KEY_ID and so on); otherwise those of the environment
    #[arg(long, value_name = "FILE", requires = "from")]
    pub env_file: Option<PathBuf>,
    /// With --from: the folder that the stack gets
    #[arg(long, value_name = "DIR", requires = "from")]
    pub into: Option<PathBuf>,
    /// With --from: which stack, if the repository has backups of several
    #[arg(long, value_name = "NAME", requires = "from")]
    pub stack: Option<String>,
    /// As of this moment, for what `backup.wal` archives: the backup before it is brought back, and the log replayed up to it
    #[arg(long, value_name = "TIME", value_parser = super::moments::moment, conflicts_with = "snapshot")]
    pub at: Option<Moment>,
    /// With --from: an earlier attempt in that folder was killed; everything in the folder is removed first
    #[arg(long, requires = "from")]
    pub start_over: bool,
    /// Return once the trial has begun; the watchdog goes on by itself
    #[arg(long)]
    pub detach: bool,
    /// Show the plan and do nothing
    #[arg(long, conflicts_with = "from")]
    pub dry_run: bool,
}

/// Reads what names a snapshot.
pub fn snapshot(text: &str) -> Result<String, String> {
    if names_snapshot(text) {
        Ok(text.to_owned())
    } else {
        Err("write `latest`, or at least six digits of an id (`switchback backup list`)".to_owned())
    }
}

/// Brings a backup back.
pub fn restore(global: &Global, args: &RestoreArgs) -> Result<Exit, Trouble> {
    if let (Some(from), Some(key), Some(into)) = (&args.from, &args.key_file, &args.into) {
        return bare(global, args, from, key, into);
    }
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "restore")?;
    session.require_settled()?;
    session.require_no_trial()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let (facts, snapshot, manifest) =
        facts::fetch_facts(&home, &config, &world, &args.snapshot, args.at.map(Moment::ms))?;
    let plan = plan::restore(&facts);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let moment = args.at.map_or_else(String::new, |at| {
        format!(", with what was committed until {} to {}", at, super::moments::names(&config))
    });
    let question = format!(
        "Bring back the backup of {} ({}){moment}? What was written since then is not in it; it stays in generation {}, to which `switchback rollback` returns.",
        render::utc(snapshot.at_ms),
        facts::describe(&manifest.instance),
        facts.common.production.generation,
    );
    if !confirm(global, &question)? {
        return Err(declined());
    }
    let (exit, end) = carry_out_end(global, &home, &mut session, &plan, &config, args.detach)?;
    drop(session);
    follow(global, &home, &plan, exit, &end, args.detach)
}

fn bare(global: &Global, args: &RestoreArgs, from: &str, key: &Path, into: &Path) -> Result<Exit, Trouble> {
    let text = std::fs::read_to_string(key).map_err(|e| {
        Trouble::usage(format!("cannot read {}: {e}", key.display()), "name the file with the key")
    })?;
    let Some(key) = Key::of(&text) else {
        return Err(Trouble::usage(
            format!("{} holds no key", key.display()),
            "one line of text is expected",
        ));
    };
    let here = std::env::current_dir()?;
    let vault = Vault::at(from, &here, args.env_file.as_deref(), key)?;
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    progress.line(&format!("restore from {}", vault.location.shown()));
    let say = |text: &str| progress.notice(&Notice::Doing { text, done: 0, total: 0 });
    let asked = || cancel.requested();
    let report = |done, total| progress.notice(&Notice::Doing { text: "bringing it back", done, total });
    let began = std::time::Instant::now();
    let restored = bring::bare(&bring::Request {
        vault: &vault,
        snapshot: &args.snapshot,
        at_ms: args.at.map(Moment::ms),
        stack: args.stack.as_deref(),
        into,
        start_over: args.start_over,
        stage: Stage { say: &say, cancelled: &asked, midway: &|| {} },
        progress: &Work { cancel: &asked, report: &report },
    })?;
    drop(progress);
    let out = Output::new(global.json);
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if out.is_json() {
        out.json(&json!({
            "stack": restored.config.stack,
            "root": restored.home.root(),
            "snapshot": restored.snapshot,
            "generation": restored.manifest.instance.generation,
            "versions": restored.manifest.instance.versions,
            "bytes": restored.bytes,
            "at_ms": args.at.map(Moment::ms),
            "replayed": restored.replayed,
            "took_ms": took_ms,
        }))?;
    } else {
        out.text(&render::restored(&restored, took_ms))?;
    }
    Ok(Exit::Done)
}
