//! What the cell was asked for and what became of it, on disk before it is acted on.
//!
//! ```text
//! append(record) ... append(record) -> commit: frames of bounded size, one write, one fdatasync for all of them
//! open: read, cut a torn tail, replay                                              (format, record)
//! compact: the same in fewer words, beside it, then renamed over it
//! ROOT/cell/journal                                                               (on a full disk: reserve)
//! ```
//! A `kill -9` loses nothing that was written. A crash of the machine loses what was not synced: what is answered to a
//! caller, and the results of tasks, are synced first; that a container is being prepared or runs is written only, as a
//! crash of the machine ends it anyway.

pub mod format;
pub mod record;
mod reserve;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use format::Damage;
pub use record::{Kept, Known, Message, Record};
pub use reserve::RESERVE_BYTES_PER_INSTANCE;

use super::error::{CellError, Result};

/// Bytes after which a journal is compacted at the earliest.
pub const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// It is compacted when it has grown to so many times what it was when it was last.
const GROWTH_MAX: u64 = 4;
/// A compaction that failed is tried again when the journal has grown by this part of the least that is compacted.
const COMPACT_AGAIN_PART: u64 = 8;
/// Bytes that a frame of several records has at most. A record's own are far below what a frame may have: a spec's
/// 256 KiB in base64.
const FRAME_BYTES_MAX: usize = 4 << 20;
const _: () = assert!(FRAME_BYTES_MAX < format::PAYLOAD_BYTES_MAX);

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
    /// Bytes that the payload of a frame of several records has at most.
    frame_bytes_max: usize,
    is_spoiled: bool,
    /// Bytes that are kept free beyond what is written; 0: none. See [`reserve`].
    reserve_bytes: u64,
    /// How much of the file has blocks of the disk for sure.
    reserved_bytes: u64,
    /// It is not compacted before it has so many bytes: there was no room for that.
    compact_not_before_bytes: u64,
}

impl Journal {
    /// Opens the journal in `directory`, or makes it, and says what it knows.
    ///
    /// # Errors
    /// [`CellError::Journal`] when it is damaged beyond a torn tail, [`CellError::Io`].
    pub fn open(directory: &Path, compact_bytes_min: u64) -> Result<(Self, Known)> {
        Self::open_with(directory, compact_bytes_min, FRAME_BYTES_MAX)
    }

    fn open_with(directory: &Path, compact_bytes_min: u64, frame_bytes_max: usize) -> Result<(Self, Known)> {
        let path = directory.join("journal");
        let failed = |action| CellError::io(action, &path);
        let (known, old) = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                let read = (&mut file).take(format::FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
                read.map_err(failed("read the journal"))?;
                let (known, whole_bytes) =
                    replayed(&bytes).map_err(|damage| CellError::Journal { path: path.clone(), damage })?;
                (known, Some((file, whole_bytes as u64)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Known::default(), None),
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
            frame_bytes_max,
            is_spoiled: false,
            reserve_bytes: 0,
            reserved_bytes: 0,
            compact_not_before_bytes: 0,
        };
        if let Err(error) = journal.compact(&known) {
            // The disk may be full: a cell that comes up nevertheless can be drained and cleared.
            let Some((file, whole_bytes)) = old.filter(|_| !journal.is_spoiled) else { return Err(error) };
            tracing::warn!(%error, "the journal is gone on with as it is");
            journal.go_on(file, whole_bytes)?;
        }
        Ok((journal, known))
    }

    /// Appends to a journal that is there, without its torn tail.
    fn go_on(&mut self, mut file: File, whole_bytes: u64) -> Result<()> {
        let length_bytes = file.metadata().map_err(CellError::io("look at", &self.path))?.len();
        // Cutting would give the reserve back as well.
        let is_torn = length_bytes != whole_bytes;
        let cut = if is_torn { file.set_len(whole_bytes) } else { Ok(()) };
        let cut = cut.and_then(|()| file.sync_all());
        cut.and_then(|()| file.seek(SeekFrom::Start(whole_bytes)))
            .map_err(CellError::io("cut the torn end off", &self.path))?;
        self.file = file;
        (self.bytes, self.synced_bytes, self.compact_bytes) = (whole_bytes, whole_bytes, whole_bytes);
        Ok(())
    }

    /// Adds a record to what the next commit writes.
    ///
    /// # Errors
    /// [`CellError::Io`] when it cannot be encoded.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        encode(&mut self.pending, record).map_err(CellError::io("encode a record of", &self.path))
    }

    /// Writes what was appended; with `durable` it is on the disk afterwards.
    ///
    /// # Errors
    /// [`CellError::Io`]. What could not be written stays for the next commit, unless the journal
    /// [is spoiled](Self::is_spoiled).
    pub fn commit(&mut self, durable: bool) -> Result<()> {
        if !self.pending.is_empty() {
            let mut frames = Vec::with_capacity(self.pending.len() + format::FRAME_HEAD_BYTES);
            frames_of(&mut frames, &self.pending, self.synced_bytes, self.frame_bytes_max);
            if let Err(error) = self.file.write_all(&frames) {
                // A piece of a frame would hide what is written after it. What was reserved goes with it.
                self.reserved_bytes = 0;
                let cut =
                    self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
                self.is_spoiled |= cut.is_err();
                cut.map_err(CellError::io("cut a piece of a frame off", &self.path))?;
                return Err(CellError::io("write to", &self.path)(error));
            }
            self.bytes += frames.len() as u64;
            self.pending.clear();
        }
        if durable { self.sync() } else { Ok(()) }
    }

    /// Brings to the disk what was written. What was appended since is not.
    ///
    /// # Errors
    /// [`CellError::Io`]: nobody knows then what is on the disk.
    pub fn sync(&mut self) -> Result<()> {
        if self.synced_bytes < self.bytes {
            self.file.sync_data().map_err(CellError::io("sync", &self.path))?;
            self.synced_bytes = self.bytes;
        }
        Ok(())
    }

    /// Whether nobody knows any more what the file holds: it must not be written to.
    pub fn is_spoiled(&self) -> bool {
        self.is_spoiled
    }

    /// Bytes of what was appended and not committed.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Takes back what was appended after the first so many [pending bytes](Self::pending_bytes).
    pub fn drop_pending_after(&mut self, pending_bytes: usize) {
        self.pending.truncate(pending_bytes);
    }

    /// Whether [`compact`](Self::compact) is worth it.
    pub fn wants_compaction(&self) -> bool {
        let grown_bytes = self.compact_bytes.saturating_mul(GROWTH_MAX).min(format::FILE_BYTES_MAX / 2);
        let compact_bytes = self.compact_bytes_min.max(grown_bytes);
        self.bytes > compact_bytes.max(self.compact_not_before_bytes)
    }

    /// Says the same in fewer words. What was appended and not committed is taken for said.
    ///
    /// # Errors
    /// [`CellError::Io`]; the journal is as it was, unless it [is spoiled](Self::is_spoiled).
    pub fn compact(&mut self, known: &Known) -> Result<()> {
        let beside = self.path.with_extension("new");
        let mut payload = Vec::new();
        for record in known.records() {
            encode(&mut payload, &record).map_err(CellError::io("encode a record of", &self.path))?;
        }
        let mut bytes = format::HEADER.to_vec();
        frames_of(&mut bytes, &payload, 0, self.frame_bytes_max);
        if bytes.len() as u64 > format::FILE_BYTES_MAX {
            let size = io::Error::new(io::ErrorKind::FileTooLarge, "remove instances that have ended");
            return Err(CellError::io("keep in its bounds", &self.path)(size));
        }
        let write = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            Ok(file)
        };
        let written = write();
        if written.is_err() {
            let _ = std::fs::remove_file(&beside); // it takes room where there is none
            self.compact_not_before_bytes = self.bytes + self.compact_bytes_min / COMPACT_AGAIN_PART;
        }
        // From the rename on the old file has no name: what is written goes to the new one, whatever comes.
        self.file = written.map_err(CellError::io("write anew", &self.path))?;
        self.bytes = bytes.len() as u64;
        (self.synced_bytes, self.compact_bytes) = (self.bytes, self.bytes);
        self.pending.clear();
        // The old file's blocks are free now.
        (self.reserved_bytes, self.compact_not_before_bytes) = (0, 0);
        if let Err(error) = self.reserve(0) {
            tracing::warn!(%error, "nothing new is started until there is room on the disk");
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let named = File::open(directory).and_then(|directory| directory.sync_all());
        // After a crash of the machine the old file may have the name again, without what follows.
        self.is_spoiled |= named.is_err();
        named.map_err(CellError::io("sync the directory of", &self.path))
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Records, a line each, as frames: of several records where they fit, of one where it is larger.
fn frames_of(out: &mut Vec<u8>, payload: &[u8], synced_bytes: u64, frame_bytes_max: usize) {
    let mut rest = payload;
    loop {
        let within = rest.get(..frame_bytes_max).unwrap_or(rest);
        let is_end = |byte: &u8| *byte == b'\n';
        let end = if within.len() == rest.len() {
            rest.len()
        } else {
            let last = within.iter().rposition(is_end).or_else(|| rest.iter().position(is_end));
            last.map_or(rest.len(), |last| last + 1)
        };
        let (frame, later) = rest.split_at(end);
        format::write(out, frame, synced_bytes);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

fn replayed(bytes: &[u8]) -> std::result::Result<(Known, usize), Damage> {
    if bytes.len() as u64 > format::FILE_BYTES_MAX {
        return Err(Damage::Size);
    }
    let (known, whole_bytes) = record::parse(bytes)?;
    if whole_bytes < bytes.len() {
        let cut = bytes.len() - whole_bytes;
        tracing::warn!("cut {cut} bytes off the journal that a crash of the machine had left unfinished");
    }
    Ok((known, whole_bytes))
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
            was_up: false,
            ports: Vec::new(),
            attached: None,
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
    fn what_is_larger_than_a_frame_is_several() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, mut expected) = Journal::open_with(directory.path(), 1 << 10, 700).expect("opened");
        let mut records = vec![spec()];
        records.extend((0..100).map(|number| kept(&format!("i{number}"))));
        records.push(Record::Spec { digest: "large".into(), message: Message(vec![7; 2000]) });
        for record in &records {
            journal.append(record).expect("appended");
            let mut line = serde_json::to_vec(record).expect("encoded");
            line.push(b'\n');
            expected.replay(&line).expect("known");
        }
        journal.commit(true).expect("committed");
        let lengths = |directory: &Path| {
            let bytes = std::fs::read(directory.join("journal")).expect("read");
            let contents = format::read(&bytes).expect("whole");
            assert_eq!(contents.whole_bytes, bytes.len());
            contents.payloads.iter().map(|payload| payload.len()).collect::<Vec<_>>()
        };
        let committed = lengths(directory.path());
        assert!(committed.len() > 10, "{committed:?}");
        assert_eq!(committed.iter().filter(|length| **length > 700).count(), 1, "the large record's own");
        journal.compact(&expected).expect("compacted");
        let compacted = lengths(directory.path());
        assert!(compacted.len() > 10 && compacted.iter().all(|length| *length <= 700), "{compacted:?}");
        expected.specs.remove("large"); // nobody uses it
        assert_eq!(opened(directory.path()).1, expected);
    }

    #[test]
    fn more_than_a_frame_may_have_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = opened(directory.path());
        let message = vec![b'x'; 192 << 10];
        let record = Record::Spec { digest: "d".into(), message: Message(message) };
        let mut bytes = 0;
        while bytes <= format::PAYLOAD_BYTES_MAX {
            journal.append(&record).expect("appended");
            bytes = journal.pending_bytes();
        }
        journal.append(&kept("last")).expect("appended");
        journal.commit(false).expect("committed");
        drop(journal);
        assert!(opened(directory.path()).1.instances.contains_key("last"));
    }

    #[test]
    fn a_journal_that_cannot_be_compacted_is_gone_on_with_and_its_torn_tail_cut() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal");
        let (mut journal, _) = opened(directory.path());
        for record in [spec(), kept("a")] {
            journal.append(&record).expect("appended");
        }
        journal.commit(true).expect("committed");
        drop(journal);
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, [&whole[..], b"\x0b\xa1\x1d\xce torn"].concat()).expect("written");
        // No file of that name can be made, as on a full disk.
        std::fs::create_dir(path.with_extension("new")).expect("made");
        let (mut journal, known) = opened(directory.path());
        assert_eq!(known.instances.len(), 1);
        assert_eq!(std::fs::read(&path).expect("read"), whole, "the tail is cut");
        journal.append(&kept("b")).expect("appended");
        journal.commit(true).expect("committed");
        assert!(journal.compact(&known).is_err() && !journal.is_spoiled());
        drop(journal);
        std::fs::remove_dir(path.with_extension("new")).expect("removed");
        assert_eq!(opened(directory.path()).1.instances.len(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_taken_back_or_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = opened(directory.path());
        journal.append(&spec()).expect("appended");
        journal.append(&kept("a")).expect("appended");
        let pending_bytes = journal.pending_bytes();
        journal.append(&kept("b")).expect("appended");
        let file = std::mem::replace(&mut journal.file, File::open("/dev/full").expect("opened"));
        assert!(journal.commit(false).is_err(), "it is not open for writing");
        assert!(journal.is_spoiled(), "a cut failed as well");
        (journal.file, journal.is_spoiled) = (file, false);
        journal.drop_pending_after(pending_bytes);
        journal.commit(true).expect("committed");
        assert_eq!(opened(directory.path()).1.instances.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused() {
        let mut known = Known::default();
        assert!(matches!(known.replay(b"{\"later\":{}}\n"), Err(Damage::Record(_))));
        assert!(matches!(known.replay(b"\xff\n"), Err(Damage::Record(_))));
    }
}
