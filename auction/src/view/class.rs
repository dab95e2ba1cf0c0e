//! What the cells of a class are and have, and whether that is what a demand requires.

use crate::demand::Requirements;

/// What cells have in common that a demand may require.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Class {
    /// The machine's architecture, as OCI writes it (`amd64`, `arm64`).
    pub architecture: Box<str>,
    /// The root filesystems that are there.
    pub stacks: Vec<Box<str>>,
    /// Tags that a demand may ask for (Diego's optional placement tags).
    pub tags: Vec<Box<str>>,
    /// Tags that a demand must ask for, so that nothing else runs here (Diego's placement tags).
    pub reserved_for: Vec<Box<str>>,
    /// The volume drivers that are there.
    pub volumes: Vec<Box<str>>,
}

impl Class {
    /// Whether a cell of this class may run what requires that.
    #[must_use]
    pub fn matches(&self, requirements: &Requirements) -> bool {
        let has = |names: &[Box<str>], name: &str| names.iter().any(|known| **known == *name);
        let Requirements { architecture, stack, tags, volumes } = requirements;
        architecture.as_ref().is_none_or(|architecture| *architecture == self.architecture)
            && stack.as_ref().is_none_or(|stack| has(&self.stacks, stack))
            && tags.iter().all(|tag| has(&self.tags, tag) || has(&self.reserved_for, tag))
            && self.reserved_for.iter().all(|tag| has(tags, tag))
            && volumes.iter().all(|volume| has(&self.volumes, volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn a_class_matches_what_it_has() {
        let class = Class {
            architecture: "arm64".into(),
            stacks: names(&["jammy"]),
            tags: names(&["ssd"]),
            reserved_for: Vec::new(),
            volumes: names(&["nfs"]),
        };
        assert!(class.matches(&Requirements::default()));
        let all = Requirements {
            architecture: Some("arm64".into()),
            stack: Some("jammy".into()),
            tags: names(&["ssd"]),
            volumes: names(&["nfs"]),
        };
        assert!(class.matches(&all));
        for missing in [
            Requirements { architecture: Some("amd64".into()), ..all.clone() },
            Requirements { stack: Some("noble".into()), ..all.clone() },
            Requirements { tags: names(&["ssd", "gpu"]), ..all.clone() },
            Requirements { volumes: names(&["smb"]), ..all },
        ] {
            assert!(!class.matches(&missing), "{missing:?}");
        }
    }

    #[test]
    fn a_reserved_class_takes_only_those_who_ask_for_it() {
        let class = Class { reserved_for: names(&["isolated"]), tags: names(&["ssd"]), ..Class::default() };
        let with = |tags: &[&str]| class.matches(&Requirements { tags: names(tags), ..Default::default() });
        assert!(!with(&[]));
        assert!(!with(&["ssd"]));
        assert!(with(&["isolated"]));
        assert!(with(&["ssd", "isolated"]));
    }
}
