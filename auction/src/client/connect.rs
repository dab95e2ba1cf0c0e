//! From an address to an open stream.

use super::Options;
use super::link::{Link, Outbox};
use crate::transport::{Address, Error, Result, Socket};
use crate::wire::MESSAGE_BYTES_MAX;
use celda_api::auction::v1;
use celda_api::auction::v1::cell_client::CellClient;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// How much a cell may send ahead of its being read.
const WINDOW_BYTES: u32 = 4 * MESSAGE_BYTES_MAX as u32;
/// A cell that does not answer a ping is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(5);
/// The most bytes of a response's headers.
const HEADER_BYTES_MAX: u32 = 8 * 1024;

/// Opens the stream of a link. The caller gives it a deadline.
pub(super) async fn open(link: &Arc<Link>, outbox: Outbox) -> Result<Streaming<v1::AuctionResponse>> {
    let not_sent = |why| Error::NotSent { name: link.name().to_owned(), why };
    let channel = channel(link.address(), link.options()).await?;
    let client = CellClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut client = client.max_encoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.auction(outbox).await;
    Ok(answer.map_err(|_| not_sent("it refused the stream"))?.into_inner())
}

/// Connects to an address.
async fn channel(address: &Address, options: &Options) -> Result<Channel> {
    let uri = match address {
        Address::Tls { .. } | Address::Loopback(_) => address.to_string(),
        // Only the connector knows the path; HTTP wants a name all the same.
        Address::Unix(_) => "http://cell.invalid".to_owned(),
    };
    let none = |_| Error::Address { given: address.to_string() };
    let mut endpoint = Endpoint::from_shared(uri)
        .map_err(none)?
        .connect_timeout(options.connect_deadline)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true);
    if let Address::Tls { host, .. } = address {
        let certificates = options.certificates.as_ref();
        let certificates =
            certificates.ok_or_else(|| Error::NoCertificates { address: address.to_string() })?;
        endpoint = endpoint.tls_config(certificates.client(host)).map_err(Error::Tls)?;
    }
    let (target, users) = (address.clone(), options.users.clone());
    let connector = tower::service_fn(move |_| {
        let (target, users) = (target.clone(), users.clone());
        async move {
            let socket = match target {
                Address::Tls { host, port } => {
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    tcp(TcpStream::connect((host, port)).await?)?
                }
                Address::Loopback(socket) => tcp(TcpStream::connect(socket).await?)?,
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    if !users.has(stream.peer_cred()?.uid()) {
                        return Err(io::Error::other(
                            "the socket's owner is none of the users that are trusted",
                        ));
                    }
                    Socket::Unix(stream)
                }
            };
            Ok::<_, io::Error>(TokioIo::new(socket))
        }
    });
    let failed = |_| Error::NotSent { name: address.to_string(), why: "no connection" };
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

fn tcp(stream: TcpStream) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    Ok(Socket::Tcp(stream))
}
