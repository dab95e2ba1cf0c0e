//! `--userns`: whether the container has a user namespace of its own, and how its ids map to the host's.
//!
//! ```text
//! host                           no user namespace (the default)
//! auto                           ids 0.. map to the range that /etc/subuid and /etc/subgid give to `celda`,
//!                                or else to `containers` or `root`; all such containers share it
//! map:C:H:N[,C:H:N...]           container ids C..C+N are host ids H..H+N, for users and groups alike
//! map:C:H:N[,...]/C:H:N[,...]    users before the slash, groups after it
//! ```
//! The order of a range is that of podman's `--uidmap` and of user_namespaces(7): container, host, count.

use std::fmt::Write as _;
use std::str::FromStr;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::spec::FlagError;

/// The kernel's own bound on the lines of a uid_map (user_namespaces(7), since Linux 4.15).
pub const RANGES_MAX: usize = 340;
/// How much of /etc/subuid is read.
pub const SUBID_BYTES_MAX: usize = 1 << 20;
/// Whose ranges `auto` takes, in order.
const SUBID_OWNERS: [&str; 3] = ["celda", "containers", "root"];

/// A run of ids: `container..container + count` inside are `host..host + count` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// As the OCI runtime spec has it.
    pub fn to_oci(self) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(self.container)
            .host_id(self.host)
            .size(self.count)
            .build()
            .expect("every field of the builder is set, and none is validated")
    }
}

/// What was asked for by `--userns`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Userns {
    /// The host's own user namespace.
    #[default]
    Host,
    /// The range of /etc/subuid and /etc/subgid.
    Auto,
    /// Explicit ranges.
    Map {
        /// Of user ids.
        uids: Vec<IdRange>,
        /// Of group ids.
        gids: Vec<IdRange>,
    },
}

impl FromStr for Userns {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |why: &'static str| FlagError::new("--userns", text, why);
        match text {
            "" | "host" => return Ok(Self::Host),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        let maps = text.strip_prefix("map:").ok_or_else(|| {
            wrong("it is host, auto or map:CONTAINER:HOST:COUNT[,...][/...], as map:0:100000:65536")
        })?;
        let (uids, gids) = maps.split_once('/').unwrap_or((maps, maps));
        Ok(Self::Map { uids: ranges(uids).map_err(wrong)?, gids: ranges(gids).map_err(wrong)? })
    }
}

fn ranges(text: &str) -> Result<Vec<IdRange>, &'static str> {
    let mut found = Vec::new();
    for part in text.split(',') {
        if found.len() == RANGES_MAX {
            return Err("the kernel takes at most 340 ranges");
        }
        let mut numbers = part.split(':').map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(Result::ok);
        let range = match (next(), next(), next()) {
            (Some(container), Some(host), Some(count)) => IdRange { container, host, count },
            _ => return Err("a range is three numbers, CONTAINER:HOST:COUNT"),
        };
        if numbers.next().is_some() {
            return Err("a range is three numbers, CONTAINER:HOST:COUNT");
        }
        found.push(range);
    }
    validate(&found)?;
    Ok(found)
}

/// Whether the kernel would take these ranges: none empty, none beyond the last id, no overlap on either side,
/// and id 0 of the container mapped, since the container's start runs as it.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn validate(ranges: &[IdRange]) -> Result<(), &'static str> {
    if ranges.is_empty() || ranges.len() > RANGES_MAX {
        return Err("there must be one to 340 ranges");
    }
    for range in ranges {
        // 4294967295 is "no id" everywhere (user_namespaces(7)).
        let fits = |first: u32| u64::from(first) + u64::from(range.count) <= u64::from(u32::MAX);
        if range.count == 0 || !fits(range.container) || !fits(range.host) {
            return Err("a range has at least one id and ends below 4294967295");
        }
    }
    let overlap = |first: fn(&IdRange) -> u32| {
        let mut sorted: Vec<(u64, u64)> = ranges
            .iter()
            .map(|range| (first(range).into(), u64::from(first(range)) + u64::from(range.count)))
            .collect();
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| pair[0].1 > pair[1].0)
    };
    if overlap(|range| range.container) || overlap(|range| range.host) {
        return Err("two ranges overlap");
    }
    if !ranges.iter().any(|range| range.container == 0) {
        return Err("id 0 of the container must be mapped");
    }
    Ok(())
}

/// Where id `inside` is outside, if it is mapped.
pub fn to_host(ranges: &[IdRange], inside: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = inside.checked_sub(range.container)?;
        (offset < range.count).then(|| range.host + offset)
    })
}

/// The text of `/proc/<pid>/uid_map` for these ranges.
pub fn to_map_file(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for range in ranges {
        let _ = writeln!(text, "{} {} {}", range.container, range.host, range.count);
    }
    text
}

/// The ranges `auto` means, from the text of /etc/subuid or /etc/subgid (subuid(5): `owner:first:count`), laid
/// one after the other from container id 0; `None` when no owner of ours has one.
pub fn from_subid(text: &str) -> Option<Vec<IdRange>> {
    SUBID_OWNERS.iter().find_map(|owner| {
        let mut next = 0u32;
        let mut found = Vec::new();
        for line in text.lines() {
            let mut fields = line.trim().split(':');
            if fields.next() != Some(owner) || found.len() == RANGES_MAX {
                continue;
            }
            let (Some(Ok(host)), Some(Ok(count)), None) =
                (fields.next().map(str::parse), fields.next().map(str::parse), fields.next())
            else {
                continue;
            };
            let mut longer = found.clone();
            longer.push(IdRange { container: next, host, count });
            if validate(&longer).is_ok() {
                next += count;
                found = longer;
            }
        }
        (!found.is_empty()).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(text: &str) -> Result<Userns, FlagError> {
        text.parse()
    }

    #[test]
    fn the_grammar() {
        assert_eq!(map("host"), Ok(Userns::Host));
        assert_eq!(map("auto"), Ok(Userns::Auto));
        let Ok(Userns::Map { uids, gids }) = map("map:0:100000:1000,1000:5000:1/0:7:9") else { panic!() };
        assert_eq!(to_map_file(&uids), "0 100000 1000\n1000 5000 1\n");
        assert_eq!(to_map_file(&gids), "0 7 9\n");
        assert_eq!(to_host(&uids, 1000), Some(5000));
        assert_eq!(to_host(&uids, 999), Some(100_999));
        assert_eq!(to_host(&uids, 1001), None);
    }

    #[test]
    fn wrong_maps_are_refused() {
        for wrong in [
            "keep-id",
            "0:100000:65536",
            "map:",
            "map:0:1",
            "map:0:1:2:3",
            "map:0:1:0",
            "map:1:1:1",
            "map:0:1:4294967295",
            "map:0:4294967290:10",
            "map:0:1:10,5:100:10",
            "map:0:1:10,10:5:10",
            "map:0:1:1/",
            "map:-1:0:1",
        ] {
            assert!(map(wrong).is_err(), "{wrong}");
        }
        let many = vec!["0:0:1"; 400].join(",");
        assert!(map(&format!("map:{many}")).is_err());
    }

    #[test]
    fn auto_takes_the_first_owner_of_ours() {
        let text = "me:1:9\ncontainers:200000:65536\n# celda:1:1\nroot:5:5\ncontainers:bad:1\ncontainers:300000:10\n";
        let ranges = from_subid(text).unwrap();
        assert_eq!(to_map_file(&ranges), "0 200000 65536\n65536 300000 10\n");
        assert_eq!(from_subid("me:1:9\n"), None);
        assert_eq!(from_subid("celda:1:0\n"), None);
    }

    proptest! {
        #[test]
        fn whatever_parses_is_valid_and_unique(text in "map:[0-9:,/]{0,40}") {
            if let Ok(Userns::Map { uids, gids }) = map(&text) {
                prop_assert!(validate(&uids).is_ok() && validate(&gids).is_ok());
                prop_assert!(to_host(&uids, 0).is_some());
            }
        }

        #[test]
        fn any_subid_file_gives_valid_ranges(text in "(celda|root|x|#|:|[0-9]{1,11}|\n){0,60}") {
            if let Some(ranges) = from_subid(&text) {
                prop_assert!(validate(&ranges).is_ok());
            }
        }
    }
}
