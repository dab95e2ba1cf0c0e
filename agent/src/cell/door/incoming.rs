//! Connections as they come in: handshakes side by side, and what is left of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use super::config::Listen;
use super::connection::Connection;
use super::error::{DoorError, Result};
use super::{HANDSHAKE_DEADLINE, KEEPALIVE_AFTER, KEEPALIVE_COUNT, KEEPALIVE_EVERY, tls};
use crate::cell::crowd::Crowd;

/// How long nothing is accepted after accept(2) failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound address, and who is let in there.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    keeper: Keeper,
    handshakes_max: usize,
}

/// What a handshake is made with.
#[derive(Clone)]
struct Keeper {
    acceptor: TlsAcceptor,
    places: Arc<Semaphore>,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A key is nobody's to print.
        f.debug_struct("Keeper").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Door {
    /// Reads the certificates and binds the address; nothing where none is configured. In a runtime only.
    ///
    /// # Errors
    /// [`DoorError`]. What is missing of the configuration is told by [`Listen::check`]; here it is as if none were there.
    pub fn open(
        listen: &Listen,
    ) -> Result<Option<(Self, impl Stream<Item = io::Result<Connection>> + use<>)>> {
        let Ok(Some(files)) = listen.files() else { return Ok(None) };
        let config = tls::server_config(files, &listen.clients)?;
        let failed = |source| DoorError::Bind { address: files.address, source };
        let listener = std::net::TcpListener::bind(files.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let (out, incoming) = mpsc::channel(1);
        let keeper = Keeper {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            places: Arc::new(Semaphore::new(listen.connections_max as usize)),
            out,
        };
        let next = |mut incoming: mpsc::Receiver<_>| async move { Some((incoming.recv().await?, incoming)) };
        let door = Self { listener, keeper, handshakes_max: listen.handshakes_max as usize };
        // Boxed: tonic wants a stream that can be moved.
        Ok(Some((door, Box::pin(stream::unfold(incoming, next)))))
    }

    /// What was bound.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets connections in for as long as somebody takes them.
    pub async fn keep(self) {
        let mut handshakes = Crowd::new(self.handshakes_max);
        loop {
            tokio::select! {
                () = self.keeper.out.closed() => return,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => handshakes.spawn(self.keeper.clone().let_in(stream, peer)),
                    Err(error) => {
                        tracing::warn!(%error, "no connection was accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

impl Keeper {
    async fn let_in(self, stream: TcpStream, peer: SocketAddr) {
        // A connection that fails here fails at its first use.
        let _ = stream.set_nodelay(true);
        let _ = keep_alive(&stream);
        match tokio::time::timeout(HANDSHAKE_DEADLINE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => match self.places.try_acquire_owned() {
                Ok(place) => {
                    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let client = certificates.first().and_then(tls::common_name);
                    tracing::info!(%peer, client, "a client was let in");
                    let _ = self.out.send(Ok(Connection::new(stream, place))).await;
                }
                Err(_) => {
                    tracing::warn!(%peer, "as many connections are open as may be: listen.connections_max");
                }
            },
            // Whoever finds the port can have this said as often as it likes.
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection was refused"),
            Err(_) => tracing::debug!(%peer, "a connection was refused: its handshake takes too long"),
        }
    }
}

/// Has the kernel find out that a peer's machine is gone.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    sockopt::set_socket_keepalive(stream, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kernels_watch_over_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let _peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        keep_alive(&stream).expect("set");
        assert_eq!(sockopt::socket_keepalive(&stream), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&stream), Ok(KEEPALIVE_AFTER));
        assert_eq!(sockopt::tcp_keepintvl(&stream), Ok(KEEPALIVE_EVERY));
        assert_eq!(sockopt::tcp_keepcnt(&stream), Ok(KEEPALIVE_COUNT));
    }
}
