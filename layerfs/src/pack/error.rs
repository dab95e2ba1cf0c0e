//! Why files cannot be packed.

use std::path::PathBuf;

/// Why an image cannot be made of some files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A file cannot be read.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Not something that can be packed.
    #[error("{path} is not a regular file", path = .0.display())]
    NotAFile(PathBuf),
    /// A place in the image that is none.
    #[error("{path} is not a place in an image: {why}", path = .0.display(), why = .1)]
    Place(PathBuf, &'static str),
    /// Two files for one place.
    #[error("{path} in the image is given twice, with different content", path = .0.display())]
    Twice(PathBuf),
    /// A program of another kind of machine.
    #[error("{path} is a program for another processor (ELF machine {machine}), this one is {host}", path = path.display())]
    OtherMachine {
        /// The program.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
        /// This machine's architecture.
        host: &'static str,
    },
    /// A damaged program.
    #[error("{path} looks like an ELF program and is none: {why}", path = .0.display(), why = .1)]
    Elf(PathBuf, &'static str),
    /// The loader fails.
    #[error("asking {interpreter} for the libraries of {path}: {why}", interpreter = interpreter.display(), path = path.display())]
    Loader {
        /// The program.
        path: PathBuf,
        /// Its loader.
        interpreter: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Links without end.
    #[error("{path}: more symbolic links than the kernel would follow", path = .0.display())]
    Links(PathBuf),
    /// Too many files.
    #[error("{0} files, the limit is {1}")]
    TooManyFiles(usize, usize),
    /// A file that its tar header cannot describe.
    #[error("{path} has {bytes} bytes; at most 8 GiB fit", path = path.display())]
    TooLarge {
        /// Where in the image.
        path: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// Not a tag.
    #[error("{0:?} cannot be an image's tag: it is empty, too long, or has spaces")]
    Tag(String),
    /// Not a variable.
    #[error("environment {0:?}: write NAME=value")]
    Variable(String),
    /// What is at the destination is not a layout.
    #[error("index.json is no index of an OCI image layout ({0}); choose another directory")]
    Index(String),
}

impl PackError {
    pub(super) fn io<P: Into<PathBuf>>(
        action: &'static str,
        path: P,
    ) -> impl FnOnce(std::io::Error) -> Self + use<P> {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
