//! What is kept of a container and of an image, and `celda inspect`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Celda, wait_until};

fn inspect(celda: &Celda, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&celda.ok(&["inspect", name])).unwrap();
    shown[0].clone()
}

#[test]
fn privileged_a_containers_record_has_what_was_asked_for() {
    let Some(celda) = Celda::with_image("record") else { return };
    let image = celda.image();
    let flags = ["--name", "web-1", "--label", "tier=front", "-l", "bare", "--stop-signal", "QUIT"];
    let args = [&["run"], &flags[..], &[&image, "/bin/sh", "-c", "exit 3"]].concat();
    celda.fails(3, &args);
    let record = inspect(&celda, "web-1");
    assert_eq!(record["name"], "web-1");
    assert_eq!(record["labels"]["tier"], "front");
    assert_eq!(record["labels"]["bare"], "");
    assert_eq!(record["stopSignal"], 3);
    assert_eq!(record["exitCode"], 3);
    assert_eq!(record["args"], serde_json::json!(["/bin/sh", "-c", "exit 3"]));
    assert_eq!(record["image"], image.as_str());
    let id = record["id"].as_str().unwrap();
    assert_eq!(inspect(&celda, &id[..12]), record, "by the start of its id");
    celda.ok(&["gc"]);
    let gone = celda.fails(125, &["inspect", "web-1"]);
    assert!(gone.contains("web-1") && gone.contains("no such image or container"), "{gone}");
}

#[test]
fn privileged_a_name_is_taken_while_its_container_runs() {
    let Some(celda) = Celda::with_image("names") else { return };
    let args = celda.shell_args(&["--name", "one", "-i"], "echo ready; busybox cat");
    let mut child = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let taken = celda.fails(125, &["run", "--rm", "--name", "one", &celda.image(), "/bin/busybox", "true"]);
    assert!(taken.contains("one") && taken.contains("a running container has it"), "{taken}");
    // The container may speak before its celda has written down that it runs.
    wait_until(|| inspect(&celda, "one")["pid"].as_u64().is_some(), "its record has its process");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(celda.shell(&["--name", "one"], "echo again"), "again\n");
}

#[test]
fn privileged_an_images_record_has_its_layers_and_config() {
    let Some(celda) = Celda::with_image("inspect_image") else { return };
    let image = celda.image();
    let record = inspect(&celda, &image);
    assert_eq!(record["layers"].as_array().map(Vec::len), Some(1), "{record}");
    assert_eq!(record["config"]["config"]["Cmd"], serde_json::json!(["/bin/sh"]));
    let digest = celda.ok(&["images", "--quiet", "--no-trunc"]);
    assert_eq!(record["manifest"], digest.trim());
    assert_eq!(inspect(&celda, &digest.trim()["sha256:".len()..][..12]), record, "by its digest's start");
    for path in [&record["index"], &record["layers"][0]["path"]] {
        assert!(std::path::Path::new(path.as_str().unwrap()).exists(), "{path}");
    }
}
