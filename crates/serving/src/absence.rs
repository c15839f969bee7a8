use std::time::{Duration, Instant};

/// How long an absence lasts before it is reported.
const SHORT: Duration = Duration::from_secs(2);

/// Time between two reports of something that cannot be looked at.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// For how long something that is watched could not be looked at.
///
/// A file may be missing for a moment while it is replaced. So an absence is reported when it has lasted two seconds, and then
/// once a minute.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
    reported: u64,
}

/// A report of an absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The first.
    First,
    /// A later one.
    Again,
}

impl Absence {
    /// Notes that looking failed at `now`, and returns what to report.
    pub(crate) fn fails(&mut self, now: Instant) -> Option<Report> {
        let lasted = now.saturating_duration_since(*self.since.get_or_insert(now)).checked_sub(SHORT)?;
        let due = 1 + lasted.as_secs() / REPORT_AGAIN.as_secs();
        if due <= self.reported {
            return None;
        }
        Some(if std::mem::replace(&mut self.reported, due) == 0 { Report::First } else { Report::Again })
    }

    /// Notes that looking succeeded. Returns whether the failure before was reported.
    pub(crate) fn ends(&mut self) -> bool {
        std::mem::take(self).reported > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_reported_after_two_seconds_and_then_once_a_minute() {
        let (start, mut absence) = (Instant::now(), Absence::default());
        let mut reports = |seconds: &[u64]| {
            let at = |second: &u64| absence.fails(start + Duration::from_secs(*second));
            (seconds.iter().map(at).collect::<Vec<_>>(), absence.ends())
        };
        assert_eq!(reports(&[0, 1]), (vec![None, None], false));
        let found = reports(&[10, 11, 12, 13, 71, 72, 200, 201]);
        let expected = [None, None, Some(Report::First), None, None, Some(Report::Again), Some(Report::Again), None];
        assert_eq!(found, (expected.to_vec(), true));
        assert_eq!(reports(&[300]), (vec![None], false));
    }
}
