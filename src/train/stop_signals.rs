use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::Failure;

/// What SIGINT and SIGTERM do.
pub(super) struct StopSignals {
    /// Set by a signal: the training saves and stops.
    pub(super) stop: Arc<AtomicBool>,
    /// Whether a signal ends the process at once.
    at_once: Arc<AtomicBool>,
}

impl StopSignals {
    /// From now on a signal ends the process at once, because there is nothing to save.
    pub(super) fn install() -> io::Result<StopSignals> {
        let signals = StopSignals { stop: Arc::default(), at_once: Arc::new(AtomicBool::new(true)) };
        for signal in [SIGINT, SIGTERM] {
            // The order matters: a signal ends the process only if the flag is set before it comes.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                Failure::INTERRUPTED,
                Arc::clone(&signals.at_once),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&signals.at_once))?;
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// From now on the first signal asks the training to save and stop. The second one ends the process at once.
    pub(super) fn save_before_stopping(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }
}
