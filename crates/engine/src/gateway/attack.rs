//! The isolation check's attacker: tries, from inside an environment, to reach what must not be reached.
//!
//! One program (`switchback __attack`) in a container in a service's place. It sends nothing but empty connections and
//! questions, and tells of every attempt how it ended.

use super::dns::Resolver;
use crate::error::EngineError;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

/// The hidden command.
pub const ATTACK_VERB: &str = "__attack";
/// The variables that hold the list as JSON, in parts.
pub const ATTACK_VARIABLE: &str = "SWITCHBACK_ATTACK";
/// One attempt. What drops packets instead of refusing them costs all of it.
const LIMIT: Duration = Duration::from_millis(1500);
/// Attempts at a time.
const AT_ONCE: usize = 512;

/// What to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Who knows names.
    pub resolver: SocketAddr,
    /// Networks (as address and length of their prefix) whose addresses are the environment's own.
    pub own: Vec<(Ipv4Addr, u8)>,
    /// The attempts.
    pub attempts: Vec<Attempt>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// What it would mean if it worked: "production's db by its name".
    pub what: String,
    /// How.
    pub how: How,
}

/// The ways to try.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum How {
    /// Connecting to an address.
    Connect {
        /// The address.
        address: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// Resolving a name, and connecting to what it leads to unless that is the environment's own.
    Name {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// Asking a server for a name over UDP.
    Ask {
        /// The server.
        address: Ipv4Addr,
    },
    /// A file that must not be there.
    File {
        /// Its path.
        path: String,
    },
    /// Connecting to a port of the environment's own loopback, where nobody may accept: what listens there is the host's.
    Accept {
        /// The port.
        port: u16,
    },
    /// Reading a file or folder, in which nothing may be.
    Read {
        /// Its path.
        path: String,
    },
    /// Looking up who is asked for names: only this one may be.
    Names {
        /// The gateway.
        only: Ipv4Addr,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The attempt.
    pub attempt: Attempt,
    /// Whether it reached what it must not.
    pub reached: bool,
    /// What was seen.
    pub seen: String,
    /// How long it took.
    pub took_ms: u64,
}

/// The variables that tell an attacker its orders.
pub fn variables(orders: &Orders) -> Vec<(String, String)> {
    super::in_parts(ATTACK_VARIABLE, orders)
}

/// Carries out the orders in the environment variables and prints what came of them as JSON.
pub fn run(mut out: impl std::io::Write) -> Result<(), EngineError> {
    let broken =
        |e: String| EngineError::Internal { detail: format!("the attack cannot be carried out: {e}") };
    let orders: Orders = super::from_parts(ATTACK_VARIABLE)?;
    let ended = carry_out(&orders);
    let text = serde_json::to_string(&ended).map_err(|e| broken(e.to_string()))?;
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| broken(e.to_string()))
}

/// Carries out orders, many attempts at a time.
pub fn carry_out(orders: &Orders) -> Vec<Ended> {
    let mut all = Vec::new();
    for some in orders.attempts.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|a| scope.spawn(|| attempt(orders, a))).collect();
            all.extend(running.into_iter().filter_map(|r| r.join().ok()));
        });
    }
    all
}

fn attempt(orders: &Orders, attempt: &Attempt) -> Ended {
    let began = Instant::now();
    let (reached, seen) = match &attempt.how {
        How::Connect { address, port } => connect(*address, *port),
        How::Name { name, port } => by_name(orders, name, *port),
        How::Ask { address } => ask(*address),
        How::File { path } => match std::fs::symlink_metadata(path) {
            Ok(_) => (true, format!("{path} is there")),
            Err(e) => (false, format!("{path}: {e}")),
        },
        How::Accept { port } => {
            match TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], *port)), LIMIT) {
                Ok(_) => (true, format!("127.0.0.1:{port} accepts connections")),
                Err(e) => (false, format!("127.0.0.1:{port}: {e}")),
            }
        }
        How::Read { path } => read(path),
        How::Names { only } => names(*only),
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ended { attempt: attempt.clone(), reached, seen, took_ms }
}

fn read(path: &str) -> (bool, String) {
    let found = std::fs::metadata(path).and_then(|kind| {
        if kind.is_dir() { Ok(std::fs::read_dir(path)?.count() as u64) } else { Ok(kind.len()) }
    });
    match found {
        Ok(0) => (false, format!("{path} is empty")),
        Ok(_) => (true, format!("{path} can be read")),
        Err(e) => (false, format!("{path}: {e}")),
    }
}

fn names(only: Ipv4Addr) -> (bool, String) {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("nameserver ")).map(str::trim).collect();
    (servers != [only.to_string()], format!("names are asked for at {}", servers.join(", ")))
}

/// The addresses of this host.
pub fn host_addresses() -> Vec<Ipv4Addr> {
    local(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())
}

/// Addresses that `/proc/net/fib_trie` calls the host's own.
fn local(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last);
        }
    }
    found
}

fn connect(address: Ipv4Addr, port: u16) -> (bool, String) {
    match TcpStream::connect_timeout(&SocketAddr::from((address, port)), LIMIT) {
        Ok(_) => (true, format!("{address}:{port} accepts connections")),
        // Only a system that was reached refuses.
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            (true, format!("{address}:{port} was reached: {e}"))
        }
        Err(e) => (false, format!("{address}:{port}: {e}")),
    }
}

fn by_name(orders: &Orders, name: &str, port: u16) -> (bool, String) {
    let asked = Resolver::new(orders.resolver, LIMIT).addresses(name);
    let mut addresses = asked.unwrap_or_default();
    // `extra_hosts` stand in a file that only the system's own resolver reads.
    if let Ok(found) = (name, port).to_socket_addrs() {
        addresses.extend(found.filter_map(|a| match a.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }));
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return (false, format!("{name} has no address"));
    }
    let (own, foreign): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| is_own(orders, *a));
    let tried: Vec<(bool, String)> = foreign.into_iter().map(|address| connect(address, port)).collect();
    if let Some((reached, seen)) = tried.iter().find(|(reached, _)| *reached).or(tried.first()) {
        return (*reached, format!("{name} is {seen}"));
    }
    let list: Vec<String> = own.iter().map(Ipv4Addr::to_string).collect();
    (false, format!("{name} leads to the environment itself ({})", list.join(", ")))
}

fn is_own(orders: &Orders, address: Ipv4Addr) -> bool {
    address.is_loopback()
        || orders.own.iter().any(|(network, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from((*prefix).min(32))).unwrap_or(0);
            u32::from(address) & mask == u32::from(*network) & mask
        })
}

fn ask(address: Ipv4Addr) -> (bool, String) {
    let server = SocketAddr::from((address, 53));
    // A datagram that cannot be routed fails at once.
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(&[0; 12], server));
    if let Err(e) = sent {
        return (false, format!("{address}:53 over UDP: {e}"));
    }
    match Resolver::new(server, LIMIT).addresses("example.com") {
        Ok(found) => (true, format!("{address}:53 answered over UDP: {found:?}")),
        Err(e) => (false, format!("{address}:53 over UDP: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn orders(attempts: Vec<Attempt>) -> Orders {
        Orders {
            resolver: "127.0.0.1:9".parse().expect("an address"),
            own: vec![(Ipv4Addr::new(172, 16, 3, 0), 24)],
            attempts,
        }
    }

    #[test]
    fn an_open_port_a_refused_one_and_a_file_are_reached_and_nothing_is_not() {
        let open = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = open.local_addr().expect("an address").port();
        let closed =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let to = |port| How::Connect { address: Ipv4Addr::LOCALHOST, port };
        let ways = [
            (to(port), true),
            (to(closed), true),
            (How::File { path: "/proc/self/status".into() }, true),
            (How::File { path: "/nonexistent/docker.sock".into() }, false),
            (How::Name { name: "does-not-exist.invalid".into(), port: 80 }, false),
        ];
        let attempts = ways.iter().map(|(how, _)| Attempt { what: "x".into(), how: how.clone() }).collect();
        let ended = carry_out(&orders(attempts));
        for (ended, (_, reached)) in ended.iter().zip(&ways) {
            assert_eq!(ended.reached, *reached, "{ended:?}");
        }
        assert_eq!(ended.len(), ways.len());
    }

    #[test]
    fn own_addresses_are_those_of_the_environments_networks() {
        let orders = orders(Vec::new());
        assert!(is_own(&orders, Ipv4Addr::new(172, 16, 3, 200)));
        assert!(!is_own(&orders, Ipv4Addr::new(172, 16, 4, 1)));
        assert!(!is_own(&orders, Ipv4Addr::new(172, 17, 0, 1)));
    }

    #[test]
    fn addresses_of_the_host_are_read() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 172.17.0.0\n        /16 link UNICAST\n     |-- 172.17.0.1\n        /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\n";
        assert_eq!(local(text), [Ipv4Addr::new(172, 17, 0, 1)]);
    }
}
