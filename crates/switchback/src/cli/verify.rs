//! The acceptance run: every criterion, proved on a copy of this stack.

use super::reference::reference;
use super::run::{TOOL, cancel_on_signals, write_report};
use super::upgrade::{open, target};
use super::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use crate::{demo, matrix};
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use switchback_core::config::Config;
use switchback_core::criteria::{Catalogue, CatalogueError, Matrix, Phase};
use switchback_core::journal::Event;
use switchback_engine::engine::Notice;
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;
use switchback_engine::verify::{self, Request};

/// Where the matrix goes, below the stack.
const OUTPUT: &str = "reports/upgrade-infrastructure";
/// Where the documentation lies, below the source.
const DOCS: &str = "docs/upgrade-infrastructure";

/// Options of verify.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Versions to try; by default what switchback.yaml says
    #[arg(value_name = "SERVICE=VERSION")]
    pub versions: Vec<String>,
    /// Folder for the matrix; by default reports/upgrade-infrastructure below the stack
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Run only this phase (may be given several times); the criteria of the others say NOT-RUN
    #[arg(long = "phase", value_name = "NAME", value_parser = PossibleValuesParser::new(Phase::ALL.map(Phase::as_str)))]
    pub phases: Vec<String>,
    /// Print the catalogue of criteria and do nothing
    #[arg(long)]
    pub list: bool,
    /// Go on after the last phase that ended, where a run was killed or interrupted
    #[arg(long)]
    pub resume: bool,
    /// Keep the sandbox, to look at it
    #[arg(long)]
    pub keep: bool,
    /// Folder of the documentation to hold against the program
    #[arg(long, value_name = "DIR")]
    pub docs: Option<PathBuf>,
}

/// Proves every criterion and writes the matrix.
pub fn verify(global: &Global, args: &VerifyArgs) -> Result<Exit, Trouble> {
    if args.list {
        return list(global);
    }
    let (home, config) = open(global)?;
    let catalogue = catalogue(&home, &config)?;
    let phases: BTreeSet<Phase> = Phase::ALL
        .into_iter()
        .filter(|p| args.phases.is_empty() || args.phases.iter().any(|n| n == p.as_str()))
        .collect();
    let output = args.output.clone().unwrap_or_else(|| home.root().join(OUTPUT));
    let cancel = cancel_on_signals();
    let progress = Progress::new(global.quiet);
    let observe = |notice: &Notice<'_>| match notice {
        // The steps of a dozen runs would bury the phases: a step is shown while it runs.
        Notice::Recorded(plan, record) => {
            if let Event::Started { step, .. } = &record.event {
                let title = plan.step(step).map_or(step.as_str(), |s| s.title.as_str());
                let text = format!("{}: {title}", plan.procedure.as_str());
                progress.notice(&Notice::Doing { text: &text, done: 0, total: 0 });
            }
        }
        doing @ Notice::Doing { .. } => progress.notice(doing),
    };
    let request = Request {
        versions: target(&config, &args.versions)?.versions,
        phases,
        resume: args.resume,
        keep: args.keep,
        output: output.clone(),
        docs: args.docs.clone().or_else(docs),
        reference: reference(),
        example: &example,
        catalogue: &catalogue,
        tool: TOOL,
        cancel: &cancel,
        observe: &observe,
        say: &|text| progress.line(&format!("  {text}")),
        write_report: &write_report,
    };
    progress.line(&format!("verify {}  on a copy; production is not touched", config.stack));
    let found = verify::run(&home, &config, &request)?;
    let Some(matrix) = found else {
        progress.line("\n  Interrupted; the sandbox is gone and production was not touched.");
        progress.line(
            "  `switchback verify --resume`, with the same options, goes on after the phases that ended.",
        );
        return Ok(Exit::Interrupted);
    };
    drop(progress);
    matrix::write(&output, &matrix)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&matrix)?;
    } else {
        out.text(&matrix::terminal(&matrix))?;
        out.line(&format!("  Matrix: {}", output.join(matrix::HTML).display()))?;
    }
    Ok(exit_of(&matrix))
}

fn exit_of(matrix: &Matrix) -> Exit {
    let counts = matrix.counts;
    if counts.failed > 0 {
        Exit::Refused
    } else if counts.complete() {
        Exit::Done
    } else {
        Exit::Inconclusive
    }
}

/// The built-in criteria, and the user's own.
fn catalogue(home: &Home, config: &Config) -> Result<Catalogue, Trouble> {
    let mut catalogue = Catalogue::built_in().map_err(trouble)?;
    if let Some(file) = &config.verify.catalogue {
        let path = home.root().join(file);
        let text = std::fs::read_to_string(&path).map_err(|e| Trouble {
            exit: Exit::Usage,
            message: format!("cannot read {}: {e}", path.display()),
            hint: Some("`verify.catalogue` in switchback.yaml names it".to_owned()),
        })?;
        catalogue.extend(&text, file).map_err(trouble)?;
    }
    Ok(catalogue)
}

fn trouble(error: CatalogueError) -> Trouble {
    Trouble { exit: Exit::Usage, message: error.to_string(), hint: error.hint }
}

/// Prints the criteria with what would prove each; without a stack, the built-in ones.
fn list(global: &Global) -> Result<Exit, Trouble> {
    let catalogue = match open(global) {
        Ok((home, config)) => catalogue(&home, &config)?,
        Err(t) if Home::open(&global.directory).is_ok() => return Err(t),
        Err(_) => Catalogue::built_in().map_err(trouble)?,
    };
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&catalogue)?;
        return Ok(Exit::Done);
    }
    let mut area = "";
    for criterion in &catalogue.criteria {
        if criterion.area != area {
            area = &criterion.area;
            out.line(area)?;
        }
        out.line(&format!("  {:<27} {}", criterion.id, criterion.text))?;
        for need in &criterion.needs {
            let by = match catalogue.evidence.get(need).map(|k| k.phase) {
                Some(Some(phase)) => format!("phase {}", phase.as_str()),
                Some(None) => "nothing produces it".to_owned(),
                None => "a check of the stack".to_owned(),
            };
            out.line(&format!("  {:<27}   needs {need} ({by})", ""))?;
        }
    }
    out.line(&format!("{} criteria", catalogue.criteria.len()))?;
    Ok(Exit::Done)
}

/// The stack that the documentation's examples are typed on.
fn example(folder: &Path, long: bool) -> Result<(), EngineError> {
    let broken = |e: std::io::Error| EngineError::Io { doing: "make", path: folder.to_owned(), source: e };
    demo::example(folder, long).map_err(broken)
}

fn docs() -> Option<PathBuf> {
    let here = PathBuf::from(DOCS);
    let source = option_env!("CARGO_MANIFEST_DIR").map(|d| Path::new(d).join("../..").join(DOCS));
    // Where packages put it.
    let installed = Path::new("/usr/share/doc/switchback").join(DOCS);
    [Some(here), source, Some(installed)].into_iter().flatten().find(|d| d.is_dir())
}

impl From<matrix::WriteError> for Trouble {
    fn from(error: matrix::WriteError) -> Self {
        EngineError::Io { doing: "write", path: error.path, source: error.source }.into()
    }
}
