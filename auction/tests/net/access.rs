//! Who is let in: certificates over TCP, users over unix sockets.

use crate::support::{Served, auctioneer, batch, cells, ledger, options, serve_on, soon};
use celda_auction::client::{Cells, Options};
use celda_auction::service::{Limits, Listener};
use celda_auction::transport::{Address, Certificates, Error, Users};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority that makes certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `host` of this authority, for one who trusts `other`.
    fn certify(&self, host: &str, other: &Self) -> Certificates {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        Certificates::from_pem(certificate.as_bytes(), key.as_bytes(), other.0.pem().as_bytes())
    }
}

async fn tls_cell(certificates: Certificates) -> (Served, Address) {
    let listener = Listener::tls("127.0.0.1:0", certificates).await.unwrap();
    let Address::Tls { port, .. } = listener.address() else { panic!("TLS was asked for") };
    let named = Address::Tls { host: "localhost".into(), port: *port };
    (serve_on(listener, ledger(), Limits::default()), named)
}

async fn connects(options: Options, address: &Address) -> bool {
    let cells: Cells = cells(options, &[address]);
    let connected = soon("connecting to end", cells.connect()).await == 1;
    let outcome = soon("a batch", auctioneer(&cells).place(batch(1))).await.unwrap();
    assert_eq!(outcome.held() == 1, connected, "{outcome:?}");
    connected
}

fn with(certificates: Option<Certificates>) -> Options {
    Options { certificates, ..options() }
}

#[tokio::test]
async fn both_sides_show_certificates_that_the_other_trusts() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (_cell, address) = tls_cell(ours.certify("localhost", &ours)).await;
    assert!(connects(with(Some(ours.certify("auctioneer", &ours))), &address).await);
    assert!(
        !connects(with(Some(theirs.certify("auctioneer", &ours))), &address).await,
        "of another authority"
    );
    assert!(
        !connects(with(Some(ours.certify("auctioneer", &theirs))), &address).await,
        "trusts another authority"
    );
    assert!(!connects(with(None), &address).await, "no certificates");
}

#[tokio::test]
async fn a_certificate_is_for_its_host_only() {
    let ours = Authority::new();
    let (_cell, address) = tls_cell(ours.certify("elsewhere.example", &ours)).await;
    assert!(!connects(with(Some(ours.certify("auctioneer", &ours))), &address).await);
}

#[tokio::test]
async fn a_client_in_clear_gets_nothing_from_a_cell_with_certificates() {
    let ours = Authority::new();
    let (_cell, address) = tls_cell(ours.certify("localhost", &ours)).await;
    let Address::Tls { port, .. } = address else { panic!("TLS was asked for") };
    let in_clear = format!("http://127.0.0.1:{port}").parse().unwrap();
    assert!(!connects(options(), &in_clear).await);
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_before_anything_is_served() {
    let rubbish = Certificates::from_pem(b"rubbish", b"rubbish", b"rubbish");
    let listener = Listener::tls("127.0.0.1:0", rubbish).await.unwrap();
    let service = celda_auction::service::CellService::new(ledger(), Default::default(), Limits::default());
    let served = soon("an error", service.serve(listener, std::future::pending())).await;
    assert!(matches!(served, Err(Error::Tls(_))), "{served:?}");
}

#[tokio::test]
async fn tcp_in_clear_is_for_loopback_only() {
    let refused = Listener::loopback("0.0.0.0:0").await;
    assert!(matches!(refused, Err(Error::InClear { .. })), "{refused:?}");
}

#[tokio::test]
async fn unix_sockets_are_for_the_users_that_each_side_trusts() {
    let directory = tempfile::tempdir().unwrap();
    let me = Users::owner_of(directory.path()).unwrap();
    let nobody = Users::these(&[u32::MAX - 1]);
    for (name, server, client, is_let_in) in
        [("a", &me, &me, true), ("b", &nobody, &me, false), ("c", &me, &nobody, false)]
    {
        let listener = Listener::unix(&directory.path().join(name), server.clone()).unwrap();
        let cell = serve_on(listener, ledger(), Limits::default());
        let options = Options { users: client.clone(), ..options() };
        assert_eq!(connects(options, &cell.address).await, is_let_in, "{name}");
    }
}
