//! The HTTP clients of one host: which authorities they trust, and who they are.
//!
//! The system's roots count always. Besides them, as Docker has it, `CERTS_DIR/HOST[:PORT]/` may hold `*.crt`
//! (authorities for that host) and a pair `*.cert` and `*.key` (who to be).

use std::path::Path;
use std::sync::OnceLock;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use super::error::Reason;
use crate::transport::NetworkOptions;

/// Bytes of a certificate or key file.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Files looked at in a host's directory.
const FILES_COUNT_MAX: usize = 64;
/// Idle connections kept to one host.
const IDLE_COUNT_MAX: usize = 16;

/// One client for plain HTTP, and one that is made when something is to be had by HTTPS: reading the system's
/// authorities takes some 300 files and 10 to 30 ms.
pub(super) struct Clients {
    network: NetworkOptions,
    host: String,
    is_loopback: bool,
    plain: Client,
    secure: OnceLock<Client>,
}

impl Clients {
    pub(super) fn new(network: &NetworkOptions, host: &str, is_loopback: bool) -> Result<Self, Reason> {
        let (network, host) = (network.clone(), host.to_owned());
        let plain = built(builder(&network, is_loopback).tls_certs_only([]))?;
        Ok(Self { network, host, is_loopback, plain, secure: OnceLock::new() })
    }

    /// The client for `url`.
    pub(super) fn of(&self, url: &Url) -> Result<&Client, Reason> {
        if url.scheme() == "http" {
            return Ok(&self.plain);
        }
        if let Some(made) = self.secure.get() {
            return Ok(made);
        }
        let made = secure(&self.network, &self.host, builder(&self.network, self.is_loopback))?;
        Ok(self.secure.get_or_init(|| made))
    }
}

fn builder(network: &NetworkOptions, is_loopback: bool) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("celda/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by hand: each hop decides anew who may see the credentials.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(network.connect)
        .pool_max_idle_per_host(IDLE_COUNT_MAX)
        .http1_only();
    if is_loopback { builder.no_proxy() } else { builder }
}

fn built(builder: ClientBuilder) -> Result<Client, Reason> {
    builder.build().map_err(|error| Reason::Tls(super::http::chain_of(&error)))
}

fn secure(network: &NetworkOptions, host: &str, mut builder: ClientBuilder) -> Result<Client, Reason> {
    let mut authorities = Vec::new();
    for path in &network.tls_ca {
        authorities.extend(certificates(path)?);
    }
    let directory = network.certs_dir.join(host);
    for path in files(&directory) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => authorities.extend(certificates(&path)?),
            Some("cert") => {
                let mut pem = read(&path)?;
                pem.push(b'\n');
                pem.extend(read(&path.with_extension("key"))?);
                let identity = Identity::from_pem(&pem)
                    .map_err(|error| Reason::Tls(format!("{}: {error}", path.display())))?;
                builder = builder.identity(identity);
            }
            _ => {}
        }
    }
    if !authorities.is_empty() {
        builder = builder.tls_certs_merge(authorities);
    }
    built(builder)
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> =
        entries.take(FILES_COUNT_MAX).filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Reason> {
    let bad = |why: String| Reason::Tls(format!("{}: {why}", path.display()));
    let found = Certificate::from_pem_bundle(&read(path)?).map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("no certificate in PEM form".into())) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    use std::io::Read as _;
    let bad = |error: std::io::Error| Reason::Tls(format!("read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(bad)?.take(PEM_BYTES_MAX).read_to_end(&mut bytes).map_err(bad)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_when_something_is_https_and_not_before() {
        let certs = tempfile::tempdir().expect("temporary directory");
        let host = "registry.test:5000";
        std::fs::create_dir(certs.path().join(host)).expect("made");
        std::fs::write(certs.path().join(host).join("ca.crt"), "no certificate").expect("written");
        let network = NetworkOptions { certs_dir: certs.path().to_owned(), ..NetworkOptions::default() };
        let clients = Clients::new(&network, host, false).expect("nothing is read yet");
        let url = |scheme: &str| Url::parse(&format!("{scheme}://{host}/v2/")).expect("a URL");
        assert!(clients.of(&url("http")).is_ok());
        assert!(clients.secure.get().is_none());
        assert!(matches!(clients.of(&url("https")), Err(Reason::Tls(why)) if why.contains("ca.crt")));
    }
}
