//! Commands that are run once in a container of a service, such as migrations.
//!
//! Owns that nothing of them stays but a redacted log.

use super::super::{Container, Docker, DockerError};
use super::output::keep_log;
use super::{ComposeCli, ModelFile, PrivateDir, service_name, stream};
use crate::exec::{self, Output, Sink};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A command that is run once in a service's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneShot {
    /// The service.
    pub service: String,
    /// Instead of the service's entrypoint.
    pub entrypoint: Option<String>,
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// Name of the container; one that a killed run left is replaced.
    pub container: String,
    /// Labels of the container, besides those of the service.
    pub labels: Vec<(String, String)>,
    /// File that gets the output, redacted.
    pub log: PathBuf,
    /// Limit on the whole call.
    pub limit: Duration,
}

impl ComposeCli {
    /// Runs a command once in a container of a service, without its dependencies, ports or a terminal. Its output
    /// goes to the log, redacted, of which the end is kept. The container is gone afterwards, also after an error.
    pub fn run(
        &self,
        docker: &Docker,
        model: &ModelFile,
        shot: &OneShot,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Output, DockerError> {
        let container = super::super::name::object("container", &shot.container)?;
        let folder = PrivateDir::create().map_err(stream("make a temporary folder"))?;
        let raw = folder.path.join("output");
        // Of a run that was killed: the name would be taken.
        remove_leftover(docker, model, container)?;
        let mut arguments = self.of_model(model)?;
        arguments.extend(["run", "--rm", "--no-deps", "-T", "--name", container].map(OsString::from));
        arguments.extend(shot.labels.iter().map(|(n, v)| format!("--label={n}={v}").into()));
        if let Some(entrypoint) = &shot.entrypoint {
            arguments.push(format!("--entrypoint={entrypoint}").into());
        }
        arguments.push(service_name(&shot.service)?.into());
        arguments.extend(shot.argv.iter().map(OsString::from));
        let mut exec = self.exec(arguments, shot.limit);
        exec.sink = Sink::File(raw.clone());
        exec.cancel = Some(cancel);
        let ran = exec::run(&exec);
        // Compose that was killed cannot remove it.
        let removed = remove_leftover(docker, model, container);
        let tail =
            keep_log(&raw, &shot.log, &self.redactor).map_err(stream("write the log of a one-shot run"))?;
        let mut output = ran.map_err(|e| DockerError::ComposeFailed {
            command: "run",
            how: "it did not start".to_owned(),
            why: e.to_string(),
        })?;
        removed?;
        output.stdout_tail = tail;
        match output.end {
            exec::End::Cancelled => Err(DockerError::Cancelled),
            // Its own limit is not the engine's: the caller tells.
            _ => Ok(output),
        }
    }
}

/// Removes the container of a one-shot run of this project; with another of that name Compose says that it is taken.
fn remove_leftover(docker: &Docker, model: &ModelFile, container: &str) -> Result<(), DockerError> {
    let is = |c: &Container, n: &str, v: &str| c.labels.get(n).is_some_and(|l| l == v);
    let (project, one_off) = ("com.docker.compose.project", "com.docker.compose.oneoff");
    let own = docker.inspect(container)?.filter(|c| is(c, project, &model.project) && is(c, one_off, "True"));
    // With the volumes that its image declares: nobody else knows them.
    own.map_or(Ok(()), |c| docker.remove_with_scratch(&c.id))
}
