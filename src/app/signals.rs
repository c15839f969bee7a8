use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// SIGTERM and SIGINT: the first is for the server to drain, the second ends the process at once.
pub(super) struct Signals {
    received: UnboundedReceiver<&'static str>,
}

impl Signals {
    /// Catches the signals from here on, before there is a runtime.
    ///
    /// # Errors
    /// [`io::Error`] where the system refuses a handler.
    pub(super) fn install() -> io::Result<Signals> {
        let (sender, received) = unbounded_channel();
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, passes by, and sets it for the second, which then
            // meets the system's own handling. That works even where the runtime hangs.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&armed))?;
            signal_hook::flag::register(signal, Arc::clone(&armed))?;
        }
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in caught.forever() {
                let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
                if sender.send(name).is_err() {
                    return;
                }
            }
        })?;
        Ok(Signals { received })
    }

    /// The next signal's name.
    pub(super) async fn next(&mut self) -> &'static str {
        match self.received.recv().await {
            Some(name) => name,
            // The thread that sends never ends while this receiver is there.
            None => std::future::pending().await,
        }
    }
}
