//! Flags of every command, and the commands that show what is there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Celda, busybox, privileged};

#[test]
fn privileged_an_image_is_mounted_as_asked() {
    let Some(celda) = Celda::with_image("mounts") else { return };
    let image = celda.image();
    let run = |mount| {
        let args = ["run", "--rm", "--mount", mount, &image, "/bin/busybox", "echo", mount];
        assert_eq!(celda.ok(&args), format!("{mount}\n"));
    };
    let trees_count = || fs::read_dir(celda.root().join("trees")).map_or(0, Iterator::count);
    let info = |mount| {
        let info: Value = serde_json::from_str(&celda.ok(&["info", "--json", "--mount", mount])).unwrap();
        info["mount"]["rung"].to_string()
    };
    for mount in ["auto", "file", "loop"] {
        run(mount);
        celda.ok(&["gc"]);
    }
    assert_eq!(trees_count(), 0, "an index is mounted, nothing is unpacked");
    run("directory");
    assert_eq!(trees_count(), 1, "a tree is unpacked");
    let rungs = ["file", "loop", "directory"].map(info);
    assert!(rungs[0] != rungs[1] && rungs[1] != rungs[2] && rungs[0] != rungs[2], "{rungs:?}");
}

#[test]
fn privileged_a_loop_mount_has_its_loop_devices_while_it_runs() {
    let Some(celda) = Celda::with_image("loops") else { return };
    let args = celda.shell_args(&["--mount", "loop", "-i"], "echo ready; busybox cat");
    let mut child = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let root = celda.root();
    let is_ours = |block: &fs::DirEntry| {
        let backing = fs::read_to_string(block.path().join("loop/backing_file"));
        backing.is_ok_and(|backing| backing.contains(root.to_str().unwrap()))
    };
    let loops_count = fs::read_dir("/sys/block").unwrap().flatten().filter(is_ours).count();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(loops_count, 2, "the index and one layer");
}

#[test]
fn privileged_layers_are_the_same_by_either_io_path() {
    let Some(celda) = Celda::with_image("io_paths") else { return };
    let image = celda.image();
    let digests: Vec<String> = ["auto", "ring", "threads"]
        .into_iter()
        .map(|path| {
            celda.ok(&["rmi", "--force", &image]);
            celda.ok(&["gc"]);
            celda.ok(&["pull", "--quiet", "--io", path, &image]);
            let report: Value = serde_json::from_str(&celda.ok(&["verify", "--json", "--io", path])).unwrap();
            assert!(
                report.as_array().unwrap().iter().all(|item| item["outcome"] == "good"),
                "{path}: {report}"
            );
            celda.ok(&["inspect", &image])
        })
        .collect();
    assert!(digests.windows(2).all(|two| two[0] == two[1]), "{digests:?}");
    for (flag, path) in [("--io", "paper"), ("--mount", "tape")] {
        let error = celda.fails(125, &["images", flag, path]);
        assert!(error.contains(flag) && error.contains(path), "{error}");
    }
}

#[test]
fn privileged_info_says_what_is_missing_and_why() {
    let Some(celda) = Celda::with_image("info") else { return };
    let text = celda.ok(&["info"]);
    let value: Value = serde_json::from_str(&celda.ok(&["info", "--json"])).unwrap();
    for name in
        ["version", "root", "run", "kernel", "architecture", "images", "mount", "layers written by", "cgroup"]
    {
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is not in:\n{text}");
    }
    let row = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(row("images "), Some("1"));
    assert_eq!(row("root "), celda.root().to_str());
    assert_eq!(row("version "), value["version"].as_str());
    for missing in value["cgroup"]["missing"].as_array().unwrap() {
        let reason = format!(
            "! no {} limits: {}",
            missing["name"].as_str().unwrap(),
            missing["why"].as_str().unwrap()
        );
        assert!(text.lines().any(|line| line == reason), "{reason:?} is not in:\n{text}");
    }
}

#[test]
fn privileged_lists_are_tables_ids_or_json() {
    let Some(celda) = Celda::with_image("lists") else { return };
    let table = celda.ok(&["images"]);
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("IMAGE"), "{table}");
    assert!(lines.next().unwrap().contains("oci:"), "{table}");
    let short = celda.ok(&["images", "-q"]);
    let long = celda.ok(&["images", "--quiet", "--no-trunc"]);
    assert!(
        short.trim().len() == 12 && long.trim().starts_with(&format!("sha256:{}", short.trim())),
        "{short}{long}"
    );
    let removed: Value = serde_json::from_str(&celda.ok(&["rmi", "--json", &celda.image()])).unwrap();
    assert_eq!(removed[0]["deleted"], long.trim(), "{removed}");
    let freed: Value = serde_json::from_str(&celda.ok(&["gc", "--json"])).unwrap();
    assert!(freed["freed_bytes"].as_u64().unwrap() > 0, "{freed}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let celda = Celda::new();
    let man = celda.files().join("man");
    celda.ok(&["completions", "--man", man.to_str().unwrap()]);
    for shell in ["bash", "zsh", "fish"] {
        let script = celda.ok(&["completions", shell]);
        for command in ["run", "pull", "images", "inspect", "rmi", "gc", "verify", "pack", "info"] {
            assert!(script.contains(command), "{shell} {command}");
            assert!(man.join(format!("celda-{command}.1")).exists(), "{command}");
        }
    }
    assert!(fs::read_to_string(man.join("celda-run.1")).unwrap().contains("shm\\-size"));
    celda.fails(125, &["completions", "dos"]);
}

#[test]
fn privileged_a_packed_image_is_as_asked() {
    if !privileged("pack") {
        return;
    }
    let Some(busybox) = busybox("pack") else { return };
    let celda = Celda::new();
    let file = format!("{}:/bin/busybox", busybox.display());
    for (compression, media_type) in [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("none", "tar")] {
        let image = format!("oci:{}:{compression}", celda.directory().join("layout").display());
        // What looks like a flag and is a value is written with an equals sign.
        let process =
            ["--entrypoint", "/bin/busybox", "--entrypoint", "sh", "--cmd=-c", "--cmd", "echo $A; pwd"];
        let more = ["--env", "A=1", "--workdir", "/w", "--label", "l=v", "--compression", compression];
        celda.ok(&[&["pack", &image, &file][..], &process, &more].concat());
        assert_eq!(celda.ok(&["run", "--rm", &image]), "1\n/w\n", "{compression}");
        let record: Value = serde_json::from_str(&celda.ok(&["inspect", &image])).unwrap();
        assert_eq!(record[0]["config"]["config"]["Labels"]["l"], "v", "{record}");
        let kind = record[0]["layers"][0]["mediaType"].as_str().unwrap();
        assert!(kind.ends_with(media_type), "{compression}: {kind}");
    }
}
