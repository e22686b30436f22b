//! The files of checks: which the configuration names, and the copy that a run keeps so that it sees the same ones to its end.

use super::looks;
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use switchback_core::config::{Config, ConfigError};
use switchback_core::ids::{RunId, ServiceName, StoreName};
use switchback_core::journey::Journey;
use switchback_core::workflow::{Workflow, WorkflowError};

/// Where a run keeps its copy of the workflow files.
pub(super) fn kept_dir(home: &Home, run: &RunId) -> PathBuf {
    home.run_dir(run).join("checks")
}

/// The workflow files that the configuration names, in order of name.
pub fn workflow_files(home: &Home, config: &Config) -> Result<Vec<PathBuf>, EngineError> {
    named_files(home, "checks.workflows", &config.checks.workflows)
}

/// The files that a list of paths and patterns names, in order of name.
pub(crate) fn named_files(home: &Home, key: &str, patterns: &[String]) -> Result<Vec<PathBuf>, EngineError> {
    let mut files = Vec::new();
    for pattern in patterns {
        let before = files.len();
        let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
        let folder = home.root().join(folder);
        match name.split_once('*') {
            None => files.push(folder.join(name)),
            Some((prefix, suffix)) => {
                let entries = fs::read_dir(&folder).map_err(io("list the checks in", &folder))?;
                for entry in entries.flatten() {
                    let file = entry.file_name();
                    let text = file.to_string_lossy();
                    if text.len() >= prefix.len() + suffix.len()
                        && text.starts_with(prefix)
                        && text.ends_with(suffix)
                    {
                        files.push(entry.path());
                    }
                }
            }
        }
        if files.len() == before || files.iter().any(|f| !f.is_file()) {
            return Err(EngineError::refused(
                format!("{key}: {pattern:?} matches no file"),
                "remove the pattern, or write the file; `switchback init` writes a first workflow",
            ));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Reads and keeps the workflow files with the run, so that it sees the same ones to its end.
pub fn keep(home: &Home, run: &RunId, config: &Config) -> Result<(), EngineError> {
    let dir = kept_dir(home, run);
    create_dir(&dir)?;
    let services: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
    let stores: Vec<&str> = config.stores.keys().map(StoreName::as_str).collect();
    for file in workflow_files(home, config)? {
        let (_, workflow) = load(&file)?;
        let name = file.file_name().unwrap_or_default();
        let shown = format!("checks/{}", name.to_string_lossy());
        workflow.check_names(&shown, &services, &stores).map_err(located)?;
        if dir.join(name).exists() {
            return Err(EngineError::refused(
                format!("two workflow files are called {}", name.to_string_lossy()),
                "rename one: a workflow is known by its file's name",
            ));
        }
        fs::copy(&file, dir.join(name)).map_err(io("copy", &file))?;
    }
    keep_hurl(home, &dir, config)?;
    let journeys = named_files(home, "checks.journeys", &config.checks.journeys)?;
    if !journeys.is_empty() {
        let kept = dir.join(JOURNEYS).join(looks::KEPT);
        create_dir(kept.parent().unwrap_or(&dir))?;
        crate::home::write_json(&kept, &looks::approved(home)?)?;
    }
    for file in journeys {
        load_journey(&file)?;
        let folder = dir.join(JOURNEYS);
        create_dir(&folder)?;
        fs::copy(&file, folder.join(file.file_name().unwrap_or_default())).map_err(io("copy", &file))?;
    }
    Ok(())
}

/// Where kept files of `hurl` lie, each in the folder that it came from.
const HURL: &str = "hurl";

fn keep_hurl(home: &Home, dir: &Path, config: &Config) -> Result<(), EngineError> {
    let mut names = BTreeSet::new();
    for file in named_files(home, "checks.hurl", &config.checks.hurl)? {
        let relative = file.strip_prefix(home.root()).unwrap_or(&file);
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain || !names.insert(file.file_stem().map(ToOwned::to_owned)) {
            return Err(EngineError::refused(
                format!(
                    "checks.hurl: {} lies outside of the stack, or has the name of another one",
                    file.display()
                ),
                "keep the files below the stack's folder, each with a name of its own",
            ));
        }
        let kept = dir.join(HURL).join(relative);
        create_dir(kept.parent().unwrap_or(dir))?;
        fs::copy(&file, &kept).map_err(io("copy", &file))?;
    }
    Ok(())
}

/// What [`keep_hurl`] kept, in order of name, and the folders that the files came from.
pub(super) fn kept_hurl(home: &Home, dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let dir = dir.join(HURL);
    let walk = walkdir::WalkDir::new(&dir).sort_by_file_name().into_iter().flatten();
    walk.filter(|e| e.file_type().is_file())
        .map(|e| {
            let folder = e.path().strip_prefix(&dir).ok().and_then(Path::parent).unwrap_or(Path::new(""));
            (e.path().to_owned(), home.root().join(folder))
        })
        .collect()
}

/// Where kept journeys lie among kept workflows.
pub(super) const JOURNEYS: &str = "journeys";

pub(super) fn load_journey(file: &Path) -> Result<(String, Journey), EngineError> {
    let text = fs::read_to_string(file).map_err(io("read", file))?;
    let shown = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let id = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut journey = Journey::parse(&shown, &text).map_err(located)?;
    if journey.name.is_empty() {
        journey.name.clone_from(&id);
    }
    Ok((id, journey))
}

/// Files of a folder, in order of name; none where there is no folder.
pub(super) fn files_in(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut files: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io("list", dir)(e)),
    };
    files.sort();
    Ok(files)
}

fn located(error: WorkflowError) -> EngineError {
    let WorkflowError { file, line, message, hint, .. } = error;
    EngineError::Config(ConfigError { file, line, message, hint })
}

pub(super) fn load(file: &Path) -> Result<(String, Workflow), EngineError> {
    let text = fs::read_to_string(file).map_err(io("read", file))?;
    let shown = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let workflow = Workflow::parse(&format!("checks/{shown}"), &text).map_err(located)?;
    let id = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok((id, workflow))
}
