//! Single services as local processes.

use super::{ProcessRuntime, service_members};
use crate::error::{EngineError, io};
use crate::home::{Home, create_dir, write_atomic, write_json};
use crate::ops::Failed;
use crate::runtime::{Apart, Placement, Runtime as _, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use switchback_core::config::Service;
use switchback_core::config::template::{Placeholder, expand};
use switchback_core::ids::{Digest, ServiceName};
use switchback_core::journal::Output;
use switchback_core::plan::Uses;
use switchback_core::release::{Instance, Release};

impl Apart for ProcessRuntime {
    fn start_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, Failed> {
        let some = at.release.only(names);
        self.start(&Placement { release: &some, ..*at }, stage)
    }

    fn stop_services(
        &self,
        at: &Placement<'_>,
        names: &[ServiceName],
        stage: &Stage<'_>,
    ) -> Result<Output, EngineError> {
        let some = at.release.only(names);
        self.stop(&Placement { release: &some, ..*at }, stage)
    }

    fn running_of(
        &self,
        home: &Home,
        instance: &Instance,
        names: &[ServiceName],
    ) -> Result<Vec<String>, EngineError> {
        let mut found = Vec::new();
        for name in names {
            let members = service_members(home, instance, name)?;
            found.extend(members.iter().map(|p| format!("process {} of {name}", p.pid)));
        }
        Ok(found)
    }

    fn mixed(
        &self,
        home: &Home,
        now: (&Digest, &Release),
        before: (&Digest, &Release),
        names: &[ServiceName],
    ) -> Result<(Digest, Release), EngineError> {
        let mut mixed = now.1.with_services_of(before.1, names);
        // Each service's own files; one that both sorts of service have is the same in both releases.
        let mut from = BTreeMap::new();
        for (name, service) in &mixed.services {
            let source = if names.contains(name) { before } else { now };
            for file in files(&service.definition) {
                if let Some(digest) = source.1.config.get(file) {
                    from.insert(file.clone(), (digest.clone(), source.0));
                }
            }
        }
        mixed.config = from.iter().map(|(file, (digest, _))| (file.clone(), digest.clone())).collect();
        let id = mixed.id();
        let dir = home.release_dir(&id);
        create_dir(&dir)?;
        for (file, (_, source)) in &from {
            let kept = home.release_dir(source).join("config").join(file);
            let path = dir.join("config").join(file);
            if let Some(parent) = path.parent() {
                create_dir(parent)?;
            }
            write_atomic(&path, &fs::read(&kept).map_err(io("read", &kept))?)?;
            let mode = fs::metadata(&kept).map_err(io("look at", &kept))?.permissions();
            fs::set_permissions(&path, mode).map_err(io("set the mode of", &path))?;
        }
        write_json(&dir.join("release.json"), &mixed)?;
        Ok((id, mixed))
    }

    fn uses(&self, _: &Home, instance: &Instance, release: &Release) -> Result<Uses, EngineError> {
        Ok(uses(instance, release))
    }

    fn open_ways(&self, _: &Placement<'_>) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new()) // a service that does not take the port it is given is not healthy on it
    }
}

fn files(service: &Service) -> impl Iterator<Item = &String> {
    service.config.iter().chain(&service.env_file)
}

/// Calls with every text of a value.
fn texts(value: &serde_json::Value, say: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => say(text),
        serde_json::Value::Array(all) => all.iter().for_each(|v| texts(v, say)),
        serde_json::Value::Object(all) => all.values().for_each(|v| texts(v, say)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn uses(instance: &Instance, release: &Release) -> Uses {
    let mut found = Uses::default();
    for (name, service) in &release.services {
        let definition = &service.definition;
        let mut stores = BTreeSet::new();
        let mut needs = BTreeMap::new();
        for needed in &definition.needs {
            needs.insert(needed.clone(), "`needs` names it".to_owned());
        }
        texts(&serde_json::to_value(definition).unwrap_or_default(), &mut |text| {
            let _ = expand(text, |placeholder| {
                match placeholder {
                    Placeholder::Store(store) => {
                        stores.extend(instance.stores.keys().find(|s| s.as_str() == *store).cloned());
                    }
                    Placeholder::PortOf(other, port) => {
                        if let Ok(other) = ServiceName::new(*other) {
                            needs.entry(other.clone()).or_insert(format!("it uses {{port.{other}.{port}}}"));
                        }
                    }
                    _ => {}
                }
                Some(String::new())
            });
        });
        found.stores.insert(name.clone(), stores);
        found.needs.insert(name.clone(), needs);
        found.files.insert(name.clone(), files(definition).cloned().collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::{configured_stores, release};
    use switchback_core::config::Config;

    #[test]
    fn what_services_use_is_read_from_their_definitions() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "stack: s\nstores:\n  one: { kind: sqlite, path: one.db }\n  two: { kind: files, path: two }\nservices:\n  \
            a: { version: '1', command: [/bin/true, '{store.one}', '{port.http}'], ports: {http: 18001}, health: {tcp: http}, config: [common.yaml] }\n  \
            b: { version: '1', command: [/bin/true, '{port.http}'], env: {DIR: '{store.two}', A: 'http://x:{port.a.http}/'}, ports: {http: 18002}, health: {tcp: http}, needs: [a] }\n";
        fs::write(dir.path().join("switchback.yaml"), text).expect("writes");
        fs::write(dir.path().join("common.yaml"), "x: 1\n").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("creates");
        let config = Config::parse(text, "f").expect("valid");
        let (id, made) = release(&home, &config, &BTreeMap::new()).expect("makes");
        let mut instance: Instance = serde_json::from_value(serde_json::json!({
            "environment": "production", "generation": 1, "release": id, "versions": {}, "dir": "generations/1",
            "stores": {}, "ports": {},
        }))
        .expect("an instance");
        instance.stores = configured_stores(&home, &config);
        let found = uses(&instance, &made);
        let words = |name: &str| found.stores[name].iter().map(|s| s.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!((words("a"), words("b")), (vec!["one".to_owned()], vec!["two".to_owned()]));
        assert!(found.needs["a"].is_empty());
        assert_eq!(found.needs["b"].keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a"]);
        assert!(found.files["a"].contains("common.yaml") && found.files["b"].is_empty());
    }
}
