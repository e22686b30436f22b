//! Listening TCP sockets, from `/proc/net/tcp` and `/proc/net/tcp6`.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Whether 127.0.0.1 reaches it.
    pub local: bool,
}

/// `TCP_LISTEN` in the kernel's numbering (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// All listening sockets by inode.
pub(super) fn listening() -> BTreeMap<u64, Listener> {
    let mut found = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        found.extend(fs::read_to_string(file).unwrap_or_default().lines().skip(1).filter_map(row));
    }
    found
}

fn row(line: &str) -> Option<(u64, Listener)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Words are in the byte order of the host: 127.0.0.1 is 0100007F on little-endian machines.
    let any = address.bytes().all(|b| b == b'0');
    let local = any
        || (address.len() == 8
            && u32::from_str_radix(address, 16).is_ok_and(|a| a.to_ne_bytes().first() == Some(&127)));
    Some((fields.get(9)?.parse().ok()?, Listener { port: u16::from_str_radix(port, 16).ok()?, local }))
}

/// The inode that a link in `/proc/PID/fd` to a socket names.
pub(super) fn inode_of(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_socket_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = socket.local_addr().expect("bound").port();
        assert!(listening().values().any(|l| *l == Listener { port, local: true }));
        assert_eq!(inode_of("socket:[12]"), Some(12));
        assert_eq!(inode_of("pipe:[12]"), None);
    }
}
