//! Any bytes as an index, a manifest and an image config.
//!
//! Invariants:
//! - never panics;
//! - an image that is taken has between one and the allowed number of layers, all of allowed lengths;
//! - joining it with a config gives one diffID for each layer, and one blob never has two diffIDs;
//! - what is chosen from an index is one of its manifests, is no attestation, and runs on the wanted platform if it
//!   names one.
//!
//! The input is split at its first NUL: a document, then a config.
#![no_main]

use std::collections::HashMap;

use celda_layerfs::manifest::{self, Document, Image, ImageConfig, media_type};
use celda_layerfs::{Limits, Platform};
use libfuzzer_sys::fuzz_target;

fn check_image(image: &Image, config: &[u8], limits: &Limits) {
    assert!((1..=limits.layers_count).contains(&image.layers.len()));
    assert!(image.layers.iter().all(|layer| layer.size_bytes <= limits.layer_bytes));
    assert!(image.config.size_bytes <= limits.manifest_bytes);
    let Ok(config) = ImageConfig::parse(config, limits) else { return };
    let Ok(layers) = image.layers(&config) else { return };
    assert_eq!(layers.len(), config.diff_ids.len());
    let mut seen = HashMap::new();
    for (layer, diff_id) in layers.iter().zip(&config.diff_ids) {
        assert_eq!(layer.diff_id, *diff_id);
        assert_eq!(seen.entry(layer.blob.digest).or_insert(layer.diff_id), diff_id);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { layers_count: 8, ..Limits::default() };
    let split = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (document, config) = (&bytes[..split], bytes.get(split + 1..).unwrap_or_default());
    let _ = ImageConfig::parse(document, &limits);
    for declared in [None, Some(media_type::OCI_INDEX), Some(media_type::DOCKER_MANIFEST)] {
        match manifest::parse(document, declared, &limits) {
            Ok(Document::Image(image)) => check_image(&image, config, &limits),
            Ok(Document::Index(manifests)) => {
                for wanted in
                    ["linux/amd64", "linux/arm/v7", "linux/arm64"].map(|text| text.parse::<Platform>())
                {
                    let Ok(wanted) = wanted else { continue };
                    let Ok(chosen) = manifest::choose(&manifests, &wanted) else { continue };
                    assert!(manifests.contains(chosen));
                    assert!(chosen.platform.as_ref().is_none_or(|platform| wanted.runs(platform)));
                    assert!(
                        !chosen.annotations.contains_key("vnd.docker.reference.type")
                            || chosen.annotations["vnd.docker.reference.type"] != "attestation-manifest"
                    );
                }
            }
            Err(_) => {}
        }
    }
});
