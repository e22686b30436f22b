//! Manual pages, made from the command line's own definition.

use super::{Cli, Exit, Output, Trouble};
use clap::{Args, CommandFactory as _};
use std::path::PathBuf;

/// Options of man.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the page of every command into this folder, which is made
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

/// Prints the page of the program, or writes all.
pub fn man(args: &ManArgs) -> Result<Exit, Trouble> {
    let program = Cli::command();
    let Some(folder) = &args.output else {
        clap_mangen::Man::new(program).render(&mut std::io::stdout())?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(program, folder)?;
    let pages = std::fs::read_dir(folder)?.count();
    Output::new(false).line(&format!("{pages} pages in {}", folder.display()))?;
    Ok(Exit::Done)
}
