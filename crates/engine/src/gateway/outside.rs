//! The way to what the rules let out.

use super::dns::Resolver;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(10);

/// Connects to the real one.
pub trait Outside: Send + Sync {
    /// A connection to a host of the world.
    fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream>;
}

/// By this process itself.
pub struct Direct {
    /// Who knows the names of the world.
    pub resolver: Resolver,
    /// The gateway's own addresses: nothing is let out to itself.
    pub own: Vec<Ipv4Addr>,
}

impl Outside for Direct {
    fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.resolver.addresses(host)?;
        // The name may be one that leads back to us.
        let usable = addresses.into_iter().filter(|a| !self.own.contains(a) && !a.is_loopback());
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in usable {
            match TcpStream::connect_timeout(&SocketAddr::from((address, port)), CONNECT) {
                Ok(there) => return Ok(there),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}
