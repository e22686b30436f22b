//! MySQL and MariaDB servers that are asked through the client program in their own containers.
//!
//! Live data is asked through the server that runs on it; data at rest through a throwaway server.

use super::throwaway::Throwaway;
use super::{ComposeData, Work, mounts, place};
use crate::docker::{Docker, DockerError, ExecSpec};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::{container_of, environment_of};
use crate::store::mysql::{self, Client, MyError, Pages};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use switchback_core::data::{ExportStats, Fingerprint, StoreDiff};
use switchback_core::ids::StoreName;
use switchback_core::plan::CloneMode;
use switchback_core::prove::Damage;
use switchback_core::release::MountPlace;
use switchback_core::scaling::Shrunk;
use switchback_core::trace::Raw;

/// Runs the client that the image has. The password is in the environment, or in the file that the image's own variable names. Where
/// the socket lies is a matter of the image's configuration, which is not read: it could lead elsewhere.
const ASK: &str = r#"c=$(command -v mariadb || command -v mysql) || exit 127
f=${MARIADB_ROOT_PASSWORD_FILE:-${MYSQL_ROOT_PASSWORD_FILE:-}}
if [ -z "${MYSQL_PWD:-}" ] && [ -n "$f" ] && [ -r "$f" ]; then MYSQL_PWD=$(cat "$f"); export MYSQL_PWD; fi
for s in "${MYSQL_UNIX_PORT:-}" /run/mysqld/mysqld.sock /var/run/mysqld/mysqld.sock /var/lib/mysql/mysql.sock /tmp/mysql.sock; do
  if [ -n "$s" ] && [ -S "$s" ]; then exec "$c" --no-defaults --protocol=socket --socket="$s" "$@"; fi
done
exec "$c" --no-defaults --protocol=socket "$@""#;
/// Variables of the images that hold the password of `root`.
const PASSWORDS: [&str; 2] = ["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"];
/// Variables that would lead the client to another server.
const ELSEWHERE: [&str; 2] = ["MYSQL_HOST", "MYSQL_TCP_PORT"];

/// A server that can be asked.
pub struct MyServer<'a> {
    docker: &'a Docker,
    container: String,
    user: String,
    password: Option<String>,
    databases: Vec<String>,
    /// The database that a person's own query means.
    main: Option<String>,
    throwaway: Option<Throwaway<'a>>,
}

impl<'a> MyServer<'a> {
    /// The server of a store; on data at rest, one that is started for it.
    pub fn open(
        data: &'a ComposeData,
        at: &Placement<'_>,
        store: &StoreName,
        mount: &MountPlace,
        mode: CloneMode,
    ) -> Result<Self, EngineError> {
        let missing = || EngineError::Internal { detail: format!("{store} has no server") };
        let (place, _) = place(at, store)?;
        let mut reached = place.server.clone().ok_or_else(missing)?;
        // What the configuration says now counts, also for a generation that was made under an older one.
        if let Some(configured) = at.config.stores.get(store) {
            reached.password_env.clone_from(&configured.password_env);
            reached.databases.clone_from(&configured.databases);
            reached.user = configured.user.clone().unwrap_or(reached.user);
        }
        let env = environment_of(at, &reached.service);
        let password = match &reached.password_env {
            Some(name) => Some(env.get(name).cloned().ok_or_else(|| {
                EngineError::refused(
                    format!("stores.{store}.password_env: {} has no variable {name}", reached.service),
                    "name the variable of its environment that holds the password",
                )
            })?),
            None => PASSWORDS.iter().find_map(|name| env.get(*name).cloned()),
        };
        let of_image = ["MARIADB_DATABASE", "MYSQL_DATABASE"].iter().find_map(|name| env.get(*name).cloned());
        let mut server = Self {
            docker: &data.docker,
            container: String::new(),
            main: reached.databases.first().cloned().or(of_image),
            user: reached.user.clone(),
            password,
            databases: reached.databases.clone(),
            throwaway: None,
        };
        if mode == CloneMode::Live {
            server.container = match container_of(&data.docker, at.instance, &reached.service)? {
                Some(container) if container.state.running => container.id,
                _ => {
                    return Err(EngineError::refused(
                        format!("stores.{store}: {} does not run in {}", reached.service, at.instance.key()),
                        "start it; the databases of a server are read through it",
                    ));
                }
            };
            return Ok(server);
        }
        let more: Vec<String> = mysql::HARMLESS.map(str::to_owned).to_vec();
        let throwaway = Throwaway::run(data, at, &reached, mount, more)?;
        throwaway.id().clone_into(&mut server.container);
        // It answers once recovery is over; nobody who was let in becomes so by waiting.
        throwaway.until(|| {
            let answer = server.script("", "SELECT 1;\n", &mut std::io::sink(), &|| false);
            answer.map_err(|e| (e.is_denied(), e.to_string()))
        })?;
        server.throwaway = Some(throwaway);
        Ok(server)
    }

    /// Ends a throwaway server, also after an error.
    fn close<T>(mut self, result: Result<T, MyError>) -> Result<T, EngineError> {
        let ended = self.throwaway.take().map_or(Ok(()), Throwaway::end);
        let value = result.map_err(engine_error)?;
        ended?;
        Ok(value)
    }
}

impl ComposeData {
    /// Reads what a traced server of a copy logged; one that does not run has told nobody.
    pub(super) fn mysql_traced(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mount: &MountPlace,
        ago_ms: Option<u64>,
        work: &Work<'_>,
    ) -> Result<Option<Raw>, EngineError> {
        let server = MyServer::open(self, at, store, mount, CloneMode::Live)?;
        if server.user != mysql::trace::MAY {
            return Ok(None);
        }
        let read = mysql::trace::read(&server, ago_ms, work.progress);
        server.close(read)
    }
}

fn engine_error(error: MyError) -> EngineError {
    match error {
        MyError::Store(e) => EngineError::Store(e),
        MyError::Cancelled => EngineError::Store(crate::store::StoreError::Cancelled),
        other if other.is_denied() => EngineError::refused(
            other.to_string(),
            "check `user` and `password_env` of the store in switchback.yaml: the client connects as that user over the socket in the container",
        ),
        other => EngineError::refused(other.to_string(), "see the server's log: `docker logs`"),
    }
}

impl Client for MyServer<'_> {
    fn script(
        &self,
        about: &str,
        sql: &str,
        out: &mut dyn Write,
        cancel: &dyn Fn() -> bool,
    ) -> Result<(), MyError> {
        let user = format!("--user={}", self.user);
        let options = [
            "--batch",
            "--skip-column-names",
            "--quick",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
            user.as_str(),
        ];
        let argv = ["sh", "-c", ASK, "sh"].into_iter().chain(options);
        let mut env: Vec<(String, String)> =
            ELSEWHERE.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        env.extend(self.password.iter().map(|p| ("MYSQL_PWD".to_owned(), p.clone())));
        let spec = ExecSpec { argv: argv.map(str::to_owned).collect(), env, ..ExecSpec::default() };
        let mut input = sql.as_bytes();
        let ended = self.docker.exec(&self.container, &spec, Some(&mut input), out, cancel);
        match ended {
            Ok(ended) if ended.code == 0 => Ok(()),
            Ok(ended) if ended.code == 126 || ended.code == 127 => Err(MyError::Start(format!(
                "the image has no mariadb or mysql ({})",
                ended.stderr_tail.trim()
            ))),
            Ok(ended) => Err(MyError::from_stderr(about, ended.stderr_tail.as_bytes())),
            Err(DockerError::Cancelled) => Err(MyError::Cancelled),
            Err(DockerError::Stream { source, .. }) => Err(MyError::Output(source)),
            Err(e) => Err(MyError::Start(e.to_string())),
        }
    }
}

impl ComposeData {
    fn mysql(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
    ) -> Result<MyServer<'_>, EngineError> {
        let (_, mount) = place(at, store)?;
        MyServer::open(self, at, store, mount, mode)
    }

    pub(super) fn mysql_fingerprint(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Fingerprint, EngineError> {
        let server = self.mysql(at, store, mode)?;
        let found = mysql::fingerprint(&server, &server.databases, work.progress);
        server.close(found)
    }

    pub(super) fn mysql_counts(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<BTreeMap<String, u64>, EngineError> {
        let server = self.mysql(at, store, mode)?;
        let found = mysql::counts(&server, &server.databases, work.progress);
        server.close(found)
    }

    pub(super) fn mysql_integrity(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        mode: CloneMode,
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let server = self.mysql(at, store, mode)?;
        let pages = if at.instance.is_production() { Pages::Skip } else { Pages::Check };
        let found = mysql::integrity(&server, &server.databases, pages, work.progress);
        server.close(found)
    }

    /// Asks two servers, and ends both.
    fn mysql_both<T>(
        &self,
        (before, old): (&Placement<'_>, &MountPlace),
        (after, new, mode): (&Placement<'_>, &MountPlace, CloneMode),
        store: &StoreName,
        ask: impl FnOnce(&MyServer<'_>, &MyServer<'_>) -> Result<T, MyError>,
    ) -> Result<T, EngineError> {
        let was = MyServer::open(self, before, store, old, CloneMode::Cold)?;
        let is = match MyServer::open(self, after, store, new, mode) {
            Ok(is) => is,
            Err(e) => return was.close(Ok(())).and(Err(e)),
        };
        let found = ask(&was, &is);
        let found = is.close(found);
        was.close(Ok(())).and(found)
    }

    pub(super) fn mysql_diff(
        &self,
        before: &Placement<'_>,
        after: &Placement<'_>,
        mode: CloneMode,
        store: &StoreName,
        work: &Work<'_>,
    ) -> Result<StoreDiff, EngineError> {
        let ((_, old), (_, new)) = (place(before, store)?, place(after, store)?);
        self.mysql_both((before, old), (after, new, mode), store, |was, is| {
            mysql::diff(was, is, &is.databases, work.progress)
        })
    }

    pub(super) fn mysql_export(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        out: &Path,
        work: &Work<'_>,
    ) -> Result<ExportStats, EngineError> {
        let (_, mount) = place(at, store)?;
        let base = mounts::base_of(mount);
        self.mysql_both((at, &base), (at, mount, CloneMode::Cold), store, |was, is| {
            mysql::export(was, is, &is.databases, out, work.progress)
        })
    }

    pub(super) fn mysql_damage(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (damage, not): (Damage, &[String]),
        work: &Work<'_>,
    ) -> Result<u64, EngineError> {
        let server = self.mysql(at, store, CloneMode::Cold)?;
        let done = mysql::damage(&server, &server.databases, damage, not, work.progress);
        server.close(done)
    }

    pub(super) fn mysql_shrink(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        (percent, not): (u8, &[String]),
        work: &Work<'_>,
    ) -> Result<Shrunk, EngineError> {
        let server = self.mysql(at, store, CloneMode::Cold)?;
        let done = mysql::shrink(&server, &server.databases, percent, not, work.progress);
        server.close(done)
    }

    pub(super) fn mysql_value(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        sql: &str,
        values: &[Value],
    ) -> Result<Value, String> {
        let server = self.mysql(at, store, CloneMode::Live).map_err(|e| e.to_string())?;
        mysql::asked(&server, server.main.as_deref(), sql, values)
    }
}
