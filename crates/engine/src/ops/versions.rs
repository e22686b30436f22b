//! Writing versions into `switchback.yaml` without touching anything else of it.

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
    let path = context.home.config_file();
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    let mut output = Output::default();
    let mut wanted = BTreeMap::new();
    // A file that somebody is editing right now is left alone, and that is said.
    let Ok(config) = Config::parse(&text, "switchback.yaml") else {
        output.notes.push("switchback.yaml has mistakes in it just now and was left alone".to_owned());
        return Ok(output);
    };
    for (name, version) in to {
        let now = config.services.get(name).map(|s| &s.version);
        if now == from.get(name) {
            wanted.insert(name.clone(), version.clone());
        } else if now != Some(version) {
            output.notes.push(format!("services.{name}.version was changed meanwhile and is left alone"));
        }
    }
    context.midway();
    if !wanted.is_empty() {
        let mode = fs::metadata(&path).map_err(io("look at", &path))?.permissions();
        write_atomic(&path, edit_versions(&text, &wanted)?.as_bytes())?;
        // The user's file stays as readable as it was.
        fs::set_permissions(&path, mode).map_err(io("set the mode of", &path))?;
        output.notes.extend(wanted.iter().map(|(n, v)| format!("services.{n}.version: {v}")));
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
