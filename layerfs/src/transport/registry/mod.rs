//! Registries, as the OCI distribution-spec 1.1 and Docker's Registry HTTP API V2 have them.
//!
//! ```text
//! credentials  Docker's config.json and its helpers          tls       certificates per host
//! auth         401 -> Basic or a token                       retry     when to ask again
//! endpoint     one host: redirects, attempts, statuses       http      bounded reading
//! download     one blob, in ranges                           mod       mirrors, then the registry: a `Source`
//! ```
//!
//! The types of credentials, tokens and error bodies are oci-client's, the challenge parser is http-auth's, the
//! HTTP client is the one oci-client uses (reqwest on rustls). The requests themselves are made here: oci-client
//! 0.18 reads manifests, tokens and error bodies whole, however long they are, shows neither `Retry-After` nor
//! `Content-Range`, knows no refresh tokens, and panics on a token that cannot be a header value, which a hostile
//! registry can send.

mod auth;
mod credentials;
mod download;
mod endpoint;
mod error;
mod http;
mod retry;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

pub use error::{Reason, RegistryError};

use self::download::Download;
use self::endpoint::{Ask, Endpoint};
use self::retry::Patience;
use super::{Cancel, Fetched, NetworkOptions, Sink, Source, Start, verify_document};
use crate::manifest::{Descriptor, media_type};
use crate::progress::Progress;
use crate::reference::RegistryReference;
use crate::{Digest, Error, Limits, Result};

/// Threads of the network runtime. TLS and HTTP of one fast link fit in one; the second hides its pauses.
const NETWORK_THREADS_COUNT: usize = 2;

/// An image in a registry or in one of its mirrors.
pub struct Registry {
    runtime: Option<Runtime>,
    reference: RegistryReference,
    network: NetworkOptions,
    limits: Limits,
    progress: Arc<dyn Progress>,
    endpoints: Vec<Arc<Endpoint>>,
    /// Which of the endpoints had the manifest.
    chosen: AtomicUsize,
    in_flight: Arc<Semaphore>,
}

impl Registry {
    /// Prepares to ask; the image itself is not asked for yet.
    ///
    /// # Errors
    /// When an address, a certificate file or the network runtime is of no use.
    pub fn open(
        reference: &RegistryReference,
        network: &NetworkOptions,
        limits: &Limits,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(NETWORK_THREADS_COUNT)
            .thread_name("celda-network")
            .enable_all()
            .build()
            .map_err(Error::io("start the network threads for", reference.registry()))?;
        let mirrors = network.mirrors.iter().filter(|mirror| mirror.registry == reference.registry());
        let addresses = mirrors.map(|mirror| mirror.endpoint.as_str()).chain([reference.endpoint()]);
        let mut endpoints = Vec::new();
        for address in addresses {
            let endpoint = Endpoint::connect(address, reference.repository(), network, cancel);
            endpoints.push(Arc::new(runtime.block_on(endpoint).map_err(Box::new)?));
        }
        Ok(Self {
            runtime: Some(runtime),
            reference: reference.clone(),
            network: network.clone(),
            limits: limits.clone(),
            progress: Arc::clone(progress),
            endpoints,
            chosen: AtomicUsize::new(0),
            in_flight: Arc::new(download::budget(network)),
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only when dropped")
    }

    /// Asks the endpoints in turn, from the one that had the manifest on, until one answers well.
    fn first<T>(&self, mut ask: impl FnMut(&Arc<Endpoint>) -> Result<T>) -> Result<(usize, T)> {
        let from = self.chosen.load(Ordering::Relaxed);
        let count = self.endpoints.len();
        let mut at = from;
        loop {
            match ask(&self.endpoints[at]) {
                Ok(answer) => return Ok((at, answer)),
                Err(error) if at + 1 < count && !is_cancelled(&error) => {
                    tracing::warn!(%error, "asking the next one");
                    at += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A document of at most `limit` bytes, with the digest and the media type that the registry gives it.
    async fn fetch(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
        limit: u64,
    ) -> Result<(Vec<u8>, Option<String>, Option<String>), RegistryError> {
        let mut patience = Patience::new(&self.network);
        let ask = Ask { path, accept: media_type::ACCEPT, range: None, what };
        loop {
            let response = endpoint.get(ask, &mut patience).await?;
            let header = |name: &str| {
                response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let (digest, media_type) = (header("docker-content-digest"), header("content-type"));
            match endpoint.interruptible(http::read_bounded(response, limit, self.network.stall)).await {
                Ok(bytes) => return Ok((bytes, digest, media_type)),
                Err(reason) => {
                    endpoint.pause(&reason, &mut patience).await.map_err(|()| endpoint.fail(what, reason))?;
                }
            }
        }
    }

    fn manifest(&self, endpoint: &Endpoint) -> Result<Fetched, RegistryError> {
        let key = self.reference.manifest_key();
        let what = format!("manifest of {}", self.reference);
        let path = format!("manifests/{key}");
        let limit = self.limits.manifest_bytes;
        let (bytes, claimed, media_type) =
            self.runtime().block_on(self.fetch(endpoint, &path, &what, limit))?;
        let digest = Digest::of(&bytes);
        let pinned = self.reference.digest().map(|digest| digest.to_string());
        // A digest of another algorithm than ours says nothing that could be checked.
        let claimed = claimed.filter(|claimed| claimed.starts_with("sha256:"));
        for claimed in [pinned, claimed].into_iter().flatten() {
            if claimed != digest.to_string() {
                let claimed = claimed.chars().take(80).collect();
                return Err(endpoint.fail(&what, Reason::Digest { claimed, actual: digest }));
            }
        }
        Ok(Fetched { bytes, digest, media_type })
    }

    /// Feeds the blob to `sink`.
    fn layer_from(&self, endpoint: &Arc<Endpoint>, blob: &Descriptor, sink: Sink<'_>) -> Result<()> {
        let download = Arc::new(Download {
            endpoint: Arc::clone(endpoint),
            network: self.network.clone(),
            in_flight: Arc::clone(&self.in_flight),
            progress: Arc::clone(&self.progress),
            digest: blob.digest,
            size: blob.size_bytes,
        });
        let (sender, mut spans) = mpsc::channel(self.network.ranges_count.saturating_sub(1).max(1));
        let run = self.runtime().spawn(download.run(sender));
        let mut is_whole = true;
        'spans: while let Some(mut span) = spans.blocking_recv() {
            let mut left = span.length;
            while let Some(bytes) = span.chunks.blocking_recv() {
                if let Err(error) = sink(&bytes) {
                    run.abort();
                    return Err(error);
                }
                left -= bytes.len() as u64;
            }
            if left > 0 {
                is_whole = false;
                break 'spans;
            }
        }
        drop(spans);
        let done = self.runtime().block_on(run);
        let broken = |why: String| endpoint.fail(&format!("layer {}", blob.digest), Reason::Broken(why));
        match done {
            Ok(Ok(())) if is_whole => Ok(()),
            Ok(Ok(())) => Err(Box::new(broken("it ended early".into())).into()),
            Ok(Err(error)) => Err(Box::new(error).into()),
            Err(error) => Err(Box::new(broken(error.to_string())).into()),
        }
    }
}

/// Whether nobody else needs to be asked, as nobody wants to know any more.
fn is_cancelled(error: &Error) -> bool {
    match error {
        Error::Registry(error) => matches!(error.reason, Reason::Cancelled),
        other => matches!(other, Error::Cancelled { .. }),
    }
}

impl Source for Registry {
    fn start(&self) -> Result<Start> {
        let (at, fetched) = self.first(|endpoint| Ok(self.manifest(endpoint).map_err(Box::new)?))?;
        self.chosen.store(at, Ordering::Relaxed);
        Ok(Start::Document(fetched))
    }

    fn document(&self, descriptor: &Descriptor, what: &str) -> Result<Vec<u8>> {
        let kind = if media_type::is_document(&descriptor.media_type) { "manifests" } else { "blobs" };
        let path = format!("{kind}/{}", descriptor.digest);
        let limit = self.limits.manifest_bytes;
        let asked = self.first(|endpoint| {
            let failed = |reason| Box::new(endpoint.fail(what, reason));
            if descriptor.size_bytes > limit {
                return Err(failed(Reason::TooLong(limit)).into());
            }
            let fetched = self.runtime().block_on(self.fetch(endpoint, &path, what, limit));
            let (bytes, ..) = fetched.map_err(Box::new)?;
            verify_document(&bytes, descriptor, what)?;
            let (length, expected) = (bytes.len() as u64, descriptor.size_bytes);
            if length != expected {
                let reason = Reason::Length(format!("it has {length} bytes, its descriptor says {expected}"));
                return Err(failed(reason).into());
            }
            Ok(bytes)
        });
        asked.map(|(_, bytes)| bytes)
    }

    fn layer(&self, blob: &Descriptor, place: usize, sink: Sink<'_>) -> Result<()> {
        // Those before the chosen one do not have the image.
        let from = self.chosen.load(Ordering::Relaxed);
        let at = (from + place).min(self.endpoints.len() - 1);
        self.layer_from(&self.endpoints[at], blob, sink)
    }

    fn places_count(&self) -> usize {
        self.endpoints.len() - self.chosen.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A credential helper may still be running; nobody waits for it.
            runtime.shutdown_background();
        }
    }
}
