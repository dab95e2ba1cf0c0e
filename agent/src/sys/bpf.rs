//! eBPF programs that decide over the devices of a cgroup: bpf(2), linux/bpf.h.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::calls;
use crate::sandbox::devices::EbpfInstruction;

/// `enum bpf_cmd`.
mod command {
    pub(super) const PROG_LOAD: usize = 5;
    pub(super) const PROG_ATTACH: usize = 8;
    pub(super) const PROG_GET_FD_BY_ID: usize = 13;
    pub(super) const OBJ_GET_INFO_BY_FD: usize = 15;
    pub(super) const PROG_QUERY: usize = 16;
}

/// `BPF_PROG_TYPE_CGROUP_DEVICE` and `BPF_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_OVERRIDE`: a group below may have a program of its own instead.
const ALLOW_OVERRIDE: u32 = 1;
/// `BPF_F_QUERY_EFFECTIVE`: those inherited too.
const QUERY_EFFECTIVE: u32 = 1;
/// Programs that are asked for: one for each ancestor that adds its own.
pub(crate) const PROGRAMS_COUNT_MAX: usize = 64;
/// `BPF_OBJ_NAME_LEN`, with the zero at its end.
const NAME_BYTES: usize = 16;

/// `union bpf_attr` is larger than any of the structures here; the kernel wants the rest zero.
const ATTRIBUTES_BYTES: usize = 128;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_BYTES],
    interface: u32,
    attach_kind: u32,
}

#[repr(C)]
struct Query {
    group: u32,
    attach_kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    ids_count: u32,
}

/// The first words of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; NAME_BYTES],
}

#[repr(C)]
struct Ask {
    program: u32,
    info_bytes: u32,
    info: u64,
}

#[repr(C, align(8))]
struct Attributes([u8; ATTRIBUTES_BYTES]);

impl Attributes {
    fn of<T>(value: &T) -> Self {
        const { assert!(size_of::<T>() <= ATTRIBUTES_BYTES, "fits union bpf_attr") };
        let mut all = Self([0; ATTRIBUTES_BYTES]);
        // SAFETY: the structures of this file are plain numbers; source and target are apart and large enough.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(value).cast::<u8>(),
                all.0.as_mut_ptr(),
                size_of::<T>(),
            );
        }
        all
    }

    /// `int bpf(int command, union bpf_attr *attributes, unsigned size)`, see bpf(2).
    ///
    /// # Safety
    /// Every address inside is valid for what `command` does with it.
    unsafe fn call(&mut self, command: usize) -> io::Result<usize> {
        let arguments = [command, self.0.as_mut_ptr() as usize, ATTRIBUTES_BYTES];
        // SAFETY: the attributes are writable for the size given; the rest is the caller's promise.
        unsafe { calls::call(libc::SYS_bpf, arguments) }.map_err(io::Error::from_raw_os_error)
    }
}

/// `BPF_PROG_LOAD` of a device program, see bpf(2). `name` has at most 15 letters, digits, `_` and `.`.
///
/// # Errors
/// `EPERM` (CAP_BPF and CAP_NET_ADMIN are needed), `EINVAL` (no CONFIG_CGROUP_BPF, or a bad program), `ENOSYS`.
pub(crate) fn load_device_program(program: &[EbpfInstruction], name: &str) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        attach_kind: ATTACH_CGROUP_DEVICE,
        ..Load::default()
    };
    for (to, from) in load.name.iter_mut().take(NAME_BYTES - 1).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: `EbpfInstruction` has the layout of bpf_insn, and the kernel reads the count given; the license is a
    // static C string.
    let fd = unsafe { Attributes::of(&load).call(command::PROG_LOAD) }?;
    // SAFETY: the kernel has just given this descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `BPF_PROG_ATTACH` to a cgroup, in the place of what is attached there, see bpf(2). With `override_below` a group
/// below may have another program instead of this one.
///
/// # Errors
/// `EPERM` (CAP_NET_ADMIN is needed, or an ancestor allows no other program), `EINVAL` (not a cgroup of version 2).
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    override_below: bool,
) -> io::Result<()> {
    let flags = if override_below { ALLOW_OVERRIDE } else { 0 };
    let attach = [group.as_raw_fd() as u32, program.as_raw_fd() as u32, ATTACH_CGROUP_DEVICE, flags];
    // SAFETY: no address is inside.
    unsafe { Attributes::of(&attach).call(command::PROG_ATTACH) }.map(drop)
}

/// `BPF_PROG_QUERY`: the ids of the device programs that decide over a cgroup, its ancestors' among them, see bpf(2).
///
/// # Errors
/// `EPERM` (CAP_NET_ADMIN is needed), `ENOSPC` (more than there is room for), `EINVAL`.
pub(crate) fn device_programs(
    group: BorrowedFd<'_>,
    ids: &mut [u32; PROGRAMS_COUNT_MAX],
) -> io::Result<usize> {
    let query = Query {
        group: group.as_raw_fd() as u32,
        attach_kind: ATTACH_CGROUP_DEVICE,
        flags: QUERY_EFFECTIVE,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        ids_count: PROGRAMS_COUNT_MAX as u32,
    };
    let mut attributes = Attributes::of(&query);
    // SAFETY: `ids` is writable for the count given.
    unsafe { attributes.call(command::PROG_QUERY) }?;
    let at = std::mem::offset_of!(Query, ids_count);
    let count = attributes.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    Ok(count.map_or(0, u32::from_ne_bytes) as usize)
}

/// `BPF_PROG_GET_FD_BY_ID` and `BPF_OBJ_GET_INFO_BY_FD`: whether the program of this id has that name, see bpf(2).
///
/// # Errors
/// `EPERM` (CAP_SYS_ADMIN is needed), `ENOENT`.
pub(crate) fn program_has_name(id: u32, name: &str) -> io::Result<bool> {
    // SAFETY: no address is inside.
    let fd = unsafe { Attributes::of(&[id, 0, 0]).call(command::PROG_GET_FD_BY_ID) }?;
    // SAFETY: the kernel has just given this descriptor, which nobody else knows.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut info = Info::default();
    let ask = Ask {
        program: program.as_raw_fd() as u32,
        info_bytes: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` is writable for the size given.
    unsafe { Attributes::of(&ask).call(command::OBJ_GET_INFO_BY_FD) }?;
    let known = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(known == name.as_bytes())
}
