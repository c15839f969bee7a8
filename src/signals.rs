use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// SIGTERM and SIGINT stop the server: the first drains it, the second ends the process at once. SIGHUP reloads the
/// model.
pub(crate) struct Signals {
    received: UnboundedReceiver<Signal>,
}

/// A received signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The signal of this name asks the server to stop.
    Stop(&'static str),
    /// SIGHUP asks for a reload.
    Hangup,
}

impl Signals {
    /// Catches the signals from now on. It needs no runtime.
    ///
    /// # Errors
    /// [`io::Error`] if the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        let (sender, received) = unbounded_channel();
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters. The first signal finds the flag unset and then sets it, so that the second one ends the
            // process. This works even if the runtime hangs.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&armed))?;
            signal_hook::flag::register(signal, Arc::clone(&armed))?;
        }
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in caught.forever() {
                let signal = match signal {
                    SIGHUP => Signal::Hangup,
                    SIGTERM => Signal::Stop("SIGTERM"),
                    _ => Signal::Stop("SIGINT"),
                };
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Signals { received })
    }

    /// Waits for a signal to stop and returns its name. A SIGHUP before it has no effect.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Signal::Stop(name) => return name,
                Signal::Hangup => tracing::info!("SIGHUP: the model is being loaded already"),
            }
        }
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.received.recv().await {
            Some(signal) => signal,
            // The sending thread runs as long as this receiver exists.
            None => std::future::pending().await,
        }
    }
}
