use tokio::sync::mpsc::UnboundedReceiver;

use super::Refusal;
use super::row::{Answer, Reply};

/// A row's reply and what to say there.
pub(crate) type Outcome = (Reply, Result<Answer, Refusal>);

/// Hands outcomes to the tasks that wait for them, on the runtime: the thread that owns the device only pays for one
/// wake-up a batch. Bodies are built by the waiting tasks, not here.
///
/// Ends when the executor has ended and everything that it sent is handed over.
pub(crate) async fn deliver(mut outcomes: UnboundedReceiver<Vec<Outcome>>) {
    while let Some(batch) = outcomes.recv().await {
        for (reply, outcome) in batch {
            // A closed reply means that the client left while its row ran.
            let _ = reply.send(outcome);
        }
    }
}
