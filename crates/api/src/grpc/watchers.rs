use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::{Code, Problem};

/// Most health watches of a server. They need no key and last as long as their clients want.
const MOST: usize = 256;

/// Most health watches of one connection: one for each service that clients may name, and one more.
const MOST_PER_CONNECTION: usize = 4;

/// Counts the open health watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<Option<SocketAddr>, usize>>>);

impl Watchers {
    /// Counts a watch until the guard drops. `connection` is the client's address and port, if a listener accepted it.
    ///
    /// # Errors
    /// 429 if the server or the connection has as many as it may have.
    pub(super) fn enter(&self, connection: Option<SocketAddr>) -> Result<Watcher, Problem> {
        let mut open = self.open();
        let (all, own) = (open.values().sum::<usize>(), open.get(&connection).copied().unwrap_or_default());
        let detail = if own >= MOST_PER_CONNECTION && connection.is_some() {
            format!("the connection has {own} health watches, which is the limit: share them")
        } else if all >= MOST {
            format!("the server has {all} health watches, which is the limit: use Check")
        } else {
            open.insert(connection, own + 1);
            return Ok(Watcher { watchers: self.clone(), connection });
        };
        Err(Problem::new(Code::Overloaded, detail))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Option<SocketAddr>, usize>> {
        self.0.lock()
    }
}

/// The place of one open watch.
#[derive(Debug)]
pub(super) struct Watcher {
    watchers: Watchers,
    connection: Option<SocketAddr>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut open = self.watchers.open();
        if let Some(own) = open.get_mut(&self.connection) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{MOST, MOST_PER_CONNECTION, Watcher, Watchers};
    use crate::Code;

    fn connection(port: usize) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())))
    }

    #[test]
    fn watches_are_bounded_for_a_connection_and_for_the_server() {
        let watchers = Watchers::default();
        let fill = |port| (0..MOST_PER_CONNECTION).map(move |_| connection(port));
        let mut open: Vec<Watcher> = fill(1).map(|from| watchers.enter(from).unwrap()).collect();
        assert_eq!(watchers.enter(connection(1)).unwrap_err().code, Code::Overloaded);
        let ports = 2..=MOST / MOST_PER_CONNECTION;
        open.extend(ports.flat_map(fill).map(|from| watchers.enter(from).unwrap()));
        assert_eq!(open.len(), MOST);
        assert!(watchers.enter(connection(60_000)).is_err() && watchers.enter(None).is_err());
        open.pop();
        open.push(watchers.enter(None).unwrap());
        drop(open);
        assert!(watchers.open().is_empty());
    }
}
