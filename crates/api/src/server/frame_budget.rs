use std::time::{Duration, Instant};

/// Length of the head of an HTTP/2 frame in bytes (RFC 9113, 4.1).
const HEAD: usize = 9;

/// The types of the frames that carry a request.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// What one frame costs. All amounts are in bytes of an answer: a client may acknowledge every 128 of them with a frame.
const FRAME: u64 = 128;

/// Frames that a connection may send at once without asking for anything.
const BURST: u64 = 1000 * FRAME;

/// What each second adds.
const SECOND: u64 = 100 * FRAME;

/// What a request's head adds: clients cancel requests, ping, and open windows for answers.
const REQUEST: u64 = 8 * FRAME;

/// What a byte of a request's body adds. A frame that carries less than eight bytes costs more than it adds.
const BODY_BYTE: u64 = FRAME / 8;

/// What a byte of an answer adds. Some clients open two windows for each frame of an answer.
const ANSWER_BYTE: u64 = 1;

/// Limits the frames that a client of HTTP/2 sends without asking for anything.
///
/// Pings, settings, priorities, windows, resets of old streams and unknown frames cost their sender next to nothing, and
/// h2 takes any number of them. Each frame takes from a budget, which requests, bodies, answers and time refill. So a
/// client that asks for something, or that sends few frames, never exhausts it.
pub(super) struct FrameBudget {
    left: u64,
    /// Until when time was added.
    refilled: Instant,
    /// Bytes of the present frame's head, of which `known` have come.
    head: [u8; HEAD],
    known: usize,
    /// Bytes of the present frame's payload that have not come.
    payload: usize,
}

impl FrameBudget {
    /// The budget of a connection that begins now.
    pub(super) fn new(now: Instant) -> FrameBudget {
        FrameBudget { left: BURST, refilled: now, head: [0; HEAD], known: 0, payload: 0 }
    }

    /// Takes from the budget for the frames that begin in the next bytes of the client. Returns false if they exceed it. Reads
    /// the clock only if the budget runs out.
    pub(super) fn receive(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            let of_payload = bytes.len().min(self.payload);
            self.payload -= of_payload;
            bytes = &bytes[of_payload..];
            let of_head = bytes.len().min(HEAD - self.known);
            self.head[self.known..self.known + of_head].copy_from_slice(&bytes[..of_head]);
            self.known += of_head;
            bytes = &bytes[of_head..];
            if self.known < HEAD {
                continue;
            }
            let [high, middle, low, kind, ..] = self.head;
            (self.known, self.payload) = (0, u32::from_be_bytes([0, high, middle, low]) as usize);
            self.add(match kind {
                HEADERS => REQUEST,
                DATA => BODY_BYTE * self.payload as u64,
                _ => 0,
            });
            if !self.take(&now) {
                return false;
            }
        }
        true
    }

    /// Adds what the server sent.
    pub(super) fn send(&mut self, bytes: usize) {
        self.add(ANSWER_BYTE * bytes as u64);
    }

    fn add(&mut self, amount: u64) {
        self.left = self.left.saturating_add(amount).min(BURST);
    }

    /// Takes one frame. Returns false if there is nothing left.
    fn take(&mut self, now: &impl Fn() -> Instant) -> bool {
        if self.left < FRAME {
            let now = now();
            let passed = now.saturating_duration_since(self.refilled).min(Duration::from_secs(BURST / SECOND));
            self.add(SECOND * passed.as_millis() as u64 / 1000);
            self.refilled = now;
        }
        let is_enough = self.left >= FRAME;
        self.left = self.left.saturating_sub(FRAME);
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{DATA, FrameBudget, HEADERS};

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], &vec![HEADERS; payload]].concat()
    }

    /// How many of these rounds of frames a connection may send at once, up to 100,000. The server sends `answer` bytes after
    /// each.
    fn rounds(frames: &[Vec<u8>], answer: usize) -> usize {
        let now = Instant::now();
        let mut budget = FrameBudget::new(now);
        let bytes = frames.concat();
        let passes = |_: &usize| {
            let passed = budget.receive(&bytes, || now);
            budget.send(answer);
            passed
        };
        (0..100_000).take_while(passes).count()
    }

    #[test]
    fn frames_that_ask_for_nothing_run_out() {
        // A ping's answer, 17 bytes, adds little.
        for (kind, payload, answer, most) in
            [(PING, 8, 17, 1153), (WINDOW_UPDATE, 4, 0, 1000), (DATA, 0, 0, 1000), (4, 6, 9, 1075), (0xfe, 0, 0, 1000)]
        {
            assert_eq!(rounds(&[frame(kind, payload)], answer), most, "type {kind}");
        }
    }

    #[test]
    fn clients_that_ask_may_send_more() {
        let request = frame(HEADERS, 30);
        let [reset, window, ping] = [(3, 4), (WINDOW_UPDATE, 4), (PING, 8)].map(|(kind, size)| frame(kind, size));
        // Requests with what clients send around them, and none that are withdrawn.
        assert_eq!(rounds(&[request.clone(), frame(DATA, 0), window.clone(), window.clone(), ping], 0), 100_000);
        assert_eq!(rounds(&[request, reset], 0), 100_000);
        // One long call: small messages in both directions, and a large answer whose every frame opens two windows.
        assert_eq!(rounds(&[frame(DATA, 25), window.clone()], 0), 100_000);
        assert_eq!(rounds(&[window.clone(), window], 16_384), 100_000);
    }

    #[test]
    fn frames_are_found_however_their_bytes_arrive() {
        let now = Instant::now();
        let frames = [frame(HEADERS, 0), frame(DATA, 300), frame(PING, 8), frame(4, 0)].concat();
        for length in [1, 4, 9, 10, 1000] {
            let mut budget = FrameBudget::new(now);
            budget.left = 2 * super::FRAME;
            let passed = frames.chunks(length).all(|bytes| budget.receive(bytes, || now));
            // 2, and 8 - 1 for the head, 37.5 - 1 for the body, -2 for the others.
            assert_eq!((passed, budget.left), (true, 2 * 43 * 64 + 64), "{length}");
        }
    }

    #[test]
    fn time_adds_a_hundred_frames_a_second_and_no_more_than_the_burst() {
        let began = Instant::now();
        let mut budget = FrameBudget::new(began);
        let mut sent = |time: Instant| (0..100_000).take_while(|_| budget.receive(&frame(PING, 0), || time)).count();
        assert_eq!(sent(began), 1000);
        assert_eq!(sent(began + Duration::from_millis(2500)), 250);
        assert_eq!(sent(began + Duration::from_secs(86_400)), 1000);
        // A clock that stands still adds nothing.
        assert_eq!(sent(began + Duration::from_secs(86_400)), 0);
    }
}
