//! The push parser: a state per kind of block that may come next.
//!
//! ```text
//!            +--------------------- content skipped ---------------------+
//!            v                                                           |
//! Header --- x g L K ---> Extension --(payload complete)--> Header       |
//!   |------- S, more ---> GnuSparse ---------------------> entry --------+
//!   |------- pax 1.0 ---> MapInContent ------------------> entry --------+
//!   |------- link+size -> entry -> LinkContent ------------> Header or --+
//!   |------- others ----> entry -----------------------------------------+
//!   +------- zero ------> ZeroBlock -- zero --> End
//! ```
//! A refused block leaves the state at `Failed`, so that nothing is read on from the middle of something.

use std::mem;

use super::assemble::{Assembled, Pending, assemble};
use super::header::{Format, Header, SparseEntries, sparse_extension};
use super::pax::{PaxFields, Scope};
use super::sparse::{MapLines, SparseMap};
use super::{BLOCK_BYTES, Entry, EntryKind, TarError, TarReason};
use crate::Limits;

/// Reads a tar that is pushed in chunks of any size.
#[derive(Debug)]
pub struct TarReader {
    limits: Limits,
    state: State,
    /// Offset in the tar of the next byte to be fed, or of the first one in `straddling`.
    offset: u64,
    /// Bytes that nothing looks at: contents and their padding.
    skip_bytes: u64,
    /// Where the latest header lies: what a torn content belongs to.
    header_offset: u64,
    /// A block that came in several chunks, filled up to `straddling_bytes`.
    straddling: [u8; BLOCK_BYTES],
    straddling_bytes: usize,
    globals: PaxFields,
    pending: Pending,
    /// The payload of extension headers, kept for its capacity.
    scratch: Vec<u8>,
    entries_count: u64,
    metadata_bytes: u64,
}

/// What a whole tar was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarSummary {
    /// Entries that were handed out.
    pub entries_count: u64,
    /// Bytes of the tar, all padding included.
    pub tar_bytes: u64,
}

/// What the next block is.
#[derive(Debug)]
enum State {
    Header,
    Extension(Extension),
    GnuSparse(Box<Waiting>),
    MapInContent(Box<(Waiting, MapLines)>),
    LinkContent(Box<LinkContent>),
    ZeroBlock,
    End,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtensionKind {
    Pax,
    Global,
    LongName,
    LongLink,
}

/// An extension header whose payload is being collected in the reader's scratch buffer.
#[derive(Debug)]
struct Extension {
    kind: ExtensionKind,
    left_bytes: usize,
    header_offset: u64,
}

/// A sparse entry whose map is being read.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) map: SparseMap,
    /// Bytes after the header (and its extension blocks), a 1.0 map included, padding not.
    pub(super) content_bytes: u64,
}

/// A hard link that claims content: whether it has any shows in the next block.
#[derive(Debug)]
struct LinkContent {
    path: Box<[u8]>,
    header_offset: u64,
    format: Format,
    content_bytes: u64,
}

/// What a block led to.
struct Step {
    next: State,
    skip_bytes: u64,
    entry: Option<Entry>,
}

impl Step {
    fn to(next: State) -> Self {
        Self { next, skip_bytes: 0, entry: None }
    }
}

impl TarReader {
    /// A reader at the start of a tar.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            state: State::Header,
            offset: 0,
            skip_bytes: 0,
            header_offset: 0,
            straddling: [0; BLOCK_BYTES],
            straddling_bytes: 0,
            globals: PaxFields::default(),
            pending: Pending::default(),
            scratch: Vec::new(),
            entries_count: 0,
            metadata_bytes: 0,
        }
    }

    /// Takes the next bytes of the tar and hands out each entry whose header they complete. How the tar is cut into
    /// chunks changes nothing.
    ///
    /// # Errors
    /// The first thing that is wrong with the tar, or what `entry` answered. The reader is of no use after that.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        entry: &mut dyn FnMut(Entry) -> Result<(), TarError>,
    ) -> Result<(), TarError> {
        let end = self.offset + self.straddling_bytes as u64 + bytes.len() as u64;
        let excess_bytes = end.saturating_sub(self.limits.layer_bytes);
        if excess_bytes == 0 {
            return self.feed_allowed(bytes, entry);
        }
        let allowed = bytes.len().saturating_sub(usize::try_from(excess_bytes).unwrap_or(usize::MAX));
        self.feed_allowed(&bytes[..allowed], entry)?;
        self.state = State::Failed;
        let reason = TarReason::Limit { limit: "layer_bytes", asked: 0, allowed: self.limits.layer_bytes };
        Err(TarError::new(b"", self.offset, reason))
    }

    fn feed_allowed(
        &mut self,
        mut bytes: &[u8],
        entry: &mut dyn FnMut(Entry) -> Result<(), TarError>,
    ) -> Result<(), TarError> {
        while !bytes.is_empty() {
            if matches!(self.state, State::End) {
                self.offset += bytes.len() as u64;
                return Ok(());
            }
            if self.skip_bytes > 0 {
                let skipped = usize::try_from(self.skip_bytes).unwrap_or(usize::MAX).min(bytes.len());
                self.skip_bytes -= skipped as u64;
                self.offset += skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            if self.straddling_bytes == 0
                && let Some((block, rest)) = bytes.split_first_chunk()
            {
                bytes = rest;
                self.block(block, entry)?;
                continue;
            }
            let taken = (BLOCK_BYTES - self.straddling_bytes).min(bytes.len());
            let (now, rest) = bytes.split_at(taken);
            self.straddling[self.straddling_bytes..][..taken].copy_from_slice(now);
            self.straddling_bytes += taken;
            bytes = rest;
            if self.straddling_bytes == BLOCK_BYTES {
                self.straddling_bytes = 0;
                let block = self.straddling;
                self.block(&block, entry)?;
            }
        }
        Ok(())
    }

    /// Ends the tar. Missing end-of-archive blocks are fine.
    ///
    /// # Errors
    /// When the tar ends inside a header, an extension or a content, or was refused before.
    pub fn finish(self) -> Result<TarSummary, TarError> {
        let torn = |path: &[u8], offset, inside, missing_bytes| {
            Err(TarError::new(path, offset, TarReason::Torn { inside, missing_bytes }))
        };
        if self.straddling_bytes > 0 {
            return torn(b"", self.offset, "a header", (BLOCK_BYTES - self.straddling_bytes) as u64);
        }
        if self.skip_bytes > 0 {
            return torn(b"", self.header_offset, "an entry's content or its padding", self.skip_bytes);
        }
        match self.state {
            State::Failed => Err(TarError::new(b"", self.offset, TarReason::AfterError)),
            State::Extension(extension) => {
                torn(b"", extension.header_offset, "an extension header", extension.left_bytes as u64)
            }
            State::GnuSparse(waiting) => {
                torn(&waiting.entry.path, waiting.entry.header_offset, "a sparse map", waiting.content_bytes)
            }
            State::MapInContent(both) => {
                let Waiting { entry, content_bytes, .. } = &both.0;
                torn(&entry.path, entry.header_offset, "a sparse map", *content_bytes)
            }
            State::LinkContent(link) if matches!(link.format, Format::Ustar | Format::Star) => {
                torn(&link.path, link.header_offset, "a hard link's content", link.content_bytes)
            }
            _ if !self.pending.is_empty() => {
                Err(TarError::new(self.pending.shown_path(), self.offset, TarReason::DanglingExtension))
            }
            _ => Ok(TarSummary { entries_count: self.entries_count, tar_bytes: self.offset }),
        }
    }

    /// Takes the block at `self.offset`.
    fn block(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        entry: &mut dyn FnMut(Entry) -> Result<(), TarError>,
    ) -> Result<(), TarError> {
        let offset = self.offset;
        let step = match mem::replace(&mut self.state, State::Failed) {
            State::Header => self.header(block),
            State::Extension(extension) => self.extension(block, extension),
            State::GnuSparse(waiting) => {
                self.gnu_sparse(sparse_extension(block), waiting, BLOCK_BYTES as u64)
            }
            State::MapInContent(both) => self.map_in_content(block, both),
            State::LinkContent(link) => self.link_content(block, &link),
            State::ZeroBlock if is_zero(block) => Ok(Step::to(State::End)),
            State::ZeroBlock => Err(TarError::new(b"", offset, TarReason::LoneZeroBlock)),
            State::End | State::Failed => Err(TarError::new(b"", offset, TarReason::AfterError)),
        }?;
        self.offset += BLOCK_BYTES as u64;
        self.skip_bytes = step.skip_bytes;
        if let Some(found) = step.entry {
            self.account(&found).map_err(|reason| TarError::new(&found.path, found.header_offset, reason))?;
            entry(found)?;
        }
        self.state = step.next;
        Ok(())
    }

    /// Counts the entry against the limits that hold for all of them together.
    fn account(&mut self, entry: &Entry) -> Result<(), TarReason> {
        let limit = |limit, asked, allowed| Err(TarReason::Limit { limit, asked, allowed });
        self.entries_count += 1;
        if self.entries_count > self.limits.entries_count {
            return limit("entries_count", 0, self.limits.entries_count);
        }
        self.metadata_bytes += entry.metadata_bytes();
        if self.metadata_bytes > self.limits.metadata_bytes {
            return limit("metadata_bytes", 0, self.limits.metadata_bytes);
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Step, TarError> {
        let offset = self.offset;
        self.header_offset = offset;
        if block[0] == 0 && is_zero(block) {
            return match self.pending.is_empty() {
                true => Ok(Step::to(State::ZeroBlock)),
                false => Err(TarError::new(self.pending.shown_path(), offset, TarReason::DanglingExtension)),
            };
        }
        let header = Header::check(block).ok_or_else(|| TarError::new(b"", offset, TarReason::Checksum))?;
        let fail = |reason| TarError::new(header.name(), offset, reason);
        let kind = match header.typeflag() {
            // `X` is what Solaris called it before POSIX did.
            b'x' | b'X' => ExtensionKind::Pax,
            b'g' => ExtensionKind::Global,
            b'L' => ExtensionKind::LongName,
            b'K' => ExtensionKind::LongLink,
            _ => return self.entry(header),
        };
        self.pending.refuse_second(kind).map_err(fail)?;
        let size_bytes = header.bounded(super::header::SIZE, u64::MAX).map_err(fail)?;
        if size_bytes > self.limits.pax_bytes {
            let allowed = self.limits.pax_bytes;
            return Err(fail(TarReason::Limit { limit: "pax_bytes", asked: size_bytes, allowed }));
        }
        let extension = Extension { kind, left_bytes: size_bytes as usize, header_offset: offset };
        self.scratch.clear();
        match extension.left_bytes {
            0 => self.extension_complete(kind).map_err(fail),
            _ => Ok(Step::to(State::Extension(extension))),
        }
    }

    fn extension(&mut self, block: &[u8; BLOCK_BYTES], mut extension: Extension) -> Result<Step, TarError> {
        let taken = extension.left_bytes.min(BLOCK_BYTES);
        self.scratch.extend_from_slice(&block[..taken]);
        extension.left_bytes -= taken;
        if extension.left_bytes > 0 {
            return Ok(Step::to(State::Extension(extension)));
        }
        self.extension_complete(extension.kind)
            .map_err(|reason| TarError::new(self.pending.shown_path(), extension.header_offset, reason))
    }

    fn extension_complete(&mut self, kind: ExtensionKind) -> Result<Step, TarReason> {
        match kind {
            ExtensionKind::Global => self.globals.apply(&self.scratch, Scope::Global, &self.limits)?,
            ExtensionKind::Pax => {
                let fields = self.pending.pax.insert(self.globals.clone());
                fields.apply(&self.scratch, Scope::Entry, &self.limits)?;
            }
            ExtensionKind::LongName => self.pending.long_name = Some(long_text(&self.scratch)?),
            ExtensionKind::LongLink => self.pending.long_link = Some(long_text(&self.scratch)?),
        }
        Ok(Step::to(State::Header))
    }

    /// A header that is not an extension: everything that was pending belongs to it.
    fn entry(&mut self, header: Header<'_>) -> Result<Step, TarError> {
        let offset = self.offset;
        let mut pending = mem::take(&mut self.pending);
        if pending.pax.is_none() && self.globals != PaxFields::default() {
            pending.pax = Some(self.globals.clone());
        }
        let assembled = assemble(header, &mut pending, offset, &self.limits);
        let fail = |reason| {
            let path = pending.shown_path();
            TarError::new(if path.is_empty() { header.name() } else { path }, offset, reason)
        };
        let content = |bytes: u64| padded(bytes, offset + BLOCK_BYTES as u64, &self.limits).map_err(fail);
        match assembled.map_err(fail)? {
            Assembled::Skip { content_bytes } => {
                Ok(Step { next: State::Header, skip_bytes: content(content_bytes)?, entry: None })
            }
            Assembled::Entry { entry, content_bytes } => {
                Ok(Step { next: State::Header, skip_bytes: content(content_bytes)?, entry: Some(entry) })
            }
            Assembled::LinkWithSize { entry, content_bytes } => {
                content(content_bytes)?;
                let (path, header_offset) = (entry.path.clone(), entry.header_offset);
                let link = LinkContent { path, header_offset, format: header.format(), content_bytes };
                Ok(Step { next: State::LinkContent(Box::new(link)), skip_bytes: 0, entry: Some(entry) })
            }
            Assembled::GnuSparse(waiting) => {
                content(waiting.content_bytes)?;
                self.gnu_sparse(header.sparse(), waiting, BLOCK_BYTES as u64)
            }
            Assembled::MapInContent(waiting) => {
                content(waiting.content_bytes)?;
                Ok(Step::to(State::MapInContent(Box::new((*waiting, MapLines::default())))))
            }
        }
    }

    /// A header or extension block of an old GNU sparse file, `block_bytes` before what follows it.
    fn gnu_sparse(
        &mut self,
        (runs, more): (SparseEntries<'_>, bool),
        mut waiting: Box<Waiting>,
        block_bytes: u64,
    ) -> Result<Step, TarError> {
        let limits = &self.limits;
        let pushed = runs.into_iter().try_for_each(|run| waiting.map.push(run?, limits));
        pushed.map_err(|reason| TarError::new(&waiting.entry.path, waiting.entry.header_offset, reason))?;
        if more {
            return Ok(Step::to(State::GnuSparse(waiting)));
        }
        self.sparse_complete(*waiting, self.offset + block_bytes)
    }

    fn map_in_content(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        mut both: Box<(Waiting, MapLines)>,
    ) -> Result<Step, TarError> {
        let (waiting, lines) = &mut *both;
        let fail = |waiting: &Waiting, reason| {
            TarError::new(&waiting.entry.path, waiting.entry.header_offset, reason)
        };
        let complete = lines.block(block, &mut waiting.map, &self.limits);
        let complete = complete.map_err(|reason| fail(waiting, reason))?;
        // The map is part of the content; one that reaches beyond it is none.
        let left = waiting.content_bytes.checked_sub(BLOCK_BYTES as u64);
        let left = left.filter(|&left| complete || left > 0);
        let left =
            left.ok_or_else(|| fail(waiting, TarReason::Sparse("the map is longer than the content")))?;
        waiting.content_bytes = left;
        match complete {
            true => self.sparse_complete(both.0, self.offset + BLOCK_BYTES as u64),
            false => Ok(Step::to(State::MapInContent(both))),
        }
    }

    /// The map is known and the data starts at `content_offset`.
    fn sparse_complete(&mut self, waiting: Waiting, content_offset: u64) -> Result<Step, TarError> {
        let Waiting { mut entry, map, content_bytes } = waiting;
        let finished = map.finish(content_offset, content_bytes).and_then(|data| {
            entry.kind = EntryKind::File(data);
            padded(content_bytes, content_offset, &self.limits)
        });
        match finished {
            Ok(skip_bytes) => Ok(Step { next: State::Header, skip_bytes, entry: Some(entry) }),
            Err(reason) => Err(TarError::new(&entry.path, entry.header_offset, reason)),
        }
    }

    /// The block after a hard link that claims content. POSIX lets a link carry the file's bytes again; v7 and GNU
    /// tars leave the file's size in a link that carries nothing. In a POSIX tar a header there could be either.
    fn link_content(&mut self, block: &[u8; BLOCK_BYTES], link: &LinkContent) -> Result<Step, TarError> {
        let is_header = is_zero(block) || Header::check(block).is_some();
        match (is_header, link.format) {
            (true, Format::V7 | Format::Gnu) => self.header(block),
            (true, Format::Ustar | Format::Star) => {
                Err(TarError::new(&link.path, link.header_offset, TarReason::AmbiguousLinkContent))
            }
            (false, _) => {
                let padded = link.content_bytes.next_multiple_of(BLOCK_BYTES as u64);
                Ok(Step { next: State::Header, skip_bytes: padded - BLOCK_BYTES as u64, entry: None })
            }
        }
    }
}

/// `content_bytes` with padding; refused when that alone takes the layer over its limit, so that no later sum of
/// offsets overflows.
fn padded(content_bytes: u64, offset: u64, limits: &Limits) -> Result<u64, TarReason> {
    let end = content_bytes.checked_next_multiple_of(BLOCK_BYTES as u64);
    match end.filter(|&padded| padded <= limits.layer_bytes.saturating_sub(offset)) {
        Some(padded) => Ok(padded),
        None => {
            Err(TarReason::Limit { limit: "layer_bytes", asked: content_bytes, allowed: limits.layer_bytes })
        }
    }
}

/// The payload of a GNU long name or link: text, ended by NULs.
fn long_text(payload: &[u8]) -> Result<Vec<u8>, TarReason> {
    let end = payload.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    match &payload[..end] {
        [] => Err(TarReason::NoName),
        text if text.contains(&0) => Err(TarReason::Nul),
        text => Ok(text.to_vec()),
    }
}

fn is_zero(block: &[u8; BLOCK_BYTES]) -> bool {
    block.iter().fold(0, |all, &byte| all | byte) == 0
}

/// Reads a whole tar that lies in memory, or in a mapping of it: contents are jumped over, not touched.
///
/// # Errors
/// The first thing that is wrong with the tar.
pub fn read_all(tar: &[u8], limits: &Limits) -> Result<Vec<Entry>, TarError> {
    let mut entries = Vec::new();
    let mut reader = TarReader::new(limits);
    reader.feed(tar, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    reader.finish()?;
    Ok(entries)
}
