//! Why a layout or an archive on this machine has no image for us.

use crate::tar::TarError;

/// Why a local source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file could not be opened or read.
    #[error("{action} {name}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which part of the source.
        name: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A part that must be there is not.
    #[error("{0} is missing; is this {1}?")]
    Missing(String, &'static str),
    /// Something other than a regular file.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// The whole archive is compressed, so no part of it can be read in place.
    #[error(
        "the archive is compressed with {0}; uncompress it first ({0} -d), as its layers are read in place"
    )]
    Compressed(&'static str),
    /// The archive's tar is damaged or hostile.
    #[error("as an archive: {0}")]
    Tar(#[from] TarError),
    /// A document has more bytes than its kind may have.
    #[error("{name} has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Which.
        name: String,
        /// How many.
        bytes: u64,
        /// How many it may have.
        limit: u64,
    },
    /// A blob's length is not what its descriptor says.
    #[error("{name} has {actual} bytes, its descriptor says {expected}")]
    Length {
        /// Which.
        name: String,
        /// As the descriptor has it.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// A JSON file of the source is not what it must be.
    #[error("{name}: {source}")]
    Json {
        /// Which.
        name: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The index of a layout is refused.
    #[error("index.json: {0}")]
    Index(#[from] crate::manifest::ManifestError),
    /// No image has the wanted name.
    #[error("it has no image named {wanted:?}; it has {available}")]
    UnknownTag {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// Several images, and none was named.
    #[error("it has several images; name one after a colon: {available}")]
    Ambiguous {
        /// What there is.
        available: String,
    },
    /// The same, in another way.
    #[error("{0}")]
    Shape(String),
}

/// A list for an error: bounded, or "none".
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    const LISTED_COUNT_MAX: usize = 16;
    let mut names: Vec<String> = names.take(LISTED_COUNT_MAX + 1).collect();
    if names.is_empty() {
        return "none with a name".to_owned();
    }
    if names.len() > LISTED_COUNT_MAX {
        names.truncate(LISTED_COUNT_MAX);
        names.push("others".to_owned());
    }
    names.join(", ")
}
