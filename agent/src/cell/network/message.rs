//! Requests of rtnetlink(7) as bytes, and its acknowledgements; pure.
//!
//! ```text
//! message:    length u32 | type u16 | flags u16 | sequence u32 | port u32 | body | attributes   aligned to 4
//! attribute:  length u16 | type u16 | value                                                     aligned to 4
//! ```
//! Numbers are of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h and linux/veth.h.

use std::net::Ipv4Addr;

const HEADER_BYTES: usize = 16;
const ALIGNMENT: usize = 4;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCLUSIVE: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_OIF: u16 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

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

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32; // some hundred bytes
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.count += 1;
    }

    /// A new bridge, up.
    pub(super) fn bridge(&mut self, name: &str) {
        self.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCLUSIVE, |bytes| {
            link(bytes, 0, IFF_UP);
            text(bytes, IFLA_IFNAME, name);
            nested(bytes, IFLA_LINKINFO, |bytes| text(bytes, IFLA_INFO_KIND, "bridge"));
        });
    }

    /// A new veth: this end on a bridge and up; the other in another namespace. Where the kernel has IPv6 this end gets
    /// no address of it, which somebody would have to look for twins of; that can be said only of a link that exists.
    pub(super) fn veth(&mut self, name: &str, bridge: u32, (peer, namespace): (&str, i32), has_ipv6: bool) {
        self.message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCLUSIVE, |bytes| {
            link(bytes, 0, 0);
            text(bytes, IFLA_IFNAME, name);
            attribute(bytes, IFLA_MASTER, &bridge.to_ne_bytes());
            nested(bytes, IFLA_LINKINFO, |bytes| {
                text(bytes, IFLA_INFO_KIND, "veth");
                nested(bytes, IFLA_INFO_DATA, |bytes| {
                    nested(bytes, VETH_INFO_PEER, |bytes| {
                        link(bytes, 0, 0);
                        text(bytes, IFLA_IFNAME, peer);
                        attribute(bytes, IFLA_NET_NS_FD, &namespace.to_ne_bytes());
                    });
                });
            });
        });
        if has_ipv6 {
            self.message(RTM_NEWLINK, 0, |bytes| {
                link(bytes, 0, 0);
                text(bytes, IFLA_IFNAME, name);
                nested(bytes, IFLA_AF_SPEC, |bytes| {
                    nested(bytes, AF_INET6, |bytes| {
                        attribute(bytes, IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                    });
                });
            });
        }
        self.message(RTM_NEWLINK, 0, |bytes| {
            link(bytes, 0, IFF_UP);
            text(bytes, IFLA_IFNAME, name);
        });
    }

    /// Brings a link up.
    pub(super) fn up(&mut self, index: u32) {
        self.message(RTM_NEWLINK, 0, |bytes| link(bytes, index, IFF_UP));
    }

    /// Gives a link an address of a network of so many bits.
    pub(super) fn address(&mut self, index: u32, address: Ipv4Addr, prefix_bits: u8) {
        self.message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCLUSIVE, |bytes| {
            bytes.extend_from_slice(&[AF_INET, prefix_bits, 0, 0]);
            bytes.extend_from_slice(&index.to_ne_bytes());
            attribute(bytes, IFA_LOCAL, &address.octets());
            attribute(bytes, IFA_ADDRESS, &address.octets());
            let broadcast = Ipv4Addr::from(u32::from(address) | (u32::MAX >> prefix_bits));
            attribute(bytes, IFA_BROADCAST, &broadcast.octets());
        });
    }

    /// The way to everywhere else.
    pub(super) fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        self.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCLUSIVE, |bytes| {
            bytes.extend_from_slice(&[
                AF_INET,
                0,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_BOOT,
                0,
                RTN_UNICAST,
                0,
                0,
                0,
                0,
            ]);
            attribute(bytes, RTA_GATEWAY, &gateway.octets());
            attribute(bytes, RTA_OIF, &index.to_ne_bytes());
        });
    }
}

/// `struct ifinfomsg` that sets the given flags.
fn link(bytes: &mut Vec<u8>, index: u32, flags: u32) {
    bytes.extend_from_slice(&[0; 4]); // family and type: any
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes()); // which of them are meant
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nested(bytes, kind, |bytes| bytes.extend_from_slice(value));
}

fn text(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    nested(bytes, kind, |bytes| {
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
    });
}

fn nested(bytes: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    value(bytes);
    let length = (bytes.len() - start) as u16; // some hundred bytes
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    while !bytes.len().is_multiple_of(ALIGNMENT) {
        bytes.push(0);
    }
}

/// The acknowledgements in a datagram: number of the request and errno, 0 for success.
pub(super) fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut all = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(HEADER_BYTES) {
        let word = |at: usize| {
            header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_ne_bytes(*word))
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let length = word(0) as usize;
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER_BYTES) else {
            break;
        };
        if kind == NLMSG_ERROR
            && let Some(code) = message.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk)
        {
            all.push((word(8), i32::from_ne_bytes(*code).saturating_neg()));
        }
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_kernel_reads_it() {
        let mut requests = Requests::default();
        requests.up(7);
        requests.address(2, Ipv4Addr::new(10, 88, 1, 2), 16);
        assert_eq!(requests.count(), 2);
        let bytes = requests.bytes();
        // Little-endian machines are the only ones.
        assert_eq!(bytes[..16], [32, 0, 0, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..32], [0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[32..48], [48, 0, 0, 0, 20, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[48..56], [2, 16, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[56..64], [8, 0, 2, 0, 10, 88, 1, 2]);
        assert_eq!(bytes[72..80], [8, 0, 4, 0, 10, 88, 255, 255]);
    }

    #[test]
    fn names_are_padded_and_attributes_nest() {
        let lengths = |requests: &Requests| {
            let (mut at, mut all) = (0, Vec::new());
            while let Some(length) = requests.bytes()[at..].first_chunk() {
                all.push(u32::from_ne_bytes(*length) as usize);
                at += all[all.len() - 1];
            }
            assert_eq!(at, requests.bytes().len());
            all
        };
        let (mut plain, mut six) = (Requests::default(), Requests::default());
        plain.veth("cv1", 3, ("eth0", 9), false);
        six.veth("cv1", 3, ("eth0", 9), true);
        assert_eq!((lengths(&plain), plain.count()), (vec![108, 40], 2));
        assert_eq!((lengths(&six), six.count()), (vec![108, 56, 40], 3));
        let bytes = plain.bytes();
        assert!(bytes.windows(8).any(|window| window == b"\x08\0\x03\0cv1\0"));
        assert!(bytes.windows(12).any(|window| window == b"\x09\0\x03\0eth0\0\0\0\0"));
        assert!(bytes[..108].ends_with(&[8, 0, 28, 0, 9, 0, 0, 0]));
    }

    #[test]
    fn acknowledgements_are_read_and_rubbish_is_not() {
        let one = |sequence: u8, code: i32| {
            let mut bytes = vec![20, 0, 0, 0, 2, 0, 0, 0, sequence, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert_eq!(answers(&[one(0, 0), one(1, -17)].concat()), [(0, 0), (1, 17)]);
        for cut in 0..20 {
            assert_eq!(answers(&one(0, -1)[..cut]), []);
        }
        assert_eq!(answers(&[0; 64]), []);
        assert_eq!(answers(&[0xff; 64]), []);
    }
}
