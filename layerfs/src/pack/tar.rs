//! Writing a deterministic tar: ustar (POSIX.1-1988), with a pax header where a path does not fit.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::PackError;
use super::tree::{Content, Node, PackTree};

const BLOCK_BYTES: usize = 512;
/// Bytes of the name and link fields.
const NAME_BYTES: usize = 100;
/// The most that eleven octal digits say.
const SIZE_MAX: u64 = (1 << 33) - 1;

/// Writes all of `tree`, the root directory first, and the two blocks of the end.
pub(super) fn write(tree: &PackTree, out: &mut dyn Write) -> Result<(), PackError> {
    let wrong = |path: &Path| PackError::io("write the layer's tar at", path.to_owned());
    let root = Path::new("");
    entry(out, root, &Node::Directory { mode: 0o755 }, 0).map_err(wrong(root))?;
    for (path, node) in tree.iter() {
        let Node::File { content, .. } = node else {
            entry(out, path, node, 0).map_err(wrong(path))?;
            continue;
        };
        match content {
            Content::Text(text) => {
                entry(out, path, node, text.len() as u64).map_err(wrong(path))?;
                out.write_all(text.as_bytes()).map_err(wrong(path))?;
                pad(out, text.len() as u64).map_err(wrong(path))?;
            }
            Content::Host(host) => {
                let file = File::open(host).map_err(PackError::io("open", host))?;
                let bytes = file.metadata().map_err(PackError::io("look at", host))?.len();
                if bytes > SIZE_MAX {
                    return Err(PackError::TooLarge { path: path.to_owned(), bytes });
                }
                entry(out, path, node, bytes).map_err(wrong(path))?;
                let copied = io::copy(&mut file.take(bytes), out).map_err(PackError::io("copy", host))?;
                if copied != bytes {
                    let cut =
                        io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read");
                    return Err(PackError::io("copy", host)(cut));
                }
                pad(out, bytes).map_err(wrong(path))?;
            }
        }
    }
    out.write_all(&[0; 2 * BLOCK_BYTES]).map_err(wrong(root))
}

fn entry(out: &mut dyn Write, path: &Path, node: &Node, bytes: u64) -> io::Result<()> {
    let (kind, mode, link) = match node {
        Node::Directory { mode } => (b'5', *mode, &b""[..]),
        Node::Symlink(target) => (b'2', 0o777, target.as_os_str().as_bytes()),
        Node::File { mode, .. } => (b'0', *mode, &b""[..]),
    };
    let mut name = b"./".to_vec();
    name.extend_from_slice(path.as_os_str().as_bytes());
    if kind == b'5' && name.len() > 2 {
        name.push(b'/');
    }
    let mut records = Vec::new();
    for (key, value) in [("path", name.as_slice()), ("linkpath", link)] {
        if value.len() > NAME_BYTES {
            records.extend(record(key, value));
        }
    }
    if !records.is_empty() {
        out.write_all(&header(b"././@PaxHeader", b"", b'x', 0o644, records.len() as u64))?;
        out.write_all(&records)?;
        pad(out, records.len() as u64)?;
    }
    out.write_all(&header(&name, link, kind, mode, bytes))
}

/// `"LENGTH KEY=VALUE\n"`, where the length counts itself (POSIX.1-2001, pax).
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn header(name: &[u8], link: &[u8], kind: u8, mode: u32, bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, value: &[u8]| block[at..at + value.len()].copy_from_slice(value);
    put(0, &name[..name.len().min(NAME_BYTES)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{bytes:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(NAME_BYTES)]);
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn pad(out: &mut dyn Write, bytes: u64) -> io::Result<()> {
    let over = usize::try_from(bytes % BLOCK_BYTES as u64).unwrap_or(0);
    if over == 0 { Ok(()) } else { out.write_all(&[0; BLOCK_BYTES][over..]) }
}
