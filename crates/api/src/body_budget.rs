//! The memory that request bodies share.
//!
//! A client that sends most of a body and stops holds its bytes until the body is refused. So that no client can spend
//! the whole budget, it is divided twice:
//!
//! - Bodies of up to [`SMALL`] bytes have a reserve that larger ones cannot use. They may also use the rest.
//! - A peer may hold as many bytes as are free. One peer alone so gets half, and a newcomer finds room however much the
//!   others hold. All clients behind one proxy are one peer.
//!
//! A counter of each peer is shared by its connections. A request pays for three atomic operations and takes no lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::client::Client;
use super::limits::MAX_BODY;
use super::{Code, Problem};

/// Default budget of a server, in bytes.
const DEFAULT_BYTES: usize = 64 << 20;

/// Largest body that the reserve takes.
const SMALL: usize = 16 << 10;

/// Share of the budget that is the reserve: one of so many parts.
const RESERVE: usize = 8;

/// What a peer may always hold of what is free: the largest body, packed and unpacked.
const LARGE_FLOOR: usize = 2 * MAX_BODY;

/// Limits the bytes of all request bodies that a server holds at one time.
///
/// A body counts from its first byte until its request is answered. Clones share one budget.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    /// Free bytes of the reserve.
    small: AtomicUsize,
    /// Free bytes of the rest.
    large: AtomicUsize,
    /// The peers that are connected.
    peers: Mutex<HashMap<Client, Weak<PeerBodies>>>,
}

impl BodyBudget {
    /// A budget of `bytes`, an eighth of which is the reserve of small bodies.
    pub fn new(bytes: usize) -> BodyBudget {
        let reserve = bytes / RESERVE;
        BodyBudget(Arc::new(Budget {
            small: AtomicUsize::new(reserve),
            large: AtomicUsize::new(bytes - reserve),
            peers: Mutex::default(),
        }))
    }

    /// The bodies of the peer at `address`. A connection asks once, for all its requests.
    pub(crate) fn peer(&self, address: IpAddr) -> Arc<PeerBodies> {
        let client = Client::of(address);
        let mut peers = self.0.peers.lock();
        if let Some(known) = peers.get(&client).and_then(Weak::upgrade) {
            return known;
        }
        let peer =
            PeerBodies { budget: Arc::clone(&self.0), client, small: AtomicUsize::new(0), large: AtomicUsize::new(0) };
        let peer = Arc::new(peer);
        peers.insert(client, Arc::downgrade(&peer));
        peer
    }
}

impl Default for BodyBudget {
    fn default() -> BodyBudget {
        BodyBudget::new(DEFAULT_BYTES)
    }
}

/// What the bodies of one peer hold.
#[derive(Debug)]
pub(crate) struct PeerBodies {
    budget: Arc<Budget>,
    client: Client,
    /// Bytes of the reserve.
    small: AtomicUsize,
    /// Bytes of the rest.
    large: AtomicUsize,
}

impl PeerBodies {
    fn small(&self) -> Account<'_> {
        Account { free: &self.budget.small, held: &self.small, floor: SMALL }
    }

    fn large(&self) -> Account<'_> {
        Account { free: &self.budget.large, held: &self.large, floor: LARGE_FLOOR }
    }
}

impl Drop for PeerBodies {
    fn drop(&mut self) {
        let mut peers = self.budget.peers.lock();
        // A new connection of the peer may have replaced the entry since the last one closed.
        if peers.get(&self.client).is_some_and(|peer| peer.strong_count() == 0) {
            peers.remove(&self.client);
        }
    }
}

/// A peer's part of the reserve or of the rest.
struct Account<'a> {
    free: &'a AtomicUsize,
    held: &'a AtomicUsize,
    /// What the peer may hold even if less is free.
    floor: usize,
}

impl Account<'_> {
    /// Takes `bytes` if they are free, and if the peer then holds no more than what is left.
    fn take(&self, bytes: usize) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let less = |free: usize| free.checked_sub(bytes).filter(|left| held <= self.floor.max(*left));
        let is_taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if !is_taken {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.free.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// One request's share of a [`BodyBudget`], and whether its body was read. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct BodyPermit {
    peer: Arc<PeerBodies>,
    /// Bytes of the reserve.
    small: AtomicUsize,
    /// Bytes of the rest.
    large: AtomicUsize,
    /// Whether the body was read to its end.
    is_read: AtomicBool,
}

impl BodyPermit {
    /// A permit that holds no bytes yet.
    pub(crate) fn empty(peer: &Arc<PeerBodies>) -> BodyPermit {
        BodyPermit {
            peer: Arc::clone(peer),
            small: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            is_read: AtomicBool::new(false),
        }
    }

    /// Takes `bytes` more. Returns false, and takes nothing, if too few are free or the peer holds too many.
    ///
    /// The request's own task calls it, so no two calls for one permit run at a time.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let (small, large) = (self.small.load(Ordering::Relaxed), self.large.load(Ordering::Relaxed));
        if large == 0 && small.saturating_add(bytes) <= SMALL && self.peer.small().take(bytes) {
            self.small.store(small + bytes, Ordering::Relaxed);
            return true;
        }
        // A body that is not small leaves the reserve.
        let Some(bytes) = bytes.checked_add(small) else { return false };
        if !self.peer.large().take(bytes) {
            return false;
        }
        self.large.store(large + bytes, Ordering::Relaxed);
        self.peer.small().give_back(self.small.swap(0, Ordering::Relaxed));
        true
    }

    /// Bytes that it holds.
    pub(crate) fn held(&self) -> usize {
        self.small.load(Ordering::Relaxed) + self.large.load(Ordering::Relaxed)
    }

    /// Records that the body was read to its end.
    pub(crate) fn ends(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Returns all bytes.
    pub(crate) fn release(&self) {
        self.peer.small().give_back(self.small.swap(0, Ordering::Relaxed));
        self.peer.large().give_back(self.large.swap(0, Ordering::Relaxed));
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.release();
    }
}

/// The time and memory that a listener grants the body of one request.
#[derive(Clone, Debug)]
pub(crate) struct BodyAllowance {
    /// The body must arrive within this time.
    pub(crate) timeout: Duration,
    /// Holds the body's bytes until the request is answered.
    pub(crate) permit: Arc<BodyPermit>,
}

/// Refuses a body over [`MAX_BODY`], which counts unpacked bytes.
pub(crate) fn too_large() -> Problem {
    Problem::new(Code::TooLarge, format!("the body is larger than {MAX_BODY} bytes"))
}

/// Refuses a body while other bodies use up the budget.
pub(crate) fn over_budget() -> Problem {
    let detail = "the server has no room for more request bodies just now";
    Problem::new(Code::Overloaded, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{BodyBudget, BodyPermit, Client, PeerBodies, SMALL};
    use crate::limits::MAX_BODY;

    fn peer(budget: &BodyBudget, address: &str) -> Arc<PeerBodies> {
        budget.peer(address.parse().unwrap())
    }

    /// Bodies of `bytes` until one is refused.
    fn fill(peer: &Arc<PeerBodies>, bytes: usize) -> Vec<BodyPermit> {
        let permits = std::iter::repeat_with(|| BodyPermit::empty(peer));
        permits.take_while(|permit| permit.take(bytes)).collect()
    }

    fn free(budget: &BodyBudget) -> (usize, usize) {
        (budget.0.small.load(Ordering::Relaxed), budget.0.large.load(Ordering::Relaxed))
    }

    #[test]
    fn permits_share_a_budget_and_return_their_bytes_once() {
        let budget = BodyBudget::new(64 << 10);
        let peer = peer(&budget, "192.0.2.1");
        let (a, b) = (BodyPermit::empty(&peer), BodyPermit::empty(&peer));
        assert!(a.take(40 << 10) && a.take(1) && b.take(10 << 10));
        assert!(!b.take(20 << 10), "the budget is spent");
        assert_eq!((a.held(), b.held()), ((40 << 10) + 1, 10 << 10));
        drop(a);
        assert!(b.take(40 << 10));
        b.release();
        b.release();
        assert_eq!(free(&budget), (8 << 10, 56 << 10));
    }

    #[test]
    fn large_bodies_leave_the_reserve_to_small_ones() {
        let budget = BodyBudget::new(64 << 20);
        let peers: Vec<_> = (0..200).map(|host| peer(&budget, &format!("192.0.2.{host}"))).collect();
        let held: Vec<_> = peers.iter().flat_map(|peer| fill(peer, MAX_BODY)).collect();
        assert_eq!((held.len(), free(&budget)), (56, (8 << 20, 0)));
        // One that grows moves out of the reserve, and stays there as it was if there is no room.
        let grows = BodyPermit::empty(&peers[0]);
        assert!(grows.take(SMALL) && !grows.take(1));
        assert_eq!((grows.held(), free(&budget).0), (SMALL, (8 << 20) - SMALL));
        drop(held);
        assert!(grows.take(1));
        assert_eq!(free(&budget), (8 << 20, (56 << 20) - SMALL - 1));
    }

    #[test]
    fn small_bodies_use_the_rest_once_their_reserve_is_spent() {
        let budget = BodyBudget::new(64 << 20);
        let held = fill(&peer(&budget, "192.0.2.1"), SMALL);
        // Half of the reserve, and half of the rest.
        assert_eq!(free(&budget), (4 << 20, 28 << 20));
        assert_eq!(held.len() * SMALL, 32 << 20);
    }

    #[test]
    fn a_newcomer_finds_room_however_much_others_hold() {
        let budget = BodyBudget::new(64 << 20);
        let first = peer(&budget, "192.0.2.1");
        let of_first = fill(&first, MAX_BODY);
        assert_eq!(of_first.len(), 28, "half of the room");
        let of_second = fill(&peer(&budget, "192.0.2.2"), MAX_BODY);
        assert_eq!(of_second.len(), 14, "half of what is left");
        assert!(BodyPermit::empty(&peer(&budget, "192.0.2.3")).take(MAX_BODY));
        assert!(!BodyPermit::empty(&first).take(MAX_BODY));
    }

    #[test]
    fn connections_of_one_network_are_one_peer_until_the_last_closes() {
        let budget = BodyBudget::new(64 << 20);
        for (one, other) in [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::2:1")] {
            assert!(Arc::ptr_eq(&peer(&budget, one), &peer(&budget, one)), "dropped in between, and found again");
            let held = peer(&budget, one);
            assert!(Arc::ptr_eq(&held, &peer(&budget, other)), "{one} and {other}");
        }
        let (one, other) = (peer(&budget, "2001:db8::1"), peer(&budget, "2001:db8:0:1::1"));
        assert!(!Arc::ptr_eq(&one, &other));
        let known = || budget.0.peers.lock().keys().copied().collect::<Vec<Client>>();
        assert_eq!(known().len(), 2);
        drop(one);
        assert_eq!(known(), [Client::of("2001:db8:0:1::".parse().unwrap())]);
    }
}
