//! `--ulimit NAME=SOFT[:HARD]`: resource limits by the names of Docker and of ulimit(1), see getrlimit(2).

use std::str::FromStr;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

use crate::spec::FlagError;

/// No limit (RLIM_INFINITY).
pub const UNLIMITED: u64 = u64::MAX;

/// One limit, in the unit of its resource (bytes, seconds, a count: getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Which resource.
    pub resource: PosixRlimitType,
    /// What the process runs into.
    pub soft: u64,
    /// What it may raise the soft one to.
    pub hard: u64,
}

/// Every resource by its short name.
pub const NAMES: [(&str, PosixRlimitType); 16] = [
    ("as", PosixRlimitType::RlimitAs),
    ("core", PosixRlimitType::RlimitCore),
    ("cpu", PosixRlimitType::RlimitCpu),
    ("data", PosixRlimitType::RlimitData),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("locks", PosixRlimitType::RlimitLocks),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("rss", PosixRlimitType::RlimitRss),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("stack", PosixRlimitType::RlimitStack),
];

impl FromStr for Ulimit {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |why: &'static str| FlagError::new("--ulimit", text, why);
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| wrong("it has the form NAME=SOFT[:HARD], as nofile=1024:2048"))?;
        let resource = NAMES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource).ok_or_else(|| {
            wrong(
                "the names are as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, \
                 rtprio, rttime, sigpending and stack",
            )
        })?;
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(UNLIMITED),
            _ => text.parse::<u64>().map_err(|_| wrong("a limit is a number, -1 or unlimited")),
        };
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (value(soft)?, value(hard)?),
            None => (value(limits)?, value(limits)?),
        };
        if soft > hard {
            return Err(wrong("the soft limit can't be above the hard one"));
        }
        Ok(Self { resource, soft, hard })
    }
}

impl Ulimit {
    /// As the OCI runtime spec has it.
    pub fn to_oci(self) -> PosixRlimit {
        PosixRlimitBuilder::default()
            .typ(self.resource)
            .soft(self.soft)
            .hard(self.hard)
            .build()
            .expect("every field of the builder is set, and none is validated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_docker_writes_them() {
        let limit: Ulimit = "nofile=1024:2048".parse().unwrap();
        assert_eq!((limit.resource, limit.soft, limit.hard), (PosixRlimitType::RlimitNofile, 1024, 2048));
        let limit: Ulimit = "core=-1".parse().unwrap();
        assert_eq!((limit.soft, limit.hard), (UNLIMITED, UNLIMITED));
        assert_eq!("stack=1:unlimited".parse::<Ulimit>().unwrap().to_oci().hard(), UNLIMITED);
        for wrong in [
            "",
            "nofile",
            "nofile=",
            "nofile=5:4",
            "nofile=-1:4",
            "files=1",
            "nofile=1:2:3",
            "cpu=-2",
            "cpu=1.5",
        ] {
            assert!(wrong.parse::<Ulimit>().is_err(), "{wrong}");
        }
    }
}
