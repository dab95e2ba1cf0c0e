//! One set of services behind all doors, with the same limits.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};

use super::connection::Connection;
use super::incoming::Door;

/// Streams, unary calls among them, of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// The most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 8 << 10;
/// How long peers have to take the end of their streams.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Serves what `services` adds on a socket's connections and on a door's, until `shutdown` is ready and what was under way
/// has ended.
///
/// Whether a peer is there is the kernels' to say: a program that is stopped, or waits until its own reader scrolls on, answers
/// no ping of HTTP/2, and is to find its stream again.
///
/// # Errors
/// tonic's.
pub async fn serve<S>(
    socket: impl Stream<Item = io::Result<S>>,
    door: Option<(Door, impl Stream<Item = io::Result<Connection>>)>,
    services: impl Fn(Server) -> Router,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let router = || {
        services(
            Server::builder()
                .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
                .http2_max_header_list_size(HEADER_BYTES_MAX)
                .trace_fn(|request| tracing::debug_span!("call", path = request.uri().path())),
        )
    };
    let shutdown = shutdown.boxed().shared();
    let of_socket = router().serve_with_incoming_shutdown(socket, shutdown.clone());
    let of_door = async {
        let Some((door, incoming)) = door else { return Ok(()) };
        let serving = router().serve_with_incoming_shutdown(incoming, shutdown.clone());
        // The server, when it ends, takes no more connections, which ends the keeping.
        tokio::join!(serving, door.keep()).0
    };
    let too_late = async {
        shutdown.clone().await;
        tokio::time::sleep(CLOSE_WAIT).await;
    };
    tokio::select! {
        ended = async { tokio::try_join!(of_socket, of_door) } => ended.map(drop),
        () = too_late => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Frames of HTTP/2 (RFC 9113, 6.5 and 6.7): settings, a ping, and the beginning of what a ping is answered with.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0celda123";
    const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0celda123";

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_nothing_for_an_hour_is_served_after_it() {
        let (mut peer, ours) = tokio::io::duplex(1 << 16);
        let incoming = stream::iter([Ok(ours)]).chain(stream::pending());
        let services = |mut server: Server| server.add_routes(tonic::service::Routes::default());
        let door = None::<(Door, stream::Pending<io::Result<Connection>>)>;
        tokio::spawn(serve::<DuplexStream>(incoming, door, services, std::future::pending()));
        peer.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS].concat()).await.expect("a preface");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        peer.write_all(PING).await.expect("the connection is there");
        let mut said = Vec::new();
        while !said.ends_with(PONG) {
            let count = peer.read_buf(&mut said).await.expect("the connection is there");
            assert!(count > 0, "it was closed: {said:?}");
        }
    }
}
