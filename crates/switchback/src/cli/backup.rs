//! Backups: make, list, check, thin out; the key; try one.

use super::run::{cancel_giving_way, cancel_on_signals};
use super::upgrade::{carry_out, open, session, show_plan};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use crate::render::backup as render;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::Read as _;
use switchback_core::backup::Snapshot;
use switchback_core::config::{Backup, Config};
use switchback_core::plan;
use switchback_engine::backup::vault::{Key, Retained, Task, Vault, keep_key, key_file};
use switchback_engine::backup::{self, facts};
use switchback_engine::engine::Notice;
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::store::Progress as Work;
use switchback_engine::world::World;

/// Options of backup.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Only what is due now by `backup.every`, `backup.drill`, `rollback.drill` and `rollback.drill_production`; for a timer
    #[arg(long)]
    pub if_due: bool,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What can be done with the repository.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make the repository and its key
    #[command(after_help = "Example:\n  switchback backup init")]
    Init,
    /// Archive now what was written to the logs of Postgres (`backup.wal`)
    #[command(
        after_help = "Examples:\n  switchback backup wal\n  switchback backup wal --json\n\nThe keeper does it every `backup.wal.every`."
    )]
    Wal,
    /// List the backups, and the times that can be returned to
    #[command(
        after_help = "Examples:\n  switchback backup list\n  switchback backup list --json\n  switchback backup list --moments"
    )]
    List {
        /// Only the times that can be returned to (`restore --at`)
        #[arg(long)]
        moments: bool,
    },
    /// Look for damage in the repository
    #[command(
        after_help = "Examples:\n  switchback backup check\n  switchback backup check --read-data     # reads all of it"
    )]
    Check {
        /// Also read and decrypt all data
        #[arg(long)]
        read_data: bool,
    },
    /// Remove backups that no rule of `backup.keep` keeps
    #[command(after_help = "Examples:\n  switchback backup prune --dry-run\n  switchback backup prune")]
    Prune {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Say where the key lies; with --confirm, prove that a copy of it exists elsewhere
    #[command(
        after_help = "Examples:\n  switchback backup key\n  switchback backup key --confirm < copy-of-the-key"
    )]
    Key {
        /// Read the key from standard input, and record that it opens the repository
        #[arg(long)]
        confirm: bool,
    },
}

/// What can be drilled.
#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// Bring a backup back into a sandbox, start it, run the checks, and remove it
    #[command(
        after_help = "Examples:\n  switchback drill restore\n  switchback drill restore --snapshot 1f2e3d4c"
    )]
    Restore {
        /// Which backup: `latest`, or the beginning of an id
        #[arg(long, value_name = "ID", default_value = "latest", value_parser = super::restore::snapshot)]
        snapshot: String,
        /// Show the plan and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Switch a clone of production back to the generation before, measure it, run the checks, and certify it
    #[command(
        after_help = "Examples:\n  switchback drill rollback\n  switchback drill rollback --production   # in a maintenance window"
    )]
    Rollback(super::drill::RollbackDrillArgs),
}

/// Backups.
pub fn backup(global: &Global, args: &BackupArgs) -> Result<Exit, Trouble> {
    let Some(command) = &args.command else { return make(global, args) };
    let (home, config) = open(global)?;
    let backup = backup::configured(&config)?.clone();
    match command {
        BackupCommand::Init => init(global, &home, &config, &backup),
        BackupCommand::Wal => super::moments::archive(global, &home, &config),
        BackupCommand::List { moments } => list(global, &home, &config, &backup, *moments),
        BackupCommand::Check { read_data } => check(global, &home, &config, &backup, *read_data),
        BackupCommand::Prune { dry_run } => prune(global, &home, &config, &backup, *dry_run),
        BackupCommand::Key { confirm } => key(global, &home, &config, &backup, *confirm),
    }
}

fn make(global: &Global, args: &BackupArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    if args.if_due && config.rollback.drills() {
        return if_due(global, &home, &config);
    }
    backup::configured(&config)?;
    if args.if_due {
        return if_due(global, &home, &config);
    }
    let mut session = session(global, &home, "backup")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let plan = plan::backup(&facts::archive_facts(&home, &config, &world)?);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let exit = carry_out(global, &home, &mut session, &plan, &config)?;
    drop(session);
    keeper::spawn(&home)?;
    Ok(exit)
}

fn if_due(global: &Global, home: &Home, config: &Config) -> Result<Exit, Trouble> {
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    let observe = |notice: &Notice<'_>| progress.notice(notice);
    // A clock's command is what comes back after a reboot.
    switchback_engine::watch::ensure_of_trial(home)?;
    let done = backup::due::run_due(home, config, &cancel, &observe, &|t| progress.line(t))?;
    drop(progress);
    let out = Output::new(global.json);
    let exit = match &done {
        Some(outcome) => match Exit::of(outcome) {
            Exit::RolledBack => Exit::Refused,
            exit => exit,
        },
        None => Exit::Done,
    };
    if out.is_json() {
        out.json(&json!({ "done": done }))?;
    } else if done.is_none() {
        out.line("Nothing was done: nothing is due, or the stack is busy.")?;
    }
    Ok(exit)
}

/// Calls with a progress that a person sees; Ctrl-C stops it, and so does a rollback.
fn shown<T>(global: &Global, text: &str, work: impl FnOnce(&Work<'_>) -> T) -> T {
    let cancel = cancel_giving_way(global);
    let progress = Progress::new(global.quiet);
    let report = |done, total| progress.notice(&Notice::Doing { text, done, total });
    let asked = || cancel.requested();
    report(0, 0);
    work(&Work { cancel: &asked, report: &report })
}

fn init(global: &Global, home: &Home, config: &Config, backup: &Backup) -> Result<Exit, Trouble> {
    let _session = session(global, home, "backup init")?;
    let file = key_file(home, backup);
    // A key that lies there is taken: somebody may want one for several stacks. One that cannot be read is no reason for another.
    let (key, new) = match file.symlink_metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Key::generate()?, true),
        _ => (Vault::kept_key(home, backup)?, false),
    };
    let vault = Vault::with_key(home, backup, key)?;
    let world = World::open(config)?;
    // Before the repository: what is killed in between leaves a key without a repository, never one that nobody can open.
    if new {
        keep_key(&file, &vault.key)?;
    }
    let made =
        shown(global, "making the repository", |work| backup::ask(home, &world, &vault, &Task::Init, work));
    let id: String = match made {
        Ok(id) => id,
        Err(e) => {
            if new && !opens(home, &world, &vault) {
                // What could not be removed is taken the next time.
                let _ = std::fs::remove_file(&file);
            }
            return Err(e.into());
        }
    };
    let out = Output::new(global.json);
    let place = vault.location.shown();
    if out.is_json() {
        out.json(&json!({ "repository": place, "id": id, "key_file": file, "key_made": new }))?;
        return Ok(Exit::Done);
    }
    out.line(&format!("The repository is at {place}."))?;
    if new {
        out.line(&format!("Its key lies in {}:", file.display()))?;
        out.line(&format!("\n    {}\n", vault.key.reveal()))?;
        out.line(
            "Without the key nobody can read the backups, you neither. Copy it to a place that does not burn",
        )?;
        out.line("down with this machine, then prove it:\n\n    switchback backup key --confirm\n")?;
    }
    out.line("Next:  switchback backup")?;
    Ok(Exit::Done)
}

/// Whether the key opens the repository nevertheless: it was made, and something failed after that.
fn opens(home: &Home, world: &World, vault: &Vault) -> bool {
    backup::ask::<Vec<Snapshot>>(home, world, vault, &Task::List, &Work::none()).is_ok()
}

fn list(
    global: &Global,
    home: &Home,
    config: &Config,
    backup: &Backup,
    moments: bool,
) -> Result<Exit, Trouble> {
    let vault = Vault::of_stack(home, backup)?;
    let world = World::open(config)?;
    let all: Vec<Snapshot> =
        shown(global, "reading the repository", |work| backup::ask(home, &world, &vault, &Task::List, work))?;
    let own: Vec<Snapshot> = all.into_iter().filter(|s| s.stack == config.stack.as_str()).collect();
    let windows = super::moments::windows(home, config, &world, &vault, &own)?;
    let out = Output::new(global.json);
    let shown = render::windows(&windows, &super::moments::names(config));
    if out.is_json() && moments {
        let all: Vec<_> = windows.iter().map(|(f, u)| json!({ "from_ms": f, "until_ms": u })).collect();
        out.json(&all)?;
    } else if out.is_json() {
        out.json(&own)?;
    } else if moments {
        out.text(if shown.is_empty() { "No moment between backups can be returned to.\n" } else { &shown })?;
    } else {
        out.text(&render::list(&own, &vault.location.shown()))?;
        out.text(&shown)?;
    }
    Ok(Exit::Done)
}

fn check(
    global: &Global,
    home: &Home,
    config: &Config,
    backup: &Backup,
    data: bool,
) -> Result<Exit, Trouble> {
    let vault = Vault::of_stack(home, backup)?;
    let world = World::open(config)?;
    let found: Vec<String> = shown(global, "looking for damage", |work| {
        backup::ask(home, &world, &vault, &Task::Check { data }, work)
    })?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "read_data": data, "findings": found }))?;
    } else if found.is_empty() {
        let how = if data { "all data was read" } else { "its structure; --read-data reads all data" };
        out.line(&format!("The repository is sound ({how})."))?;
    } else {
        for line in &found {
            out.line(line)?;
        }
        out.line("The repository is DAMAGED: make another one, and look after the disk.")?;
    }
    Ok(if found.is_empty() { Exit::Done } else { Exit::Refused })
}

fn prune(
    global: &Global,
    home: &Home,
    config: &Config,
    backup: &Backup,
    dry_run: bool,
) -> Result<Exit, Trouble> {
    let _session = session(global, home, "backup prune")?;
    let vault = Vault::of_stack(home, backup)?;
    let world = World::open(config)?;
    let task = Task::Forget {
        stack: config.stack.to_string(),
        keep: backup.keep,
        wal_keep_ms: backup::wal::keep_ms(backup),
        dry_run,
    };
    let done: Retained =
        shown(global, "removing what is not kept", |work| backup::ask(home, &world, &vault, &task, work))?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "dry_run": dry_run, "kept": done.kept, "removed": done.removed }))?;
        return Ok(Exit::Done);
    }
    let word = if dry_run { "would be removed" } else { "were removed" };
    for id in &done.removed {
        out.line(&format!("{}  {word}", id.get(..8).unwrap_or(id)))?;
    }
    out.line(&format!("Removed: {}, kept: {}.", done.removed.len(), done.kept.len()))?;
    Ok(Exit::Done)
}

fn key(
    global: &Global,
    home: &Home,
    config: &Config,
    backup: &Backup,
    confirm: bool,
) -> Result<Exit, Trouble> {
    let out = Output::new(global.json);
    let file = key_file(home, backup);
    let vault = Vault::of_stack(home, backup)?;
    if confirm {
        if !out.is_json() && console::user_attended() {
            Progress::new(false).line("Type the key, as you have it elsewhere, and end the line:");
        }
        let typed = read_line()?;
        let Some(typed) = Key::of(&typed) else {
            return Err(Trouble::usage(
                "no key was given",
                "switchback backup key --confirm < copy-of-the-key",
            ));
        };
        let world = World::open(config)?;
        let used = vault.key.clone();
        let other = Vault { key: typed, opened: None, ..vault };
        let _: Vec<Snapshot> = shown(global, "opening the repository with it", |work| {
            backup::ask(home, &world, &other, &Task::List, work)
        })?;
        // A repository may have several keys; it is confirmed of the one that the stack uses.
        if other.key != used {
            let own = Vault { key: used.clone(), ..other };
            let _: Vec<Snapshot> =
                shown(global, "opening the repository with the key of the stack", |work| {
                    backup::ask(home, &world, &own, &Task::List, work)
                })?;
        }
        backup::confirm_key(home, &used)?;
    }
    let confirmed = backup::key_confirmed(home, backup);
    if out.is_json() {
        out.json(&json!({ "key_file": file, "confirmed": confirmed }))?;
    } else {
        out.line(&format!("The key lies in {}.", file.display()))?;
        out.line(if confirmed { "A copy of it opened the repository." } else { backup::UNCONFIRMED })?;
    }
    Ok(Exit::Done)
}

/// One line of standard input, and no more.
fn read_line() -> Result<String, Trouble> {
    let mut text = String::new();
    let mut byte = [0];
    while text.len() < 1024 && std::io::stdin().read(&mut byte)? == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    Ok(text)
}

/// Tries a backup, or a rollback.
pub fn drill(global: &Global, command: &DrillCommand) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "drill")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    let (plan, dry_run) = match command {
        DrillCommand::Rollback(args) if args.production => {
            return super::drill::production(global, &home, &config, &mut session, args);
        }
        DrillCommand::Restore { snapshot, dry_run } => {
            (plan::drill(&facts::drill_facts(&home, &config, &world, snapshot)?), dry_run)
        }
        DrillCommand::Rollback(args) => {
            let facts = switchback_engine::drill::facts(&home, &config, &world)?;
            (plan::rollback_drill(&facts), &args.dry_run)
        }
    };
    if *dry_run {
        return show_plan(global, &plan);
    }
    carry_out(global, &home, &mut session, &plan, &config)
}
