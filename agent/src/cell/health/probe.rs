//! A look over the network: a socket in the instance's namespace, and what comes through it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use super::Probe;
use super::http::{self, Answer, HEAD_BYTES_MAX};
use super::machine::Outcome;

/// A look that waits for its socket.
#[derive(Debug)]
pub(super) struct Look {
    socket: OwnedFd,
    port: u16,
    is_asked: bool,
    /// What came and was not enough.
    kept: Vec<u8>,
}

/// Where the thread is at home, and where it reads to.
#[derive(Debug)]
pub(super) struct Place {
    home: OwnedFd,
    buffer: Box<[u8; HEAD_BYTES_MAX]>,
}

impl Place {
    /// The calling thread's.
    pub(super) fn here() -> Result<Self, Errno> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let home = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?;
        Ok(Self { home, buffer: Box::new([0; HEAD_BYTES_MAX]) })
    }

    /// A socket that belongs to that namespace. The thread is at home again afterwards; where it could not come back,
    /// which the kernel refuses for want of memory only, the next look brings it there.
    fn socket(&self, namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
        let go = |to: BorrowedFd<'_>| {
            rustix::thread::move_into_link_name_space(to, Some(LinkNameSpaceType::Network))
        };
        go(namespace.unwrap_or(self.home.as_fd()))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        if namespace.is_some() {
            let _ = go(self.home.as_fd());
        }
        socket
    }
}

impl Look {
    /// Begins to connect; an error is the outcome.
    pub(super) fn begin(port: u16, namespace: Option<BorrowedFd<'_>>, place: &Place) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno: Errno| format!("{what}: {}", std::io::Error::from(errno))
        };
        let socket = place.socket(namespace).map_err(failed("make a socket in the instance's network"))?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self { socket, port, is_asked: false, kept: Vec::new() }),
            Err(errno) => Err(failed(&format!("connect to port {port}"))(errno)),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Goes on after news of the socket; answers the outcome when that is known.
    pub(super) fn advance(&mut self, probe: &Probe, place: &mut Place) -> Option<Outcome> {
        let port = self.port;
        let failed = |errno: Errno| Some(Err(format!("port {port}: {}", std::io::Error::from(errno))));
        if !self.is_asked {
            match rustix::net::sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => {}
                Ok(Err(errno)) | Err(errno) => return failed(errno),
            }
            if rustix::net::getpeername(&self.socket).is_err() {
                return None; // not connected yet
            }
            let Probe::Http { path, .. } = probe else { return Some(Ok(())) };
            let request = http::request(path, port);
            match rustix::net::send(&self.socket, &request, SendFlags::NOSIGNAL) {
                Ok(count) if count == request.len() => self.is_asked = true,
                Ok(_) => return Some(Err(format!("port {port}: takes no whole request"))),
                Err(errno) => return failed(errno),
            }
        }
        let Probe::Http { statuses, .. } = probe else { return Some(Ok(())) };
        loop {
            let room = place.buffer.get_mut(self.kept.len()..).unwrap_or_default();
            let count = match rustix::net::recv(&self.socket, room, RecvFlags::empty()) {
                Ok((0, _)) => return Some(Err(format!("port {port}: closed without an answer"))),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => continue,
                Err(errno) => return failed(errno),
            };
            let end = self.kept.len() + count;
            if let Some(before) = place.buffer.get_mut(..self.kept.len()) {
                before.copy_from_slice(&self.kept);
            }
            let bytes = place.buffer.get(..end).unwrap_or_default();
            match http::answer(bytes) {
                Answer::Status(status) if statuses.contains(&status) => return Some(Ok(())),
                Answer::Status(status) => {
                    return Some(Err(format!("port {port}: status {status}, wanted {}", wanted(statuses))));
                }
                Answer::Wrong(why) => return Some(Err(format!("port {port}: {why}"))),
                Answer::More if end == HEAD_BYTES_MAX => {
                    return Some(Err(format!("port {port}: no answer in {HEAD_BYTES_MAX} bytes")));
                }
                Answer::More => self.kept = bytes.to_vec(),
            }
        }
    }
}

fn wanted(statuses: &std::ops::RangeInclusive<u16>) -> String {
    let (first, last) = (statuses.start(), statuses.end());
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}
