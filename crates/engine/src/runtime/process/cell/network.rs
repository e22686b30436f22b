//! The network of a cell: two network namespaces with a pair of virtual Ethernet devices between (rtnetlink(7), veth(4)).
//!
//! The inner one is where services are: its loopback, and one link that leads to the outer one, where the gateway listens.
//! Neither has a route to anywhere else, so a bare address cannot be reached and is refused by the kernel at once.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Where services are, and where the gateway is: from the range for tests of devices (RFC 2544), which no network uses.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// See [`INSIDE`].
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Length of the prefix of the network of both.
pub const PREFIX: u8 = 30;
/// The first link of a namespace is its loopback.
const LOOPBACK: u32 = 1;
/// Indices of the two ends, chosen here so that nobody has to ask for them.
const OUTER_END: u32 = 2;
const INNER_END: u32 = 3;

/// Speaks with the kernel about the network namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opened in the namespace of the calling thread, and stays there.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings the loopback up.
    pub fn loopback_up(&mut self) -> io::Result<()> {
        self.up(LOOPBACK)
    }

    /// Makes the pair: one end here, which is the inner namespace, the other in the outer one.
    pub fn pair(&mut self, outer: BorrowedFd<'_>) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.header.index = OUTER_END;
        peer.attributes =
            vec![LinkAttribute::IfName("gateway".into()), LinkAttribute::NetNsFd(outer.as_raw_fd())];
        let mut link = LinkMessage::default();
        link.header.index = INNER_END;
        link.attributes = vec![
            LinkAttribute::IfName("staging".into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives the inner end its address, and brings it up.
    pub fn inner_end(&mut self) -> io::Result<()> {
        self.address(INNER_END, INSIDE)?;
        self.up(INNER_END)
    }

    /// Gives the outer end its address, and brings it up.
    pub fn outer_end(&mut self) -> io::Result<()> {
        self.address(OUTER_END, GATEWAY)?;
        self.up(OUTER_END)
    }

    fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    fn address(&mut self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = PREFIX;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends a request and waits for the kernel's answer.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}
