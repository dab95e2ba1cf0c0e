//! How far each log was sent, over a restart of the agent.
//!
//! ```text
//! NAME SEQUENCE\n    the log's directory, and the sequence of the record that comes next
//! crc HEX\n          of all lines before: a file that is torn or changed counts as none
//! ```
//! The file is renamed into place and not synced: after a power cut lines may be sent again.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::cell::logs::{LOGS_COUNT_MAX, NAME_BYTES_MAX};

/// Bytes of the file: a line for each log, with a number of at most twenty digits.
const FILE_BYTES_MAX: u64 = (LOGS_COUNT_MAX * (NAME_BYTES_MAX + 22)) as u64;

/// The place in each log.
#[derive(Debug)]
pub(super) struct Places {
    path: PathBuf,
    next: HashMap<String, u64>,
    is_changed: bool,
}

impl Places {
    /// Those that were written down, and whether what was there could not be read.
    pub(super) fn open(path: PathBuf) -> (Self, bool) {
        let read = read(&path);
        let is_damaged = read.is_none();
        (Self { path, next: read.unwrap_or_default(), is_changed: false }, is_damaged)
    }

    pub(super) fn next(&self, name: &str) -> Option<u64> {
        self.next.get(name).copied()
    }

    pub(super) fn set(&mut self, name: &str, next: u64) {
        match self.next.get_mut(name) {
            Some(known) => *known = next,
            None => drop(self.next.insert(name.to_owned(), next)),
        }
        self.is_changed = true;
    }

    /// Keeps those of these logs only.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        let before = self.next.len();
        self.next.retain(|name, _| is_there(name));
        self.is_changed |= self.next.len() != before;
    }

    /// Writes what changed.
    pub(super) fn write(&mut self) -> std::io::Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        let mut text = String::new();
        for (name, next) in &self.next {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{name} {next}\n"));
        }
        let crc = crc32fast::hash(text.as_bytes());
        let new = self.path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.write_all(format!("crc {crc:08x}\n").as_bytes())?;
        std::fs::rename(&new, &self.path)?;
        self.is_changed = false;
        Ok(())
    }
}

/// Nothing when there is a file that says nothing.
fn read(path: &Path) -> Option<HashMap<String, u64>> {
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => drop(file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(HashMap::new()),
        Err(_) => return None,
    }
    let (lines, crc) = text.strip_suffix('\n')?.rsplit_once("crc ")?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(lines.as_bytes()) {
        return None;
    }
    lines
        .lines()
        .map(|line| line.split_once(' ').and_then(|(name, next)| Some((name.to_owned(), next.parse().ok()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_and_damage_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("places");
        let (mut places, is_damaged) = Places::open(path.clone());
        assert!(!is_damaged && places.next("web-1").is_none());
        for (name, next) in [("web-1", 7), ("web-2", 8), ("crc", 9), ("web-1", 10)] {
            places.set(name, next);
        }
        places.retain(|name| name != "web-2");
        places.write().expect("written");
        let (places, is_damaged) = Places::open(path.clone());
        assert!(!is_damaged);
        assert_eq!(
            (places.next("web-1"), places.next("web-2"), places.next("crc")),
            (Some(10), None, Some(9))
        );
        let whole = std::fs::read(&path).expect("read");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            assert!(Places::open(path.clone()).1, "cut at {cut}");
        }
        let mut other = whole.clone();
        other[6] ^= 1;
        std::fs::write(&path, other).expect("written");
        assert!(Places::open(path).1);
    }
}
