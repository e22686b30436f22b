//! `switchback staging`: environments that a person keeps.

mod change;
mod look;
mod scan;
mod tools;

use super::{Exit, Global, Trouble};
use clap::{Args, Subcommand};
use switchback_core::duration::Span;
use switchback_core::environment::DEFAULT_NAME;

/// The verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum StagingCommand {
    /// Make an environment with production's data (or start the one of this name), and wait until it is healthy
    #[command(
        after_help = "Examples:\n  switchback staging up                       # production's release, as `staging`\n  switchback staging up try-2 n8n=2.8.4      # another release, on a copy of production's data\n  switchback staging up demo --keep 3h"
    )]
    Up(UpArgs),
    /// Remove an environment with its data
    #[command(after_help = "Examples:\n  switchback staging down\n  switchback staging down try-2 --yes")]
    Down(NameArgs),
    /// Bring production's present data into an environment; only what changed is written
    #[command(after_help = "Examples:\n  switchback staging sync\n  switchback staging sync try-2")]
    Sync(NameArgs),
    /// Bring back the data that an environment got last, as if nothing had been done in it
    #[command(after_help = "Example:\n  switchback staging reset")]
    Reset(NameArgs),
    /// Stop an environment and keep its data
    #[command(after_help = "Example:\n  switchback staging stop")]
    Stop(NameArgs),
    /// List the environments
    #[command(after_help = "Example:\n  switchback staging list --json")]
    List,
    /// Show what runs in an environment, how fresh its data is, and what it uses
    #[command(
        after_help = "Examples:\n  switchback staging status\n  switchback staging status try-2 --watch"
    )]
    Status(StatusArgs),
    /// Show in what an environment differs from production
    #[command(after_help = "Example:\n  switchback staging diff")]
    Diff(NameArgs),
    /// Show what an environment would have sent: mails, webhooks, requests, names it asked for
    #[command(after_help = "Examples:\n  switchback staging sent\n  switchback staging sent try-2 --json")]
    Sent(NameArgs),
    /// Print the addresses of an environment
    #[command(after_help = "Example:\n  switchback staging open --browser")]
    Open(OpenArgs),
    /// Show the logs of an environment's services
    #[command(
        after_help = "Examples:\n  switchback staging logs\n  switchback staging logs --service n8n --lines 200"
    )]
    Logs(LogsArgs),
    /// Run a command in a service of an environment
    #[command(
        after_help = "Examples:\n  switchback staging exec db -- psql -U postgres\n  switchback staging exec --name try-2 n8n -- n8n list:workflow"
    )]
    Exec(ExecArgs),
    /// Find columns that are likely to hold personal data or secrets, and propose rules that mask them
    #[command(
        after_help = "Examples:\n  switchback staging scan                        # production; it is only read\n  switchback staging scan --environment try-2    # what is left after masking\n  switchback staging scan --check                # exit code 3 if something likely has no rule"
    )]
    Scan(ScanArgs),
    /// Say how long an environment stays
    #[command(
        after_help = "Examples:\n  switchback staging keep --for 14d\n  switchback staging keep try-2 --forever"
    )]
    Keep(KeepArgs),
}

/// Which environment.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// Name of the environment
    #[arg(default_value = DEFAULT_NAME)]
    pub name: String,
}

/// Options of up.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Name of the environment (default: staging), and versions that replace those of production
    #[arg(value_name = "NAME | SERVICE=VERSION")]
    pub words: Vec<String>,
    /// With the data of a backup instead of production's: `latest`, or the beginning of an id
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "latest", require_equals = true, value_parser = super::restore::snapshot)]
    pub from_backup: Option<String>,
    /// With the data of the backup before this moment, and what `backup.wal` archived until then
    #[arg(long, value_name = "TIME", value_parser = super::moments::moment, conflicts_with = "from_backup")]
    pub at: Option<super::moments::Moment>,
    /// Remove it after this time (default: staging.keep)
    #[arg(long, value_name = "TIME")]
    pub keep: Option<Span>,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of status.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Name of the environment
    #[arg(default_value = DEFAULT_NAME)]
    pub name: String,
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Time between two looks
    #[arg(long, default_value = "2s", value_name = "TIME")]
    pub every: Span,
}

/// Options of open.
#[derive(Debug, Clone, Args)]
pub struct OpenArgs {
    /// Name of the environment
    #[arg(default_value = DEFAULT_NAME)]
    pub name: String,
    /// Also open the first address in a browser
    #[arg(long)]
    pub browser: bool,
}

/// Options of logs.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Name of the environment
    #[arg(default_value = DEFAULT_NAME)]
    pub name: String,
    /// Only this service
    #[arg(long)]
    pub service: Option<String>,
    /// Lines per service
    #[arg(long, default_value_t = 40)]
    pub lines: usize,
}

/// Options of exec.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// Name of the environment
    #[arg(long, default_value = DEFAULT_NAME)]
    pub name: String,
    /// The service
    pub service: String,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Options of scan.
#[derive(Debug, Clone, Args)]
pub struct ScanArgs {
    /// Look at this environment instead of production
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
    /// End with exit code 3 if a column that is likely personal has no rule
    #[arg(long)]
    pub check: bool,
}

/// Options of keep.
#[derive(Debug, Clone, Args)]
pub struct KeepArgs {
    /// Name of the environment
    #[arg(default_value = DEFAULT_NAME)]
    pub name: String,
    /// From now on, so long
    #[arg(
        long = "for",
        value_name = "TIME",
        conflicts_with = "forever",
        required_unless_present = "forever"
    )]
    pub time: Option<Span>,
    /// Until `staging down`
    #[arg(long)]
    pub forever: bool,
}

/// Performs.
pub fn staging(global: &Global, command: StagingCommand) -> Result<Exit, Trouble> {
    match command {
        StagingCommand::Up(args) => change::up(global, &args),
        StagingCommand::Down(args) => change::down(global, &args.name),
        StagingCommand::Sync(args) => change::sync(global, &args.name),
        StagingCommand::Reset(args) => change::reset(global, &args.name),
        StagingCommand::Stop(args) => change::stop(global, &args.name),
        StagingCommand::Keep(args) => change::keep(global, &args),
        StagingCommand::Scan(args) => scan::scan(global, &args),
        StagingCommand::List => look::list(global),
        StagingCommand::Status(args) => look::status(global, &args),
        StagingCommand::Diff(args) => tools::diff(global, &args.name),
        StagingCommand::Sent(args) => tools::sent(global, &args.name),
        StagingCommand::Open(args) => tools::open(global, &args),
        StagingCommand::Logs(args) => tools::logs(global, &args),
        StagingCommand::Exec(args) => tools::exec(global, &args),
    }
}
