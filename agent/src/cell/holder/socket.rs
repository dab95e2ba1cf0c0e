//! Packets with descriptors over a unix socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{FDS_COUNT_MAX, PACKET_BYTES_MAX};

/// Connections that wait to be accepted.
const BACKLOG_COUNT: i32 = 128;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Connection(OwnedFd);

/// A message and what came beside it.
#[derive(Debug)]
pub(super) struct Packet<T> {
    pub(super) message: T,
    pub(super) fds: Vec<OwnedFd>,
}

impl<T> Packet<T> {
    /// The descriptors, if there are just so many.
    pub(super) fn take<const N: usize>(fds: Vec<OwnedFd>) -> io::Result<[OwnedFd; N]> {
        let count = fds.len();
        let wrong = format!("{count} descriptors came where {N} were to");
        fds.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, wrong))
    }
}

/// A path may be longer than a socket's address can be: its directory is opened, and the rest is a name in that.
fn with_address<T>(path: &Path, run: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>) -> io::Result<T> {
    let name = path.file_name().unwrap_or_default();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(run(&SocketAddrUnix::new(&short)?)?)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens at `path`, over what is there.
///
/// # Errors
/// What the kernel answers.
pub(super) fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket()?;
    with_address(path, |address| rustix::net::bind(&listener, address))?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&listener, BACKLOG_COUNT)?;
    Ok(listener)
}

/// The next connection of somebody with this process's user id, if one waits.
///
/// # Errors
/// What the kernel answers.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<Connection>> {
    let accepted = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
        answer => answer?,
    };
    let peer = rustix::net::sockopt::socket_peercred(&accepted)?;
    Ok((peer.uid == rustix::process::geteuid()).then_some(Connection(accepted)))
}

impl Connection {
    /// # Errors
    /// `ENOENT` and `ECONNREFUSED`: nobody listens there.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        with_address(path, |address| rustix::net::connect(&socket, address))?;
        Ok(Self(socket))
    }

    /// Whether the other end was closed: nobody reads an answer.
    pub(super) fn is_closed(&self) -> bool {
        self.polled(PollFlags::empty()).intersects(PollFlags::HUP | PollFlags::ERR)
    }

    fn polled(&self, flags: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.0, flags)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    #[cfg(test)]
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    #[cfg(test)]
    pub(super) fn is_readable(&self) -> bool {
        self.polled(PollFlags::IN).contains(PollFlags::IN)
    }

    pub(super) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_COUNT_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for a packet"));
        }
        let slices = [io::IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &slices, &mut beside, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next packet; `None` at the end.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<Packet<T>>> {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_COUNT_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [io::IoSliceMut::new(&mut bytes)];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut slices, &mut beside, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Err(Errno::CONNRESET) => return Ok(None),
            answer => answer?,
        };
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(wrong("a packet that was cut: too long, or no descriptors are left"));
        }
        let whole = bytes.get(..received.bytes).ok_or_else(|| wrong("a packet that is too long"))?;
        Ok(Some(Packet { message: serde_json::from_slice(whole)?, fds }))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
