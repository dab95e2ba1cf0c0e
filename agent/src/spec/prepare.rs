//! What must be on the host before a container's mounts can be made: a list, and its execution.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

/// One thing to lay out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A directory and its parents, where there is none.
    Directory {
        /// Where.
        path: PathBuf,
        /// Its permissions, if it is made.
        mode: u32,
    },
    /// A file with these bytes, in place of what is there.
    File {
        /// Where.
        path: PathBuf,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// A volume's directory, filled with what the image has at `image_path` if it is made now.
    Volume {
        /// Where.
        path: PathBuf,
        /// The mount point in the image.
        image_path: String,
        /// Whether to take over the image's content.
        copy_up: bool,
    },
}

/// A spec, and what it needs.
#[derive(Debug, Clone)]
pub struct Built {
    /// What the sandbox takes.
    pub spec: Spec,
    /// What must be there first, in order.
    pub steps: Vec<Step>,
    /// How the container is asked to stop: a signal number.
    pub stop_signal: i32,
}
