//! Proof that the checks of a stack can fail: known-bad upgrades are made on purpose, and have to be caught.
//!
//! Two staging environments of the same release, old and new. Faults are put into what goes to and from the new one by a proxy; the
//! services themselves are not changed. Both sides have a proxy, so that it makes no difference by itself.

mod control;
mod data;
mod environments;
mod fault;
mod live;
mod proxy;
mod trial;

pub use environments::{Request, on_stack};
pub use proxy::{Proxy, Record};

use crate::checks::{Suite, Target};
use crate::engine::now_ms;
use crate::error::EngineError;
use crate::exec::elapsed_ms;
use crate::home::Home;
use crate::runtime::Placement;
use crate::world::World;
use fault::{Fault, Kind};
use proxy::Seen;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switchback_core::check::{CheckKind, CheckResult, Verdict};
use switchback_core::config::Config;
use switchback_core::ids::{RunId, ServiceName};
use switchback_core::plan::CheckPhase;
use switchback_core::prove::{Injection, Mutant, Outcome, Proved, Row, SCHEMA, TABLE};
use switchback_core::release::{Instance, Release};
use switchback_core::workflow::Endpoint;

/// The longest a mutant adds to every answer at least: more than what does not count for a check of performance.
const SLOWER: Duration = Duration::from_millis(6);
const TAIL: Duration = Duration::from_millis(400);
/// A workflow that a fault makes wait is given up after three times what it takes without, but not before this time.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Checks that follow are left out where one has caught a mutant after this time.
const LONG: Duration = Duration::from_secs(20);

/// What to prove it on.
pub struct Ground<'a> {
    /// The stack.
    pub home: &'a Home,
    /// Its configuration.
    pub config: &'a Config,
    /// What it runs on.
    pub world: &'a World,
    /// The old version's environment, running.
    pub old: &'a Instance,
    /// The new version's environment, running.
    pub new: &'a Instance,
    /// Its untouched copy of the data.
    pub pristine: Option<&'a Instance>,
    /// The run with which the checks are kept.
    pub run: &'a RunId,
    /// Only these mutants; all, if none is named.
    pub only: BTreeSet<String>,
    /// Repetitions of the controls.
    pub controls: usize,
    /// Gives both environments their untouched data again.
    pub reset: &'a dyn Fn() -> Result<(), EngineError>,
    /// Told what is being done.
    pub say: &'a dyn Fn(&str),
    /// Told each row when it is known.
    pub told: &'a dyn Fn(&Row),
    /// Asked between mutants; `true` ends it.
    pub cancelled: &'a dyn Fn() -> bool,
    /// How long a workflow may take where there is a fault; told by the controls.
    pub limit: Cell<Duration>,
}

/// What a mutant left of the new side's environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It runs on untouched data.
    #[default]
    Clean,
    /// It runs, and its data is what the mutant made of it.
    Used,
    /// Some of it, or all, does not run.
    Stopped,
}

/// One run of the checks through proxies.
struct Tried {
    results: Vec<CheckResult>,
    landed: usize,
    seen: BTreeSet<Seen>,
}

/// Tries the table. `None` if it was interrupted.
pub fn prove(ground: &Ground<'_>) -> Result<Option<Proved>, EngineError> {
    let mut proved = Proved {
        schema: SCHEMA.to_owned(),
        stack: ground.config.stack.to_string(),
        at_ms: now_ms(),
        controls: ground.controls,
        rows: Vec::new(),
    };
    let kinds = Suite::load(ground.home, ground.run, ground.config)?.kinds();
    let mut traffic = BTreeSet::new();
    let mut state = State::Clean;
    for mutant in TABLE {
        let wanted = ground.only.is_empty() || ground.only.contains(mutant.id);
        // The first control tells what there is to put faults into.
        if !(wanted || mutant.id == "C0") {
            continue;
        }
        if (ground.cancelled)() {
            return Ok(None);
        }
        let began = Instant::now();
        let mut row = Row {
            id: mutant.id.to_owned(),
            name: mutant.name.to_owned(),
            expects: mutant.catchers().into_iter().map(str::to_owned).collect(),
            outcome: Outcome::Passed,
            also: Vec::new(),
            landed: 0,
            took_ms: 0,
        };
        let say = || (ground.say)(&format!("{} {}", mutant.id, mutant.name));
        let clean = |state: &mut State| -> Result<(), EngineError> {
            if std::mem::take(state) != State::Clean {
                (ground.say)("resetting the environments");
                (ground.reset)()?;
            }
            say();
            Ok(())
        };
        match mutant.injection {
            // What the environment had before does not matter: it gets the data of its untouched copy.
            Injection::Data(damage) => {
                say();
                state = state.max(made(data::damaged(ground, mutant, damage, &mut row), &mut row));
            }
            Injection::Irreversible(damage) => {
                say();
                state = state.max(made(data::irreversible(ground, mutant, damage, &mut row), &mut row));
            }
            Injection::Beside(what) => {
                if state == State::Stopped {
                    clean(&mut state)?;
                }
                say();
                live::beside(ground, mutant, what, &mut row)?;
            }
            Injection::Still => {
                clean(&mut state)?;
                state = live::still(ground, mutant, &mut row)?;
            }
            Injection::Hanging => {
                say();
                state = state.max(made(live::hanging(ground, mutant, &mut row), &mut row));
            }
            Injection::Ending => {
                clean(&mut state)?;
                state = trial::ending(ground, mutant, &mut row)?;
            }
            Injection::Lacking => {
                say();
                trial::lacking(ground, mutant, &mut row)?;
            }
            Injection::OverBudget => {
                clean(&mut state)?;
                state = made(trial::over_budget(ground, mutant, &mut row), &mut row);
            }
            Injection::Exposed => {
                clean(&mut state)?;
                if let Err(e) = live::exposed(ground, mutant, &mut row) {
                    row.outcome = Outcome::Unviable { why: e.to_string() };
                }
            }
            Injection::Proxy if mutant.expects.is_empty() => {
                clean(&mut state)?;
                control::control(ground, mutant, &mut row, &mut traffic)?;
                state = if kinds.contains(&CheckKind::Journey) { State::Used } else { State::Clean };
            }
            Injection::Proxy => match applicable(ground, mutant, &traffic, &kinds) {
                Err(why) => {
                    let advice = mutant.advice.to_owned();
                    row.outcome = Outcome::NotApplicable { why: why.to_owned(), advice };
                }
                // What was left behind does not change how long an answer takes.
                Ok(kind) if only_times(mutant) && state != State::Stopped => {
                    say();
                    mutated(ground, mutant, kind, &mut row)?;
                }
                Ok(kind) => {
                    clean(&mut state)?;
                    mutated(ground, mutant, kind, &mut row)?;
                    // A workflow that broke off has left what it would have removed, or never wrote what the other
                    // side has.
                    state = State::Used;
                }
            },
        }
        row.took_ms = elapsed_ms(began);
        (ground.told)(&row);
        proved.rows.push(row);
    }
    if (ground.cancelled)() {
        return Ok(None);
    }
    Ok(Some(proved))
}

/// What is left of the new side, also where a fault could not be made there.
fn made(done: Result<State, EngineError>, row: &mut Row) -> State {
    done.unwrap_or_else(|e| {
        row.outcome = Outcome::Unviable { why: e.to_string() };
        State::Stopped
    })
}

fn failed(result: &CheckResult) -> Option<String> {
    match &result.verdict {
        Verdict::Fail { reasons } => Some(reasons.first().map_or_else(
            || "it failed".to_owned(),
            |r| match (&r.expected, &r.got) {
                (Some(expected), Some(got)) => {
                    format!("{}: {} (expected {expected}, got {got})", r.at, r.what)
                }
                _ => format!("{}: {}", r.at, r.what),
            },
        )),
        _ => None,
    }
}

/// A fault that fits what the checks ask; or why there is none.
fn fitting(mutant: &Mutant, traffic: &BTreeSet<Seen>, health: &str) -> Result<Kind, &'static str> {
    let first = |wanted: &dyn Fn(&Seen) -> bool| traffic.iter().find(|s| wanted(s)).map(|s| s.path.clone());
    let any = |wanted: &dyn Fn(&Seen) -> bool| traffic.iter().any(wanted);
    let fine = |s: &Seen| (200..300).contains(&s.status);
    let writes = |s: &Seen| !matches!(s.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    if traffic.is_empty() {
        return Err("no check asks anything of the services");
    }
    Ok(match mutant.id {
        "M01" => Kind::WriteFails(first(&|s| writes(s) && fine(s)).ok_or("no check writes anything")?),
        "M02" => Kind::ErrorInContent(
            first(&|s| fine(s) && s.json && s.path != health).ok_or("no check gets JSON")?,
        ),
        "M03" => Kind::Slower(SLOWER),
        "M04" => Kind::SlowTail(TAIL),
        "M09" if any(&|s| s.sent && fine(s)) => Kind::NotKept,
        "M09" => return Err("no check sends JSON with several properties"),
        "M10" | "M11" | "M21" | "M22" if !any(&|s| s.method == "GET" && s.json && fine(s)) => {
            return Err("no check reads JSON");
        }
        "M10" => Kind::NumbersOff,
        "M11" => Kind::TimesOff,
        "M14" => Kind::NobodyThere,
        "M18" if any(&|s| s.upload) => Kind::UploadsRefused,
        "M18" => return Err("no check uploads a file"),
        "M19" | "M20" if !any(&|s| s.login && fine(s)) => return Err("no check logs in"),
        "M19" => Kind::LoginRefused,
        "M20" if any(&|s| !s.login && matches!(s.status, 401 | 403)) => Kind::Open,
        "M20" => return Err("no check tries to get in without a login"),
        "M21" => Kind::Renamed,
        "M22" => Kind::NumbersAsText,
        "M23" if any(&|s| s.method == "GET" && s.query) => Kind::ParameterAsked,
        "M23" => return Err("no check reads something with a query"),
        "M25" if any(&|s| s.page) => Kind::ScriptThrows,
        "M25" => return Err("no check opens a page"),
        "M26" if any(&|s| s.style) => Kind::StyleGone,
        "M26" => return Err("no page has a style sheet"),
        "M29" => Kind::Dead(health.to_owned()),
        _ => return Err("this version does not make it"),
    })
}

/// Whether only performance can show it.
fn only_times(mutant: &Mutant) -> bool {
    mutant.expects == [CheckKind::Performance]
}

/// The fault to put in; or why this stack's checks leave nothing to try.
fn applicable(
    ground: &Ground<'_>,
    mutant: &Mutant,
    traffic: &BTreeSet<Seen>,
    kinds: &BTreeSet<CheckKind>,
) -> Result<Kind, &'static str> {
    if mutant.expects == [CheckKind::Journey] && !kinds.contains(&CheckKind::Journey) {
        return Err("there is no journey in a browser");
    }
    if only_times(mutant) && !kinds.contains(&CheckKind::Performance) {
        return Err("there is no check of performance");
    }
    let health = ground.config.services.values().find_map(|s| s.health.http.clone()).unwrap_or_default();
    fitting(mutant, traffic, &health)
}

fn mutated(ground: &Ground<'_>, mutant: &Mutant, kind: Kind, row: &mut Row) -> Result<(), EngineError> {
    let nobody = kind == Kind::NobodyThere;
    let tried = run(ground, kind, Some(only_times(mutant)), mutant.expects)?;
    row.landed = tried.landed;
    if tried.landed == 0 && !nobody {
        row.outcome = Outcome::Unviable { why: "the fault never landed".to_owned() };
    } else {
        judge(mutant, &tried.results, &ground.new.environment, row);
    }
    Ok(())
}

/// What the checks said of a mutant.
fn judge(mutant: &Mutant, results: &[CheckResult], environment: &str, row: &mut Row) {
    // What fails on the old side as well says nothing about the new one.
    let old: BTreeSet<&str> = results
        .iter()
        .filter(|r| r.environment != environment && failed(r).is_some())
        .map(|r| r.id.as_str())
        .collect();
    let on_new: Vec<(&CheckResult, String)> = results
        .iter()
        .filter(|r| r.environment == environment && !old.contains(r.id.as_str()))
        .filter_map(|r| failed(r).map(|why| (r, why)))
        .collect();
    let mut expected = on_new.iter().filter(|(r, _)| mutant.expects.contains(&r.kind));
    row.outcome = match expected.next() {
        Some((result, why)) => {
            row.also = on_new.iter().map(|(r, _)| r.id.clone()).filter(|id| *id != result.id).collect();
            Outcome::Caught { by: result.id.clone(), why: why.clone() }
        }
        None => Outcome::Survived {
            instead: on_new
                .iter()
                .map(|(r, _)| r.id.clone())
                .chain(undecided(results, environment))
                .collect(),
            advice: mutant.advice.to_owned(),
        },
    };
}

/// Checks of the new side that said nothing, and why: not the same as that they saw nothing.
fn undecided<'a>(results: &'a [CheckResult], environment: &'a str) -> impl Iterator<Item = String> + 'a {
    results.iter().filter(move |r| r.environment == environment).filter_map(|r| match &r.verdict {
        Verdict::Inconclusive { why } => Some(format!("{} (inconclusive: {why})", r.id)),
        _ => None,
    })
}

/// Runs the checks with a proxy before each port of each service, on both sides; the fault is on the new one. When one of the kinds that are
/// expected to has caught it, not all of them need to run.
fn run(
    ground: &Ground<'_>,
    kind: Kind,
    times: Option<bool>,
    expects: &[CheckKind],
) -> Result<Tried, EngineError> {
    let suite = Suite::load(ground.home, ground.run, ground.config)?;
    let suite = match times {
        None => suite,
        Some(only) => suite.of_performance(only),
    };
    let releases = (ground.home.release(&ground.old.release)?, ground.home.release(&ground.new.release)?);
    let nobody = kind == Kind::NobodyThere;
    let control = matches!(kind, Kind::Nothing | Kind::Harmless) && times.is_none();
    let (none, fault) = (Arc::new(Fault::new(Kind::Nothing)), Arc::new(Fault::new(kind)));
    let (old, old_proxies) = through(ground, ground.old, &releases.0, &none)?;
    let (mut new, new_proxies) = through(ground, ground.new, &releases.1, &fault)?;
    if nobody {
        // Another port: nobody listens at 9 (discard), and nobody may without being root.
        for endpoint in new.values_mut() {
            endpoint.default_port = 9;
            endpoint.ports.values_mut().for_each(|p| *p = 9);
        }
    }
    let run_dir = ground.home.run_dir(ground.run);
    let environment = |instance: &Instance| instance.environment.clone();
    let target = |instance, release, through| Target {
        world: ground.world,
        placement: Placement { home: ground.home, config: ground.config, instance, release },
        environment: environment(instance),
        run: ground.run.as_str(),
        run_dir: &run_dir,
        scratch: &run_dir,
        through: Some(through),
    };
    let targets = [target(ground.old, &releases.0, old), target(ground.new, &releases.1, new)];
    let began = Instant::now();
    let on_new = ground.new.environment.as_str();
    let caught =
        |r: &CheckResult| r.environment == on_new && expects.contains(&r.kind) && failed(r).is_some();
    let enough = |so_far: &[CheckResult]| {
        began.elapsed() > LONG
            && so_far.last().is_some_and(caught)
            && so_far.iter().rev().nth(1).is_none_or(|r| failed(r).is_none())
    };
    let results = if control {
        suite.run(&targets, CheckPhase::Staging, &|_| {}, ground.cancelled)?
    } else {
        let suite = suite.at_most(ground.limit.get());
        suite.run_until(&targets, CheckPhase::Staging, &|_| {}, ground.cancelled, &enough)?
    };
    let mut seen = BTreeSet::new();
    for proxy in old_proxies.iter().chain(&new_proxies) {
        seen.extend(proxy.seen());
    }
    Ok(Tried { results, landed: fault.landed(), seen })
}

type Through = (BTreeMap<ServiceName, Endpoint>, Vec<Proxy>);

fn through(
    ground: &Ground<'_>,
    instance: &Instance,
    release: &Release,
    fault: &Arc<Fault>,
) -> Result<Through, EngineError> {
    let at = Placement { home: ground.home, config: ground.config, instance, release };
    let mut proxies = Vec::new();
    let mut endpoints = ground.world.runtime.endpoints(&at);
    let mut known: BTreeMap<(String, u16), u16> = BTreeMap::new();
    let mut proxied = |host: &str, port: u16| -> Result<u16, EngineError> {
        if let Some(own) = known.get(&(host.to_owned(), port)) {
            return Ok(*own);
        }
        let proxy = Proxy::start(format!("{host}:{port}"), fault.clone())
            .map_err(crate::error::io("start a proxy for", Path::new(host)))?;
        let own = proxy.port;
        known.insert((host.to_owned(), port), own);
        proxies.push(proxy);
        Ok(own)
    };
    for endpoint in endpoints.values_mut() {
        let host = endpoint.host.clone();
        for port in endpoint.ports.values_mut().chain([&mut endpoint.default_port]) {
            if *port > 0 {
                *port = proxied(&host, *port)?;
            }
        }
        endpoint.host = "127.0.0.1".to_owned();
    }
    Ok((endpoints, proxies))
}
