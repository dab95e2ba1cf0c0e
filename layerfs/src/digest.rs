//! Content digests: SHA-256, the one algorithm every registry and every image in use has.
//!
//! The text form is `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec 1.1, descriptor.md).
//! SHA-512 digests are refused by name rather than trusted unseen.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as sha;
use serde::{Deserialize, Serialize};

/// A SHA-256 digest. Ordering and hashing are those of the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is not a [`Digest`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// The algorithm is not `sha256`.
    #[error("digest algorithm {0:?} is not supported; celda verifies sha256 only")]
    Algorithm(String),
    /// Not 64 lower-case hexadecimal digits, or no `algorithm:` before them.
    #[error("{0:?} is not a digest; expected sha256: and 64 lower-case hexadecimal digits")]
    Form(String),
}

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(data);
        hasher.finish()
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the algorithm: what the store names files by.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The chain id of a layer with this diffID on top of `parent` (OCI image-spec 1.1, config.md "Layer ChainID").
    pub fn chain(parent: Option<&Self>, diff_id: &Self) -> Self {
        match parent {
            None => *diff_id,
            Some(parent) => Self::of(format!("{parent} {diff_id}").as_bytes()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let form = || DigestError::Form(text.chars().take(160).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(form)?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.chars().take(32).collect()));
        }
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return Err(form());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => Err(form()),
            };
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// An incremental SHA-256.
#[derive(Clone)]
pub struct Hasher(sha::Context);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self(sha::Context::new(&sha::SHA256))
    }

    /// Adds `data` to what was hashed.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(sha256)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips() {
        let empty = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(empty));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "sha256", "sha256:", "sha256:ab", "e3b0", &format!("sha256:{}", "A".repeat(64))] {
            assert!(matches!(text.parse::<Digest>(), Err(DigestError::Form(_))), "{text}");
        }
        let long = format!("sha512:{}", "a".repeat(128));
        assert_eq!(long.parse::<Digest>(), Err(DigestError::Algorithm("sha512".into())));
    }

    #[test]
    fn a_chain_of_one_is_its_diff_id() {
        let diff_id = Digest::of(b"layer");
        assert_eq!(Digest::chain(None, &diff_id), diff_id);
        assert_ne!(Digest::chain(Some(&diff_id), &diff_id), diff_id);
    }
}
