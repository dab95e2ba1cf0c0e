//! Answers, read with a bound on their length and on the silence between their parts.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::error::Reason;

/// A document that trickles in is given up after this many times the stall timeout.
const DOCUMENT_STALLS_MAX: u32 = 4;

/// Awaits `future`, but no longer than `stall`.
pub(super) async fn within<T>(
    stall: Duration,
    future: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, Reason> {
    match tokio::time::timeout(stall, future).await {
        Err(_) => Err(Reason::Stalled(stall)),
        Ok(Err(error)) => Err(reason(&error)),
        Ok(Ok(value)) => Ok(value),
    }
}

/// The next bytes of the body; none at its end.
pub(super) async fn chunk(response: &mut Response, stall: Duration) -> Result<Option<Bytes>, Reason> {
    within(stall, response.chunk()).await.map_err(|reason| match reason {
        Reason::Connect(why, _) => Reason::Broken(why),
        reason => reason,
    })
}

/// The whole body within [`DOCUMENT_STALLS_MAX`] times `stall`, unless it is longer than `limit`; of a longer one no more than a chunk past the limit is read.
pub(super) async fn read_bounded(
    mut response: Response,
    limit: u64,
    stall: Duration,
) -> Result<Vec<u8>, Reason> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Reason::TooLong(limit));
    }
    let whole = async {
        let mut bytes = Vec::new();
        while let Some(more) = chunk(&mut response, stall).await? {
            if (bytes.len() + more.len()) as u64 > limit {
                return Err(Reason::TooLong(limit));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    };
    tokio::time::timeout(stall * DOCUMENT_STALLS_MAX, whole).await.unwrap_or(Err(Reason::Stalled(stall)))
}

fn reason(error: &reqwest::Error) -> Reason {
    let why = chain_of(error);
    if error.is_builder() {
        return Reason::Address(why);
    }
    if error.is_connect() || error.is_request() || error.is_timeout() {
        let protocol =
            if error.url().is_some_and(|url| url.scheme() == "http") { "plain HTTP" } else { "HTTPS" };
        return Reason::Connect(why, protocol);
    }
    Reason::Broken(why)
}

/// An error with its causes, which reqwest keeps apart.
pub(super) fn chain_of(error: &reqwest::Error) -> String {
    const CAUSES_COUNT_MAX: usize = 8;
    let mut causes = Vec::new();
    let mut at = error.source();
    while let Some(cause) = at.filter(|_| causes.len() < CAUSES_COUNT_MAX) {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        at = cause.source();
    }
    if causes.is_empty() {
        return error.to_string();
    }
    let text = causes.join(": ");
    match text.contains("CaUsedAsEndEntity") {
        // What `openssl req -x509` makes by default, and Go's TLS lets pass.
        true => format!("{text}: the server's certificate says CA:TRUE, a server's must say CA:FALSE"),
        false => text,
    }
}
