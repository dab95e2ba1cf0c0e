//! What cgroup v2 files say: parsers over their text, without I/O.
//!
//! Formats are those of the kernel's Documentation/admin-guide/cgroup-v2.rst: flat keyed (`key value` lines),
//! single values (a number or `max`), and the pressure lines of Documentation/accounting/psi.rst.

/// The number after `key` in a flat keyed file.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// A file of one number; `None` for `max` or anything else.
pub fn single(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A file of one process id per line.
pub fn pids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// The counters of `memory.events` that celda reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// The limit was reached and an allocation was about to fail.
    pub oom: u64,
    /// Tasks killed.
    pub oom_kill: u64,
}

impl MemoryEvents {
    /// From the file's text; a key that is missing counts zero.
    pub fn parse(text: &str) -> Self {
        Self { oom: keyed(text, "oom").unwrap_or(0), oom_kill: keyed(text, "oom_kill").unwrap_or(0) }
    }
}

/// Shares of time in which tasks waited, in hundredths of a percent over ten seconds, a minute, five minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// Over ten seconds.
    pub average_10s: u32,
    /// Over a minute.
    pub average_60s: u32,
    /// Over five minutes.
    pub average_300s: u32,
    /// Microseconds in all.
    pub total_us: u64,
}

/// Pressure stall information.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// Every task waited.
    pub full: Stall,
}

impl Pressure {
    /// From the text of a `*.pressure` file; what is missing counts zero.
    pub fn parse(text: &str) -> Self {
        let mut pressure = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let stall = match words.next() {
                Some("some") => &mut pressure.some,
                Some("full") => &mut pressure.full,
                _ => continue,
            };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "avg10" => stall.average_10s = hundredths(value),
                    "avg60" => stall.average_60s = hundredths(value),
                    "avg300" => stall.average_300s = hundredths(value),
                    "total" => stall.total_us = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        pressure
    }
}

/// `12.34` as 1234.
fn hundredths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction: u32 = fraction.get(..2).and_then(|two| two.parse().ok()).unwrap_or(0);
    whole.parse::<u32>().unwrap_or(0).saturating_mul(100).saturating_add(fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_formats() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(MemoryEvents::parse(events), MemoryEvents { oom: 3, oom_kill: 2 });
        assert_eq!(keyed("populated 1\nfrozen 0\n", "frozen"), Some(0));
        assert_eq!((single("max\n"), single("42\n")), (None, Some(42)));
        assert_eq!(pids("1\n22\n\nx\n"), [1, 22]);
        let text = "some avg10=1.53 avg60=0.87 avg300=100.00 total=2000\nfull avg10=0.00 avg60=0.05 avg300=0.00 total=7\n";
        let pressure = Pressure::parse(text);
        assert_eq!((pressure.some.average_10s, pressure.some.average_300s), (153, 10_000));
        assert_eq!((pressure.full.average_60s, pressure.full.total_us), (5, 7));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}") {
            let _ = (Pressure::parse(&text), MemoryEvents::parse(&text), pids(&text), single(&text));
        }
    }
}
