//! The HTTP client of one host: which authorities it trusts, and who it is.
//!
//! The system's roots count always. Besides them, as Docker has it, `CERTS_DIR/HOST[:PORT]/` may hold `*.crt`
//! (authorities for that host) and a pair `*.cert` and `*.key` (who to be).

use std::path::Path;

use reqwest::{Certificate, Client, Identity};

use super::error::Reason;
use crate::transport::NetworkOptions;

/// Bytes of a certificate or key file.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Files looked at in a host's directory.
const FILES_COUNT_MAX: usize = 64;
/// Idle connections kept to one host.
const IDLE_COUNT_MAX: usize = 16;

pub(super) fn client(network: &NetworkOptions, host: &str, is_loopback: bool) -> Result<Client, Reason> {
    let mut builder = Client::builder()
        .user_agent(concat!("celda/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by hand: each hop decides anew who may see the credentials.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(network.connect)
        .pool_max_idle_per_host(IDLE_COUNT_MAX)
        .http1_only();
    if is_loopback {
        builder = builder.no_proxy();
    }
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
    builder.build().map_err(|error| Reason::Tls(super::http::chain_of(&error)))
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
