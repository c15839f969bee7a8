use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::activity::{Activity, Rank};
use crate::client::Client;

/// While every connection is busy, the time until the next look for one that has become idle.
const NEXT_LOOK: Duration = Duration::from_millis(100);

/// The places of a listener's connections.
///
/// If all are taken, the connection that has been idle longest makes room for a new one. So clients that connect and
/// send nothing cannot keep others out.
#[derive(Clone)]
pub(super) struct Places(Arc<Shared>);

struct Shared {
    limits: PlaceLimits,
    state: Mutex<State>,
    /// Tells that a place became free.
    freed: Notify,
}

/// Most places of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceLimits {
    /// Of all clients.
    pub(super) all: usize,
    /// Of one client.
    pub(super) of_client: usize,
}

#[derive(Default)]
struct State {
    open: HashMap<Id, Entry>,
    queue: Queue,
    clients: HashMap<Client, Queue>,
    next: Id,
}

type Id = u64;

/// Connections by the rank that each had when last looked at. A rank only rises, so the first connection whose rank is
/// still the same has the lowest of all, and no request needs to update the queue.
type Queue = BTreeSet<(Rank, Id)>;

struct Entry {
    client: Client,
    activity: Activity,
    rank: Rank,
}

/// Which limit leaves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// That of all clients.
    All,
    /// That of this client.
    OfClient,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Places {
        Places(Arc::new(Shared { limits, state: Mutex::default(), freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Waits for a place for a connection from `address`. If there is none, an idle connection makes room.
    ///
    /// # Errors
    /// [`Full::OfClient`] if the client has all of its places and none of its connections is idle.
    pub(super) async fn take(&self, address: IpAddr, activity: &Activity) -> Result<Place, Full> {
        loop {
            // Before the look, so that it misses no place. One that was freed before that is no news.
            let freed = self.0.freed.notified();
            let full = match self.try_take(address, activity) {
                Ok(place) => return Ok(place),
                Err(full) => full,
            };
            let has_asked = self.state().shed(match full {
                Full::All => None,
                Full::OfClient => Some(Client::of(address)),
            });
            if !has_asked && full == Full::OfClient {
                return Err(full);
            }
            // The time passes if every connection is busy, or if the idle one received a request just now.
            let _ = timeout(NEXT_LOOK, freed).await;
        }
    }

    /// Takes a free place.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub(super) fn try_take(&self, address: IpAddr, activity: &Activity) -> Result<Place, Full> {
        let client = Client::of(address);
        let mut state = self.state();
        if state.open.len() >= self.0.limits.all {
            return Err(Full::All);
        }
        if state.clients.get(&client).is_some_and(|queue| queue.len() >= self.0.limits.of_client) {
            return Err(Full::OfClient);
        }
        let (id, rank) = (state.next, (false, Instant::now()));
        state.next += 1;
        state.open.insert(id, Entry { client, activity: activity.clone(), rank });
        state.queue.insert((rank, id));
        state.clients.entry(client).or_default().insert((rank, id));
        Ok(Place { places: self.clone(), id })
    }
}

impl State {
    /// Asks the connection that has been idle longest to leave: of all, or of one client. Returns false if none is idle.
    fn shed(&mut self, of: Option<Client>) -> bool {
        let queue = |state: &State| match of {
            None => state.queue.first().copied(),
            Some(client) => state.clients.get(&client)?.first().copied(),
        };
        // Whoever was looked at ranks as if it had been active until now, and so comes after those to look at.
        let looked_at = (true, Instant::now());
        while let Some((rank, id)) = queue(self).filter(|(rank, _)| *rank < looked_at) {
            let Some(entry) = self.open.get(&id) else { return false };
            let current = entry.activity.rank();
            if current.is_none_or(|current| current <= rank) {
                if current.is_some() {
                    entry.activity.ask_to_leave();
                }
                self.rerank(id, looked_at);
                if current.is_some() {
                    return true;
                }
            } else if let Some(current) = current {
                self.rerank(id, current);
            }
        }
        false
    }

    fn rerank(&mut self, id: Id, rank: Rank) {
        let Some(entry) = self.open.get_mut(&id) else { return };
        let before = (std::mem::replace(&mut entry.rank, rank), id);
        let queues = [Some(&mut self.queue), self.clients.get_mut(&entry.client)];
        for queue in queues.into_iter().flatten() {
            queue.remove(&before);
            queue.insert((rank, id));
        }
    }
}

/// The place of one connection. Dropping it makes the place free.
pub(super) struct Place {
    places: Places,
    id: Id,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        let Some(Entry { client, rank, .. }) = state.open.remove(&self.id) else { return };
        state.queue.remove(&(rank, self.id));
        if let Some(queue) = state.clients.get_mut(&client) {
            queue.remove(&(rank, self.id));
            if queue.is_empty() {
                state.clients.remove(&client);
            }
        }
        drop(state);
        self.places.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Activity, Client, Full, Place, PlaceLimits, Places};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// Connections of the clients 1, 2, and so on, with a client for each.
    fn connected(places: &Places, count: u8) -> Vec<(Activity, Place)> {
        (1..=count)
            .map(|client| {
                let activity = Activity::new(None);
                let place = places.try_take(address(client), &activity).unwrap();
                (activity, place)
            })
            .collect()
    }

    /// Whether the connection was asked to leave.
    async fn is_asked(activity: &Activity) -> bool {
        // The answer is there already or never comes.
        timeout(Duration::from_millis(10), activity.asked_to_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room_and_busy_ones_never_do() {
        let places = Places::new(PlaceLimits { all: 4, of_client: 4 });
        let mut open = connected(&places, 4);
        let _request = open[0].0.request();
        drop(open[1].0.request());
        drop(open[3].0.request());
        assert!(matches!(places.try_take(address(9), &Activity::new(None)), Err(Full::All)));
        // The third never asked for anything. Of the two others the second has been idle longer.
        for next in [2, 1, 3] {
            assert!(places.state().shed(None));
            assert!(is_asked(&open[next].0).await, "{next}");
        }
        assert!(!is_asked(&open[0].0).await);
        let place = open.pop().unwrap().1;
        let waiting = {
            let places = places.clone();
            tokio::spawn(async move { places.take(address(9), &Activity::new(None)).await.is_ok() })
        };
        drop(place);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn one_client_has_places_of_its_own_number() {
        let places = Places::new(PlaceLimits { all: 4, of_client: 2 });
        let [one, two] = [(); 2].map(|()| Activity::new(None));
        let _places = [&one, &two].map(|activity| places.try_take(address(1), activity).unwrap());
        let _other = places.try_take(address(2), &Activity::new(None)).unwrap();
        assert!(matches!(places.try_take(address(1), &Activity::new(None)), Err(Full::OfClient)));
        // Its own idle connection makes room, though another client's has been idle as long.
        let _request = one.request();
        assert!(places.state().shed(Some(Client::of(address(1)))));
        assert!(is_asked(&two).await);
        let _request = two.request();
        assert!(matches!(places.take(address(1), &Activity::new(None)).await, Err(Full::OfClient)));
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let places = Places::new(PlaceLimits { all: 3, of_client: 1 });
        drop(connected(&places, 3));
        let state = places.state();
        assert!(state.open.is_empty() && state.queue.is_empty() && state.clients.is_empty());
    }
}
