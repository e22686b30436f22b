//! Looking for what would stop an upgrade or a rollback, before it does. Changes nothing.

mod backups;
mod compose;
mod config;
mod host;
mod services;
mod state;

use super::output::printable;
use super::{Exit, Global, Output, Trouble};
use console::Style;
use serde::Serialize;
use switchback_core::config::{Config, RuntimeKind};
use switchback_engine::error::EngineError;
use switchback_engine::home::{CONFIG_FILE, Home};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Group {
    Host,
    Configuration,
    State,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    group: Group,
    /// Stable name of what was looked at.
    id: &'static str,
    level: Level,
    message: String,
    advice: Option<String>,
}

/// Collects findings of one group.
struct Findings {
    group: Group,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, level: Level, id: &'static str, message: String, advice: Option<String>) {
        self.all.push(Finding { group: self.group, id, level, message, advice });
    }
    fn ok(&mut self, id: &'static str, message: impl Into<String>) {
        self.add(Level::Ok, id, message.into(), None);
    }
    fn warning(&mut self, id: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Warning, id, message.into(), Some(advice.into()));
    }
    fn problem(&mut self, id: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(Level::Problem, id, message.into(), Some(advice.into()));
    }
    fn error(&mut self, id: &'static str, error: &EngineError) {
        self.add(Level::Problem, id, error.to_string(), error.hint());
    }
    fn any_bad(&self, id: &str) -> bool {
        self.all.iter().any(|f| f.id == id && f.level != Level::Ok)
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// Looks at host, configuration and state.
pub fn doctor(global: &Global) -> Result<Exit, Trouble> {
    let root = global.directory.canonicalize().ok().filter(|d| d.is_dir()).ok_or_else(|| {
        Trouble::usage(
            format!("{} is not a folder", global.directory.display()),
            "`-C DIR` names the stack's folder",
        )
    })?;
    let mut findings = Findings { group: Group::Configuration, all: Vec::new() };
    let home = match Home::open(&root) {
        Ok(home) => Some(home),
        Err(e) => {
            findings.error("parses", &e);
            None
        }
    };
    let config = home.as_ref().and_then(|home| match home.config() {
        Ok(config) => {
            findings.ok("parses", format!("{CONFIG_FILE} has no mistakes"));
            Some(config)
        }
        Err(e) => {
            findings.error("parses", &e);
            None
        }
    });
    findings.group = Group::Host;
    host::look(&root, &mut findings);
    // A stack whose configuration is broken may still have a generation to look after.
    let runtime = config.as_ref().map(|c| c.runtime).or_else(|| home.as_ref().and_then(state::runtime));
    let mut reached = true;
    match (&home, &config, runtime) {
        (Some(home), Some(config), Some(RuntimeKind::Compose)) => {
            reached = compose_stack(home, config, &mut findings);
        }
        (_, _, Some(RuntimeKind::Compose)) => reached = compose::engine(&mut findings).is_some(),
        (home, config, _) => {
            host::processes(&root, home.as_ref(), config.as_ref(), &mut findings);
            if let (Some(home), Some(config)) = (home, config) {
                findings.group = Group::Configuration;
                config::look(home, config, &mut findings);
            }
        }
    }
    if let Some(home) = &home {
        findings.group = Group::State;
        state::look(home, config.as_ref(), reached, &mut findings);
    }
    answer(global, &findings.all)
}

/// Looks at a Compose stack; whether its engine can be used.
fn compose_stack(home: &Home, config: &Config, findings: &mut Findings) -> bool {
    let docker = compose::engine(findings);
    let scene = compose::Scene { home, config, docker: docker.as_ref() };
    findings.group = Group::Configuration;
    let project = compose::project(&scene, findings);
    match &project {
        Some(project) => {
            config::checks(home, &project.config, Some((&project.used, &project.variables)), findings);
            findings.group = Group::Host;
            compose::data(&scene, project, findings);
        }
        None => config::checks(home, config, None, findings),
    }
    docker.is_some()
}

fn answer(global: &Global, findings: &[Finding]) -> Result<Exit, Trouble> {
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&Answer { ok: problems == 0, problems, warnings, findings })?;
    } else {
        for (group, title) in
            [(Group::Host, "Host"), (Group::Configuration, "Configuration"), (Group::State, "State")]
        {
            let mut any = false;
            for finding in findings.iter().filter(|f| f.group == group) {
                if !std::mem::replace(&mut any, true) {
                    out.line(title)?;
                }
                print(&out, finding)?;
            }
        }
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        out.line(&format!("{}, {}.", counted(problems, "problem"), counted(warnings, "warning")))?;
    }
    Ok(if problems == 0 { Exit::Done } else { Exit::Refused })
}

fn print(out: &Output, finding: &Finding) -> Result<(), Trouble> {
    let (mark, style) = match finding.level {
        Level::Ok => ("✓", Style::new().green()),
        Level::Warning => ("!", Style::new().yellow()),
        Level::Problem => ("✗", Style::new().red().bold()),
    };
    out.line(&format!("  {} {}", style.apply_to(mark), printable(&finding.message)))?;
    if let Some(advice) = &finding.advice {
        out.line(&format!("      {}", Style::new().dim().apply_to(printable(advice))))?;
    }
    Ok(())
}
