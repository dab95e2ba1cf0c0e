//! Real images by the name that a user types: from Debian's docker-registry on loopback, from archives, and for the
//! wrong machine. The images are those of tests/images/make.sh.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Celda, describe, privileged};

/// How long a registry may take to listen.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(20);

/// A registry that ends with the test.
struct Registry {
    child: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("localhost:{port}");
        let data = directory.join("registry");
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let registry = Self { child, host };
        let until = Instant::now() + LISTEN_TIME_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Copies `NAME:TAG` of the layout to the registry, under the same name.
    fn push(&self, layout: &Path, image: &str) -> String {
        let name = format!("{}/{image}", self.host);
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{image}", layout.display()))
            .arg(format!("docker://{name}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", describe(&output));
        name
    }
}

/// The folder with the images; made where tests must not be skipped, `None` where they may.
fn images(test: &str) -> Option<PathBuf> {
    if !privileged(test) {
        return None;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder =
        std::env::var_os("CELDA_TEST_IMAGES").map_or_else(|| top.join("target/test-images"), PathBuf::from);
    if !folder.join("oci/index.json").exists() {
        if std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none() {
            println!("{test} skipped: tests/images/make.sh makes the images that this needs");
            return None;
        }
        let made = Command::new(top.join("tests/images/make.sh")).env("CELDA_TEST_IMAGES", &folder).status();
        assert!(made.unwrap().success(), "tests/images/make.sh failed");
    }
    Some(folder)
}

#[test]
fn privileged_real_images_run_by_name() {
    let Some(images) = images("real_images") else { return };
    let celda = Celda::new();
    let layout = images.join("oci");
    let registry = Registry::start(&celda.files());
    let python = ["python3", "-c", "import ssl,sqlite3; print(1)"];
    let programs: [(&str, &[&str], &str); 5] = [
        ("debian-nginx:1", &["nginx", "-v"], "nginx version"),
        ("debian-python:1", &python, "1\n"),
        ("forty:1", &["sh", "-c", "echo forty"], "forty\n"),
        ("busybox:1", &["busybox", "echo", "one file"], "one file\n"),
        ("busybox-zstd:1", &["busybox", "echo", "zstd"], "zstd\n"),
    ];
    let mut names = Vec::new();
    for (image, program, expected) in programs {
        let name = registry.push(&layout, image);
        let mut args = vec!["run", "--rm", name.as_str()];
        args.extend(program);
        let output = celda.output(&args);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(expected), "{image}: {}", describe(&output));
        names.push(name);
    }
    let foreign = registry.push(&layout, "foreign:1");
    let refused = celda.fails(125, &["run", "--rm", &foreign, "busybox", "true"]);
    assert!(refused.contains("linux/") && refused.contains("foreign"), "{refused}");
    drop(registry);
    for name in &names {
        let args = ["run", "--rm", "--timing", "--json", name, "/no/such/program"];
        let output = celda.output(&args);
        assert_eq!(output.status.code(), Some(127), "{}", describe(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let timing: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        assert_eq!((&timing["downloaded_bytes"], &timing["layers_read"]), (&0.into(), &0.into()), "{timing}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&celda.ok(&["verify", "--json", "--dry-run"])).unwrap();
    assert!(report.as_array().unwrap().iter().all(|item| item["outcome"] == "good"), "{report}");
}

#[test]
fn privileged_a_docker_archive_runs() {
    let Some(images) = images("docker_archive") else { return };
    let celda = Celda::new();
    let archive = format!("docker-archive:{}", images.join("docker.tar").display());
    for _ in 0..2 {
        assert_eq!(celda.ok(&["run", "--rm", &archive, "busybox", "echo", "archive"]), "archive\n");
    }
}
