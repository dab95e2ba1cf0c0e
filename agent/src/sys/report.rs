//! What the child tells the parent: a few words in the memory they share.
//!
//! The parent reads only after the child has executed its program or ended (it is suspended until then, or it
//! joins the thread that is), so the atomics need no stronger order than the kernel's wake-up gives.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering::Relaxed};

/// Bytes kept of a kernel's message or of a file's head.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256;

/// `detail` of an execute step: the file is there, its interpreter is not.
pub(crate) const DETAIL_INTERPRETER: u32 = 1;
/// `detail` of an execute step: the file is a directory.
pub(crate) const DETAIL_DIRECTORY: u32 = 2;
/// `detail` of an execute step: the reaper or the helper itself could not be executed.
pub(crate) const DETAIL_REAPER: u32 = 3;
/// `detail` of an execute step: the program leads to the runtime's own executable.
pub(crate) const DETAIL_AGENT: u32 = 4;

/// The child's progress and its failure, if there was one.
#[derive(Debug)]
pub(crate) struct Report {
    step: AtomicU32,
    errno: AtomicI32,
    detail: AtomicU32,
    apart: AtomicBool,
    message_bytes: AtomicU32,
    message: [AtomicU8; MESSAGE_BYTES_MAX],
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            step: AtomicU32::new(0),
            errno: AtomicI32::new(0),
            detail: AtomicU32::new(0),
            apart: AtomicBool::new(false),
            message_bytes: AtomicU32::new(0),
            message: [const { AtomicU8::new(0) }; MESSAGE_BYTES_MAX],
        }
    }

    /// The index of the step that was begun last.
    pub(crate) fn step(&self) -> usize {
        self.step.load(Relaxed) as usize
    }

    /// The failure of that step, or 0.
    pub(crate) fn errno(&self) -> i32 {
        self.errno.load(Relaxed)
    }

    /// Which part of the step failed; its meaning is the step's own.
    pub(crate) fn detail(&self) -> u32 {
        self.detail.load(Relaxed)
    }

    /// The helper executes the program, and tells what came of it by its pipe.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart.load(Relaxed)
    }

    /// A kernel's message, or the head of a file.
    pub(crate) fn message(&self) -> Vec<u8> {
        let bytes = self.message_bytes.load(Relaxed) as usize;
        self.message.iter().take(bytes).map(|byte| byte.load(Relaxed)).collect()
    }

    pub(super) fn begin(&self, step: u32) {
        self.step.store(step, Relaxed);
    }

    pub(super) fn fail(&self, errno: i32) {
        self.errno.store(errno, Relaxed);
    }

    pub(super) fn set_detail(&self, detail: u32) {
        self.detail.store(detail, Relaxed);
    }

    pub(super) fn set_apart(&self, apart: bool) {
        self.apart.store(apart, Relaxed);
    }

    pub(super) fn set_message(&self, bytes: &[u8]) {
        let mut count = 0;
        for (slot, byte) in self.message.iter().zip(bytes) {
            slot.store(*byte, Relaxed);
            count += 1;
        }
        self.message_bytes.store(count, Relaxed);
    }
}
