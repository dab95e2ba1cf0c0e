//! From a layer's blob to its tar: gzip, zstd or nothing, pushed in and pushed out, in bounded memory.
//!
//! ```text
//! gzip    member member ... 00 00 00        members follow each other (RFC 1952, 2.2); zeros may pad the end
//! zstd    frame skippable frame ...         RFC 8878, 3.1; skippable ones are skipped
//! plain   the tar itself
//!
//! feed(any chunk) -> inflate -> output(<= OUTPUT_CHUNK_BYTES at a time), gauged against total and ratio
//! ```
mod error;
mod gzip;
mod zstd;

pub use error::DecompressError;

use crate::Limits;

/// Bytes that are handed out at a time: large enough that what is paid per call vanishes, small enough to stay in
/// a core's second-level cache while they are hashed, parsed and written. 32 KiB cost a gzip layer 12 % more time,
/// 1 MiB gain nothing (benches/benches/tar.rs).
pub const OUTPUT_CHUNK_BYTES: usize = 256 << 10;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Tells by a blob's first four bytes. Bytes that begin neither a gzip member nor a zstd frame are plain.
    pub fn detect(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Inflates a blob that is pushed in chunks of any size.
#[derive(Debug)]
pub struct Decompressor {
    codec: Codec,
    gauge: Gauge,
    failed: bool,
}

#[derive(Debug)]
enum Codec {
    Plain,
    Gzip(gzip::Members),
    Zstd(zstd::Frames),
}

impl Decompressor {
    /// A decompressor at the start of a blob.
    ///
    /// # Errors
    /// When the codec cannot be set up, for want of memory.
    pub fn new(kind: Compression, limits: &Limits) -> Result<Self, DecompressError> {
        let codec = match kind {
            Compression::None => Codec::Plain,
            Compression::Gzip => Codec::Gzip(gzip::Members::new()),
            Compression::Zstd => Codec::Zstd(zstd::Frames::new()?),
        };
        Ok(Self { codec, gauge: Gauge::new(limits), failed: false })
    }

    /// Takes the next bytes of the blob and hands out what they inflate to.
    ///
    /// # Errors
    /// A corrupt blob, one beyond its limits, or what `output` answered. Nothing more comes out after that.
    pub fn feed<E: From<DecompressError>>(
        &mut self,
        input: &[u8],
        output: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.failed {
            return Err(DecompressError::AfterError.into());
        }
        let gauge = &mut self.gauge;
        let answer = match &mut self.codec {
            Codec::Plain => plain(input, gauge, output),
            Codec::Gzip(members) => members.feed(input, gauge, output),
            Codec::Zstd(frames) => frames.feed(input, gauge, output),
        };
        self.failed = answer.is_err();
        answer
    }

    /// Ends the blob; answers how many bytes came out.
    ///
    /// # Errors
    /// When the blob ends inside a member or frame, or was refused before.
    pub fn finish(self) -> Result<u64, DecompressError> {
        if self.failed {
            return Err(DecompressError::AfterError);
        }
        match &self.codec {
            Codec::Plain => {}
            Codec::Gzip(members) => members.finish(&self.gauge)?,
            Codec::Zstd(frames) => frames.finish(&self.gauge)?,
        }
        Ok(self.gauge.out_bytes)
    }
}

fn plain<E: From<DecompressError>>(
    input: &[u8],
    gauge: &mut Gauge,
    output: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    input.chunks(OUTPUT_CHUNK_BYTES).try_for_each(|chunk| {
        gauge.count(chunk.len(), chunk.len())?;
        output(chunk)
    })
}

/// Bytes in and out, against their limits.
#[derive(Debug)]
struct Gauge {
    in_bytes: u64,
    out_bytes: u64,
    layer_bytes: u64,
    ratio: u64,
    ratio_floor_bytes: u64,
}

impl Gauge {
    fn new(limits: &Limits) -> Self {
        let &Limits { layer_bytes, ratio, ratio_floor_bytes, .. } = limits;
        Self { in_bytes: 0, out_bytes: 0, layer_bytes, ratio, ratio_floor_bytes }
    }

    /// Counts what one step took and gave, before it is handed out.
    fn count(&mut self, taken: usize, given: usize) -> Result<(), DecompressError> {
        self.in_bytes += taken as u64;
        self.out_bytes += given as u64;
        if self.out_bytes > self.layer_bytes {
            return Err(DecompressError::TooLarge { layer_bytes: self.layer_bytes });
        }
        if self.out_bytes > self.ratio_floor_bytes
            && self.out_bytes > self.in_bytes.saturating_mul(self.ratio)
        {
            let &mut Self { in_bytes, out_bytes, ratio, .. } = self;
            return Err(DecompressError::Ratio { in_bytes, out_bytes, ratio });
        }
        Ok(())
    }
}
