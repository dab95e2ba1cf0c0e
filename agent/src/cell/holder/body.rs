//! What a container is started from, in a memory file: its spec and its compiled filter.
//!
//! ```text
//! length of the spec u32 | spec, JSON | filter: 8 bytes an instruction, as the kernel takes them
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use oci_spec::runtime::Spec;
use rustix::fs::MemfdFlags;

use crate::sandbox::seccomp::{BpfInstruction, INSTRUCTIONS_MAX};

/// Bytes of a body: a spec with the longest environment that a message of the API can have is far below.
const BODY_BYTES_MAX: u64 = 8 << 20;
const INSTRUCTION_BYTES: usize = 8;

/// A spec and its filter.
#[derive(Debug)]
pub struct Body {
    /// OCI runtime spec.
    pub spec: Spec,
    /// The compiled filter, unless it runs without one.
    pub seccomp: Option<Vec<BpfInstruction>>,
}

impl Body {
    /// Writes it into a new memory file.
    ///
    /// # Errors
    /// `ENOMEM`, `EMFILE`; when the spec cannot be encoded.
    pub fn write(spec: &Spec, seccomp: Option<&[BpfInstruction]>) -> io::Result<OwnedFd> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, spec)?;
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        for instruction in seccomp.unwrap_or_default() {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_le_bytes());
        }
        let file = File::from(rustix::fs::memfd_create("celda-body", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&bytes, 0)?;
        Ok(file.into())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When the file is no body.
    pub fn read(file: impl AsFd) -> io::Result<Self> {
        let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = File::from(file.as_fd().try_clone_to_owned()?);
        let length = file.metadata()?.len();
        if length > BODY_BYTES_MAX {
            return Err(wrong("a body that is too long"));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let (head, rest) = bytes.split_at_checked(4).ok_or_else(|| wrong("a body that is too short"))?;
        let spec_bytes = u32::from_le_bytes(head.try_into().map_err(|_| wrong("a body without a head"))?);
        let (spec, filter) =
            rest.split_at_checked(spec_bytes as usize).ok_or_else(|| wrong("a body without its spec"))?;
        if filter.len() % INSTRUCTION_BYTES != 0 || filter.len() / INSTRUCTION_BYTES > INSTRUCTIONS_MAX {
            return Err(wrong("a body with a filter that is none"));
        }
        let instruction = |eight: &[u8]| BpfInstruction {
            code: u16::from_le_bytes([eight[0], eight[1]]),
            jt: eight[2],
            jf: eight[3],
            k: u32::from_le_bytes([eight[4], eight[5], eight[6], eight[7]]),
        };
        let filter: Vec<_> = filter.chunks_exact(INSTRUCTION_BYTES).map(instruction).collect();
        Ok(Self { spec: serde_json::from_slice(spec)?, seccomp: (!filter.is_empty()).then_some(filter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_as_it_was_written() {
        let spec = Spec::default();
        let filter = crate::sandbox::seccomp::default_program(
            crate::sandbox::seccomp::Arch::host(),
            crate::sandbox::caps::CapSet::docker_default(),
        )
        .expect("compiled");
        for seccomp in [Some(&filter), None] {
            let file = Body::write(&spec, seccomp.map(Vec::as_slice)).expect("written");
            let read = Body::read(&file).expect("read");
            assert_eq!((&read.spec, read.seccomp.as_ref()), (&spec, seccomp));
        }
    }

    #[test]
    fn rubbish_is_no_body() {
        for bytes in [&b""[..], b"abc", b"\xff\xff\xff\xff{}", b"\x02\0\0\0{}x", b"\x01\0\0\0{"] {
            let file = File::from(rustix::fs::memfd_create("rubbish", MemfdFlags::CLOEXEC).expect("made"));
            file.write_all_at(bytes, 0).expect("written");
            assert!(Body::read(&file).is_err(), "{bytes:?}");
        }
    }
}
