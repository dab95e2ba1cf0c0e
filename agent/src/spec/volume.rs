//! `-v` and `--tmpfs`: their grammar, and nothing of the file system.
//!
//! ```text
//! -v      [SOURCE:]DESTINATION[:OPTION[,OPTION...]]   SOURCE: absolute host path, or the name of a volume
//! --tmpfs DESTINATION[:OPTION[,OPTION...]]            OPTION: size=64m, mode=1777, uid=, gid=, ro, exec, ...
//! ```

use std::str::FromStr;

use super::FlagError;
use super::size::Size;

/// The longest path or option list that is taken (PATH_MAX).
const TEXT_BYTES_MAX: usize = 4096;
/// The longest volume name (NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

/// Files of /proc that a bind of the host's may replace, as runc has them: with lxcfs they tell a container of its own
/// share of the machine.
const PROC_FILES: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// One `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What is mounted.
    pub source: VolumeSource,
    /// Where: absolute, without `.` and `..` components.
    pub destination: String,
    /// `ro` was said.
    pub read_only: bool,
    /// Propagation, as mount(8) names it: `rprivate` when nothing was said.
    pub propagation: &'static str,
    /// Whether a volume takes over what the image has there (Docker's default; `nocopy` says no).
    pub copy_up: bool,
}

/// What a `-v` mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A directory or file of the host.
    Host(String),
    /// A volume that lasts, by name.
    Named(String),
    /// A fresh one that goes with the container.
    Anonymous,
}

impl FromStr for Volume {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |why: &'static str| FlagError::new("-v", text, why);
        bounded(text).map_err(wrong)?;
        let parts: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match parts[..] {
            [destination] => (VolumeSource::Anonymous, destination, ""),
            [source, destination] => (volume_source(source).map_err(wrong)?, destination, ""),
            [source, destination, options] => (volume_source(source).map_err(wrong)?, destination, options),
            _ => return Err(wrong("it has the form SOURCE:DESTINATION:OPTIONS, with at most two colons")),
        };
        let destination = clean_destination(destination).map_err(wrong)?;
        let is_file_of_proc =
            matches!(source, VolumeSource::Host(_)) && PROC_FILES.contains(&destination.as_str());
        if !is_file_of_proc {
            outside_proc(&destination).map_err(wrong)?;
        }
        let mut volume =
            Self { source, destination, read_only: false, propagation: "rprivate", copy_up: true };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            volume.set(option).map_err(wrong)?;
        }
        Ok(volume)
    }
}

impl Volume {
    fn set(&mut self, option: &str) -> Result<(), &'static str> {
        match option {
            "ro" | "readonly" => self.read_only = true,
            "rw" => self.read_only = false,
            // SELinux relabelling: there is nothing to relabel for a runtime that sets no labels.
            "z" | "Z" => {}
            // Consistency hints of Docker Desktop, without meaning on Linux.
            "cached" | "delegated" | "consistent" => {}
            "nocopy" => self.copy_up = false,
            "private" => self.propagation = "private",
            "rprivate" => self.propagation = "rprivate",
            "slave" => self.propagation = "slave",
            "rslave" => self.propagation = "rslave",
            "shared" => self.propagation = "shared",
            "rshared" => self.propagation = "rshared",
            _ => return Err("an option is one of ro, rw, z, Z, nocopy, [r]private, [r]slave, [r]shared"),
        }
        Ok(())
    }
}

fn bounded(text: &str) -> Result<(), &'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Err("it is longer than a path can be (4096 bytes)");
    }
    if text.contains('\0') { Err("a path has no NUL byte") } else { Ok(()) }
}

fn volume_source(text: &str) -> Result<VolumeSource, &'static str> {
    if text.starts_with('/') {
        return Ok(VolumeSource::Host(text.to_owned()));
    }
    if text.is_empty() {
        return Err("the source is empty; write an absolute path or a volume name");
    }
    if text.starts_with('.') || text.contains('/') {
        return Err("a host path must be absolute; write it from / on (\"$PWD/...\")");
    }
    let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if text.len() > NAME_BYTES_MAX
        || !text.bytes().all(name_byte)
        || !text.as_bytes()[0].is_ascii_alphanumeric()
    {
        return Err(
            "a volume name is letters, digits, _ . and -, at most 255, and begins with a letter or digit",
        );
    }
    Ok(VolumeSource::Named(text.to_owned()))
}

/// A mount point inside the container: absolute, without `.` and `..`, with single slashes, and not the root.
///
/// # Errors
/// What is wrong with it.
pub fn clean_destination(text: &str) -> Result<String, &'static str> {
    bounded(text)?;
    if !text.starts_with('/') {
        return Err("the destination must be an absolute path inside the container");
    }
    match clean(text).as_str() {
        "/" => Err("the destination can't be /"),
        clean => Ok(clean.to_owned()),
    }
}

/// `text` as an absolute path from the root on, without `.`, `..` and double slashes. Lexically, as Docker: the image's
/// links have no say in where a flag points.
pub(super) fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A mount point that an image asks for: as [`clean_destination`], and none of the kernel's own trees.
///
/// # Errors
/// What is wrong with it.
pub fn image_destination(text: &str) -> Result<String, &'static str> {
    let destination = clean_destination(text)?;
    outside_proc(&destination)?;
    if matches!(destination.as_str(), "/sys" | "/dev") {
        return Err("an image has no say in what is mounted there");
    }
    Ok(destination)
}

/// What stands in /proc decides which masks and labels hold.
fn outside_proc(destination: &str) -> Result<(), &'static str> {
    match destination.strip_prefix("/proc") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Err("nothing can be mounted in /proc"),
        _ => Ok(()),
    }
}

/// One `--tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where.
    pub destination: String,
    /// Mount options as the OCI runtime spec takes them, the defaults of Docker included.
    pub options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |why: &'static str| FlagError::new("--tmpfs", text, why);
        bounded(text).map_err(wrong)?;
        let (destination, given) = text.split_once(':').unwrap_or((text, ""));
        let destination = clean_destination(destination).map_err(wrong)?;
        outside_proc(&destination).map_err(wrong)?;
        let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
        for option in given.split(',').filter(|option| !option.is_empty()) {
            tmpfs_option(option, &mut options).map_err(wrong)?;
        }
        Ok(Self { destination, options })
    }
}

fn tmpfs_option(option: &str, options: &mut Vec<String>) -> Result<(), &'static str> {
    const PAIRS: [(&str, &str); 5] =
        [("ro", "rw"), ("exec", "noexec"), ("suid", "nosuid"), ("dev", "nodev"), ("atime", "noatime")];
    if let Some((yes, no)) = PAIRS.iter().find(|(yes, no)| *yes == option || *no == option) {
        options.retain(|kept| kept != yes && kept != no);
        options.push(option.to_owned());
        return Ok(());
    }
    let (key, value) =
        option.split_once('=').ok_or("an option is name=value, ro, rw, [no]exec, [no]suid or [no]dev")?;
    let number = |radix| u32::from_str_radix(value, radix).is_ok();
    let text = match key {
        "size" if value.ends_with('%') => {
            let percent: u32 =
                value[..value.len() - 1].parse().map_err(|_| "size is bytes or a percentage")?;
            format!("size={percent}%")
        }
        "size" => {
            format!("size={}", value.parse::<Size>().map_err(|_| "size is a number of bytes: size=64m")?.0)
        }
        "mode" if number(8) => option.to_owned(),
        "uid" | "gid" | "nr_inodes" if number(10) => option.to_owned(),
        _ => return Err("the options with a value are size, mode (octal), uid, gid and nr_inodes"),
    };
    options.retain(|kept| kept.split('=').next() != Some(key));
    options.push(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Volume {
        text.parse().unwrap()
    }

    #[test]
    fn volumes_as_docker_writes_them() {
        assert_eq!(volume("/a:/b").source, VolumeSource::Host("/a".into()));
        assert_eq!(volume("data:/b/../c/./d//e").destination, "/c/d/e");
        assert_eq!(volume("data:/b").source, VolumeSource::Named("data".into()));
        assert_eq!(volume("/b").source, VolumeSource::Anonymous);
        let all = volume("/a:/b:ro,z,rslave");
        assert!(all.read_only && all.propagation == "rslave");
        assert!(!volume("d:/b:nocopy").copy_up);
    }

    #[test]
    fn wrong_volumes_say_what_is_wrong() {
        for (text, why) in [
            ("./a:/b", "absolute"),
            ("a/b:/c", "absolute"),
            ("../a:/b", "absolute"),
            (":/b", "empty"),
            ("/a:b", "absolute"),
            ("/a:/", "can't be /"),
            ("/a:/b/..", "can't be /"),
            ("/a:/b:rx", "one of"),
            ("/a:/b:ro:rw", "two colons"),
            ("na me:/b", "volume name"),
            ("/a\0:/b", "NUL"),
            ("", "absolute"),
        ] {
            let error = text.parse::<Volume>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(format!("/{}:/b", "a".repeat(5000)).parse::<Volume>().is_err());
    }

    #[test]
    fn nothing_is_mounted_over_what_the_kernel_shows() {
        for text in ["x:/proc", "/a:/proc/sys", "/proc/1", "x:/a/../proc/", "x:/proc/meminfo"] {
            let error = text.parse::<Volume>().unwrap_err().to_string();
            assert!(error.contains("/proc"), "{text}: {error}");
        }
        assert!("/proc".parse::<Tmpfs>().is_err() && "/proc/acpi:ro".parse::<Tmpfs>().is_err());
        assert_eq!(volume("/lxcfs/meminfo:/proc/meminfo").destination, "/proc/meminfo");
        assert_eq!(volume("/a:/process").destination, "/process");
        // A user may: Docker's own recipes bind the host's /dev and /sys.
        assert!(volume("/dev:/dev").destination == "/dev" && volume("/sys:/sys:ro").read_only);
        for text in ["/proc", "//proc/./x", "/sys", "/dev/", "/"] {
            assert!(image_destination(text).is_err(), "{text}");
        }
        assert_eq!(image_destination("/dev/shm"), Ok("/dev/shm".into()));
    }

    #[test]
    fn tmpfs_has_dockers_defaults_and_checked_options() {
        let plain: Tmpfs = "/run".parse().unwrap();
        assert_eq!(plain.options, ["noexec", "nosuid", "nodev"]);
        let full: Tmpfs = "/run:exec,size=64m,mode=1777,uid=3,ro,size=1k".parse().unwrap();
        assert_eq!(full.options, ["nosuid", "nodev", "exec", "mode=1777", "uid=3", "ro", "size=1024"]);
        for wrong in
            ["run", "/run:size=x", "/run:mode=999", "/run:lowerdir=/", "/run:huge", "/:ro", "/run:size=%"]
        {
            assert!(wrong.parse::<Tmpfs>().is_err(), "{wrong}");
        }
    }
}
