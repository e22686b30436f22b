//! Converting a clone of a Postgres cluster to another major version: dump and restore between two servers on one mount.
//!
//! Owns what is done around the servers. Everything happens in a folder within the clone's data directory: the old cluster is
//! moved there, the new one is made beside it, and takes its place in the end. It must only be used on scratch.

use super::server::{Server, engine_error};
use super::throwaway::Throwaway;
use super::{ComposeData, Work, owned, place};
use crate::docker::{ExecSpec, RunSpec};
use crate::error::EngineError;
use crate::runtime::Placement;
use crate::runtime::compose::{command_of, config_mounts_of, environment_of};
use crate::store::Progress;
use crate::store::postgres::convert::{LOAD, LOADING, objects, settings, shape};
use crate::store::postgres::{self, harmless_settings};
use std::io::Write;
use std::time::Instant;
use switchback_core::data::StoreKind;
use switchback_core::duration::{human_bytes, human_ms};
use switchback_core::ids::StoreName;
use switchback_core::plan::Majors;
use switchback_core::release::{MountPlace, Server as Reached};

/// The folder within the data directory.
const WORK: &str = ".switchback-convert";

/// Where programs of Postgres are, also in images that have them on nobody's path.
const PROGRAMS: &str = "PATH=\"$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' :)\"; ";

/// Moves the old cluster aside, and makes folders for sockets. `$1` is the data directory.
const ASIDE: &str = "set -eu; umask 077; cd \"$1\"; mkdir .switchback-convert; cd .switchback-convert; \
    mkdir old old.socket new.socket; cd ..; for f in * .[!.]*; do [ -e \"$f\" ] || [ -L \"$f\" ] || continue; \
    case $f in .switchback-convert) ;; *) mv \"$f\" .switchback-convert/old/ ;; esac; done; \
    echo 'local all all trust' > .switchback-convert/trust.conf";

/// Takes files over that the server's owner put beside the cluster (certificates and the like), who may log in, and the
/// settings on standard input. `$1` is the folder.
const OVER: &str = "set -eu; cd \"$1/old\"; for f in *; do [ -f \"$f\" ] || continue; case $f in \
    postmaster.*|current_logfiles|backup_*|tablespace_map*|*.old|*.signal) ;; \
    *) [ -e \"../new/$f\" ] || cp -p \"$f\" ../new/ ;; esac; done; cp -p pg_hba.conf pg_ident.conf ../new/; \
    cat >> ../new/postgresql.auto.conf";

/// Puts the new cluster in the place of the old one. `$1` is the data directory.
const INTO_PLACE: &str = "set -eu; cd \"$1\"; rm -rf .switchback-convert/old; cd .switchback-convert/new; \
    for f in * .[!.]*; do [ -e \"$f\" ] || continue; mv \"$f\" ../../; done; cd ../..; rm -rf .switchback-convert; sync";

/// Which stores of production a release needs converted.
pub(super) fn needed(
    data: &ComposeData,
    from: &Placement<'_>,
    to: &Placement<'_>,
) -> Result<Majors, EngineError> {
    let mut found = Majors::new();
    for (name, place) in &from.instance.stores {
        let (StoreKind::Postgres, Some(reached)) = (place.kind, &place.server) else { continue };
        let (Some(old), Some(new)) = (said(data, from, reached)?, said(data, to, reached)?) else { continue };
        if old.major == new.major {
            continue;
        }
        if !is_allowed(to, name, old.major, new.major) {
            return Err(refusal(name, &new.image, old.major, new.major));
        }
        if old.pgdata != new.pgdata {
            return Err(EngineError::refused(
                format!(
                    "stores.{name}: {} keeps its data at {}, and the data lies at {}",
                    new.image,
                    new.pgdata.as_deref().unwrap_or("another place"),
                    old.pgdata.as_deref().unwrap_or("another place"),
                ),
                format!(
                    "set PGDATA: {} in the environment of {}, and leave its volume mounted where it is",
                    old.pgdata.as_deref().unwrap_or("/var/lib/postgresql/data"),
                    reached.service
                ),
            ));
        }
        found.insert(name.clone(), (old.major, new.major));
    }
    Ok(found)
}

/// What an image of Postgres says of itself. Another one is found out in staging, where its server does not start.
pub(super) struct Said {
    pub(super) image: String,
    pub(super) major: u32,
    pgdata: Option<String>,
}

/// Whether the configuration lets the data be converted; never to an older version.
pub(super) fn is_allowed(to: &Placement<'_>, name: &StoreName, own: u32, target: u32) -> bool {
    target > own && to.config.stores.get(name).and_then(|s| s.major) == Some(target)
}

pub(super) fn said(
    data: &ComposeData,
    at: &Placement<'_>,
    reached: &Reached,
) -> Result<Option<Said>, EngineError> {
    let Some(image) = at.release.services.get(&reached.service).and_then(|s| s.image.as_ref()) else {
        return Ok(None);
    };
    let env = data.docker.image(&image.id)?.map(|i| i.env).unwrap_or_default();
    let value =
        |name: &str| env.iter().find_map(|e| e.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    let Some(major) = value("PG_MAJOR").and_then(|v| v.parse().ok()) else { return Ok(None) };
    let pgdata = environment_of(at, &reached.service).get("PGDATA").cloned().or_else(|| value("PGDATA"));
    Ok(Some(Said { image: image.reference.clone(), major, pgdata }))
}

/// An image of another major version than the data's.
pub(super) fn refusal(name: &StoreName, image: &str, own: u32, target: u32) -> EngineError {
    let message = format!(
        "stores.{name}: {image} is Postgres {target}, and the data was made by Postgres {own}: no server starts on the data of another major version"
    );
    EngineError::refused(
        message,
        if target > own {
            format!(
                "to have the data converted by dump and restore, write  major: {target}  at stores.{name} in switchback.yaml, and rehearse; else keep {own}"
            )
        } else {
            format!(
                "keep {own}: a dump of {own} cannot be restored into {target}; a rollback has the old data"
            )
        },
    )
}

impl ComposeData {
    pub(super) fn convert_store(
        &self,
        from: &Placement<'_>,
        to: &Placement<'_>,
        store: &StoreName,
        (old_major, new_major): (u32, u32),
        work: &Work<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let began = Instant::now();
        let ground = Ground::new(self, to, store)?;
        ground.run(to, ASIDE, &[&ground.data], "the old cluster cannot be moved aside")?;

        let folder = |name: &str| format!("{}/{name}", ground.work);
        let old = ground.start(from, store, old_major, "old", &[])?;
        let (old, shape) = old.closing(|server| shape(server).map_err(engine_error))?;

        let mut initdb = vec!["initdb".to_owned(), format!("--pgdata={}", folder("new"))];
        initdb.extend(shape.initdb(new_major));
        let made = ground.run(to, "exec \"$@\"", &initdb, "the new cluster cannot be made");
        let (old, ()) = old.closing(|_| made)?;
        let started = ground.start(to, store, new_major, "new", &LOADING);
        let (old, new) = old.closing(|_| started)?;

        (work.stage.say)(&format!("dumping and restoring {store}"));
        let sockets = (folder("old.socket"), folder("new.socket"));
        let args = [sockets.0, sockets.1, shape.owner.clone(), shape.first_role(), folder("new")];
        let mut meter = Meter { progress: work.progress, total: shape.bytes, rest: String::new() };
        let loaded = ground.exec(&new, LOAD, &args, None, &mut meter, work, "the data cannot be loaded");
        let (new, ()) = new.closing(|_| loaded)?;
        (work.stage.say)(&format!("collecting statistics of {store}"));
        let analyse = "exec vacuumdb -h \"$1\" -U \"$2\" --all --analyze-only --jobs=2 --quiet";
        let args = [folder("new.socket"), shape.owner.clone()];
        let analysed =
            ground.exec(&new, analyse, &args, None, &mut Vec::new(), work, "statistics cannot be collected");
        let (new, ()) = new.closing(|_| analysed)?;
        (work.stage.say)(&format!("counting the rows of {store}"));
        let same = same_counts(&old.server, &new.server, work.progress);
        let (new, rows) = new.closing(|_| same)?;
        let same = same_objects(&old.server, &new.server);
        let (new, ()) = new.closing(|_| same)?;
        let over = settings(&old.server, &new.server).map_err(engine_error);
        let (new, over) = new.closing(|_| over)?;
        let mut input = over.lines.as_bytes();
        let taken = ground.exec(
            &new,
            OVER,
            std::slice::from_ref(&ground.work),
            Some(&mut input),
            &mut Vec::new(),
            work,
            "files beside the cluster cannot be taken over",
        );
        let (new, ()) = new.closing(|_| taken)?;
        new.server.close(Ok(()))?;
        old.server.close(Ok(()))?;
        ground.run(to, INTO_PLACE, &[&ground.data], "the new cluster cannot be put in place")?;

        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut notes = vec![format!(
            "converted from Postgres {old_major} to {new_major} in {}: {}, {rows} rows",
            human_ms(ms),
            human_bytes(shape.bytes)
        )];
        if !over.taken.is_empty() {
            notes.push(format!("settings taken over: {}", over.taken.join(", ")));
        }
        if !over.unknown.is_empty() {
            notes.push(format!(
                "settings that Postgres {new_major} does not have, left out: {}",
                over.unknown.join(", ")
            ));
        }
        Ok(notes)
    }
}

/// Where a conversion takes place.
struct Ground<'a> {
    data_access: &'a ComposeData,
    mount: MountPlace,
    reached: Reached,
    /// The data directory, as containers see it.
    data: String,
    /// The folder for the conversion, likewise.
    work: String,
    /// Who owns the data.
    owner: String,
}

/// A server of one of the two clusters.
struct Running<'a> {
    server: Server<'a>,
}

impl<'a> Running<'a> {
    /// Goes on with what was found, or stops the server.
    fn closing<T>(
        self,
        work: impl FnOnce(&Server<'a>) -> Result<T, EngineError>,
    ) -> Result<(Self, T), EngineError> {
        match work(&self.server) {
            Ok(value) => Ok((self, value)),
            Err(e) => {
                // The error that led here is the one to report.
                let _ = self.server.close(Ok(()));
                Err(e)
            }
        }
    }
}

impl<'a> Ground<'a> {
    fn new(data: &'a ComposeData, at: &Placement<'_>, store: &StoreName) -> Result<Self, EngineError> {
        let (place, mount) = place(at, store)?;
        let reached = place.server.clone().ok_or_else(|| EngineError::Internal {
            detail: format!("{store} has no server to convert it with"),
        })?;
        let hands = data.hands(at.home)?;
        // Only what is scratch may be written to.
        data.scratch_place(at.home, &hands, mount)?;
        let files = hands.list((mount, &place.path))?;
        let version = files.into_iter().find(|e| e.name == "PG_VERSION").ok_or_else(|| {
            EngineError::refused(
                format!("stores.{store}: there is no PG_VERSION in the clone"),
                "clone it again",
            )
        })?;
        let target = reached.target.trim_end_matches('/');
        let folder = format!("{target}/{}", place.path);
        let folder = folder.trim_end_matches('/').to_owned();
        Ok(Self {
            data_access: data,
            mount: mount.clone(),
            work: format!("{folder}/{WORK}"),
            data: folder,
            owner: format!("{}:{}", version.uid, version.gid),
            reached,
        })
    }

    /// A container of a release's own image, as the owner of the data, without any network.
    fn spec(&self, at: &Placement<'_>, script: &str, args: Vec<String>) -> Result<RunSpec, EngineError> {
        let arguments = std::iter::once("sh".to_owned()).chain(args).collect();
        let script = format!("{PROGRAMS}{script}");
        owned::script(at, &self.reached, (&self.mount, &self.owner), &script, arguments)
    }

    /// Runs a script in a container of its own.
    fn run(
        &self,
        at: &Placement<'_>,
        script: &str,
        args: &[impl AsRef<str>],
        failed: &str,
    ) -> Result<(), EngineError> {
        let args = args.iter().map(|a| a.as_ref().to_owned()).collect();
        let spec = self.spec(at, script, args)?;
        let ended = self.data_access.docker.run(&spec, None, &mut Vec::new(), &|| false)?;
        if ended.code == 0 { Ok(()) } else { Err(told(failed, &ended.stderr_tail)) }
    }

    /// Starts a server on one of the two clusters.
    fn start(
        &self,
        at: &Placement<'_>,
        store: &StoreName,
        major: u32,
        which: &str,
        extra: &[&str],
    ) -> Result<Running<'a>, EngineError> {
        let socket = format!("{}/{which}.socket", self.work);
        let mut args = vec!["postgres".to_owned(), "-D".to_owned(), format!("{}/{which}", self.work)];
        let command = command_of(at, &self.reached.service);
        // What a person's command line sets, preloaded libraries above all, may be needed to read the data.
        match command.first() {
            Some(first) if first == "postgres" => args.extend(command.into_iter().skip(1)),
            Some(first) if first.starts_with('-') => args.extend(command),
            _ => {}
        }
        let mut set = |text: String| args.extend(["-c".to_owned(), text]);
        for (name, value) in harmless_settings(major) {
            set(format!("{name}={value}"));
        }
        set(format!("unix_socket_directories={socket}"));
        set(format!("hba_file={}/trust.conf", self.work));
        set("listen_addresses=".to_owned());
        set("port=5432".to_owned());
        set("logging_collector=off".to_owned());
        for text in extra {
            set((*text).to_owned());
        }
        let mut spec = self.spec(at, "exec \"$@\"", args)?;
        spec.mounts.extend(config_mounts_of(at, &self.reached.service));
        spec.env = vec![("PGHOST".to_owned(), socket)];
        let data = self.data_access;
        let id = data.docker.run_detached(&spec)?;
        let throwaway = Throwaway::of(&data.docker, id.clone());
        let server = Server::inside(data, at, store, id)?;
        throwaway.wait(&server)?;
        Ok(Running { server: server.owning(throwaway) })
    }

    /// Runs a script in the container of a server.
    #[expect(
        clippy::too_many_arguments,
        reason = "input, output and what is said of a failure differ each time"
    )]
    fn exec(
        &self,
        at: &Running<'_>,
        script: &str,
        args: &[String],
        input: Option<&mut (dyn std::io::Read + Send)>,
        out: &mut dyn Write,
        work: &Work<'_>,
        failed: &str,
    ) -> Result<(), EngineError> {
        let mut argv = vec!["sh".to_owned(), "-c".to_owned(), format!("{PROGRAMS}{script}"), "sh".to_owned()];
        argv.extend(args.iter().cloned());
        let spec = ExecSpec { argv, user: Some(self.owner.clone()), ..ExecSpec::default() };
        let cancelled = || (work.progress.cancel)();
        let docker = &self.data_access.docker;
        let ended = docker.exec(at.server.container(), &spec, input, out, &cancelled)?;
        if ended.code == 0 { Ok(()) } else { Err(told(failed, &ended.stderr_tail)) }
    }
}

fn told(failed: &str, stderr: &str) -> EngineError {
    // The first error is the cause, the rest follows from it.
    // `LINE 1: …` repeats the statement, which may be one with the digest of a password.
    let lines: Vec<&str> =
        stderr.lines().filter(|l| !l.trim().is_empty() && !l.starts_with("LINE ")).collect();
    let first = lines.iter().position(|l| l.contains("ERROR") || l.contains("error:")).unwrap_or(0);
    let shown: Vec<&str> = lines.into_iter().skip(first).take(4).collect();
    EngineError::refused(
        format!("{failed}: {}", shown.join("; ")),
        "nothing but a clone was touched; what speaks against the dump must be settled in production first (an extension that the new image lacks, say)",
    )
}

/// Confirms that every table has as many rows in both.
fn same_counts(old: &Server<'_>, new: &Server<'_>, progress: &Progress<'_>) -> Result<u64, EngineError> {
    let count = |server: &Server<'_>| postgres::counts(server, &[], progress).map_err(engine_error);
    let (was, is) = (count(old)?, count(new)?);
    if let Some((table, rows)) = was.iter().find(|(table, rows)| is.get(*table) != Some(rows)) {
        return Err(EngineError::refused(
            format!(
                "{table} has {rows} rows in the old cluster and {} in the new one",
                is.get(table).map_or_else(|| "no table".to_owned(), u64::to_string)
            ),
            "the dump is not the whole: look at row-level security and at extensions that keep tables of their own",
        ));
    }
    Ok(was.values().sum())
}

/// Confirms that every table, index, constraint and so on of the old cluster is in the new one.
fn same_objects(old: &Server<'_>, new: &Server<'_>) -> Result<(), EngineError> {
    let (was, is) = (objects(old).map_err(engine_error)?, objects(new).map_err(engine_error)?);
    let missing: Vec<&str> = was.difference(&is).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (count, some) = (missing.len(), missing.into_iter().take(4).collect::<Vec<_>>().join(", "));
    Err(EngineError::refused(
        format!("{count} of {} objects of the old cluster are not in the new one: {some}", was.len()),
        "nothing but a clone was touched; look at extensions that make objects of their own, and at what the new major version no longer has",
    ))
}

/// Reads sizes in KiB, a line each, and passes them on.
struct Meter<'p> {
    progress: &'p Progress<'p>,
    total: u64,
    rest: String,
}

impl Write for Meter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.push_str(&String::from_utf8_lossy(bytes));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Some(kib) = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()) {
                (self.progress.report)((kib << 10).min(self.total), self.total);
            }
            self.rest = rest.to_owned();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
