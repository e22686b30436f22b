//! Measuring a request in the old and the new version, in pairs.
//!
//! Open loop: requests are sent by a schedule, and times count from when they were to be sent, so that a server that stalls
//! cannot hide it by being asked less.

use super::api::base;
use super::http::{HttpClient, HttpRequest, Limits, Redirects};
use crate::exec::elapsed_ms;
use crate::runtime::Usage;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use switchback_core::check::{Artefact, CheckKind, CheckResult, CheckStep, Failure, Verdict};
use switchback_core::config::PerformanceCheck;
use switchback_core::performance::{
    FEWEST, Interval, Judgement, LOOKS, Margins, Pair, Random, distribution, judge, median,
};
use switchback_core::workflow::{Endpoint, Redactor};

/// Pairs before measuring: caches, connections, compilers at run time.
const WARM_UP: usize = 100;
/// The share of its time that a server is busy with these requests at most.
const LOAD: f64 = 0.3;
/// Between two pairs, at least and at most.
const PERIOD: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(2));
/// Limit of one request.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Stands for a request that was not made: it is too late.
const LATE: u32 = u32::MAX;
/// Pairs between two looks at what the services use.
const CHUNK: usize = 60;
/// Processor time of all chunks that can be told from the kernel's ticks.
const CPU_MEASURABLE_MS: u64 = 200;
/// Processor time per request (ms) below which a difference does not count.
const CPU_FLOOR_MS: f64 = 0.2;
/// How many more transactions a request may make: what is counted lags behind by a second.
const TRANSACTIONS_MORE: f64 = 1.5;
const TRANSACTIONS_FLOOR: f64 = 1.0;
/// Growth of memory that is no accident.
const MEMORY_FLOOR: f64 = 32.0 * 1_048_576.0;

/// Where the two versions are.
pub struct Sides<'a> {
    /// The old version.
    pub old: &'a Endpoint,
    /// The new one.
    pub new: &'a Endpoint,
    /// Headers of every request, placeholders replaced.
    pub headers: Vec<(String, String)>,
    /// Removes secrets.
    pub redactor: Redactor,
    /// The name of the new version's environment.
    pub environment: String,
    /// What the service uses, of the new version or the old.
    pub usage: &'a dyn Fn(bool) -> Option<Usage>,
    /// Requests that are judged in the same rehearsal.
    pub requests: usize,
    /// The run's folder, for raw values and pictures.
    pub run_dir: PathBuf,
    /// Asked between pairs; `true` ends the check.
    pub cancelled: &'a dyn Fn() -> bool,
    /// Told how far it is.
    pub say: &'a dyn Fn(&str),
}

struct Meter<'a> {
    check: &'a PerformanceCheck,
    sides: &'a Sides<'a>,
    clients: [HttpClient; 2],
    urls: [String; 2],
    pairs: Vec<Pair>,
    /// Answers of another class of status, old and new.
    errors: [usize; 2],
    expected: [u16; 2],
    chunks: Vec<[Option<Usage>; 2]>,
}

/// Asks one side.
struct Asker<'a> {
    client: &'a HttpClient,
    request: HttpRequest,
    class: u16,
    until: Instant,
}

impl Asker<'_> {
    /// One request at its time: how long it took from then, and whether the answer was of another class of status.
    fn ask(&self, planned: Instant) -> (u32, bool) {
        if Instant::now() > self.until {
            return (LATE, false);
        }
        thread::sleep(planned.saturating_duration_since(Instant::now()));
        let class = match self.client.send(&self.request) {
            Ok(response) => response.status / 100,
            Err(_) => 0,
        };
        let us = Instant::now().saturating_duration_since(planned).as_micros();
        (u32::try_from(us).unwrap_or(LATE - 1).min(LATE - 1), class != self.class)
    }
}

/// Compares the times of a request in the old and the new version.
pub fn run(check: &PerformanceCheck, sides: &Sides<'_>) -> CheckResult {
    let began = Instant::now();
    let mut result = CheckResult {
        looks: Vec::new(),
        id: format!("performance/{}", check.name),
        kind: CheckKind::Performance,
        environment: sides.environment.clone(),
        verdict: Verdict::Pass,
        took_ms: 0,
        measured: BTreeMap::new(),
        steps: Vec::new(),
        artefacts: Vec::new(),
    };
    result.verdict = measured(check, sides, &mut result)
        .unwrap_or_else(|why| Verdict::Inconclusive { why: sides.redactor.redact(&why) });
    result.took_ms = elapsed_ms(began);
    result
}

fn measured(check: &PerformanceCheck, sides: &Sides<'_>, out: &mut CheckResult) -> Result<Verdict, String> {
    let port = check.port.as_deref();
    let url = |endpoint: &Endpoint| format!("{}{}", base(endpoint, port), check.path);
    let client = |endpoint: &Endpoint| {
        let inside = base(endpoint, port).trim_start_matches("http://").to_owned();
        HttpClient::new(Limits::default(), [inside])
    };
    let mut meter = Meter {
        check,
        sides,
        clients: [client(sides.old), client(sides.new)],
        urls: [url(sides.old), url(sides.new)],
        pairs: Vec::new(),
        errors: [0, 0],
        expected: [0, 0],
        chunks: Vec::new(),
    };
    let seed = blake3::hash(check.name.as_bytes());
    let seed = u64::from_le_bytes(seed.as_bytes()[..8].try_into().unwrap_or_default());
    let mut random = Random::new(seed);
    let busy = meter.warm_up(&mut random)?;
    if let Some(failure) = meter.answers_differ() {
        return Ok(Verdict::fail(failure));
    }
    let period = busy.div_f64(2.0 * LOAD).clamp(PERIOD.0, PERIOD.1);
    let until = Instant::now() + check.limit.0;
    let margins = Margins {
        p50: check.p50 / 100.0,
        p95: check.p95 / 100.0,
        floor_us: u32::try_from(check.floor.0.as_micros()).unwrap_or(u32::MAX),
        requests: sides.requests,
    };
    let mut judgement = judge(&[], &margins, 0, seed);
    for (look, count) in LOOKS.into_iter().enumerate() {
        meter.until(count, period, until, &mut random)?;
        judgement = judge(&meter.pairs, &margins, look, seed);
        if judgement.slower() || !judgement.open() || Instant::now() >= until {
            break;
        }
    }
    meter.keep(out)?;
    meter.tell(&judgement, out);
    Ok(meter.verdict(&judgement, out))
}

impl Meter<'_> {
    fn request(&self, side: usize) -> HttpRequest {
        HttpRequest {
            method: self.check.method.to_uppercase(),
            url: self.urls[side].clone(),
            headers: self.sides.headers.clone(),
            body: self.check.body.clone().map(String::into_bytes),
            redirects: Redirects::Return,
            timeout: TIMEOUT,
        }
    }

    /// The first pairs, as fast as they go. Returns how long a pair keeps the servers busy.
    fn warm_up(&mut self, random: &mut Random) -> Result<Duration, String> {
        let mut busy = Vec::new();
        let until = Instant::now() + self.check.limit.0 / 4;
        for _ in 0..WARM_UP {
            let mut took = [Duration::ZERO; 2];
            for side in order(random) {
                let began = Instant::now();
                let answer = self.clients[side].send(&self.request(side));
                took[side] = began.elapsed();
                match answer {
                    Ok(response) => self.expected[side] = response.status,
                    Err(e) if side == 0 => return Err(format!("the old version gives no answer: {e}")),
                    Err(_) => self.expected[side] = 0,
                }
            }
            busy.push((took[0] + took[1]).as_secs_f64());
            if (self.sides.cancelled)() {
                return Err("interrupted".to_owned());
            }
            if self.expected[1] == 0 || Instant::now() > until {
                break;
            }
        }
        Ok(Duration::from_secs_f64(median(&busy)))
    }

    fn answers_differ(&self) -> Option<Failure> {
        let [old, new] = self.expected;
        let word = |status: u16| if status == 0 { "no answer".to_owned() } else { status.to_string() };
        (old / 100 != new / 100).then(|| Failure {
            at: format!("{} {}", self.check.method.to_uppercase(), self.check.path),
            what: "the new version answers something else, so times cannot be compared".to_owned(),
            expected: Some(word(old)),
            got: Some(word(new)),
            reproduce: Some(format!("curl -i '{}'", self.urls[1])),
        })
    }

    /// Measures until there are so many pairs, or it is too late.
    fn until(
        &mut self,
        count: usize,
        period: Duration,
        until: Instant,
        random: &mut Random,
    ) -> Result<(), String> {
        while self.pairs.len() < count && Instant::now() < until {
            let usage = self.sides.usage;
            self.chunks.push([usage(false), usage(true)]);
            (self.sides.say)(&format!("performance {}: {} pairs", self.check.name, self.pairs.len()));
            if (self.sides.cancelled)() {
                return Err("interrupted".to_owned());
            }
            // Looking took time, which is nobody's delay: the schedule begins now.
            let begin = Instant::now() + period;
            let plan: Vec<[Instant; 2]> = (0..CHUNK as u32)
                .map(|n| {
                    let (at, half) = (begin + period * n, period / 2);
                    if random.below(2) == 0 { [at, at + half] } else { [at + half, at] }
                })
                .collect();
            // Each side has a thread of its own: where one stalls, the other is not asked later for it.
            let asker = |side: usize| Asker {
                client: &self.clients[side],
                request: self.request(side),
                class: self.expected[side] / 100,
                until,
            };
            let (old, new) = (asker(0), asker(1));
            let (old, new) = thread::scope(|scope| {
                let old = scope.spawn(|| plan.iter().map(|at| old.ask(at[0])).collect::<Vec<_>>());
                let new: Vec<_> = plan.iter().map(|at| new.ask(at[1])).collect();
                (old.join().unwrap_or_default(), new)
            });
            for ((old_us, old_wrong), (new_us, new_wrong)) in old.into_iter().zip(new) {
                if old_us == LATE || new_us == LATE {
                    continue;
                }
                self.errors[0] += usize::from(old_wrong);
                self.errors[1] += usize::from(new_wrong);
                self.pairs.push(Pair { old_us, new_us });
            }
        }
        let usage = self.sides.usage;
        self.chunks.push([usage(false), usage(true)]);
        Ok(())
    }

    /// Keeps the raw values and a picture of them with the run.
    fn keep(&self, out: &mut CheckResult) -> Result<(), String> {
        let folder = self.sides.run_dir.join("performance");
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = self.check.name.chars().map(plain).take(60).collect();
        let mut csv = "old_us,new_us\n".to_owned();
        for pair in &self.pairs {
            csv.push_str(&format!("{},{}\n", pair.old_us, pair.new_us));
        }
        let picture = distribution(&self.pairs);
        for (title, file, content) in [
            ("times of every pair", format!("{name}.csv"), csv),
            ("share of requests answered within a time", format!("{name}.svg"), picture),
        ] {
            let path = folder.join(&file);
            fs::write(&path, &content).map_err(|e| format!("{}: {e}", path.display()))?;
            out.artefacts.push(Artefact {
                title: title.to_owned(),
                path: format!("performance/{file}"),
                blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
                bytes: content.len() as u64,
            });
        }
        Ok(())
    }

    fn tell(&self, judgement: &Judgement, out: &mut CheckResult) {
        let mut say = |name: &str, value: String| out.measured.insert(name.to_owned(), value);
        let ratio = |i: &Interval| format!("{:.2} ({:.2}–{:.2})", i.middle, i.low, i.high);
        say("pairs", judgement.pairs.to_string());
        say("median, old and new", format!("{:.2} ms, {:.2} ms", judgement.p50_ms.0, judgement.p50_ms.1));
        say("median, new to old", ratio(&judgement.p50.ratio));
        say("p95, old and new", format!("{:.2} ms, {:.2} ms", judgement.p95_ms.0, judgement.p95_ms.1));
        say("p95, new to old", ratio(&judgement.p95.ratio));
        say("old against itself", ratio(&judgement.control));
        say("growth that would be told", format!("{:.0} %", judgement.detectable * 100.0));
        if let Some((old, new, _)) = self.cpu() {
            say("processor time per request, old and new", format!("{old:.2} ms, {new:.2} ms"));
        }
        if let Some((old, new)) = self.memory() {
            let mib = |b: f64| b / 1_048_576.0;
            say("memory grown by, old and new", format!("{:.1} MiB, {:.1} MiB", mib(old), mib(new)));
        }
        if let Some((old, new)) = self.transactions() {
            say("transactions per request, old and new", format!("{old:.1}, {new:.1}"));
        }
        if self.errors != [0, 0] {
            say("other answers, old and new", format!("{}, {}", self.errors[0], self.errors[1]));
        }
        out.steps.push(CheckStep {
            name: format!(
                "{} {}",
                self.check.method.to_uppercase(),
                self.sides.redactor.show(&self.check.path)
            ),
            ok: !judgement.slower(),
            took_ms: 0,
            seen: format!("median {}, p95 {}", ratio(&judgement.p50.ratio), ratio(&judgement.p95.ratio)),
        });
    }

    /// Processor time (ms) per request, old and new, and the share of chunks in which the new one takes more.
    fn cpu(&self) -> Option<(f64, f64, f64)> {
        let per_pair = |side: usize| -> Option<Vec<u64>> {
            let all: Option<Vec<u64>> = self.chunks.iter().map(|c| c[side].map(|u| u.cpu_ms)).collect();
            Some(all?.windows(2).map(|w| w[1].saturating_sub(w[0])).collect())
        };
        let (old, new) = (per_pair(0)?, per_pair(1)?);
        let (total_old, total_new): (u64, u64) = (old.iter().sum(), new.iter().sum());
        if total_old.max(total_new) < CPU_MEASURABLE_MS || self.pairs.is_empty() {
            return None;
        }
        let limit = 1.0 + self.check.cpu / 200.0;
        let more = old.iter().zip(&new).filter(|(o, n)| **n as f64 > (**o).max(1) as f64 * limit).count();
        let busy = old.iter().zip(&new).filter(|(o, n)| **o + **n > 0).count().max(1);
        let pairs = self.pairs.len() as f64;
        Some((total_old as f64 / pairs, total_new as f64 / pairs, more as f64 / busy as f64))
    }

    /// Memory (bytes) that was added from the second look to the last, old and new.
    fn memory(&self) -> Option<(f64, f64)> {
        let grown = |side: usize| -> Option<f64> {
            let first = self.chunks.get(1)?[side]?.memory_bytes as f64;
            Some(self.chunks.last()?[side]?.memory_bytes as f64 - first)
        };
        Some((grown(0)?, grown(1)?))
    }

    /// Transactions of the databases per request, old and new.
    fn transactions(&self) -> Option<(f64, f64)> {
        let last = self.chunks.len().checked_sub(1).filter(|last| *last > 0)?;
        let per_request = |side: usize| -> Option<f64> {
            let at = |chunk: usize| self.chunks[chunk][side]?.transactions;
            Some(at(last)?.saturating_sub(at(0)?) as f64 / (last * CHUNK) as f64)
        };
        Some((per_request(0)?, per_request(1)?))
    }

    fn verdict(&self, judgement: &Judgement, out: &CheckResult) -> Verdict {
        let mut reasons = Vec::new();
        let at = format!("{} {}", self.check.method.to_uppercase(), self.check.path);
        let mut fail = |what: String, expected: String, got: String| {
            let reproduce = Some(format!("curl -i '{}'", self.urls[1]));
            let (at, expected, got) = (at.clone(), Some(expected), Some(got));
            reasons.push(Failure { at, what, expected, got, reproduce });
        };
        let few = self.pairs.len() / 100;
        if self.errors[1] > self.errors[0].max(few) {
            fail(
                "the new version answers something else now and then".to_owned(),
                format!("{}xx", self.expected[1] / 100),
                format!("another answer to {} of {}", self.errors[1], self.pairs.len()),
            );
        }
        let cpu = self.cpu();
        if let Some((old, new, share)) = cpu
            && new > old * (1.0 + self.check.cpu / 100.0)
            && new - old > CPU_FLOOR_MS
            && share >= 0.75
        {
            fail(
                format!("it takes more processor time per request than {} % more", self.check.cpu),
                format!("about {old:.2} ms"),
                format!("{new:.2} ms"),
            );
        }
        if let Some((old, new)) = self.memory()
            && new > MEMORY_FLOOR
            && new > 4.0 * old.max(0.0)
        {
            fail(
                "its memory grows while it is asked".to_owned(),
                format!("about {:.1} MiB", old.max(0.0) / 1_048_576.0),
                format!("{:.1} MiB in {} requests", new / 1_048_576.0, self.pairs.len()),
            );
        }
        if let Some((old, new)) = self.transactions()
            && new > old * TRANSACTIONS_MORE
            && new - old >= TRANSACTIONS_FLOOR
        {
            fail(
                "it makes more transactions of the database per request".to_owned(),
                format!("about {old:.1}"),
                format!("{new:.1}"),
            );
        }
        if judgement.slower() {
            for (name, judged, margin, (old, new)) in [
                ("median", &judgement.p50, self.check.p50, judgement.p50_ms),
                ("95th percentile", &judgement.p95, self.check.p95, judgement.p95_ms),
            ] {
                if judged.finding == switchback_core::performance::Finding::Slower {
                    fail(
                        format!("the {name} is slower by more than {margin} %"),
                        format!("about {old:.2} ms"),
                        format!(
                            "{new:.2} ms, {:.2} times as long ({:.2}–{:.2})",
                            judged.ratio.middle, judged.ratio.low, judged.ratio.high
                        ),
                    );
                }
            }
        }
        if !reasons.is_empty() {
            return Verdict::Fail { reasons };
        }
        let why = |why: String| Verdict::Inconclusive { why };
        if self.errors[0] > few {
            return why(format!("the old version itself answered otherwise {} times", self.errors[0]));
        }
        if judgement.pairs < FEWEST {
            return why(format!(
                "only {} pairs in {}; {FEWEST} are needed",
                judgement.pairs, self.check.limit
            ));
        }
        if judgement.noisy {
            let seen = out.measured.get("old against itself").cloned().unwrap_or_default();
            return why(format!("this host is too noisy: the old version against itself gives {seen}"));
        }
        if judgement.open() {
            return why(format!(
                "after {} pairs it cannot be said whether it is slower: median {:.2}–{:.2}, 95th percentile {:.2}–{:.2} times as long",
                judgement.pairs,
                judgement.p50.ratio.low,
                judgement.p50.ratio.high,
                judgement.p95.ratio.low,
                judgement.p95.ratio.high,
            ));
        }
        Verdict::Pass
    }
}

/// The two sides in random order.
fn order(random: &mut Random) -> [usize; 2] {
    if random.below(2) == 0 { [0, 1] } else { [1, 0] }
}

#[cfg(test)]
#[path = "performance_tests.rs"]
mod tests;
