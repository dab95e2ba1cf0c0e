//! The system call filter that a spec asks for, compiled.

use super::prepare::{Built, SeccompChoice};
use crate::sandbox::caps::CapSet;
use crate::sandbox::seccomp::{self, Arch, BpfInstruction, Kernel, SeccompError};

/// The capabilities that a container may ever have: a filter depends on them.
pub fn bounding(built: &Built) -> CapSet {
    let capabilities = built.spec.process().as_ref().and_then(|process| process.capabilities().clone());
    CapSet::from_oci(&capabilities.and_then(|sets| sets.bounding().clone()).unwrap_or_default())
}

/// The filter, or nothing where none was asked for.
///
/// # Errors
/// [`SeccompError`] for a profile that cannot be read or compiled.
pub fn filter(built: &Built) -> Result<Option<Vec<BpfInstruction>>, SeccompError> {
    let caps = bounding(built);
    Ok(match &built.seccomp {
        SeccompChoice::Unconfined => None,
        SeccompChoice::Builtin => Some(seccomp::default_program(Arch::host(), caps)?),
        SeccompChoice::File(path) => {
            let profile = seccomp::profile_from_file(path, caps, Kernel::running())?;
            Some(seccomp::compile(&profile, Arch::host())?)
        }
    })
}
