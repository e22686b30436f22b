//! Which images have newer versions.

use super::upgrade::{open, planning};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use switchback_core::ids::ServiceName;
use switchback_core::tags::Level;
use switchback_engine::outdated::{Known, look};
use switchback_engine::world::World;

/// Options of outdated.
#[derive(Debug, Clone, Args)]
pub struct OutdatedArgs {
    /// Only these services, also if their images were built or loaded here
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Asks the registries of the services' images.
pub fn outdated(global: &Global, args: &OutdatedArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut only = BTreeSet::new();
    for name in &args.services {
        let Some((service, _)) = config.services.get_key_value(name.as_str()) else {
            let known: Vec<&str> = config.services.keys().map(ServiceName::as_str).collect();
            return Err(Trouble::usage(
                format!("there is no service {name:?}"),
                format!("services: {}", known.join(", ")),
            ));
        };
        only.insert(service.clone());
    }
    let world = World::open(&config)?;
    let found = planning(global, |stage| look(&home, &config, &world, &only, stage))?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "services": found }))?;
    } else if found.is_empty() {
        out.line("No service has an image, so there is no registry to ask.")?;
    } else {
        out.text(&text(&found))?;
    }
    let unknown = found.iter().any(|k| k.problem.is_some());
    Ok(if unknown { Exit::Inconclusive } else { Exit::Done })
}

fn text(found: &[Known]) -> String {
    let width = |of: &dyn Fn(&Known) -> usize| found.iter().map(of).max().unwrap_or(0);
    let (names, tags) = (width(&|k| k.service.as_str().len()), width(&|k| k.tag.len()));
    let mut text = String::new();
    for known in found {
        let said = match (&known.problem, &known.left_out) {
            (Some(why), _) => format!("NOT KNOWN: {why}"),
            (None, Some(why)) => format!("not asked: {why}"),
            (None, None) if known.newer.is_empty() => "nothing newer".to_owned(),
            (None, None) => {
                let newer = known.newer.iter().rev();
                let list: Vec<String> =
                    newer.map(|(level, tag)| format!("{tag} ({})", level.as_str())).collect();
                list.join("  ")
            }
        };
        let _ = writeln!(text, "  {:<names$}  {:<tags$}  {said}", known.service.as_str(), known.tag);
    }
    // The smallest step first: it is the one that rarely breaks anything.
    let first = found.iter().filter_map(|k| Some((k, k.newer.first_key_value()?)));
    if let Some((known, (_, tag))) = first.min_by_key(|(_, (level, _))| *level as &Level) {
        let _ = writeln!(text, "\n  Try one:  switchback rehearse {}={tag}", known.service);
    }
    text
}
