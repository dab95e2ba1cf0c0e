//! gzip: one inflater, reused for member after member.
//!
//! ```text
//! Between --1f--> Member --trailer right--> Between --00--> Padding
//!    +--anything else: refused                                +--anything but 00: refused
//! ```

use flate2::{Decompress, FlushDecompress, Status};

use super::{DecompressError, Gauge, OUTPUT_CHUNK_BYTES};

/// DEFLATE's largest window, 2^15 bytes: what a gzip member may always use.
const WINDOW_BITS: u8 = 15;
/// The first byte of a member.
const MAGIC: u8 = 0x1f;
const FORMAT: &str = "gzip";
const UNIT: &str = "member";

/// The members of a gzip blob.
#[derive(Debug)]
pub(super) struct Members {
    inflate: Decompress,
    state: State,
    buffer: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing came yet.
    Start,
    Member,
    Between,
    Padding,
}

impl Members {
    pub(super) fn new() -> Self {
        Self {
            inflate: Decompress::new_gzip(WINDOW_BITS),
            state: State::Start,
            buffer: vec![0; OUTPUT_CHUNK_BYTES].into_boxed_slice(),
        }
    }

    pub(super) fn feed<E: From<DecompressError>>(
        &mut self,
        mut input: &[u8],
        gauge: &mut Gauge,
        output: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(&first) = input.first() {
            match (self.state, first) {
                (State::Member, _) => input = self.member(input, gauge, output)?,
                (State::Start, _) => self.state = State::Member,
                (State::Between, MAGIC) => {
                    self.inflate.reset(true);
                    self.state = State::Member;
                }
                (State::Between | State::Padding, 0) => {
                    self.state = State::Padding;
                    let zeros = input.iter().position(|&byte| byte != 0).unwrap_or(input.len());
                    gauge.count(zeros, 0)?;
                    input = &input[zeros..];
                }
                (State::Between | State::Padding, _) => {
                    let offset = gauge.in_bytes;
                    return Err(DecompressError::TrailingData { format: FORMAT, unit: UNIT, offset }.into());
                }
            }
        }
        Ok(())
    }

    /// Inflates until the member ends or `input` does; answers what is left of it.
    fn member<'a, E: From<DecompressError>>(
        &mut self,
        mut input: &'a [u8],
        gauge: &mut Gauge,
        output: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        loop {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, &mut self.buffer, FlushDecompress::None);
            let status = status.map_err(|error| DecompressError::Corrupt {
                format: FORMAT,
                what: error.message().map_or_else(|| error.to_string(), str::to_owned),
                offset: gauge.in_bytes,
            })?;
            // Both fit: they are within the two slices.
            let taken = (self.inflate.total_in() - in_before) as usize;
            let given = (self.inflate.total_out() - out_before) as usize;
            gauge.count(taken, given)?;
            input = &input[taken..];
            if given > 0 {
                output(&self.buffer[..given])?;
            }
            if status == Status::StreamEnd {
                self.state = State::Between;
                return Ok(input);
            }
            let starved = input.is_empty() && given < self.buffer.len();
            if starved || (taken == 0 && given == 0) {
                // Without room to write, or input to read, nothing moves; with both, zlib always takes something.
                return Ok(&input[input.len()..]);
            }
        }
    }

    pub(super) fn finish(&self, gauge: &Gauge) -> Result<(), DecompressError> {
        match self.state {
            State::Between | State::Padding => Ok(()),
            State::Start | State::Member => {
                Err(DecompressError::Truncated { format: FORMAT, unit: UNIT, in_bytes: gauge.in_bytes })
            }
        }
    }
}
