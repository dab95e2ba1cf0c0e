//! Any text as an image's name, and as a platform.
//!
//! Invariants:
//! - never panics;
//! - what is taken prints as something that is taken, and means the same;
//! - a registry's reference has a tag or a digest, a lower-case repository, and stays within the named lengths;
//! - what goes into a URL's path holds nothing that would end or leave it.
#![no_main]

use celda_layerfs::reference::{NAME_BYTES_MAX, TAG_BYTES_MAX};
use celda_layerfs::{Platform, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse(), Ok(platform.clone()), "{platform}");
        assert_eq!(platform.rank(&platform), Some(0));
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse(), Ok(reference.clone()), "{reference}");
    let Reference::Registry(name) = reference else { return };
    assert!(name.tag().is_some() || name.digest().is_some());
    assert!(name.tag().is_none_or(|tag| (1..=TAG_BYTES_MAX).contains(&tag.len())));
    assert!(name.registry().len() + 1 + name.repository().len() <= NAME_BYTES_MAX);
    let fits_a_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    for part in [name.repository(), &name.manifest_key()] {
        assert!(part.bytes().all(fits_a_path), "{part}");
        assert!(part.split('/').all(|component| !matches!(component, "" | "." | "..")), "{part}");
    }
    assert!(!name.repository().bytes().any(|byte| byte.is_ascii_uppercase()));
});
