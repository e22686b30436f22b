//! Logs of containers.

use super::ComposeRuntime;
use super::containers::container_of;
use crate::docker::DockerError;
use crate::error::EngineError;
use crate::runtime::{LogPart, Placement, Runtime as _};
use switchback_core::ids::ServiceName;
use switchback_core::workflow::Redactor;

/// Lines that are asked for at most.
const LINES: u32 = 5000;

/// The last lines of a service's log, at most so many, without secrets.
pub fn last(runtime: &ComposeRuntime, at: &Placement<'_>, name: &ServiceName, lines: u32) -> Vec<String> {
    let Ok(Some(container)) = container_of(&runtime.docker, at.instance, name) else { return Vec::new() };
    let text = runtime.docker.logs_tail(&container.id, lines).unwrap_or_default();
    redacted(runtime, at, &text)
}

/// The same, at most so many bytes.
pub fn tail(runtime: &ComposeRuntime, at: &Placement<'_>, name: &ServiceName, bytes: u64) -> Vec<String> {
    bounded(last(runtime, at, name, LINES), bytes)
}

/// What a service logged after a time.
pub fn after(
    runtime: &ComposeRuntime,
    at: &Placement<'_>,
    name: &ServiceName,
    mark: Option<&str>,
    bytes: u64,
) -> Result<LogPart, EngineError> {
    // Times are the engine's own, whose clock may be another one.
    let begin = mark.unwrap_or("1970-01-01T00:00:00Z");
    let since: jiff::Timestamp = begin.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let none = LogPart { lines: Vec::new(), mark: begin.to_owned() };
    let Some(container) = container_of(&runtime.docker, at.instance, name)? else { return Ok(none) };
    let lines = if mark.is_some() { LINES } else { 1 };
    let text = match runtime.docker.logs_since(&container.id, since.as_second(), lines) {
        Ok(text) => text,
        Err(e) if matches!(e, DockerError::EngineUnreachable { .. }) => return Err(e.into()),
        // Its logging driver keeps nothing that could be read.
        Err(_) => return Ok(none),
    };
    let (mut lines, mark_after) = newer(&text, since, begin);
    if mark.is_none() {
        lines.clear();
    }
    let mark = mark_after;
    Ok(LogPart { lines: bounded(redacted(runtime, at, &lines.join("\n")), bytes), mark })
}

/// Of lines that begin with their time: those after a time, without it, and the time of the last one.
fn newer(text: &str, since: jiff::Timestamp, mark: &str) -> (Vec<String>, String) {
    let mut lines = Vec::new();
    let (mut last, mut mark) = (since, mark.to_owned());
    for line in text.lines() {
        let Some((time, rest)) = line.split_once(' ') else { continue };
        let Ok(at) = time.parse::<jiff::Timestamp>() else { continue };
        if at > since {
            lines.push(rest.to_owned());
        }
        // The two streams are in the order of their arrival, not of their times.
        if at > last {
            (last, mark) = (at, time.to_owned());
        }
    }
    (lines, mark)
}

fn redacted(runtime: &ComposeRuntime, at: &Placement<'_>, text: &str) -> Vec<String> {
    let redactor = Redactor::from_values(runtime.secrets(at));
    redactor.redact(text).lines().map(str::to_owned).collect()
}

/// The end of the lines, at most so many bytes.
fn bounded(mut lines: Vec<String>, bytes: u64) -> Vec<String> {
    let mut kept = 0;
    let first = lines.iter().rposition(|l| {
        kept += l.len() as u64 + 1;
        kept > bytes
    });
    lines.drain(..first.map_or(0, |i| i + 1));
    lines
}

#[cfg(test)]
mod tests {
    use super::{bounded, newer};

    #[test]
    fn each_line_is_read_once() {
        let text = "2026-11-29T02:00:00.000000001Z one\n2026-11-29T02:00:00.000000003Z three\n\
                    2026-11-29T02:00:00.000000002Z two\nnothing\n";
        let begin = "2026-11-29T02:00:00Z";
        let (lines, mark) = newer(text, begin.parse().expect("a time"), begin);
        assert_eq!(lines, ["one", "three", "two"]);
        assert_eq!(mark, "2026-11-29T02:00:00.000000003Z");
        let more = format!("{text}2026-11-29T02:00:01Z error: four\n");
        let (lines, mark) = newer(&more, mark.parse().expect("a time"), &mark);
        assert_eq!((lines, mark.as_str()), (vec!["error: four".to_owned()], "2026-11-29T02:00:01Z"));
        assert_eq!(bounded(vec!["aaaa".into(), "bb".into(), "cc".into()], 6), ["bb", "cc"]);
    }
}
