//! The members of a tar, by name, for reading them in place.
//!
//! ```text
//! [header][content ........][header][content ..........]
//!  read    skipped           read    skipped                 members: name -> (offset, bytes) or link
//! ```
//!
//! The push parser of [`crate::tar`] wants every byte; where content lies it is given zeros instead, so a 10 GB
//! archive is opened by reading its headers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::section::{Section, open_regular};
use super::{Cancel, SourceError, Stamp, source_error};
use crate::decompress::Compression;
use crate::tar::{Entry, EntryKind, TarError, TarReader};
use crate::{Error, Limits, Result};

/// Bytes read around a header; pax headers and small members (the JSON files) come along.
const HEADER_READ_BYTES: usize = 16 << 10;
/// What content is replaced by.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// Symbolic links followed from one name.
const LINKS_COUNT_MAX: usize = 8;
/// Members of an archive: a few for each layer, the documents, and their directories.
const MEMBERS_COUNT_MAX: u64 = 100_000;

/// A tar with its members.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    whole: Section,
    stamp: Stamp,
    members: HashMap<Box<[u8]>, Member>,
}

#[derive(Debug)]
enum Member {
    File { start: u64, bytes: u64 },
    Link(Box<[u8]>),
}

impl Archive {
    /// Reads the headers of the tar at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is compressed, or is no tar.
    pub fn open(path: &Path, limits: &Limits, cancel: &Cancel) -> Result<Self> {
        let stamp = Stamp::of(path).map_err(Error::io("open", path))?;
        let missing = || source_error(path, SourceError::Missing("the file".into(), "the right path"));
        let whole = open_regular(path)?.ok_or_else(missing)?;
        let mut first = [0; 8];
        let seen = whole.peek(&mut first).map_err(Error::io("read", path))?;
        match Compression::detect(&first[..seen]) {
            Compression::None => {}
            Compression::Gzip => return Err(source_error(path, SourceError::Compressed("gzip"))),
            Compression::Zstd => return Err(source_error(path, SourceError::Compressed("zstd"))),
        }
        let limits = Limits { entries_count: MEMBERS_COUNT_MAX, layer_bytes: u64::MAX, ..limits.clone() };
        let members = read_members(path, &whole, &limits, cancel)?;
        Ok(Self { path: path.to_owned(), whole, stamp, members })
    }

    /// The file's state when it was opened.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The content of the member `name`, through links within the archive.
    pub(super) fn section(&self, name: &str) -> Result<Option<Section>> {
        let mut at = clean(name.as_bytes()).unwrap_or_default();
        for _ in 0..LINKS_COUNT_MAX {
            match self.members.get(at.as_slice()) {
                None => return Ok(None),
                Some(&Member::File { start, bytes }) => {
                    return Ok(Some(Section { file: Arc::clone(&self.whole.file), start, bytes }));
                }
                Some(Member::Link(target)) => at = target.to_vec(),
            }
        }
        let reason =
            SourceError::Shape(format!("{name} is a link to a link, more than {LINKS_COUNT_MAX} times"));
        Err(source_error(&self.path, reason))
    }
}

fn read_members(
    path: &Path,
    whole: &Section,
    limits: &Limits,
    cancel: &Cancel,
) -> Result<HashMap<Box<[u8]>, Member>> {
    let mut members = HashMap::new();
    let mut reader = TarReader::new(limits);
    let mut buffer = vec![0; HEADER_READ_BYTES];
    let (mut at, mut content_end) = (0, 0);
    while at < whole.bytes {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled { what: format!("reading {}", path.display()) });
        }
        let chunk = if at < content_end {
            let skip =
                usize::try_from(content_end.min(whole.bytes) - at).unwrap_or(usize::MAX).min(ZEROS.len());
            &ZEROS[..skip]
        } else {
            let section = Section { file: Arc::clone(&whole.file), start: at, bytes: whole.bytes - at };
            let length = section.peek(&mut buffer).map_err(Error::io("read", path))?;
            &buffer[..length]
        };
        let mut keep = |entry: Entry| -> Result<(), TarError> {
            content_end = content_end.max(note(&mut members, entry));
            Ok(())
        };
        reader.feed(chunk, &mut keep).map_err(|error| source_error(path, error.into()))?;
        at += chunk.len() as u64;
    }
    reader.finish().map_err(|error| source_error(path, error.into()))?;
    Ok(members)
}

/// Keeps a member; answers where its content ends. A later member of the same name replaces the earlier.
fn note(members: &mut HashMap<Box<[u8]>, Member>, entry: Entry) -> u64 {
    let (member, end) = match entry.kind {
        EntryKind::File(data) => match data.segments.as_slice() {
            [] if data.size_bytes == 0 => (Member::File { start: 0, bytes: 0 }, 0),
            [only] if only.length_bytes == data.size_bytes => {
                let end = only.tar_offset + only.length_bytes;
                (Member::File { start: only.tar_offset, bytes: only.length_bytes }, end)
            }
            // A sparse member cannot be read in place; no tool writes one. It counts as absent.
            segments => return segments.iter().map(|s| s.tar_offset + s.length_bytes).max().unwrap_or(0),
        },
        EntryKind::HardLink(target) => (Member::Link(target), 0),
        EntryKind::Symlink(target) => match resolve(&entry.path, &target) {
            Some(target) => (Member::Link(target.into()), 0),
            None => return 0,
        },
        _ => return 0,
    };
    members.insert(entry.path, member);
    end
}

/// Where a symbolic link leads within the archive; none where it leads out of it.
fn resolve(link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let directory = link.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &link[..slash]);
    clean(&[directory, b"/", target].concat())
}

fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within_the_archive() {
        assert_eq!(resolve(b"a/layer.tar", b"../b/layer.tar").as_deref(), Some(&b"b/layer.tar"[..]));
        assert_eq!(resolve(b"layer.tar", b"../x"), None);
        assert_eq!(resolve(b"layer.tar", b"/etc/shadow"), None);
    }
}
