//! The command line: what can be typed, and the exit codes.

mod all;
mod audit;
mod auto;
mod backup;
mod carry;
mod check;
mod compat;
mod confirm;
mod consent;
mod doctor;
mod drill;
mod error;
mod export;
mod find;
mod gc;
mod history;
mod init;
mod man;
mod metrics;
mod moments;
mod notify;
mod outdated;
mod output;
mod own;
mod path;
mod prove;
mod reference;
mod report;
mod restore;
mod resume;
mod rollback;
pub mod run;
mod scaling;
mod serve;
mod services;
mod staging;
mod status;
mod trends;
mod trial;
mod upgrade;
mod verify;
mod why;

pub use error::{Exit, Trouble};
pub use output::Output;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use switchback_core::duration::Span;

/// What can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "switchback",
    version,
    about = "Safe upgrades for self-hosted stacks: rehearse on production's data, promote under watch, roll back in seconds",
    after_help = "Exit codes: 0 done · 1 internal error · 2 usage or configuration · 3 refused (a check failed) ·\n4 the upgrade failed, production is safe on the previous generation · 5 needs the operator ·\n6 inconclusive · 7 over the rollback budget · 8 busy (another run holds the lock) · 130 interrupted (Ctrl-C)",
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Folder of the stack (the one with switchback.yaml)
    #[arg(
        short = 'C',
        long = "directory",
        global = true,
        env = "SWITCHBACK_DIRECTORY",
        default_value = ".",
        value_name = "DIR"
    )]
    pub directory: PathBuf,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not ask
    #[arg(short, long, global = true, env = "SWITCHBACK_YES", value_parser = clap::builder::FalseyValueParser::new())]
    pub yes: bool,
    /// Write no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Wait this long for another run to end
    #[arg(long, global = true, default_value = "0s", value_name = "TIME", env = "SWITCHBACK_WAIT")]
    pub wait: Span,
}

impl Global {
    /// How long to wait for the lock.
    pub fn wait(&self) -> Duration {
        self.wait.0
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a switchback.yaml and first workflow checks for the stack in this folder: its Compose project, or local processes
    #[command(
        after_help = "Examples:\n  switchback init                      # in a folder with a Compose file: describes its services and data\n  switchback init --port 8000          # describe the service that listens on port 8000 now\n  switchback init --name hub --command '{release}/bin/hub --db {store.db}' --sqlite data/hub.db"
    )]
    Init(init::InitArgs),
    /// Look for what would stop an upgrade or a rollback
    #[command(after_help = "Example:\n  switchback doctor")]
    Doctor,
    /// Start production's current generation (the first time: adopt the stack as generation 1)
    #[command(after_help = "Example:\n  switchback up")]
    Up,
    /// Stop production
    #[command(after_help = "Example:\n  switchback down")]
    Down,
    /// Show what a rehearsal, promotion or rollback would do, step by step; changes nothing
    #[command(
        after_help = "Examples:\n  switchback plan                       # the promotion of what switchback.yaml says\n  switchback plan promote hub=5.4.6\n  switchback plan rollback --json"
    )]
    Plan(upgrade::PlanArgs),
    /// Try an upgrade on a clone of production, roll it back there, and issue a certificate
    #[command(after_help = "Examples:\n  switchback rehearse\n  switchback rehearse hub=5.4.6")]
    Rehearse(upgrade::TargetArgs),
    /// Rehearse every combination of some versions, and show which fit together
    #[command(
        after_help = "Examples:\n  switchback compat hub=3.1.1,5.4.6 db=15,17\n  switchback compat n8n=2.8.3,2.8.4 --output reports"
    )]
    Compat(compat::CompatArgs),
    /// Try an upgrade in several steps on clones, and show where it breaks
    #[command(
        after_help = "Examples:\n  switchback path n8n=1.123.0,2.8.4\n  switchback path hub=4.1.6,5.4.6 db=17\n  switchback path n8n=2.8.4                  # with the stops that `paths` demands\n  switchback path --find n8n=2.8.4           # looks for stops that make it work"
    )]
    Path(path::PathArgs),
    /// Time a migration on clones of several sizes, and say how long it takes as the data grows
    #[command(
        after_help = "Examples:\n  switchback scaling n8n=2.8.4\n  switchback scaling hub=5.4.6 --sizes 25,50,100 --rounds 3"
    )]
    Scaling(scaling::ScalingArgs),
    /// Bring a rehearsed upgrade to production, on trial
    #[command(
        after_help = "Examples:\n  switchback promote\n  switchback promote hub=5.4.6 --detach\n  switchback promote --without-certificate --reason 'CVE-2026-1, no time'"
    )]
    Promote(upgrade::PromoteArgs),
    /// Rehearse, and promote if nothing speaks against it
    #[command(
        after_help = "Examples:\n  switchback upgrade hub=5.4.6\n  switchback upgrade --yes --detach\n  switchback -C /srv upgrade --all      # every stack below /srv, in the order of `after`"
    )]
    Upgrade(upgrade::UpgradeArgs),
    /// Rehearse what changed in the configuration, and promote it as far as `promotion.auto` allows; for a timer
    #[command(after_help = "Examples:\n  switchback auto --dry-run\n  switchback auto")]
    Auto(auto::AutoArgs),
    /// Ask the registries of the services' images for newer versions; changes nothing
    #[command(after_help = "Examples:\n  switchback outdated\n  switchback outdated n8n --json")]
    Outdated(outdated::OutdatedArgs),
    /// Return production to the previous generation: data, configuration and code together
    #[command(
        after_help = "Examples:\n  switchback rollback\n  switchback rollback --to 3 --reason 'mails are not sent'"
    )]
    Rollback(rollback::RollbackArgs),
    /// Keep the generation that is on trial without waiting for its trial to pass
    #[command(after_help = "Example:\n  switchback confirm --reason 'the new messages in the log are known'")]
    Confirm(confirm::ConfirmArgs),
    /// Go on with a run that was interrupted
    #[command(
        after_help = "Examples:\n  switchback resume\n  switchback resume --abort             # undo it instead"
    )]
    Resume(resume::ResumeArgs),
    /// Show what runs, and how ready a rollback is
    #[command(
        after_help = "Examples:\n  switchback status --json\n  switchback status --why               # how the trial was judged"
    )]
    Status(status::StatusArgs),
    /// List the runs
    #[command(
        after_help = "Examples:\n  switchback history --limit 5\n  switchback history --stats --since 90d\n  switchback history --csv > history.csv"
    )]
    History(history::HistoryArgs),
    /// The audit trail: whether the journal is as it was written
    #[command(subcommand, after_help = "Example:\n  switchback audit verify")]
    Audit(audit::AuditCommand),
    /// Show the report of a run, or over a time
    #[command(
        after_help = "Examples:\n  switchback report                     # the last run, as text\n  switchback report --format html --output report.html\n  switchback report 01J... --format junit\n  switchback report --since 90d --html history.html\n  switchback report --since 30d --csv > history.csv"
    )]
    Report(report::ReportArgs),
    /// Print numbers for a monitoring system, in the text format of Prometheus
    #[command(
        after_help = "Examples:\n  switchback metrics\n  switchback metrics --output /var/lib/node_exporter/switchback.prom\n  switchback metrics --listen 127.0.0.1:9464      # for Prometheus to fetch"
    )]
    Metrics(metrics::MetricsArgs),
    /// Watch the trial that is running, in the foreground (a detached watchdog does it by itself)
    #[command(after_help = "Example:\n  switchback watch")]
    Watch,
    /// Environments with a copy of production's data: make, look at, synchronise, remove
    #[command(
        subcommand,
        after_help = "Examples:\n  switchback staging up\n  switchback staging up try-2 n8n=2.8.4\n  switchback staging status --watch\n  switchback staging down"
    )]
    Staging(staging::StagingCommand),
    /// Tell everybody in `notify` something, to see whether it arrives
    #[command(
        after_help = "Examples:\n  switchback notify\n  switchback notify 'the upgrade begins at nine'"
    )]
    Notify(notify::NotifyArgs),
    /// Remove what is no longer needed; keeps what a rollback needs
    #[command(after_help = "Examples:\n  switchback gc --dry-run\n  switchback gc --yes")]
    Gc(gc::GcArgs),
    /// Prove every acceptance criterion on a copy of this stack, and write the matrix
    #[command(
        after_help = "Examples:\n  switchback verify\n  switchback verify --list\n  switchback verify --resume            # after one that was interrupted\n  switchback verify --output reports/upgrade-infrastructure"
    )]
    Verify(verify::VerifyArgs),
    /// Checks: make a workflow from a recording
    #[command(
        subcommand,
        after_help = "Example:\n  switchback check record session.har --output checks/orders.yaml"
    )]
    Check(check::CheckCommand),
    /// Make known-bad upgrades on clones, and show which checks catch them
    #[command(
        after_help = "Examples:\n  switchback prove\n  switchback prove --mutant M01 --mutant M20\n  switchback prove --controls 50 --output reports"
    )]
    Prove(prove::ProveArgs),
    /// Write a snapshot of the whole stack (data, configuration, record of the release) into the repository of backups
    #[command(
        after_help = "Examples:\n  switchback backup init\n  switchback backup\n  switchback backup list\n  switchback backup --if-due            # for a timer"
    )]
    Backup(backup::BackupArgs),
    /// Bring a backup back: as production's next generation, or on a machine that has nothing of the stack
    #[command(
        after_help = "Examples:\n  switchback restore\n  switchback restore --snapshot 1f2e3d4c\n  switchback restore --from /mnt/backup --key-file key.txt --into /srv/pa"
    )]
    Restore(restore::RestoreArgs),
    /// Bring the writes made to a generation that was rolled back into production, as far as they fit
    #[command(
        after_help = "Examples:\n  switchback carry --dry-run\n  switchback carry\n  switchback carry --from 3"
    )]
    Carry(carry::CarryArgs),
    /// Export what was written to a generation that production left, where its rollback did not
    #[command(after_help = "Examples:\n  switchback export\n  switchback export 2")]
    Export(export::ExportArgs),
    /// Try what one hopes never to need
    #[command(
        subcommand,
        after_help = "Examples:\n  switchback drill restore\n  switchback drill rollback\n  switchback drill rollback --production"
    )]
    Drill(backup::DrillCommand),
    /// Print the JSON Schema of switchback.yaml
    #[command(
        after_help = "Examples:\n  switchback schema > switchback.schema.json\n  switchback schema workflow"
    )]
    Schema {
        /// Which file: `config` (switchback.yaml) or `workflow` (checks/*.yaml)
        #[arg(default_value = "config", value_parser = ["config", "workflow"])]
        of: String,
    },
    /// Print the manual page, or write those of all commands
    #[command(
        after_help = "Examples:\n  switchback man | man -l -\n  switchback man --output /usr/local/share/man/man1"
    )]
    Man(man::ManArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  switchback completions bash > /etc/bash_completion.d/switchback")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show everything on a small example stack in a temporary folder
    #[command(after_help = "Examples:\n  switchback demo\n  switchback demo --keep /tmp/demo")]
    Demo(crate::demo::DemoArgs),
}

/// Parses, performs, reports trouble.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { Exit::Usage.code() } else { 0 });
        }
    };
    let json = cli.global.json;
    match dispatch(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(trouble) => {
            trouble.print(json);
            ExitCode::from(trouble.exit.code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Trouble> {
    let global = cli.global;
    match cli.command {
        Command::Init(args) => init::init(&global, &args),
        Command::Doctor => doctor::doctor(&global),
        Command::Up => upgrade::up(&global),
        Command::Down => upgrade::down(&global),
        Command::Plan(args) => upgrade::plan(&global, &args),
        Command::Rehearse(args) => upgrade::rehearse(&global, &args),
        Command::Compat(args) => compat::compat(&global, &args),
        Command::Path(args) => path::path(&global, &args),
        Command::Scaling(args) => scaling::scaling(&global, &args),
        Command::Promote(args) => upgrade::promote(&global, &args),
        Command::Upgrade(args) if args.all => all::upgrade(&global, &args.promote),
        Command::Upgrade(args) => upgrade::upgrade(&global, &args.promote),
        Command::Auto(args) => auto::auto(&global, &args),
        Command::Outdated(args) => outdated::outdated(&global, &args),
        Command::Rollback(args) => rollback::rollback(&global, &args),
        Command::Confirm(args) => confirm::confirm(&global, &args),
        Command::Resume(args) => resume::resume(&global, &args),
        Command::Status(args) => status::status(&global, &args),
        Command::History(args) => history::history(&global, &args),
        Command::Audit(command) => audit::audit(&global, &command),
        Command::Report(args) => report::report(&global, &args),
        Command::Metrics(args) => metrics::metrics(&global, &args),
        Command::Watch => upgrade::watch(&global),
        Command::Staging(command) => staging::staging(&global, command),
        Command::Notify(args) => notify::notify(&global, &args),
        Command::Gc(args) => gc::gc(&global, &args),
        Command::Verify(args) => verify::verify(&global, &args),
        Command::Check(command) => check::check(&global, &command),
        Command::Prove(args) => prove::prove(&global, &args),
        Command::Backup(args) => backup::backup(&global, &args),
        Command::Restore(args) => restore::restore(&global, &args),
        Command::Carry(args) => carry::carry(&global, &args),
        Command::Export(args) => export::export(&global, &args),
        Command::Drill(command) => backup::drill(&global, &command),
        Command::Schema { of } => {
            let schema = if of == "workflow" {
                switchback_core::workflow::schema()
            } else {
                switchback_core::config::Config::schema()
            };
            Output::new(true).json(&schema)?;
            Ok(Exit::Done)
        }
        Command::Man(args) => man::man(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "switchback", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        Command::Demo(args) => crate::demo::demo(&global, &args),
    }
}
