//! An authority, a door with services behind it, and clients.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use celda::cell::door::{Door, Listen, serve};
use celda_api::auction::v1::BidRequest;
use celda_api::auction::v1::cell_client::CellClient;
use celda_auction::Resources;
use celda_auction::ledger::{Epoch, Ledger};
use celda_auction::service::{CellService, Limits};
use celda_auction::view::Class;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Nothing here takes this long: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The future's value.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// An authority that makes certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of these names, the first of which is the common one too.
    pub(crate) fn certify(&self, names: &[&str]) -> Pair {
        self.certify_within(names, -1, 1)
    }

    /// The same, valid from and until so many days from now.
    pub(crate) fn certify_within(&self, names: &[&str], from_days: i64, until_days: i64) -> Pair {
        let alternatives = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        let at = |days| OffsetDateTime::now_utc() + time::Duration::days(days);
        (params.not_before, params.not_after) = (at(from_days), at(until_days));
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A served door; it ends when this is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    task: tokio::task::JoinHandle<()>,
    _directory: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The configuration of a door for `localhost` with files in `directory`.
pub(crate) fn listen(directory: &Path, authority: &Authority) -> Listen {
    let file = |name: &str, pem: &str| -> Option<PathBuf> {
        let path = directory.join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    let pair = authority.certify(&["localhost"]);
    Listen {
        address: Some("127.0.0.1:0".parse().unwrap()),
        certificate: file("server-cert.pem", &pair.certificate),
        key: file("server-key.pem", &pair.key),
        client_ca: file("ca.pem", &authority.pem()),
        ..Listen::default()
    }
}

/// A door as `change` wants it, with an auction's service behind it.
pub(crate) fn served(change: impl FnOnce(&mut Listen)) -> Served {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut listen = listen(directory.path(), &authority);
    change(&mut listen);
    let door = Door::open(&listen).unwrap().unwrap();
    let address = door.0.address().unwrap();
    let capacity = Resources { cpu_milli: 1, memory_mib: 1, disk_mib: 1, containers: 1, ports: 0 };
    let ledger = Arc::new(Ledger::new(&capacity, 1, Epoch(1)).unwrap());
    let service = CellService::new(ledger, Class::default(), Limits::default());
    let task = tokio::spawn(async move {
        let no_socket = futures_util::stream::pending::<io::Result<tokio::net::UnixStream>>();
        let services = |mut server: tonic::transport::Server| server.add_service(service.clone().server());
        serve(no_socket, Some(door), services, std::future::pending()).await.unwrap();
    });
    Served { address, authority, task, _directory: directory }
}

impl Served {
    /// A client with this certificate.
    pub(crate) async fn connect(&self, pair: &Pair) -> Result<Channel, tonic::transport::Error> {
        self.connect_as(Some(pair), &self.authority).await
    }

    /// A client that trusts `authority`.
    pub(crate) async fn connect_as(
        &self,
        pair: Option<&Pair>,
        authority: &Authority,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
        config = config.domain_name("localhost");
        if let Some(pair) = pair {
            config = config.identity(Identity::from_pem(&pair.certificate, &pair.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        soon("a connection", endpoint.tls_config(config).unwrap().connect()).await
    }

    /// Whether a client with this certificate can call the services.
    pub(crate) async fn lets_in(&self, pair: &Pair) -> bool {
        self.lets_in_as(Some(pair), &self.authority).await
    }

    pub(crate) async fn lets_in_as(&self, pair: Option<&Pair>, authority: &Authority) -> bool {
        match self.connect_as(pair, authority).await {
            Ok(channel) => answers(&channel).await,
            Err(_) => false,
        }
    }
}

/// Whether calls on this connection reach the service, which refuses an empty one as such.
pub(crate) async fn answers(channel: &Channel) -> bool {
    let called = soon("an answer", CellClient::new(channel.clone()).bid(BidRequest::default())).await;
    called.is_err_and(|status| status.code() == tonic::Code::InvalidArgument)
}
