//! Why a registry did not give what was asked for.

use std::time::Duration;

/// A request that failed for good.
#[derive(Debug, thiserror::Error)]
#[error("{what} from {host}: {reason}")]
pub struct RegistryError {
    /// What was being fetched: "manifest library/nginx:latest", "layer sha256:...".
    pub what: String,
    /// The host that was asked.
    pub host: String,
    /// Why it failed.
    pub reason: Reason,
}

/// The ways in which requests fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No connection, or it broke.
    #[error("{0}; is the host right and reachable, and does it speak {1}?")]
    Connect(String, &'static str),
    /// The connection broke while something was coming.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came for as long as [`NetworkOptions::stall`](crate::transport::NetworkOptions::stall).
    #[error("nothing came for {0:?}; the registry or the network is stuck, try again later")]
    Stalled(Duration),
    /// Less came than [`NetworkOptions::rate_bytes_min`](crate::transport::NetworkOptions::rate_bytes_min).
    #[error(
        "only {bytes} bytes came in {waited:?}; the registry or the network is too slow, try again later"
    )]
    TooSlow {
        /// How many.
        bytes: u64,
        /// In how long.
        waited: Duration,
    },
    /// 401, with or without credentials.
    #[error("401, not authorised{}: {advice}", said(detail))]
    Unauthorized {
        /// What the registry said.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
    /// 403.
    #[error("403, access denied{}: these credentials may not pull this repository", said(.0))]
    Forbidden(String),
    /// 404.
    #[error("404, not found{}: check the name and the tag (private repositories answer so to strangers as well)", said(.0))]
    NotFound(String),
    /// 429 beyond the patience.
    #[error("429, too many requests{}: {retry}", said(detail), retry = retry_text(*retry_after))]
    TooManyRequests {
        /// What the registry said.
        detail: String,
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("{0}, the registry failed{detail}; try again later", detail = said(.1))]
    Server(u16, String),
    /// Any other status.
    #[error("unexpected status {0}{detail}", detail = said(.1))]
    Status(u16, String),
    /// Redirects without end.
    #[error("more than {0} redirects in a row")]
    RedirectLoop(usize),
    /// A redirect that is not followed.
    #[error("a redirect to {0:?} is not followed: {1}")]
    Redirect(String, &'static str),
    /// `WWW-Authenticate` makes no sense.
    #[error("the registry asks for authentication in a way that is not understood: {0}")]
    Challenge(String),
    /// The token endpoint's answer makes no sense.
    #[error("the token endpoint {0} answered rubbish: {1}")]
    Token(String, String),
    /// The Docker config file or a credential helper fails.
    #[error("credentials: {0}")]
    Credentials(String),
    /// A certificate or key file cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The address cannot be made into a URL.
    #[error("not a usable address: {0}")]
    Address(String),
    /// A document longer than it may be.
    #[error("the answer is longer than {0} bytes; nothing of it was used")]
    TooLong(u64),
    /// The registry's lengths contradict the descriptor.
    #[error("{0}; the registry is lying or broken, nothing was kept")]
    Length(String),
    /// The registry's digest header contradicts the bytes.
    #[error("the bytes have {actual}, the registry calls them {claimed}; nothing was kept")]
    Digest {
        /// `Docker-Content-Digest`, or the digest asked for.
        claimed: String,
        /// Of the bytes.
        actual: crate::Digest,
    },
    /// Ctrl-C, or another layer failed.
    #[error("cancelled")]
    Cancelled,
}

impl Reason {
    /// Whether another attempt may go better.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        matches!(
            self,
            Self::Connect(..)
                | Self::Broken(_)
                | Self::Stalled(_)
                | Self::TooSlow { .. }
                | Self::Server(..)
                | Self::TooManyRequests { .. }
        )
    }
}

fn said(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

fn retry_text(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!("it asks to come back in {} s", after.as_secs()),
        None => "log in for a higher limit, or try again later".to_owned(),
    }
}
