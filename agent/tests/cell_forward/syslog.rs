//! Syslog over TCP and TLS.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use celda::cell::forward::{Forwarder, Syslog};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Cell, say, soon, until};

/// A batch does not fit into what this takes and what a sender keeps.
const SMALL_BUFFER_BYTES: u32 = 4096;

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
    socket.bind(address).unwrap();
    socket.listen(16).unwrap()
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn to(address: SocketAddr) -> Syslog {
    Syslog { address: Some(address.to_string()), ..Syslog::default() }
}

fn forwarder(config: &Syslog) -> Forwarder {
    Forwarder::syslog(config, "cell-1").unwrap().unwrap()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    soon("a connection", listener.accept()).await.unwrap().0
}

/// The next message; nothing at the end.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = 0;
    loop {
        match soon("a message", stream.read_u8()).await.ok()? {
            b' ' => break,
            digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
            other => panic!("{other} is no digit of a length"),
        }
    }
    let mut text = vec![0; length];
    soon("the rest of a message", stream.read_exact(&mut text)).await.ok()?;
    Some(String::from_utf8(text).unwrap())
}

/// What an instance wrote, of a message.
fn text(message: &str) -> &str {
    message.split_once("] ").unwrap().1
}

/// The next texts, as many as that.
async fn texts(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(text(&message(stream).await.expect("another message")).to_owned());
    }
    texts
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("line {number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_come_in_order_and_hostile_ones_as_one_message() {
    let (mut cell, listener) = (Cell::new(), listen(any()));
    let mut web = cell.instance("web-0");
    say(&mut web, 0..3);
    web.write_all(b"forged\r<0>1 - - - - - - \x1b[2J\xff\n").unwrap();
    let tally = cell.forward(forwarder(&to(listener.local_addr().unwrap())));
    let mut stream = BufReader::new(accept(&listener).await);
    let first = message(&mut stream).await.unwrap();
    assert!(
        first.starts_with("<14>1 20") && first.contains("Z cell-1 shop web-0 stdout [celda@32473 "),
        "{first}"
    );
    assert_eq!(text(&first), "line 0");
    assert_eq!(
        texts(&mut stream, 3).await,
        ["line 1", "line 2", "forged\\x0d<0>1 - - - - - - \\x1b[2J\\xff"]
    );
    let mut other = cell.instance("web-1");
    say(&mut other, [9]);
    assert_eq!(texts(&mut stream, 1).await, ["line 9"]);
    until("the tally", || tally.sent_lines() == 5 && tally.is_connected()).await;
    assert_eq!(tally.lost_lines(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_gets_all_of_it() {
    let (mut cell, address) = (Cell::new(), listen(any()).local_addr().unwrap());
    let mut web = cell.instance("web-0");
    say(&mut web, 0..100);
    let tally = cell.forward(forwarder(&to(address)));
    until("the lines", || cell.records_count("web-0") == 100).await;
    assert!(!tally.is_connected());
    let listener = listen(address);
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 100).await, lines(0..100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_comes_and_goes_while_the_server_is_away_is_counted() {
    let (mut cell, address) = (Cell::new(), listen(any()).local_addr().unwrap());
    let mut web = cell.instance("web-0");
    say(&mut web, 0..5);
    until("the lines", || cell.records_count("web-0") == 5).await;
    let tally = cell.forward(forwarder(&to(address)));
    until("the first list", || cell.listed_count() == 1).await;
    let mut gone = cell.instance("gone");
    say(&mut gone, 0..3);
    until("the other's lines", || cell.records_count("gone") == 3).await;
    until("another list", || cell.listed_count() == 2).await;
    cell.remove("gone");
    until("one without it", || cell.listed_count() == 1).await;
    assert!(!tally.is_connected() && tally.lost_lines() == 0);
    let listener = listen(address);
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 5).await, lines(0..5));
    let notice = message(&mut stream).await.unwrap();
    assert!(notice.contains(" gone notice ["), "{notice}");
    assert!(text(&notice).starts_with("celda: 3 lines were lost"), "{notice}");
    until("the tally", || tally.sent_lines() == 6 && tally.lost_lines() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_a_reset_cut_is_sent_again() {
    let (mut cell, listener) = (Cell::new(), listen(any()));
    let mut web = cell.instance("web-0");
    let writer = std::thread::spawn(move || {
        say(&mut web, 0..20_000);
        web
    });
    until("the lines", || cell.records_count("web-0") == 20_000).await;
    cell.forward(forwarder(&to(listener.local_addr().unwrap())));
    for _ in 0..3 {
        let mut stream = BufReader::new(accept(&listener).await);
        assert_eq!(texts(&mut stream, 5).await, lines(0..5), "from the beginning each time");
        stream.get_ref().set_zero_linger().unwrap();
    }
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 20_000).await, lines(0..20_000), "every one once, in order");
    drop(writer.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stalls_keeps_no_instance_waiting_and_what_is_lost_is_counted() {
    const COUNT: u64 = 200_000;
    let (mut cell, listener) = (Cell::new(), listen(any()));
    let tally = cell.forward(forwarder(&to(listener.local_addr().unwrap())));
    let mut web = cell.instance("web-0");
    let mut gone = cell.instance("gone");
    say(&mut gone, 0..1);
    let stalled = accept(&listener).await;
    // Several times what the files keep: it must come through while nothing is read at the other end.
    let writer = std::thread::spawn(move || {
        say(&mut web, 0..COUNT);
        web
    });
    until("the lines", || cell.records_count("web-0") == COUNT).await;
    say(&mut gone, 1..8);
    until("the other's lines", || cell.records_count("gone") == 8).await;
    cell.remove("gone");
    // The server's kernel may have taken a few before the rest was stuck: these are sent, as far as TCP tells.
    let taken = tally.sent_lines();
    stalled.set_zero_linger().unwrap();
    drop(stalled);
    let mut stream = BufReader::new(accept(&listener).await);
    let (mut seen, mut lost, mut removed) = (0, 0, false);
    let mut first = None;
    while first.unwrap_or(0) + seen + lost < COUNT || !removed {
        let message = message(&mut stream).await.expect("another message");
        let said = text(&message);
        let is_web = message.contains(" web-0 ");
        if let Some(number) = said.strip_prefix("line ") {
            if is_web {
                let number = number.parse::<u64>().unwrap();
                let first = *first.get_or_insert(number - lost);
                assert!(first <= taken, "{first} are missing of {taken} taken");
                assert_eq!(number, first + seen + lost, "none is missing that is not counted");
                seen += 1;
            }
        } else {
            assert!(message.contains(" notice [") && message.starts_with("<13>1 "), "{message}");
            let count = said.strip_prefix("celda: ").and_then(|rest| rest.split_once(" lines were lost"));
            let count: u64 = count.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
            if is_web {
                lost += count;
            } else {
                removed = said.ends_with("its instance was removed");
            }
        }
    }
    assert_eq!(first.unwrap_or(0) + seen + lost, COUNT);
    assert!(lost > 0 && removed);
    until("the tally", || tally.lost_lines() > lost).await;
    drop(writer.join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_kept_over_a_restart_of_the_agent() {
    let (mut cell, listener) = (Cell::new(), listen(any()));
    let config = to(listener.local_addr().unwrap());
    let mut web = cell.instance("web-0");
    say(&mut web, 0..10);
    cell.forward(forwarder(&config));
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 10).await, lines(0..10));
    let places = cell.places("syslog");
    until("the places", || std::fs::read_to_string(&places).is_ok_and(|text| text.starts_with("web-0 10\n")))
        .await;
    cell.forward_no_more().await;
    say(&mut web, 10..13);
    cell.forward(forwarder(&config));
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 3).await, lines(10..13), "what was sent is not sent again");
    cell.forward_no_more().await;
    std::fs::write(&places, "rubbish").unwrap();
    cell.forward(forwarder(&config));
    let mut stream = BufReader::new(accept(&listener).await);
    assert_eq!(texts(&mut stream, 13).await, lines(0..13), "without places it is sent again, and not lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_is_believed_by_its_authority_only() {
    let (mut cell, listener) = (Cell::new(), listen(any()));
    let directory = tempfile::tempdir().unwrap();
    let ca = |name: &str, host: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, certificate.pem()).unwrap();
        (path, certificate.pem(), key.serialize_pem())
    };
    let (right, certificate, key) = ca("right", "localhost");
    let (wrong, ..) = ca("wrong", "localhost");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let config = |ca| Syslog { address: Some(address.clone()), tls_ca: Some(ca), ..Syslog::default() };
    let mut web = cell.instance("web-0");
    say(&mut web, 0..3);

    cell.forward(forwarder(&config(wrong)));
    let refused = soon("a handshake", acceptor.accept(accept(&listener).await)).await;
    assert!(refused.is_err(), "it trusts another authority");
    cell.forward_no_more().await;
    cell.forward(forwarder(&config(right)));
    let stream = loop {
        // A try of the first forwarder may still be in the queue.
        if let Ok(stream) = soon("a handshake", acceptor.accept(accept(&listener).await)).await {
            break stream;
        }
    };
    assert_eq!(texts(&mut BufReader::new(stream), 3).await, lines(0..3));
    let missing =
        Forwarder::syslog(&config(directory.path().join("none")), "cell-1").unwrap_err().to_string();
    assert!(missing.contains("none") && missing.contains(&address), "{missing}");
}
