//! Loop devices by `LOOP_CONFIGURE`: one ioctl from a file to a block device.
//!
//! ```text
//! /dev/loop-control --LOOP_CTL_GET_FREE--> n;   /dev/loop<n> --LOOP_CONFIGURE(file)--> attached, or EBUSY: next n
//! ```
//!
//! Devices are attached with `LO_FLAGS_AUTOCLEAR`: the kernel detaches one when its last user (our fd, then the
//! mount) goes away, so nothing is left behind whatever kills us.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// How often another process may take the free device that the kernel named before we attach to it.
pub const LOOP_RACES_COUNT: u32 = 64;

/// Bytes of a sector: the block size that tar indexes need.
const SECTOR_BYTES: u32 = 512;
/// Bytes of a block of a device that is written to: what a filesystem on it uses, and what any disk beneath takes directly.
pub const BLOCK_BYTES: u32 = 4096;

// linux/loop.h
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset_bytes: u64,
    size_limit_bytes: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// An attached loop device. Dropping it detaches the device unless something (a mount) still uses it.
#[derive(Debug)]
pub struct LoopDevice {
    /// Such as `/dev/loop7`.
    pub path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Attaches `file` read-only to a free loop device with 512-byte blocks, by direct I/O where the file can.
    ///
    /// Manual: loop(4), `LOOP_CONFIGURE` since Linux 5.8.
    ///
    /// # Errors
    /// `ENOENT` without loop support in the kernel or `/dev`, `EACCES`/`EPERM` without privilege, `EBUSY` after
    /// [`LOOP_RACES_COUNT`] lost races, `EINVAL` where the filesystem beneath cannot back a loop device.
    pub fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::attach_with(file, false)
    }

    /// [`attach`](Self::attach) for a filesystem that is written to: the file is open for both, the blocks have
    /// [`BLOCK_BYTES`]. Blocks that are discarded become holes of the file.
    ///
    /// # Errors
    /// As `attach`.
    pub fn attach_writable(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::attach_with(file, true)
    }

    fn attach_with(file: BorrowedFd<'_>, is_writable: bool) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..LOOP_RACES_COUNT {
            // SAFETY: `control` is open for the whole call; LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(is_writable).open(&path)?;
            match configure(device.as_fd(), file, is_writable) {
                Ok(()) => return Ok(Self { path, _device: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }
}

/// `ioctl(device, LOOP_CONFIGURE, &config)`.
fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, is_writable: bool) -> io::Result<()> {
    let (block_size, access) =
        if is_writable { (BLOCK_BYTES, 0) } else { (SECTOR_BYTES, LO_FLAGS_READ_ONLY) };
    let config = LoopConfig {
        fd: file.as_raw_fd().unsigned_abs(),
        block_size,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset_bytes: 0,
            size_limit_bytes: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: access | LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: both fds are borrowed for the whole call, and `config` has the layout of the kernel's
    // `struct loop_config` (the size is asserted below), which the ioctl only reads.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// linux/loop.h: 232 bytes of loop_info64 between two u32 and eight u64.
const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);
