//! A trace of a real cloud: what arrives when, in tenants' batches, and how long it stays.
//!
//! ```text
//! arrival_s,app,cpu_milli,memory_mib,lifetime_s,censored      one line for each instance, plain or gzip
//! 300,17,2000,3584,1050,0                                     censored = 1: it outlived the trace
//! ```

use crate::Result;
use celda_auction::demand::{BATCH_MAX, Resources};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// A lifetime that does not end with the trace.
pub(super) const FOR_EVER: u32 = u32::MAX;

/// Equal instances of one app that arrive together.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) app: u64,
    pub(super) resources: Resources,
    /// How long each stays, in seconds.
    pub(super) lifetimes_s: Vec<u32>,
}

/// What arrives at one time.
#[derive(Debug, Clone)]
pub(super) struct Bin {
    pub(super) at_s: u32,
    pub(super) arrivals: Vec<Arrival>,
}

#[derive(Deserialize)]
struct Line {
    arrival_s: f64,
    app: u64,
    cpu_milli: u32,
    memory_mib: u32,
    lifetime_s: f64,
    censored: u8,
}

/// Reads a trace; its lines must be in order of arrival.
///
/// # Errors
/// When the file cannot be read, or is no trace.
pub(super) fn read(path: &Path, lines_max: usize) -> Result<Vec<Bin>> {
    let file = File::open(path).map_err(|error| format!("trace {}: {error}", path.display()))?;
    let file = BufReader::new(file);
    let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut bins: Vec<Bin> = Vec::new();
    for line in csv::Reader::from_reader(text).deserialize().take(lines_max) {
        let line: Line = line.map_err(|error| format!("trace {}: {error}", path.display()))?;
        // A negative or absurd number is cut to the nearest that makes sense.
        let at_s = line.arrival_s as u32;
        if bins.last().is_none_or(|bin| bin.at_s != at_s) {
            if bins.last().is_some_and(|bin| bin.at_s > at_s) {
                let path = path.display();
                return Err(format!("trace {path}: arrival {at_s} comes late, sort the lines by it").into());
            }
            bins.push(Bin { at_s, arrivals: Vec::new() });
        }
        let lifetime_s = if line.censored == 0 { line.lifetime_s as u32 } else { FOR_EVER };
        if let Some(bin) = bins.last_mut() {
            bin.add(&line, lifetime_s);
        }
    }
    if bins.is_empty() {
        Err(format!("trace {}: there is nothing in it", path.display()).into())
    } else {
        Ok(bins)
    }
}

impl Bin {
    fn add(&mut self, line: &Line, lifetime_s: u32) {
        let Line { app, cpu_milli, memory_mib, .. } = *line;
        let resources = Resources { cpu_milli, memory_mib, disk_mib: 0, containers: 1, ports: 0 };
        // Lines of a batch follow each other; those of other shapes may be between them.
        let same = self.arrivals.iter_mut().rev().take_while(|arrival| arrival.app == app);
        let mut same = same.filter(|arrival| {
            arrival.resources == resources && arrival.lifetimes_s.len() < BATCH_MAX as usize
        });
        match same.next() {
            Some(arrival) => arrival.lifetimes_s.push(lifetime_s),
            None => self.arrivals.push(Arrival { app, resources, lifetimes_s: vec![lifetime_s] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_become_batches_by_arrival_app_and_shape() {
        let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
        let text = "arrival_s,app,cpu_milli,memory_mib,lifetime_s,censored\n\
            0,1,1000,768,450,0\n0,1,2000,768,450,0\n0,1,1000,768,1050,1\n0,2,1000,768,450,0\n300,3,1000,768,450,0\n";
        file.write_all(text.as_bytes()).unwrap();
        let bins = read(file.path(), usize::MAX).unwrap();
        let shape: Vec<Vec<usize>> = bins
            .iter()
            .map(|bin| bin.arrivals.iter().map(|arrival| arrival.lifetimes_s.len()).collect())
            .collect();
        assert_eq!(shape, [vec![2, 1, 1], vec![1]]);
        assert_eq!(bins[0].arrivals[0].lifetimes_s, [450, FOR_EVER]);
        assert_eq!(bins[1].at_s, 300);
    }

    #[test]
    fn lines_out_of_order_and_rubbish_are_refused() {
        for text in ["300,1,1,1,1,0\n0,1,1,1,1,0\n", "x,1,1,1,1,0\n", "0,1,-5,1,1,0\n", ""] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let head = "arrival_s,app,cpu_milli,memory_mib,lifetime_s,censored\n";
            file.write_all(format!("{head}{text}").as_bytes()).unwrap();
            assert!(read(file.path(), usize::MAX).is_err(), "{text:?}");
        }
    }
}
