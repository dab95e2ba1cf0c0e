//! Debian's docker-registry on loopback, filled by skopeo from a layout that `pack` made: plain, with TLS, and with
//! passwords.
#![cfg(feature = "registry")]
#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use celda_layerfs::pack::{LayerCompression, PackOptions, pack};
use celda_layerfs::pull::{PullOptions, Refetch};
use celda_layerfs::store::{NoHeal, Outcome};
use common::{Place, always};

/// How long the registry may take to listen.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(20);

/// Whether the programs are here; where they must be and are not, a failure.
fn have(programs: &[&str]) -> bool {
    let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    match programs.iter().find(|program| !runs(program)) {
        None => true,
        Some(program) => {
            assert!(
                std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none_or(|v| v != "1"),
                "{program} is not installed"
            );
            println!("skipped: needs {program}");
            false
        }
    }
}

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
    /// Starts one; `http` and `auth` are added to its config in their places.
    fn start(directory: &Path, http: &str, auth: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let data = directory.join("registry");
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{http}{auth}",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, host };
        let until = Instant::now() + LISTEN_TIME_MAX;
        while TcpStream::connect(&registry.host).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "the registry ended; see its config");
            assert!(Instant::now() < until, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn push(&self, layout: &Path, tag: &str, more: &[&str]) {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .args(more)
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}/team/app:{tag}", self.host))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/team/app:{tag}", self.host)
    }
}

/// A layout with one image per kind of compression, a few megabytes each.
fn layout(directory: &Path) -> PathBuf {
    let (layout, big) = (directory.join("layout"), directory.join("big"));
    std::fs::write(&big, common::tar("big", 3_000_000)).unwrap();
    let files = vec![(big, "/srv/big".into())];
    for (tag, compression) in [
        ("gzip", LayerCompression::Gzip),
        ("zstd", LayerCompression::Zstd),
        ("plain", LayerCompression::Plain),
    ] {
        pack(&layout, tag, &PackOptions { files: files.clone(), compression, ..PackOptions::default() })
            .unwrap();
    }
    layout
}

#[test]
fn real_registry_over_plain_http_in_ranges() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path(), "", "");
    let layout = layout(directory.path());
    let mut options = always();
    options.network.range_bytes = 256 << 10;
    for tag in ["gzip", "zstd", "plain"] {
        registry.push(&layout, tag, &[]);
        let (from_registry, from_layout) = (Place::new(), Place::new());
        let record = from_registry.pull(&registry.name(tag), &options).unwrap();
        let local = from_layout.pull(&format!("oci:{}:{tag}", layout.display()), &options).unwrap();
        assert_eq!(record.chain_id, local.chain_id);
        if tag != "plain" {
            // skopeo compresses what is plain.
            assert_eq!(record.layers, local.layers);
        }
    }
    let error = Place::new().refuses(&registry.name("other"), &options);
    assert!(error.contains("404") && error.contains("manifest unknown"), "{error}");
}

#[test]
fn real_registry_mends_what_verify_finds_broken() {
    if !have(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path(), "", "");
    registry.push(&layout(directory.path()), "gzip", &[]);
    let place = Place::new();
    let record = place.pull(&registry.name("gzip"), &always()).unwrap();
    let tar = place.store.layer_path(&record.layers[0].diff_id);
    let whole = std::fs::read(&tar).unwrap();
    for damage in [0, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0x55;
        std::fs::remove_file(&tar).unwrap();
        std::fs::write(&tar, bytes).unwrap();
        let manifest = place.store.root().join("blobs/sha256").join(record.manifest.hex());
        std::fs::write(&manifest, "broken").unwrap();
        assert!(!place.store.verify(&NoHeal).unwrap().is_good());
        let report = place.store.verify(&Refetch::new(PullOptions::default())).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert!(report.items.iter().any(|item| matches!(item.outcome, Outcome::Healed(_))));
        assert_eq!(std::fs::read(&tar).unwrap(), whole);
    }
}

#[test]
fn real_registry_with_tls_and_a_password() {
    if !have(&["docker-registry", "skopeo", "openssl", "htpasswd"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let (ca_key, ca, key, certificate) = (at("ca.key"), at("ca.crt"), at("key.pem"), at("cert.pem"));
    let (openssl, passwords) = (at("openssl.cnf"), at("passwords"));
    let text = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n\
        [leaf]\nbasicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
    std::fs::write(&openssl, text).unwrap();
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-config",
    ];
    let made = |more: &[&str]| run("openssl", &[&new[..], &[&openssl], more].concat());
    made(&["-subj", "/CN=celda test CA", "-extensions", "ca", "-keyout", &ca_key, "-out", &ca]);
    let by_ca = ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=127.0.0.1", "-extensions", "leaf"];
    made(&[&by_ca[..], &["-keyout", &key, "-out", &certificate]].concat());
    std::fs::write(&passwords, run("htpasswd", &["-Bbn", "me", "secret"])).unwrap();
    let tls = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
    let auth = format!("auth:\n  htpasswd:\n    realm: here\n    path: {passwords}\n");
    let registry = Registry::start(directory.path(), &tls, &auth);
    registry.push(&layout(directory.path()), "gzip", &["--dest-creds", "me:secret"]);
    let name = registry.name("gzip");

    let config = directory.path().join("docker");
    std::fs::create_dir(&config).unwrap();
    let entry = |password: &str| {
        let text = format!(
            r#"{{"auths": {{"{}": {{"username": "me", "password": "{password}"}}}}}}"#,
            registry.host
        );
        std::fs::write(config.join("config.json"), text).unwrap();
    };
    entry("secret");
    let mut options = always();
    options.network.retries_count = 1;
    options.network.docker_config = Some(config.clone());
    let error = Place::new().refuses(&name, &options);
    assert!(error.contains("certificate"), "an unknown authority is not trusted: {error}");
    options.network.tls_ca = vec![ca.clone().into()];
    Place::new().pull(&name, &options).unwrap();
    // The same by Docker's directory of certificates.
    options.network.tls_ca.clear();
    options.network.certs_dir = directory.path().join("certs.d");
    let host = options.network.certs_dir.join(&registry.host);
    std::fs::create_dir_all(&host).unwrap();
    std::fs::copy(&ca, host.join("ca.crt")).unwrap();
    Place::new().pull(&name, &options).unwrap();
    entry("guess");
    assert!(Place::new().refuses(&name, &options).contains("were refused"));
    std::fs::write(config.join("config.json"), "{}").unwrap();
    assert!(Place::new().refuses(&name, &options).contains("docker login"));
    options.network.plain_http = true;
    assert!(Place::new().refuses(&name, &options).contains("400"));
}
