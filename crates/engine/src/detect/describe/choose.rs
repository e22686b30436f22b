//! Choosing the release, the stores and the configuration files among what was seen and said.

use super::super::DetectError;
use super::super::places::{
    FoundRelease, Role, is_config, is_trace, name_stores, only_version, release_among, release_by_template,
    role, settle,
};
use super::super::scan::is_sqlite;
use super::super::substitute::{Mention, normal};
use super::{Draft, FoundStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use switchback_core::data::StoreKind;
use switchback_core::ids::StoreName;

impl Draft<'_> {
    pub(super) fn release(
        &mut self,
        argv: Option<&[String]>,
        seen: &[Mention],
        used: &BTreeSet<String>,
    ) -> Result<Option<FoundRelease>, DetectError> {
        let wanted = self.wishes.version.as_deref();
        let paths: Vec<PathBuf> = seen.iter().map(|m| m.path.clone()).collect();
        let found = match &self.wishes.release {
            Some(template) => {
                let known = self.scan.installed.iter().find(|i| i.template == *template);
                let only = known.and_then(only_version);
                let by = release_by_template(self.root, template, &paths, wanted)
                    .or_else(|| release_by_template(self.root, template, &paths, only.as_deref()));
                match by {
                    Some(found) => Some(found),
                    None if !template.contains("{version}") => Some(FoundRelease {
                        template: template.clone(),
                        version: wanted.unwrap_or("1").to_owned(),
                        path: normal(&self.root.join(template)),
                    }),
                    None => return Err(self.which_version(template)),
                }
            }
            None => release_among(self.root, &paths, wanted),
        };
        if found.is_some() || self.running.is_some() {
            return Ok(found);
        }
        let needs = used.contains("release");
        let Some(installed) = self.scan.installed.first().cloned() else {
            return match needs {
                true => Err(DetectError::new(
                    "the command uses {release}, and no version folder was found",
                    "--release 'releases/{version}' says where a version lies",
                )),
                false => Ok(None),
            };
        };
        if argv.is_some() && !needs {
            return Ok(None);
        }
        let version = match wanted.map(str::to_owned).or_else(|| only_version(&installed)) {
            Some(version) => version,
            None if argv.is_some() => return Err(self.which_version(&installed.template)),
            None => {
                self.todo.insert("version");
                installed.versions.first().cloned().unwrap_or_default()
            }
        };
        Ok(release_by_template(self.root, &installed.template, &[], Some(&version)))
    }

    pub(super) fn which_version(&self, template: &str) -> DetectError {
        let installed = self.installed(template);
        let list = if installed.is_empty() {
            String::new()
        } else {
            format!(" (there are {})", installed.join(", "))
        };
        DetectError::new(
            format!("which version of {template} runs now?{list}"),
            "say it with --version VERSION",
        )
    }

    pub(super) fn installed(&self, template: &str) -> Vec<String> {
        let known = self.scan.installed.iter().find(|i| i.template == template);
        known.map(|i| i.versions.clone()).unwrap_or_default()
    }

    /// A path that was given on the command line, and the name given with it.
    fn given_path(&self, text: &str) -> (Option<String>, PathBuf) {
        if let Some((name, path)) = text.split_once('=')
            && StoreName::new(name).is_ok()
            && !self.root.join(text).exists()
        {
            return (Some(name.to_owned()), normal(&self.root.join(path)));
        }
        (None, normal(&self.root.join(text)))
    }

    pub(super) fn stores(
        &mut self,
        seen: &[Mention],
        release: Option<&FoundRelease>,
        used: &BTreeSet<String>,
    ) -> Result<Vec<FoundStore>, DetectError> {
        let mut names = BTreeMap::new();
        let mut all: Vec<(StoreKind, PathBuf, bool)> = Vec::new();
        for (kind, list) in [(StoreKind::Files, &self.wishes.files), (StoreKind::Sqlite, &self.wishes.sqlite)]
        {
            for text in list {
                let (name, path) = self.given_path(text);
                if path.is_file() && kind == StoreKind::Sqlite && !is_sqlite(&path) {
                    return Err(DetectError::new(
                        format!("{} is not an SQLite database", path.display()),
                        "name other data with --files",
                    ));
                }
                if !path.exists() {
                    self.warnings.push(format!("{} does not exist (yet)", path.display()));
                }
                names.extend(name.map(|n| (path.clone(), n)));
                all.push((kind, path, true));
            }
        }
        let in_release = |path: &Path| release.is_some_and(|r| path.starts_with(&r.path));
        if let Some(running) = self.running {
            // A database inside a release is reported later on; it is data wherever it lies.
            all.extend(running.databases.iter().map(|p| (StoreKind::Sqlite, p.clone(), false)));
        } else if self.wishes.command.is_none() && self.wishes.sqlite.is_empty() {
            all.extend(self.scan.databases.iter().map(|p| (StoreKind::Sqlite, self.root.join(p), false)));
        }
        for mention in seen.iter().filter(|m| !in_release(&m.path)) {
            if is_sqlite(&mention.path) {
                all.push((StoreKind::Sqlite, real(&mention.path), false));
            } else if mention.path.is_dir() && role(mention, self.root, &self.base) == Role::Data {
                all.push((StoreKind::Files, real(&mention.path), false));
            }
        }
        if let Some(running) = self.running {
            for file in running.written.iter().filter(|f| !is_trace(f) && !in_release(f) && self.is_own(f)) {
                all.push((StoreKind::Files, self.store_around(file, &all), false));
            }
        }
        if self.running.is_none() && all.is_empty() && used.iter().any(|u| u.starts_with("store.")) {
            // `{store.db}` without a path: the only database there is.
            all.extend(self.scan.databases.iter().map(|p| (StoreKind::Sqlite, self.root.join(p), false)));
        }
        // What was asked for by name is refused below; what was merely found is left alone.
        let (text, odd): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, path, given)| *given || path.to_str().is_some());
        for (_, path, _) in odd {
            self.warnings.push(format!("{} was left out: its name is not UTF-8", path.display()));
        }
        let (settled, warnings) = settle(text);
        self.warnings.extend(warnings);
        let wanted: BTreeSet<String> =
            used.iter().filter_map(|u| u.strip_prefix("store.").map(str::to_owned)).collect();
        let covered = |path: &Path| settled.iter().any(|(_, s)| path.starts_with(s));
        let missed: Vec<String> = self
            .scan
            .databases
            .iter()
            .filter(|d| !covered(&self.root.join(d)))
            .map(|d| d.to_string_lossy().into_owned())
            .collect();
        if !missed.is_empty() && self.running.is_none() {
            self.warnings.push(format!(
                "there are databases that the command does not name: {}. If they are data of this service, pass them as {{store.NAME}} and name them with --sqlite NAME=PATH",
                missed.join(", ")
            ));
        }
        let stores = name_stores(self.root, settled, &names, &wanted);
        let odd = stores.iter().find(|s| s.full.to_str().is_none());
        if let Some(odd) = odd {
            return Err(DetectError::new(
                format!("the name of {} is not UTF-8", odd.full.display()),
                "rename it: switchback.yaml is text",
            ));
        }
        if let Some(missing) = wanted.iter().find(|w| !stores.iter().any(|s| s.name == **w)) {
            return Err(DetectError::new(
                format!("the command uses {{store.{missing}}}, and there is no such store"),
                format!("--sqlite {missing}=PATH (a database) or --files {missing}=PATH says where it lies"),
            ));
        }
        Ok(stores)
    }

    /// Temporary and system files are nobody's data, unless the stack itself lies there.
    pub(super) fn is_own(&self, file: &Path) -> bool {
        let inside = file.starts_with(self.root) || file.starts_with(&self.base);
        inside
            || !["/tmp", "/var/tmp", "/dev", "/run", "/proc", "/sys", "/usr", "/etc"]
                .iter()
                .any(|s| file.starts_with(s))
    }

    /// The folder of a written file, or the file alone where the folder holds other things.
    fn store_around(&self, file: &Path, stores: &[(StoreKind, PathBuf, bool)]) -> PathBuf {
        let Some(folder) = file.parent() else { return file.to_owned() };
        let holds = |path: &Path| path.starts_with(folder);
        let home = std::env::var_os("HOME").is_some_and(|h| holds(Path::new(&h)));
        let shared = holds(self.root) || holds(&self.base) || home || folder.components().count() <= 2;
        let databases = stores.iter().any(|(k, p, _)| *k == StoreKind::Sqlite && holds(p));
        if shared || databases { file.to_owned() } else { folder.to_owned() }
    }

    pub(super) fn config(
        &mut self,
        seen: &[Mention],
        release: Option<&FoundRelease>,
        stores: &[FoundStore],
    ) -> Vec<String> {
        let mut config: Vec<String> = self.wishes.config.clone();
        for mention in seen.iter().filter(|m| is_config(m)) {
            let inside = release.is_some_and(|r| mention.path.starts_with(&r.path))
                || stores.iter().any(|s| mention.path.starts_with(&s.full));
            if inside {
                continue;
            }
            match mention.path.strip_prefix(self.root).ok().and_then(Path::to_str) {
                Some(relative) => config.push(relative.to_owned()),
                None => self.warnings.push(format!(
                    "the configuration file {} lies outside the stack's folder, so it does not come back with a rollback. Move it into the folder",
                    mention.path.display()
                )),
            }
        }
        config.sort();
        config.dedup();
        config
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
