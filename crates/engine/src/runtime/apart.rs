//! Single services of an instance: stopping and starting them while the others go on, and what they have to do with each other.

use super::{Placement, Stage};
use crate::error::EngineError;
use crate::home::Home;
use crate::ops::Failed;
use switchback_core::ids::{Digest, ServiceName};
use switchback_core::journal::Output;
use switchback_core::plan::Uses;
use switchback_core::release::{Instance, Release};

/// What a runtime does with services apart from each other.
pub trait Apart {
    /// Starts some services and waits until each is healthy and stable; the others are left alone.
    fn start_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, Failed>;

    /// Stops some services; the others are left alone.
    fn stop_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError>;

    /// What runs of some services of an instance, or has one of the instance's stores open, in words.
    fn running_of(
        &self,
        home: &Home,
        instance: &Instance,
        names: &[ServiceName],
    ) -> Result<Vec<String>, EngineError>;

    /// Makes and stores the release that has some services as they were in an earlier one, and all else as in this one. Refuses
    /// where these cannot be together.
    fn mixed(
        &self,
        home: &Home,
        now: (&Digest, &Release),
        before: (&Digest, &Release),
        names: &[ServiceName],
    ) -> Result<(Digest, Release), EngineError>;

    /// What the services of an instance use, as far as it is written down.
    fn uses(&self, home: &Home, instance: &Instance, release: &Release) -> Result<Uses, EngineError>;

    /// Why what is written to a copy of an instance could come from elsewhere, although its ports are not production's; empty if it
    /// cannot.
    fn open_ways(&self, at: &Placement<'_>) -> Result<Vec<String>, EngineError>;
}
