//! A socket of rtnetlink(7) in the namespace that the calling thread was in when it was made.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::error::{NetworkError, Result};
use super::message::{Requests, answers};

/// `NETLINK_ROUTE` of linux/netlink.h is 0, the default.
const ROUTE: Option<rustix::net::Protocol> = None;
/// The longest that the kernel may take for an answer; it answers before the request's call returns.
const ANSWER_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// Bytes of a datagram with acknowledgements.
const ANSWER_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn new() -> Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, ROUTE)
                .map_err(NetworkError::kernel("make a netlink socket"))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT))
            .map_err(NetworkError::kernel("bound a netlink socket's wait"))?;
        Ok(Self(socket))
    }

    /// Sends requests and hears what became of them; the first that failed is the answer, and the others were tried.
    pub(super) fn ask(&self, requests: &Requests) -> std::result::Result<(), Errno> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let mut sent = rustix::net::sendto(&self.0, requests.bytes(), SendFlags::empty(), &kernel);
        if sent == Err(Errno::INTR) {
            sent = rustix::net::sendto(&self.0, requests.bytes(), SendFlags::empty(), &kernel);
        }
        sent?;
        let (mut open, mut first) = (requests.count(), None);
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        while open > 0 {
            let count = match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((count, _)) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            for (_, errno) in answers(buffer.get(..count).unwrap_or_default()) {
                open = open.saturating_sub(1);
                if errno != 0 {
                    first = first.or(Some(Errno::from_raw_os_error(errno)));
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// As [`Socket::ask`], with what was being done in the error.
    pub(super) fn request(&self, action: impl Into<String>, requests: &Requests) -> Result<()> {
        self.ask(requests).map_err(NetworkError::kernel(action))
    }
}

/// Numbers of interfaces, in the namespace that the calling thread was in when this was made.
#[derive(Debug)]
pub(super) struct Names(OwnedFd);

impl Names {
    pub(super) fn new() -> Result<Self> {
        let made =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        made.map(Self).map_err(NetworkError::kernel("make a socket to find interfaces by"))
    }

    pub(super) fn index_of(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.0, name)
            .map_err(NetworkError::kernel(format!("find the interface {name}")))
    }
}
