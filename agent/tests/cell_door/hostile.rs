//! Peers that do not do as they should: none keeps others out, or makes the cell keep anything for long.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Pair, Served, answers, served, soon};

/// What the peer sends until it closes, cut.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end of the connection", stream.take(1 << 20).read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn what_is_no_tls_is_closed() {
    let served = served(|_| {});
    for said in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"GET / HTTP/1.1\r\nHost: cell\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0",
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.len() < 64, "an alert at most: {answer:?}");
    }
    assert!(served.lets_in(&served.authority.certify(&["client"])).await);
}

#[tokio::test]
async fn versions_before_1_3_are_refused() {
    let served = served(|_| {});
    // A ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2) with groups and signatures that any server has.
    let extensions = b"\0\x0a\0\x04\0\x02\0\x17\0\x0d\0\x04\0\x02\x04\x03";
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend(b"\0\0\x02\xc0\x2b\x01\0");
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(&hello);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let answer = until_closed(&mut stream).await;
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70], "an alert: protocol_version");
}

#[tokio::test]
async fn a_handshake_without_end_is_cut() {
    let served = served(|_| {});
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // The first of the records begins a ClientHello of 16 MiB.
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.extend([1, 0xff, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    let send = async {
        for sent_count in 0..1024 {
            if stream.write_all(&record).await.is_err() {
                return sent_count;
            }
        }
        1024
    };
    let sent_count = soon("the refusal", send).await;
    assert!(sent_count < 1024, "16 MiB were taken");
    assert!(served.lets_in(&served.authority.certify(&["client"])).await);
}

#[tokio::test]
async fn stalled_handshakes_keep_nobody_out() {
    let served = served(|listen| listen.handshakes_max = 4);
    let pair = served.authority.certify(&["client"]);
    let mut stalled = Vec::new();
    for count in 0..12 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        // The beginning of a record, so that the handshake has begun.
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        stalled.push(stream);
        assert!(served.lets_in(&pair).await, "beside {count} that stall");
    }
    // Those that made room are closed already, and the others when their time is over.
    for stream in &mut stalled {
        assert!(until_closed(stream).await.is_empty());
    }
}

#[tokio::test]
async fn who_says_nothing_after_the_handshake_loses_its_place() {
    let served = served(|listen| listen.connections_max = 1);
    let pair = served.authority.certify(&["client"]);
    let mut silent = handshake(&served, &pair).await;
    let mut byte = [0];
    // What the server sends of itself, then its end.
    while matches!(soon("the end", silent.read(&mut byte)).await, Ok(1..)) {}
    assert!(served.lets_in(&pair).await, "its place is free");
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_their_places_come_back() {
    let served = served(|listen| listen.connections_max = 2);
    let pair = served.authority.certify(&["client"]);
    let first = served.connect(&pair).await.unwrap();
    let second = served.connect(&pair).await.unwrap();
    assert!(answers(&first).await && answers(&second).await);
    assert!(!served.lets_in(&pair).await, "a third");
    assert!(answers(&first).await, "those that are there go on");
    drop(second);
    let comes_back = async {
        while !served.lets_in(&pair).await {
            tokio::task::yield_now().await;
        }
    };
    soon("the place", comes_back).await;
}

/// A connection that has shown its certificate, and nothing else.
async fn handshake(served: &Served, pair: &Pair) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(served.authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    soon("a handshake", connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await.unwrap()
}
