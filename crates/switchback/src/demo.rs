//! The demo: the whole story on a small real stack, in a folder of its own.
//!
//! Nothing here is staged: the same engine, watchdog and reports as everywhere, real processes, a real
//! migration, and users (a thread) whose every acknowledged write is accounted for at the end.

use crate::cli::run::{cancel_on_signals, journal, trial_ended, write_report};
use crate::cli::{Exit, Global, Output, Trouble};
use crate::progress::Progress;
use assistant::{PlaceProgram, ReleaseKind};
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use switchback_core::duration::human_ms;
use switchback_core::ids::{RunId, ServiceName};
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::{Plan, Procedure};
use switchback_core::report::{Conclusion, Report};
use switchback_engine::engine::{Notice, RunEnd};
use switchback_engine::gather::{Target, free_ports};
use switchback_engine::home::Home;
use switchback_engine::runtime::Stage;
use switchback_engine::session::Session;

/// Options of the demo.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Make the stack in this (new) folder and leave it running
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

const CONFIG: &str = include_str!("../../../examples/assistant/stack/switchback.yaml");
const NOTES: &str = include_str!("../../../examples/assistant/stack/checks/notes.yaml");
const READING: &str = include_str!("../../../examples/assistant/stack/checks/reading.yaml");

const RELEASES: [ReleaseKind; 4] =
    [ReleaseKind::V1, ReleaseKind::V2, ReleaseKind::LossyMigration, ReleaseKind::LeakyPool];

#[derive(Debug, Serialize)]
struct Summary {
    folder: PathBuf,
    took_ms: u64,
    chapters: Vec<Chapter>,
    writes_acknowledged: usize,
    writes_exported: usize,
    writes_lost: usize,
    reports: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Chapter {
    title: String,
    result: String,
    conclusion: Conclusion,
    rollback_ms: Option<u64>,
    downtime_ms: Option<u64>,
    as_expected: bool,
}

struct Demo<'a> {
    global: &'a Global,
    home: Home,
    progress: Progress,
    port: u16,
    token: String,
    chapters: Vec<Chapter>,
    reports: Vec<PathBuf>,
}

/// Runs the demo.
pub fn demo(global: &Global, args: &DemoArgs) -> Result<Exit, Trouble> {
    let began = Instant::now();
    cancel_on_signals();
    let folder = match &args.keep {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("switchback-demo-{}", std::process::id())),
    };
    if folder.join("switchback.yaml").exists() {
        return Err(Trouble::usage(
            format!("{} holds a stack already", folder.display()),
            "name a new folder",
        ));
    }
    let progress = Progress::new(global.quiet || global.json);
    progress
        .line("Switchback demo: a small personal assistant (HTTP, SQLite, uploads) is upgraded three times.");
    let port = free_ports(1)?.into_iter().next().unwrap_or(8765);
    let token = switchback_engine::gather::new_run().to_string();
    set_up(&folder, port, &token)?;
    let home = Home::open(&folder)?;
    let mut demo = Demo { global, home, progress, port, token, chapters: Vec::new(), reports: Vec::new() };
    let told = demo.tell();
    if args.keep.is_none() || told.is_err() {
        demo.shut_down();
    }
    let (acknowledged, exported) = told?;
    let lost = acknowledged.difference(&exported).count();
    let summary = Summary {
        folder,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        chapters: std::mem::take(&mut demo.chapters),
        writes_acknowledged: acknowledged.len(),
        writes_exported: exported.len(),
        writes_lost: lost,
        reports: std::mem::take(&mut demo.reports),
    };
    drop(demo);
    let good = lost == 0 && summary.chapters.iter().all(|c| c.as_expected);
    show(global, &summary, args.keep.is_some())?;
    Ok(if good { Exit::Done } else { Exit::Internal })
}

fn broken(what: &str) -> impl Fn(std::io::Error) -> Trouble + '_ {
    move |e| Trouble { exit: Exit::Internal, message: format!("the demo cannot {what}: {e}"), hint: None }
}

fn set_up(folder: &Path, port: u16, token: &str) -> Result<(), Trouble> {
    let config = CONFIG.replace("http: 8765", &format!("http: {port}"));
    install(folder, &RELEASES, PlaceProgram::Copy, 2000, &config, token).map_err(broken("make its stack"))
}

/// Makes the example's stack as its documentation is tried on it: impatient, so that nobody waits for trials, or with one that
/// is still running when somebody looks.
pub fn example(folder: &Path, long: bool) -> std::io::Result<()> {
    let port = free_ports(1).map_err(std::io::Error::other)?.into_iter().next().unwrap_or(8765);
    let watch = if long { "watch: 1h, every: 100ms" } else { "watch: 2s, every: 100ms" };
    let config = CONFIG
        .replace("http: 8765", &format!("http: {port}"))
        .replace("stable: 500ms", "stable: 100ms")
        .replace("watch: 6s, every: 250ms", watch);
    let token = switchback_engine::gather::new_run().to_string();
    let releases = [ReleaseKind::V1, ReleaseKind::V2, ReleaseKind::LossyMigration];
    install(folder, &releases, PlaceProgram::Symlink, 40, &config, &token)
}

/// Installs releases, data, checks and configuration in a folder.
fn install(
    folder: &Path,
    releases: &[ReleaseKind],
    place: PlaceProgram,
    notes: usize,
    config: &str,
    token: &str,
) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    for dir in ["data", "checks"] {
        fs::create_dir_all(folder.join(dir))?;
    }
    for kind in releases {
        let dir = folder.join("releases").join(kind.version());
        assistant::write_release(&dir, *kind, &program, place)?;
    }
    assistant::seed(&folder.join("data/assistant.db"), &folder.join("data/uploads"), notes, 12, 1)
        .map_err(|e| std::io::Error::other(e.to_string()))?;
    let write = |name: &str, text: &str| fs::write(folder.join(name), text);
    write("switchback.yaml", config)?;
    write("checks/notes.yaml", NOTES)?;
    write("checks/reading.yaml", READING)?;
    let token = format!("ASSISTANT_TOKEN={token}\n");
    switchback_engine::home::write_atomic(&folder.join("assistant.env"), token.as_bytes())
        .map_err(std::io::Error::other)
}

type Ids = BTreeSet<i64>;

impl Demo<'_> {
    /// The three upgrades; returns the writes that users were told are safe, and those found exported.
    fn tell(&mut self) -> Result<(Ids, Ids), Trouble> {
        self.heading("1/6  Start version 1.0.0, adopted as generation 1");
        self.run("Version 1.0.0 starts", Conclusion::Pass, |session, config| {
            session.plan_up(config, &Stage::quiet())
        })?;

        self.heading("2/6  Rehearse 2.0.0 on a clone: migration, checks, rollback for real");
        let good = self.target("2.0.0")?;
        self.run("2.0.0 is rehearsed", Conclusion::Pass, |s, c| s.plan_rehearsal(c, &good, &Stage::quiet()))?;

        self.heading("3/6  Promote 2.0.0; users are writing meanwhile");
        let users = Users::begin(self.port, &self.token);
        let run = self.run("2.0.0 is promoted", Conclusion::OnTrial, |s, c| {
            s.plan_promotion(c, &good, None, &Stage::quiet())
        })?;
        let passed = matches!(self.wait_for_trial(&run)?, Event::TrialConfirmed { .. });
        self.chapter(
            "2.0.0 passes its trial",
            &run,
            if passed { Conclusion::Pass } else { Conclusion::RolledBack },
            Conclusion::Pass,
        )?;
        users.end();

        self.heading("4/6  Rehearse 2.1.0, whose migration quietly loses rows");
        let lossy = self.target("2.1.0")?;
        self.run("2.1.0 is refused by its rehearsal", Conclusion::Refused, |s, c| {
            s.plan_rehearsal(c, &lossy, &Stage::quiet())
        })?;

        self.heading("5/6  Rehearse 2.2.0, which leaks a database connection with every request");
        let leaky = self.target("2.2.0")?;
        self.run("2.2.0 passes: nothing shows in so short a time", Conclusion::Pass, |s, c| {
            s.plan_rehearsal(c, &leaky, &Stage::quiet())
        })?;

        self.heading("6/6  Promote 2.2.0; its users make it fail, and the watchdog rolls it back");
        let run = self.run("2.2.0 is promoted", Conclusion::OnTrial, |s, c| {
            s.plan_promotion(c, &leaky, None, &Stage::quiet())
        })?;
        let users = Users::begin(self.port, &self.token);
        let failed = matches!(self.wait_for_trial(&run)?, Event::TrialFailed { .. });
        let acknowledged = users.end();
        if !failed {
            return Err(Trouble {
                exit: Exit::Internal,
                message: "2.2.0 did not fail its trial".into(),
                hint: None,
            });
        }
        self.progress.line("  ✗ The trial failed; the watchdog rolls back, nobody is asked.");
        let rollback = self.wait_for_rollback(&run)?;
        self.chapter("2.2.0 is rolled back automatically", &rollback, Conclusion::Pass, Conclusion::Pass)?;
        write_report(&self.home, &run)?;
        // Writes that reached the old version after the rollback are in production itself.
        let exported = self.exported()?;
        let in_production = self.in_production(&acknowledged)?;
        Ok((acknowledged, exported.union(&in_production).copied().collect()))
    }

    fn heading(&self, text: &str) {
        self.progress.line(&format!("\n{text}"));
    }

    fn target(&self, version: &str) -> Result<Target, Trouble> {
        let name = ServiceName::new("app").map_err(|e| Trouble::usage(e.to_string(), ""))?;
        Ok(Target { versions: BTreeMap::from([(name, version.to_owned())]) })
    }

    fn run(
        &mut self,
        title: &str,
        expected: Conclusion,
        plan: impl FnOnce(
            &Session<'_>,
            &switchback_core::config::Config,
        ) -> Result<Plan, switchback_engine::error::EngineError>,
    ) -> Result<RunId, Trouble> {
        let home = self.home.clone();
        let config = home.config()?;
        let mut session = Session::open(&home, "demo", Duration::from_secs(20))?;
        let plan = plan(&session, &config)?;
        let cancel = cancel_on_signals();
        let end = session
            .carry_out(&plan, &config, &cancel, &|notice: &Notice<'_>| self.progress.notice(notice))?;
        if end == RunEnd::Interrupted {
            return Err(Trouble { exit: Exit::Interrupted, message: "interrupted".into(), hint: None });
        }
        if let RunEnd::Ended(Outcome::NeedsOperator { reasons }) = &end {
            return Err(Trouble { exit: Exit::NeedsOperator, message: reasons.join("; "), hint: None });
        }
        let report = write_report(&home, &plan.run)?;
        self.progress.line(&format!("  → {}", report.headline));
        for reason in report.reasons.iter().take(3) {
            self.progress.line(&format!("    {reason}"));
        }
        self.push(title, &report, report.conclusion, expected);
        Ok(plan.run)
    }

    fn chapter(
        &mut self,
        title: &str,
        run: &RunId,
        found: Conclusion,
        expected: Conclusion,
    ) -> Result<(), Trouble> {
        let report = write_report(&self.home, run)?;
        self.progress.line(&format!("  → {}", report.headline));
        self.push(title, &report, found, expected);
        Ok(())
    }

    fn push(&mut self, title: &str, report: &Report, found: Conclusion, expected: Conclusion) {
        self.reports.push(self.home.run_dir(&report.run).join("report.html"));
        self.chapters.push(Chapter {
            title: title.to_owned(),
            result: report.headline.clone(),
            conclusion: found,
            rollback_ms: report.times.rollback_ms,
            downtime_ms: report.times.downtime_ms,
            as_expected: found == expected,
        });
    }

    fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, Trouble>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if cancel_on_signals().requested() {
                return Err(Trouble { exit: Exit::Interrupted, message: "interrupted".into(), hint: None });
            }
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.progress.notice(&Notice::Doing { text: what, done: 0, total: 0 });
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Trouble { exit: Exit::Internal, message: format!("{what}: not within 30 s"), hint: None })
    }

    fn wait_for_trial(&self, run: &RunId) -> Result<Event, Trouble> {
        self.progress.line("  … on trial; a detached watchdog probes it every 250 ms");
        self.wait("on trial", || Ok(trial_ended(&self.home, run)?))
    }

    fn wait_for_rollback(&self, after: &RunId) -> Result<RunId, Trouble> {
        self.wait("rolling back", || {
            let Some(journal) = journal(&self.home)? else { return Ok(None) };
            let Some(last) = journal.runs(1)?.pop() else { return Ok(None) };
            let (plan, state, _) = journal.load(&last)?;
            let done = plan.procedure == Procedure::Rollback && last > *after && state.ended.is_some();
            Ok(done.then_some(last))
        })
    }

    /// Ids of the notes that the rollback exported.
    fn exported(&self) -> Result<Ids, Trouble> {
        let mut ids = Ids::new();
        let exports = self.home.state().join("exports");
        for entry in fs::read_dir(&exports).map_err(broken("read the exports"))?.flatten() {
            let text = fs::read_to_string(entry.path().join("db/notes.jsonl")).unwrap_or_default();
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
                ids.extend(value["key"]["id"].as_i64().filter(|_| value["op"] == "insert"));
            }
        }
        Ok(ids)
    }

    fn in_production(&self, wanted: &Ids) -> Result<Ids, Trouble> {
        let client = Client { port: self.port, token: self.token.clone() };
        Ok(wanted
            .iter()
            .copied()
            .filter(|id| client.get(&format!("/api/notes/{id}")).is_some_and(|(s, _)| s == 200))
            .collect())
    }

    /// Leaves nothing running, whatever happened before.
    fn shut_down(&self) {
        let down = || -> Result<(), Trouble> {
            let config = self.home.config()?;
            let mut session = Session::open(&self.home, "demo", Duration::from_secs(20))?;
            let plan = session.plan_down(&config)?;
            session.carry_out(&plan, &config, &switchback_engine::engine::Cancel::default(), &|_| {})?;
            Ok(())
        };
        if let Err(trouble) = down() {
            trouble.print(self.global.json);
            let _ = switchback_engine::runtime::process::kill_below(&self.home, "", &[]);
        }
    }
}

/// A client of the demo's service, over a plain TCP connection: it needs nothing but status and body.
#[derive(Clone)]
struct Client {
    port: u16,
    token: String,
}

impl Client {
    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.send(&format!("GET {path} HTTP/1.1\r\n"), "")
    }

    fn send(&self, head: &str, body: &str) -> Option<(u16, String)> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        let request = format!(
            "{head}Host: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }
}

/// Users that write notes until told to stop, and remember every write that was acknowledged.
struct Users {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Ids>,
}

impl Users {
    fn begin(port: u16, token: &str) -> Self {
        let client = Client { port, token: token.to_owned() };
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Ids::new();
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                number += 1;
                let body = serde_json::json!({ "title": format!("user note {number}") }).to_string();
                if let Some((201, answer)) = client.send("POST /api/notes HTTP/1.1\r\n", &body)
                    && let Ok(note) = serde_json::from_str::<serde_json::Value>(&answer)
                {
                    acknowledged.extend(note["id"].as_i64());
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            acknowledged
        });
        Self { stop, thread }
    }

    fn end(self) -> Ids {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn show(global: &Global, summary: &Summary, kept: bool) -> Result<(), Trouble> {
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(summary)?;
        return Ok(());
    }
    out.line("\nWhat happened")?;
    for chapter in &summary.chapters {
        let mark = if chapter.as_expected { "✓" } else { "✗" };
        let mut times = Vec::new();
        if let Some(ms) = chapter.rollback_ms {
            times.push(format!("rollback {}", human_ms(ms)));
        }
        if let Some(ms) = chapter.downtime_ms {
            times.push(format!("downtime {}", human_ms(ms)));
        }
        out.line(&format!("  {mark} {:<50} {}", chapter.title, times.join(", ")))?;
    }
    out.line(&format!(
        "  {} {} writes were acknowledged by the version that failed: {} found again, {} lost",
        if summary.writes_lost == 0 { "✓" } else { "✗" },
        summary.writes_acknowledged,
        summary.writes_acknowledged - summary.writes_lost,
        summary.writes_lost
    ))?;
    out.line(&format!("\nAll of it took {}. Reports (open in a browser):", human_ms(summary.took_ms)))?;
    let mut shown = BTreeSet::new();
    for (chapter, report) in summary.chapters.iter().zip(&summary.reports).rev() {
        if shown.insert(report) {
            out.line(&format!("  {:<50} {}", chapter.title, report.display()))?;
        }
    }
    if kept {
        out.line(&format!(
            "\nThe stack is still running. Look around:  cd {}  and  switchback status",
            summary.folder.display()
        ))?;
    } else {
        out.line(&format!("\nEverything is stopped. Remove it with  rm -r {}", summary.folder.display()))?;
    }
    Ok(())
}
