//! One entry out of its header and the extensions that came before it.
//!
//! Which source wins for a name: `GNU.sparse.name`, then a GNU long name, then the pax path, then the header; the
//! order in which Go's archive/tar decides, and with it the engines that images were tested on.

use super::header::{self, Format, Header};
use super::path::{normalise, symlink_target};
use super::pax::{PaxFields, PaxSparse};
use super::reader::{ExtensionKind, Waiting};
use super::sparse::SparseMap;
use super::{BLOCK_BYTES, Entry, EntryKind, FileData, Segment, TarReason, Timestamp};
use crate::Limits;

/// The largest size that eleven octal digits can say; above it a header's size means nothing beside a pax size.
const OCTAL_SIZE_BYTES: u64 = (1 << 33) - 1;
/// Linux keeps 12 bits of major and 20 of minor number (kernel `include/linux/kdev_t.h`).
const DEVICE_MAJOR: u64 = (1 << 12) - 1;
const DEVICE_MINOR: u64 = (1 << 20) - 1;

/// Extension headers that wait for their entry.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) pax: Option<PaxFields>,
}

/// What a header stands for.
pub(super) enum Assembled {
    /// Nothing of the tree: labels and the like, with content to skip.
    Skip { content_bytes: u64 },
    /// An entry, complete.
    Entry { entry: Entry, content_bytes: u64 },
    /// A hard link that claims content.
    LinkWithSize { entry: Entry, content_bytes: u64 },
    /// An old GNU sparse file: its map starts in this header.
    GnuSparse(Box<Waiting>),
    /// A pax 1.0 sparse file: its map starts its content.
    MapInContent(Box<Waiting>),
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }

    /// The name an error shows; empty for none.
    pub(super) fn shown_path(&self) -> &[u8] {
        let of_pax = || self.pax.as_ref().and_then(|pax| pax.path.as_deref());
        self.long_name.as_deref().or_else(of_pax).unwrap_or_default()
    }

    /// Refuses an extension whose kind waits already.
    pub(super) fn refuse_second(&self, kind: ExtensionKind) -> Result<(), TarReason> {
        match kind {
            ExtensionKind::Pax if self.pax.is_some() => Err(TarReason::RepeatedExtension("pax")),
            ExtensionKind::LongName if self.long_name.is_some() => {
                Err(TarReason::RepeatedExtension("GNU long name"))
            }
            ExtensionKind::LongLink if self.long_link.is_some() => {
                Err(TarReason::RepeatedExtension("GNU long link"))
            }
            _ => Ok(()),
        }
    }
}

/// What the type flag says, with the historic spellings resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Regular,
    GnuSparse,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    /// A directory whose content is a listing.
    GnuDumpDirectory,
    Fifo,
    /// Describes the archive or the next entry in a way that layers do not use.
    Skipped,
}

impl Type {
    fn of(header: Header<'_>, name_ends_in_slash: bool) -> Result<Self, TarReason> {
        Ok(match header.typeflag() {
            // v7 had no type for directories: only the slash tells.
            0 if name_ends_in_slash => Self::Directory,
            b'0' if name_ends_in_slash && header.format() == Format::V7 => Self::Directory,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'D' => Self::GnuDumpDirectory,
            b'S' if header.format() == Format::Gnu => Self::GnuSparse,
            b'S' => return Err(TarReason::Unsupported("a sparse file of star's own format")),
            b'M' => return Err(TarReason::Unsupported("a file continued from another volume")),
            b'N' => return Err(TarReason::Unsupported("a list of long names of the first GNU tars")),
            // A volume label; Solaris' access control list and extended attribute headers.
            b'V' | b'A' | b'E' => Self::Skipped,
            // POSIX: types that are not known are regular files.
            _ => Self::Regular,
        })
    }

    fn has_content(self) -> bool {
        matches!(
            self,
            Self::Regular | Self::GnuSparse | Self::HardLink | Self::GnuDumpDirectory | Self::Skipped
        )
    }
}

/// Puts an entry together. Takes the extended attributes out of `pending`; the names stay for an error to show.
pub(super) fn assemble(
    header: Header<'_>,
    pending: &mut Pending,
    header_offset: u64,
    limits: &Limits,
) -> Result<Assembled, TarReason> {
    let no_fields = PaxFields::default();
    let xattrs = pending.pax.as_mut().map(|pax| std::mem::take(&mut pax.xattrs)).unwrap_or_default();
    let pax = pending.pax.as_ref().unwrap_or(&no_fields);
    let sparse = pax.sparse.as_deref().filter(|sparse| **sparse != PaxSparse::default());

    let whole_name = sparse
        .and_then(|sparse| sparse.path.as_deref())
        .or(pending.long_name.as_deref())
        .or(pax.path.as_deref());
    let name = match whole_name {
        Some(name) => [&[][..], name],
        None => [header.prefix(), header.name()],
    };
    let kind = Type::of(header, name[1].ends_with(b"/"))?;
    let content_bytes = content_bytes(header, kind, pax)?;
    if kind == Type::Skipped {
        return Ok(Assembled::Skip { content_bytes });
    }
    let path = normalise(name, limits)?;
    let is_directory = matches!(kind, Type::Directory | Type::GnuDumpDirectory);
    if path.is_empty() && !is_directory {
        return Err(TarReason::NoName);
    }
    let mut entry = Entry {
        path,
        kind: EntryKind::Directory,
        mode: (header.bounded(header::MODE, u64::from(u32::MAX))? & 0o7777) as u32,
        uid: id(header, header::UID, pax.uid)?,
        gid: id(header, header::GID, pax.gid)?,
        mtime: match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp { seconds: header.number(header::MTIME)?, nanoseconds: 0 },
        },
        xattrs,
        header_offset,
    };
    if let Some(sparse) = sparse {
        return match kind {
            Type::Regular => pax_sparse(sparse, entry, content_bytes, limits),
            _ => Err(TarReason::Sparse("the entry is not a regular file")),
        };
    }
    if kind == Type::GnuSparse {
        let real_size = header.bounded(header::GNU_REAL_SIZE, u64::MAX)?;
        let map = SparseMap::new(real_size, limits)?;
        return Ok(Assembled::GnuSparse(Box::new(Waiting { entry, map, content_bytes })));
    }
    let target = pending.long_link.as_deref().or(pax.link_path.as_deref()).unwrap_or(header.link_name());
    entry.kind = entry_kind(header, kind, target, content_bytes, header_offset, limits)?;
    Ok(match kind {
        Type::HardLink if content_bytes > 0 => Assembled::LinkWithSize { entry, content_bytes },
        _ => Assembled::Entry { entry, content_bytes },
    })
}

/// What an entry that is not sparse is.
fn entry_kind(
    header: Header<'_>,
    kind: Type,
    target: &[u8],
    content_bytes: u64,
    header_offset: u64,
    limits: &Limits,
) -> Result<EntryKind, TarReason> {
    Ok(match kind {
        Type::Regular | Type::GnuSparse => EntryKind::File(plain_file(header_offset, content_bytes, limits)?),
        Type::HardLink => {
            let target = normalise([&[], target], limits)?;
            if target.is_empty() {
                return Err(TarReason::NoTarget);
            }
            EntryKind::HardLink(target)
        }
        Type::Symlink => EntryKind::Symlink(symlink_target(target, limits)?),
        Type::CharDevice => {
            let (major, minor) = device(header)?;
            EntryKind::CharDevice { major, minor }
        }
        Type::BlockDevice => {
            let (major, minor) = device(header)?;
            EntryKind::BlockDevice { major, minor }
        }
        Type::Fifo => EntryKind::Fifo,
        Type::Directory | Type::GnuDumpDirectory | Type::Skipped => EntryKind::Directory,
    })
}

/// How many bytes follow the header. A pax size is the truth; where the header could have said the same and says
/// something else, nothing is.
fn content_bytes(header: Header<'_>, kind: Type, pax: &PaxFields) -> Result<u64, TarReason> {
    let header_bytes = header.bounded(header::SIZE, u64::MAX)?;
    let Some(pax_bytes) = pax.size else {
        return Ok(if kind.has_content() { header_bytes } else { 0 });
    };
    let header_is_too_small = pax_bytes > OCTAL_SIZE_BYTES && header_bytes <= OCTAL_SIZE_BYTES;
    if pax_bytes != header_bytes && !header_is_too_small {
        return Err(TarReason::SizesDisagree { header_bytes, pax_bytes });
    }
    if pax_bytes > 0 && !kind.has_content() {
        return Err(TarReason::SizeWithoutContent(pax_bytes));
    }
    Ok(pax_bytes)
}

fn plain_file(header_offset: u64, size_bytes: u64, limits: &Limits) -> Result<FileData, TarReason> {
    if size_bytes > limits.file_bytes {
        return Err(TarReason::Limit { limit: "file_bytes", asked: size_bytes, allowed: limits.file_bytes });
    }
    let whole = Segment {
        logical_offset: 0,
        tar_offset: header_offset + BLOCK_BYTES as u64,
        length_bytes: size_bytes,
    };
    let segments = if size_bytes == 0 { Vec::new() } else { vec![whole] };
    Ok(FileData { size_bytes, segments })
}

/// A sparse file of one of the pax formats: 0.0 and 0.1 bring their map along, 1.0 has it in the content.
fn pax_sparse(
    sparse: &PaxSparse,
    mut entry: Entry,
    content_bytes: u64,
    limits: &Limits,
) -> Result<Assembled, TarReason> {
    let real_size = sparse.real_size.ok_or(TarReason::Sparse("no logical size"))?;
    let mut map = SparseMap::new(real_size, limits)?;
    match (sparse.major.unwrap_or(0), sparse.minor.unwrap_or(0)) {
        (1, 0) => return Ok(Assembled::MapInContent(Box::new(Waiting { entry, map, content_bytes }))),
        (0, 0 | 1) => {}
        _ => return Err(TarReason::Sparse("a format that is neither 0.0, 0.1 nor 1.0")),
    }
    sparse.map.iter().try_for_each(|&run| map.push(run, limits))?;
    if sparse.entries_count.is_some_and(|count| count != map.runs_count() as u64) {
        return Err(TarReason::Sparse("not as many runs as it says"));
    }
    entry.kind = EntryKind::File(map.finish(entry.header_offset + BLOCK_BYTES as u64, content_bytes)?);
    Ok(Assembled::Entry { entry, content_bytes })
}

fn id(header: Header<'_>, field: header::Field, pax: Option<u32>) -> Result<u32, TarReason> {
    match pax {
        Some(id) => Ok(id),
        // The bound makes it fit.
        None => Ok(header.bounded(field, u64::from(u32::MAX))? as u32),
    }
}

fn device(header: Header<'_>) -> Result<(u32, u32), TarReason> {
    let major = header.bounded(header::DEVMAJOR, DEVICE_MAJOR)?;
    let minor = header.bounded(header::DEVMINOR, DEVICE_MINOR)?;
    Ok((major as u32, minor as u32))
}
