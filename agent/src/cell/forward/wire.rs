//! A connection to a syslog server, TCP in clear or with TLS.
//!
//! The protocol has no answer that says that a message has come. What there is is TCP's: the send queue is empty when the
//! server's kernel has all of it, and a batch counts as sent when it is and the connection still stands.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Syslog;
use super::error::{ForwardError, Result};
use super::{CONNECT_DEADLINE, SEND_DEADLINE};
use crate::sys::unacknowledged_bytes;

/// How often the send queue is looked at, at first and at the longest.
const QUEUE_LOOK_FIRST: Duration = Duration::from_millis(1);
const QUEUE_LOOK_MAX: Duration = Duration::from_millis(50);

/// Where to, and how.
pub(super) struct Server {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connection: Option<Connection>,
}

enum Connection {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that is configured; nothing where none is.
    ///
    /// # Errors
    /// [`ForwardError::Tls`].
    pub(super) fn of(config: &Syslog) -> Result<Option<Self>> {
        let Some(address) = config.address.clone() else { return Ok(None) };
        let tls = match &config.tls_ca {
            Some(ca) => Some(tls(config, ca, &address)?),
            None => None,
        };
        Ok(Some(Self { address, tls, connection: None }))
    }

    /// Sends it all, on a new connection where there is none.
    ///
    /// # Errors
    /// [`ForwardError::Connect`], [`ForwardError::Send`]; the next try is on a new connection.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let failed = |source| ForwardError::Send { to: self.address.clone(), source };
        let sent = tokio::time::timeout(SEND_DEADLINE, connection.send(bytes)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether the server has ended the connection, which nothing but a look tells while there is nothing to send.
    pub(super) async fn is_lost(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let is_closed = connection.is_closed().await;
        if is_closed {
            self.connection = None;
        }
        is_closed
    }

    async fn connect(&self) -> Result<Connection> {
        let connect = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            Ok(match &self.tls {
                None => Connection::Clear(stream),
                Some((connector, name)) => {
                    Connection::Tls(Box::new(connector.connect(name.clone(), stream).await?))
                }
            })
        };
        let connected = tokio::time::timeout(CONNECT_DEADLINE, connect).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| ForwardError::Connect { to: self.address.clone(), source })
    }
}

impl Connection {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let ended = || io::Error::new(io::ErrorKind::ConnectionReset, "the server has ended the connection");
        if self.is_closed().await {
            return Err(ended());
        }
        match self {
            Self::Clear(stream) => write(stream, bytes).await?,
            Self::Tls(stream) => write(stream, bytes).await?,
        }
        let mut pause = QUEUE_LOOK_FIRST;
        while unacknowledged_bytes(self.socket().as_fd())? > 0 {
            if self.is_closed().await {
                return Err(ended());
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(QUEUE_LOOK_MAX);
        }
        // A reset empties the queue as well.
        if self.is_closed().await { Err(ended()) } else { Ok(()) }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether the server has sent its end. What else it sends is nothing to syslog, and is thrown away.
    async fn is_closed(&mut self) -> bool {
        poll_fn(|cx| {
            let mut bytes = [0; 512];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = match self {
                Self::Clear(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            };
            Poll::Ready(match read {
                Poll::Pending => false,
                Poll::Ready(Ok(())) => buffer.filled().is_empty(),
                Poll::Ready(Err(_)) => true,
            })
        })
        .await
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn tls(config: &Syslog, ca: &Path, address: &str) -> Result<(TlsConnector, ServerName<'static>)> {
    let wrong =
        |path: &Path, why: String| ForwardError::Tls { to: address.into(), path: path.to_owned(), why };
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found: Vec<_> = found.map_err(|error| wrong(path, error.to_string()))?;
        if found.is_empty() { Err(wrong(path, "there is no certificate in it".into())) } else { Ok(found) }
    };
    let mut roots = RootCertStore::empty();
    for certificate in read(ca)? {
        roots.add(certificate).map_err(|error| wrong(ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(ca, error.to_string()))?.with_root_certificates(roots);
    let tls = match (&config.tls_certificate, &config.tls_key) {
        (Some(certificate), Some(key)) => {
            let loaded = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
            let made = builder.with_client_auth_cert(read(certificate)?, loaded);
            made.map_err(|error| wrong(certificate, error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| wrong(ca, format!("{host:?} is no name of a server: {error}")))?;
    Ok((TlsConnector::from(Arc::new(tls)), name))
}
