//! Builds tars byte by byte, right ones and wrong ones. Shared by tests, benches and the fuzz corpus, each of which
//! uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

const BLOCK: usize = 512;

/// One header block.
#[derive(Clone)]
pub struct Head {
    pub block: [u8; BLOCK],
}

impl Head {
    /// A POSIX header of `kind` with mode 0644, ids 0 and mtime 0.
    pub fn ustar(kind: u8, name: &str) -> Self {
        Self::v7(kind, name).field(257, b"ustar\x0000")
    }

    /// A GNU header.
    pub fn gnu(kind: u8, name: &str) -> Self {
        Self::v7(kind, name).field(257, b"ustar  \0")
    }

    /// A header without magic.
    pub fn v7(kind: u8, name: &str) -> Self {
        let head = Self { block: [0; BLOCK] };
        let head = head.field(0, name.as_bytes()).octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0);
        head.octal(124, 12, 0).octal(136, 12, 0).field(156, &[kind])
    }

    pub fn field(mut self, start: usize, bytes: &[u8]) -> Self {
        self.block[start..start + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn octal(self, start: usize, length: usize, value: u64) -> Self {
        let text = format!("{value:0width$o}\0", width = length - 1);
        self.field(start, text.as_bytes())
    }

    pub fn base_256(self, start: usize, length: usize, value: i64) -> Self {
        let mut bytes = vec![if value < 0 { 0xff } else { 0 }; length];
        bytes[length - 8..].copy_from_slice(&value.to_be_bytes());
        bytes[0] |= 0x80;
        self.field(start, &bytes)
    }

    pub fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }

    pub fn ids(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 12, mtime)
    }

    pub fn link(self, target: &str) -> Self {
        self.field(157, target.as_bytes())
    }

    pub fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    /// The block with its checksum.
    pub fn sealed(mut self) -> [u8; BLOCK] {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

/// A tar that grows.
#[derive(Default, Clone)]
pub struct TarBuilder {
    pub bytes: Vec<u8>,
}

impl TarBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// A header as it is.
    pub fn head(mut self, head: Head) -> Self {
        self.bytes.extend_from_slice(&head.sealed());
        self
    }

    /// Bytes padded to a block.
    pub fn content(mut self, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// A header whose size is the content's, and the content.
    pub fn entry(self, head: Head, content: &[u8]) -> Self {
        self.head(head.size(content.len() as u64)).content(content)
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(Head::ustar(b'0', name), content)
    }

    pub fn directory(self, name: &str) -> Self {
        self.head(Head::ustar(b'5', name).mode(0o755))
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(Head::ustar(b'x', "PaxHeaders/x"), &pax_records(records))
    }

    pub fn global(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(Head::ustar(b'g', "PaxHeaders/g"), &pax_records(records))
    }

    pub fn long_name(self, name: &str) -> Self {
        self.entry(Head::gnu(b'L', "././@LongLink"), format!("{name}\0").as_bytes())
    }

    pub fn long_link(self, name: &str) -> Self {
        self.entry(Head::gnu(b'K', "././@LongLink"), format!("{name}\0").as_bytes())
    }

    /// The two zero blocks.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

/// Records with the length that counts itself.
pub fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}
