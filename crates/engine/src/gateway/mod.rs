//! The gateway of a staging environment: the only way in, and what stands where the world would be.
//!
//! Ports of the environment lead through it to services; names that are not the environment's lead to it, and so does what
//! is sent there: it is recorded, and goes nowhere unless a rule lets it out. One program (`switchback __gateway`) in a
//! container on the environment's networks, or (for local processes) beside their network namespace. [`Sink`] knows nothing of containers and works on any sockets.

pub mod attack;
mod authority;
mod config;
mod dns;
mod guess;
mod http;
mod outside;
mod raw;
pub mod records;
mod sink;
mod smtp;
mod splice;
mod tls;

pub use config::{Authority, Canned, GatewayConfig, Ingress, Rules};
pub use dns::Resolver;
pub use outside::{Direct, Outside};
pub use records::{Names, Recorder, read_back};
pub use sink::Sink;

use crate::error::EngineError;
use raw::{Transport, Watch};
use records::Writer;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use switchback_core::egress::{Kind, Sent};

/// The hidden command.
pub const GATEWAY_VERB: &str = "__gateway";
/// The variables that hold the configuration as JSON, in parts: `..._0`, `..._1` and so on. One variable is bounded.
pub const VARIABLE: &str = "SWITCHBACK_GATEWAY";
/// The kernel takes variables of up to 128 KiB.
const PART: usize = 100 * 1024;

/// Ports where the sink listens from the start: the first attempt on any other is refused, recorded, and opens it.
const PORTS: [u16; 8] = [80, 443, 465, 8080, 8443, 3128, 11434, 6443];
/// Ports that are opened because somebody tried them.
const OPENED: usize = 128;
/// The same source and port within this time is one attempt: systems try again quickly.
const SAME: Duration = Duration::from_secs(1);
/// Connections at a time through one port of the environment.
const INGRESS: usize = 512;
/// Time for the engine's resolver, and for a service to accept.
const RESOLVE: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);

/// The variables that tell a gateway its configuration.
pub fn variables(config: &GatewayConfig) -> Vec<(String, String)> {
    in_parts(VARIABLE, config)
}

/// A value as JSON in variables of a bounded length.
pub(crate) fn in_parts(variable: &str, value: &impl serde::Serialize) -> Vec<(String, String)> {
    let text = serde_json::to_string(value).unwrap_or_default();
    // Everything but ASCII would have to be cut between characters.
    let text: String = text.chars().flat_map(ascii).collect();
    let parts = text.as_bytes().chunks(PART).enumerate();
    parts.map(|(n, part)| (format!("{variable}_{n}"), String::from_utf8_lossy(part).into_owned())).collect()
}

/// The value back from this program's variables.
pub(crate) fn from_parts<T: serde::de::DeserializeOwned>(variable: &str) -> Result<T, EngineError> {
    let parts = (0..).map_while(|n| std::env::var(format!("{variable}_{n}")).ok());
    serde_json::from_str(&parts.collect::<String>()).map_err(|e| EngineError::Internal {
        // Never the text: it may hold a key.
        detail: format!("{variable}_0 and so on cannot be read (line {}, column {})", e.line(), e.column()),
    })
}

/// A character of JSON as ASCII: others only stand inside texts, where they may be written so.
fn ascii(c: char) -> Vec<char> {
    if c.is_ascii() {
        return vec![c];
    }
    let mut units = [0; 2];
    c.encode_utf16(&mut units)
        .iter()
        .flat_map(|u| format!("\\u{u:04x}").chars().collect::<Vec<_>>())
        .collect()
}

/// Runs the gateway until it is told to end.
pub fn run() -> Result<(), EngineError> {
    let config: GatewayConfig = from_parts(VARIABLE)?;
    let stop = told_to_end();
    let writer = start(config, io::stdout()).map_err(|e| EngineError::Internal { detail: e })?;
    until(&stop);
    writer.finish();
    Ok(())
}

/// What becomes true when the process is told to end.
pub fn told_to_end() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
    stop
}

/// Waits for that.
pub fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Listens everywhere, then says so in the output.
fn start(config: GatewayConfig, out: impl io::Write + Send + 'static) -> Result<Writer, String> {
    let resolver = Resolver::new(config.resolver, RESOLVE);
    // Everything is bound before the first line says that the gateway is ready.
    let bound = Bound::new(&config)?;
    let mut ways = Vec::new();
    for way in &config.ingress {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, way.listen));
        let listener = TcpListener::bind(any).map_err(|e| cannot("TCP", way.listen, &e))?;
        ways.push((listener, way.clone()));
    }
    let direct = Box::new(Direct { resolver, own: config.addresses.clone() });
    let names = Names::new(Some(resolver), &config.project);
    let (sink, writer) = bound.serve(config, out, names, direct)?;
    for (listener, way) in ways {
        lead(&sink, listener, way, resolver);
    }
    Ok(writer)
}

fn cannot(what: &str, port: u16, e: &io::Error) -> String {
    format!("cannot listen on {what} port {port}: {e}")
}

/// What the sink listens on.
pub struct Bound {
    names: Vec<(UdpSocket, TcpListener, Ipv4Addr)>,
    listeners: Vec<(TcpListener, u16)>,
    watches: Vec<(Watch, Transport)>,
    taken: BTreeSet<u16>,
}

impl Bound {
    /// Listens on every address of the configuration.
    pub fn new(config: &GatewayConfig) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut listeners = Vec::new();
        let wanted: BTreeSet<u16> =
            PORTS.into_iter().chain(sink::MAIL).chain(config.rules.ports()).filter(|p| *p != 53).collect();
        for address in &config.addresses {
            let udp = UdpSocket::bind((*address, 53)).map_err(|e| cannot("UDP", 53, &e))?;
            let tcp = TcpListener::bind((*address, 53)).map_err(|e| cannot("TCP", 53, &e))?;
            names.push((udp, tcp, *address));
            for port in &wanted {
                let listener = TcpListener::bind((*address, *port)).map_err(|e| cannot("TCP", *port, &e))?;
                listeners.push((listener, *port));
            }
        }
        let mut taken = wanted;
        taken.insert(53);
        taken.extend(config.ingress.iter().map(|way| way.listen));
        // Without the right to a raw socket only the ports above are seen.
        let watches = [Transport::Tcp, Transport::Udp];
        let watches = watches.into_iter().filter_map(|t| Some((Watch::open(t).ok()?, t))).collect();
        Ok(Self { names, listeners, watches, taken })
    }

    /// Serves all of it, in threads that share the calling one's network.
    pub fn serve(
        self,
        config: GatewayConfig,
        out: impl io::Write + Send + 'static,
        names: Names,
        outside: Box<dyn Outside>,
    ) -> Result<(Arc<Sink>, Writer), String> {
        let (recorder, writer) = Recorder::new(out, names);
        let own = config.addresses;
        let sink = Arc::new(Sink::new(config.rules, recorder, outside, own.clone())?);
        for (udp, tcp, address) in self.names {
            serve_names(&sink, udp, tcp, address);
        }
        for (listener, port) in self.listeners {
            listen(&sink, listener, port);
        }
        for (watch, transport) in self.watches {
            let (sink, own, taken) = (sink.clone(), own.clone(), self.taken.clone());
            std::thread::spawn(move || watch_ports(&sink, &watch, transport, &own, &taken));
        }
        Ok((sink, writer))
    }
}

fn serve_names(sink: &Arc<Sink>, udp: UdpSocket, tcp: TcpListener, address: Ipv4Addr) {
    let asked = sink.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; dns::LONGEST * 4];
        loop {
            let Ok((got, from)) = udp.recv_from(&mut buffer) else { continue };
            if let Some(answer) =
                buffer.get(..got).and_then(|message| asked.name(message, from.ip(), address))
            {
                let _ = udp.send_to(&answer, from);
            }
        }
    });
    let sink = sink.clone();
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let asked = sink.clone();
            sink.bounded(move || {
                let _ = name_over_tcp(&asked, stream, address);
            });
        }
    });
}

/// Questions over TCP have their length before them (RFC 1035, 4.2.2).
fn name_over_tcp(sink: &Sink, mut stream: TcpStream, address: Ipv4Addr) -> io::Result<()> {
    stream.set_read_timeout(Some(RESOLVE))?;
    let from = stream.peer_addr()?.ip();
    for _ in 0..16 {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length)).min(dns::LONGEST)];
        stream.read_exact(&mut message)?;
        let Some(answer) = sink.name(&message, from, address) else { break };
        let length = u16::try_from(answer.len()).unwrap_or(0);
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
    Ok(())
}

fn listen(sink: &Arc<Sink>, listener: TcpListener, port: u16) {
    let sink = sink.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => sink.take(stream, port),
                // Out of descriptors, for example: others end soon.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    });
}

/// Leads a port to its service.
pub fn lead(sink: &Arc<Sink>, listener: TcpListener, way: Ingress, resolver: Resolver) {
    let sink = sink.clone();
    std::thread::spawn(move || {
        let active = Arc::new(());
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            // A service that comes this way means a port of the world.
            let inside = stream.local_addr().is_ok_and(|a| matches!(a.ip(), IpAddr::V4(v4) if sink.owns(v4)));
            if inside {
                sink.take(stream, way.listen);
                continue;
            }
            if Arc::strong_count(&active) > INGRESS {
                continue;
            }
            let (way, guard) = (way.clone(), active.clone());
            let _ = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
                let _guard = guard;
                let _ = lead_one(&stream, &way, resolver);
            });
        }
    });
}

fn lead_one(stream: &TcpStream, way: &Ingress, resolver: Resolver) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the service has no address");
    let addresses = match way.service.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver.addresses(&way.service)?,
    };
    for address in addresses {
        match TcpStream::connect_timeout(&SocketAddr::from((address, way.port)), CONNECT) {
            Ok(there) => return splice::join(stream, &there, &[]).map(drop),
            Err(e) => last = e,
        }
    }
    // Nobody is there: as a port where nothing listens, not as one that answers nothing.
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Err(last)
}

/// Records attempts on ports where nothing listens, and opens those, so that the next attempt is understood.
fn watch_ports(
    sink: &Arc<Sink>,
    watch: &Watch,
    transport: Transport,
    own: &[Ipv4Addr],
    taken: &BTreeSet<u16>,
) {
    let mut seen: BTreeMap<(Ipv4Addr, u16), Instant> = BTreeMap::new();
    let opened: Mutex<BTreeSet<u16>> = Mutex::default();
    loop {
        let Ok(attempt) = watch.next() else { return };
        let known = match transport {
            Transport::Tcp => taken.contains(&attempt.port),
            Transport::Udp => attempt.port == 53,
        };
        if known || !own.contains(&attempt.to) || own.contains(&attempt.from) {
            continue;
        }
        let Ok(mut opened) = opened.lock() else { return };
        if opened.contains(&attempt.port) {
            continue; // who listens there records it
        }
        let key = (attempt.from, attempt.port);
        if seen.get(&key).is_some_and(|at| at.elapsed() < SAME) {
            continue;
        }
        if seen.len() > 4096 {
            seen.clear();
        }
        seen.insert(key, Instant::now());
        let from = IpAddr::V4(attempt.from);
        let (kind, method) = match transport {
            Transport::Tcp => (Kind::Tcp, Some("refused at first".to_owned())),
            Transport::Udp => (Kind::Udp, None),
        };
        let host = sink.recorder().last_asked(from).unwrap_or_else(|| "(no name)".to_owned());
        let mut sent = Sent::new(kind, "", host, attempt.port);
        sent.method = method;
        sent.bytes = u64::from(attempt.bytes);
        sink.recorder().note(from, sent);
        if transport == Transport::Tcp && opened.len() < OPENED {
            let mut all = true;
            for address in own {
                match TcpListener::bind((*address, attempt.port)) {
                    Ok(listener) => listen(sink, listener, attempt.port),
                    Err(_) => all = false,
                }
            }
            if all {
                opened.insert(attempt.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_through_variables_of_a_bounded_length() {
        let config = GatewayConfig {
            project: "p".into(),
            addresses: vec![Ipv4Addr::LOCALHOST],
            resolver: SocketAddr::from(([127, 0, 0, 11], 53)),
            ingress: Vec::new(),
            rules: Rules {
                stubs: vec![Canned { body: "ä𝄞".repeat(100_000), ..config::tests::canned("x", None) }],
                ..Rules::default()
            },
        };
        let parts = variables(&config);
        assert!(parts.len() > 2 && parts.iter().all(|(_, v)| v.len() <= PART && v.is_ascii()));
        let text: String = parts.into_iter().map(|(_, v)| v).collect();
        let back: GatewayConfig = serde_json::from_str(&text).expect("the same");
        assert!(back.rules.stubs[0].body == "ä𝄞".repeat(100_000));
    }
}
