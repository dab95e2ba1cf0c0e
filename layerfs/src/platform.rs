//! Operating system, processor and its variant: what an image is for, and what this machine is.
//!
//! Names are Go's (OCI image-spec 1.1, image-index.md: `GOOS`, `GOARCH`); what `uname -m` and Debian call the same
//! things is understood too. A variant is a floor: a machine runs images of its own variant and of lower ones, so
//! that of an index with `arm/v6` and `arm/v7` an ARMv7 machine takes `v7`, and an ARMv6 one `v6`.

use std::fmt;
use std::str::FromStr;

/// Bytes of a platform's text.
const PLATFORM_BYTES_MAX: usize = 128;

/// `os/architecture[/variant]`, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`, ...
    pub os: String,
    /// `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    /// `v7`, ...; none where the architecture's usual one is meant (`arm64` is `v8`, `amd64` is `v1`).
    pub variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("platform {text:?}: {reason}; write os/architecture[/variant], such as linux/amd64 or linux/arm/v7")]
pub struct PlatformError {
    text: String,
    reason: &'static str,
}

impl Platform {
    /// What this machine runs.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// A platform with the names brought to their usual form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, implied) = match lower.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" | "x86" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = match (architecture, variant.as_deref().or(implied)) {
            ("amd64", Some("v1")) | ("arm64", Some("v8" | "8")) => None,
            ("arm", None) => Some("v7".to_owned()),
            ("arm", Some(digit @ ("5" | "6" | "7" | "8"))) => Some(format!("v{digit}")),
            (_, variant) => variant.map(str::to_owned),
        };
        Self { os: os.to_ascii_lowercase(), architecture: architecture.to_owned(), variant }
    }

    /// How well a machine of this platform runs an image of `image`: none if not at all, else the smaller the
    /// better, 0 for the very same.
    pub fn rank(&self, image: &Self) -> Option<u32> {
        if self.os != image.os || self.architecture != image.architecture {
            return None;
        }
        if self.variant == image.variant {
            return Some(0);
        }
        let (own, theirs) = (self.level()?, image.level()?);
        (theirs <= own).then(|| own - theirs)
    }

    /// Whether a machine of this platform runs an image of `image`.
    pub fn runs(&self, image: &Self) -> bool {
        self.rank(image).is_some()
    }

    /// The variant as a number that grows with what the processor can do; none for variants nobody ordered.
    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "amd64" => "v1",
            "arm64" => "v8",
            "arm" => "v7",
            _ => return None,
        };
        let text = self.variant.as_deref().unwrap_or(usual).strip_prefix('v')?;
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let (major, minor) = (major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?);
        Some(u32::from(major) << 8 | u32::from(minor))
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = |reason| PlatformError { text: text.chars().take(64).collect(), reason };
        if text.len() > PLATFORM_BYTES_MAX {
            return Err(error("too long"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let part = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !parts.iter().all(part) {
            return Err(error(
                "a part is empty or holds something other than letters, digits, '.', '_' and '-'",
            ));
        }
        let platform = match parts[..] {
            [architecture] => Self::new("linux", architecture, None),
            [os, architecture] => Self::new(os, architecture, None),
            [os, architecture, variant] => Self::new(os, architecture, Some(variant)),
            _ => return Err(error("more than three parts")),
        };
        // What it is completed with counts too: what is taken must be taken again as it prints.
        if platform.to_string().len() > PLATFORM_BYTES_MAX { Err(error("too long")) } else { Ok(platform) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_only_when_completed_is_refused() {
        let text = "a".repeat(PLATFORM_BYTES_MAX);
        assert!(text.parse::<Platform>().is_err());
        assert!(text[6..].parse::<Platform>().is_ok_and(|it| it.to_string().parse() == Ok(it)));
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_brought_to_one_form() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/ARM", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(platform(text).to_string(), want);
        }
        for text in ["", "/", "linux/", "a/b/c/d", "linux/a b", &"x".repeat(200)] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variant_is_a_floor() {
        let arm = platform("linux/arm/v7");
        assert_eq!(arm.rank(&platform("linux/arm/v7")), Some(0));
        assert!(arm.rank(&platform("linux/arm/v6")) < arm.rank(&platform("linux/arm/v5")));
        assert_eq!(platform("linux/arm/v6").rank(&arm), None);
        assert_eq!(platform("linux/arm64").rank(&arm), None);
        assert!(platform("linux/amd64/v3").runs(&platform("linux/amd64")));
        assert!(!platform("linux/amd64").runs(&platform("linux/amd64/v2")));
        assert!(platform("linux/arm64").runs(&platform("linux/arm64/v8")));
        assert!(!platform("linux/amd64").runs(&platform("windows/amd64")));
    }

    #[test]
    fn the_host_runs_itself() {
        let host = Platform::host();
        assert_eq!(host.rank(&host), Some(0));
        assert_eq!(platform(&host.to_string()), host);
    }
}
