//! Writing versions into the user's files without touching anything else of them.

use super::{Context, Failed};
use crate::error::{EngineError, io};
use crate::home::write_atomic;
use std::collections::BTreeMap;
use std::fs;
use std::str::FromStr as _;
use switchback_core::config::Config;
use switchback_core::ids::ServiceName;
use switchback_core::journal::Output;

/// Replaces versions, where the file still says what it said before.
pub fn edit(
    context: &Context<'_>,
    from: &BTreeMap<ServiceName, String>,
    to: &BTreeMap<ServiceName, String>,
) -> Result<Output, Failed> {
    let runtime = &context.world.runtime;
    let mut output = Output::default();
    let mut wanted = BTreeMap::new();
    // Files that somebody is editing right now are left alone, and that is said.
    let Some(desired) = runtime.desired(context.home, context.config)? else {
        output.notes.push("the configuration has mistakes in it just now and was left alone".to_owned());
        return Ok(output);
    };
    for (name, version) in to {
        let now = desired.get(name);
        if now == from.get(name) {
            wanted.insert(name.clone(), version.clone());
        } else if now != Some(version) {
            output.notes.push(format!("the version of {name} was changed meanwhile and is left alone"));
        }
    }
    context.midway();
    if wanted.is_empty() {
        return Ok(output);
    }
    for (file, text) in runtime.edits(context.home, context.config, &wanted)? {
        let path = context.home.root().join(&file);
        let mode = fs::metadata(&path).map(|m| m.permissions());
        write_atomic(&path, text.as_bytes())?;
        // The user's file stays as readable as it was.
        if let Ok(mode) = mode {
            fs::set_permissions(&path, mode).map_err(io("set the mode of", &path))?;
        }
        let names: Vec<String> = wanted.iter().map(|(n, v)| format!("{n} {v}")).collect();
        output.notes.push(format!("{file}: {}", names.join(", ")));
    }
    Ok(output)
}

/// Replaces `services.NAME.version` in the text; comments and layout stay as they are.
pub fn edit_versions(text: &str, versions: &BTreeMap<ServiceName, String>) -> Result<String, EngineError> {
    let cannot =
        |detail: String| EngineError::Internal { detail: format!("cannot edit switchback.yaml: {detail}") };
    let file = yaml_edit::YamlFile::from_str(text).map_err(|e| cannot(e.to_string()))?;
    let document = file.documents().next().ok_or_else(|| cannot("it is empty".to_owned()))?;
    let services = document
        .as_mapping()
        .and_then(|m| m.get_mapping("services"))
        .ok_or_else(|| cannot("no services".to_owned()))?;
    for (name, version) in versions {
        let service =
            services.get_mapping(name.as_str()).ok_or_else(|| cannot(format!("no services.{name}")))?;
        service.set("version", version.as_str());
    }
    let edited = file.to_string();
    // Trust, but read it back: the result must say exactly what was wanted.
    let parsed = Config::parse(&edited, "switchback.yaml")?;
    for (name, version) in versions {
        if parsed.services.get(name).map(|s| &s.version) != Some(version) {
            return Err(cannot(format!("services.{name}.version did not take")));
        }
    }
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_changes() {
        let text = "# my stack\nstack: s  # name\nservices:\n  app: # the app\n    version: 1.0.0   # pinned\n    command: [x, '{port.http}']\n\n    ports: { http: 80 }\n    health: { tcp: http }\n";
        let name = ServiceName::new("app").expect("valid");
        let edited = edit_versions(text, &BTreeMap::from([(name, "2.0.0".to_owned())])).expect("edits");
        assert_eq!(edited, text.replace("1.0.0", "2.0.0"));
    }

    #[test]
    fn flow_style_and_numeric_versions_survive() {
        let text = "stack: s\nservices: {app: {version: \"1\", command: [x, '{port.http}'], ports: {http: 80}, health: {tcp: http}}}\n";
        let name = ServiceName::new("app").expect("valid");
        let edited = edit_versions(text, &BTreeMap::from([(name, "2.0".to_owned())])).expect("edits");
        assert_eq!(Config::parse(&edited, "f").expect("valid").services["app"].version, "2.0");
    }
}
