//! Numbers for a monitoring system, in the text format of Prometheus.
//!
//! Owns the names of the metrics; the documentation, the dashboard and the rules are held against [`NAMES`].

use super::history::all_runs;
use super::run::cancel_on_signals;
use super::serve::serve;
use super::status::{Status, gather};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use switchback_core::analytics::{Analytics, Period, analyse};
use switchback_engine::home::{Home, write_atomic};

/// Options of metrics.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Write them to this file, all at once, instead of printing them; for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Answer `GET /metrics` at this address until it is ended, for Prometheus to fetch them; it has no password
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "output")]
    pub listen: Option<SocketAddr>,
}

/// A metric: name, type, what it says.
type Metric = (&'static str, &'static str, &'static str);

/// All metrics, in the order in which they are printed.
pub const NAMES: [Metric; 36] = [
    ("switchback_info", "gauge", "1; the runtime and the program's version are labels"),
    ("switchback_generation", "gauge", "Production's generation; 0 before the first"),
    ("switchback_blind", "gauge", "1 if it is not known what runs"),
    ("switchback_drift", "gauge", "How many things run otherwise than the generation says"),
    ("switchback_service_running", "gauge", "1 if the service runs"),
    (
        "switchback_service_well",
        "gauge",
        "1 if the service is as it should be, as far as is known without probing",
    ),
    ("switchback_service_starts", "gauge", "How often the service was started; it grows when it restarts"),
    ("switchback_rollback_ready", "gauge", "1 if a rollback would work"),
    (
        "switchback_rollback_expected_seconds",
        "gauge",
        "How long the last rollback to the same generation took",
    ),
    ("switchback_rollback_measured_age_seconds", "gauge", "How long ago that was"),
    ("switchback_trial", "gauge", "1 while a promotion is on trial"),
    ("switchback_trial_left_seconds", "gauge", "How long the trial still lasts"),
    ("switchback_trial_failures", "gauge", "Probes that failed in a row"),
    ("switchback_trial_watched", "gauge", "1 if a watchdog watches the trial"),
    ("switchback_unfinished", "gauge", "1 if a run was interrupted and waits"),
    ("switchback_production_down", "gauge", "1 if production is down because of it"),
    (
        "switchback_unexported_generations",
        "gauge",
        "Generations that were left and whose later writes are not exported",
    ),
    ("switchback_capture_working", "gauge", "1 if it is kept which rows of the store are written to"),
    (
        "switchback_capture_behind_bytes",
        "gauge",
        "What the store's server keeps of its log for what was not read yet",
    ),
    ("switchback_uncarried_writes", "gauge", "Exported writes that were not carried into production"),
    ("switchback_backup_age_seconds", "gauge", "Age of the newest backup; absent without one"),
    ("switchback_backup_drill_age_seconds", "gauge", "Time since a backup was last brought back and tried"),
    (
        "switchback_backup_late",
        "gauge",
        "1 if backups are scheduled and none went well for twice as long as they say; absent otherwise",
    ),
    ("switchback_backup_drill_late", "gauge", "The same of drills of backups"),
    ("switchback_wal_age_seconds", "gauge", "Time since the last commit whose log is archived"),
    ("switchback_backup_key_confirmed", "gauge", "1 if a copy of the key has opened the repository"),
    ("switchback_rehearsals_total", "counter", "Upgrades that were rehearsed, by result"),
    ("switchback_promotions_total", "counter", "Promotions that reached production"),
    (
        "switchback_promotions_rolled_back_total",
        "counter",
        "Promotions that failed on trial and were rolled back by themselves",
    ),
    (
        "switchback_promotions_undone_total",
        "counter",
        "Promotions that were undone before they reached production",
    ),
    ("switchback_rollbacks_total", "counter", "Rollbacks that a person asked for"),
    ("switchback_prevented_total", "counter", "Rehearsals that were refused, by the check that failed"),
    (
        "switchback_change_failure_ratio",
        "gauge",
        "Promotions that were rolled back, per promotion; absent without promotions",
    ),
    (
        "switchback_restore_seconds",
        "gauge",
        "From the failure, or the command of a rollback, until production answered again",
    ),
    ("switchback_rollback_seconds", "gauge", "How long rollbacks took until everything was read back"),
    ("switchback_downtime_seconds", "gauge", "Production's outage in promotions"),
];

/// Prints the numbers.
pub fn metrics(global: &Global, args: &MetricsArgs) -> Result<Exit, Trouble> {
    let home = Home::open(&global.directory)?;
    let out = Output::new(global.json);
    if let Some(at) = args.listen {
        let ready = |at: SocketAddr| -> Result<(), Trouble> {
            if out.is_json() {
                out.json(&serde_json::json!({ "listens": at.to_string() }))?;
            } else {
                out.line(&format!("The numbers are at http://{at}/metrics, until this is ended."))?;
            }
            Ok(())
        };
        serve(at, &cancel_on_signals(), ready, || page(&home))?;
        return Ok(Exit::Done);
    }
    let text = page(&home)?;
    match &args.output {
        Some(path) => {
            write_atomic(path, text.as_bytes())?;
            if out.is_json() {
                out.json(&serde_json::json!({ "output": path }))?;
            }
        }
        None if out.is_json() => out.json(&serde_json::json!({ "text": text }))?,
        None => out.text(&text)?,
    }
    Ok(Exit::Done)
}

/// The numbers as they are now.
fn page(home: &Home) -> Result<String, Trouble> {
    let status = gather(home, &home.config()?)?;
    let found = analyse(&all_runs(home)?, Period::ALL);
    Ok(Page::new(&status.stack).fill(&status, &found))
}

/// The text in the making: samples by metric, since those of one metric must stand together.
struct Page<'a> {
    stack: &'a str,
    samples: Vec<(usize, String)>,
}

/// A label's value; see the text format: backslash, line feed and quote are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

impl<'a> Page<'a> {
    fn new(stack: &'a str) -> Self {
        Self { stack, samples: Vec::new() }
    }

    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let Some(number) = NAMES.iter().position(|(known, ..)| *known == name) else {
            debug_assert!(false, "{name} is not listed");
            return;
        };
        let mut line = format!("{name}{{stack=\"{}\"", escaped(self.stack));
        for (label, text) in labels {
            let _ = write!(line, ",{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(line, "}} {value}");
        self.samples.push((number, line));
    }

    fn flag(&mut self, name: &str, holds: bool) {
        self.add(name, &[], u8::from(holds));
    }

    /// Milliseconds as seconds; nothing where it is not known.
    fn seconds(&mut self, name: &str, labels: &[(&str, &str)], ms: Option<i64>) {
        if let Some(ms) = ms {
            self.add(name, labels, ms as f64 / 1000.0);
        }
    }

    fn fill(mut self, status: &Status, found: &Analytics) -> String {
        self.now(status);
        self.history(found);
        self.samples.sort_by_key(|(number, _)| *number);
        let mut text = String::new();
        let mut last = None;
        for (number, line) in &self.samples {
            if last != Some(number) {
                let (name, kind, help) = NAMES[*number];
                let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
                last = Some(number);
            }
            text.push_str(line);
        }
        text
    }

    fn now(&mut self, status: &Status) {
        let version = env!("CARGO_PKG_VERSION");
        self.add("switchback_info", &[("runtime", status.runtime), ("version", version)], 1);
        self.add("switchback_generation", &[], status.generation.map_or(0, |g| g.0));
        self.flag("switchback_blind", status.blind.is_some());
        self.add("switchback_drift", &[], status.drift.len());
        for service in &status.services {
            let labels = [("service", service.service.as_str()), ("version", service.version.as_str())];
            self.add("switchback_service_running", &labels, u8::from(service.seen.running));
            self.add("switchback_service_well", &labels, u8::from(service.seen.well));
            self.add("switchback_service_starts", &labels, service.seen.starts);
        }
        let rollback = &status.rollback;
        self.flag("switchback_rollback_ready", rollback.ready);
        let expected = rollback.expected_ms.and_then(|ms| i64::try_from(ms).ok());
        self.seconds("switchback_rollback_expected_seconds", &[], expected);
        self.seconds("switchback_rollback_measured_age_seconds", &[], rollback.measured_ago_ms);
        self.flag("switchback_trial", status.trial.is_some());
        if let Some(trial) = &status.trial {
            self.seconds("switchback_trial_left_seconds", &[], i64::try_from(trial.left_ms).ok());
            self.add("switchback_trial_failures", &[], trial.failures_in_a_row);
            self.flag("switchback_trial_watched", trial.watchdog.is_some());
        }
        self.flag("switchback_unfinished", status.unfinished.is_some());
        let down = status.unfinished.as_ref().is_some_and(|u| u.production_down);
        self.flag("switchback_production_down", down);
        self.add("switchback_unexported_generations", &[], status.unexported.len());
        for (store, now) in &status.capture {
            let labels = [("store", store.as_str())];
            self.add("switchback_capture_working", &labels, u8::from(now.trouble.is_none()));
            self.add("switchback_capture_behind_bytes", &labels, now.behind_bytes);
        }
        let uncarried: u64 = status.uncarried.iter().map(|l| l.writes).sum();
        self.add("switchback_uncarried_writes", &[], uncarried);
        if let Some(backup) = &status.backup {
            self.seconds("switchback_backup_age_seconds", &[], backup.age_ms);
            self.seconds("switchback_backup_drill_age_seconds", &[], backup.drilled_ago_ms);
            for (name, metric) in
                [("backup", "switchback_backup_late"), ("drill", "switchback_backup_drill_late")]
            {
                if let Some(late) = backup.late.get(name) {
                    self.flag(metric, *late);
                }
            }
            for (store, ms) in &backup.archived_ago_ms {
                self.seconds("switchback_wal_age_seconds", &[("store", store.as_str())], Some(*ms));
            }
            self.flag("switchback_backup_key_confirmed", backup.key_confirmed);
        }
    }

    fn history(&mut self, found: &Analytics) {
        let passed = found.rehearsed.saturating_sub(found.refused + found.inconclusive);
        for (result, number) in
            [("passed", passed), ("refused", found.refused), ("inconclusive", found.inconclusive)]
        {
            self.add("switchback_rehearsals_total", &[("result", result)], number);
        }
        self.add("switchback_promotions_total", &[], found.promoted);
        self.add("switchback_promotions_rolled_back_total", &[], found.rolled_back);
        self.add("switchback_promotions_undone_total", &[], found.undone);
        self.add("switchback_rollbacks_total", &[], found.rollbacks);
        for check in &found.prevented_by {
            self.add("switchback_prevented_total", &[("check", &check.check)], check.count);
        }
        if let Some(rate) = found.change_failure_rate {
            self.add("switchback_change_failure_ratio", &[], rate);
        }
        for (name, spread) in [
            ("switchback_restore_seconds", found.restore),
            ("switchback_rollback_seconds", found.rollback),
            ("switchback_downtime_seconds", found.downtime),
        ] {
            if spread.count > 0 {
                let ms = |n: u64| i64::try_from(n).ok();
                self.seconds(name, &[("of", "median")], ms(spread.median_ms));
                self.seconds(name, &[("of", "longest")], ms(spread.longest_ms));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn page(file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/upgrade-infrastructure/monitoring")
            .join(file);
        fs::read_to_string(&path).expect("reads")
    }

    /// Words that begin as our metrics do.
    fn mentioned(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|w| w.starts_with("switchback_")).collect()
    }

    #[test]
    fn every_metric_is_documented_and_the_dashboard_and_the_rules_use_no_other() {
        let known: BTreeSet<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
        assert_eq!(known.len(), NAMES.len(), "one is listed twice");
        let documented = page("metrics.md");
        for (name, kind, _) in NAMES {
            assert!(documented.contains(&format!("| `{name}` | {kind} |")), "{name} {kind}");
        }
        for file in ["metrics.md", "grafana.json", "alerts.yaml"] {
            let text = page(file);
            let other: Vec<_> = mentioned(&text).difference(&known).copied().collect();
            assert!(other.is_empty(), "{file}: {other:?}");
            assert!(mentioned(&text).len() > 6, "{file}");
        }
        let _: serde_json::Value = serde_json::from_str(&page("grafana.json")).expect("JSON");
    }

    /// What neither the dashboard nor a rule shows: it is said by another one, or of use on a trial only.
    const NOT_SHOWN: [&str; 8] = [
        "switchback_capture_behind_bytes",
        "switchback_capture_working",
        "switchback_drift",
        "switchback_promotions_undone_total",
        "switchback_rollback_measured_age_seconds",
        "switchback_service_running",
        "switchback_trial_failures",
        "switchback_trial_left_seconds",
    ];

    #[test]
    fn the_dashboard_or_a_rule_shows_every_metric_but_those_that_are_named_here() {
        let (dashboard, rules) = (page("grafana.json"), page("alerts.yaml"));
        let shown: BTreeSet<&str> = mentioned(&dashboard).union(&mentioned(&rules)).copied().collect();
        let not: Vec<&str> = NAMES.iter().map(|(n, ..)| *n).filter(|n| !shown.contains(n)).collect();
        let mut wanted = NOT_SHOWN.to_vec();
        wanted.sort_by_key(|n| NAMES.iter().position(|(name, ..)| name == n));
        assert_eq!(not, wanted);
        // What makes production unsafe wakes somebody.
        for name in [
            "switchback_production_down",
            "switchback_service_well",
            "switchback_trial_watched",
            "switchback_blind",
            "switchback_rollback_ready",
            "switchback_backup_late",
            "switchback_backup_key_confirmed",
            "switchback_wal_age_seconds",
            "switchback_info",
        ] {
            assert!(mentioned(&rules).contains(name), "no rule asks for {name}");
        }
        let _: serde_yaml_ng::Value = serde_yaml_ng::from_str(&rules).expect("YAML");
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let mut page = Page::new("a\"b");
        page.add("switchback_prevented_total", &[("check", "x\\\n\"} 1")], 2);
        assert_eq!(
            page.samples[0].1,
            "switchback_prevented_total{stack=\"a\\\"b\",check=\"x\\\\\\n\\\"} 1\"} 2\n"
        );
    }
}
