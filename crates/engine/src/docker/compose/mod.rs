//! Docker Compose, as a program: it knows what Compose files mean, we do not.
//!
//! Owns every call of it. It must never pass on variables that change which files or project are meant, never
//! remove volumes, and never put a value of the user's environment into an argument.

mod oneshot;
mod output;

use super::private::PrivateDir;
use super::{Docker, DockerError};
use crate::exec::{self, Exec, Inherit, Leftovers, Output};
pub use oneshot::OneShot;
use output::failed;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use switchback_core::workflow::Redactor;

/// The oldest version that is used: it knows `!override`, which the lock file has where a volume is defined already.
const OLDEST: (u32, u32, u32) = (2, 24, 4);
/// Asking for the version starts one program.
const VERSION: Duration = Duration::from_secs(30);
/// Reading a project: Compose may fetch `include`d files.
const CONFIG: Duration = Duration::from_secs(120);
/// What Compose needs besides the time that containers take.
const AROUND: Duration = Duration::from_secs(120);
/// A model larger than this is no Compose project.
const LARGEST_MODEL: u64 = 64 << 20;

/// Variables that choose an engine.
const CHOOSES: [&str; 4] = ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

/// Docker Compose, found and new enough.
#[derive(Debug, Clone)]
pub struct ComposeCli {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    version: String,
    redactor: Redactor,
}

/// A project as its files describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectFiles {
    /// The project's folder.
    pub dir: PathBuf,
    /// Its Compose files, in order; empty for those that Compose finds by itself.
    pub files: Vec<PathBuf>,
    /// Its files of variables, in order; empty for `.env` in the folder, if there is one.
    pub env_files: Vec<PathBuf>,
    /// Active profiles.
    pub profiles: Vec<String>,
    /// Its name; `None` for the one that Compose gives it.
    pub project: Option<String>,
}

/// A resolved project in one file: what [`ComposeCli::config`] returned, changed as needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The file.
    pub path: PathBuf,
    /// The project's name.
    pub project: String,
    /// The folder that the project is recorded with.
    pub project_dir: PathBuf,
}

/// Which containers are made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// Those whose configuration or image changed.
    #[default]
    Changed,
    /// All.
    All,
    /// None.
    Nothing,
}

/// What to bring up, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// These services; empty means all.
    pub services: Vec<String>,
    /// Without the services that they depend on.
    pub no_deps: bool,
    /// Which containers are made again.
    pub recreate: Recreate,
    /// Grace for containers that are stopped on the way; `None` means their own.
    pub grace: Option<Duration>,
    /// Limit on the whole call: starting waits for `depends_on` conditions.
    pub limit: Duration,
}

/// Whether a variable of this process may change which project or files Compose means.
fn changes_meaning(name: &str) -> bool {
    name.starts_with("COMPOSE_")
}

fn passed_on() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !changes_meaning(&name.to_string_lossy())).collect()
}

/// Major, minor and patch of `v2.26.1-4`.
fn number(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.trim().trim_start_matches('v').split(['.', '-', '+']).map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// Where Docker looks for plugins.
fn plugins() -> Vec<PathBuf> {
    let own = super::endpoint::config_dir(&super::endpoint::variable).map(|dir| dir.join("cli-plugins"));
    let fixed = [
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ];
    own.into_iter().chain(fixed.map(PathBuf::from)).map(|dir| dir.join("docker-compose")).collect()
}

/// Checks the name of a project, as Compose does.
fn project_name(name: &str) -> Result<&str, DockerError> {
    let lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.bytes().next().is_some_and(lower)
        && name.bytes().all(|c| lower(c) || c == b'-' || c == b'_')
        && name.len() <= 128;
    if good { Ok(name) } else { Err(DockerError::BadName { kind: "project", name: name.to_owned() }) }
}

/// Checks the name of a service; one that begins with `-` would be an option.
fn service_name(name: &str) -> Result<&str, DockerError> {
    super::name::object("service", name)
}

impl ComposeCli {
    /// Finds Compose: the plugin of the `docker` command, the plugin without that command, or `docker-compose`. Looked for once by
    /// a process: asking for its version takes a sixth of a second.
    pub fn find() -> Result<Self, DockerError> {
        static FOUND: OnceLock<ComposeCli> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = Self::look()?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    fn look() -> Result<Self, DockerError> {
        let mut candidates = vec![vec![OsString::from("docker"), OsString::from("compose")]];
        candidates.extend(plugins().into_iter().filter(|p| p.is_file()).map(|p| vec![p.into_os_string()]));
        candidates.push(vec![OsString::from("docker-compose")]);
        Self::choose(candidates)
    }

    fn choose(candidates: Vec<Vec<OsString>>) -> Result<Self, DockerError> {
        let mut too_old = None;
        for argv in candidates {
            let mut cli = Self { argv, env: passed_on(), version: String::new(), redactor: Redactor::new() };
            let Some(version) = cli.ask_version() else { continue };
            match number(&version) {
                Some(found) if found >= OLDEST => {
                    cli.version = version;
                    return Ok(cli);
                }
                _ => too_old = too_old.or(Some(version)),
            }
        }
        Err(too_old.map_or(DockerError::ComposeMissing, |found| DockerError::ComposeTooOld { found }))
    }

    fn ask_version(&self) -> Option<String> {
        let output = exec::run(&self.exec(["version", "--short"], VERSION)).ok()?;
        let version = output.stdout_tail.trim().trim_start_matches('v').to_owned();
        (output.success() && version.len() < 64).then_some(version)
    }

    /// The same, with values that are hidden in its messages and logs.
    #[must_use]
    pub fn hiding(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// The same, for the engine that another connection leads to: what `ssh://` means is decided once.
    #[must_use]
    pub fn at(mut self, docker: &Docker) -> Self {
        if let Some(socket) = docker.forwarded_socket() {
            self.env.retain(|(name, _)| !CHOOSES.iter().any(|c| name == c));
            let mut host = OsString::from("unix://");
            host.push(socket);
            self.env.push((CHOOSES[0].into(), host));
        }
        self
    }

    /// `2.26.1-4`.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn exec<S: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Exec<'static> {
        let argv = self.argv.iter().cloned().chain(arguments.into_iter().map(Into::into));
        let mut exec = Exec::new(argv, limit);
        exec.inherit = Inherit::Nothing;
        exec.env = self.env.clone();
        exec.redactor = self.redactor.clone();
        exec.leftovers = Leftovers::Kill;
        exec
    }

    fn run_exec(&self, command: &'static str, exec: &Exec<'_>) -> Result<Output, DockerError> {
        let output = exec::run(exec).map_err(|e| DockerError::ComposeFailed {
            command,
            how: "it did not start".to_owned(),
            why: e.to_string(),
        })?;
        match output.end {
            exec::End::Code(0) => Ok(output),
            exec::End::Cancelled => Err(DockerError::Cancelled),
            _ => Err(failed(command, &output)),
        }
    }

    /// Resolves a project, as JSON. Variables of this process take part, as they do in `docker compose`; `$` is
    /// `$$` in the result, and services of inactive profiles are absent.
    pub fn config(&self, project: &ProjectFiles) -> Result<String, DockerError> {
        let folder = PrivateDir::create().map_err(stream("make a temporary folder"))?;
        let out = folder.path.join("model.json");
        let mut arguments: Vec<OsString> = vec!["--ansi".into(), "never".into()];
        let mut option = |name: &str, value: OsString| {
            let mut joined = OsString::from(name);
            joined.push("=");
            joined.push(value);
            arguments.push(joined);
        };
        option("--project-directory", project.dir.clone().into());
        for file in &project.files {
            option("--file", project.dir.join(file).into());
        }
        for file in &project.env_files {
            option("--env-file", project.dir.join(file).into());
        }
        for profile in &project.profiles {
            option("--profile", profile.into());
        }
        if let Some(name) = &project.project {
            option("--project-name", project_name(name)?.into());
        }
        arguments.extend(["config".into(), "--format=json".into(), "--output".into(), out.clone().into()]);
        let mut exec = self.exec(arguments, CONFIG);
        exec.cwd = Some(project.dir.clone());
        self.run_exec("config", &exec)?;
        let mut text = String::new();
        fs::File::open(&out)
            .and_then(|file| file.take(LARGEST_MODEL).read_to_string(&mut text))
            .map_err(stream("read what docker compose config wrote"))?;
        Ok(text)
    }

    /// The arguments that name a model; variables of files take no part any more.
    fn of_model(&self, model: &ModelFile) -> Result<Vec<OsString>, DockerError> {
        Ok(vec![
            "--ansi".into(),
            "never".into(),
            "--project-name".into(),
            project_name(&model.project)?.into(),
            "--project-directory".into(),
            model.project_dir.clone().into(),
            "--file".into(),
            model.path.clone().into(),
            "--env-file".into(),
            "/dev/null".into(),
            // The model holds what is active only; services keep the name of their profile.
            "--profile".into(),
            "*".into(),
        ])
    }

    fn services(arguments: &mut Vec<OsString>, services: &[String]) -> Result<(), DockerError> {
        for service in services {
            arguments.push(service_name(service)?.into());
        }
        Ok(())
    }

    fn on_model(
        &self,
        command: &'static str,
        arguments: Vec<OsString>,
        limit: Duration,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        let mut exec = self.exec(arguments, limit);
        exec.cancel = Some(cancel);
        self.run_exec(command, &exec).map(drop)
    }

    /// Makes and starts containers from images that are on the engine; never builds or pulls.
    pub fn up(
        &self,
        model: &ModelFile,
        options: &UpOptions,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        let mut arguments = self.of_model(model)?;
        arguments
            .extend(["up", "--detach", "--no-build", "--pull=never", "--quiet-pull"].map(OsString::from));
        made(&mut arguments, options);
        if let Some(grace) = options.grace {
            arguments.push(format!("--timeout={}", seconds(grace)).into());
        }
        Self::services(&mut arguments, &options.services)?;
        self.on_model("up", arguments, options.limit, cancel)
    }

    /// Makes containers without starting them; otherwise like [`Self::up`].
    pub fn create(
        &self,
        model: &ModelFile,
        options: &UpOptions,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        let mut arguments = self.of_model(model)?;
        arguments.extend(["create", "--no-build", "--pull=never"].map(OsString::from));
        // `create` has no option for dependencies: it only makes what is named.
        made(&mut arguments, &UpOptions { no_deps: false, ..options.clone() });
        Self::services(&mut arguments, &options.services)?;
        self.on_model("create", arguments, options.limit, cancel)
    }

    /// Builds the images of services from source, as their Compose file says.
    pub fn build(
        &self,
        model: &ModelFile,
        services: &[String],
        limit: Duration,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        let mut arguments = self.of_model(model)?;
        arguments.extend(["build", "--quiet"].map(OsString::from));
        Self::services(&mut arguments, services)?;
        self.on_model("build", arguments, limit, cancel)
    }

    /// Stops services in the order of their dependencies; empty means all. Containers stay.
    pub fn stop(
        &self,
        model: &ModelFile,
        services: &[String],
        grace: Option<Duration>,
        limit: Duration,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        let mut arguments = self.of_model(model)?;
        arguments.push("stop".into());
        if let Some(grace) = grace {
            arguments.push(format!("--timeout={}", seconds(grace)).into());
        }
        Self::services(&mut arguments, services)?;
        self.on_model("stop", arguments, limit, cancel)
    }

    /// Stops and removes all containers and networks of a project. Volumes stay, always.
    pub fn down(
        &self,
        project: &str,
        grace: Option<Duration>,
        limit: Duration,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), DockerError> {
        // In a folder of its own, Compose finds no files and works from labels.
        let folder = PrivateDir::create().map_err(stream("make a temporary folder"))?;
        let mut arguments: Vec<OsString> = ["--ansi", "never", "--project-name", project_name(project)?]
            .into_iter()
            .chain(["down", "--remove-orphans"])
            .map(OsString::from)
            .collect();
        if let Some(grace) = grace {
            arguments.push(format!("--timeout={}", seconds(grace)).into());
        }
        let mut exec = self.exec(arguments, limit.saturating_add(AROUND));
        exec.cwd = Some(folder.path.clone());
        exec.cancel = Some(cancel);
        self.run_exec("down", &exec).map(drop)
    }
}

/// Options of making containers.
fn made(arguments: &mut Vec<OsString>, options: &UpOptions) {
    if options.no_deps {
        arguments.push("--no-deps".into());
    }
    match options.recreate {
        Recreate::Changed => {}
        Recreate::All => arguments.push("--force-recreate".into()),
        Recreate::Nothing => arguments.push("--no-recreate".into()),
    }
}

fn seconds(grace: Duration) -> u128 {
    grace.as_millis().div_ceil(1000)
}

fn stream(doing: &'static str) -> impl FnOnce(io::Error) -> DockerError {
    move |source| DockerError::Stream { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_missing_versions_are_told_apart() {
        assert_eq!(number("2.26.1-4"), Some((2, 26, 1)));
        assert!(number("v2.24.3") < Some(OLDEST) && number("v2.24.4") == Some(OLDEST));
        assert_eq!(number("1.29.2"), Some((1, 29, 2)));
        assert_eq!(number("dev"), None);
        let dir = tempfile::tempdir().expect("folder");
        let fake = dir.path().join("old");
        fs::write(&fake, "#!/bin/sh\necho 1.29.2\n").expect("writes");
        fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        let none = vec![OsString::from("/nonexistent/docker-compose")];
        let error = ComposeCli::choose(vec![none.clone(), vec![fake.into()]]).expect_err("too old");
        assert!(matches!(&error, DockerError::ComposeTooOld { found } if found == "1.29.2"), "{error}");
        let error = ComposeCli::choose(vec![none]).expect_err("missing");
        assert!(matches!(error, DockerError::ComposeMissing), "{error}");
    }

    #[test]
    fn names_that_would_be_options_or_leave_the_project_are_refused() {
        for name in ["", "-p", "A", "a/b", "a b", "_a", "ä"] {
            assert!(project_name(name).is_err(), "{name:?}");
        }
        assert!(project_name("app-1_x").is_ok());
        for name in ["--volumes", "-v", "a b", ""] {
            assert!(service_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn variables_that_choose_files_or_projects_are_not_passed_on() {
        for name in ["COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES"] {
            assert!(changes_meaning(name), "{name}");
        }
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "PATH", "HOME"] {
            assert!(!changes_meaning(name), "{name}");
        }
    }
}
