//! The sink: takes every connection and name that a service sends out, finds out what it is, and records it.
//!
//! It works on sockets that are handed to it and knows nothing of containers. It must never send anything on that no rule
//! lets out, and never keep what could be a secret. Everything is bounded: connections, time, bytes.

use super::authority::Certifier;
use super::config::{Canned, Rules};
use super::dns::{self, Answer};
use super::http::{self, Head};
use super::outside::Outside;
use super::records::Recorder;
use super::splice::join;
use super::tls::{self, Hello};
use super::{guess, smtp};
use base64::Engine as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use switchback_core::egress::{Fate, Kind, Sent, without_query_values};

/// Ports of mail, where the server speaks first.
pub const MAIL: [u16; 4] = [25, 587, 2525, 1025];
/// Connections at a time; more are closed and counted.
const CONNECTIONS: usize = 256;
/// A client that says nothing waits for the server: so long until that is taken as what it is.
const SILENT: Duration = Duration::from_secs(2);
/// The longest that one connection is listened to.
const LONGEST: Duration = Duration::from_secs(60);
/// A pause within a conversation.
const PAUSE: Duration = Duration::from_secs(20);
/// The most that is read of one request's content.
const CONTENT: u64 = 64 << 20;
/// What connections are judged by.
pub struct Sink {
    rules: Rules,
    certifier: Option<Certifier>,
    recorder: Recorder,
    outside: Box<dyn Outside>,
    own: Vec<Ipv4Addr>,
    active: AtomicUsize,
}

impl Sink {
    /// A sink with rules, a way to what they let out, and its own addresses.
    pub fn new(
        rules: Rules,
        recorder: Recorder,
        outside: Box<dyn Outside>,
        own: Vec<Ipv4Addr>,
    ) -> Result<Self, String> {
        let certifier = rules.authority.as_ref().map(Certifier::new).transpose()?;
        Ok(Self { rules, certifier, recorder, outside, own, active: AtomicUsize::new(0) })
    }

    /// Whether an address is its own.
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.own.contains(&address)
    }

    /// Where records go.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Takes a connection to a port; a thread of its own serves it.
    pub fn take(self: &Arc<Self>, stream: TcpStream, port: u16) {
        let sink = self.clone();
        self.bounded(move || {
            let Ok(peer) = stream.peer_addr() else { return };
            // A client that goes away in the middle has been recorded or has said nothing.
            let _ = sink.serve(&stream, peer.ip(), port);
        });
    }

    /// Runs work in a thread of its own, unless there are too many.
    pub fn bounded(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) {
        if self.active.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
            self.active.fetch_sub(1, Ordering::AcqRel);
            self.recorder.drop_one();
            return;
        }
        let sink = self.clone();
        let spawned = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            struct Done(Arc<Sink>);
            impl Drop for Done {
                fn drop(&mut self) {
                    self.0.active.fetch_sub(1, Ordering::AcqRel);
                }
            }
            let _done = Done(sink);
            work();
        });
        if spawned.is_err() {
            self.active.fetch_sub(1, Ordering::AcqRel);
            self.recorder.drop_one();
        }
    }

    /// The answer to a question that came to one of our addresses; `None` for what is no question.
    pub fn name(&self, message: &[u8], from: IpAddr, to: Ipv4Addr) -> Option<Vec<u8>> {
        let question = dns::question(message)?;
        if question.is_reverse() {
            return Some(dns::answer(message, &question, Answer::NoName));
        }
        let known = self.rules.knows(&question.name);
        let mut sent = Sent::new(Kind::Dns, "", &question.name, 53);
        sent.method = Some(question.kind_word());
        sent.bytes = message.len() as u64;
        sent.outcome = if known { Fate::Recorded } else { Fate::Denied };
        self.recorder.note(from, sent);
        if question.wants_address() {
            self.recorder.asked(from, &question.name);
        }
        let answer = if known { Answer::Address(to) } else { Answer::NoName };
        Some(dns::answer(message, &question, answer))
    }

    fn sent(&self, kind: Kind, from: IpAddr, host: Option<String>, port: u16) -> Sent {
        let host = host.filter(|h| !h.is_empty()).or_else(|| self.recorder.last_asked(from));
        let mut sent = Sent::new(kind, "", host.unwrap_or_else(|| "(no name)".to_owned()), port);
        sent.outcome = self.rules.fate();
        sent
    }

    fn serve(&self, stream: &TcpStream, from: IpAddr, port: u16) -> io::Result<()> {
        stream.set_write_timeout(Some(PAUSE))?;
        if let Some(only) = self.rules.only_on(port).filter(|_| !matches!(port, 80 | 443)) {
            let mut sent = self.sent(Kind::Tcp, from, Some(only.host.clone()), port);
            sent.outcome = Fate::Allowed;
            self.recorder.note(from, sent);
            return self.let_out(stream, &only.host, port, &[]);
        }
        if MAIL.contains(&port) {
            return self.mail(stream, from, port);
        }
        let first = peek(stream, SILENT)?;
        match tls::hello(&first) {
            Hello::Client(name) => return self.secured(stream, from, port, name),
            Hello::Short | Hello::Other => {}
        }
        if http::looks_like(&first) == Some(true) {
            return self.request(Plain(stream), from, port, None);
        }
        let mut sent = self.sent(Kind::Tcp, from, None, port);
        sent.method = Some(guess::protocol(&first).to_owned());
        sent.bytes = first.len() as u64;
        self.recorder.note(from, sent);
        Ok(())
    }

    fn mail(&self, stream: &TcpStream, from: IpAddr, port: u16) -> io::Result<()> {
        if self.rules.fate() == Fate::Denied {
            self.recorder.note(from, self.sent(Kind::Smtp, from, None, port));
            return Ok(());
        }
        let mut mails = 0;
        let ended = smtp::serve(Timed::new(Plain(stream)), |mail| {
            mails += 1;
            let mut sent = self.sent(Kind::Smtp, from, None, port);
            sent.sender = Some(mail.sender);
            sent.recipients = mail.recipients;
            sent.subject = mail.subject;
            sent.bytes = mail.bytes;
            self.recorder.note(from, sent);
        });
        if mails == 0 {
            self.recorder.note(from, self.sent(Kind::Smtp, from, None, port));
        }
        ended
    }

    fn secured(&self, stream: &TcpStream, from: IpAddr, port: u16, name: Option<String>) -> io::Result<()> {
        let host = name.clone().unwrap_or_default();
        if self.rules.stubbed(&host, port)
            && let Some(certifier) = &self.certifier
        {
            let config = certifier.server(&host).map_err(io::Error::other)?;
            let server = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            let secured = rustls::StreamOwned::new(server, Plain(stream));
            return self.request(secured, from, port, Some(host));
        }
        let kind = if port == 465 { Kind::Smtp } else { Kind::Https };
        let mut sent = self.sent(kind, from, name, port);
        let allowed = self.rules.allows(&host, port);
        if allowed {
            sent.outcome = Fate::Allowed;
        }
        self.recorder.note(from, sent);
        if allowed { self.let_out(stream, &host, port, &[]) } else { Ok(()) }
    }

    /// Serves one request. `secured` is the name that the connection was secured for.
    fn request<S: Conversation>(
        &self,
        stream: S,
        from: IpAddr,
        port: u16,
        secured: Option<String>,
    ) -> io::Result<()> {
        let mut stream = Timed::new(stream);
        let kind = if secured.is_some() { Kind::Https } else { Kind::Http };
        let mut buffer = Vec::new();
        let head = match http::read_head(&mut stream, &mut buffer) {
            Ok(head) => head,
            Err(e) => {
                let mut sent = self.sent(kind, from, secured, port);
                sent.method = Some("no whole request".to_owned());
                sent.bytes = buffer.len() as u64;
                self.recorder.note(from, sent);
                return Err(e);
            }
        };
        // Inside TLS the name of the certificate counts: `Host` may name another one.
        let named = secured.clone().unwrap_or_else(|| head.host.clone());
        let to = if head.method == "CONNECT" { head.port.unwrap_or(443) } else { head.port.unwrap_or(port) };
        let mut sent = self.sent(kind, from, Some(named.clone()), to);
        sent.method = Some(head.method.clone());
        sent.path = (head.method != "CONNECT").then(|| without_query_values(&head.target));
        let stub = self.rules.stub((&named, to), &head.method, &head.target);
        let out = stub.is_none() && secured.is_none() && self.rules.allows(&named, to);
        if out && let Some(plain) = stream.inner.plain() {
            sent.outcome = Fate::Allowed;
            sent.bytes = buffer.len() as u64;
            self.recorder.note(from, sent);
            let rest = buffer.get(head.length..).unwrap_or_default();
            if head.method == "CONNECT" {
                let mut hear = plain;
                hear.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
                return self.let_out(plain, &named, to, rest);
            }
            let first = [&http::closing(&head, &buffer), rest].concat();
            return self.let_out(plain, &named, to, &first);
        }
        let read = content(&mut stream, &head, &buffer);
        sent.bytes = buffer.len() as u64 + *read.as_ref().unwrap_or(&0);
        if stub.is_some() {
            sent.outcome = Fate::Stubbed;
        }
        let fate = sent.outcome;
        self.recorder.note(from, sent);
        read?;
        match (stub, fate) {
            (Some(stub), _) => canned(&mut stream, &head, stub),
            (None, Fate::Denied) => Ok(()),
            (None, _) => taken(&mut stream, &head),
        }
    }

    /// Joins a connection with the real one.
    fn let_out(&self, stream: &TcpStream, host: &str, port: u16, first: &[u8]) -> io::Result<()> {
        let there = self.outside.connect(host, port)?;
        join(stream, &there, first).map(drop)
    }
}

/// The first bytes of a connection, left where they are: until they tell what it is, or no more come.
fn peek(stream: &TcpStream, limit: Duration) -> io::Result<Vec<u8>> {
    let began = Instant::now();
    let mut buffer = vec![0; tls::LONGEST + 1];
    let mut seen = 0;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        let got = match stream.peek(&mut buffer) {
            Ok(got) => got,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(e) => return Err(e),
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        let undecided = tls::hello(bytes) == Hello::Short || http::looks_like(bytes).is_none();
        if got == 0 || got == buffer.len() || !undecided {
            seen = got;
            break;
        }
        if got == seen {
            // Peeking returns at once while the same bytes lie there.
            std::thread::sleep(Duration::from_millis(5));
        }
        seen = got;
    }
    buffer.truncate(seen);
    Ok(buffer)
}

/// Reads a request's content to its end, without keeping it.
fn content<S: Conversation>(stream: &mut Timed<S>, head: &Head, buffer: &[u8]) -> io::Result<u64> {
    if head.expects {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let have = buffer.len().saturating_sub(head.length) as u64;
    if head.chunked {
        // Its end is an empty chunk; what comes behind it is not read.
        let mut tail: Vec<u8> = buffer.get(head.length..).unwrap_or_default().to_vec();
        let mut read = 0;
        let mut chunk = [0; 8192];
        while !(tail.ends_with(b"\r\n0\r\n\r\n") || tail == b"0\r\n\r\n") && read < CONTENT {
            let got = stream.read(&mut chunk)?;
            if got == 0 {
                break;
            }
            read += got as u64;
            tail.extend_from_slice(chunk.get(..got).unwrap_or_default());
            let keep = tail.len().saturating_sub(16);
            tail.drain(..keep);
        }
        return Ok(read);
    }
    let left = head.content_length.unwrap_or(0).saturating_sub(have).min(CONTENT);
    io::copy(&mut Read::by_ref(stream).take(left), &mut io::sink())
}

fn canned<S: Conversation>(stream: &mut Timed<S>, head: &Head, stub: &Canned) -> io::Result<()> {
    let body = base64::engine::general_purpose::STANDARD.decode(&stub.body).unwrap_or_default();
    let headers: Vec<(&str, &str)> = stub.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    http::respond(stream, head, stub.status, &headers, &body)?;
    stream.inner.end();
    Ok(())
}

/// What is sent is taken; what is asked for is not there.
fn taken<S: Conversation>(stream: &mut Timed<S>, head: &Head) -> io::Result<()> {
    let sends = matches!(head.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE");
    let headers = [("Content-Type", "application/json"), ("X-Switchback", "recorded; it went nowhere")];
    let (status, body): (u16, &[u8]) =
        if sends { (202, b"{}") } else { (502, b"{\"error\":\"staging has no way out\"}") };
    http::respond(stream, head, status, &headers, body)?;
    stream.inner.end();
    Ok(())
}

/// A connection that is talked on.
pub trait Conversation: Read + Write {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
    /// The socket, where nothing is between.
    fn plain(&self) -> Option<&TcpStream>;
    /// Says that nothing more comes.
    fn end(&mut self);
}

/// A socket without anything between.
struct Plain<'a>(&'a TcpStream);

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Conversation for Plain<'_> {
    fn socket(&self) -> &TcpStream {
        self.0
    }
    fn plain(&self) -> Option<&TcpStream> {
        Some(self.0)
    }
    fn end(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}
impl Conversation for rustls::StreamOwned<rustls::ServerConnection, Plain<'_>> {
    fn socket(&self) -> &TcpStream {
        self.sock.0
    }
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
    fn end(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        self.sock.end();
    }
}

/// A conversation with an end: each read waits a while, all of them together not longer than a minute.
struct Timed<S> {
    inner: S,
    until: Instant,
}

impl<S: Conversation> Timed<S> {
    fn new(inner: S) -> Self {
        Self { inner, until: Instant::now() + LONGEST }
    }
}

impl<S: Conversation> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now()).min(PAUSE);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.inner.socket().set_read_timeout(Some(left))?;
        self.inner.read(buffer)
    }
}

impl<S: Conversation> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
