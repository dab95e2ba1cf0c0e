//! How much an app may log: a bucket of bytes that all its instances share; pure.

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes of lines per second, over all instances of the app on this cell; line ends count.
    pub bytes_per_s: u64,
    /// Bytes that may come at once after silence. At least a line's, or long lines never pass.
    pub burst_bytes: u64,
}

const NS_PER_S: u128 = 1_000_000_000;

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Bytes times nanoseconds per second, so that no fraction is lost however often it is filled.
    level: u128,
    filled_at_ns: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now_ns: u64) -> Self {
        Self { rate, level: u128::from(rate.burst_bytes) * NS_PER_S, filled_at_ns: now_ns }
    }

    /// The limit.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes so many bytes, or none. A clock that goes back adds nothing.
    pub fn take(&mut self, bytes: u64, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = now_ns;
        let full = u128::from(self.rate.burst_bytes) * NS_PER_S;
        self.level = full.min(self.level + u128::from(passed) * u128::from(self.rate.bytes_per_s));
        let wanted = u128::from(bytes) * NS_PER_S;
        let has_room = wanted <= self.level;
        if has_room {
            self.level -= wanted;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(Rate { bytes_per_s: 10, burst_bytes: 20 }, 5);
        assert!(bucket.take(20, 5) && !bucket.take(1, 5));
        assert!(!bucket.take(1, 100_000_004) && bucket.take(1, 100_000_005));
        assert!(!bucket.take(21, u64::MAX), "more than a full bucket never passes");
        assert!(bucket.take(20, 0), "it was filled, and a clock that went back takes nothing away");
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            rate in 1..1_000_u64, burst in 0..1_000_u64, asks in proptest::collection::vec((0..500_u64, 0..2_000_000_000_u64), 0..50)
        ) {
            let mut bucket = Bucket::new(Rate { bytes_per_s: rate, burst_bytes: burst }, 0);
            let (mut now, mut passed) = (0_u64, 0_u64);
            for (bytes, wait) in asks {
                now += wait;
                if bucket.take(bytes, now) { passed += bytes }
                prop_assert!(u128::from(passed) * NS_PER_S <= u128::from(burst) * NS_PER_S + u128::from(now) * u128::from(rate));
            }
        }
    }
}
