//! Whatever a server does, a look ends, says what was wrong, and holds no other look up.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use celda::cell::health::{Check, Checks, Health, HealthError, Probe, Startup, State, Watch};

use super::support::{Watched, http, impatient, once, server};

fn take_request(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn answer(bytes: &'static [u8]) -> impl FnMut(TcpStream) + Send {
    move |mut stream| {
        take_request(&mut stream);
        let _ = stream.write_all(bytes);
    }
}

/// Keeps connections, so that they are not closed.
fn keep(mut also: impl FnMut(&mut TcpStream) + Send) -> impl FnMut(TcpStream) + Send {
    let mut all = Vec::new();
    move |mut stream| {
        also(&mut stream);
        all.push(stream);
    }
}

#[test]
fn servers_that_answer_are_up() {
    let health = Health::start().expect("started");
    let interim = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let slow = keep(|stream| {
        take_request(stream);
        for byte in b"HTTP/1.0 200\r\n" {
            let _ = stream.write_all(&[*byte]);
        }
    });
    let checks = [
        http(server(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))),
        http(server(answer(interim))),
        http(server(slow)),
        Probe::Tcp { port: server(drop) },
        Probe::Http {
            port: server(answer(b"HTTP/1.1 302 Found\r\n\r\n")),
            path: "/".into(),
            statuses: 200..=399,
        },
    ];
    let watched: Vec<Watched> =
        checks.into_iter().map(|probe| Watched::of(&health, once(probe), None)).collect();
    for watched in &watched {
        assert_eq!(watched.next(), State::Ready);
    }
}

#[test]
fn each_misbehaviour_is_bounded_and_named() {
    let health = Health::start().expect("started");
    let closed = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        listener.local_addr().expect("an address").port()
    };
    let reset = |stream: TcpStream| {
        // Closed with the request unread, which resets it.
        let mut byte = [0];
        let _ = stream.peek(&mut byte);
        drop(stream);
    };
    let drip = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    };
    let line_drip = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            take_request(&mut stream);
            for byte in b"HTTP/1.1 200 ".iter().chain(std::iter::repeat_n(&b'x', 500)) {
                let _ = stream.write_all(&[*byte]);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    };
    let endless_interim = |mut stream: TcpStream| {
        take_request(&mut stream);
        while stream.write_all(b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n").is_ok() {}
    };
    let endless_header = |mut stream: TcpStream| {
        take_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 103 Early\r\n");
        while stream.write_all(b"Header: value\r\n").is_ok() {}
    };
    let flood = |mut stream: TcpStream| while stream.write_all(&[b'\0'; 4096]).is_ok() {};
    let servers = [
        (closed, "Connection refused"),
        (server(keep(|_| {})), "no answer within 200ms"),
        (server(reset), "reset"),
        (server(drip), "no HTTP/1 status line"),
        (server(line_drip), "no answer within 200ms"),
        (server(endless_interim), "no answer in 8192 bytes"),
        (server(endless_header), "no answer in 8192 bytes"),
        (server(flood), "no HTTP/1 status line"),
        (server(answer(b"HTTP/1.1 503 No\r\n\r\n")), "status 503, wanted 200"),
        (server(answer(b"HTTP/1.1 200")), "closed without an answer"),
        (server(answer(b"")), "closed without an answer"),
        (server(answer(b"SSH-2.0-x\r\n")), "no HTTP/1 status line"),
    ];
    let watched: Vec<_> = servers
        .iter()
        .map(|(port, word)| {
            let checks = if word.contains("no answer within") { impatient } else { once };
            Watched::of(&health, checks(http(*port)), None)
        })
        .collect();
    for ((_, word), watched) in servers.iter().zip(&watched) {
        let reason = watched.failure();
        assert!(reason.contains(word), "{word}: {reason}");
    }
}

/// A full backlog drops the first packet of a connection: nothing comes at all.
#[test]
fn a_server_that_accepts_nothing_times_out() {
    let health = Health::start().expect("started");
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    rustix::net::listen(&listener, 0).expect("a backlog of one");
    let address = listener.local_addr().expect("an address");
    let _fill: Vec<_> =
        (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    let watched = Watched::of(&health, impatient(Probe::Tcp { port: address.port() }), None);
    assert!(watched.failure().contains("no answer within"));
}

#[test]
fn readiness_follows_the_server_and_liveness_ends_it() {
    let health = Health::start().expect("started");
    let (status, alive) = (Arc::new(AtomicU16::new(503)), Arc::new(AtomicBool::new(true)));
    let (told, lives) = (Arc::clone(&status), Arc::clone(&alive));
    let ready = server(move |mut stream| {
        take_request(&mut stream);
        let _ = stream.write_all(format!("HTTP/1.1 {} x\r\n\r\n", told.load(Relaxed)).as_bytes());
    });
    let live = server(move |mut stream| {
        let request = take_request(&mut stream);
        assert!(request.starts_with("GET /health HTTP/1.1\r\nHost: localhost:"), "{request}");
        if lives.load(Relaxed) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        }
    });
    let quick = |probe| Check { interval: Duration::from_millis(100), ..Check::of(probe) };
    let mut liveness = quick(http(live));
    liveness.failures_count = 3;
    let checks =
        Checks { startup: Startup::default(), liveness: Some(liveness), readiness: Some(quick(http(ready))) };
    let watched = Watched::of(&health, checks, None);
    assert_eq!(watched.next(), State::Up);
    assert!(matches!(watched.next(), State::NotReady { reason } if reason.contains("503")));
    status.store(200, Relaxed);
    assert_eq!(watched.next(), State::Ready);
    status.store(500, Relaxed);
    assert!(matches!(watched.next(), State::NotReady { reason } if reason.contains("500")));
    alive.store(false, Relaxed);
    assert!(matches!(watched.next(), State::Failed { in_startup: false, .. }));
    health.forget(watched.id).expect("forgotten");
    // The engine lets go of what tells.
    assert!(watched.states.recv_timeout(super::support::DEADLINE).is_err());
}

#[test]
fn senseless_checks_are_refused() {
    let health = Health::start().expect("started");
    let refuse = |change: &dyn Fn(&mut Checks)| {
        let mut checks = once(http(80));
        change(&mut checks);
        let watch = Watch { checks, network: None, known: None, tell: Box::new(drop) };
        assert!(matches!(health.watch(watch), Err(HealthError::Invalid { .. })));
    };
    fn live(checks: &mut Checks) -> &mut Check {
        checks.liveness.as_mut().expect("one")
    }
    refuse(&|checks| live(checks).probe = http(0));
    refuse(&|checks| live(checks).probe = Probe::Tcp { port: 0 });
    refuse(&|checks| {
        live(checks).probe = Probe::Http { port: 1, path: "/a\r\nb".into(), statuses: 200..=200 }
    });
    refuse(&|checks| live(checks).interval = Duration::ZERO);
    refuse(&|checks| live(checks).timeout = Duration::ZERO);
    refuse(&|checks| live(checks).timeout = Duration::MAX);
    refuse(&|checks| live(checks).failures_count = 0);
    refuse(&|checks| checks.startup.interval = Duration::ZERO);
}
