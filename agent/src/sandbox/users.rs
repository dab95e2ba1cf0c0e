//! Who a container runs as: `USER[:GROUP]` resolved against the image's own /etc/passwd and /etc/group.
//!
//! Docker's rules: in `USER[:GROUP]` what is a number is an id, never a name; a name must be in the file, a number need
//! not be; one that is in /etc/passwd takes its group and home from there, unless a group was named; the additional
//! groups are those of /etc/group that list the user's name, and are none once a group was named. A further group
//! (`--group-add`) is looked up as a name first, even if it is a number. The files are the image's, so hostile: they are
//! opened inside the root (a link can't lead out), and read to a bound.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// How much of /etc/passwd or /etc/group is looked at; what is beyond is as if it were not there.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// The kernel takes 65536 groups (NGROUPS_MAX); no image needs more than these.
pub const GROUPS_MAX: usize = 1024;
/// Longest `USER[:GROUP]`.
const SPEC_BYTES_MAX: usize = 512;

/// Who the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id inside the container.
    pub uid: u32,
    /// The group id inside the container.
    pub gid: u32,
    /// Further groups, without [`Identity::gid`] unless the file lists it.
    pub additional_gids: Vec<u32>,
    /// The home directory, `/` when the image does not say.
    pub home: String,
}

/// Why a user can't be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// Not of the form `USER[:GROUP]`.
    #[error("user {given:?}: {why}")]
    Grammar {
        /// What was asked for.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A user name that the image's /etc/passwd lacks.
    #[error("user {name:?} is not in the image's /etc/passwd; use a name that is there, or a number")]
    UnknownUser {
        /// What was asked for.
        name: String,
    },
    /// A group name that the image's /etc/group lacks.
    #[error("group {name:?} is not in the image's /etc/group; use a name that is there, or a number")]
    UnknownGroup {
        /// What was asked for.
        name: String,
    },
    /// The file is there and can't be read.
    #[error("read {file} of the image: {source}")]
    Read {
        /// Which one.
        file: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Resolves `user` (empty means root) inside the root file system `rootfs`.
///
/// # Errors
/// [`UserError`] for a name that is not in the image, or a file there that can't be read.
pub fn resolve(user: &str, groups: &[String], rootfs: BorrowedFd<'_>) -> Result<Identity, UserError> {
    let passwd = read_file(rootfs, "/etc/passwd")?;
    let group = read_file(rootfs, "/etc/group")?;
    resolve_in(user, groups, &passwd, &group)
}

/// [`resolve`] over the two files' bytes.
///
/// # Errors
/// [`UserError`], never one of reading.
pub fn resolve_in(user: &str, groups: &[String], passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let (user_text, group_text) = split(user)?;
    let record = passwd_records(passwd).find(|record| record.is(user_text));
    let (uid, mut gid, home) = match &record {
        Some(record) => (record.uid, record.gid, record.home.as_str()),
        None => match number(user_text) {
            Some(uid) => (uid, 0, "/"),
            // An image without /etc/passwd still has its root.
            None if user_text == "root" && passwd.is_empty() => (0, 0, "/root"),
            None => return Err(UserError::UnknownUser { name: user_text.to_owned() }),
        },
    };
    let mut additional_gids = match group_text {
        Some(text) => {
            gid = number(text).map_or_else(|| group_id(text, group), Ok)?;
            Vec::new()
        }
        None => record.as_ref().map_or_else(Vec::new, |record| {
            let of_user = group_records(group).filter(|group| group.members.contains(&record.name.as_str()));
            of_user.map(|group| group.gid).take(GROUPS_MAX).collect()
        }),
    };
    for text in groups.iter().take(GROUPS_MAX) {
        additional_gids.push(group_id(text, group)?);
    }
    let mut seen = std::collections::HashSet::new();
    additional_gids.retain(|gid| seen.insert(*gid));
    additional_gids.truncate(GROUPS_MAX);
    let home = if home.starts_with('/') && !home.contains('\0') { home.to_owned() } else { "/".to_owned() };
    Ok(Identity { uid, gid, additional_gids, home })
}

fn split(user: &str) -> Result<(&str, Option<&str>), UserError> {
    let wrong = |why| UserError::Grammar { given: user.chars().take(80).collect(), why };
    if user.len() > SPEC_BYTES_MAX {
        return Err(wrong("it is longer than 512 bytes"));
    }
    if user.contains(['\0', '\n']) {
        return Err(wrong("it has a NUL byte or a line break"));
    }
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    if group.is_some_and(|group| group.contains(':')) {
        return Err(wrong("it has the form USER[:GROUP]"));
    }
    let id_like = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    for text in [Some(name), group].into_iter().flatten() {
        if !text.is_empty() && id_like(text) && number(text).is_none() {
            return Err(wrong("an id is at most 2147483647"));
        }
    }
    Ok((if name.is_empty() { "0" } else { name }, group))
}

/// Ids as Docker takes them: 0 to 2^31 - 1.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u32>().ok().filter(|&id| plain && id <= i32::MAX as u32)
}

fn group_id(text: &str, group: &[u8]) -> Result<u32, UserError> {
    let by_name = group_records(group).find(|record| record.name == text).map(|record| record.gid);
    by_name
        .or_else(|| number(text))
        .ok_or_else(|| UserError::UnknownGroup { name: text.chars().take(80).collect() })
}

/// A line of passwd(5).
struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Passwd {
    fn is(&self, user: &str) -> bool {
        number(user).map_or(self.name == user, |uid| uid == self.uid)
    }
}

fn passwd_records(text: &[u8]) -> impl Iterator<Item = Passwd> + '_ {
    records(text).filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
        let home = rest.get(1).copied().unwrap_or("");
        Some(Passwd { name: (*name).to_owned(), uid: number(uid)?, gid: number(gid)?, home: home.to_owned() })
    })
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

fn group_records(text: &[u8]) -> impl Iterator<Item = Group<'_>> {
    records(text).filter_map(|line| {
        let mut fields = line.splitn(4, ':');
        let (name, _, gid) = (fields.next()?, fields.next()?, number(fields.next()?)?);
        Some(Group { name, gid, members: fields.next().unwrap_or("").split(',').collect() })
    })
}

/// Lines that are text, without comments and without the entries of NIS.
fn records(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']))
}

/// Reads `file` inside `rootfs`: empty when it is not there or is not a regular file.
fn read_file(rootfs: BorrowedFd<'_>, file: &'static str) -> Result<Vec<u8>, UserError> {
    let failed = |source: std::io::Error| UserError::Read { file, source };
    // NONBLOCK: the image may have put a FIFO there, and its open would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(rootfs, file, flags, Mode::empty(), resolve) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(Vec::new());
        }
        // A socket or a device without a driver.
        Err(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    let stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::with_capacity((stat.st_size as u64).min(FILE_BYTES_MAX) as usize);
    std::fs::File::from(opened).take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 == FILE_BYTES_MAX {
        // The last line may be torn: half a number is another number.
        bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# note\n+nis\nbad:line\nweb:x:33:34:Web:/var/www:/bin/false\n\
        odd:x:40:41::relative:\nnum:x:abc:1::/:\n123:x:7:8::/seven:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:34:\nadm:x:4:syslog,web\nlog:x:5:web\nadm2:x:4:web\nbroken\nroot2:x:9:root\n";

    fn run(user: &str) -> Result<Identity, UserError> {
        resolve_in(user, &[], PASSWD, GROUP)
    }

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = run(user).unwrap();
        (found.uid, found.gid, found.additional_gids, found.home)
    }

    #[test]
    fn names_and_numbers_by_dockers_rules() {
        assert_eq!(ids(""), (0, 0, vec![9], "/root".into()));
        assert_eq!(ids("web"), (33, 34, vec![4, 5], "/var/www".into()));
        assert_eq!(ids("33"), (33, 34, vec![4, 5], "/var/www".into()));
        assert_eq!(ids("web:adm"), (33, 4, vec![], "/var/www".into()));
        assert_eq!(ids("web:77"), (33, 77, vec![], "/var/www".into()));
        assert_eq!(ids("1000"), (1000, 0, vec![], "/".into()));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![], "/".into()));
        assert_eq!(ids("web:"), ids("web"));
        assert_eq!(ids(":adm").1, 4);
        // What is a number is never a name.
        assert_eq!(ids("123"), (123, 0, vec![], "/".into()));
        assert_eq!(ids("odd").3, "/");
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(
            run("nobody").unwrap_err().to_string().contains("\"nobody\" is not in the image's /etc/passwd")
        );
        assert!(run("web:staff").unwrap_err().to_string().contains("/etc/group"));
        for wrong in ["a:b:c", "4294967295", "2147483648", "0:4294967295", "-1", "a\0", "a\nb", "num"] {
            assert!(run(wrong).is_err(), "{wrong:?}");
        }
        assert!(run(&"x".repeat(10_000)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn groups_of_the_flag_come_on_top_once() {
        let flag = ["adm".to_owned(), "77".to_owned(), "77".to_owned()];
        assert_eq!(resolve_in("web:34", &flag, PASSWD, GROUP).unwrap().additional_gids, [4, 77]);
        assert!(resolve_in("web", &["nope".to_owned()], PASSWD, GROUP).is_err());
    }

    #[test]
    fn an_image_without_the_files_has_root_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let found = resolve("root", &[], root.as_fd()).unwrap();
        assert_eq!((found.uid, found.home.as_str()), (0, "/root"));
        assert_eq!(resolve("5:6", &[], root.as_fd()).unwrap().gid, 6);
        assert!(resolve("web", &[], root.as_fd()).is_err());
    }

    #[test]
    fn links_do_not_lead_out_and_a_fifo_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("inside"), PASSWD).unwrap();
        std::os::unix::fs::symlink("../../../inside", dir.path().join("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("etc/group"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(resolve("web", &[], root.as_fd()).unwrap().uid, 33);
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/proc/self/fd/0", dir.path().join("etc/passwd")).unwrap();
        assert!(resolve("web", &[], root.as_fd()).is_err());
    }

    #[test]
    fn a_huge_file_is_read_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = std::fs::File::create(dir.path().join("etc/passwd")).unwrap();
        file.set_len(1 << 40).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(resolve("9", &[], root.as_fd()).unwrap().uid, 9);
    }

    proptest! {
        #[test]
        fn never_panics(user in "\\PC{0,20}", passwd in prop::collection::vec(any::<u8>(), 0..200), group in "[a-z:,0-9\n]{0,100}") {
            let _ = resolve_in(&user, std::slice::from_ref(&user), &passwd, group.as_bytes());
        }
    }

    #[test]
    fn a_number_is_an_id_even_where_a_group_is_named_so() {
        let group = b"100:x:5:\n";
        assert_eq!(resolve_in("0:100", &[], b"", group).unwrap().gid, 100);
        assert_eq!(resolve_in("0", &["100".to_owned()], b"", group).unwrap().additional_gids, [5]);
    }
}
