//! A Postgres server that is asked through `psql` in its own container.
//!
//! Live data is asked through the server that runs on it; data at rest through a throwaway server.

use super::ComposeData;
use super::throwaway::Throwaway;
use crate::docker::{Docker, DockerError, ExecSpec};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::{container_of, environment_of};
use crate::store::postgres::{PgError, Psql};
use serde_json::Value;
use std::io::Write;
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::release::{MountPlace, Server as Reached, StorePlace};

/// A server that can be asked.
pub struct Server<'a> {
    docker: &'a Docker,
    container: String,
    user: String,
    password: Option<String>,
    databases: Vec<String>,
    /// The database that a person's own query means.
    main: String,
    throwaway: Option<Throwaway<'a>>,
}

impl<'a> Server<'a> {
    /// The server of a store; on data at rest, one that is started for it.
    pub fn open(
        data: &'a ComposeData,
        at: &Placement<'_>,
        store: &StoreName,
        mount: &MountPlace,
        mode: CloneMode,
    ) -> Result<Self, EngineError> {
        let (place, reached) = reached(at, store)?;
        let (container, throwaway) = match mode {
            CloneMode::Live => (running(data, at, reached, store)?, None),
            CloneMode::Cold => {
                let server = Throwaway::start(data, at, place, reached, mount)?;
                (server.id().to_owned(), Some(server))
            }
        };
        let mut server = Self { throwaway, ..Self::inside(data, at, store, container)? };
        if let Some(throwaway) = server.throwaway.take() {
            // It answers once recovery is over.
            throwaway.wait(&server)?;
            server.throwaway = Some(throwaway);
        }
        Ok(server)
    }

    /// The server of a store in a container that runs already.
    pub fn inside(
        data: &'a ComposeData,
        at: &Placement<'_>,
        store: &StoreName,
        container: String,
    ) -> Result<Self, EngineError> {
        let (_, reached) = reached(at, store)?;
        // What the configuration says now counts, also for a generation that was made under an older one.
        let mut reached = reached.clone();
        if let Some(configured) = at.config.stores.get(store) {
            reached.password_env.clone_from(&configured.password_env);
            reached.databases.clone_from(&configured.databases);
            reached.user = configured.user.clone().unwrap_or(reached.user);
        }
        let reached = &reached;
        let env = environment_of(at, &reached.service);
        let password = reached.password_env.as_ref().and_then(|name| env.get(name).cloned());
        if let Some(name) = &reached.password_env
            && password.is_none()
        {
            return Err(EngineError::refused(
                format!("stores.{store}.password_env: {} has no variable {name}", reached.service),
                "name the variable of its environment that holds the password",
            ));
        }
        let first = reached.databases.first().cloned().or_else(|| env.get("POSTGRES_DB").cloned());
        Ok(Self {
            docker: &data.docker,
            container,
            user: reached.user.clone(),
            password,
            databases: reached.databases.clone(),
            main: first.unwrap_or_else(|| reached.user.clone()),
            throwaway: None,
        })
    }

    /// The same, ending its own server when it is closed.
    pub fn owning(self, throwaway: Throwaway<'a>) -> Self {
        Self { throwaway: Some(throwaway), ..self }
    }

    /// Its container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The role and its password, as the base backup connects with.
    pub fn login(&self) -> (String, Option<String>) {
        (self.user.clone(), self.password.clone())
    }

    /// The databases that are compared; empty means all.
    pub fn databases(&self) -> &[String] {
        &self.databases
    }

    /// Ends a throwaway server, also after an error.
    pub fn close<T>(mut self, result: Result<T, PgError>) -> Result<T, EngineError> {
        let ended = self.throwaway.take().map_or(Ok(()), Throwaway::end);
        let value = result.map_err(engine_error)?;
        ended?;
        Ok(value)
    }

    /// The first value that a query yields, as JSON.
    pub fn value(&self, sql: &str, values: &[Value]) -> Result<Value, String> {
        let mut query = sql.trim().trim_end_matches(';').to_owned();
        // Workflows number their values as SQLite does.
        for number in (1..=values.len()).rev() {
            query = query.replace(&format!("?{number}"), &format!("${number}"));
        }
        // Values are bound, not pasted: the server quotes them by their type.
        let script = if values.is_empty() {
            format!("BEGIN READ ONLY;\nSELECT to_json(t) FROM (\n{query}\n) t LIMIT 1;\nCOMMIT;\n")
        } else {
            let list: Vec<String> = values.iter().map(literal).collect();
            format!(
                "BEGIN READ ONLY;\nPREPARE asked AS SELECT to_json(t) FROM (\n{query}\n) t LIMIT 1;\nEXECUTE asked({});\nCOMMIT;\n",
                list.join(", ")
            )
        };
        let mut out = Vec::new();
        self.script(&self.main, &script, &mut out, &|| false).map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&out);
        let Some(line) = text.lines().find(|l| !l.trim().is_empty()) else {
            return Err("the query yields no row".to_owned());
        };
        let row: Value = serde_json::from_str(line).map_err(|e| format!("unexpected answer: {e}"))?;
        match row {
            Value::Object(columns) => columns
                .into_iter()
                .next()
                .map(|(_, v)| v)
                .ok_or_else(|| "the query yields no column".to_owned()),
            other => Ok(other),
        }
    }
}

/// A value as an SQL literal; `standard_conforming_strings` does not matter to this form.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => quoted(s),
        other => quoted(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Where a store lies and how its server is reached.
fn reached<'i>(at: &Placement<'i>, store: &StoreName) -> Result<(&'i StorePlace, &'i Reached), EngineError> {
    let place = at.instance.stores.get(store);
    place
        .and_then(|p| Some((p, p.server.as_ref()?)))
        .ok_or_else(|| EngineError::Internal { detail: format!("{store} has no server") })
}

fn running(
    data: &ComposeData,
    at: &Placement<'_>,
    reached: &Reached,
    store: &StoreName,
) -> Result<String, EngineError> {
    match container_of(&data.docker, at.instance, &reached.service)? {
        Some(container) if container.state.running => Ok(container.id),
        _ => Err(EngineError::refused(
            format!("stores.{store}: {} does not run in {}", reached.service, at.instance.key()),
            "start it; a Postgres store is read through its server",
        )),
    }
}

/// An error of the store as one of the engine, with what to do.
pub fn engine_error(error: PgError) -> EngineError {
    match error {
        PgError::Store(e) => EngineError::Store(e),
        PgError::Cancelled => EngineError::Store(crate::store::StoreError::Cancelled),
        other => {
            let hint = match other.sqlstate() {
                _ if other.is_denied() => {
                    "check `user` and `password_env` of the store in switchback.yaml: psql connects as that user over the socket in the container"
                }
                Some("28P01" | "28000") => "check `user` and `password_env` of the store in switchback.yaml",
                Some("42501") => "the role must be able to read everything: use the superuser",
                _ => "see the server's log: `docker logs`",
            };
            EngineError::refused(other.to_string(), hint)
        }
    }
}

impl Psql for Server<'_> {
    fn script(
        &self,
        database: &str,
        sql: &str,
        out: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), PgError> {
        // `-w`: a prompt would take the script from the input for a password.
        let argv =
            ["psql", "-X", "-w", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", &self.user, "-d", database];
        let spec = ExecSpec {
            argv: argv.map(str::to_owned).to_vec(),
            env: self.password.iter().map(|p| ("PGPASSWORD".to_owned(), p.clone())).collect(),
            ..ExecSpec::default()
        };
        let mut input = sql.as_bytes();
        let ended = self.docker.exec(&self.container, &spec, Some(&mut input), out, cancel);
        match ended {
            Ok(ended) if ended.code == 0 => Ok(()),
            Ok(ended) if ended.code == 126 || ended.code == 127 => {
                Err(PgError::Start(format!("the image has no psql ({})", ended.stderr_tail.trim())))
            }
            Ok(ended) => Err(PgError::from_stderr(database, ended.stderr_tail.as_bytes())),
            Err(DockerError::Cancelled) => Err(PgError::Cancelled),
            Err(DockerError::Stream { source, .. }) => Err(PgError::Output(source)),
            Err(e) => Err(PgError::Start(e.to_string())),
        }
    }
}
