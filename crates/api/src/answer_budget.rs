use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;

use super::{Code, Problem};

/// Default budget of a server, in bytes.
const DEFAULT_BYTES: usize = 64 << 20;

/// Largest small answer in bytes. A hundred items with titles are smaller.
pub(crate) const SMALL: usize = 16 << 10;

/// Limits the bytes of all answers that a server holds at one time.
///
/// An answer counts from before it is ranked until its last byte is written to the socket. Large answers may use three
/// quarters of the budget, and so may one connection. The last quarter stays for small answers of other connections, so that
/// clients that ask for much and read nothing do not stop everybody else. Clones share one budget.
#[derive(Clone, Debug)]
pub struct AnswerBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    total: usize,
    used: AtomicUsize,
}

impl AnswerBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> AnswerBudget {
        AnswerBudget(Arc::new(Budget { total: bytes, used: AtomicUsize::new(0) }))
    }

    /// The most bytes that large answers, or one connection, may use.
    fn share(&self) -> usize {
        self.0.total - self.0.total / 4
    }
}

impl Default for AnswerBudget {
    fn default() -> AnswerBudget {
        AnswerBudget::new(DEFAULT_BYTES)
    }
}

/// One connection's share of an [`AnswerBudget`].
#[derive(Clone, Debug)]
pub(crate) struct AnswerShare(Arc<Share>);

#[derive(Debug)]
struct Share {
    budget: AnswerBudget,
    used: AtomicUsize,
}

impl AnswerShare {
    /// The share of a connection that begins now.
    pub(crate) fn new(budget: &AnswerBudget) -> AnswerShare {
        AnswerShare(Arc::new(Share { budget: budget.clone(), used: AtomicUsize::new(0) }))
    }

    /// The most bytes that one answer may take.
    pub(crate) fn most(&self) -> usize {
        self.0.budget.share()
    }

    /// Takes `bytes` for an answer.
    ///
    /// # Errors
    /// 429 if other answers use up the room.
    pub(crate) fn charge(&self, bytes: usize) -> Result<AnswerCharge, Problem> {
        let Budget { total, used } = &*self.0.budget.0;
        let share = self.most();
        let room = if bytes > SMALL { share } else { *total };
        if !add_within(&self.0.used, bytes, share) {
            return Err(no_room());
        }
        if !add_within(used, bytes, room) {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(no_room());
        }
        Ok(AnswerCharge { share: self.clone(), bytes: AtomicUsize::new(bytes) })
    }

    /// Charges an answer that is built already.
    ///
    /// # Errors
    /// 429 if other answers use up the room.
    pub(crate) fn hold(&self, answer: Vec<u8>) -> Result<Bytes, Problem> {
        Ok(self.charge(answer.len())?.hold(answer))
    }
}

/// Adds to `used` if the sum is at most `most`.
fn add_within(used: &AtomicUsize, bytes: usize, most: usize) -> bool {
    let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= most);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Refuses an answer while other answers use up the room.
fn no_room() -> Problem {
    let detail =
        "answers that their clients have not read yet leave no room for this one: read them, or try again later";
    Problem::new(Code::Overloaded, detail)
}

/// The bytes that one answer may take. Dropping it returns them.
#[derive(Debug)]
pub(crate) struct AnswerCharge {
    share: AnswerShare,
    bytes: AtomicUsize,
}

impl AnswerCharge {
    /// How many bytes are charged.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns all but `bytes`, the size of the answer once it is known.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let charged = self.bytes.fetch_min(bytes, Ordering::Relaxed);
        self.give_back(charged.saturating_sub(bytes));
    }

    /// The answer, charged until its last byte is written or dropped. The server drops a body when it hands the bytes to the
    /// connection's buffers, so the bytes themselves hold the charge.
    pub(crate) fn hold(self, answer: Vec<u8>) -> Bytes {
        self.shrink_to(answer.capacity());
        held(answer, self)
    }

    fn give_back(&self, bytes: usize) {
        let Share { budget, used } = &*self.share.0;
        used.fetch_sub(bytes, Ordering::Relaxed);
        budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for AnswerCharge {
    fn drop(&mut self) {
        self.give_back(self.bytes());
    }
}

/// Bytes of an answer and what they are charged to.
struct Held<A, C> {
    answer: A,
    _charge: C,
}

impl<A: AsRef<[u8]>, C> AsRef<[u8]> for Held<A, C> {
    fn as_ref(&self) -> &[u8] {
        self.answer.as_ref()
    }
}

/// Bytes that hold `charge` until the last of them is written or dropped.
pub(crate) fn held<A, C>(answer: A, charge: C) -> Bytes
where
    A: AsRef<[u8]> + Send + 'static,
    C: Send + 'static,
{
    Bytes::from_owner(Held { answer, _charge: charge })
}

/// The charge of an answer over gRPC. A handler puts it into the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct MessageCharge {
    charge: Arc<AnswerCharge>,
    /// Whether the answer is one message. Its first part then shows the whole answer's size.
    is_one: bool,
}

impl MessageCharge {
    /// Of an answer of one message.
    pub(crate) fn one(charge: AnswerCharge) -> MessageCharge {
        MessageCharge { charge: Arc::new(charge), is_one: true }
    }

    /// Of a stream of messages.
    pub(crate) fn stream(charge: AnswerCharge) -> MessageCharge {
        MessageCharge { charge: Arc::new(charge), is_one: false }
    }

    /// A part of the encoded answer, which holds the charge until it is written or dropped.
    pub(crate) fn hold(&self, part: Bytes) -> Bytes {
        if self.is_one {
            self.charge.shrink_to(part.len());
        }
        held(part, Arc::clone(&self.charge))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use canet_testing::rng;
    use rand::Rng;

    use super::{AnswerBudget, AnswerCharge, AnswerShare, MessageCharge, SMALL};
    use crate::Code;

    const TOTAL: usize = 64 * SMALL;

    fn used(budget: &AnswerBudget) -> usize {
        budget.0.used.load(Ordering::Relaxed)
    }

    #[test]
    fn large_answers_and_single_connections_leave_a_quarter_to_others() {
        let budget = AnswerBudget::new(TOTAL);
        let (greedy, other) = (AnswerShare::new(&budget), AnswerShare::new(&budget));
        let large: Vec<AnswerCharge> = (0..24).map(|_| greedy.charge(2 * SMALL).unwrap()).collect();
        for refused in [greedy.charge(1), other.charge(SMALL + 1)] {
            let problem = refused.unwrap_err();
            assert_eq!((problem.code, problem.retry_after), (Code::Overloaded, Some(1)));
        }
        let small: Vec<AnswerCharge> = (0..16).map(|_| other.charge(SMALL).unwrap()).collect();
        assert!(other.charge(1).is_err());
        assert_eq!(used(&budget), TOTAL);
        drop((large, small));
        assert_eq!(used(&budget), 0);
        assert!(greedy.charge(greedy.most()).is_ok() && greedy.charge(greedy.most() + 1).is_err());
    }

    #[test]
    fn whatever_happens_to_charges_all_bytes_come_back() {
        let budget = AnswerBudget::new(TOTAL);
        let mut rng = rng(1);
        for _ in 0..200 {
            let shares: Vec<AnswerShare> = (0..3).map(|_| AnswerShare::new(&budget)).collect();
            let (mut charges, mut bodies, mut parts) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rng.gen_range(1..100) {
                let share = &shares[rng.gen_range(0..3)];
                if let Ok(charge) = share.charge(rng.gen_range(0..4 * SMALL)) {
                    charges.push(charge);
                }
                match rng.gen_range(0..5) {
                    0 => drop(charges.pop()),
                    1 => charges.last().into_iter().for_each(|charge| charge.shrink_to(charge.bytes() / 2)),
                    2 => bodies.extend(charges.pop().map(|charge| charge.hold(vec![0; 10]))),
                    3 => drop(bodies.pop()),
                    _ => parts.extend(charges.pop().map(|charge| {
                        let charge = MessageCharge::stream(charge);
                        [1, 2].map(|part| charge.hold(vec![0; part].into()))
                    })),
                }
                let held: usize = charges.iter().map(AnswerCharge::bytes).sum();
                assert!(used(&budget) >= held && used(&budget) <= TOTAL);
                assert!(shares.iter().all(|share| share.0.used.load(Ordering::Relaxed) <= share.most()));
            }
            drop((charges, bodies, parts));
            assert_eq!(used(&budget), 0);
            assert!(shares.iter().all(|share| share.0.used.load(Ordering::Relaxed) == 0));
        }
    }

    #[test]
    fn bytes_are_charged_until_their_last_part_is_written() {
        let budget = AnswerBudget::new(TOTAL);
        let share = AnswerShare::new(&budget);
        let mut body = share.charge(100).unwrap().hold(vec![7; 60]);
        assert_eq!((&body[..], used(&budget)), (&[7; 60][..], 60));
        let rest = body.split_off(50);
        drop(body);
        assert_eq!(used(&budget), 60);
        drop(rest);
        assert_eq!(used(&budget), 0);

        let message = MessageCharge::one(share.charge(100).unwrap());
        let part = message.hold(vec![7; 40].into());
        drop(message);
        assert_eq!((&part[..], used(&budget)), (&[7; 40][..], 40));
        drop(part);
        assert_eq!(used(&budget), 0);
    }
}
