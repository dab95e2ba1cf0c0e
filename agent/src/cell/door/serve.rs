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
/// How often a silent peer is asked whether it is there, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves what `services` adds on a socket's connections and on a door's, until `shutdown` is ready and what was under way
/// has ended.
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
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_keepalive_timeout(Some(KEEPALIVE))
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
