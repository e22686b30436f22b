//! Stub.
use super::{Exit, Global, Trouble};
#[derive(Debug, Clone, clap::Args)]
pub struct InitArgs {}
pub fn init(_: &Global, _: &InitArgs) -> Result<Exit, Trouble> {
    Ok(Exit::Done)
}
