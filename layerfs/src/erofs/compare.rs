//! Whether an index shows a tree: the same names, inodes and bytes, whatever numbers the inodes have.

use std::collections::HashMap;
use std::io;

use crate::tar::{FileData, Segment};
use crate::tree::{InodeId, Kind, Tree};

use super::chunks::runs;
use super::write::Content;
use super::{Index, OwnExtent};

/// Bytes compared at a time.
const WINDOW_BYTES: u64 = 1 << 20;

impl Index {
    /// The first thing in which the index whose bytes are `bytes` shows something else than `tree`; `None` if
    /// nothing. `content` reads the layers' tars, for copied chunks only.
    ///
    /// # Errors
    /// What `content` answers.
    pub fn difference(
        &self,
        bytes: &[u8],
        tree: &Tree,
        content: &mut Content<'_>,
    ) -> io::Result<Option<String>> {
        let mut known: HashMap<InodeId, InodeId> = HashMap::new();
        let mut back: HashMap<InodeId, InodeId> = HashMap::new();
        let mut todo: Vec<(Vec<u8>, InodeId, InodeId)> = vec![(Vec::new(), Tree::ROOT, Tree::ROOT)];
        while let Some((path, shown, wanted)) = todo.pop() {
            let say = |what: &str| Ok(Some(format!("{:?}: {what}", String::from_utf8_lossy(&path))));
            match (known.insert(shown, wanted), back.insert(wanted, shown)) {
                (None, None) => {}
                (Some(before), Some(after)) if before == wanted && after == shown => continue,
                _ => return say("hard links differ"),
            }
            if let Some(what) = self.inode_difference(bytes, (shown, tree, wanted), content)? {
                return say(what);
            }
            let (Some(shown), Some(wanted)) = (self.tree.children(shown), tree.children(wanted)) else {
                continue;
            };
            if !shown.keys().eq(wanted.keys()) {
                return say("its names differ");
            }
            for ((name, shown), wanted) in shown.iter().zip(wanted.values()) {
                let path = if path.is_empty() { name.to_vec() } else { [&path, &**name].join(&b'/') };
                todo.push((path, *shown, *wanted));
            }
        }
        Ok(None)
    }

    fn inode_difference(
        &self,
        bytes: &[u8],
        (shown_id, tree, wanted_id): (InodeId, &Tree, InodeId),
        content: &mut Content<'_>,
    ) -> io::Result<Option<&'static str>> {
        let (shown, wanted) = (self.tree.inode(shown_id), tree.inode(wanted_id));
        if (shown.mode, shown.uid, shown.gid, shown.mtime)
            != (wanted.mode, wanted.uid, wanted.gid, wanted.mtime)
        {
            return Ok(Some("mode, owner or time differ"));
        }
        if shown.xattrs != wanted.xattrs {
            return Ok(Some("extended attributes differ"));
        }
        if shown.links != wanted.links {
            return Ok(Some("link counts differ"));
        }
        match (&shown.kind, &wanted.kind) {
            (Kind::File { layer, data }, Kind::File { layer: wanted_layer, data: wanted }) => {
                let own = self.own.get(&shown_id).map_or(&[][..], |own| own);
                if !data.segments.is_empty() && layer != wanted_layer || data.size_bytes != wanted.size_bytes
                {
                    return Ok(Some("size or layer differ"));
                }
                let mut read = |at: u64, into: &mut [u8]| content(*wanted_layer, at, into);
                Ok(data_difference(bytes, data, own, &runs(&wanted.segments), &mut read)?)
            }
            (Kind::Directory(_), Kind::Directory(_)) => Ok(None),
            (shown, wanted) if shown == wanted => Ok(None),
            _ => Ok(Some("what it is, its target or its device number differ")),
        }
    }
}

/// Compares the extents of a file in the index with the `runs` that it should have.
fn data_difference(
    bytes: &[u8],
    data: &FileData,
    own: &[OwnExtent],
    runs: &[Segment],
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Option<&'static str>> {
    let mut shown_bytes = 0;
    for segment in &data.segments {
        let parts = overlapping(runs, segment.logical_offset, segment.length_bytes);
        let offset = |s: &Segment| s.tar_offset.wrapping_sub(s.logical_offset);
        match parts[..] {
            [run]
                if run.logical_offset <= segment.logical_offset
                    && run.logical_offset + run.length_bytes
                        >= segment.logical_offset + segment.length_bytes
                    && offset(&run) == offset(segment) => {}
            _ => return Ok(Some("a chunk points elsewhere")),
        }
        shown_bytes += segment.length_bytes;
    }
    for extent in own {
        let mut done = 0;
        while done < extent.length_bytes {
            let length = WINDOW_BYTES.min(extent.length_bytes - done);
            let start = extent.logical_offset + done;
            let mut wanted = vec![0; length as usize];
            for run in overlapping(runs, start, length) {
                let from = run.logical_offset.max(start);
                let to = (run.logical_offset + run.length_bytes).min(start + length);
                let into = &mut wanted[(from - start) as usize..(to - start) as usize];
                read(run.tar_offset + (from - run.logical_offset), into)?;
                shown_bytes += to - from;
            }
            let index_offset = (extent.index_offset + done) as usize;
            if bytes.get(index_offset..index_offset + wanted.len()) != Some(&wanted[..]) {
                return Ok(Some("a copied chunk has other bytes"));
            }
            done += length;
        }
    }
    let all: u64 = runs.iter().map(|run| run.length_bytes).sum();
    Ok((shown_bytes != all).then_some("data is missing, or there twice"))
}

/// The runs that have a byte between `start` and `start + length`.
fn overlapping(runs: &[Segment], start: u64, length: u64) -> Vec<Segment> {
    let first = runs.partition_point(|run| run.logical_offset + run.length_bytes <= start);
    runs[first..].iter().take_while(|run| run.logical_offset < start + length).copied().collect()
}
