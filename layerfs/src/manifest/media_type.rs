//! The media types of images, and what each is.
//!
//! OCI image-spec 1.1, media-types.md; Docker's "Image Manifest Version 2, Schema 2".

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzipped OCI layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A zstd-compressed OCI layer.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a client that understands everything here sends as `Accept` for a manifest.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     */*;q=0.1";

/// `type/subtype` without parameters.
pub fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// Whether `text` names an index, a manifest, or a schema 1 manifest.
pub fn is_document(text: &str) -> bool {
    matches!(text, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_INDEX) || is_schema_1(text)
}

/// Whether `text` names something to choose from.
pub fn is_index(text: &str) -> bool {
    matches!(text, OCI_INDEX | DOCKER_INDEX)
}

/// Whether `text` names Docker's manifest of before 2016.
pub fn is_schema_1(text: &str) -> bool {
    matches!(
        text,
        "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
}

/// Whether `text` names an image config. Very old Docker images say `application/octet-stream`.
pub fn is_image_config(text: &str) -> bool {
    matches!(text, OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream" | "")
}

/// What a layer's media type says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A tar, plain or compressed.
    Tar,
    /// A tar that registries need not have; its `urls` are never followed (CVE-2020-15157).
    NonDistributable,
    /// Encrypted (OCIcrypt).
    Encrypted,
    /// Anything else.
    Unknown,
}

/// Sorts a layer's media type. How a tar is compressed is read from its first bytes, never from its name.
pub fn layer_kind(text: &str) -> LayerKind {
    if text.ends_with("+encrypted") {
        return LayerKind::Encrypted;
    }
    match text {
        OCI_LAYER
        | OCI_LAYER_GZIP
        | OCI_LAYER_ZSTD
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => LayerKind::Tar,
        "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => LayerKind::NonDistributable,
        _ => LayerKind::Unknown,
    }
}
