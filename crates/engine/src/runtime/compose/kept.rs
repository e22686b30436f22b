//! The second name of images that generations run, so that `docker image prune` leaves them.
//!
//! Owns the names `switchback-kept:STACK-IMAGE`. It must never take a name off an image that it did not give, or that another
//! stack gave.

use super::ComposeRuntime;
use crate::docker::DockerError;
use crate::error::EngineError;
use crate::home::Home;
use std::collections::BTreeSet;

/// The repository of the names.
pub const REPOSITORY: &str = "switchback-kept";

/// The tag of an image (its id) for a stack. Tags take capitals, but nothing else here has them.
pub fn tag(stack: &str, id: &str) -> String {
    let short = id.trim_start_matches("sha256:");
    format!("{}-{}", stack.to_lowercase(), short.get(..16).unwrap_or(short))
}

/// Names an image of a generation.
pub(super) fn keep(runtime: &ComposeRuntime, home: &Home, id: &str) -> Result<(), EngineError> {
    let tag = tag(&home.id()?, id);
    if runtime.docker.image(&format!("{REPOSITORY}:{tag}"))?.is_none() {
        runtime.docker.tag(id, REPOSITORY, &tag)?;
    }
    Ok(())
}

/// Takes the names off this stack's images that no release uses; how many. An image that loses its last name this way and has no
/// container is removed with it.
pub(super) fn release(
    runtime: &ComposeRuntime,
    home: &Home,
    used: &BTreeSet<String>,
) -> Result<usize, EngineError> {
    let stack = home.id()?;
    let own = format!("{REPOSITORY}:{}", tag(&stack, ""));
    let wanted: BTreeSet<String> =
        used.iter().map(|id| format!("{REPOSITORY}:{}", tag(&stack, id))).collect();
    let mut released = 0;
    for name in runtime.docker.image_names(REPOSITORY)? {
        if !name.starts_with(&own) || wanted.contains(&name) {
            continue;
        }
        match runtime.docker.untag(&name) {
            Ok(()) => released += 1,
            // A container still has it, and it has no other name.
            Err(DockerError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_stacks_apart_and_are_valid_tags() {
        let id = "sha256:0123456789abcdef0123";
        assert_eq!(tag("01AB", id), "01ab-0123456789abcdef");
        assert!(tag("01AB", id).starts_with(&tag("01AB", "")));
        assert!(!tag("01ABC", id).starts_with(&tag("01AB", "")));
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(tag("01AB", id).chars().all(valid));
    }
}
