//! zstd: one decoder context, which starts anew at each frame and skips the skippable ones itself.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::{DecompressError, Gauge, OUTPUT_CHUNK_BYTES};

/// The largest window, 2^27 = 128 MiB: what zstd allows by default, and all of its levels but `--ultra --long` use.
/// A decoder of a small window takes only what its frame asks for.
const WINDOW_LOG: u32 = 27;
const FORMAT: &str = "zstd";
const UNIT: &str = "frame";

/// The frames of a zstd blob.
pub(super) struct Frames {
    decoder: Decoder<'static>,
    /// Bytes of a frame have come, and its end has not.
    inside: bool,
    frames_count: u64,
    buffer: Box<[u8]>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { inside, frames_count, .. } = self;
        f.debug_struct("Frames")
            .field("inside", inside)
            .field("frames_count", frames_count)
            .finish_non_exhaustive()
    }
}

impl Frames {
    pub(super) fn new() -> Result<Self, DecompressError> {
        let set_up =
            |error: std::io::Error| DecompressError::SetUp { format: FORMAT, what: error.to_string() };
        let mut decoder = Decoder::new().map_err(set_up)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(set_up)?;
        let buffer = vec![0; OUTPUT_CHUNK_BYTES].into_boxed_slice();
        Ok(Self { decoder, inside: false, frames_count: 0, buffer })
    }

    pub(super) fn feed<E: From<DecompressError>>(
        &mut self,
        mut input: &[u8],
        gauge: &mut Gauge,
        output: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut flushed = true;
        while !input.is_empty() || !flushed {
            let starts = !self.inside;
            let mut source = InBuffer::around(input);
            let mut sink = OutBuffer::around(&mut self.buffer[..]);
            let hint = self.decoder.run(&mut source, &mut sink);
            let (taken, given) = (source.pos(), sink.pos());
            let hint = hint.map_err(|error| self.refusal(&error, starts, gauge))?;
            gauge.count(taken, given)?;
            input = &input[taken..];
            if given > 0 {
                output(&self.buffer[..given])?;
            }
            self.inside = hint != 0;
            self.frames_count += u64::from(hint == 0);
            // A full buffer may have more behind it, but not beyond the end of a frame.
            flushed = given < self.buffer.len() || hint == 0;
            if taken == 0 && given == 0 {
                break;
            }
        }
        Ok(())
    }

    fn refusal(&self, error: &std::io::Error, starts: bool, gauge: &Gauge) -> DecompressError {
        let what = error.to_string();
        let offset = gauge.in_bytes;
        if what.contains("too much memory") {
            return DecompressError::Window { window_log: WINDOW_LOG };
        }
        if starts && self.frames_count > 0 && what.contains("Unknown frame") {
            return DecompressError::TrailingData { format: FORMAT, unit: UNIT, offset };
        }
        DecompressError::Corrupt { format: FORMAT, what, offset }
    }

    pub(super) fn finish(&self, gauge: &Gauge) -> Result<(), DecompressError> {
        if self.inside || self.frames_count == 0 {
            return Err(DecompressError::Truncated { format: FORMAT, unit: UNIT, in_bytes: gauge.in_bytes });
        }
        Ok(())
    }
}
