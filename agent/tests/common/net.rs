//! Network namespaces that stand for a host and for the world beyond it, and sockets in them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its part")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use celda::sandbox::NetworkNamespaces;
use rustix::thread::LinkNameSpaceType;

/// How long a connection or a packet may take.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The host's address on the way to the world, and the world's.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

pub(crate) fn enter(namespace: &OwnedFd) {
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
}

/// Runs on a thread in that namespace.
pub(crate) fn inside<T: Send + 'static>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        enter(&namespace);
        work()
    });
    thread.join().unwrap()
}

/// A namespace with `lo` only.
pub(crate) fn namespace() -> OwnedFd {
    NetworkNamespaces::new(0).unwrap().take().unwrap()
}

/// The network namespace of a process.
pub(crate) fn of_process(pid: u32) -> OwnedFd {
    std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap().into()
}

/// `ip` in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is there");
    assert!(status.success(), "ip {arguments}");
}

/// What `nft` answers in the calling thread's namespace.
pub(crate) fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().expect("nftables is there");
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A world beyond the host, whose namespace the calling thread is in; it knows no way to what is behind the host.
pub(crate) fn world() -> OwnedFd {
    let world = namespace();
    let (told_in, told) = mpsc::channel();
    let (go, go_out) = mpsc::channel::<()>();
    let held = world.try_clone().unwrap();
    let keeper = std::thread::spawn(move || {
        enter(&held);
        told_in.send(nix::unistd::gettid().as_raw()).unwrap();
        let _ = go_out.recv();
    });
    let thread = told.recv().unwrap();
    ip(&format!("link add up0 type veth peer name down0 netns {thread}"));
    ip(&format!("addr add {OUTSIDE}/24 dev up0"));
    ip("link set up0 up");
    inside(&world, || {
        ip(&format!("addr add {WORLD}/24 dev down0"));
        ip("link set down0 up");
    });
    drop(go);
    keeper.join().unwrap();
    world
}

/// The interfaces of the calling thread's namespace.
pub(crate) fn links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A thread that answers on a socket until this is dropped; the socket keeps its namespace.
pub(crate) struct Server {
    socket: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // ENOTCONN of a UDP socket, which wakes who waits for it all the same.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Listens in a namespace and tells each who comes from where.
pub(crate) fn serve(namespace: &OwnedFd, port: u16) -> Server {
    let listener = inside(namespace, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    let socket = listener.try_clone().unwrap().into();
    let thread = std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = stream.write_all(peer.ip().to_string().as_bytes());
        }
    });
    Server { socket, thread: Some(thread) }
}

/// Where a server sees this thread come from.
pub(crate) fn seen_by(address: Ipv4Addr, port: u16) -> Option<IpAddr> {
    let address = SocketAddr::from((address, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT).ok()?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// A UDP socket in a namespace.
pub(crate) fn udp(namespace: &OwnedFd, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = inside(namespace, move || UdpSocket::bind((address, port)).unwrap());
    socket.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
    socket
}

/// Answers each packet with itself.
pub(crate) fn echo(answering: UdpSocket) -> Server {
    answering.set_read_timeout(None).unwrap();
    let socket = answering.try_clone().unwrap().into();
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((count @ 1.., from)) = answering.recv_from(&mut bytes) {
            let _ = answering.send_to(&bytes[..count], from);
        }
    });
    Server { socket, thread: Some(thread) }
}

/// Whether a packet to there is answered.
pub(crate) fn echoes(from: &UdpSocket, address: Ipv4Addr, port: u16) -> bool {
    from.send_to(b"hello", (address, port)).is_ok() && received(from).is_some_and(|text| text == "hello")
}

/// The next packet that comes.
pub(crate) fn received(socket: &UdpSocket) -> Option<String> {
    let mut bytes = [0; 64];
    let (count, _) = socket.recv_from(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}
