//! Docker Compose as the facade calls it, against a real engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod engine;

use engine::{SHELL, docker, shell_image, unique};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use switchback_core::workflow::Redactor;
use switchback_engine::docker::compose::{ComposeCli, ModelFile, OneShot, ProjectFiles, Recreate, UpOptions};
use switchback_engine::docker::{Docker, DockerError};

const LIMIT: Duration = Duration::from_secs(120);

fn never() -> bool {
    false
}

struct Project<'a> {
    docker: &'a Docker,
    compose: ComposeCli,
    model: ModelFile,
    _dir: tempfile::TempDir,
}

impl<'a> Project<'a> {
    fn new(docker: &'a Docker) -> Self {
        shell_image(docker);
        let compose = ComposeCli::find().expect("these tests need docker compose 2.24.4 or newer");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("compose.yml"), format!(
            "services:\n  \
               web: {{ image: \"{SHELL}\", command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'],\n    \
                 environment: {{ PASSWORD: \"${{PASSWORD}}\", DOLLAR: 'a$$b' }}, volumes: ['data:/data'], depends_on: [db] }}\n  \
               db: {{ image: \"{SHELL}\", command: [sleep, '600'], stop_grace_period: 1s }}\n  \
               extra: {{ image: \"{SHELL}\", command: [sleep, '600'], profiles: [more], stop_grace_period: 1s }}\n  \
               off: {{ image: \"{SHELL}\", profiles: [off] }}\n\
             volumes: {{ data: {{}} }}\n"
        )).unwrap();
        fs::write(dir.path().join("my.env"), "PASSWORD=hunter2-secret\n").unwrap();
        let name = unique("project");
        let files = ProjectFiles {
            dir: dir.path().to_owned(),
            env_files: vec!["my.env".into()],
            profiles: vec!["more".into()],
            project: Some(name.clone()),
            ..ProjectFiles::default()
        };
        let text = compose.config(&files).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["services"]["web"]["environment"]["PASSWORD"], "hunter2-secret");
        assert_eq!(json["services"]["web"]["environment"]["DOLLAR"], "a$$b");
        assert!(json["services"]["off"].is_null() && !json["services"]["extra"].is_null());
        let path = dir.path().join("model.json");
        fs::write(&path, &text).unwrap();
        // Neither is read any more.
        fs::write(dir.path().join(".env"), "COMPOSE_PROFILES=off\nCOMPOSE_PROJECT_NAME=other\n").unwrap();
        let model = ModelFile { path, project: name, project_dir: dir.path().to_owned() };
        Self { docker, compose, model, _dir: dir }
    }

    fn running(&self) -> Vec<String> {
        let label = [("com.docker.compose.project", self.model.project.as_str())];
        let all = self.docker.containers(&label).unwrap();
        all.into_iter()
            .filter(|c| c.state == "running")
            .map(|c| c.labels["com.docker.compose.service"].clone())
            .collect()
    }

    fn up(&self, services: &[&str], recreate: Recreate) -> Result<(), DockerError> {
        let options = UpOptions {
            services: services.iter().map(|s| (*s).to_owned()).collect(),
            no_deps: !services.is_empty(),
            recreate,
            grace: None,
            limit: LIMIT,
        };
        self.compose.up(&self.model, &options, &never)
    }

    fn shot(&self, script: &str, log: &Path) -> OneShot {
        OneShot {
            labels: Vec::new(),
            service: "web".into(),
            entrypoint: None,
            argv: vec!["sh".into(), "-c".into(), script.into()],
            container: format!("{}-shot", self.model.project),
            log: log.to_owned(),
            limit: LIMIT,
        }
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let _ = self.compose.down(&self.model.project, Some(Duration::ZERO), LIMIT, &never);
        let stack = [("com.docker.compose.project", self.model.project.as_str())];
        for volume in self.docker.volumes(&stack).unwrap_or_default() {
            // The facade cannot remove a user's volume, and this one is the test's own.
            let _ = std::process::Command::new("docker").args(["volume", "rm", &volume.name]).output();
        }
    }
}

#[test]
fn a_project_is_resolved_brought_up_stopped_and_taken_down_and_keeps_its_volumes() {
    let docker = docker();
    let project = Project::new(&docker);
    assert!(project.compose.version().starts_with("2."), "{}", project.compose.version());
    let options = UpOptions { limit: LIMIT, ..UpOptions::default() };
    project.compose.create(&project.model, &options, &never).unwrap();
    assert!(project.running().is_empty());
    project.up(&[], Recreate::Changed).unwrap();
    let mut running = project.running();
    running.sort();
    assert_eq!(running, ["db", "extra", "web"]);
    let began = Instant::now();
    project.up(&[], Recreate::Changed).unwrap();
    eprintln!("MEASURED compose: up without anything to do {:?}", began.elapsed());
    project.compose.stop(&project.model, &["web".into()], None, LIMIT, &never).unwrap();
    let mut running = project.running();
    running.sort();
    assert_eq!(running, ["db", "extra"]);
    project.up(&["web"], Recreate::All).unwrap();
    assert!(project.running().contains(&"web".to_owned()));
    let volume = format!("{}_data", project.model.project);
    project.compose.down(&project.model.project, Some(Duration::from_secs(1)), LIMIT, &never).unwrap();
    assert!(project.running().is_empty());
    assert!(docker.network(&format!("{}_default", project.model.project)).unwrap().is_none());
    assert!(docker.volume(&volume).unwrap().is_some(), "down removed a volume");
}

#[test]
fn a_command_runs_once_with_its_output_redacted_and_its_container_gone() {
    let docker = docker();
    let mut project = Project::new(&docker);
    project.compose = project.compose.clone().hiding(Redactor::from_values(["hunter2-secret"]));
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("migrate.log");
    let shot = project.shot("echo migrating $PASSWORD $DOLLAR; echo bad >&2; exit 4", &log);
    let output = project.compose.run(&docker, &project.model, &shot, &never).unwrap();
    assert_eq!(output.how(), "exit code 4");
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("migrating *** a$b") && text.contains("bad"), "{text}");
    assert!(project.running().is_empty(), "dependencies were started");
    // Cancelled, over its limit, and after a crash: nothing of it stays.
    let gone = || docker.inspect(&shot.container).unwrap().is_none();
    let began = Instant::now();
    let hang = project.shot("trap '' TERM; sleep 600", &log);
    let cancel = || began.elapsed() > Duration::from_secs(2);
    let error = project.compose.run(&docker, &project.model, &hang, &cancel).unwrap_err();
    assert!(matches!(error, DockerError::Cancelled) && gone(), "{error}");
    let short = OneShot { limit: Duration::from_secs(2), ..hang };
    let output = project.compose.run(&docker, &project.model, &short, &never).unwrap();
    assert!(output.timed_out() && gone(), "{output:?}");
    let output = project.compose.run(&docker, &project.model, &project.shot("true", &log), &never).unwrap();
    assert!(output.success() && gone(), "{output:?}");
}

#[test]
fn errors_of_compose_are_passed_on_readably() {
    let docker = docker();
    let project = Project::new(&docker);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("compose.yml"), "services:\n  a: { image: x, prots: [80] }\n").unwrap();
    let files = ProjectFiles { dir: dir.path().to_owned(), ..ProjectFiles::default() };
    let error = project.compose.config(&files).unwrap_err().to_string();
    assert!(error.contains("prots") && error.contains("docker compose config"), "{error}");
    let bad = ProjectFiles { project: Some("-f /etc/passwd".into()), ..files };
    assert!(matches!(project.compose.config(&bad), Err(DockerError::BadName { .. })));
    let model = fs::read_to_string(&project.model.path).unwrap();
    fs::write(&project.model.path, model.replace(SHELL, "sbt-docker-none:1")).unwrap();
    let error = project.up(&[], Recreate::Changed).unwrap_err().to_string();
    assert!(error.contains("sbt-docker-none"), "{error}");
}
