//! Exporting what was written to a generation that was left, where its rollback could not, or skipped it.

use super::upgrade::{carry_out, open, session, show_plan};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use switchback_core::ids::GenerationId;
use switchback_engine::left::unexported;

/// Options of export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The generation that was left; by default the oldest whose later writes are not exported
    #[arg(value_name = "GENERATION")]
    pub generation: Option<u32>,
    /// Show the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Exports later writes. Only the export is written; what was there of an earlier one is replaced.
pub fn export(global: &Global, args: &ExportArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, "export")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let plan = session.plan_export(&config, args.generation.map(GenerationId))?;
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let exit = carry_out(global, &home, &mut session, &plan, &config)?;
    if exit == Exit::Done && !global.json {
        let out = Output::new(false);
        for id in unexported(&home)? {
            out.line(&format!("  Generation {id} is not exported either: switchback export {id}"))?;
        }
    }
    Ok(exit)
}
