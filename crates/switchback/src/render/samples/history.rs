//! Three months of a stack: mostly well, a bad release, weeks in which nothing happened.

use super::{exported, pass, refused, rolled_back};
use switchback_core::analytics::{Past, Period, Trends};
use switchback_core::ids::RunId;
use switchback_core::plan::Procedure;
use switchback_core::report::{Conclusion, Report};

const DAY: i64 = 86_400_000;
/// Monday, 31 August 2026.
const BEGIN: i64 = 20_696 * DAY;

fn run(report: Report, day: i64, change: &str, generations: (u32, u32)) -> Past {
    let at = BEGIN + day * DAY + 9 * 3_600_000;
    let report = Report {
        run: RunId::from(format!("01KD{day:03}{}", report.procedure.as_str().to_uppercase())),
        started_at_ms: at,
        ended_at_ms: at + 60_000,
        change: change.to_owned(),
        from_generation: Some(generations.0),
        to_generation: Some(generations.1),
        ..report
    };
    Past { report, failing_since_ms: None, answered_again_ms: None }
}

fn promoted(day: i64, generation: u32, downtime_ms: u64) -> Past {
    let mut run = run(rolled_back(), day, "assistant 1 -> 2", (generation - 1, generation));
    run.report.conclusion = Conclusion::Pass;
    run.report.trial = None;
    run.report.times.downtime_ms = Some(downtime_ms);
    run
}

/// The runs, newest first.
pub fn history() -> Vec<Past> {
    let mut failed = run(rolled_back(), 36, "assistant 2 -> 3", (7, 8));
    failed.failing_since_ms = Some(failed.report.started_at_ms + 402_000);
    failed.report.times.downtime_ms = Some(2_900);
    let back = |day: i64, later_ms: i64, left: u32, reason: &str, rollback_ms: u64| {
        let mut back = run(exported(), day, "assistant 3 -> 2", (left, left - 1));
        back.report.procedure = Procedure::Rollback;
        back.report.conclusion = Conclusion::Pass;
        back.report.started_at_ms += later_ms;
        back.report.reason = Some(reason.to_owned());
        back.report.times.rollback_ms = Some(rollback_ms);
        back.report.times.rollback_downtime_ms = Some(rollback_ms / 2);
        back.answered_again_ms = Some(back.report.started_at_ms + 2_000);
        back
    };
    let tried = |report, day, change| run(report, day, change, (1, 1));
    let mut runs = vec![
        tried(pass(), 1, "assistant 1 -> 2"),
        promoted(1, 2, 1_400),
        tried(refused(), 8, "assistant 2 -> 3"),
        tried(pass(), 9, "assistant 2 -> 3"),
        promoted(9, 3, 1_900),
        tried(pass(), 10, "notes 4 -> 5"),
        promoted(10, 4, 3_100),
        back(15, 0, 4, "mails are not sent", 780),
        tried(refused(), 16, "notes 4 -> 6"),
        tried(pass(), 36, "assistant 3 -> 4"),
        failed,
        back(36, 500_000, 8, "trial failed: assistant: GET /health -> 503", 1_120),
        tried(refused(), 50, "db 15 -> 17"),
        tried(refused(), 51, "db 15 -> 17"),
        tried(pass(), 58, "db 15 -> 17"),
        promoted(58, 9, 9_400),
        tried(pass(), 66, "notes 5 -> 7"),
        promoted(66, 10, 1_200),
        promoted(68, 11, 1_500),
    ];
    runs.reverse();
    runs
}

/// The trends of them.
pub fn trends() -> Trends {
    let runs = history();
    Trends::build(&runs, Period::since(i64::MIN, BEGIN + 75 * DAY, &runs))
}
