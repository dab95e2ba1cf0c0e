//! Statuses, silence, redirects, mirrors, and the end of a pull.

use std::sync::atomic::{AtomicU64, Ordering};

use celda_layerfs::progress::Event;
use celda_layerfs::pull::{PullOptions, PullPolicy};
use celda_layerfs::transport::Mirror;

use crate::common::{Image, Place, tar};
use crate::server::{Request, Server, respond, stall};
use crate::{hasty, image, impatient, ranged, says};

#[test]
fn a_good_registry_is_asked_once() {
    let (place, server) = (Place::new(), Server::good(image()));
    let record = place.pull(&server.name(), &hasty()).unwrap();
    assert_eq!(record.reference, server.name());
    let blobs = server.count(Request::is_blob);
    assert_eq!(place.pull(&server.name(), &hasty()).unwrap(), record);
    assert_eq!(server.count(Request::is_blob), blobs, "what is there is not fetched");
    let before = server.count(|_| true);
    let missing = PullOptions { policy: PullPolicy::Missing, ..hasty() };
    assert_eq!(place.pull(&server.name(), &missing).unwrap(), record);
    assert_eq!(server.count(|_| true), before, "nobody is asked for an image that is there");
}

#[test]
fn passing_failures_are_got_over() {
    for (status, headers) in [(500, None), (503, None), (429, Some(("retry-after", "0")))] {
        let place = Place::new();
        let server = Server::start(image(), move |request, seen, stream| {
            let is_first = seen == 0 && !request.path.ends_with("/v2/");
            if is_first {
                respond(stream, status, headers.as_slice(), b"not now");
            }
            is_first
        });
        place.pull(&server.name(), &hasty()).unwrap();
        assert!(place.watcher.count(|event| matches!(event, Event::LayerRetry { attempt: 1, .. })) > 0);
    }
}

#[test]
fn lasting_failures_are_named() {
    let cases: [(u16, bool, &[&str]); 7] = [
        (403, true, &["403", "access denied", "said so", "manifest of"]),
        (404, true, &["404", "not found", "check the name"]),
        (404, false, &["404", "config of"]),
        (500, true, &["500", "the registry failed", "said so"]),
        (500, false, &["500", "try again later"]),
        (429, true, &["429", "too many requests"]),
        (418, false, &["unexpected status 418"]),
    ];
    for (status, is_manifest, expected) in cases {
        let server = Server::start(image(), move |request, _, stream| {
            let is_it = if is_manifest { request.is_manifest() } else { request.is_blob() };
            if is_it {
                respond(stream, status, &[], br#"{"errors":[{"code":"DENIED","message":"said so"}]}"#);
            }
            is_it
        });
        says(&Place::new().refuses(&server.name(), &hasty()), expected);
        if status == 500 {
            let asked =
                server.count(|request| if is_manifest { request.is_manifest() } else { request.is_blob() });
            assert_eq!(asked, 3, "one attempt and two more");
        }
    }
}

#[test]
fn a_registry_that_says_come_back_tomorrow_is_not_waited_for() {
    let server = Server::start(image(), |request, _, stream| {
        if request.is_manifest() {
            respond(stream, 429, &[("retry-after", "86400")], b"");
        }
        request.is_manifest()
    });
    says(&Place::new().refuses(&server.name(), &hasty()), &["429", "come back in 86400 s"]);
    assert_eq!(server.count(Request::is_manifest), 1);
}

#[test]
fn silence_ends() {
    let on_manifest = Server::start(image(), |request, _, stream| {
        if request.is_manifest() {
            stall(stream);
        }
        request.is_manifest()
    });
    says(&Place::new().refuses(&on_manifest.name(), &impatient()), &["nothing came for", "manifest of"]);
    let within_blob = Server::start(image(), |request, _, stream| {
        if request.is_blob() {
            crate::server::head(stream, 200, &[]);
            stall(stream);
        }
        request.is_blob()
    });
    says(&Place::new().refuses(&within_blob.name(), &impatient()), &["nothing came for"]);
    let everywhere = Server::start(image(), |_, _, stream| {
        stall(stream);
        true
    });
    says(&Place::new().refuses(&everywhere.name(), &impatient()), &["nothing came for"]);
}

#[test]
fn a_trickle_that_always_makes_some_progress_ends() {
    let known = image();
    let server = Server::start(image(), move |request, _, stream| {
        let Some((first, last)) = request.range() else { return false };
        let blob = &known.blobs[&known.layers[0]];
        let range = format!("bytes {first}-{last}/{}", blob.len());
        crate::server::head(stream, 206, &[("content-range", &range)]);
        let part = &blob[first..=last.min(first + 80_000)];
        let _ = std::io::Write::write_all(stream, part);
        if first + part.len() <= last {
            stall(stream);
        }
        true
    });
    let mut options = impatient();
    options.network.range_bytes = 480_000;
    options.network.rate_window = options.network.stall;
    options.network.rate_bytes_min = 1 << 20;
    says(&Place::new().refuses(&server.name(), &options), &["too slow", "bytes came in"]);
}

#[test]
fn nobody_listening_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/app", listener.local_addr().unwrap());
    drop(listener);
    says(&Place::new().refuses(&name, &hasty()), &["manifest of", "is the host right and reachable"]);
}

#[test]
fn redirects_without_end_end() {
    let server = Server::start(image(), |request, _, stream| {
        if request.is_blob() {
            respond(stream, 302, &[("location", &request.path)], b"");
        }
        request.is_blob()
    });
    says(&Place::new().refuses(&server.name(), &hasty()), &["more than 5 redirects"]);
    for location in ["ftp://host/x", "http://[", "file:///etc/passwd"] {
        let server = Server::start(image(), move |request, _, stream| {
            if request.is_blob() {
                respond(stream, 307, &[("location", location)], b"");
            }
            request.is_blob()
        });
        says(&Place::new().refuses(&server.name(), &hasty()), &["not followed"]);
    }
}

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let origin = Server::good(image());
    let mirror = |server: &Server| Mirror {
        registry: origin.address.to_string(),
        endpoint: format!("http://{}", server.address),
    };
    let good = Server::good(image());
    let broken = Server::start(image(), |_, _, stream| {
        respond(stream, 500, &[], b"");
        true
    });
    let mut options = hasty();
    options.network.mirrors = vec![mirror(&broken), mirror(&good)];
    Place::new().pull(&origin.name(), &options).unwrap();
    assert_eq!(origin.count(|request| request.path != "/v2/"), 0);
    assert!(good.count(Request::is_blob) > 0);
    options.network.mirrors = vec![mirror(&broken)];
    Place::new().pull(&origin.name(), &options).unwrap();
    assert!(origin.count(Request::is_blob) > 0);
}

#[test]
fn a_mirror_with_wrong_bytes_is_passed_over() {
    type Lie = fn(&[u8]) -> Vec<u8>;
    let flipped: Lie = |bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        bytes
    };
    let other: Lie = |bytes| vec![b'x'; bytes.len()];
    let is_layer: fn(&Request, &Image) -> bool = |request, image| request.path.ends_with(&image.layers[0]);
    let is_config: fn(&Request, &Image) -> bool =
        |request, image| request.is_blob() && !request.path.ends_with(&image.layers[0]);
    for (is_it, lie) in [(is_layer, flipped), (is_layer, other), (is_config, flipped)] {
        let origin = Server::good(image());
        let known = image();
        let mirror = Server::start(image(), move |request, _, stream| {
            let digest = request.path.rsplit('/').next().unwrap();
            let Some(bytes) = known.blobs.get(digest).filter(|_| is_it(request, &known)) else {
                return false;
            };
            respond(stream, 200, &[], &lie(bytes));
            true
        });
        let mut options = hasty();
        let (registry, endpoint) = (origin.address.to_string(), format!("http://{}", mirror.address));
        options.network.mirrors = vec![Mirror { registry, endpoint }];
        let place = Place::new();
        place.pull(&origin.name(), &options).unwrap();
        assert!(mirror.count(|request| is_it(request, &image())) > 0);
        assert_eq!(origin.count(|request| is_it(request, &image())), 1);
        assert!(std::fs::read_dir(place.store.root().join("staging")).unwrap().next().is_none());
    }
}

#[test]
fn a_mirror_that_breaks_off_for_good_is_passed_over() {
    let origin = Server::good(image());
    let known = image();
    let mirror = Server::start(image(), move |request, _, stream| {
        if !request.path.ends_with(&known.layers[0]) {
            return false;
        }
        crate::server::head(stream, 200, &[]);
        let _ = std::io::Write::write_all(stream, &known.blobs[&known.layers[0]][..1000]);
        true
    });
    let mut options = hasty();
    let (registry, endpoint) = (origin.address.to_string(), format!("http://{}", mirror.address));
    options.network.mirrors = vec![Mirror { registry, endpoint }];
    Place::new().pull(&origin.name(), &options).unwrap();
    assert_eq!(origin.count(Request::is_blob), 1, "the layer, and nothing else");
}

#[test]
fn a_failed_layer_stops_the_others() {
    let image = Image::of(&[tar("one", 100_000), tar("two", 200_000), tar("three", 300_000)]);
    let (stuck, missing) = (image.layers[0].clone(), image.layers[2].clone());
    let server = Server::start(image, move |request, _, stream| {
        if request.path.ends_with(&stuck) {
            stall(stream);
            return true;
        }
        if request.path.ends_with(&missing) {
            respond(stream, 404, &[], b"");
            return true;
        }
        false
    });
    let mut options = hasty();
    // Longer than any test may take: only the other layer's failure can end it.
    options.network.stall = std::time::Duration::from_secs(3600);
    let place = Place::new();
    let error = place.pull(&server.name(), &options).unwrap_err().to_string();
    says(&error, &["404"]);
    assert!(place.store.images().unwrap().is_empty());
}

#[test]
fn a_pull_can_be_cancelled() {
    let place = Place::new();
    let (cancel, asked) = (place.cancel.clone(), AtomicU64::new(0));
    let server = Server::start(image(), move |request, _, stream| {
        if request.range().is_some() && asked.fetch_add(1, Ordering::Relaxed) > 0 {
            cancel.cancel();
            stall(stream);
            return true;
        }
        false
    });
    let mut options = ranged(100_000);
    options.network.stall = std::time::Duration::from_secs(3600);
    says(&place.refuses(&server.name(), &options), &["cancelled"]);
}
