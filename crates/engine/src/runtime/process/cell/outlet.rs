//! The way out of a cell, for what `staging.egress.allow` lets out.
//!
//! The gateway of a cell has no way to the world itself. A small process outside of it connects in its place and hands the
//! connection in (SCM_RIGHTS, unix(7)). It connects to whatever it is asked for; that only what a rule names is asked for is
//! the gateway's business. Services cannot reach it: the socket is known to the gateway alone.

use crate::error::EngineError;
use crate::gateway::Outside;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// The hidden command.
pub const OUTLET_VERB: &str = "__outlet";
const CONNECT: Duration = Duration::from_secs(10);
/// A host, a space and a port.
const LONGEST: usize = 300;

/// The gateway's end.
pub struct Outlet(Mutex<OwnedFd>);

impl Outlet {
    /// Starts the process outside; called before the cell is closed. It ends with this one.
    pub fn start() -> Result<Self, EngineError> {
        let broken = |e: io::Error| EngineError::Internal { detail: format!("no way out can be made: {e}") };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| broken(e.into()))?;
        let child = Command::new("/proc/self/exe")
            .arg0("switchback-outlet")
            .arg(OUTLET_VERB)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(broken)?;
        drop(child); // reaped when the cell ends, which is when it ends
        Ok(Self(Mutex::new(ours)))
    }
}

impl Outside for Outlet {
    fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let socket = self.0.lock().map_err(|_| io::Error::other("the way out is broken"))?;
        let asked = format!("{host} {port}");
        sendmsg(
            socket.as_fd(),
            &[IoSlice::new(asked.as_bytes())],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )?;
        let (said, handed) = receive(socket.as_fd())?;
        handed.map(TcpStream::from).ok_or_else(|| io::Error::other(said))
    }
}

/// One message, and the descriptor that came with it.
fn receive(socket: BorrowedFd<'_>) -> io::Result<(String, Option<OwnedFd>)> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut with, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let handed = with.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut all) => all.next(),
        _ => None,
    });
    Ok((String::from_utf8_lossy(bytes.get(..got.bytes).unwrap_or_default()).into_owned(), handed))
}

/// Connects in the gateway's place until it is gone.
pub fn run() -> Result<(), EngineError> {
    let stdin = io::stdin();
    while let Ok((asked, _)) = receive(stdin.as_fd()) {
        let connected = match asked.rsplit_once(' ') {
            Some((host, port)) => open(host, port.parse().unwrap_or(0)),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        let sent = match &connected {
            Ok(stream) => {
                let handed = [stream.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut with = SendAncillaryBuffer::new(&mut space);
                with.push(SendAncillaryMessage::ScmRights(&handed));
                sendmsg(stdin.as_fd(), &[IoSlice::new(b"connected")], &mut with, SendFlags::NOSIGNAL)
            }
            Err(e) => {
                let why = e.to_string();
                let why = why.as_bytes().get(..LONGEST.min(why.len())).unwrap_or_default();
                let mut nothing = SendAncillaryBuffer::default();
                sendmsg(stdin.as_fd(), &[IoSlice::new(why)], &mut nothing, SendFlags::NOSIGNAL)
            }
        };
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}

/// A connection to the real one. A name that leads to this machine is refused: production may be here.
fn open(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address that may be used");
    let all = (host, port).to_socket_addrs()?;
    for address in all.filter(|a| !a.ip().is_loopback() && !is_any(a.ip())) {
        match TcpStream::connect_timeout(&SocketAddr::new(address.ip(), port), CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn is_any(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_multicast()
}
