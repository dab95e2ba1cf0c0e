//! One host that may have the image: requests with authentication, redirects and retries.
//!
//! ```text
//! get --> [once: send -> redirect? follow by hand, at most REDIRECTS_MAX
//!                     -> 401? challenge -> token -> send again, once
//!                     -> status -> answer or reason]
//!     <-- retry with backoff while the reason is worth it
//! ```
//!
//! Credentials are sent to the registry itself and to its token endpoint. No other host sees them, however it is
//! redirected to (CVE-2020-15157).

use std::time::Duration;

use oci_client::errors::OciEnvelope;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use super::auth::{self, Challenge};
use super::credentials::{self, Credentials};
use super::error::{Reason, RegistryError};
use super::http;
use super::retry::{Patience, retry_after};
use super::tls::Clients;
use crate::transport::{Cancel, NetworkOptions};

/// Redirects followed for one request. A blob takes one or two.
const REDIRECTS_MAX: usize = 5;
/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// Characters of a registry's message that are shown.
const MESSAGE_CHARS_MAX: usize = 200;

pub(super) const ADVICE_LOG_IN: &str = "log in with `docker login` (celda reads Docker's config.json)";
const ADVICE_REFUSED: &str = "the credentials in Docker's config.json were refused; log in again";

/// A registry or a mirror of one.
pub(super) struct Endpoint {
    pub(super) host: String,
    base: Url,
    repository: String,
    clients: Clients,
    network: NetworkOptions,
    cancel: Cancel,
    session: tokio::sync::Mutex<Session>,
}

/// What was learnt of the registry's wishes.
#[derive(Default)]
struct Session {
    credentials: Option<Credentials>,
    header: Option<HeaderValue>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Below the repository: `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// First and last byte.
    pub(super) range: Option<(u64, u64)>,
    /// For errors.
    pub(super) what: &'a str,
}

impl Endpoint {
    /// Settles on the scheme: `https`, or for loopback and on demand `http`.
    pub(super) async fn connect(
        address: &str,
        repository: &str,
        network: &NetworkOptions,
        cancel: &Cancel,
    ) -> Result<Self, RegistryError> {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            _ => (None, address),
        };
        let failed = |reason| RegistryError { what: "connection".into(), host: address.to_owned(), reason };
        let host = rest.split('/').next().unwrap_or_default().to_owned();
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{rest}/"))
                .map_err(|error| failed(Reason::Address(error.to_string())))
        };
        let https = url("https")?;
        let name = https.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_loopback = name == "localhost"
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let clients = Clients::new(network, &host, is_loopback).map_err(failed)?;
        let base = match scheme {
            Some(scheme) => url(scheme)?,
            None if network.plain_http => url("http")?,
            None if is_loopback && speaks_http(&clients, &url("http")?, network.stall).await => url("http")?,
            None => https,
        };
        Ok(Self {
            host,
            base,
            repository: repository.to_owned(),
            clients,
            network: network.clone(),
            cancel: cancel.clone(),
            session: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn fail(&self, what: &str, reason: Reason) -> RegistryError {
        RegistryError { what: what.to_owned(), host: self.host.clone(), reason }
    }

    /// A successful answer, after as many attempts as it takes and is allowed.
    pub(super) async fn get(
        &self,
        ask: Ask<'_>,
        patience: &mut Patience<'_>,
    ) -> Result<Response, RegistryError> {
        loop {
            let reason = match self.attempt(ask).await {
                Ok(response) => return Ok(response),
                Err(reason) => reason,
            };
            self.pause(&reason, patience).await.map_err(|()| self.fail(ask.what, reason))?;
        }
    }

    /// Waits before the next attempt; an error if there is to be none.
    pub(super) async fn pause(&self, reason: &Reason, patience: &mut Patience<'_>) -> Result<(), ()> {
        let pause = patience.pause(reason).ok_or(())?;
        tracing::debug!(host = self.host, %reason, ?pause, "trying again");
        self.interruptible(async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
        .await
        .map_err(|_| ())
    }

    /// Runs `work` unless the pull is cancelled first.
    pub(super) async fn interruptible<T>(
        &self,
        work: impl Future<Output = Result<T, Reason>>,
    ) -> Result<T, Reason> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Reason::Cancelled),
            done = work => done,
        }
    }

    /// The next bytes of a body, unless the pull is cancelled first.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Reason> {
        self.interruptible(http::chunk(response, self.network.stall)).await
    }

    /// One attempt, with at most one authentication in it.
    pub(super) async fn attempt(&self, ask: Ask<'_>) -> Result<Response, Reason> {
        self.interruptible(async {
            let header = self.session.lock().await.header.clone();
            let response = self.send(ask, header.as_ref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(response.url()) {
                return self.sorted(response).await;
            }
            let header = self.authenticate(&response, header.as_ref()).await?;
            let response = self.send(ask, Some(&header)).await?;
            self.sorted(response).await
        })
        .await
    }

    async fn sorted(&self, response: Response) -> Result<Response, Reason> {
        if response.status().is_success() {
            return Ok(response);
        }
        let is_anonymous =
            self.session.lock().await.credentials.as_ref().is_none_or(Credentials::is_anonymous);
        Err(status_reason(response, self.network.stall, is_anonymous).await)
    }

    /// Sends, and follows redirects by hand.
    async fn send(&self, ask: Ask<'_>, authorization: Option<&HeaderValue>) -> Result<Response, Reason> {
        let path = format!("v2/{}/{}", self.repository, ask.path);
        let mut url = self.base.join(&path).map_err(|error| Reason::Address(error.to_string()))?;
        for _ in 0..=REDIRECTS_MAX {
            let client = self.clients.of(&url)?;
            let mut request =
                client.get(url.clone()).header(ACCEPT, ask.accept).header(ACCEPT_ENCODING, "identity");
            if let Some((first, last)) = ask.range {
                request = request.header(RANGE, format!("bytes={first}-{last}"));
            }
            if let Some(value) = authorization.filter(|_| self.is_own(&url)) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = http::within(self.network.stall, request.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = self.next_hop(&url, &response)?;
        }
        Err(Reason::RedirectLoop(REDIRECTS_MAX))
    }

    fn next_hop(&self, url: &Url, response: &Response) -> Result<Url, Reason> {
        let location = response
            .headers()
            .get(LOCATION)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let shown =
            location.as_deref().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect::<String>();
        let next = location.and_then(|location| url.join(&location).ok());
        match next {
            Some(next)
                if next.scheme() == "https" || (next.scheme() == "http" && self.base.scheme() == "http") =>
            {
                Ok(next)
            }
            Some(_) => Err(Reason::Redirect(shown, "only https is, once the registry speaks it")),
            None => Err(Reason::Redirect(shown, "it is not a URL")),
        }
    }

    /// Whether `url` is the registry itself: the same scheme, host and port.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Answers the 401 in `response`. `tried` is the header that was sent with the request, if any.
    async fn authenticate(
        &self,
        response: &Response,
        tried: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Reason> {
        let challenge = auth::challenge(response.headers())?;
        let mut session = self.session.lock().await;
        if let Some(fresh) = session.header.clone().filter(|fresh| Some(fresh) != tried) {
            return Ok(fresh);
        }
        let credentials = match session.credentials.clone() {
            Some(credentials) => credentials,
            None => {
                let (given, host) = (self.network.docker_config.clone(), self.host.clone());
                let found =
                    tokio::task::spawn_blocking(move || credentials::find(given.as_deref(), &host)).await;
                found.map_err(|error| Reason::Credentials(error.to_string()))?.map_err(Reason::Credentials)?
            }
        };
        session.credentials = Some(credentials.clone());
        let header = match &challenge {
            Challenge::Basic if tried.is_some() => {
                return Err(Reason::Unauthorized { detail: String::new(), advice: ADVICE_REFUSED });
            }
            Challenge::Basic => auth::basic(&credentials)?,
            Challenge::Bearer { realm, service } => {
                let realm = (realm.as_str(), service.as_deref());
                auth::bearer(
                    &self.clients,
                    &self.base,
                    realm,
                    &self.repository,
                    &credentials,
                    self.network.stall,
                )
                .await?
            }
        };
        session.header = Some(header.clone());
        Ok(header)
    }
}

/// Whether something on loopback answers HTTP as a registry does, rather than as a TLS server does.
async fn speaks_http(clients: &Clients, base: &Url, stall: Duration) -> bool {
    let Ok(url) = base.join("v2/") else { return false };
    let Ok(client) = clients.of(&url) else { return false };
    match http::within(stall, client.get(url).send()).await {
        Ok(response) => response.status() != StatusCode::BAD_REQUEST,
        Err(Reason::Stalled(_)) => true,
        Err(_) => false,
    }
}

/// Why a response is not a success; reads a bounded part of its body for the registry's own words.
pub(super) async fn status_reason(response: Response, stall: Duration, is_anonymous: bool) -> Reason {
    let status = response.status();
    let retry_after =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
    let body = http::read_bounded(response, ERROR_BYTES_MAX, stall).await.unwrap_or_default();
    let detail = match serde_json::from_slice::<OciEnvelope>(&body) {
        Ok(envelope) => {
            envelope.errors.into_iter().map(|error| error.message).find(|message| !message.is_empty())
        }
        Err(_) => None,
    };
    let detail: String =
        detail.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    match status.as_u16() {
        401 => {
            Reason::Unauthorized { detail, advice: if is_anonymous { ADVICE_LOG_IN } else { ADVICE_REFUSED } }
        }
        403 => Reason::Forbidden(detail),
        404 => Reason::NotFound(detail),
        429 => Reason::TooManyRequests { detail, retry_after },
        code @ 500..=599 => Reason::Server(code, detail),
        code => Reason::Status(code, detail),
    }
}
