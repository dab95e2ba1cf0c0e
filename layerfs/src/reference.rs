//! What a user writes to name an image, and what it means.
//!
//! ```text
//! [registry/]repository[:tag][@sha256:...]     "nginx" is docker.io/library/nginx:latest
//! oci:DIR[:TAG]                                an OCI image layout directory
//! oci-archive:FILE[:TAG]                       the same, in one tar
//! docker-archive:FILE[:REFERENCE | :@N]        what `docker save` writes
//! ```
//!
//! The registry grammar is that of the OCI distribution-spec 1.1 ("Pulling manifests") with Docker's habits for
//! short names: the first component is a registry only if it holds a `.` or a `:`, or is `localhost`, or has an
//! upper-case letter. In the path forms the first colon ends the path, as skopeo's containers-transports(5) has it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Digest;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The host that serves [`DEFAULT_REGISTRY`].
const DEFAULT_REGISTRY_ENDPOINT: &str = "registry-1.docker.io";
/// The tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Bytes of registry and repository together; registries refuse longer names.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a tag (distribution-spec 1.1: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
pub const TAG_BYTES_MAX: usize = 128;
/// Bytes of any reference: a path of PATH_MAX, a name, a tag and a digest fit.
pub const REFERENCE_BYTES_MAX: usize = 8192;

/// Where an image is, in one of the four forms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A repository of a registry.
    Registry(RegistryReference),
    /// An OCI image layout directory.
    OciLayout {
        /// The directory that holds `index.json`.
        dir: PathBuf,
        /// The `org.opencontainers.image.ref.name` to choose; none where the layout has one image only.
        tag: Option<String>,
    },
    /// An OCI image layout in a tar.
    OciArchive {
        /// The tar.
        file: PathBuf,
        /// As for a layout.
        tag: Option<String>,
    },
    /// A tar as `docker save` writes it.
    DockerArchive {
        /// The tar.
        file: PathBuf,
        /// One of its `RepoTags`, or `@N` for the N-th image; none where it has one image only.
        tag: Option<String>,
    },
}

/// `registry/repository[:tag][@digest]`, normalised: there is always a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text names no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("image name {text:?}: {reason}")]
pub struct ReferenceError {
    /// The text, cut to what a terminal line bears.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Reference {
    /// The name under which the store keeps the image: [`Display`](fmt::Display), with paths made absolute.
    ///
    /// # Errors
    /// When a relative path cannot be resolved.
    pub fn store_name(&self) -> std::io::Result<String> {
        let absolute = |path: &Path| std::path::absolute(path);
        Ok(match self {
            Self::Registry(reference) => reference.to_string(),
            Self::OciLayout { dir, tag } => {
                Self::OciLayout { dir: absolute(dir)?, tag: tag.clone() }.to_string()
            }
            Self::OciArchive { file, tag } => {
                Self::OciArchive { file: absolute(file)?, tag: tag.clone() }.to_string()
            }
            Self::DockerArchive { file, tag } => {
                Self::DockerArchive { file: absolute(file)?, tag: tag.clone() }.to_string()
            }
        })
    }
}

impl RegistryReference {
    /// The registry as the user names it: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The `host[:port]` to connect to; Docker's own registry answers under another name than it is known by.
    pub fn endpoint(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DEFAULT_REGISTRY_ENDPOINT } else { &self.registry }
    }

    /// The repository: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given or neither tag nor digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest the image is pinned to.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What to ask the registry's `manifests/` for: the digest where there is one.
    pub fn manifest_key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::OciLayout { dir, tag } => ("oci", dir, tag),
            Self::OciArchive { file, tag } => ("oci-archive", file, tag),
            Self::DockerArchive { file, tag } => ("docker-archive", file, tag),
        };
        write!(f, "{scheme}:{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(error(text, format!("longer than {REFERENCE_BYTES_MAX} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(error(text, "holds a control character"));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, tag) = path_and_tag(text, rest)?;
            return Ok(Self::OciLayout { dir, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (file, tag) = path_and_tag(text, rest)?;
            return Ok(Self::OciArchive { file, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, tag) = path_and_tag(text, rest)?;
            return Ok(Self::DockerArchive { file, tag });
        }
        let text = text.strip_prefix("docker://").unwrap_or(text);
        text.parse().map(Self::Registry)
    }
}

impl FromStr for RegistryReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(error(text, "empty; write a name such as debian:12"));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(error(text, format!("is a URL; leave {scheme}:// out")));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|e| error(text, e.to_string()))?))
            }
        };
        // A tag's colon comes after the last slash; an earlier one belongs to a port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].find(':') {
            None => (rest, None),
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        };
        if let Some(tag) = tag {
            check_tag(text, tag)?;
        }
        let (registry, path) = split_registry(name);
        check_registry(text, registry)?;
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        check_repository(text, path)?;
        if !name.contains('/') && is_image_id(name) {
            return Err(error(
                text,
                "64 hexadecimal digits are an image id, not a name; write sha256:... to `inspect`",
            ));
        }
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(error(
                text,
                format!("registry and repository are longer than {NAME_BYTES_MAX} bytes"),
            ));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn error(text: &str, reason: impl Into<String>) -> ReferenceError {
    ReferenceError { text: text.chars().take(160).collect(), reason: reason.into() }
}

fn path_and_tag(text: &str, rest: &str) -> Result<(PathBuf, Option<String>), ReferenceError> {
    let (path, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((path, tag)) => (path, Some(tag)),
    };
    if path.is_empty() {
        return Err(error(text, "the path is empty"));
    }
    match tag {
        Some("") => Err(error(text, "the tag after the path's colon is empty")),
        Some(tag) if tag.len() > NAME_BYTES_MAX + TAG_BYTES_MAX => Err(error(text, "the tag is too long")),
        tag => Ok((PathBuf::from(path), tag.map(str::to_owned))),
    }
}

/// Splits `name` by Docker's rule of what is a registry.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, path))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.starts_with('[')
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, path)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_tag(text: &str, tag: &str) -> Result<(), ReferenceError> {
    if tag.is_empty() {
        return Err(error(text, "the tag is empty"));
    }
    if tag.len() > TAG_BYTES_MAX {
        return Err(error(text, format!("the tag is longer than {TAG_BYTES_MAX} bytes")));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    if !word(bytes[0]) || !bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-') {
        return Err(error(
            text,
            "a tag holds letters, digits, '_', '.' and '-', and starts with none of the last two",
        ));
    }
    Ok(())
}

fn check_registry(text: &str, registry: &str) -> Result<(), ReferenceError> {
    let bad = |reason: &str| Err(error(text, format!("registry {registry:?}: {reason}")));
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return bad("no ']' after the IPv6 address");
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return bad("not an IPv6 address in the brackets");
            }
            match port.strip_prefix(':') {
                Some(port) => ("", Some(port)),
                None if port.is_empty() => ("", None),
                None => return bad("something other than a port after ']'"),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() || port.parse::<u16>() == Ok(0) {
            return bad("the port is not a number from 1 to 65535");
        }
    }
    let component = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    if !registry.starts_with('[') && !host.split('.').all(component) {
        return bad("not a host name");
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes (distribution-spec 1.1, "Pulling manifests").
fn check_repository(text: &str, path: &str) -> Result<(), ReferenceError> {
    for component in path.split('/') {
        if component.is_empty() {
            return Err(error(text, "a part of the repository's path is empty"));
        }
        if component.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(error(text, "repository names are lower-case"));
        }
        let bytes = component.as_bytes();
        let mut separator_from = Some(0);
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' => {
                    if let Some(from) = separator_from.filter(|from| *from < at)
                        && (from == 0 || !is_separator(&bytes[from..at]))
                    {
                        return Err(error(
                            text,
                            format!("{component:?}: '.', '_', '__' or dashes stand between letters"),
                        ));
                    }
                    separator_from = None;
                }
                b'.' | b'_' | b'-' => separator_from = separator_from.or(Some(at)),
                _ => {
                    return Err(error(
                        text,
                        format!("{component:?} holds a character no repository may have"),
                    ));
                }
            }
        }
        if separator_from.is_some() {
            return Err(error(text, format!("{component:?} ends with a separator")));
        }
    }
    Ok(())
}

fn is_separator(bytes: &[u8]) -> bool {
    matches!(bytes, b"." | b"_" | b"__") || bytes.iter().all(|b| *b == b'-')
}

fn is_image_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|e| panic!("{e}")).to_string()
    }

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("host:5000/a/b/c:v1", "host:5000/a/b/c:v1"),
            ("GHCR/app", "GHCR/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("docker://nginx", "docker.io/library/nginx:latest"),
            ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f:latest"),
            ("oci:/tmp/layout:v1", "oci:/tmp/layout:v1"),
            ("oci-archive:image.tar", "oci-archive:image.tar"),
            ("docker-archive:x.tar:nginx:1", "docker-archive:x.tar:nginx:1"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
        assert_eq!(canonical(&format!("nginx@{digest}")), format!("docker.io/library/nginx@{digest}"));
        assert_eq!(canonical(&format!("nginx:1@{digest}")), format!("docker.io/library/nginx:1@{digest}"));
    }

    #[test]
    fn the_default_registry_has_another_endpoint() {
        let reference: RegistryReference = "debian".parse().unwrap();
        assert_eq!((reference.registry(), reference.endpoint()), ("docker.io", "registry-1.docker.io"));
        let reference: RegistryReference =
            "localhost:5000/debian@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
                .parse()
                .unwrap();
        assert_eq!(reference.endpoint(), "localhost:5000");
        assert!(reference.manifest_key().starts_with("sha256:e3b0"));
    }

    #[test]
    fn bad_names_are_refused_with_their_reason() {
        let long = format!("a/{}", "b".repeat(NAME_BYTES_MAX));
        let long_tag = format!("a:{}", "t".repeat(TAG_BYTES_MAX + 1));
        let id = "0".repeat(64);
        for text in [
            "",
            ":tag",
            "a:",
            "a:-x",
            "a:b:c",
            "A",
            "Ab/c/D",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a b",
            "a\0",
            "a@sha256:ab",
            "a@md5:ab",
            "a@",
            "host:/a",
            "host:0/a",
            "host:99999/a",
            "-x.y/a",
            "[::1/a",
            "[zz]/a",
            "https://host/a",
            "oci:",
            "oci:dir:",
            "é",
            &long,
            &long_tag,
            &id,
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(!error.reason.is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_to_itself(text in "([a-zA-Z0-9.:-]{0,12}/)?[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{0,10})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
