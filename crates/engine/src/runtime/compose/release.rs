//! Releases of a Compose stack: the model, its images pinned, its configuration files kept.

use super::ComposeRuntime;
use super::project::{self, base_files, dot_env, load, load_with, version_of};
use crate::docker::DockerError;
use crate::error::{EngineError, io};
use crate::home::{Home, TEMPORARY_PREFIX, create_dir, read_json, write_atomic, write_json};
use crate::runtime::Stage;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use switchback_core::compose::{Edit, Model, MountKind, set_version};
use switchback_core::config::Config;
use switchback_core::ids::{Digest, ServiceName};
use switchback_core::release::{FORMAT, ImageRef, MountSource, Release, ServiceRelease};

/// The model of a release, in its folder. It holds secrets: only the owner may read it.
const MODEL_FILE: &str = "model.json";
/// A folder of configuration with more than this is not taken into a release.
const CONFIG_BYTES: u64 = 16 << 20;

/// What a release is made from.
pub struct Parts {
    /// The model, without the lock file.
    pub model: Model,
    /// The image of each service.
    pub images: BTreeMap<ServiceName, ImageRef>,
}

/// The model that a release was made with.
pub fn kept_model(home: &Home, release: &Digest) -> Result<Model, EngineError> {
    read_json(&home.release_dir(release).join(MODEL_FILE))
}

/// Makes and keeps a release.
pub fn keep(home: &Home, config: &Config, parts: &Parts) -> Result<(Digest, Release), EngineError> {
    let resolved = project::effective(config, &parts.model)?;
    let mut services = BTreeMap::new();
    for service in parts.model.services() {
        let image = parts.images.get(service.name()).cloned();
        let mut definition = resolved.services.get(service.name()).cloned().unwrap_or_default();
        if let Some(image) = &image {
            definition.version = shown_version(image);
        }
        services.insert(service.name().clone(), ServiceRelease { artefact: None, image, definition });
    }
    let files = config_files(home, &parts.model)?;
    let mut digests = BTreeMap::new();
    for (relative, path) in &files {
        let content = fs::read(path).map_err(io("read", path))?;
        digests.insert(relative.clone(), Digest::of(&content));
    }
    let model = Some(parts.model.config_digest(&home.root().to_string_lossy()));
    let release = Release { format: FORMAT, services, config: digests, model };
    let id = release.id();
    write(home, &id, &release, &parts.model, &files)?;
    Ok((id, release))
}

/// Keeps a release of two: some services of the one before, everything else of the present one.
pub fn keep_mixed(
    home: &Home,
    model: &Model,
    now: (&Digest, &Release),
    before: (&Digest, &Release),
    names: &[ServiceName],
) -> Result<(Digest, Release), EngineError> {
    let mut mixed = now.1.with_services_of(before.1, names);
    mixed.model = Some(model.config_digest(&home.root().to_string_lossy()));
    mixed.config.clear();
    let mounts = model.mounts();
    let mut files = BTreeMap::new();
    for (source, relative) in config_binds(home, model) {
        let mounted = MountSource::Bind(source);
        let mut users = mounts.iter().filter(|m| m.source == mounted);
        // What both sorts of service have is the same in both.
        let of = if users.all(|m| names.contains(&m.service)) { before } else { now };
        for (file, digest) in of.1.config.iter().filter(|(f, _)| Path::new(f).starts_with(&relative)) {
            mixed.config.insert(file.clone(), digest.clone());
            files.insert(file.clone(), home.release_dir(of.0).join("config").join(file));
        }
    }
    let id = mixed.id();
    write(home, &id, &mixed, model, &files)?;
    Ok((id, mixed))
}

/// Puts a release into the store of releases.
fn write(
    home: &Home,
    id: &Digest,
    release: &Release,
    model: &Model,
    files: &BTreeMap<String, PathBuf>,
) -> Result<(), EngineError> {
    let dir = home.release_dir(id);
    for (relative, path) in files {
        let kept = dir.join("config").join(relative);
        if let Some(parent) = kept.parent() {
            create_dir(parent)?;
        }
        write_atomic(&kept, &fs::read(path).map_err(io("read", path))?)?;
        let mode = fs::metadata(path).map_err(io("look at", path))?.permissions();
        fs::set_permissions(&kept, mode).map_err(io("set the mode of", &kept))?;
    }
    create_dir(&dir)?;
    write_json(&dir.join(MODEL_FILE), model)?;
    write_json(&dir.join("release.json"), release)
}

/// The tag; where it says little (`latest`, none), with the image's id, so that a new image is seen as a new version.
fn shown_version(image: &ImageRef) -> String {
    let version = version_of(&image.reference);
    if matches!(version.as_str(), "latest" | "stable" | "main" | "edge" | "nightly") {
        let id = image.id.trim_start_matches("sha256:");
        return format!("{version}@{}", id.get(..12).unwrap_or(id));
    }
    version
}

/// Read-only bind mounts from inside the stack's folder: configuration that belongs to the release.
pub fn config_binds(home: &Home, model: &Model) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for mount in model.mounts().into_iter().filter(|m| m.read_only && m.kind == MountKind::Bind) {
        let MountSource::Bind(source) = &mount.source else { continue };
        let path = Path::new(source);
        let Ok(relative) = path.strip_prefix(home.root()) else { continue };
        let inside = path.canonicalize().is_ok_and(|real| real.starts_with(home.root()));
        // The whole folder would hold the state itself.
        if inside && !relative.as_os_str().is_empty() && !found.iter().any(|(s, _)| s == source) {
            found.push((source.clone(), relative.to_owned()));
        }
    }
    found
}

/// The files of the configuration: path relative to the stack, and where it lies.
pub fn config_files(home: &Home, model: &Model) -> Result<BTreeMap<String, PathBuf>, EngineError> {
    let mut files = BTreeMap::new();
    for (source, _) in config_binds(home, model) {
        let mut bytes = 0;
        for entry in walkdir::WalkDir::new(&source).follow_links(false) {
            let entry = entry.map_err(|e| EngineError::Io {
                doing: "read the configuration",
                path: PathBuf::from(&source),
                source: e.into(),
            })?;
            if !entry.file_type().is_file() {
                continue;
            }
            bytes += entry.metadata().map_or(0, |m| m.len());
            if bytes > CONFIG_BYTES {
                return Err(EngineError::refused(
                    format!(
                        "the read-only mount {source} holds more than 16 MiB: that is data, not configuration"
                    ),
                    "move it out of the stack's folder; read-only mounts from elsewhere are used as they are",
                ));
            }
            if let Ok(relative) = entry.path().strip_prefix(home.root()) {
                files.insert(relative.to_string_lossy().into_owned(), entry.path().to_owned());
            }
        }
    }
    Ok(files)
}

/// The edits of the user's files that give services other versions: file (relative to the stack) and new text.
pub fn edits(
    home: &Home,
    config: &Config,
    versions: &BTreeMap<ServiceName, String>,
) -> Result<BTreeMap<String, String>, EngineError> {
    let names = base_files(home, config)?;
    let mut files = Vec::new();
    for name in &names {
        let path = home.root().join(name);
        files.push((name.clone(), fs::read_to_string(&path).map_err(io("read", &path))?));
    }
    let mut env = dot_env(home)?;
    let mut changed = BTreeMap::new();
    for (service, version) in versions {
        let edit = set_version(&files, &env, service, version).map_err(|e| {
            EngineError::refused(e.to_string(), "write the version into the Compose file yourself")
        })?;
        match edit {
            Edit::Compose { file, text, .. } => {
                if let Some(entry) = files.iter_mut().find(|(name, _)| *name == file) {
                    entry.1.clone_from(&text);
                }
                changed.insert(file, text);
            }
            Edit::Env { text, .. } => {
                env.clone_from(&text);
                changed.insert(".env".to_owned(), text);
            }
        }
    }
    Ok(changed)
}

/// The model with other versions, without touching the user's files.
fn desired(
    runtime: &ComposeRuntime,
    home: &Home,
    config: &Config,
    versions: &BTreeMap<ServiceName, String>,
) -> Result<(Model, Vec<PathBuf>), EngineError> {
    let changed = if versions.is_empty() { BTreeMap::new() } else { edits(home, config, versions)? };
    if changed.is_empty() {
        return Ok((load(&runtime.cli, home, config)?, Vec::new()));
    }
    // Beside the originals, so that relative paths in `extends` and `include` still lead where they did.
    let beside = |name: &str| {
        let path = Path::new(name);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{TEMPORARY_PREFIX}{file}"))
    };
    let temporary: Vec<PathBuf> = changed.keys().map(|name| home.root().join(beside(name))).collect();
    home.remember_temporary(&temporary)?;
    let place = |name: &str, text: &str| -> Result<String, EngineError> {
        let beside = beside(name);
        write_atomic(&home.root().join(&beside), text.as_bytes())?;
        Ok(beside.to_string_lossy().into_owned())
    };
    let mut files = base_files(home, config)?;
    let mut env_file = None;
    for (name, text) in &changed {
        let beside = place(name, text)?;
        if name == ".env" {
            env_file = Some(home.root().join(&beside));
        } else if let Some(file) = files.iter_mut().find(|f| *f == name) {
            *file = beside;
        }
    }
    let model = load_with(&runtime.cli, home, config, &files, env_file.as_deref());
    match model {
        Ok(model) => Ok((model, temporary)),
        Err(e) => {
            remove_all(&temporary);
            Err(e)
        }
    }
}

/// What the Compose files describe with other versions: the model, and its images, built, found or pulled. Nothing is
/// kept of it.
pub fn wanted(
    runtime: &ComposeRuntime,
    home: &Home,
    config: &Config,
    versions: &BTreeMap<ServiceName, String>,
    stage: &Stage<'_>,
) -> Result<Parts, EngineError> {
    let (model, temporary) = desired(runtime, home, config, versions)?;
    let images = images(runtime, home, &model, stage);
    remove_all(&temporary);
    Ok(Parts { images: images?, model })
}

fn remove_all(files: &[PathBuf]) {
    for file in files {
        // A leftover is overwritten by the next run.
        let _ = fs::remove_file(file);
    }
}

/// The release that the Compose files describe: images built, found or pulled.
pub fn make(
    runtime: &ComposeRuntime,
    home: &Home,
    config: &Config,
    versions: &BTreeMap<ServiceName, String>,
    stage: &Stage<'_>,
) -> Result<(Digest, Release), EngineError> {
    keep(home, config, &wanted(runtime, home, config, versions, stage)?)
}

/// The image of each service: what the engine has under its name; built or pulled where it has none.
pub fn images(
    runtime: &ComposeRuntime,
    home: &Home,
    model: &Model,
    stage: &Stage<'_>,
) -> Result<BTreeMap<ServiceName, ImageRef>, EngineError> {
    let mut found = BTreeMap::new();
    for service in model.services() {
        let name = service.name();
        let reference = service.image().map_or_else(|| format!("{}-{name}", model.project()), str::to_owned);
        let mut image = runtime.docker.image(&reference)?;
        if image.is_none() && service.has_build() {
            (stage.say)(&format!("building {reference}"));
            runtime.build(home, model, name, stage)?;
            image = runtime.docker.image(&reference)?;
        } else if image.is_none() {
            (stage.say)(&format!("pulling {reference}"));
            runtime.pull(&reference, stage).map_err(|e| not_there(name, &reference, e))?;
            image = runtime.docker.image(&reference)?;
        }
        let Some(image) = image else {
            return Err(EngineError::refused(
                format!("the image {reference} of {name} is not there"),
                "check its name and tag in the Compose file",
            ));
        };
        found.insert(name.clone(), image_ref(&reference, &image));
    }
    Ok(found)
}

/// A registry that does not deliver is mostly a version that does not exist; only the user can tell.
fn not_there(name: &ServiceName, reference: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Docker(e @ (DockerError::PullFailed { .. } | DockerError::ImageMissing { .. })) => {
            EngineError::refused(
                format!("the image {reference} of {name} is not on the engine and could not be pulled: {e}"),
                "check its name and version; an image that was built or loaded by hand is taken as it is",
            )
        }
        other => other,
    }
}

/// An image as a release names it.
pub fn image_ref(reference: &str, image: &crate::docker::Image) -> ImageRef {
    let repository =
        switchback_core::compose::ImageName::parse(reference).map(|n| n.repository).unwrap_or_default();
    let digest =
        image.repo_digests.iter().find(|d| d.split('@').next() == Some(repository.as_str())).cloned();
    ImageRef { reference: reference.to_owned(), id: image.id.clone(), digest }
}
