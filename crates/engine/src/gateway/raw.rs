//! Attempts on ports where nothing listens: seen on a raw socket (RFC 791, 9293, 768), which needs CAP_NET_RAW.

use rustix::net::{AddressFamily, RecvFlags, SocketType, ipproto, recv, socket};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

/// Where an attempt came from and where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Who.
    pub from: Ipv4Addr,
    /// To which of our addresses.
    pub to: Ipv4Addr,
    /// To which port.
    pub port: u16,
    /// Bytes of a datagram; 0 for a connection.
    pub bytes: u16,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// First segments of connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A socket that sees what comes in.
pub struct Watch {
    socket: OwnedFd,
    transport: Transport,
}

impl Watch {
    /// Opens it.
    pub fn open(transport: Transport) -> io::Result<Self> {
        let protocol = match transport {
            Transport::Tcp => ipproto::TCP,
            Transport::Udp => ipproto::UDP,
        };
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(protocol))?;
        Ok(Self { socket, transport })
    }

    /// Waits for the next attempt.
    pub fn next(&self) -> io::Result<Attempt> {
        let mut packet = [0_u8; 2048];
        loop {
            let (got, _) = match recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
                Ok(got) => got,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if let Some(attempt) = packet.get(..got).and_then(|p| read(p, self.transport)) {
                return Ok(attempt);
            }
        }
    }
}

/// Reads an IPv4 packet; `None` for what begins no connection.
fn read(packet: &[u8], transport: Transport) -> Option<Attempt> {
    let header = usize::from(packet.first()? & 0x0F) * 4;
    if packet.first()? >> 4 != 4 || header < 20 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let body = packet.get(header..)?;
    let word = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let port = word(2)?;
    let bytes = match transport {
        Transport::Tcp => {
            // SYN without ACK.
            if body.get(13)? & 0x12 != 0x02 {
                return None;
            }
            0
        }
        Transport::Udp => word(4)?.checked_sub(8)?,
    };
    Some(Attempt { from: address(12)?, to: address(16)?, port, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 172, 16, 0, 7, 172, 16, 0, 2];
        packet.extend(body);
        packet
    }

    #[test]
    fn only_what_begins_a_connection_is_an_attempt() {
        let mut segment = [0; 20];
        (segment[2], segment[3], segment[13]) = (0x15, 0x38, 0x02);
        let attempt = read(&packet(&segment), Transport::Tcp).expect("an attempt");
        assert_eq!((attempt.port, attempt.from.octets()[3], attempt.to.octets()[3]), (5432, 7, 2));
        segment[13] = 0x12;
        assert_eq!(read(&packet(&segment), Transport::Tcp), None, "an answer");
        segment[13] = 0x10;
        assert_eq!(read(&packet(&segment), Transport::Tcp), None, "in the middle");
        let datagram = read(&packet(&[0, 1, 2, 2, 0, 12, 0, 0]), Transport::Udp).expect("a datagram");
        assert_eq!((datagram.port, datagram.bytes), (514, 4));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read(&bytes, Transport::Tcp), read(&bytes, Transport::Udp));
        }
    }
}
