use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// SIGTERM and SIGINT: the first is for the server to drain, the second ends the process at once. SIGHUP: to reload.
pub(crate) struct Signals {
    received: UnboundedReceiver<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To stop, by the signal of this name.
    Stop(&'static str),
    /// To reload.
    Hangup,
}

impl Signals {
    /// Catches the signals from here on, before there is a runtime.
    ///
    /// # Errors
    /// [`io::Error`] where the system refuses a handler.
    pub(crate) fn install() -> io::Result<Signals> {
        let (sender, received) = unbounded_channel();
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, passes by, and sets it for the second, which then
            // meets the system's own handling. That works even where the runtime hangs.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&armed))?;
            signal_hook::flag::register(signal, Arc::clone(&armed))?;
        }
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in caught.forever() {
                let meaning = match signal {
                    SIGHUP => Signal::Hangup,
                    SIGTERM => Signal::Stop("SIGTERM"),
                    _ => Signal::Stop("SIGINT"),
                };
                if sender.send(meaning).is_err() {
                    return;
                }
            }
        })?;
        Ok(Signals { received })
    }

    /// The name of the next signal to stop; a SIGHUP before it has no effect.
    pub(crate) async fn stop(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Signal::Stop(name) => return name,
                Signal::Hangup => tracing::info!("SIGHUP: the model is being loaded already"),
            }
        }
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.received.recv().await {
            Some(signal) => signal,
            // The thread that sends never ends while this receiver is there.
            None => std::future::pending().await,
        }
    }
}
