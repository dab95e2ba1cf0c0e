//! A layer like those of large images, the same bytes each time: about 370 MB in 14,000 files, 100 MB as gzip.
//!
//! Names, sizes and contents come from one generator. A content is runs of words, which deflate well, between runs of
//! noise, which do not; the shares make gzip arrive near a third of the size, as it does on real Debian layers.

use crate::Result;
use crate::fixture::{LayerBlob, Layout};
use flate2::Compression;

/// Files for each directory.
const FILES_PER_DIRECTORY: usize = 24;
/// Of 256 runs of content this many are noise.
const NOISE_SHARE: u64 = 26;
const RUN_BYTES: usize = 96;
const WORDS: [&str; 16] = [
    "static ",
    "return ",
    "int ",
    "const char *",
    "\n    ",
    "if (",
    ") {\n",
    "}\n",
    "->next",
    "self.",
    "import ",
    "def ",
    "0x00, ",
    "libc",
    " = ",
    ";\n",
];

/// Writes the layer: busybox's place is taken from the `bench` image, so that it runs. Returns it for naming.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn layer(layout: &Layout, busybox: &[u8], tar_bytes: usize) -> Result<LayerBlob> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut layer = layout.layer(Compression::default())?;
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "usr", "usr/lib"] {
        layer.directory(directory)?;
    }
    layer.file("bin/busybox", 0o755, busybox)?;
    layer.link("bin/true", "busybox")?;
    let (mut written, mut number) = (0, 0);
    let mut directory = String::new();
    while written < tar_bytes {
        if number % FILES_PER_DIRECTORY == 0 {
            directory = format!("usr/lib/package-{:04}", number / FILES_PER_DIRECTORY);
            layer.directory(&directory)?;
        }
        let content = random.content();
        layer.file(&format!("{directory}/module_{number:05}.dat"), 0o644, &content)?;
        written += content.len() + 1024;
        number += 1;
    }
    layer.finish()
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Most files are small and a few are large, as in a package: 1 KiB << 0..7, times up to 2.
    fn content(&mut self) -> Vec<u8> {
        let order = (self.next() % 100).pow(2) / 1_300;
        let base = 1_024_usize << order;
        let bytes = base + usize::try_from(self.next()).unwrap_or(0) % base;
        let mut content = Vec::with_capacity(bytes + RUN_BYTES);
        while content.len() < bytes {
            let noise = self.next() % 256 < NOISE_SHARE;
            let end = content.len() + RUN_BYTES;
            while content.len() < end {
                let value = self.next();
                if noise {
                    content.extend_from_slice(&value.to_le_bytes());
                } else {
                    content.extend_from_slice(WORDS[(value >> 60) as usize].as_bytes());
                    content.extend_from_slice(WORDS[(value >> 56 & 15) as usize].as_bytes());
                }
            }
        }
        content.truncate(bytes);
        content
    }
}
