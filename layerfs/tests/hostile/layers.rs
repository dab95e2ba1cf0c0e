//! Blobs that break, lie, and come in ranges.

use std::io::Write as _;

use celda_layerfs::{Digest, Platform};

use crate::common::{Image, Place, gzip, tar};
use crate::server::{Request, Server, head, respond};
use crate::{hasty, image, ranged, says};

/// The layer's request, not the config's.
fn is_layer(request: &Request, image: &Image) -> bool {
    request.path.ends_with(&image.layers[0])
}

/// A server whose layer is answered by `how`.
fn with_layer(
    how: impl Fn(&Request, usize, &[u8], &mut std::net::TcpStream) -> bool + Send + Sync + 'static,
) -> Server {
    let image = image();
    let known = image.clone();
    Server::start(image, move |request, seen, stream| {
        is_layer(request, &known) && how(request, seen, &known.blobs[&known.layers[0]], stream)
    })
}

#[test]
fn a_blob_comes_in_ranges_side_by_side() {
    let (place, server) = (Place::new(), Server::good(image()));
    place.pull(&server.name(), &ranged(64 << 10)).unwrap();
    assert!(server.count(|request| request.range().is_some()) >= 7);
    let mut tight = ranged(64 << 10);
    tight.network.bytes_in_flight = 1;
    Place::new().pull(&server.name(), &tight).unwrap();
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let server = with_layer(|_, seen, blob, stream| {
        if seen > 0 {
            return false;
        }
        head(stream, 200, &[("content-length", &blob.len().to_string())]);
        let _ = stream.write_all(&blob[..200_000]);
        true
    });
    let place = Place::new();
    place.pull(&server.name(), &hasty()).unwrap();
    let resumed = server.log.lock().unwrap().iter().filter_map(Request::range).next().unwrap();
    assert!(resumed.0 > 0 && resumed.0 <= 200_000, "{resumed:?}");
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let server = with_layer(|_, seen, blob, stream| {
        head(stream, 200, &[("content-length", &blob.len().to_string())]);
        let end = if seen == 0 { 100_000 } else { blob.len() };
        let _ = stream.write_all(&blob[..end]);
        true
    });
    Place::new().pull(&server.name(), &ranged(64 << 10)).unwrap();
    assert_eq!(server.count(|request| request.range().is_some()), 2, "one that broke, one that was whole");
}

#[test]
fn lengths_that_lie_are_errors() {
    for by in [-1000, 1000] {
        let server = with_layer(move |_, _, blob, stream| {
            head(stream, 200, &[("content-length", &(blob.len() as i64 + by).to_string())]);
            let _ = stream.write_all(blob);
            true
        });
        says(&Place::new().refuses(&server.name(), &hasty()), &["Content-Length is", "lying or broken"]);
    }
    let longer = with_layer(|_, _, blob, stream| {
        head(stream, 200, &[]);
        let _ = stream.write_all(blob).and_then(|()| stream.write_all(&[0; 100_000]));
        true
    });
    says(&Place::new().refuses(&longer.name(), &hasty()), &["more than the", "manifest says"]);
    let range = with_layer(|request, _, blob, stream| {
        let Some((first, last)) = request.range() else { return false };
        let wrong = format!("bytes {}-{last}/{}", first + 1, blob.len());
        respond(stream, 206, &[("content-range", &wrong)], &blob[first..=last]);
        true
    });
    says(&Place::new().refuses(&range.name(), &ranged(64 << 10)), &["were asked for", "Content-Range"]);
    let total = with_layer(|request, _, blob, stream| {
        let Some((first, last)) = request.range() else { return false };
        respond(
            stream,
            206,
            &[("content-range", &format!("bytes {first}-{last}/99999999"))],
            &blob[first..=last],
        );
        true
    });
    says(&Place::new().refuses(&total.name(), &ranged(64 << 10)), &["99999999"]);
    let unsatisfiable = with_layer(|_, _, _, stream| {
        respond(stream, 416, &[], b"");
        true
    });
    says(&Place::new().refuses(&unsatisfiable.name(), &ranged(64 << 10)), &["has no bytes"]);
}

#[test]
fn a_server_that_always_breaks_is_given_up() {
    let server = with_layer(|request, _, blob, stream| {
        let first = request.range().map_or(0, |range| range.0);
        head(
            stream,
            if first == 0 { 200 } else { 206 },
            &[("content-range", &format!("bytes {first}-{}/{}", blob.len() - 1, blob.len()))],
        );
        let _ = stream.write_all(&blob[first..(first + 10).min(blob.len())]);
        true
    });
    says(&Place::new().refuses(&server.name(), &hasty()), &["bytes early"]);
}

#[test]
fn wrong_bytes_are_never_published() {
    let flipped = with_layer(|_, _, blob, stream| {
        let mut blob = blob.to_vec();
        // Within the stored bytes of an incompressible block, so that inflating goes on.
        let middle = blob.len() / 2;
        blob[middle] ^= 0xff;
        respond(stream, 200, &[], &blob);
        true
    });
    says(&Place::new().refuses(&flipped.name(), &hasty()), &["sha256:"]);
    let tar = tar("one", 100_000);
    let blob = gzip(&tar);
    let with = |blob: &[u8], diff_id: &[u8]| {
        Image::with(vec![(blob.to_vec(), Digest::of(diff_id).to_string())], &Platform::host())
    };
    let wrong_diff_id = Server::good(with(&blob, b"else"));
    says(&Place::new().refuses(&wrong_diff_id.name(), &hasty()), &["uncompressed layer", "expected sha256:"]);
    let truncated = Server::good(with(&blob[..blob.len() - 20], &tar));
    says(&Place::new().refuses(&truncated.name(), &hasty()), &["layer sha256:"]);
    let empty = Server::good(with(b"", b""));
    let _ = Place::new().pull(&empty.name(), &hasty());
}

#[test]
fn content_encoding_is_no_reason_to_inflate_twice() {
    let server = with_layer(|_, _, blob, stream| {
        respond(stream, 200, &[("content-encoding", "gzip")], blob);
        true
    });
    Place::new().pull(&server.name(), &hasty()).unwrap();
    assert_eq!(
        server.count(|request| request.header("accept-encoding") == Some("identity") && request.is_blob()),
        2
    );
}
