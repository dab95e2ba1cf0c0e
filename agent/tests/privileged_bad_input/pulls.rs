//! Two pulls at once, and pulls that are killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::command::{Celda, privileged};
use crate::common::{Image, tar};
use crate::server::{Request, Server, head, stall};

fn is_whole(celda: &Celda) {
    let report: Value = serde_json::from_str(&celda.ok(&["verify", "--json", "--dry-run"])).unwrap();
    assert!(report.as_array().unwrap().iter().all(|item| item["outcome"] == "good"), "{report}");
}

fn pull(celda: &Celda, image: &str) -> Child {
    let mut command = celda.command(&["pull", "--json", image]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// After a pull was killed: what is there is whole, and nothing of it stays.
fn leaves_nothing_to_repair(celda: &Celda, image: &str) {
    is_whole(celda);
    celda.output(&["rmi", "--force", image]);
    celda.ok(&["gc"]);
    assert_eq!(fs::read_dir(celda.root().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(celda.root().join("layers/sha256")).unwrap().count(), 0);
}

#[test]
fn privileged_two_pulls_of_one_image_share_the_work() {
    if !privileged("two_pulls") {
        return;
    }
    let (celda, image) = (Celda::new(), Image::of(&[tar("one", 2_000_000), tar("two", 1_000_000)]));
    let (layers, server) = (image.layers.clone(), Server::good(image));
    let before = celda.leftovers();
    let children = [pull(&celda, &server.name()), pull(&celda, &server.name())];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for layer in layers {
        assert_eq!(server.count(|request| request.path.ends_with(&layer)), 1, "fetched by one, used by both");
    }
    is_whole(&celda);
    before.assert_unchanged(celda.directory(), "two pulls");
}

#[test]
fn privileged_a_pull_killed_after_any_event_leaves_nothing_to_repair() {
    let Some(celda) = Celda::with_image("killed_at_events") else { return };
    let image = celda.image();
    leaves_nothing_to_repair(&celda, &image);
    let before = celda.leftovers();
    // Until a pull has no more events than were waited for: that one came to its end.
    for events_count in 0.. {
        let mut child = pull(&celda, &image);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let seen = lines.by_ref().take(events_count).count();
        let _ = child.kill();
        child.wait().unwrap();
        leaves_nothing_to_repair(&celda, &image);
        before.assert_unchanged(celda.directory(), &format!("a pull killed after {events_count} events"));
        if seen < events_count {
            break;
        }
        assert!(events_count < 1000, "a pull of one small layer has few events");
    }
    assert_eq!(celda.ok(&["run", "--rm", &image, "/bin/busybox", "echo", "whole"]), "whole\n");
}

#[test]
fn privileged_a_pull_killed_at_any_request_leaves_nothing_to_repair() {
    if !privileged("killed_at_requests") {
        return;
    }
    let celda = Celda::new();
    let image = Image::of(&[tar("one", 300_000)]);
    let layer = image.layers[0].clone();
    let bytes = image.blobs[&layer].clone();
    // Silent before an answer, and in the middle of the layer.
    for (is_for, sent_bytes) in
        [("/manifests/", 0), ("/blobs/", 0), (layer.as_str(), 0), (layer.as_str(), 150_000)]
    {
        let (reached, at_request) = mpsc::channel();
        let (is_for, bytes) = (is_for.to_owned(), bytes.clone());
        let is_it = move |request: &Request| request.path.contains(&is_for);
        let server = Server::start(image.clone(), move |request, _, stream| {
            let is_it = is_it(request);
            if is_it {
                if sent_bytes > 0 {
                    head(stream, 200, &[("content-length", &bytes.len().to_string())]);
                    let _ = stream.write_all(&bytes[..sent_bytes]);
                }
                let _ = reached.send(());
                stall(stream);
            }
            is_it
        });
        let before = celda.leftovers();
        let mut child = pull(&celda, &server.name());
        at_request.recv().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        leaves_nothing_to_repair(&celda, &server.name());
        before.assert_unchanged(celda.directory(), "a killed pull");
    }
}
