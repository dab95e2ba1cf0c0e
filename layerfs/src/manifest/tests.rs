use super::*;
use crate::Digest;
use serde_json::json;

fn digest(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

fn layer(of: &str) -> serde_json::Value {
    json!({"mediaType": media_type::OCI_LAYER_GZIP, "digest": digest(of), "size": 10})
}

fn manifest(layers: &[serde_json::Value]) -> serde_json::Value {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
           "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest("config"), "size": 2}, "layers": layers})
}

fn read(value: &serde_json::Value) -> Result<Document, ManifestError> {
    parse(value.to_string().as_bytes(), None, &Limits::default())
}

fn entry(of: &str, platform: Option<(&str, &str, Option<&str>)>) -> serde_json::Value {
    let mut value = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest(of), "size": 10});
    if let Some((os, architecture, variant)) = platform {
        value["platform"] = json!({"os": os, "architecture": architecture});
        if let Some(variant) = variant {
            value["platform"]["variant"] = json!(variant);
        }
    }
    value
}

fn index(manifests: &[serde_json::Value]) -> Vec<Descriptor> {
    match read(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap() {
        Document::Index(manifests) => manifests,
        Document::Image(_) => panic!("an image"),
    }
}

#[test]
fn both_families_of_media_types_are_read() {
    assert!(matches!(read(&manifest(&[layer("a")])), Ok(Document::Image(_))));
    let mut docker = manifest(&[layer("a")]);
    docker["mediaType"] = json!(media_type::DOCKER_MANIFEST);
    docker["config"]["mediaType"] = json!(media_type::DOCKER_CONFIG);
    docker["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert!(matches!(read(&docker), Ok(Document::Image(_))));
}

#[test]
fn schema_1_is_refused_with_advice() {
    let old = json!({"schemaVersion": 1, "fsLayers": []});
    assert!(matches!(read(&old), Err(ManifestError::Schema1)));
    let declared = Some("application/vnd.docker.distribution.manifest.v1+prettyjws; charset=utf-8");
    let error = parse(b"{}", declared, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("skopeo copy"));
}

#[test]
fn contradictions_are_refused() {
    let mut both = manifest(&[layer("a")]);
    both["manifests"] = json!([]);
    assert!(matches!(read(&both), Err(ManifestError::Shape(_))), "CVE-2021-41190");
    let mut called_index = manifest(&[layer("a")]);
    called_index["mediaType"] = json!(media_type::OCI_INDEX);
    assert!(matches!(read(&called_index), Err(ManifestError::Shape(_))));
    let declared = parse(
        manifest(&[layer("a")]).to_string().as_bytes(),
        Some(media_type::OCI_INDEX),
        &Limits::default(),
    );
    assert!(matches!(declared, Err(ManifestError::Shape(_))));
    let mut negative = manifest(&[layer("a")]);
    negative["layers"][0]["size"] = json!(-1);
    assert!(matches!(read(&negative), Err(ManifestError::Shape(_))));
    for text in ["", "null", "[]", "{", "{\"schemaVersion\":2}", "{\"schemaVersion\":\"2\"}"] {
        assert!(parse(text.as_bytes(), None, &Limits::default()).is_err(), "{text}");
    }
}

#[test]
fn layers_are_bounded_in_number_and_kind() {
    let limits = Limits { manifest_bytes: 1 << 30, ..Limits::default() };
    let many = manifest(&vec![layer("a"); 100_000]).to_string();
    assert!(matches!(
        parse(many.as_bytes(), None, &limits),
        Err(ManifestError::TooManyLayers { count: 100_000, .. })
    ));
    assert!(matches!(parse(many.as_bytes(), None, &Limits::default()), Err(ManifestError::TooLong { .. })));
    assert!(matches!(read(&manifest(&[])), Err(ManifestError::NoLayers)));
    let mut odd = manifest(&[layer("a"), layer("b")]);
    odd["layers"][1]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    assert!(matches!(read(&odd), Err(ManifestError::EncryptedLayer { number: 2, .. })));
    odd["layers"][1]["mediaType"] = json!("application/vnd.example.disk");
    assert!(matches!(read(&odd), Err(ManifestError::UnknownLayer { number: 2, .. })));
    odd["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    assert!(matches!(read(&odd), Err(ManifestError::Artifact(_))));
    let mut foreign = manifest(&[layer("a")]);
    foreign["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    assert!(read(&foreign).is_ok());
}

#[test]
fn the_index_gives_the_best_variant_and_skips_attestations() {
    let manifests = index(&[
        entry("attestation", Some(("unknown", "unknown", None))),
        entry("v6", Some(("linux", "arm", Some("v6")))),
        entry("v7", Some(("linux", "arm", Some("v7")))),
        entry("arm64", Some(("linux", "arm64", Some("v8")))),
        entry("second", Some(("linux", "arm64", None))),
    ]);
    let chosen = |platform: &str| {
        choose(&manifests, &platform.parse().unwrap()).map(|chosen| chosen.digest.to_string())
    };
    assert_eq!(chosen("linux/arm/v7").unwrap(), digest("v7"));
    assert_eq!(chosen("linux/arm/v6").unwrap(), digest("v6"));
    assert_eq!(chosen("linux/arm64").unwrap(), digest("arm64"));
    let error = chosen("linux/riscv64").unwrap_err().to_string();
    assert!(error.contains("linux/arm/v6, linux/arm/v7, linux/arm64"), "{error}");
    assert!(!error.contains("unknown"), "{error}");
}

#[test]
fn an_unnamed_manifest_is_chosen_for_want_of_others() {
    let manifests = index(&[entry("only", None)]);
    assert_eq!(choose(&manifests, &Platform::host()).unwrap().digest.to_string(), digest("only"));
    assert!(choose(&[], &Platform::host()).is_err());
}

#[test]
fn config_and_manifest_must_agree() {
    let Ok(Document::Image(image)) = read(&manifest(&[layer("a"), layer("a")])) else {
        panic!("not an image")
    };
    let config = |diff_ids: &[&str]| {
        let diff_ids: Vec<String> = diff_ids.iter().map(|of| digest(of)).collect();
        let value = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        ImageConfig::parse(value.to_string().as_bytes(), &Limits::default()).unwrap()
    };
    assert_eq!(image.layers(&config(&["x", "x"])).unwrap().len(), 2, "a layer may be listed twice");
    assert!(matches!(
        image.layers(&config(&["x"])),
        Err(ManifestError::LayerCount { layers: 2, diff_ids: 1 })
    ));
    assert!(matches!(image.layers(&config(&["x", "y"])), Err(ManifestError::Shape(_))));
    for text in [
        "",
        "{}",
        "{\"rootfs\":{\"type\":\"zfs\",\"diff_ids\":[]}}",
        "{\"rootfs\":{\"diff_ids\":[\"md5:1\"]}}",
    ] {
        assert!(ImageConfig::parse(text.as_bytes(), &Limits::default()).is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse(&bytes, None, &Limits::default());
        let _ = ImageConfig::parse(&bytes, &Limits::default());
    }
}
