//! Where a command's cell is, and the way there: a unix socket of this machine, or TCP with certificates.

use std::path::{Path, PathBuf};

use celda_auction::transport::Address;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::cell::chain;
use super::cell_args::CellArgs;
use super::context::Context;
use crate::cell::CellError;
use crate::cell::door::{HANDSHAKE_DEADLINE, KEEPALIVE_AFTER, KEEPALIVE_COUNT, KEEPALIVE_EVERY, PORT};
use crate::{Error, Result};

/// How long a cell has to take a connection, and as long again for its handshake.
const CONNECT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);
/// A directory with the three files, named as Docker does.
const CERTIFICATES_ENV: &str = "CELDA_CERT_PATH";

/// A cell that can be connected to.
#[derive(Debug)]
pub(super) enum Place {
    /// A unix socket.
    Socket(PathBuf),
    /// TCP with certificates.
    Tls {
        /// `https://HOST:PORT`
        url: String,
        host: String,
        files: Files,
    },
}

/// Certificates of a client.
#[derive(Debug)]
pub(super) struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    /// Of the flags, and the environment that stands for them.
    ///
    /// # Errors
    /// [`Error::Argument`] for a host that is none, or without certificates.
    pub(super) fn of(context: &Context, args: &CellArgs) -> Result<Self> {
        let Some(given) = &args.host else {
            let usual = || context.global.run.join("agent.sock");
            return Ok(Self::Socket(args.socket.clone().unwrap_or_else(usual)));
        };
        let wrong = |reason: String| Error::Argument { what: "--host".into(), reason };
        let url = url(given);
        let Ok(Address::Tls { host, .. }) = url.parse::<Address>() else {
            return Err(wrong(format!("{given:?} is no HOST or HOST:PORT")));
        };
        let directory = std::env::var_os(CERTIFICATES_ENV).map(PathBuf::from);
        let file = |given: &Option<PathBuf>, flag: &str, name: &str| {
            let of_directory = || directory.as_ref().map(|directory| directory.join(name));
            given.clone().or_else(of_directory).ok_or_else(|| {
                wrong(format!(
                    "it needs certificates: give --{flag}, or {CERTIFICATES_ENV}=DIR with ca.pem, cert.pem and key.pem"
                ))
            })
        };
        let files = Files {
            authority: file(&args.tlscacert, "tlscacert", "ca.pem")?,
            certificate: file(&args.tlscert, "tlscert", "cert.pem")?,
            key: file(&args.tlskey, "tlskey", "key.pem")?,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tls { url, host, files })
    }

    /// Whether there is something to connect to, as far as that is known without trying.
    pub(super) fn may_be_up(&self) -> bool {
        match self {
            Self::Socket(path) => path.exists(),
            Self::Tls { .. } => true,
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`CellError::Call`], [`Error::Io`] for a file of certificates.
    pub(super) async fn connect(&self) -> Result<Channel> {
        let failed = |why: String| CellError::Call {
            what: format!("connect to the cell at {self}"),
            why: format!("{why}; is `celda agent` running there, and may this user talk to it?"),
        };
        let url = match self {
            Self::Socket(path) => format!("unix://{}", path.display()),
            Self::Tls { url, .. } => url.clone(),
        };
        let mut endpoint = Endpoint::from_shared(url).map_err(|error| failed(error.to_string()))?;
        endpoint = endpoint.connect_timeout(CONNECT_DEADLINE);
        if let Self::Tls { host, files, .. } = self {
            let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
            let authority = Certificate::from_pem(read(&files.authority)?);
            let config = ClientTlsConfig::new().identity(identity).ca_certificate(authority);
            let config = config.domain_name(host).timeout(HANDSHAKE_DEADLINE);
            endpoint = endpoint.tls_config(config).map_err(|error| failed(chain(&error)))?;
            // A cell's machine that is gone ends what follows it.
            endpoint = endpoint
                .tcp_keepalive(Some(KEEPALIVE_AFTER))
                .tcp_keepalive_interval(Some(KEEPALIVE_EVERY))
                .tcp_keepalive_retries(Some(KEEPALIVE_COUNT));
        }
        let connected = tokio::time::timeout(2 * CONNECT_DEADLINE, endpoint.connect()).await;
        let connected = connected.map_err(|_| failed("no answer in time".into()))?;
        Ok(connected.map_err(|error| failed(chain(&error)))?)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tls { url, .. } => f.write_str(url),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("read", path))
}

/// `https://HOST:PORT` of `HOST`, `HOST:PORT`, or either with `tcp://` before it, as Docker writes it.
fn url(given: &str) -> String {
    let rest = ["tcp://", "https://"].iter().find_map(|scheme| given.strip_prefix(scheme)).unwrap_or(given);
    let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { format!("https://{rest}") } else { format!("https://{rest}:{PORT}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_in_several_ways() {
        for (given, meant) in [
            ("cell", "https://cell:7070"),
            ("cell:1", "https://cell:1"),
            ("tcp://10.0.0.1:2376", "https://10.0.0.1:2376"),
            ("https://cell.example", "https://cell.example:7070"),
            ("[::1]", "https://[::1]:7070"),
            ("[::1]:9", "https://[::1]:9"),
        ] {
            assert_eq!(url(given), meant);
            assert!(url(given).parse::<Address>().is_ok(), "{given}");
        }
        for none in ["", ":1", "a b", "cell:port:", "::1", "http://cell", "cell/path"] {
            assert!(url(none).parse::<Address>().is_err(), "{none}");
        }
    }
}
