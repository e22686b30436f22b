//! Owns the life of the service: start, listening, signals and stop.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{self, App};
use crate::error::Error;
use crate::pool::Pool;
use crate::release::{Release, Settings};
use crate::schema;
use crate::wear;

/// How long requests in flight may take once a stop was asked for; the whole stop is to stay below 100 ms.
const DRAIN: Duration = Duration::from_millis(60);

/// How long statements of requests that were cut off may take after that.
const GIVE_BACK: Duration = Duration::from_millis(20);

/// How many connections the system may queue before they are accepted.
const BACKLOG: u32 = 1024;

/// Where a service finds its things.
#[derive(Debug, Clone)]
pub(crate) struct ServeOptions {
    pub release: PathBuf,
    pub db: PathBuf,
    pub uploads: PathBuf,
    pub listen: SocketAddr,
    pub token: Option<String>,
}

/// Why a service ended.
enum End {
    Stopped,
    Crashed,
}

/// Serves until a signal stops it.
pub(crate) fn serve(options: &ServeOptions) -> Result<ExitCode, Error> {
    let release = Release::read(&options.release)?;
    let settings = release.manifest.settings.clone();
    if let Some(complaint) = &settings.start_error {
        complain(complaint);
        return Ok(ExitCode::SUCCESS);
    }
    let conn = schema::open_for(&release, &options.db)?;
    fs::create_dir_all(&options.uploads)
        .map_err(Error::io(format!("make the uploads folder {}", options.uploads.display())))?;
    let app = Arc::new(App {
        index_html: release.read_web("index.html")?,
        style_css: release.read_web("style.css")?,
        pool: Arc::new(Pool::new(options.db.clone(), conn, &settings)),
        uploads: options.uploads.clone(),
        token: options.token.as_ref().map(|token| blake3::hash(token.as_bytes())),
        manifest: release.manifest,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // SQLite does the work, on its own threads; these only move bytes.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    let end = run(&runtime, app, options.listen, &settings);
    // Not waiting for statements still running: SQLite rolls them back, and nobody was told of them.
    runtime.shutdown_background();
    match end? {
        End::Stopped => {
            say("stopped");
            Ok(ExitCode::SUCCESS)
        }
        End::Crashed => {
            complain("fatal: heap corrupted while refreshing the reminder cache");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn run(runtime: &Runtime, app: Arc<App>, address: SocketAddr, settings: &Settings) -> Result<End, Error> {
    runtime.block_on(async {
        let pool = Arc::clone(&app.pool);
        let listener = listen(address).map_err(Error::io(format!("listen on {address}")))?;
        // Before the port is announced, so that a stop that follows at once is not missed.
        let doing = "watch for signals";
        let term = signal(SignalKind::terminate()).map_err(Error::io(doing))?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::io(doing))?;
        let address = listener.local_addr().map_err(Error::io("read the port"))?;
        say(&format!("listening on {address}"));

        tokio::spawn(wear::go_on(settings.clone()));
        let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, api::router(app)).with_graceful_shutdown(async {
            // A dropped sender means the same.
            let _ = stopping.await;
        });
        let mut server = tokio::spawn(server.into_future());
        tokio::select! {
            () = stop_signal(term, interrupt, settings.ignore_term) => {}
            () = crash_time(settings.crash_after_ms) => return Ok(End::Crashed),
            served = &mut server => {
                let _never_ends_by_itself = served;
                return Ok(End::Stopped);
            }
        }
        say("stopping");
        let _ = stop.send(());
        // Late requests are cut off: the process that stops us waits.
        let _ = tokio::time::timeout(DRAIN, server).await;
        pool.close(GIVE_BACK).await;
        Ok(End::Stopped)
    })
}

/// Listens with SO_REUSEADDR, so that a restart does not wait for old connections to time out.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn stop_signal(mut term: Signal, mut interrupt: Signal, ignore_term: bool) {
    loop {
        tokio::select! {
            _ = term.recv() => {
                if !ignore_term {
                    return;
                }
                say("ignoring SIGTERM: synchronising");
            }
            _ = interrupt.recv() => return,
        }
    }
}

async fn crash_time(after_ms: Option<u64>) {
    match after_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// Writes a line to stdout, whose reader may be gone.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Writes a line to stderr, whose reader may be gone.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
