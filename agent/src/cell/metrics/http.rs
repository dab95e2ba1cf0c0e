//! `GET /metrics` for Prometheus: one request a connection, and little of anything for whoever asks.
//!
//! ```text
//! accept ──> at most CONNECTIONS_MAX, one more ends the oldest ──> hyper, HTTP/1 ──> text, in one piece
//!                        each has CONNECTION_DEADLINE in all           CPU of one text at a time
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::cell::crowd::Crowd;
use crate::cell::error::{CellError, Result};

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may be open: a request, and a text of some tens of kilobytes.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and what is read ahead of it.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_COUNT_MAX: usize = 64;
/// How long nothing is accepted after accept(2) failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const PATH: &str = "/metrics";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `[metrics]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `/metrics` is served in clear, an IP address and a port. Default: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Who asks, and is answered.
#[derive(Debug)]
pub struct Exporter {
    listener: TcpListener,
}

impl Exporter {
    /// Binds the address, if one is configured. In a runtime only.
    ///
    /// # Errors
    /// [`CellError::Config`] naming the field.
    pub fn open(config: &MetricsConfig) -> Result<Option<Self>> {
        let Some(address) = config.listen else { return Ok(None) };
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let failed =
            |error: std::io::Error| CellError::Address { field: "metrics.listen", address, source: error };
        bind().map(|listener| Some(Self { listener })).map_err(failed)
    }

    /// What was bound.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for ever, with what `text` gives; `None` when the cell cannot say.
    pub async fn serve<F>(self, text: impl Fn() -> F + Clone + Send + Sync + 'static)
    where
        F: Future<Output = Option<String>> + Send + 'static,
    {
        let mut crowd = Crowd::new(CONNECTIONS_MAX);
        let turn = Arc::new(Semaphore::new(1));
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answered = answer(stream, text.clone(), Arc::clone(&turn));
                    crowd.spawn(async move {
                        let _ = tokio::time::timeout(CONNECTION_DEADLINE, answered).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection was accepted for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn answer<F>(stream: TcpStream, text: impl Fn() -> F, turn: Arc<Semaphore>)
where
    F: Future<Output = Option<String>>,
{
    let (text, turn) = (&text, &turn);
    let service = service_fn(move |request: Request<Incoming>| async move {
        if let Some(refusal) = refusal(&request) {
            return Ok::<_, Infallible>(refusal);
        }
        let _one_at_a_time = turn.acquire().await;
        Ok(match text().await {
            Some(text) => response(StatusCode::OK, text),
            None => response(StatusCode::SERVICE_UNAVAILABLE, "the cell is busy: try again\n".to_owned()),
        })
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    server.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_COUNT_MAX).keep_alive(false);
    // An error is the peer's: it is gone, or says what is no HTTP.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// What is answered to what is no request for metrics. hyper leaves the body of an answer to HEAD out by itself.
fn refusal(request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    if request.uri().path() != PATH {
        return Some(response(StatusCode::NOT_FOUND, format!("there is only {PATH} here\n")));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal =
            response(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are possible\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(refusal);
    }
    None
}

fn response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
