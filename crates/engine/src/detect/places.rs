//! Which of the paths that a service uses are its release, its data, its configuration.

use super::describe::FoundStore;
use super::scan::{Installed, is_sqlite};
use super::substitute::{Mention, escape, normal};
use super::words::{is_manager, name_from, version_of};
use rustix::fs::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use switchback_core::data::StoreKind;

/// A release that was recognised by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundRelease {
    /// Path with `{version}`, relative to the stack where it lies in it.
    pub template: String,
    /// The version.
    pub version: String,
    /// Absolute path.
    pub path: PathBuf,
}

/// Finds the release among the paths that a command names: the first component that is a version.
pub(super) fn release_among(root: &Path, paths: &[PathBuf], wanted: Option<&str>) -> Option<FoundRelease> {
    let candidates: Vec<(bool, FoundRelease)> =
        paths.iter().filter_map(|path| release_of(root, path, wanted)).collect();
    // A folder that is a version and nothing else is a surer sign than `name-1.2.3`.
    let exact = candidates.iter().find(|(exact, _)| *exact).or(candidates.first());
    exact.map(|(_, found)| found.clone())
}

fn release_of(root: &Path, path: &Path, wanted: Option<&str>) -> Option<(bool, FoundRelease)> {
    let parts: Vec<&str> = path
        .components()
        .filter_map(|c| if let Component::Normal(name) = c { name.to_str() } else { None })
        .collect();
    if wanted.is_none() && parts.iter().any(|p| is_manager(p)) {
        return None;
    }
    let mut before = "";
    for (index, part) in parts.iter().enumerate() {
        let found = match wanted {
            Some(version) => part
                .strip_suffix(version)
                .filter(|p| p.is_empty() || p.ends_with(['-', '_', 'v']))
                .map(|p| (p, version)),
            None => version_of(before, part),
        };
        if let Some((prefix, version)) = found {
            let parent: PathBuf = Path::new("/").join(parts.iter().take(index).collect::<PathBuf>());
            let shown = relative_to(root, &parent);
            let slash = if shown.is_empty() || shown.ends_with('/') { "" } else { "/" };
            let template = format!("{}{slash}{}{{version}}", escape(&shown), escape(prefix));
            let path = parent.join(part);
            let exact = matches!(prefix, "" | "v");
            return Some((exact, FoundRelease { template, version: version.to_owned(), path }));
        }
        before = part;
    }
    None
}

/// The release that a template names, with the version that the paths show or that is wanted.
pub(super) fn release_by_template(
    root: &Path,
    template: &str,
    paths: &[PathBuf],
    wanted: Option<&str>,
) -> Option<FoundRelease> {
    let (before, after) = template.split_once("{version}")?;
    let plain = |text: &str| text.replace("{{", "{").replace("}}", "}");
    let start = root.join(plain(before));
    let start = start.to_string_lossy().into_owned();
    let seen = || {
        paths.iter().find_map(|path| {
            let rest = path.to_str()?.strip_prefix(&start)?;
            let after = plain(after);
            let end = if after.is_empty() { rest.find('/') } else { rest.find(&after) };
            rest.get(..end.unwrap_or(rest.len()))
                .filter(|v| !v.is_empty() && !v.contains('/'))
                .map(str::to_owned)
        })
    };
    let version = wanted.map(str::to_owned).or_else(seen)?;
    let path = normal(Path::new(&format!("{start}{version}{}", plain(after))));
    Some(FoundRelease { template: template.to_owned(), version, path })
}

/// The version of an installation that can only be one.
pub(super) fn only_version(installed: &Installed) -> Option<String> {
    installed.current.clone().or_else(|| match installed.versions.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    })
}

/// A path as `switchback.yaml` names it: relative to the stack where it lies in it.
pub(super) fn relative_to(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// What a path that a command names most likely is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Data,
    /// Code and static files: the same for production and staging.
    Fixed,
    /// Written, but nobody would miss it: logs, process ids, locks, sockets.
    Traces,
}

/// Folders of the system; what lies directly in them is never a stack's data.
const SYSTEM: [&str; 12] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/boot", "/run", "/snap"];

/// Variables that name folders with code, whatever these are called.
const CODE_VARIABLES: [&str; 13] = [
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "NODE_PATH",
    "CLASSPATH",
    "JAVA_HOME",
    "GEM_PATH",
    "GEM_HOME",
    "RUBYLIB",
    "PERL5LIB",
    "GOPATH",
];

/// Decides by name (whole words, but for data, where a slip would be dangerous), place and whether the service could write there.
pub(super) fn role(mention: &Mention, root: &Path, base: &Path) -> Role {
    let path = &mention.path;
    let contains_stack = root.starts_with(path) || base.starts_with(path);
    let home = std::env::var_os("HOME").is_some_and(|h| Path::new(&h) == path);
    let managed = path.components().any(|c| c.as_os_str().to_str().is_some_and(is_manager));
    if managed || CODE_VARIABLES.contains(&mention.key.as_str()) {
        return Role::Fixed;
    }
    let top = path.components().count() <= 2; // `/srv`, `/tmp`
    if contains_stack || home || top || SYSTEM.iter().any(|s| path.starts_with(s)) {
        return Role::Fixed;
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let text = format!("{name} {}", mention.key).to_ascii_lowercase();
    let word = |list: &[&str]| {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|w| list.contains(&w) || w.strip_suffix('s').is_some_and(|w| list.contains(&w)))
    };
    let traces = ["log", "logfile", "logdir", "pid", "pidfile", "sock", "socket", "lock", "lockfile"];
    if is_trace(path) || word(&traces) {
        return Role::Traces;
    }
    let data = ["data", "upload", "media", "storage", "store", "attach", "blob", "spool", "state", "db"];
    let fixed = [
        "static", "web", "public", "template", "plugin", "theme", "asset", "lib", "bin", "src", "module",
        "cert", "ssl", "locale", "frontend", "dist", "build", "script", "config", "conf", "app", "venv",
        "release",
    ];
    let sure = data.iter().any(|w| text.contains(w));
    // An unknown option of the service most likely names its data; an unknown variable may be anybody's.
    if !sure && (word(&fixed) || !mention.key.starts_with('-')) {
        return Role::Fixed;
    }
    if rustix::fs::access(path, Access::WRITE_OK).is_ok() { Role::Data } else { Role::Fixed }
}

/// A file that a service writes and nobody keeps.
pub(super) fn is_trace(path: &Path) -> bool {
    let ends = path
        .extension()
        .is_some_and(|e| ["log", "pid", "lock", "sock", "tmp", "out", "err"].iter().any(|t| e == *t));
    let folder = path.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    let inside = matches!(folder, Some("log" | "logs" | "tmp" | "cache" | ".cache"));
    ends || (inside && path.is_file())
}

/// Whether a file that a command names is a configuration file: by its option, or by its name.
pub(super) fn is_config(mention: &Mention) -> bool {
    let file = std::fs::metadata(&mention.path);
    // A megabyte: configuration is written by people.
    if !file.is_ok_and(|m| m.is_file() && m.len() < 1 << 20) || is_sqlite(&mention.path) {
        return false;
    }
    let key = mention.key.trim_start_matches('-').to_ascii_lowercase();
    let asked =
        matches!(key.as_str(), "c" | "f") || ["config", "conf", "settings"].iter().any(|w| key.contains(w));
    let named = mention.path.extension().is_some_and(|e| {
        ["yaml", "yml", "toml", "json", "ini", "conf", "cfg", "properties", "xml"].iter().any(|x| e == *x)
    });
    asked || named
}

/// Stores that do not overlap: a folder that is given to the service swallows the databases in it.
pub(super) fn settle(stores: Vec<(StoreKind, PathBuf, bool)>) -> (Vec<(StoreKind, PathBuf)>, Vec<String>) {
    let mut warnings = Vec::new();
    let mut kept: Vec<(StoreKind, PathBuf, bool)> = Vec::new();
    for (kind, path, given) in stores {
        if kept.iter().any(|(_, p, _)| *p == path) {
            continue;
        }
        if let Some((_, over, _)) = kept.iter().find(|(_, p, _)| path.starts_with(p)) {
            if kind == StoreKind::Sqlite {
                warnings.push(format!(
                    "the database {} lies in {}, which is copied as files: a copy made while it is written may be torn. Give the database a folder of its own if the service can do that",
                    path.display(),
                    over.display()
                ));
            }
            continue;
        }
        let below: BTreeSet<PathBuf> =
            kept.iter().filter(|(_, p, _)| p.starts_with(&path)).map(|(_, p, _)| p.clone()).collect();
        // What was asked for stays; a guess gives way to it.
        if kept.iter().any(|(_, p, g)| below.contains(p) && *g) && !given {
            warnings.push(format!("{} holds another store and was left out", path.display()));
            continue;
        }
        kept.retain(|(_, p, _)| !below.contains(p));
        for gone in below.iter().filter(|p| is_sqlite(p)) {
            warnings.push(format!(
                "the database {} lies in {}, which the service is given as a whole, so it is copied as files: a copy made while it is written may be torn",
                gone.display(),
                path.display()
            ));
        }
        kept.push((kind, path, given));
    }
    (kept.into_iter().map(|(k, p, _)| (k, p)).collect(), warnings)
}

/// Gives stores their names: those that the command uses, else `db` for the only database, else by file.
pub(super) fn name_stores(
    root: &Path,
    stores: Vec<(StoreKind, PathBuf)>,
    given: &BTreeMap<PathBuf, String>,
    wanted: &BTreeSet<String>,
) -> Vec<FoundStore> {
    let databases = stores.iter().filter(|(k, _)| *k == StoreKind::Sqlite).count();
    let mut used: BTreeSet<String> = given.values().cloned().collect();
    let mut named: Vec<FoundStore> = Vec::new();
    let total = stores.len();
    for (kind, path) in stores {
        let stem = if kind == StoreKind::Sqlite { path.file_stem() } else { path.file_name() };
        let stem = name_from(&stem.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(), "data");
        let free: Vec<&String> = wanted.iter().filter(|w| !used.contains(*w)).collect();
        let only = match free.as_slice() {
            [one] if total == 1 || (kind == StoreKind::Sqlite) == one.contains("db") => Some((*one).clone()),
            _ => None,
        };
        let name = given.get(&path).cloned().unwrap_or_else(|| {
            let first = if wanted.contains(&stem) {
                stem.clone()
            } else if let Some(only) = only {
                only
            } else if kind == StoreKind::Sqlite && databases == 1 {
                "db".to_owned()
            } else {
                stem.clone()
            };
            let mut name = first.clone();
            let mut number = 2;
            while used.contains(&name) {
                name = format!("{}-{number}", first.chars().take(58).collect::<String>());
                number += 1;
            }
            name
        });
        used.insert(name.clone());
        named.push(FoundStore { name, kind, path: relative_to(root, &path), full: path });
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_version_in_a_path() {
        let root = Path::new("/srv/hub");
        let found = |path: &str| release_among(root, &[PathBuf::from(path)], None);
        let release = found("/srv/hub/venvs/3.1.1/bin/jupyterhub").expect("found");
        assert_eq!((release.template.as_str(), release.version.as_str()), ("venvs/{version}", "3.1.1"));
        assert_eq!(release.path, Path::new("/srv/hub/venvs/3.1.1"));
        assert_eq!(found("/opt/hub-v2.0/bin/hub").expect("found").template, "/opt/hub-v{version}");
        assert_eq!(found("/usr/lib/python3.12/x.py"), None);
        assert_eq!(found("/root/.pyenv/versions/3.11.7/bin/python3"), None);
        let by = release_by_template(root, "venvs/{version}", &["/srv/hub/venvs/next/bin/x".into()], None);
        assert_eq!(by.expect("found").version, "next");
    }

    #[test]
    fn stores_do_not_overlap_and_have_names_of_their_own() {
        let (files, sqlite) = (StoreKind::Files, StoreKind::Sqlite);
        let (kept, warnings) = settle(vec![
            (sqlite, "/s/data/a.db".into(), false),
            (files, "/s/data".into(), false),
            (files, "/s/data/x".into(), false),
            (sqlite, "/s/b.db".into(), false),
        ]);
        assert_eq!(kept, [(files, "/s/data".into()), (sqlite, "/s/b.db".into())]);
        assert!(warnings.is_empty(), "none of them exists: {warnings:?}");
        let names: Vec<String> = name_stores(Path::new("/s"), kept, &BTreeMap::new(), &BTreeSet::new())
            .into_iter()
            .map(|s| s.name)
            .collect();
        assert_eq!(names, ["data", "db"]);
        let two = vec![(sqlite, "/s/a/x.db".into()), (sqlite, "/s/b/x.db".into())];
        let names: Vec<String> = name_stores(Path::new("/s"), two, &BTreeMap::new(), &BTreeSet::new())
            .into_iter()
            .map(|s| s.name)
            .collect();
        assert_eq!(names, ["x", "x-2"]);
    }
}
