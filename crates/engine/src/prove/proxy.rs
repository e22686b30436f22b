//! A proxy before a service: passes requests on, with a fault in them if there is one, and remembers what was asked.
//!
//! HTTP/1.1 (RFC 9112). Each request is read whole, passed on over a connection of its own, and its answer read whole: faults
//! need both. What asks to change the protocol is refused; no check does.

use super::fault::{Answered, Asked, Fault, Kind};
use crate::check::http::{HttpClient, HttpRequest, Limits, Redirects};
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use switchback_core::record::Exchange;

/// The longest content of a request.
const BODY: usize = 64 << 20;
const HEAD: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// In capitals.
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
    /// Whether it had a query, a login, an upload, JSON in the answer.
    pub query: bool,
    /// Whether it had a login.
    pub login: bool,
    /// Whether it uploaded a file.
    pub upload: bool,
    /// Whether JSON came back.
    pub json: bool,
    /// Whether it sent JSON with more than one property.
    pub sent: bool,
    /// Whether a page came back.
    pub page: bool,
    /// Whether a style sheet came back.
    pub style: bool,
}

/// A proxy that runs until it is dropped.
pub struct Proxy {
    /// Where it listens, on this host's loopback.
    pub port: u16,
    seen: Arc<Mutex<BTreeSet<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Proxy {
    /// Starts one before `host:port`.
    pub fn start(upstream: String, fault: Arc<Fault>) -> io::Result<Self> {
        Self::start_on(0, upstream, fault, None)
    }

    /// Starts one on a port (0: any) that keeps what it passes on.
    pub fn recording(port: u16, upstream: String, record: Record) -> io::Result<Self> {
        Self::start_on(port, upstream, Arc::new(Fault::new(Kind::Nothing)), Some(record))
    }

    fn start_on(port: u16, upstream: String, fault: Arc<Fault>, record: Option<Record>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        let (seen, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let (list, stopped) = (seen.clone(), stop.clone());
        std::thread::spawn(move || {
            let serving = Arc::new(Serving { upstream, fault, seen: list, record });
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let serving = serving.clone();
                std::thread::spawn(move || {
                    let _ = serving.serve(&stream);
                });
            }
        });
        Ok(Self { port, seen, stop })
    }

    /// What was asked so far.
    pub fn seen(&self) -> BTreeSet<Seen> {
        self.seen.lock().map(|s| s.clone()).unwrap_or_default()
    }
}

struct Serving {
    upstream: String,
    fault: Arc<Fault>,
    seen: Arc<Mutex<BTreeSet<Seen>>>,
    record: Option<Record>,
}

/// What a recording proxy passed on, in the order of the answers.
pub type Record = Arc<Mutex<Vec<Exchange>>>;

/// The most that is kept, and the longest content.
const RECORDED: usize = 2000;
const RECORDED_BODY: usize = 1 << 20;

impl Serving {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // Connections to the service stay open as those to the proxy do.
        let client =
            HttpClient::new(Limits { body_bytes: BODY as u64, ..Limits::default() }, [self.upstream.clone()]);
        let mut buffer = Vec::new();
        while let Some(mut asked) = read(stream, &mut buffer)? {
            let original = asked.clone();
            let began = Instant::now();
            let answered = match self.fault.before(&mut asked) {
                Some(answered) => answered,
                None => {
                    let mut answered = pass_on(&client, &self.upstream, &asked);
                    self.fault.after(&asked, &mut answered, began.elapsed());
                    answered
                }
            };
            self.note(&original, &answered);
            self.keep(&original, &answered);
            write(stream, &original, &answered)?;
        }
        Ok(())
    }

    fn keep(&self, asked: &Asked, answered: &Answered) {
        let Some(Ok(mut list)) = self.record.as_ref().map(|r| r.lock()) else { return };
        if list.len() >= RECORDED {
            return;
        }
        let short = |bytes: &[u8]| if bytes.len() > RECORDED_BODY { Vec::new() } else { bytes.to_vec() };
        let media =
            answered.headers.iter().find(|(n, _)| n == "content-type").map_or("", |(_, v)| v.as_str());
        list.push(Exchange {
            method: asked.method.clone(),
            target: asked.target.clone(),
            headers: asked.headers.clone(),
            body: short(&asked.body),
            status: answered.status,
            answer_type: media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            answer: short(&answered.body),
        });
    }

    fn note(&self, asked: &Asked, answered: &Answered) {
        let sent = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&asked.body);
        let seen = Seen {
            method: asked.method.clone(),
            path: asked.path().to_owned(),
            status: answered.status,
            query: asked.target.contains('?'),
            login: asked.login().is_some(),
            upload: asked.uploads(),
            json: answered.json().is_some(),
            page: answered.is("html"),
            style: answered.is("css"),
            sent: asked.writes() && sent.is_ok_and(|b| b.len() > 1),
        };
        if let Ok(mut list) = self.seen.lock()
            && list.len() < 4096
        {
            list.insert(seen);
        }
    }
}

/// What is between two machines and not between programs (RFC 9110, 7.6.1), or is made anew here.
const HOP: [&str; 7] =
    ["connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding", "expect"];

fn pass_on(client: &HttpClient, upstream: &str, asked: &Asked) -> Answered {
    let headers = asked.headers.iter().filter(|(n, _)| !HOP.contains(&n.as_str())).cloned().collect();
    let request = HttpRequest {
        method: asked.method.clone(),
        url: format!("http://{upstream}{}", asked.target),
        headers,
        body: (!asked.body.is_empty() || asked.writes()).then(|| asked.body.clone()),
        redirects: Redirects::Return,
        timeout: TIMEOUT,
    };
    match client.send(&request) {
        Ok(response) => {
            let plain = |n: &str| !HOP.contains(&n) && n != "content-encoding";
            let headers = response.headers.iter().filter(|(n, _)| plain(n)).cloned().collect();
            Answered { status: response.status, headers, body: response.body.clone() }
        }
        Err(e) => Answered::with(502, &serde_json::json!({ "error": e.to_string() }).to_string()),
    }
}

/// Reads one request; `None` at the end of the connection.
fn read(mut stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut chunk = [0; 16384];
    let (mut asked, length) = loop {
        if let Some(found) = head(buffer)? {
            break found;
        }
        if buffer.len() > HEAD {
            return Err(broken("the head is too long"));
        }
        let got = stream.read(&mut chunk)?;
        if got == 0 {
            return Ok(None);
        }
        buffer.extend_from_slice(&chunk[..got]);
    };
    buffer.drain(..length);
    let find = |name: &str| asked.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    if find("upgrade").is_some() {
        return Err(broken("another protocol is asked for"));
    }
    if find("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if find("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
        loop {
            if let Some(used) = dechunk(buffer, &mut asked.body)? {
                buffer.drain(..used);
                break;
            }
            let got = stream.read(&mut chunk)?;
            if got == 0 || buffer.len() > BODY {
                return Err(broken("the content breaks off"));
            }
            buffer.extend_from_slice(&chunk[..got]);
        }
    } else {
        let wanted = find("content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0).min(BODY);
        while buffer.len() < wanted {
            let got = stream.read(&mut chunk)?;
            if got == 0 {
                return Err(broken("the content breaks off"));
            }
            buffer.extend_from_slice(&chunk[..got]);
        }
        asked.body = buffer.drain(..wanted).collect();
    }
    Ok(Some(asked))
}

fn head(buffer: &[u8]) -> io::Result<Option<(Asked, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let invalid = |e: httparse::Error| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let httparse::Status::Complete(length) = request.parse(buffer).map_err(invalid)? else { return Ok(None) };
    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
    let asked = Asked {
        method: request.method.unwrap_or_default().to_ascii_uppercase(),
        target: request.path.unwrap_or("/").to_owned(),
        headers: request.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
        body: Vec::new(),
    };
    Ok(Some((asked, length)))
}

/// Takes the chunks apart (RFC 9112, 7.1); how many bytes they were, or `None` while the last is missing.
fn dechunk(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    out.clear();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((start, size))) => {
                let (start, size) = (at + start, usize::try_from(size).unwrap_or(usize::MAX));
                let Some(end) = start.checked_add(size).filter(|e| *e <= BODY) else {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk is too long"));
                };
                if bytes.len() < end + 2 {
                    return Ok(None);
                }
                out.extend_from_slice(bytes.get(start..end).unwrap_or_default());
                at = end + 2;
                if size == 0 {
                    return Ok(Some(at));
                }
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk has no size")),
        }
    }
}

fn write(mut stream: &TcpStream, asked: &Asked, answered: &Answered) -> io::Result<()> {
    let mut out = format!("HTTP/1.1 {} X\r\n", answered.status).into_bytes();
    for (name, value) in &answered.headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    // These have no content, and no length either (RFC 9110, 8.6).
    let bare = matches!(answered.status, 100..=199 | 204 | 304);
    if !bare {
        out.extend_from_slice(format!("content-length: {}\r\n", answered.body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    if !bare && asked.method != "HEAD" {
        out.extend_from_slice(&answered.body);
    }
    stream.write_all(&out)
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
