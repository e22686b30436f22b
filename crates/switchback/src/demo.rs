//! Stub.
use crate::cli::{Exit, Global, Trouble};
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {}
pub fn demo(_: &Global, _: &DemoArgs) -> Result<Exit, Trouble> {
    Ok(Exit::Done)
}
