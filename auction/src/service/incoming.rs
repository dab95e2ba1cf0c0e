//! Connections as they come in: who is let in, and how many.

use crate::transport::{Address, Certificates, Error, Result, Socket, Users};
use futures_util::Stream;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// How long nothing is accepted after accept(2) failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a new connection has to say what any HTTP/2 client says at once.
const PREFACE_DEADLINE: Duration = Duration::from_secs(5);
/// An HTTP/2 preface and the settings after it (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24 + 9;

/// A socket that a cell listens on, with who is let in.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener, Option<Certificates>),
    Unix(UnixListener, Users),
}

impl Listener {
    /// TCP with mutual TLS. `address` is what is bound: `0.0.0.0:7000`; port 0 is any.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn tls(address: &str, certificates: Certificates) -> Result<Self> {
        let listener = bind_tcp(address).await?;
        let local = local(&listener, address)?;
        let host = local.ip().to_string();
        let host = if local.is_ipv6() { format!("[{host}]") } else { host };
        let bound = Address::Tls { host: host.into(), port: local.port() };
        Ok(Self { kind: Kind::Tcp(listener, Some(certificates)), address: bound })
    }

    /// TCP in clear on a loopback address.
    ///
    /// # Errors
    /// [`Error::InClear`] for other addresses, [`Error::Listen`].
    pub async fn loopback(address: &str) -> Result<Self> {
        let listener = bind_tcp(address).await?;
        let local = local(&listener, address)?;
        if !local.ip().is_loopback() {
            return Err(Error::InClear { address: address.to_owned() });
        }
        Ok(Self { kind: Kind::Tcp(listener, None), address: Address::Loopback(local) })
    }

    /// A unix socket for processes of `users`. The path must be absolute and not exist.
    ///
    /// # Errors
    /// [`Error::Address`] for a relative path, [`Error::Listen`].
    pub fn unix(path: &Path, users: Users) -> Result<Self> {
        if !path.is_absolute() {
            return Err(Error::Address { given: path.display().to_string() });
        }
        let address = Address::Unix(path.to_owned());
        let failed = |source| Error::Listen { address: address.to_string(), source };
        let listener = UnixListener::bind(path).map_err(failed)?;
        Ok(Self { kind: Kind::Unix(listener, users), address })
    }

    /// Where a client finds it. With TLS, the certificate's name takes the place of the bound address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The connections that are let in, at most so many at once: for a server that has other services as well.
    #[must_use]
    pub fn incoming(self, connections_max: u32) -> Incoming {
        Incoming { kind: self.kind, connections: Arc::default(), connections_max, pause: None }
    }

    pub(super) fn certificates(&self) -> Option<&Certificates> {
        match &self.kind {
            Kind::Tcp(_, certificates) => certificates.as_ref(),
            Kind::Unix(..) => None,
        }
    }
}

async fn bind_tcp(address: &str) -> Result<TcpListener> {
    let failed = |source| Error::Listen { address: address.to_owned(), source };
    TcpListener::bind(address).await.map_err(failed)
}

fn local(listener: &TcpListener, address: &str) -> Result<std::net::SocketAddr> {
    listener.local_addr().map_err(|source| Error::Listen { address: address.to_owned(), source })
}

/// The connections of a listener that are let in.
#[derive(Debug)]
pub struct Incoming {
    kind: Kind,
    connections: Arc<AtomicU32>,
    connections_max: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Socket>>> {
        match &self.kind {
            Kind::Tcp(listener, _) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                // A connection that fails here fails at its first use.
                let _ = stream.set_nodelay(true);
                Some(Socket::Tcp(stream))
            }),
            Kind::Unix(listener, users) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                let is_let_in = stream.peer_cred().is_ok_and(|peer| users.has(peer.uid()));
                is_let_in.then_some(Socket::Unix(stream))
            }),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.poll_accept(cx)) {
                Ok(Some(socket)) => {
                    if self.connections.fetch_add(1, Ordering::Relaxed) < self.connections_max {
                        let open = Open(self.connections.clone());
                        return Poll::Ready(Some(Ok(Connection::new(socket, open))));
                    }
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                }
                Ok(None) => {}
                Err(_) => self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE))),
            }
        }
    }
}

/// Counts a connection as long as it is there.
#[derive(Debug)]
struct Open(Arc<AtomicU32>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that was let in. It ends unless the peer speaks soon.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    read_bytes: usize,
    preface_deadline: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

impl Connection {
    fn new(socket: Socket, open: Open) -> Self {
        let preface_deadline = Some(Box::pin(tokio::time::sleep(PREFACE_DEADLINE)));
        Self { socket, read_bytes: 0, preface_deadline, _open: open }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let Some(deadline) = &mut this.preface_deadline {
            this.read_bytes += buffer.filled().len() - filled;
            if this.read_bytes >= PREFACE_BYTES {
                this.preface_deadline = None;
            } else if read.is_pending() && deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
