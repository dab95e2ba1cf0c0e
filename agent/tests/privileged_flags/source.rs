//! How a registry is reached.

use std::fs;

use celda_layerfs::Platform;
use serde_json::{Value, json};

use crate::command::{Celda, privileged};
use crate::common::{Image, tar};
use crate::server::{Request, Server, respond, stall};

fn image() -> Image {
    Image::of(&[tar("one", 10_000)])
}

/// The store has one image; its entry of `celda images`.
fn only_image(celda: &Celda) -> Value {
    let images: Value = serde_json::from_str(&celda.ok(&["images", "--json"])).unwrap();
    assert_eq!(images.as_array().map(Vec::len), Some(1), "{images}");
    images[0].clone()
}

#[test]
fn privileged_platform_chooses_from_an_index() {
    if !privileged("platform") {
        return;
    }
    let celda = Celda::new();
    let mut image = image();
    let own = image.manifest.clone();
    let other: Platform = "linux/riscv64".parse().unwrap();
    let blob = image.blobs[&image.layers[0]].clone();
    let diff_id = celda_layerfs::Digest::of(&tar("one", 10_000)).to_string();
    let foreign = Image::with(vec![(blob, diff_id)], &other);
    let entry = |manifest: &str, image: &Image, platform: &Platform| {
        json!({
            "mediaType": image.media_types[manifest], "digest": manifest, "size": image.blobs[manifest].len(),
            "platform": {"os": platform.os, "architecture": platform.architecture},
        })
    };
    let manifests = [entry(&own, &image, &Platform::host()), entry(&foreign.manifest, &foreign, &other)];
    image.blobs.extend(foreign.blobs.clone());
    image.media_types.extend(foreign.media_types.clone());
    let index = "application/vnd.oci.image.index.v1+json";
    image.set_manifest(&json!({"schemaVersion": 2, "mediaType": index, "manifests": manifests}));
    let server = Server::good(image);
    let pulled = celda.ok(&["pull", "--quiet", "--platform", "linux/riscv64", &server.name()]);
    assert_eq!(pulled.trim(), foreign.manifest);
    assert_eq!(only_image(&celda)["platform"], "linux/riscv64");
    assert_eq!(celda.ok(&["pull", "--quiet", &server.name()]).trim(), own);
    let error = celda.fails(125, &["pull", "--platform", "linux/mips", &server.name()]);
    assert!(error.contains("linux/mips") && error.contains("linux/riscv64"), "{error}");
}

#[test]
fn privileged_plain_http_is_for_who_asks() {
    if !privileged("plain_http") {
        return;
    }
    let (celda, server) = (Celda::new(), Server::good(image()));
    // An address of this machine that is not loopback's, so TLS is expected of it.
    let name = format!("0.0.0.0:{}/app:v1", server.address.port());
    let error = celda.fails(125, &["pull", "--quiet", "--retry", "0", &name]);
    assert!(error.contains("HTTPS") || error.contains("TLS"), "{error}");
    assert_eq!(server.count(Request::is_manifest), 0);
    celda.ok(&["pull", "--quiet", "--plain-http", &name]);
    assert_eq!(only_image(&celda)["name"], name.as_str());
}

#[test]
fn privileged_credentials_come_from_the_file_given() {
    if !privileged("authfile") {
        return;
    }
    let celda = Celda::new();
    // user:secret
    const BASIC: &str = "dXNlcjpzZWNyZXQ=";
    let server = Server::start(image(), |request, _, stream| {
        let is_known = request.header("authorization") == Some(&format!("Basic {BASIC}"));
        if !is_known {
            respond(stream, 401, &[("www-authenticate", "Basic realm=\"here\"")], b"");
        }
        !is_known
    });
    let file = celda.files().join("auth.json");
    let auths = json!({"auths": {server.address.to_string(): {"auth": BASIC}}});
    fs::write(&file, auths.to_string()).unwrap();
    let empty = celda.files().join("empty.json");
    fs::write(&empty, "{}").unwrap();
    let with = |file: &std::path::Path| {
        ["pull", "--quiet", "--authfile", file.to_str().unwrap(), &server.name()].map(str::to_owned)
    };
    let error = celda.fails(125, &with(&empty).each_ref().map(String::as_str));
    assert!(error.contains("401") && error.contains("config.json"), "{error}");
    celda.ok(&with(&file).each_ref().map(String::as_str));
}

#[test]
fn privileged_a_mirror_is_asked_first() {
    if !privileged("mirror") {
        return;
    }
    let (celda, registry, mirror) = (Celda::new(), Server::good(image()), Server::good(image()));
    let flag = format!("{}=http://{}", registry.address, mirror.address);
    celda.ok(&["pull", "--quiet", "--mirror", &flag, &registry.name()]);
    assert!(mirror.count(Request::is_blob) > 0 && registry.count(Request::is_blob) == 0);
    assert_eq!(only_image(&celda)["name"], registry.name().as_str(), "it keeps the name it was asked for by");
    let mut command = celda.command(&["pull", "--quiet", &registry.name()]);
    let before = mirror.count(Request::is_manifest);
    assert!(command.env("CELDA_MIRRORS", &flag).output().unwrap().status.success());
    assert!(mirror.count(Request::is_manifest) > before && registry.count(Request::is_manifest) == 0);
}

#[test]
fn privileged_patience_is_the_callers() {
    if !privileged("patience") {
        return;
    }
    let celda = Celda::new();
    for (retry, attempts_count) in [("0", 1), ("2", 3)] {
        let server = Server::start(image(), |request, _, stream| {
            let is_manifest = request.is_manifest();
            if is_manifest {
                respond(stream, 500, &[], b"");
            }
            is_manifest
        });
        celda.fails(125, &["pull", "--retry", retry, &server.name()]);
        assert_eq!(server.count(Request::is_manifest), attempts_count, "--retry {retry}");
    }
    let mute = Server::start(image(), |_, _, stream| {
        stall(stream);
        true
    });
    let error = celda.fails(125, &["pull", "--retry", "0", "--stall-timeout", "1", &mute.name()]);
    assert!(error.contains("nothing came for 1s"), "{error}");
    for wrong in [["--retry", "101"], ["--stall-timeout", "0"], ["--stall-timeout", "3601"]] {
        celda.fails(125, &[&["pull"], &wrong[..], &["image"]].concat());
    }
}

#[test]
fn privileged_pull_says_when_the_registry_is_asked() {
    if !privileged("pull_when") {
        return;
    }
    let (celda, server) = (Celda::new(), Server::good(image()));
    let name = server.name();
    let run = |when| ["run", "--rm", "--pull", when, &name, "/one"].map(str::to_owned);
    let error = celda.fails(125, &run("never").each_ref().map(String::as_str));
    assert!(error.contains("pulling was forbidden") && server.count(|_| true) == 0, "{error}");
    // The image's one file is no program: what matters is who was asked.
    for (when, asked_count) in [("missing", 1), ("missing", 1), ("always", 2)] {
        celda.fails(126, &run(when).each_ref().map(String::as_str));
        assert_eq!(server.count(Request::is_manifest), asked_count, "--pull {when}");
    }
}
