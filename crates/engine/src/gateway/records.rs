//! Writing down what was sent: one line of JSON each, bounded in number and bytes; what is too much is counted.

use super::dns::Resolver;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use switchback_core::egress::{Kind, Sent};

/// Records that may wait to be written.
const WAITING: usize = 2048;
/// Bytes of records in all: the engine keeps 10 MB of a container's output and forgets the oldest of it.
const BYTES: usize = 6 << 20;
/// The same name asked for by the same service within this time is one question (A and AAAA, and retries).
const SAME: Duration = Duration::from_secs(30);
/// Addresses and names that are remembered.
const REMEMBERED: usize = 4096;
/// Containers come and go: the name behind an address is asked for again after this time.
const NAME_GOOD: Duration = Duration::from_secs(20);
/// A name of the world that was asked for is what the next connection goes to, for so long.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// What the isolation check's attacker asks for is no wish of a service; no service can have this name.
pub const ATTACKER: &str = "-attack";

/// A line of the gateway's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum Line {
    /// The gateway listens everywhere.
    Ready {
        /// UTC, milliseconds since 1970: tells one start from another.
        at_ms: i64,
    },
    /// Something was sent.
    Sent(Sent),
    /// So many records were left out since the start.
    Dropped {
        /// All of them.
        count: u64,
    },
}

/// What is to be written, with the address it came from.
struct Note {
    from: IpAddr,
    sent: Sent,
}

/// Takes records; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: SyncSender<Note>,
    dropped: Arc<AtomicU64>,
    asked: Arc<Mutex<BTreeMap<IpAddr, (Instant, String)>>>,
}

/// The milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Recorder {
    /// One whose records are written to `out` by a thread of its own. `name` gives the service behind an address.
    ///
    /// The thread ends, with everything written, when the last clone is gone or [`Stop`] is told to.
    pub fn new<W: Write + Send + 'static>(out: W, names: Names) -> (Self, Writer) {
        let (queue, notes) = sync_channel(WAITING);
        let (stop, stopped) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let recorder = Self { queue, dropped: dropped.clone(), asked: Arc::default() };
        let work = Work { notes, stopped, dropped, names, told: 0 };
        let thread = std::thread::spawn(move || work.run(out));
        (recorder, Writer { stop, thread })
    }

    /// Notes something that came from an address.
    pub fn note(&self, from: IpAddr, mut sent: Sent) {
        sent.at_ms = now_ms();
        if self.queue.try_send(Note { from, sent }).is_err() {
            self.drop_one();
        }
    }

    /// Counts something that could not be looked at.
    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers which name an address asked for.
    pub fn asked(&self, from: IpAddr, name: &str) {
        if let Ok(mut asked) = self.asked.lock()
            && (asked.len() < REMEMBERED || asked.contains_key(&from))
        {
            asked.insert(from, (Instant::now(), name.to_owned()));
        }
    }

    /// The name that an address asked for last, if it was a moment ago: where a connection without a name goes to.
    pub fn last_asked(&self, from: IpAddr) -> Option<String> {
        let asked = self.asked.lock().ok()?;
        asked.get(&from).filter(|(at, _)| at.elapsed() < ASKED_FOR).map(|(_, name)| name.clone())
    }
}

/// The thread that writes.
pub struct Writer {
    stop: SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    /// Writes what waits, and ends.
    pub fn finish(self) {
        let _ = self.stop.try_send(());
        let _ = self.thread.join();
    }
}

/// Finds the service behind an address.
pub struct Names {
    resolver: Option<Resolver>,
    project: String,
    always: Option<String>,
    known: BTreeMap<IpAddr, (Instant, String)>,
}

impl Names {
    /// Asks the engine's resolver; containers are named `PROJECT-SERVICE-NUMBER`.
    pub fn new(resolver: Option<Resolver>, project: &str) -> Self {
        Self { resolver, project: project.to_owned(), always: None, known: BTreeMap::new() }
    }

    /// The same for every address: services that share one.
    pub fn always(name: &str) -> Self {
        Self { always: Some(name.to_owned()), ..Self::new(None, "") }
    }

    fn of(&mut self, address: IpAddr) -> String {
        if let Some(name) = &self.always {
            return name.clone();
        }
        if let Some((at, name)) = self.known.get(&address)
            && at.elapsed() < NAME_GOOD
        {
            return name.clone();
        }
        let IpAddr::V4(v4) = address else { return address.to_string() };
        let found = self.resolver.and_then(|r| r.name_of(v4).ok().flatten());
        let name = found.map_or_else(|| v4.to_string(), |n| service_of(&n, &self.project, v4));
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(address, (Instant::now(), name.clone()));
        name
    }
}

/// `PROJECT-app-1.PROJECT_default` is the service `app`.
fn service_of(name: &str, project: &str, address: Ipv4Addr) -> String {
    let container = name.split('.').next().unwrap_or_default();
    let Some(rest) = container.strip_prefix(project).and_then(|r| r.strip_prefix(['-', '_'])) else {
        return if container.is_empty() { address.to_string() } else { container.to_owned() };
    };
    match rest.rsplit_once(['-', '_']) {
        Some((service, number)) if number.bytes().all(|c| c.is_ascii_digit()) => service.to_owned(),
        _ => rest.to_owned(),
    }
}

struct Work {
    notes: Receiver<Note>,
    stopped: Receiver<()>,
    dropped: Arc<AtomicU64>,
    names: Names,
    told: u64,
}

impl Work {
    fn run<W: Write>(mut self, mut out: W) {
        let mut written = 0;
        let mut questions: BTreeMap<(IpAddr, String), Instant> = BTreeMap::new();
        write(&mut out, &Line::Ready { at_ms: now_ms() });
        loop {
            let note = match self.notes.recv_timeout(Duration::from_millis(100)) {
                Ok(note) => note,
                Err(RecvTimeoutError::Timeout) => {
                    // Told at 1, 2, 4, 8 ...: a flood must not become one of lines.
                    let dropped = self.dropped.load(Ordering::Relaxed);
                    if dropped > 0 && dropped >= self.told.saturating_mul(2).max(1) {
                        self.told = dropped;
                        write(&mut out, &Line::Dropped { count: dropped });
                    }
                    if self.stopped.try_recv().is_ok() {
                        break;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if note.sent.kind == Kind::Dns {
                let key = (note.from, note.sent.host.clone());
                if questions.get(&key).is_some_and(|at| at.elapsed() < SAME) {
                    continue;
                }
                if questions.len() >= REMEMBERED {
                    questions.clear();
                }
                questions.insert(key, Instant::now());
            }
            let service = self.names.of(note.from);
            if service == ATTACKER {
                continue;
            }
            let line = Line::Sent(Sent { service, ..note.sent }.cleaned(&str::to_owned));
            let text = serde_json::to_vec(&line).unwrap_or_default();
            if written + text.len() > BYTES {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            written += text.len() + 1;
            let _ = out.write_all(&text).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.told {
            write(&mut out, &Line::Dropped { count: dropped });
        }
    }
}

fn write(out: &mut impl Write, line: &Line) {
    let text = serde_json::to_string(line).unwrap_or_default();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// What a gateway wrote since its last start: when that was, the records, and how many were left out.
pub fn read_back(output: &str) -> (Option<i64>, Vec<Sent>, u64) {
    let (mut started, mut records, mut dropped) = (None, Vec::new(), 0);
    for line in output.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Ready { at_ms }) => {
                (started, dropped) = (Some(at_ms), 0);
                records.clear();
            }
            Ok(Line::Sent(sent)) => records.push(sent),
            Ok(Line::Dropped { count }) => dropped = count,
            Err(_) => {}
        }
    }
    (started, records, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);
    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(172, 16, 0, last))
    }

    #[test]
    fn records_come_back_as_they_were_written_and_too_many_are_counted() {
        let out = Out::default();
        let (recorder, writer) = Recorder::new(out.clone(), Names::new(None, "p"));
        for n in 0..40_000_u32 {
            let mut sent = Sent::new(Kind::Http, "", format!("{n}.{}", "x".repeat(250)), 80);
            sent.path = Some("/p".repeat(100));
            recorder.note(from(7), sent);
            if n % 500 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        writer.finish();
        let text = String::from_utf8(out.0.lock().expect("a lock").clone()).expect("text");
        assert!(text.len() < BYTES + 4096, "{}", text.len());
        let (started, records, dropped) = read_back(&text);
        assert!(started.is_some() && dropped > 0);
        assert_eq!(records.len() as u64 + dropped, 40_000);
        assert_eq!(records[0].service, "172.16.0.7");
    }

    #[test]
    fn a_name_is_told_once_per_service_and_only_the_last_start_counts() {
        let out = Out::default();
        let (recorder, writer) = Recorder::new(out.clone(), Names::new(None, "p"));
        for source in [7, 7, 8] {
            recorder.note(from(source), Sent::new(Kind::Dns, "", "api.example.com", 53));
        }
        writer.finish();
        let text = String::from_utf8(out.0.lock().expect("a lock").clone()).expect("text");
        assert_eq!(read_back(&text).1.len(), 2);
        let again = format!("noise\n{text}{text}");
        assert_eq!(read_back(&again).1.len(), 2);
    }

    #[test]
    fn services_are_known_by_the_names_of_their_containers() {
        let at = Ipv4Addr::LOCALHOST;
        for (name, service) in [
            ("sb-x-app-1.sb-x_default", "app"),
            ("sb-x-my-app_2-12.sb-x_default", "my-app_2"),
            ("sb-x-migrate-hub.sb-x_default", "migrate-hub"),
            ("sb-x--attack.sb-x_default", ATTACKER),
            ("other.net", "other"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(service_of(name, "sb-x", at), service, "{name}");
        }
    }

    #[test]
    fn a_connection_without_a_name_goes_to_what_was_asked_for_last() {
        let (recorder, writer) = Recorder::new(std::io::sink(), Names::new(None, "p"));
        assert_eq!(recorder.last_asked(from(1)), None);
        recorder.asked(from(1), "db.example.com");
        assert_eq!(recorder.last_asked(from(1)).as_deref(), Some("db.example.com"));
        assert_eq!(recorder.last_asked(from(2)), None);
        writer.finish();
    }
}
