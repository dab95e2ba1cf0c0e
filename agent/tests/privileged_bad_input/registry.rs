//! What a registry says.

use std::io::Write as _;
use std::net::TcpStream;

use celda_layerfs::{Digest, Platform};

use crate::command::{Celda, privileged};
use crate::common::{Image, gzip, tar};
use crate::is_refused;
use crate::server::{Request, Server, head, respond, stall};

/// An image of one layer with half a megabyte in it.
fn image() -> Image {
    Image::of(&[tar("one", 500_000)])
}

/// An image with this blob for a layer, and the diffID of `tar`.
fn with_layer(blob: Vec<u8>, tar: &[u8]) -> Image {
    Image::with(vec![(blob, Digest::of(tar).to_string())], &Platform::host())
}

/// A server whose layer is answered by `how`: the request, the good bytes, the connection.
fn faulty(how: impl Fn(&Request, &[u8], &mut TcpStream) + Send + Sync + 'static) -> Server {
    let image = image();
    let layer = image.layers[0].clone();
    let bytes = image.blobs[&layer].clone();
    Server::start(image, move |request, _, stream| {
        let is_layer = request.path.ends_with(&layer);
        if is_layer {
            how(request, &bytes, stream);
        }
        is_layer
    })
}

/// A server that answers every manifest (or every blob) with `status`.
fn answering(status: u16, is_for_manifest: bool) -> Server {
    Server::start(image(), move |request, _, stream| {
        let is_it = if is_for_manifest { request.is_manifest() } else { request.is_blob() };
        if is_it {
            let headers: &[_] =
                if status == 401 { &[("www-authenticate", "Basic realm=\"here\"")] } else { &[] };
            respond(stream, status, headers, br#"{"errors":[{"code":"DENIED","message":"said so"}]}"#);
        }
        is_it
    })
}

#[test]
fn privileged_statuses_are_named() {
    if !privileged("statuses") {
        return;
    }
    let celda = Celda::new();
    for (status, words) in [
        (401, &["401", "not authorised"][..]),
        (403, &["403", "access denied"]),
        (404, &["404", "not found", "check the name"]),
        (429, &["429", "too many requests"]),
        (500, &["500", "the registry failed"]),
    ] {
        for is_for_manifest in [true, false] {
            is_refused(&celda, &answering(status, is_for_manifest).name(), words);
        }
    }
}

#[test]
fn privileged_silence_is_given_up() {
    if !privileged("silence") {
        return;
    }
    let celda = Celda::new();
    let mute = Server::start(image(), |request, _, stream| {
        let is_manifest = request.is_manifest();
        if is_manifest {
            stall(stream);
        }
        is_manifest
    });
    is_refused(&celda, &mute.name(), &["nothing came for", "manifest"]);
    let stuck = faulty(|_, bytes, stream| {
        head(stream, 200, &[("content-length", &bytes.len().to_string())]);
        let _ = stream.write_all(&bytes[..100_000]);
        stall(stream);
    });
    is_refused(&celda, &stuck.name(), &["nothing came for", "layer sha256:"]);
}

#[test]
fn privileged_a_layer_that_breaks_off_is_given_up() {
    if !privileged("breaks_off") {
        return;
    }
    let server = faulty(|_, bytes, stream| {
        head(stream, 200, &[("content-length", &bytes.len().to_string())]);
        let _ = stream.write_all(&bytes[..1000]);
    });
    is_refused(&Celda::new(), &server.name(), &["layer sha256:", "the connection broke"]);
}

#[test]
fn privileged_lengths_that_lie_are_refused() {
    if !privileged("lengths") {
        return;
    }
    let celda = Celda::new();
    for by in [-1000, 1000] {
        let server = faulty(move |_, bytes, stream| {
            head(stream, 200, &[("content-length", &(bytes.len() as i64 + by).to_string())]);
            let _ = stream.write_all(bytes);
        });
        is_refused(&celda, &server.name(), &["Content-Length is", "lying or broken"]);
    }
}

#[test]
fn privileged_wrong_bytes_are_refused() {
    if !privileged("wrong_bytes") {
        return;
    }
    let celda = Celda::new();
    let flipped = faulty(|_, bytes, stream| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        respond(stream, 200, &[], &bytes);
    });
    is_refused(&celda, &flipped.name(), &["layer sha256:"]);
    let tar = tar("one", 100_000);
    let other = Server::good(with_layer(gzip(&tar), b"something else"));
    is_refused(&celda, &other.name(), &["uncompressed layer", "expected sha256:", "nothing was kept"]);
}

#[test]
fn privileged_documents_without_end_are_not_read() {
    if !privileged("documents") {
        return;
    }
    let celda = Celda::new();
    for states_length in [true, false] {
        let server = Server::start(image(), move |request, _, stream| {
            let is_manifest = request.is_manifest();
            if is_manifest {
                let length = (100 << 20).to_string();
                let headers = [("content-length", length.as_str())];
                head(stream, 200, if states_length { &headers } else { &[] });
                let mut chunks = 0..(100 << 4);
                while chunks.next().is_some() && stream.write_all(&[b' '; 64 << 10]).is_ok() {}
            }
            is_manifest
        });
        is_refused(&celda, &server.name(), &["longer than 4194304 bytes"]);
    }
    for (count, words) in
        [(100_000, &["longer than 4194304 bytes"][..]), (1000, &["1000 layers", "limit is 512"])]
    {
        let mut image = image();
        image.edit(|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = vec![layer; count].into();
        });
        is_refused(&celda, &Server::good(image).name(), words);
    }
}

#[test]
fn privileged_bombs_do_not_go_off() {
    if !privileged("bombs") {
        return;
    }
    let celda = Celda::new();
    // zstd says a run of one byte in a few bytes, gigabytes of it in a few kilobytes.
    let frame = zstd::bulk::compress(&vec![0; 16 << 20], 1).unwrap();
    let mut bomb = with_layer(frame.repeat(64), b"");
    bomb.edit(|manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into();
    });
    is_refused(&celda, &Server::good(bomb).name(), &["layer sha256:", "bomb"]);
    // gzip reaches a thousand to one at most, which real layers do as well: what is in it must be an archive.
    let zeros = gzip(&vec![0; 64 << 20]).repeat(4);
    is_refused(&celda, &Server::good(with_layer(zeros, b"")).name(), &["layer sha256:"]);
    // A file that claims a petabyte and has none of it, and a name without end.
    for header in [tar_header(b"77777777777777777777", b'0'), tar_header(b"7777777777", b'L')] {
        let server = Server::good(with_layer(gzip(&header), &header));
        is_refused(&celda, &server.name(), &["layer sha256:"]);
    }
}

/// A ustar header with this size field, octal or longer than its field, and kind.
fn tar_header(size: &[u8], kind: u8) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::new(kind));
    header.as_mut_bytes()[..4].copy_from_slice(b"file");
    let field = &mut header.as_mut_bytes()[124..136];
    let length = size.len().min(field.len());
    field[..length].copy_from_slice(&size[..length]);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn privileged_platforms_with_terminal_escapes_are_shown_as_text() {
    if !privileged("platform_escapes") {
        return;
    }
    let mut image = image();
    image.wrap(Some("plan9/\u{1b}[2Jvax\u{9b}1m"));
    let (celda, server) = (Celda::new(), Server::good(image));
    is_refused(&celda, &server.name(), &["not available for", "plan9/\\u{1b}[2jvax\\u{9b}"]);
    let error = celda.fails(125, &["pull", &server.name()]);
    assert!(!error.contains(['\u{1b}', '\u{9b}']), "{error:?}");
}
