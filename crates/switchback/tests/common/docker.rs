//! Compose stacks of the examples, each in a folder and a project of its own, with the images that scripts/lib/images.sh makes. What a
//! stack leaves in the engine is removed when it is dropped: what carries its project's or its Switchback's label, and nothing else.

use super::{PROGRAM, Ran, copy_folder};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The administrator's token of the JupyterHub example.
pub const HUB_TOKEN: &str = "token-of-the-tests-7c1e";
/// The key that the webhook of the n8n example asks for.
pub const ORDER_KEY: &str = "order-key-of-the-tests-41";
/// Of every database: with signs that have a meaning in URLs, YAML and shells.
pub const DB_PASSWORD: &str = "pass:w@rd/of%the-tests";
/// On objects that a test makes beside its project; the value is the project.
pub const LABEL: &str = "dev.switchback.test";

/// The stacks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Example {
    /// examples/compose-jupyterhub: PostgreSQL, and a migration command.
    JupyterHub,
    /// examples/compose-n8n: PostgreSQL, migrates when it starts. Its images are made with `--full` only.
    N8n,
    /// examples/pa: six services, n8n and a migration command among them. Its images are made with `--full` only.
    Pa,
    /// tests/upgrade-infrastructure/stacks/bank: small and quick; SQLite and files that belong together.
    Bank,
    /// tests/upgrade-infrastructure/stacks/exchange: the bank and PostgreSQL in folders of the host, named by DATA_DIR.
    Exchange,
    /// tests/upgrade-infrastructure/stacks/crowded: the bank with all that collides with a second copy.
    Crowded,
    /// tests/upgrade-infrastructure/stacks/ledger: the bank, with PostgreSQL beside it.
    Ledger,
    /// tests/upgrade-infrastructure/stacks/shop: MariaDB and migrations, whose images its tests make. With `--full` only.
    Shop,
}

impl Example {
    fn folder(self) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        root.join(match self {
            Self::JupyterHub => "examples/compose-jupyterhub",
            Self::N8n => "examples/compose-n8n",
            Self::Pa => "examples/pa",
            Self::Bank => "tests/upgrade-infrastructure/stacks/bank",
            Self::Exchange => "tests/upgrade-infrastructure/stacks/exchange",
            Self::Crowded => "tests/upgrade-infrastructure/stacks/crowded",
            Self::Ledger => "tests/upgrade-infrastructure/stacks/ledger",
            Self::Shop => "tests/upgrade-infrastructure/stacks/shop",
        })
    }

    /// The oldest release of the application first.
    fn images(self) -> &'static [&'static str] {
        match self {
            Self::JupyterHub => &["sbt/jupyterhub:3.1.1", "sbt/jupyterhub:5.4.6", "sbt/postgres:15"],
            Self::N8n => &["sbt/n8n:1.71.3", "sbt/n8n:2.8.4", "sbt/postgres:15"],
            Self::Pa => {
                &["sbt/pa:1", "sbt/pa:2", "sbt/n8n:1.71.3", "sbt/n8n:2.8.4", "sbt/postgres:15", "sbt/redis:7"]
            }
            Self::Bank => &["sbt/bank:1", "sbt/bank:2"],
            Self::Exchange => &["sbt/bank:1", "sbt/bank:2", "sbt/postgres:15"],
            Self::Crowded => &["sbt/bank:1", "sbt/bank:2", "sbt/python:3.11"],
            Self::Ledger => &["sbt/bank:1", "sbt/bank:2", "sbt/postgres:15"],
            Self::Shop => &["sbt/shop:1", "sbt/shop:2", "sbt/mariadb:10.11"],
        }
    }

    /// The service that people use.
    pub fn service(self) -> &'static str {
        match self {
            Self::JupyterHub => "hub",
            Self::N8n => "n8n",
            Self::Pa => "bot",
            Self::Shop => "shop",
            _ => "bank",
        }
    }

    /// The variable in `.env` that names the port on this machine.
    fn port_variable(self) -> &'static str {
        match self {
            Self::JupyterHub => "HUB_PORT",
            Self::N8n => "N8N_PORT",
            Self::Pa => "PA_PORT",
            Self::Bank | Self::Exchange | Self::Crowded | Self::Ledger => "BANK_PORT",
            Self::Shop => "SHOP_PORT",
        }
    }

    /// The variable in `.env` that names the release.
    fn version_variable(self) -> &'static str {
        match self {
            Self::JupyterHub => "JHUB_VERSION",
            Self::N8n => "N8N_VERSION",
            Self::Pa => "PA_VERSION",
            Self::Bank | Self::Exchange | Self::Crowded | Self::Ledger => "BANK_VERSION",
            Self::Shop => "SHOP_VERSION",
        }
    }

    /// Role and database in the service `db`.
    fn database(self) -> &'static str {
        match self {
            Self::JupyterHub => "hub",
            Self::N8n => "n8n",
            Self::Pa => "pa",
            Self::Exchange => "exchange",
            Self::Ledger => "ledger",
            _ => panic!("it has no PostgreSQL"),
        }
    }
}

/// Another engine than the usual one, for this whole process.
static ENGINE: OnceLock<String> = OnceLock::new();

/// Has everything here use another engine: its address, as in `DOCKER_HOST`. Before anything else.
pub fn use_engine(host: &str) {
    assert_eq!(ENGINE.get_or_init(|| host.to_owned()), host, "one engine per process");
}

/// A program that uses that engine.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    if let Some(host) = ENGINE.get() {
        command.env("DOCKER_HOST", host);
    }
    command
}

/// Runs docker; its streams and exit code.
pub fn docker(args: &[&str]) -> Ran {
    ran(&program("docker").args(args).stdin(Stdio::null()).output().expect("docker is installed"))
}

pub fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Fails, saying what to do, unless an engine with Compose answers and has these images.
#[track_caller]
pub fn need(images: &[&str]) {
    let hint = "scripts/test prepares it, or scripts/lib/engine.sh";
    match program("docker").args(["version", "--format", "{{.Server.Version}}"]).output() {
        Err(e) => panic!("docker cannot be run ({e}); {hint}"),
        Ok(o) => assert!(o.status.success(), "no Docker engine answers; {hint}"),
    }
    assert!(docker(&["compose", "version"]).code == Some(0), "`docker compose` does not work; {hint}");
    for image in images {
        let full = if ["n8n", "mariadb", "/pa:", "redis"].iter().any(|i| image.contains(i)) {
            " --full"
        } else {
            ""
        };
        assert!(
            docker(&["image", "inspect", "--format", "{{.Id}}", image]).code == Some(0),
            "the image {image} is not there; scripts/test{full} makes it, or scripts/lib/images.sh{full}"
        );
    }
}

/// Whether the long runs are wanted (`scripts/test --full`).
pub fn full() -> bool {
    std::env::var_os("SWITCHBACK_TEST_FULL").is_some()
}

/// A Compose stack. Nothing runs yet when it is made.
pub struct Stack {
    _dir: tempfile::TempDir,
    pub example: Example,
    pub root: PathBuf,
    /// Name of the Compose project; unique.
    pub project: String,
    /// Where the service that people use is published, on 127.0.0.1.
    pub port: u16,
}

/// A port below the ephemeral range and away from the other tests' ports.
pub fn free_port() -> u16 {
    let mut candidate = 30_000 + (std::process::id().wrapping_mul(7) % 2_500) as u16;
    loop {
        if std::net::TcpListener::bind(("127.0.0.1", candidate)).is_ok() {
            return candidate;
        }
        candidate = 30_000 + (candidate - 30_000 + 1) % 2_500;
    }
}

impl Stack {
    /// A copy of an example with its oldest release, a project of its own and a free port.
    #[track_caller]
    pub fn compose(example: Example) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        need(example.images());
        let dir = tempfile::Builder::new().prefix("switchback-compose-").tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("exists");
        copy_folder(&example.folder(), &root);
        // Not the process id alone: what a killed test left must not be taken for this one's.
        let moment = std::time::UNIX_EPOCH.elapsed().expect("after 1970").subsec_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let project = format!("sbt-test-{}-{count}-{:x}", std::process::id(), moment);
        let port = free_port();
        let env = [
            ("COMPOSE_PROJECT_NAME", project.as_str()),
            ("DB_IMAGE", "sbt/postgres:15"),
            ("HUB_IMAGE", "sbt/jupyterhub"),
            ("N8N_IMAGE", "sbt/n8n"),
            ("DB_PASSWORD", DB_PASSWORD),
            ("HUB_API_TOKEN", HUB_TOKEN),
            ("ORDER_API_KEY", ORDER_KEY),
            ("N8N_ENCRYPTION_KEY", "encryption-key-of-the-tests"),
            ("N8N_OWNER_PASSWORD", "Owner-of-the-tests-1"),
            (example.port_variable(), &port.to_string()),
            (example.version_variable(), example.images()[0].rsplit(':').next().expect("a tag")),
        ];
        let text: String = env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(root.join(".env"), text).expect("writes");
        Self { _dir: dir, example, root, project, port }
    }

    /// Sets a variable in `.env`.
    pub fn set(&self, name: &str, value: &str) {
        let path = self.root.join(".env");
        let text = fs::read_to_string(&path).expect("reads");
        let mut lines: Vec<&str> = text.lines().filter(|l| !l.starts_with(&format!("{name}="))).collect();
        let line = format!("{name}={value}");
        lines.push(&line);
        fs::write(&path, lines.join("\n") + "\n").expect("writes");
    }

    /// Names another release in `.env`, as somebody without Switchback does.
    pub fn set_version(&self, version: &str) {
        self.set(self.example.version_variable(), version);
    }

    /// Edits a file of the stack as text.
    #[track_caller]
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.root.join(file);
        let text = fs::read_to_string(&path).expect("reads");
        assert!(text.contains(from), "{from:?} is not in {file}");
        fs::write(&path, text.replace(from, to)).expect("writes");
    }

    /// Switchback on the stack, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program(PROGRAM);
        command.arg("-C").arg(&self.root).args(args).env("NO_COLOR", "1").env_remove("SWITCHBACK_FAULT");
        command.stdin(Stdio::null());
        command
    }

    /// Runs switchback on the stack.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    /// The same with variables in its environment.
    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        ran(&self.command(args).envs(env.iter().copied()).output().expect("runs"))
    }

    /// The last run as data.
    pub fn report(&self) -> Value {
        self.run(&["report", "--json"]).expect(0).json()
    }

    /// Runs `docker compose` in the stack's folder, as its owner does.
    pub fn docker_compose(&self, args: &[&str]) -> Ran {
        let mut command = program("docker");
        command.arg("compose").args(args).current_dir(&self.root).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COMPOSE_") {
                command.env_remove(name);
            }
        }
        ran(&command.output().expect("docker is installed"))
    }

    /// `docker compose up`, until everything is healthy.
    #[track_caller]
    pub fn up(&self) {
        self.docker_compose(&["up", "-d", "--wait", "--no-build"]).expect(0);
    }

    /// The id of a service's container in production; none if it has none.
    pub fn container(&self, service: &str) -> Option<String> {
        let ran = self.docker_compose(&["ps", "-aq", service]);
        ran.stdout.lines().next().map(str::to_owned)
    }

    /// A field of a service's container, as in `docker inspect --format`.
    #[track_caller]
    pub fn inspect(&self, service: &str, format: &str) -> String {
        let id = self.container(service).unwrap_or_else(|| panic!("{service} has no container"));
        docker(&["inspect", "--format", format, &id]).expect(0).stdout.trim().to_owned()
    }

    /// Asks the service in production; status and body, or why it does not answer.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(u16, String), ureq::Error> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default()).expect("a request");
        let mut response = agent.run(request)?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// Repeats until it is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !done() {
            assert!(
                Instant::now() < deadline,
                "not within {limit:?}: {what}\n{}",
                self.docker_compose(&["logs", "--no-color", "--tail", "30"]).all()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs the example's seed.py against production.
    #[track_caller]
    pub fn seed(&self, args: &[&str]) {
        let mut command = Command::new("python3");
        command.arg(self.root.join("seed.py")).args(["--url", &format!("http://127.0.0.1:{}", self.port)]);
        ran(&command.args(args).stdin(Stdio::null()).output().expect("python3 is installed")).expect(0);
    }
}

/// PostgreSQL, in the service `db`.
impl Stack {
    /// Runs SQL in production's database; one line per row, `|` between columns.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        let id = self.container("db").expect("db has a container");
        psql_in(&id, self.example.database(), sql)
    }

    /// Makes the accounts of the accounting load.
    #[track_caller]
    pub fn open_accounts(&self) {
        self.psql(&fs::read_to_string(accounting().join("schema.sql")).expect("reads"));
    }

    /// Starts the accounting load: so many transfers per second, by a client that connects again after the
    /// database was away. It uses the host name `db` in the project's own network.
    #[track_caller]
    pub fn start_load(&self, per_second: u32) -> Load {
        let name = format!("{}-load", self.project);
        let database = self.example.database();
        let network = format!("{}_default", self.project);
        let label = format!("{LABEL}={}", self.project);
        let mount = format!("{}:/accounting:ro", accounting().display());
        // The password through docker's own environment, not its arguments.
        let output = program("docker")
            .args(["run", "-d", "--init", "--name", &name, "--label", &label, "--network", &network])
            .args(["-v", &mount, "-e", "PGPASSWORD", "-e", "PGHOST=db", "-e", "PGCONNECT_TIMEOUT=2"])
            .args(["-e", &format!("PGUSER={database}"), "-e", &format!("PGDATABASE={database}")])
            .args(["-e", &format!("RATE={per_second}"), "--user", "postgres", "--entrypoint", "sh", "sbt/postgres:15", "-c"])
            .arg("while :; do pgbench -n -c 2 -R \"$RATE\" -T 3600 -f /accounting/transfer.sql; sleep 0.2; done")
            .env("PGPASSWORD", DB_PASSWORD)
            .output()
            .expect("docker is installed");
        ran(&output).expect(0);
        Load { name }
    }

    /// Audits production's accounts; the number of transfers.
    #[track_caller]
    pub fn assert_accounts_balance(&self) -> u64 {
        assert_accounts_balance_in(
            &self.container("db").expect("db has a container"),
            self.example.database(),
        )
    }
}

pub fn accounting() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/upgrade-infrastructure/accounting")
        .canonicalize()
        .expect("exists")
}

/// Runs SQL in a container with PostgreSQL, in a database that its owner has the name of.
#[track_caller]
pub fn psql_in(container: &str, database: &str, sql: &str) -> String {
    let args =
        ["exec", "-i", container, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", database, "-d", database];
    let ran = docker(&[&args[..], &["-c", sql]].concat()).expect(0);
    ran.stdout.trim_end().to_owned()
}

/// Audits the accounts in a container with PostgreSQL (a clone, a staging environment); the number of transfers.
#[track_caller]
pub fn assert_accounts_balance_in(container: &str, database: &str) -> u64 {
    let row = psql_in(container, database, "select total, expected, transfers, unexplained from bank.audit");
    let numbers: Vec<u64> = row.split('|').map(|n| n.parse().expect("a number")).collect();
    let [total, expected, transfers, unexplained] = numbers[..] else { panic!("no audit: {row}") };
    assert_eq!(total, expected, "money was lost or made; {transfers} transfers");
    assert_eq!(unexplained, 0, "accounts that the {transfers} transfers do not explain");
    transfers
}

/// The accounting load, until it is stopped or dropped.
pub struct Load {
    name: String,
}

impl Load {
    /// Ends it; transfers that were confirmed to it are in the database.
    pub fn stop(self) {}

    /// What pgbench said so far.
    pub fn log(&self) -> String {
        docker(&["logs", &self.name]).all()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // With the volume that its image asks for.
        docker(&["rm", "-fv", &self.name]);
    }
}

/// The names of the containers, networks and volumes whose label begins so. (A stack's label is its id and more.)
pub fn labelled(label: &str, prefix: &str) -> [Vec<String>; 3] {
    [(&["ps", "-a"][..], "{{.Names}}"), (&["network", "ls"], "{{.Name}}"), (&["volume", "ls"], "{{.Name}}")]
        .map(|(list, name)| {
            let format = format!("{name}\t{{{{.Label \"{label}\"}}}}");
            let filter = format!("label={label}");
            let found =
                docker(&[list, &["--filter", &filter, "--format", &format]].concat()).expect(0).stdout;
            let own = found.lines().filter_map(|line| line.split_once('\t'));
            own.filter(|(_, value)| value.starts_with(prefix)).map(|(name, _)| name.to_owned()).collect()
        })
}

/// Removes containers, networks and volumes whose label begins so.
fn remove_labelled(label: &str, prefix: &str) {
    let [containers, networks, volumes] = labelled(label, prefix);
    let kinds: [(&[&str], _); 3] =
        [(&["rm", "-fv"], containers), (&["network", "rm"], networks), (&["volume", "rm", "-f"], volumes)];
    for (remove, found) in kinds {
        if !found.is_empty() {
            docker(&[remove, &found.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // The watchdog first, which would start things again.
        let root = self.root.to_string_lossy().into_owned();
        let own = i32::try_from(std::process::id()).expect("fits");
        for (pid, argv) in super::proc_files("cmdline") {
            if pid != own && argv.contains(&root) {
                super::kill(pid);
            }
        }
        // Containers of production before the volumes of its generations, which they use.
        remove_labelled(LABEL, &self.project);
        remove_labelled("com.docker.compose.project", &self.project);
        if let Ok(id) = fs::read_to_string(self.root.join(".switchback/id"))
            && !id.trim().is_empty()
        {
            remove_labelled("dev.switchback.stack", id.trim());
        }
    }
}
