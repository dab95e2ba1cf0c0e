//! Ctrl-C during a pull: the first one ends it cleanly, a second one ends celda.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use celda_layerfs::transport::Cancel;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Error, Result};

/// What a shell reports for a program that Ctrl-C ended: 128 and SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// While it lives, SIGINT and SIGTERM cancel instead of ending celda.
pub(super) struct Cancelling {
    cancel: Cancel,
    registered: Vec<SigId>,
}

impl Cancelling {
    /// # Errors
    /// When the kernel takes no signal handler.
    pub(super) fn begin() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let mut begun = Self { cancel: Cancel::from_flag(Arc::clone(&flag)), registered: Vec::new() };
        for signal in [SIGINT, SIGTERM] {
            // In this order the first signal only sets the flag, and the second finds it set.
            let ends =
                signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&flag));
            begun.registered.push(ends.map_err(Error::io("handle signals of", "this process"))?);
            let sets = signal_hook::flag::register(signal, Arc::clone(&flag));
            begun.registered.push(sets.map_err(Error::io("handle signals of", "this process"))?);
        }
        Ok(begun)
    }

    /// What a pull is to look at.
    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}
