//! `/metrics` over HTTP: what Prometheus asks for, and peers that ask for something else, slowly or not at all.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use celda::cell::metrics::http::{Exporter, MetricsConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Nothing here takes this long: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const TEXT: &str = "# HELP up 1 when it is.\n# TYPE up gauge\nup 1\n";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

fn serve(text: Option<&'static str>) -> SocketAddr {
    let config = MetricsConfig { listen: Some("127.0.0.1:0".parse().unwrap()) };
    let exporter = Exporter::open(&config).unwrap().unwrap();
    let address = exporter.address().unwrap();
    tokio::spawn(exporter.serve(move || async move { text.map(str::to_owned) }));
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    soon("a connection", TcpStream::connect(address)).await.unwrap()
}

/// What the server answers until it closes.
async fn answer(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset after the answer is an end as well: the server has read no more than it wanted.
    let _ = soon("the end of the answer", stream.take(1 << 20).read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

#[tokio::test]
async fn prometheus_gets_the_text() {
    let address = serve(Some(TEXT));
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: cell:9323\r\nAccept: */*\r\n\r\n",
        "GET /metrics?name=up HTTP/1.0\r\n\r\n",
    ] {
        let answer = ask(address, request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(" 200 OK") && head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert_eq!(body, TEXT);
    }
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: cell\r\n\r\n").await;
    assert!(head.contains(" 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}", TEXT.len())), "{head}");
}

#[tokio::test]
async fn what_is_no_request_for_metrics_is_refused() {
    let address = serve(Some(TEXT));
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(32 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(100));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: cell\r\n\r\n", " 404 "),
        ("GET /metrics/../etc HTTP/1.1\r\nHost: cell\r\n\r\n", " 404 "),
        ("POST /metrics HTTP/1.1\r\nHost: cell\r\nContent-Length: 3\r\n\r\nabc", " 405 "),
        ("rubbish\r\n\r\n", " 400 "),
        (&long, " 431 "),
        (&many, " 431 "),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        let answer = ask(address, request).await;
        assert!(!answer.contains("up 1"), "{answer}");
        assert!(answer.lines().next().unwrap_or_default().contains(status), "{answer}");
    }
    let busy = serve(None);
    assert!(ask(busy, "GET /metrics HTTP/1.1\r\nHost: cell\r\n\r\n").await.contains(" 503 "));
}

#[tokio::test]
async fn peers_that_stall_keep_nobody_out_and_are_closed() {
    let address = serve(Some(TEXT));
    let mut stalled = Vec::new();
    // More than there are places: with nothing said, half a head, and a body that never comes.
    for count in 0..100 {
        let mut stream = connect(address).await;
        let said =
            [&b""[..], b"GET /metr", b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n"][count % 3];
        stream.write_all(said).await.unwrap();
        stalled.push(stream);
    }
    let answer_of = ask(address, "GET /metrics HTTP/1.1\r\nHost: cell\r\n\r\n").await;
    assert!(answer_of.ends_with(TEXT), "{answer_of}");
    for stream in &mut stalled {
        answer(stream).await;
    }
}

#[tokio::test]
async fn nothing_is_served_unless_it_is_wanted() {
    assert!(Exporter::open(&MetricsConfig::default()).unwrap().is_none());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = MetricsConfig { listen: Some(taken.local_addr().unwrap()) };
    let error = Exporter::open(&config).unwrap_err().to_string();
    assert!(error.contains("metrics.listen") && error.contains("in use"), "{error}");
}
