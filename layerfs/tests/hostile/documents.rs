//! Manifests and configs.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::common::Place;
use crate::server::{Request, Server, head, respond};
use crate::{hasty, image, says};

#[test]
fn a_manifest_of_100_mb_is_not_read() {
    for states_length in [true, false] {
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let server = Server::start(image(), move |request, _, stream| {
            if request.is_manifest() {
                let length = (100 << 20).to_string();
                let headers = [("content-length", length.as_str())];
                head(stream, 200, if states_length { &headers } else { &[] });
                for _ in 0..100 << 4 {
                    if stream.write_all(&[b' '; 64 << 10]).is_err() {
                        break;
                    }
                    count.fetch_add(64 << 10, Ordering::Relaxed);
                }
            }
            request.is_manifest()
        });
        says(&Place::new().refuses(&server.name(), &hasty()), &["longer than 4194304 bytes"]);
        assert!(written.load(Ordering::Relaxed) < 50 << 20, "most of it was never read");
    }
}

#[test]
fn a_hundred_thousand_layers_are_refused() {
    let mut image = image();
    image.edit(|manifest| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = vec![layer; 100_000].into();
    });
    says(&Place::new().refuses(&Server::good(image).name(), &hasty()), &["longer than 4194304 bytes"]);
    let mut image = crate::image();
    image.edit(|manifest| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = vec![layer; 1000].into();
    });
    says(&Place::new().refuses(&Server::good(image).name(), &hasty()), &["1000 layers", "limit is 512"]);
}

#[test]
fn an_image_for_another_platform_is_refused_with_what_there_is() {
    let mut image = image();
    image.wrap(Some("plan9/vax"));
    says(
        &Place::new().refuses(&Server::good(image).name(), &hasty()),
        &["not available for", "it is for plan9/vax", "--platform"],
    );
}

#[test]
fn indexes_are_not_followed_forever() {
    let mut image = image();
    (0..20).for_each(|_| image.wrap(None));
    let server = Server::good(image);
    says(&Place::new().refuses(&server.name(), &hasty()), &["nested more than 4 deep"]);
    assert!(server.count(Request::is_manifest) <= 6);
}

#[test]
fn digests_of_documents_are_checked() {
    let good = image();
    let pinned = Server::good(image());
    let name = format!("{}/app@sha256:{}", pinned.address, "0".repeat(64));
    says(&Place::new().refuses(&name, &hasty()), &["404"]);
    let name = format!("{}/app@{}", pinned.address, good.manifest);
    Place::new().pull(&name, &hasty()).unwrap();
    let lying = Server::start(image(), |request, _, stream| {
        if request.is_manifest() {
            respond(stream, 200, &[], br#"{"schemaVersion":2}"#);
        }
        request.is_manifest()
    });
    let name = format!("{}/app@{}", lying.address, good.manifest);
    says(&Place::new().refuses(&name, &hasty()), &["the registry calls them", "nothing was kept"]);
    let header = Server::start(image(), |request, _, stream| {
        if request.is_manifest() {
            let claimed = format!("sha256:{}", "1".repeat(64));
            respond(stream, 200, &[("docker-content-digest", claimed.as_str())], br#"{"schemaVersion":2}"#);
        }
        request.is_manifest()
    });
    says(&Place::new().refuses(&header.name(), &hasty()), &["the registry calls them sha256:1111"]);
    let config = Server::start(image(), |request, _, stream| {
        if request.is_blob() {
            respond(stream, 200, &[], b"{}");
        }
        request.is_blob()
    });
    says(&Place::new().refuses(&config.name(), &hasty()), &["config of", "expected sha256:"]);
}

#[test]
fn other_documents_are_named() {
    let cases: [(serde_json::Value, &str); 4] = [
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (json!({"schemaVersion": 2}), "neither manifests nor"),
        (json!([1, 2, 3]), "not valid JSON"),
        (
            json!({"schemaVersion": 2, "mediaType": "application/vnd.example+json", "layers": []}),
            "neither a manifest nor an index",
        ),
    ];
    for (document, expected) in cases {
        let mut image = image();
        image.set_manifest(&document);
        says(&Place::new().refuses(&Server::good(image).name(), &hasty()), &[expected]);
    }
    let rubbish = Server::start(image(), |request, _, stream| {
        if request.is_manifest() {
            respond(
                stream,
                200,
                &[("content-type", "text/html")],
                b"<html>log in to the hotel's network</html>",
            );
        }
        request.is_manifest()
    });
    says(&Place::new().refuses(&rubbish.name(), &hasty()), &["not valid JSON"]);
}

#[test]
fn rubbish_instead_of_http_is_named() {
    let server = Server::start(image(), |_, _, stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        true
    });
    says(&Place::new().refuses(&server.name(), &hasty()), &["manifest of"]);
}
