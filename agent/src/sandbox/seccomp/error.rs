//! Why a profile can't be a filter.

use std::path::PathBuf;

/// Why a profile can't be compiled or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// An action that needs someone who listens to the filter's notifications.
    #[error(
        "seccomp profile, {what}: SCMP_ACT_NOTIFY needs a supervisor that celda does not have; use SCMP_ACT_ERRNO"
    )]
    Notify {
        /// Where in the profile.
        what: String,
    },
    /// A field whose value has no meaning.
    #[error("seccomp profile, {what}: {why}")]
    Invalid {
        /// Where in the profile.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// More than the kernel loads.
    #[error(
        "seccomp profile: {instructions} BPF instructions, the kernel loads at most 4096; use fewer rules with arguments"
    )]
    TooLong {
        /// How many it would be.
        instructions: usize,
    },
    /// The file can't be read.
    #[error("read seccomp profile {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The file is larger than a profile can be.
    #[error("seccomp profile {}: larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// The text is neither Docker's form nor that of the OCI runtime spec.
    #[error("seccomp profile {}: {source}; it is JSON in Docker's form or that of the OCI runtime spec", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
}
