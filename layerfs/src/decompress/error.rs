//! Why a blob was not inflated.

/// A blob that will not be inflated to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// The bytes are not what the format allows, or their checksum is wrong.
    #[error("inflate {format}: {what} (near compressed byte {offset}); the blob is corrupt, fetch it again")]
    Corrupt {
        /// "gzip" or "zstd".
        format: &'static str,
        /// The codec's own words.
        what: String,
        /// How many compressed bytes had been taken.
        offset: u64,
    },
    /// The blob ends inside a member or frame.
    #[error(
        "inflate {format}: the blob ends after {in_bytes} bytes, inside a {unit}; it is truncated, fetch it again"
    )]
    Truncated {
        /// "gzip" or "zstd".
        format: &'static str,
        /// "member" or "frame".
        unit: &'static str,
        /// Compressed bytes that came.
        in_bytes: u64,
    },
    /// Bytes that are neither padding nor another member or frame follow the last one.
    #[error("inflate {format}: unknown data follows the last {unit} at compressed byte {offset}; refused")]
    TrailingData {
        /// "gzip" or "zstd".
        format: &'static str,
        /// "member" or "frame".
        unit: &'static str,
        /// Where it starts.
        offset: u64,
    },
    /// More bytes came out than a layer may have.
    #[error("inflate: the layer is larger than the limit layer_bytes = {layer_bytes}; refused as a bomb")]
    TooLarge {
        /// The limit.
        layer_bytes: u64,
    },
    /// More bytes came out for each byte in than is plausible.
    #[error(
        "inflate: {in_bytes} bytes became {out_bytes}, over the limit ratio = {ratio}; refused as a bomb"
    )]
    Ratio {
        /// Compressed bytes taken.
        in_bytes: u64,
        /// Bytes that came out.
        out_bytes: u64,
        /// The limit.
        ratio: u64,
    },
    /// A zstd frame asks for more memory than is given.
    #[error(
        "inflate zstd: a frame needs a window of more than 2^{window_log} bytes; compress the layer without \
         --ultra --long"
    )]
    Window {
        /// The limit, as a power of two.
        window_log: u32,
    },
    /// The codec could not be set up.
    #[error("set up {format} decompression: {what}")]
    SetUp {
        /// "gzip" or "zstd".
        format: &'static str,
        /// The codec's own words.
        what: String,
    },
    /// The decompressor was used again after it had refused its input.
    #[error("inflate: the blob was refused already")]
    AfterError,
}
