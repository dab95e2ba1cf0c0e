//! The plain path: `write` and `read` of whole buffers on the thread that has them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustix::fs::Advice;

use crate::Digest;
use crate::digest::Hasher;
use crate::io::{BUFFER_BYTES, Returns, Writeback};

/// Appends buffers to a file.
pub(crate) struct Writer {
    file: Arc<File>,
    returns: Returns,
    writeback: Writeback,
    written_bytes: u64,
}

impl Writer {
    pub(crate) fn new(file: File, returns: Returns) -> Self {
        let file = Arc::new(file);
        Self { writeback: Writeback::new(file.clone()), file, returns, written_bytes: 0 }
    }

    pub(crate) fn write(&mut self, mut buffer: Vec<u8>) -> io::Result<()> {
        (&*self.file).write_all(&buffer)?;
        self.written_bytes += buffer.len() as u64;
        self.writeback.advance(self.written_bytes);
        buffer.clear();
        // Whoever fills buffers may have given up; then nobody wants it.
        let _ = self.returns.try_send(buffer);
        Ok(())
    }

    pub(crate) fn finish(self) -> u64 {
        self.written_bytes
    }
}

/// Hashes a whole file. The kernel's readahead keeps the disk busy meanwhile.
pub(crate) fn hash(mut file: File) -> io::Result<(Digest, u64)> {
    // Advice only: reading works without.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), bytes)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
