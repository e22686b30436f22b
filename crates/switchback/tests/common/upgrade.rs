//! Upgrading Compose stacks: calling switchback as a person or a script does, what it leaves behind, and strangers
//! beside the stack that must not notice.

use super::docker::{Stack, docker, ran};
use super::{PROGRAM, Ran};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use switchback_core::journal::Event;
use switchback_engine::home::Home;
use switchback_engine::journal::Journal;

/// The longest that a test waits for something that takes seconds: the machine may do much else.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A switchback command on the stack, with its own environment.
pub fn command(stack: &Stack, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("-C").arg(&stack.root).args(args).env("NO_COLOR", "1").env_remove("SWITCHBACK_FAULT");
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command
}

/// Runs switchback with an environment.
pub fn run_env(stack: &Stack, args: &[&str], env: &[(&str, &str)]) -> Ran {
    ran(&command(stack, args, env).output().expect("runs"))
}

/// Starts switchback and lets it go on; its output is not read.
pub fn start(stack: &Stack, args: &[&str]) -> Child {
    command(stack, args, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

pub fn state(stack: &Stack) -> PathBuf {
    stack.root.join(".switchback")
}

/// The stack's id, which is on everything that Switchback makes for it.
#[track_caller]
pub fn id(stack: &Stack) -> String {
    let id = Home::open(&stack.root).and_then(|home| home.id()).expect("reads");
    assert_ne!(id, "unborn", "the stack is not known to Switchback yet");
    id
}

#[track_caller]
pub fn status(stack: &Stack) -> Value {
    stack.run(&["status", "--json"]).expect(0).json()
}

/// The last run's report.
#[track_caller]
pub fn report(stack: &Stack) -> Value {
    stack.run(&["report", "--json"]).expect(0).json()
}

/// Whether the unfinished run has begun a step.
pub fn has_begun(stack: &Stack, step: &str) -> bool {
    let Ok(Some(journal)) = Journal::open_read(&state(stack).join("journal.db")) else { return false };
    let Some(run) = journal.unfinished().expect("reads").pop() else { return false };
    let (_, _, records) = journal.load(&run).expect("reads");
    records.iter().any(|r| matches!(&r.event, Event::Started { step: s, .. } if s.as_str() == step))
}

/// The generation that production's pointer names.
#[track_caller]
pub fn generation(stack: &Stack) -> u64 {
    status(stack)["generation"].as_u64().expect("a generation")
}

/// What staging environments and helpers of the stack left in the engine, and folders of staging.
pub fn staging_left(stack: &Stack) -> Vec<String> {
    let label = format!("label=dev.switchback.stack={}", id(stack));
    let format =
        "{{.ID}} {{.Names}} {{.Label \"dev.switchback.instance\"}} {{.Label \"dev.switchback.helper\"}}";
    let mut found: Vec<String> = docker(&["ps", "-a", "--filter", &label, "--format", format])
        .expect(0)
        .stdout
        .lines()
        .map(|l| format!("container {l}"))
        .collect();
    let networks = docker(&["network", "ls", "--filter", &label, "--format", "{{.Name}}"]).expect(0).stdout;
    found.extend(networks.lines().map(|l| format!("network {l}")));
    let format = "{{.Name}} {{.Label \"dev.switchback.instance\"}}";
    let volumes = docker(&["volume", "ls", "--filter", &label, "--format", format]).expect(0).stdout;
    found.extend(volumes.lines().filter(|l| !l.contains(" generations/")).map(|l| format!("volume {l}")));
    let folders = fs::read_dir(state(stack).join("staging")).into_iter().flatten().flatten();
    found.extend(folders.map(|e| format!("folder {}", e.path().display())));
    found
}

/// The ids of the project's containers by service, and since when they run.
pub fn containers(stack: &Stack) -> BTreeMap<String, (String, String)> {
    let filter = format!("label=com.docker.compose.project={}", stack.project);
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).expect(0).stdout;
    let format = "{{index .Config.Labels \"com.docker.compose.service\"}} {{.Id}} {{.State.StartedAt}} {{.State.Status}}";
    ids.lines()
        .map(|id| {
            let line = docker(&["inspect", "--format", format, id]).expect(0).stdout;
            let (service, rest) = line.trim().split_once(' ').expect("a service");
            let (id, state) = rest.split_once(' ').expect("an id");
            (service.to_owned(), (id.to_owned(), state.to_owned()))
        })
        .collect()
}

/// Where the engine keeps a volume; the tests run as root on its host.
#[track_caller]
pub fn mountpoint(volume: &str) -> PathBuf {
    let path = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume]).expect(0).stdout;
    let path = PathBuf::from(path.trim());
    assert!(path.is_dir(), "these tests run as root on the engine's host; {} is not there", path.display());
    path
}

/// Everything in a tree: path to owner, mode, times of files and content's hash.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).expect("lists") {
            let path = entry.expect("lists").path();
            let meta = path.symlink_metadata().expect("stats");
            let content = if meta.is_file() {
                blake3::hash(&fs::read(&path).expect("reads")).to_hex().to_string()
            } else {
                String::new()
            };
            let what = format!(
                "{}:{} {:o} {}.{} {content}",
                meta.uid(),
                meta.gid(),
                meta.mode(),
                meta.mtime(),
                meta.mtime_nsec()
            );
            found.insert(path.strip_prefix(root).expect("below").to_owned(), what);
            if meta.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// Fails if two trees differ, naming what does.
#[track_caller]
pub fn assert_same_tree(was: &BTreeMap<PathBuf, String>, is: &BTreeMap<PathBuf, String>, what: &str) {
    assert!(!was.is_empty(), "{what}: nothing was there");
    let differing: Vec<String> = was
        .keys()
        .chain(is.keys())
        .filter(|path| was.get(*path) != is.get(*path))
        .map(|path| format!("{}: {:?} -> {:?}", path.display(), was.get(path), is.get(path)))
        .collect();
    assert!(differing.is_empty(), "{what} changed:\n{}", differing.join("\n"));
}

/// The rows that an export holds of one store, by file.
pub fn exported(stack: &Stack, generation: u32, store: &str) -> BTreeMap<String, Vec<Value>> {
    let dir = state(stack).join(format!("exports/generation-{generation}/{store}"));
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("lists").path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let text = fs::read_to_string(&path).expect("reads");
            let rows = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
            found.insert(path.file_name().expect("a name").to_string_lossy().into_owned(), rows);
        }
    }
    found
}

/// Waits until a promotion has been undone by the watchdog, export included.
pub fn wait_for_rollback(stack: &Stack, limit: Duration) {
    stack.wait_until("the watchdog rolls back", limit, || {
        let now = status(stack);
        let history = stack.run(&["history", "--json"]).json();
        now["generation"] == 1
            && now["unfinished"].is_null()
            && history[0]["procedure"] == "rollback"
            && history[0]["conclusion"] == "pass"
    });
}

/// Makes an image of another one. Its build needs no network.
#[track_caller]
pub fn derived_image(tag: &str, dockerfile: &str) {
    let mut child = Command::new("docker")
        .args(["build", "--quiet", "--tag", tag, "-"])
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker is installed");
    child.stdin.take().expect("piped").write_all(dockerfile.as_bytes()).expect("writes");
    ran(&child.wait_with_output().expect("ends")).expect(0);
}

/// A container with a volume and a network of its own, of another project on the same engine.
pub struct Bystander {
    name: String,
    seen: [String; 3],
    files: BTreeMap<PathBuf, String>,
}

impl Bystander {
    #[track_caller]
    pub fn start(stack: &Stack) -> Self {
        let name = format!("{}-bystander", stack.project);
        let label =
            ["--label", "com.docker.compose.project=bystander", "--label", "dev.switchback.stack=of-another"];
        let run = |args: &[&[&str]]| docker(&args.concat()).expect(0).stdout;
        run(&[&["volume", "create"], &label, &[&name]]);
        run(&[&["network", "create"], &label, &[&name]]);
        let mount = format!("{name}:/data");
        let script = "echo precious > /data/file; exec sleep 86400";
        run(&[
            &["run", "-d", "--init", "--name", &name, "--network", &name, "-v", &mount],
            &label,
            &["sbt/python:3.11", "sh", "-c", script],
        ]);
        let root = mountpoint(&name);
        stack.wait_until("the bystander has written", PATIENCE, || {
            fs::read(root.join("file")).is_ok_and(|text| text == b"precious\n")
        });
        let mut made = Self { name, seen: Default::default(), files: tree(&root) };
        made.seen = made.look();
        made
    }

    fn look(&self) -> [String; 3] {
        [&["inspect"][..], &["volume", "inspect"], &["network", "inspect"]]
            .map(|kind| docker(&[kind, &[self.name.as_str()]].concat()).expect(0).stdout)
    }

    /// Fails if anything about it is not as it was: ids, start, settings, files.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(self.look(), self.seen, "a container, volume or network of another project changed");
        assert_same_tree(&self.files, &tree(&mountpoint(&self.name)), "the files of another project");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.name]);
        docker(&["network", "rm", &self.name]);
        docker(&["volume", "rm", "-f", &self.name]);
    }
}

/// Looks for secrets where none may be: in the journal, reports, logs, exports' manifests, the lock file, and the
/// arguments of containers and processes. Models with the environment are allowed, for their owner only.
#[track_caller]
pub fn assert_no_secret_is_told(stack: &Stack, secrets: &[&str]) {
    let told = |bytes: &[u8]| {
        secrets.iter().find(|s| bytes.windows(s.len()).any(|w| w == s.as_bytes())).map(|s| (*s).to_owned())
    };
    let mut seen = 0;
    let mut look = |path: &Path| {
        let model = path.file_name().is_some_and(|n| n == "compose.json" || n == ".env" || n == "model.json");
        let meta = path.metadata().expect("stats");
        if let Some(secret) = told(&fs::read(path).expect("reads")) {
            let private = model && meta.mode() & 0o077 == 0;
            assert!(private, "{} holds the secret {secret} (mode {:o})", path.display(), meta.mode());
        }
        seen += 1;
    };
    let mut folders = vec![state(stack)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists") {
            let path = entry.expect("lists").path();
            match path.symlink_metadata().expect("stats").file_type() {
                t if t.is_dir() => folders.push(path),
                t if t.is_file() => look(&path),
                _ => {}
            }
        }
    }
    look(&stack.root.join("switchback.lock.yaml"));
    assert!(seen > 10, "only {seen} files were looked at");
    for (pid, argv) in super::proc_files("cmdline") {
        let own = argv.contains("switchback") || argv.contains("docker");
        assert!(!own || told(argv.as_bytes()).is_none(), "process {pid} has a secret in its arguments");
    }
    for label in [
        format!("com.docker.compose.project={}", stack.project),
        format!("dev.switchback.stack={}", id(stack)),
    ] {
        let ids = docker(&["ps", "-aq", "--filter", &format!("label={label}")]).expect(0).stdout;
        for id in ids.lines() {
            let format = "{{json .Path}}{{json .Args}}{{json .Config.Cmd}}{{json .Config.Entrypoint}}{{json .Config.Labels}}";
            let argv = docker(&["inspect", "--format", format, id]).expect(0).stdout;
            assert!(told(argv.as_bytes()).is_none(), "the container {id} has a secret in its arguments");
        }
    }
}

/// Nothing of the stack is left on this machine but its images.
pub fn burn_down(stack: &Stack) {
    stack.run(&["down", "--yes"]).expect(0);
    for (list, remove) in [
        (&["ps", "-aq", "--filter"][..], &["rm", "-f"][..]),
        (&["volume", "ls", "-q", "--filter"], &["volume", "rm"]),
    ] {
        for label in [
            format!("label=com.docker.compose.project={}", stack.project),
            format!("label=dev.switchback.stack={}", id(stack)),
        ] {
            let found = docker(&[list, &[label.as_str()]].concat()).expect(0).stdout;
            for id in found.lines() {
                docker(&[remove, &[id]].concat());
            }
        }
    }
    empty(&stack.root);
}

/// Removes everything in a folder.
pub fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).expect("lists").flatten() {
        match entry.path() {
            path if path.is_dir() => fs::remove_dir_all(path).expect("removes"),
            path => fs::remove_file(path).expect("removes"),
        }
    }
}
