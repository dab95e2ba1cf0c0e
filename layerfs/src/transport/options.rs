//! How registries are reached.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::reference::DEFAULT_REGISTRY;

/// Bytes of a mirror's address.
const MIRROR_BYTES_MAX: usize = 1024;

/// How registries are reached. The defaults are for a fleet on a good network with a bad day now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Speak plain HTTP to any registry. To registries on loopback it is tried anyway.
    pub plain_http: bool,
    /// Docker's `config.json` or the directory it is in; none for `$DOCKER_CONFIG`, then `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Tried in order before the registry itself.
    pub mirrors: Vec<Mirror>,
    /// PEM files with certificate authorities to trust besides the system's.
    pub tls_ca: Vec<PathBuf>,
    /// Where `HOST[:PORT]/*.crt` lie, certificate authorities to trust for one registry, as Docker has it.
    pub certs_dir: PathBuf,
    /// Silence after which a connection is given up, at any stage.
    pub stall: Duration,
    /// Bytes a second that each connection of a layer must bring over [`rate_window`](Self::rate_window) while it is
    /// waited for, so that a trickle cannot hold a pull for days: by default 2 hours for 100 MiB in three ranges. Of
    /// nine connections (three layers of three ranges) it takes a third of a megabit a second.
    pub rate_bytes_min: u64,
    /// What the rate is taken over. A range that has been too slow for `retries_count` of these is given up.
    pub rate_window: Duration,
    /// How long a connection may take to be made.
    pub connect: Duration,
    /// Attempts after the first one that bring nothing new, before a request has failed for good.
    pub retries_count: u32,
    /// The pause before the first retry; doubled for each further one, with jitter.
    pub backoff: Duration,
    /// The longest pause between attempts. A registry that asks for more by Retry-After is not waited for.
    pub backoff_max: Duration,
    /// Blobs longer than this are fetched in ranges of this many bytes.
    pub range_bytes: u64,
    /// Ranges of one blob that are fetched at once.
    pub ranges_count: usize,
    /// Bytes of all layers that may have been asked for and not yet written. At least one range.
    pub bytes_in_flight: u64,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            plain_http: false,
            docker_config: None,
            mirrors: Vec::new(),
            tls_ca: Vec::new(),
            certs_dir: PathBuf::from("/etc/docker/certs.d"),
            stall: Duration::from_secs(30),
            rate_bytes_min: 4 << 10,
            rate_window: Duration::from_secs(60),
            connect: Duration::from_secs(15),
            retries_count: 5,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(60),
            range_bytes: 16 << 20,
            ranges_count: 3,
            bytes_in_flight: 96 << 20,
        }
    }
}

/// Another host that has a registry's images: `ENDPOINT` for Docker's registry, or `REGISTRY=ENDPOINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry whose images it has.
    pub registry: String,
    /// `host[:port]`, or a URL with the scheme and perhaps a path.
    pub endpoint: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, endpoint) = text.split_once('=').unwrap_or((DEFAULT_REGISTRY, text));
        let clean =
            |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
        if text.len() > MIRROR_BYTES_MAX || !clean(registry) || !clean(endpoint) {
            return Err(format!("mirror {text:?}: write HOST[:PORT], a URL, or REGISTRY=HOST[:PORT]"));
        }
        Ok(Self { registry: registry.to_owned(), endpoint: endpoint.trim_end_matches('/').to_owned() })
    }
}
