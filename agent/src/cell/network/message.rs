//! Requests of rtnetlink(7), several to a datagram, and its acknowledgements; pure.
//!
//! ```text
//! Requests: message 0 | message 1 | ...   each wants an acknowledgement, which has its number
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// Messages begin at multiples of this (NLMSG_ALIGNTO of linux/netlink.h).
const ALIGNMENT: usize = 4;
/// Bits of a host's own prefix.
const HOST_BITS: u8 = 32;

/// Requests, one after the other, numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Requests {
    bytes: Vec<u8>,
    count: u32,
}

impl Requests {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    fn add(&mut self, flags: u16, message: RouteNetlinkMessage) {
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = self.count;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(ALIGNMENT), 0);
        message.serialize(&mut self.bytes[start..]);
        self.count += 1;
    }

    /// A new veth of a group of links: this end here, the other in another namespace.
    pub(super) fn veth(&mut self, name: &str, group: u32, (peer_name, namespace): (&str, BorrowedFd<'_>)) {
        // What it would have anyway; but unsaid, one is made for each processor and taken back, which waits for all of them.
        let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
        let mut peer = LinkMessage::default();
        peer.attributes =
            vec![LinkAttribute::IfName(peer_name.to_owned()), LinkAttribute::NetNsFd(namespace.as_raw_fd())];
        peer.attributes.extend(queues.clone());
        let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Group(group),
            LinkAttribute::LinkInfo(info),
        ];
        link.attributes.extend(queues);
        self.add(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link));
    }

    /// Has what comes from this machine's own loopback address go out by a link, and the answer come in; and gives the
    /// link no address of IPv6, where the kernel has that.
    pub(super) fn host_end(&mut self, index: u32, has_ipv6: bool) {
        let mut switches = InetDevConf::default(); // what is 0 is left as it is
        switches.route_localnet = 1;
        let mut families = vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(switches)])];
        if has_ipv6 {
            families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
        }
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::AfSpecUnspec(families)];
        self.add(0, RouteNetlinkMessage::SetLink(link));
    }

    /// Brings a link up.
    pub(super) fn up(&mut self, index: u32) {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.add(0, RouteNetlinkMessage::SetLink(link));
    }

    /// Gives a link an address, and a way to the one at its other end.
    pub(super) fn address(&mut self, index: u32, own: Ipv4Addr, other: Ipv4Addr) {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = HOST_BITS;
        message.header.index = index;
        message.attributes =
            vec![AddressAttribute::Local(IpAddr::V4(own)), AddressAttribute::Address(IpAddr::V4(other))];
        self.add(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewAddress(message));
    }

    /// The way to everywhere else.
    pub(super) fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Boot;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route.attributes =
            vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
        self.add(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewRoute(route));
    }
}

/// The acknowledgements in a datagram: number of the request and errno, 0 for success.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut all = Vec::new();
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        let length = message.header.length as usize;
        if let NetlinkPayload::Error(error) = message.payload {
            all.push((message.header.sequence_number, error.raw_code().saturating_neg()));
        }
        // No message is shorter than its header, so this comes to an end.
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn requests_are_numbered_and_stand_one_after_the_other() {
        let file = std::fs::File::open("/dev/null").expect("opened");
        let mut requests = Requests::default();
        requests.veth("cv1", 7, ("eth0", file.as_fd()));
        requests.host_end(3, true);
        requests.up(3);
        requests.address(3, Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 88, 1, 2));
        requests.default_route(3, Ipv4Addr::new(10, 88, 0, 1));
        let (mut at, mut kinds) = (0, Vec::new());
        while at < requests.bytes().len() {
            let bytes = &requests.bytes()[at..];
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).expect("a message");
            assert_eq!(message.header.sequence_number as usize, kinds.len());
            kinds.push(message.header.message_type);
            at += (message.header.length as usize).next_multiple_of(ALIGNMENT);
        }
        // RTM_NEWLINK, twice RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE of linux/rtnetlink.h.
        assert_eq!((kinds, requests.count()), (vec![16, 19, 19, 20, 24], 5));
        assert!(requests.bytes().windows(8).any(|window| window == b"\x08\0\x03\0cv1\0"));
        // IPV4_DEVCONF_ROUTE_LOCALNET of linux/ip.h is 26.
        assert!(requests.bytes().windows(8).any(|window| window == [8, 0, 26, 0, 1, 0, 0, 0]));
    }

    #[test]
    fn acknowledgements_are_read_and_rubbish_is_not() {
        let one = |sequence: u8, code: i32| {
            let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[0; 16]);
            bytes
        };
        assert_eq!(answers(&[one(0, 0), one(1, -17)].concat()), [(0, 0), (1, 17)]);
        for cut in 0..36 {
            assert_eq!(answers(&one(0, -1)[..cut]), []);
        }
        assert_eq!(answers(&[0; 64]), []);
        assert_eq!(answers(&[0xff; 64]), []);
    }
}
