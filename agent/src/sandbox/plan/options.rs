//! Mount options as text to mount attributes, propagation and filesystem parameters.

use std::ffi::CString;

use crate::sandbox::error::{Result, SandboxError};

/// `MOUNT_ATTR_*` of linux/mount.h.
pub(super) const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
pub(crate) const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const ATIME: u64 = 0x70;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// `MS_*` of linux/mount.h that change propagation.
pub(super) const MS_REC: u64 = 0x4000;
pub(super) const MS_UNBINDABLE: u64 = 1 << 17;
pub(super) const MS_PRIVATE: u64 = 1 << 18;
pub(super) const MS_SLAVE: u64 = 1 << 19;
pub(super) const MS_SHARED: u64 = 1 << 20;

/// Options that one mount may have; more is a mistake or an attack.
const OPTIONS_COUNT_MAX: usize = 256;

/// A mount's options, told apart.
#[derive(Debug, Default)]
pub(super) struct MountOptions {
    /// Bind mount, and whether with all that is mounted below.
    pub(super) bind: Option<bool>,
    /// Attributes to set and to clear on the mount itself.
    pub(super) set: u64,
    pub(super) clear: u64,
    /// Attributes to set and to clear on the mount and all below.
    pub(super) set_below: u64,
    pub(super) clear_below: u64,
    /// `MS_SHARED` and the like, with `MS_REC`; 0 for the default, private.
    pub(super) propagation: u64,
    /// Ids are mapped: for the mount, or for all below too.
    pub(super) id_map: Option<bool>,
    /// What the filesystem itself takes.
    pub(super) parameters: Vec<(CString, Option<CString>)>,
}

/// Name without its `r`, the bits it sets, the bits it clears.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

const PROPAGATIONS: &[(&str, u64)] =
    &[("private", MS_PRIVATE), ("slave", MS_SLAVE), ("shared", MS_SHARED), ("unbindable", MS_UNBINDABLE)];

/// A propagation's bits, with `MS_REC` for its `r` form.
pub(super) fn propagation(name: &str) -> Option<u64> {
    let find = |name: &str| PROPAGATIONS.iter().find(|(known, _)| *known == name).map(|(_, bits)| *bits);
    find(name).or_else(|| name.strip_prefix('r').and_then(find).map(|bits| bits | MS_REC))
}

/// Tells the options of a mount apart; what is not known here goes to the filesystem, which refuses what it
/// does not know.
pub(super) fn parse(destination: &str, options: &[String]) -> Result<MountOptions> {
    if options.len() > OPTIONS_COUNT_MAX {
        let why = format!("more than {OPTIONS_COUNT_MAX} options");
        return Err(SandboxError::invalid(format!("mount on {destination}"), why));
    }
    let mut parsed = MountOptions::default();
    for option in options {
        parsed.add(destination, option)?;
    }
    Ok(parsed)
}

impl MountOptions {
    fn add(&mut self, destination: &str, option: &str) -> Result<()> {
        let find = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        match option {
            "" | "defaults" | "newinstance" | "silent" | "loud" => return Ok(()),
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => {
                let why = format!("option {option} is not supported; leave it out");
                return Err(SandboxError::unsupported(format!("mount on {destination}"), why));
            }
            _ => {
                if let Some((_, set, clear)) = find(option) {
                    apply(&mut self.set, &mut self.clear, *set, *clear);
                } else if let Some(bits) = propagation(option) {
                    self.propagation = bits;
                } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(find) {
                    apply(&mut self.set_below, &mut self.clear_below, *set, *clear);
                } else {
                    self.parameters.push(parameter(destination, option)?);
                }
            }
        }
        Ok(())
    }
}

fn apply(set: &mut u64, clear: &mut u64, sets: u64, clears: u64) {
    *set = *set & !clears | sets;
    // The kernel wants the whole access-time field cleared when one of its values is set, and no other overlap.
    *clear = *clear & !sets | clears;
}

fn parameter(destination: &str, option: &str) -> Result<(CString, Option<CString>)> {
    let text = |part: &str| {
        CString::new(part).map_err(|_| {
            SandboxError::invalid(format!("mount on {destination}"), "an option contains a zero byte")
        })
    };
    Ok(match option.split_once('=') {
        Some((key, value)) => (text(key)?, Some(text(value)?)),
        None => (text(option)?, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> MountOptions {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        parse("/x", &options).expect("valid options")
    }

    #[test]
    fn attributes_are_set_and_cleared_in_order() {
        assert_eq!(parsed(&["ro", "nosuid"]).set, RDONLY | NOSUID);
        let both = parsed(&["ro", "rw"]);
        assert_eq!((both.set, both.clear), (0, RDONLY));
        assert_eq!(parsed(&["noatime", "strictatime"]).set, STRICTATIME);
    }

    #[test]
    fn recursive_forms_are_told_from_names_that_start_with_r() {
        assert_eq!(parsed(&["rro"]).set_below, RDONLY);
        assert_eq!(parsed(&["relatime"]).clear, ATIME);
        assert_eq!(parsed(&["rprivate"]).propagation, MS_PRIVATE | MS_REC);
        assert_eq!(parsed(&["rbind", "ro"]).bind, Some(true));
    }

    #[test]
    fn the_rest_goes_to_the_filesystem() {
        let parameters = parsed(&["size=64k", "mode=755", "nosuid"]).parameters;
        assert_eq!(parameters.len(), 2);
        assert!(parse("/x", &["a\0b".to_owned()]).is_err());
        assert!(parse("/x", &vec!["ro".to_owned(); OPTIONS_COUNT_MAX + 1]).is_err());
    }
}
