//! Sizes and shares as Docker's flags write them: `512m`, `1.5g`, `--cpus 1.5`, `--memory-swap -1`.

use std::path::PathBuf;
use std::str::FromStr;

use celda_layerfs::mount::check_disk_limit;

use super::FlagError;

/// The smallest `--memory`: below it not even an `execve` succeeds (Docker's own bound).
pub const MEMORY_MIN_BYTES: u64 = 6 << 20;
/// The period that `--cpus` is a share of, in microseconds (the kernel's default for `cpu.max`).
pub const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota the kernel takes, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;
/// No machine has more; what is beyond is a slip of the hand.
const CPUS_MAX: u64 = 8_192;

/// A number of bytes: decimal digits, an optional fraction, an optional unit `b`, `k`, `m`, `g` or `t` (powers
/// of 1024, any case, `kb` and `kib` are the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong =
            || FlagError::new("size", text, "write bytes, or a number with b, k, m, g or t: 512m, 1.5g");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        decimal(number, 1 << shift).filter(|&bytes| bytes <= i64::MAX as u64).map(Self).ok_or_else(wrong)
    }
}

/// `--memory-swap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySwap {
    /// `-1`: as much swap as there is.
    Unlimited,
    /// Memory and swap together, in bytes.
    Total(u64),
}

impl FromStr for MemorySwap {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        if text == "-1" { Ok(Self::Unlimited) } else { text.parse::<Size>().map(|size| Self::Total(size.0)) }
    }
}

/// `--cpus`: a decimal number of CPUs, kept as the quota of [`CPU_PERIOD_US`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus {
    /// Microseconds of CPU time in each period.
    pub quota_us: u64,
}

impl FromStr for Cpus {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        decimal(text, CPU_PERIOD_US)
            .filter(|quota| (CPU_QUOTA_MIN_US..=CPUS_MAX * CPU_PERIOD_US).contains(quota))
            .map(|quota_us| Self { quota_us })
            .ok_or_else(|| FlagError::new("--cpus", text, "write a number of CPUs from 0.01 to 8192, as 1.5"))
    }
}

/// `text` times `unit`, rounded down; digits with at most one point.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    /// More digits than this say nothing, and would not fit.
    const FRACTION_DIGITS_MAX: usize = 9;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let scale = 10u128.pow(fraction.len() as u32);
    let numerator: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u64::try_from(numerator * u128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(part)
}

/// A rate for one block device, as Docker writes it: `/dev/vda:1m` for bytes a second, `/dev/vda:100` for operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRate {
    /// The device's node on the host.
    pub path: PathBuf,
    /// Bytes or operations a second, at least 1.
    pub rate: u64,
}

impl FromStr for DeviceRate {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = || FlagError::new("device rate", text, "write a device and a rate above 0: /dev/vda:1m");
        let (path, rate) = text.rsplit_once(':').ok_or_else(wrong)?;
        let rate = rate.parse::<Size>().map_err(|_| wrong())?.0;
        if !path.starts_with('/') || rate == 0 {
            return Err(wrong());
        }
        Ok(Self { path: path.into(), rate })
    }
}

/// An option of the writable layer, as Docker writes it: `size=10G` is what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageOpt {
    /// So many bytes, within what layerfs can keep.
    Size(Size),
}

impl FromStr for StorageOpt {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = || FlagError::new("--storage-opt", text, "write size= and 16m to 1t, as size=10G");
        let size: Size = text.strip_prefix("size=").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        check_disk_limit(size.0).map_err(|_| wrong())?;
        Ok(Self::Size(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_size_as_docker_writes_it() {
        assert_eq!("size=10G".parse(), Ok(StorageOpt::Size(Size(10 << 30))));
        for wrong in
            ["", "size", "size=", "10G", "size=0", "size=15m", "size=2t", "Size=1g", "dm.basesize=1g"]
        {
            let error = wrong.parse::<StorageOpt>().expect_err(wrong);
            assert!(error.to_string().contains("size=10G"), "{error}");
        }
    }

    #[test]
    fn device_rates_as_docker_writes_them() {
        let rate = |path: &str, rate| Ok(DeviceRate { path: path.into(), rate });
        assert_eq!("/dev/vda:1m".parse(), rate("/dev/vda", 1 << 20));
        assert_eq!("/dev/disk/by-path/a:b:100".parse(), rate("/dev/disk/by-path/a:b", 100));
        for wrong in ["", "/dev/vda", "/dev/vda:", "/dev/vda:0", "vda:1m", ":1m", "/dev/vda:-1", "/dev/vda:x"]
        {
            assert!(wrong.parse::<DeviceRate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_as_docker_writes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("4k", 4096),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("2GiB", 2 << 30),
            (".5k", 512),
            ("1.k", 1024),
            ("1t", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in [
            "",
            ".",
            "m",
            "-1",
            "1 m",
            "1.2.3",
            "0x10",
            "9999999999g",
            "1e3",
            "12q",
            "\u{661}",
            "99999999999999999999",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpus_are_a_quota() {
        assert_eq!("1.5".parse(), Ok(Cpus { quota_us: 150_000 }));
        assert_eq!("0.01".parse(), Ok(Cpus { quota_us: 1_000 }));
        assert_eq!("2".parse(), Ok(Cpus { quota_us: 200_000 }));
        for wrong in ["0", "0.001", "-1", "", "many", "8193", "1.5.1", "99999999999999999999999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn swap_may_be_unlimited() {
        assert_eq!("-1".parse(), Ok(MemorySwap::Unlimited));
        assert_eq!("1g".parse(), Ok(MemorySwap::Total(1 << 30)));
        assert!("-2".parse::<MemorySwap>().is_err());
    }
}
