//! Capabilities: names and numbers, the default set, and what `--cap-add` and `--cap-drop` make of it.
//!
//! A set is one 64-bit word, bit N for capability number N, as in capabilities(7) and
//! `include/uapi/linux/capability.h` (41 capabilities, numbers 0 to 40).

use std::fmt;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

/// Every capability by number, without its `CAP_` prefix (linux/capability.h, Linux 6.18).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when nothing was said: the fourteen of Docker's default.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// How many near names an error lists.
const SUGGESTIONS_MAX: usize = 3;

/// A name that no capability has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("capability {name:?}: there is none of that name{}; see capabilities(7)", did_you_mean(.near))]
pub struct UnknownCapability {
    /// What was asked for.
    pub name: String,
    /// The names most like it, nearest first.
    pub near: Vec<&'static str>,
}

fn did_you_mean(near: &[&str]) -> String {
    if near.is_empty() { String::new() } else { format!(", did you mean {}", near.join(" or ")) }
}

/// A set of capabilities; bit N is capability number N.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// All that are known here.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The default set of a container.
    pub fn docker_default() -> Self {
        DEFAULT.iter().filter_map(|name| number(name)).fold(Self::EMPTY, CapSet::with)
    }

    /// The set whose bits are those of `/proc/<pid>/status` (`CapBnd`, `CapPrm`, ...), less the unknown ones.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits, number N at position N.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether capability `number` is in.
    pub const fn has(self, number: u8) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    /// Whether the capability of that name is in; an unknown name is not.
    pub fn has_name(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.has(number))
    }

    /// This set and capability `number`.
    pub const fn with(self, number: u8) -> Self {
        Self(self.0 | 1 << number)
    }

    /// What is in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one and not in the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers in it, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..NAMES.len() as u8).filter(move |&number| self.has(number))
    }

    /// The set that names make, each with or without `CAP_`, in any case.
    ///
    /// # Errors
    /// [`UnknownCapability`] for the first name that is none.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, UnknownCapability> {
        names.iter().try_fold(Self::EMPTY, |set, name| parse(name.as_ref()).map(|number| set.with(number)))
    }

    /// As the OCI runtime spec lists them.
    pub fn to_oci(self) -> Capabilities {
        self.numbers().filter_map(|number| NAMES[number as usize].parse::<Capability>().ok()).collect()
    }

    /// From the OCI runtime spec's list.
    pub fn from_oci(list: &Capabilities) -> Self {
        list.iter().filter_map(|cap| number(&cap.to_string())).fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.numbers().map(|number| NAMES[number as usize])).finish()
    }
}

/// The number of a capability by name; `CAP_` in front or not, in any case.
pub fn number(name: &str) -> Option<u8> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(bare)).map(|position| position as u8)
}

/// As [`number`], with an error that lists near names.
///
/// # Errors
/// [`UnknownCapability`].
pub fn parse(name: &str) -> Result<u8, UnknownCapability> {
    number(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> UnknownCapability {
    let shown: String = name.chars().take(64).collect();
    let upper = shown.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let mut scored: Vec<(usize, &'static str)> =
        NAMES.iter().map(|known| (distance(bare, known), *known)).collect();
    scored.sort_unstable();
    let close_enough = (bare.len() / 3).max(2);
    let near = scored
        .iter()
        .take_while(|(far, _)| *far <= close_enough)
        .map(|(_, known)| *known)
        .take(SUGGESTIONS_MAX);
    UnknownCapability { near: near.collect(), name: shown }
}

/// Levenshtein's distance; both names are short (the caller bounds them).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// What `--cap-add` and `--cap-drop` make of `base`, by Docker's rule.
///
/// `ALL` in `drop` starts from nothing, `ALL` in `add` from everything; the names of the other list then
/// apply to that. A capability that is in both lists stays, as Docker has it.
///
/// # Errors
/// [`UnknownCapability`] for a name that is none.
pub fn apply(base: CapSet, add: &[String], drop: &[String]) -> Result<CapSet, UnknownCapability> {
    let (add_all, added) = split_all(add)?;
    let (drop_all, dropped) = split_all(drop)?;
    Ok(match (add_all, drop_all) {
        (true, _) => CapSet::ALL.without(dropped),
        (false, true) => added,
        (false, false) => base.without(dropped).or(added),
    })
}

fn split_all(names: &[String]) -> Result<(bool, CapSet), UnknownCapability> {
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let all = names.iter().any(|name| is_all(&name));
    let named: Vec<&String> = names.iter().filter(|name| !is_all(name)).collect();
    Ok((all, CapSet::from_names(&named)?))
}

/// The five sets of capabilities(7) for a process of `uid` that may have `set`.
///
/// Root gets them permitted and effective. Another user gets only the bounding set: its binaries with file
/// capabilities work, and nothing is inherited (CVE-2022-29162: the inheritable set stays empty).
pub fn five_sets(set: CapSet, uid: u32) -> LinuxCapabilities {
    let held = if uid == 0 { set } else { CapSet::EMPTY };
    LinuxCapabilitiesBuilder::default()
        .bounding(set.to_oci())
        .effective(held.to_oci())
        .permitted(held.to_oci())
        .inheritable(CapSet::EMPTY.to_oci())
        .ambient(CapSet::EMPTY.to_oci())
        .build()
        .expect("every field of the builder is set, and none is validated")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_number_has_one_name_and_the_oci_type_knows_it() {
        for (position, name) in NAMES.iter().enumerate() {
            assert_eq!(number(name), Some(position as u8));
            assert_eq!(number(&format!("cap_{}", name.to_lowercase())), Some(position as u8));
        }
        assert_eq!(CapSet::from_oci(&CapSet::ALL.to_oci()), CapSet::ALL);
        assert_eq!(CapSet::ALL.to_oci().len(), 41);
    }

    #[test]
    fn the_default_is_dockers_mask() {
        assert_eq!(CapSet::docker_default().bits(), 0xa804_25fb);
    }

    #[test]
    fn add_and_drop_follow_dockers_rule() {
        let base = CapSet::docker_default();
        let run = |add: &[&str], drop: &[&str]| apply(base, &strings(add), &strings(drop)).unwrap();
        assert_eq!(run(&[], &[]), base);
        assert_eq!(run(&["NET_ADMIN"], &["CAP_CHOWN"]).bits(), base.bits() & !1 | 1 << 12);
        assert_eq!(run(&["all"], &["SYS_ADMIN"]), CapSet::ALL.without(CapSet::EMPTY.with(21)));
        assert_eq!(run(&["chown"], &["ALL"]), CapSet::EMPTY.with(0));
        assert_eq!(run(&[], &["ALL"]), CapSet::EMPTY);
        assert!(run(&["ALL"], &["ALL"]) == CapSet::ALL);
        assert!(run(&["SYS_TIME"], &["SYS_TIME"]).has_name("SYS_TIME"));
    }

    #[test]
    fn an_unknown_name_lists_near_ones() {
        let error = apply(CapSet::EMPTY, &strings(&["NET_ADMN"]), &[]).unwrap_err();
        assert_eq!(error.near.first(), Some(&"NET_ADMIN"));
        assert!(error.to_string().contains("did you mean NET_ADMIN"), "{error}");
        let error = parse(&"\u{1F980}".repeat(100_000)).unwrap_err();
        assert!(error.near.is_empty() && error.name.chars().count() == 64);
        assert!(parse("").is_err() && parse("CAP_").is_err());
    }

    #[test]
    fn only_root_holds_them_and_nothing_is_inherited() {
        let of = |uid| five_sets(CapSet::docker_default(), uid);
        assert_eq!(of(0).effective().as_ref().map(std::collections::HashSet::len), Some(14));
        assert_eq!(of(1000).effective().as_ref().map(std::collections::HashSet::len), Some(0));
        assert_eq!(of(1000).bounding().as_ref().map(std::collections::HashSet::len), Some(14));
        for uid in [0, 1000] {
            assert!(of(uid).ambient().as_ref().is_some_and(std::collections::HashSet::is_empty));
            assert!(of(uid).inheritable().as_ref().is_some_and(std::collections::HashSet::is_empty));
        }
    }
}
