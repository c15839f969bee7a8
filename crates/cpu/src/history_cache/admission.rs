/// Decides whether the states of a new history are stored.
///
/// Storing costs about a tenth of what a later use saves. So while at least a tenth of the entries that leave were used,
/// every history is stored. While fewer were used, proportionally fewer histories are stored: a stream of users who never
/// return then costs little, and the entries of those who do return stay longer. An entry leaves when a row extends it,
/// which is a use, or when it makes room.
pub(super) struct Admission {
    /// The share of entries that were used before they left, lately.
    used: f64,
    /// Grows by the share of histories to store. Each that is stored takes 1.
    credit: f64,
}

/// Uses that pay for storing an entry.
const WORTH: f64 = 0.1;

/// The least share of histories that is stored, so that the cache notices when users return again.
const LEAST: f64 = 1.0 / 16.0;

/// The weight of one entry that leaves.
const RATE: f64 = 1.0 / 64.0;

impl Default for Admission {
    /// Stores every history until entries leave.
    fn default() -> Admission {
        Admission { used: 1.0, credit: 0.0 }
    }
}

impl Admission {
    /// Whether the next new history is stored.
    pub(super) fn admits(&mut self) -> bool {
        self.credit += (self.used / WORTH).clamp(LEAST, 1.0);
        let admits = self.credit >= 1.0;
        if admits {
            self.credit -= 1.0;
        }
        admits
    }

    /// An entry has left.
    pub(super) fn left(&mut self, used: bool) {
        self.used += RATE * (f64::from(u8::from(used)) - self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(admission: &mut Admission) -> usize {
        (0..1600).filter(|_| admission.admits()).count()
    }

    #[test]
    fn everything_is_stored_while_entries_are_used_and_a_sixteenth_while_none_is() {
        let mut admission = Admission::default();
        assert_eq!(admitted(&mut admission), 1600);
        (0..1000).for_each(|_| admission.left(false));
        assert_eq!(admitted(&mut admission), 100);
        (0..1000).for_each(|entry| admission.left(entry % 4 == 0));
        assert_eq!(admitted(&mut admission), 1600);
    }
}
