//! Starting an instance's containers, and what they need before.

use super::{ComposeRuntime, UP, containers, health, isolation, logs};
use crate::docker::compose::UpOptions;
use crate::error::EngineError;
use crate::ops::Failed;
use crate::runtime::{Placement, Stage};
use std::time::Instant;
use switchback_core::duration::human_ms;
use switchback_core::ids::ServiceName;
use switchback_core::journal::Output;

impl ComposeRuntime {
    pub(super) fn start_containers(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<Output, Failed> {
        self.bring_up(at, &UpOptions::default(), stage)
    }

    /// Starts some services; Compose is told to leave the others alone, whatever it thinks of them.
    pub(super) fn start_some(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, Failed> {
        let some = at.release.only(names);
        let services = names.iter().map(|n| n.as_str().to_owned()).collect();
        let options = UpOptions { services, no_deps: true, ..UpOptions::default() };
        self.bring_up(&Placement { release: &some, ..*at }, &options, stage)
    }

    fn bring_up(&self, at: &Placement<'_>, options: &UpOptions, stage: &Stage<'_>) -> Result<Output, Failed> {
        let mut output = Output::default();
        let services = at.services();
        let began = Instant::now();
        if containers::differences(&self.docker, at)?.1.is_empty() {
            output.notes.push("its containers run already".to_owned());
            (stage.midway)();
        } else {
            containers::unpause(self, at)?;
            (stage.say)("starting the containers");
            let options = UpOptions { limit: UP, ..options.clone() };
            (stage.midway)();
            if let Err(e) = self.cli.up(&Self::model_file(at)?, &options, stage.cancelled) {
                let mut error = EngineError::from(e).to_step_error();
                error.details.extend(self.ended(at));
                return Err(Failed { error, output: Box::new(output) });
            }
        }
        let times = health::wait(self, at, &services, began, stage)
            .map_err(|error| Failed { error, output: Box::new(output.clone()) })?;
        for (name, times) in times {
            output.notes.push(format!(
                "{name} {}: healthy after {}",
                services[&name].version,
                human_ms(times.healthy_after_ms.unwrap_or(0))
            ));
            output.services.insert(name, times);
        }
        Ok(output)
    }

    /// What those services said last that ended although they should run: Compose names them at best.
    fn ended(&self, at: &Placement<'_>) -> Vec<String> {
        let Ok(jobs) = containers::jobs(at) else { return Vec::new() };
        let ended = |name: &&ServiceName| {
            let found = containers::container_of(&self.docker, at.instance, name).ok().flatten();
            found.is_some_and(|c| !c.state.running && c.state.exit_code != 0) && !jobs.contains(*name)
        };
        let said = |name: &ServiceName| {
            let lines = logs::last(self, at, name, 6).into_iter();
            lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        };
        at.release.services.keys().filter(ended).flat_map(said).collect()
    }

    /// Makes what a staging environment's containers need before they start.
    pub(super) fn ready(&self, at: &Placement<'_>, stage: &Stage<'_>) -> Result<(), EngineError> {
        if at.instance.is_production() { Ok(()) } else { isolation::ensure(&self.docker, at, stage) }
    }
}
