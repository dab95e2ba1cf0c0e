//! What the cell was asked for and what became of it, on disk before it is acted on.
//!
//! ```text
//! append(record) ... append(record) -> commit: one frame, one write, one fdatasync for all of them
//! open: read, cut a torn tail, replay                                              (format, record)
//! compact: the same in fewer words, beside it, then renamed over it
//! ROOT/cell/journal
//! ```
//! A `kill -9` loses nothing that was written. A crash of the machine loses what was not synced: what is answered to a
//! caller, and the results of tasks, are synced first; that a container is being prepared or runs is written only, as a
//! crash of the machine ends it anyway.

pub mod format;
pub mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use format::Damage;
pub use record::{Kept, Known, Message, Record};

use super::error::{CellError, Result};

/// Bytes after which a journal is compacted at the earliest.
pub const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// It is compacted when it has grown to so many times what it was when it was last.
const GROWTH_MAX: u64 = 4;

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    bytes: u64,
    synced_bytes: u64,
    /// Its length when it was compacted last.
    compact_bytes: u64,
    compact_bytes_min: u64,
    pending: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `directory`, or makes it, and says what it knows.
    ///
    /// # Errors
    /// [`CellError::Journal`] when it is damaged beyond a torn tail, [`CellError::Io`].
    pub fn open(directory: &Path, compact_bytes_min: u64) -> Result<(Self, Known)> {
        let path = directory.join("journal");
        let failed = |action| CellError::io(action, &path);
        let known = match File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let read = file.take(format::FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
                read.map_err(failed("read the journal"))?;
                replayed(&bytes).map_err(|damage| CellError::Journal { path: path.clone(), damage })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Known::default(),
            Err(error) => return Err(failed("open the journal")(error)),
        };
        // Written anew: a journal that was opened once has no torn tail, and all of it is on the disk.
        let mut journal = Self {
            file: File::open("/dev/null").map_err(CellError::io("open", Path::new("/dev/null")))?,
            path,
            bytes: 0,
            synced_bytes: 0,
            compact_bytes: 0,
            compact_bytes_min,
            pending: Vec::new(),
        };
        journal.compact(&known)?;
        Ok((journal, known))
    }

    /// Adds a record to what the next commit writes.
    ///
    /// # Errors
    /// [`CellError::Io`] when it cannot be encoded.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        encode(&mut self.pending, record).map_err(CellError::io("encode a record of", &self.path))
    }

    /// Writes what was appended, as one frame; with `durable` it is on the disk afterwards.
    ///
    /// # Errors
    /// [`CellError::Io`]. What could not be written stays for the next commit.
    pub fn commit(&mut self, durable: bool) -> Result<()> {
        if !self.pending.is_empty() {
            let mut frame = Vec::with_capacity(self.pending.len() + format::FRAME_HEAD_BYTES);
            format::write(&mut frame, &self.pending, self.synced_bytes);
            if let Err(error) = self.file.write_all(&frame) {
                // A piece of a frame would hide what is written after it.
                let cut = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::End(0)));
                cut.map_err(CellError::io("cut a piece of a frame off", &self.path))?;
                return Err(CellError::io("write to", &self.path)(error));
            }
            self.bytes += frame.len() as u64;
            self.pending.clear();
        }
        if durable && self.synced_bytes < self.bytes {
            self.file.sync_data().map_err(CellError::io("sync", &self.path))?;
            self.synced_bytes = self.bytes;
        }
        Ok(())
    }

    /// Whether [`compact`](Self::compact) is worth it.
    pub fn wants_compaction(&self) -> bool {
        self.bytes > self.compact_bytes_min.max(self.compact_bytes.saturating_mul(GROWTH_MAX))
    }

    /// Says the same in fewer words. What was appended and not committed is taken for said.
    ///
    /// # Errors
    /// [`CellError::Io`]; the journal is as it was.
    pub fn compact(&mut self, known: &Known) -> Result<()> {
        let beside = self.path.with_extension("new");
        let mut payload = Vec::new();
        for record in known.records() {
            encode(&mut payload, &record).map_err(CellError::io("encode a record of", &self.path))?;
        }
        let mut bytes = format::HEADER.to_vec();
        format::write(&mut bytes, &payload, 0);
        let write = || -> io::Result<File> {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside);
            let mut file = options?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            if let Some(directory) = self.path.parent() {
                File::open(directory)?.sync_all()?;
            }
            Ok(file)
        };
        self.file = write().map_err(CellError::io("write anew", &self.path))?;
        self.bytes = bytes.len() as u64;
        (self.synced_bytes, self.compact_bytes) = (self.bytes, self.bytes);
        self.pending.clear();
        Ok(())
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn replayed(bytes: &[u8]) -> std::result::Result<Known, Damage> {
    if bytes.len() as u64 > format::FILE_BYTES_MAX {
        return Err(Damage::Size);
    }
    let (known, whole_bytes) = record::parse(bytes)?;
    if whole_bytes < bytes.len() {
        let cut = bytes.len() - whole_bytes;
        tracing::warn!("cut {cut} bytes off the journal that a crash of the machine had left unfinished");
    }
    Ok(known)
}

fn encode(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::instance::{Machine, Policy};

    fn kept(id: &str) -> Record {
        Record::Instance(Box::new(Kept {
            id: id.into(),
            app: "web".into(),
            index: 0,
            spec: "d".into(),
            reservation: 7,
            created_ms: 1,
            removing: false,
            machine: Machine::new(Policy::default(), 1),
        }))
    }

    fn spec() -> Record {
        Record::Spec { digest: "d".into(), message: Message(vec![0, 255, 10]) }
    }

    fn opened(directory: &Path) -> (Journal, Known) {
        Journal::open(directory, 1 << 10).expect("opened")
    }

    #[test]
    fn what_was_committed_is_known_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, known) = opened(directory.path());
        assert_eq!(known, Known::default());
        for record in [spec(), kept("a"), kept("b"), Record::Gone { id: "a".into() }, Record::Draining(true)]
        {
            journal.append(&record).expect("appended");
        }
        journal.commit(true).expect("committed");
        journal.append(&kept("c")).expect("appended");
        drop(journal); // never committed
        let (_, known) = opened(directory.path());
        assert_eq!(known.instances.keys().collect::<Vec<_>>(), ["b"]);
        assert!(known.draining && known.specs["d"] == [0, 255, 10]);
    }

    #[test]
    fn it_is_compacted_and_says_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, mut expected) = opened(directory.path());
        for round in 0..100 {
            let mut records = vec![spec(), kept("a"), kept("b")];
            if round % 2 == 0 {
                records.push(Record::Gone { id: "b".into() });
            }
            for record in records {
                journal.append(&record).expect("appended");
                let mut line = serde_json::to_vec(&record).expect("encoded");
                line.push(b'\n');
                expected.replay(&line).expect("known");
            }
            journal.commit(false).expect("committed");
            if journal.wants_compaction() {
                journal.compact(&expected).expect("compacted");
            }
            assert!(journal.bytes() < 8 << 10, "it grows without bound");
        }
        assert_eq!(opened(directory.path()).1, expected);
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal");
        let (mut journal, _) = opened(directory.path());
        for record in [spec(), kept("a")] {
            journal.append(&record).expect("appended");
            journal.commit(true).expect("committed");
        }
        drop(journal);
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, [&whole[..], b"\x0b\xa1\x1d\xce torn"].concat()).expect("written");
        assert_eq!(opened(directory.path()).1.instances.len(), 1);
        let mut changed = whole;
        let spec = changed.windows(6).position(|six| six == b"digest").expect("the second frame");
        changed[spec] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        let error = Journal::open(directory.path(), 1 << 10).expect_err("damaged");
        assert!(matches!(error, CellError::Journal { damage: Damage::Frame { .. }, .. }), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), changed, "a refused journal is left as it is");
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused() {
        let mut known = Known::default();
        assert!(matches!(known.replay(b"{\"later\":{}}\n"), Err(Damage::Record(_))));
        assert!(matches!(known.replay(b"\xff\n"), Err(Damage::Record(_))));
    }
}
