//! Admission: what waits is bounded in predicted time, row by row.

use std::time::Duration;

use canet_serving::{Admission, Need, QueueFull, Ran};

/// A device that takes 1 ms a batch and 1 ms a row of 10 MFLOP, as two lanes and the router have learnt.
fn admission(limit_ms: u64) -> Admission<char> {
    let admission = Admission::new(Duration::from_millis(limit_ms), 4);
    let timed = [1, 4].map(|rows| Ran { flops: 10_000_000 * rows, took: Duration::from_millis(1 + rows) });
    let lanes: Vec<(char, Ran)> = ['a', 'b'].into_iter().flat_map(|lane| timed.map(|ran| (lane, ran))).collect();
    admission.calibrate(&lanes, &timed);
    admission
}

fn row(lane: char) -> Need<char> {
    Need::Lane { lane, flops: 10_000_000 }
}

/// Places for as many rows as are let in.
fn fill(admission: &Admission<char>, need: Need<char>) -> Vec<canet_serving::Permit<char>> {
    std::iter::from_fn(|| admission.admit(need).ok()).collect()
}

#[test]
fn rows_are_let_in_while_the_predicted_work_is_within_the_limit() {
    // Four rows a batch, 5 ms a batch: 15.5 ms are three batches.
    let admission = admission(15);
    let permits = fill(&admission, row('a'));
    assert!((11..=12).contains(&permits.len()), "{}", permits.len());
    assert_eq!(admission.queued(), permits.len());
    assert!((0.9..=1.0).contains(&admission.pressure()), "{}", admission.pressure());
    // A place is free again as soon as a row leaves, however it does.
    let count = permits.len();
    drop(permits.into_iter().skip(1).collect::<Vec<_>>());
    assert_eq!(fill(&admission, row('a')).len(), count);
    assert_eq!(admission.queued(), 0);
}

#[test]
fn rows_of_many_lanes_share_no_batch_and_cost_more() {
    let together = fill(&admission(40), row('a')).len();
    let alone = admission(40);
    let permits: Vec<_> = (0..100_u8).map_while(|lane| alone.admit(row(char::from(lane))).ok()).collect();
    assert!(permits.len() * 3 < together * 2, "{} {together}", permits.len());
}

#[test]
fn as_many_rows_as_fit_are_let_in() {
    let admission = admission(40);
    // 20 ms of 2 ms each.
    let fitting = admission.fitting(10_000_000);
    assert!((9..=11).contains(&fitting), "{fitting}");
    assert!(fill(&admission, row('a')).len() > fitting);
    assert_eq!(admission.fitting(100_000_000_000), 1);
}

#[test]
fn an_idle_device_refuses_nobody() {
    let admission = admission(1);
    let expensive = Need::Lane { lane: 'a', flops: 100_000_000_000 };
    let permit = admission.admit(expensive).unwrap();
    assert!(admission.admit(row('b')).is_err());
    drop(permit);
    assert!(admission.admit(expensive).is_ok());
}

#[test]
fn a_refusal_says_when_the_work_that_waits_will_have_run() {
    let admission = admission(3200);
    let permits = fill(&admission, row('b'));
    let refused = admission.admit(row('b')).unwrap_err();
    assert!(refused.backlog > Duration::from_millis(3100) && refused.backlog <= refused.limit, "{refused:?}");
    assert_eq!(refused.retry_after(), 4);
    drop(permits);
    let short = QueueFull { backlog: Duration::from_micros(3), limit: Duration::from_micros(3) };
    assert_eq!(short.retry_after(), 1);
}

#[test]
fn a_row_counts_with_what_rows_have_run_until_its_own_route_is_known() {
    let admission = admission(1000);
    let undecided = Need::Router { flops: 10, full_flops: 100_000_000 };
    let mut permits = fill(&admission, undecided);
    let before = permits.len();
    let expected = admission.pressure();
    // The router chooses a twentieth of the full cost for all of them: there is room again.
    permits.iter_mut().for_each(|permit| permit.choose('a', 5_000_000));
    assert!(admission.pressure() < expected / 3.0, "{} {expected}", admission.pressure());
    drop(permits);
    assert_eq!((admission.queued(), admission.pressure()), (0, 0.0));
    // And the next ones are expected to be like them.
    let after = fill(&admission, undecided).len();
    assert!(after > before * 2, "{before} {after}");
}

#[test]
fn waits_longer_than_predicted_let_fewer_rows_in() {
    let admission = admission(50);
    let before = fill(&admission, row('a')).len();
    // Rows wait twice as long as the work that they found; the device itself is as fast as it was.
    for _ in 0..20 {
        for permit in fill(&admission, row('a')) {
            admission.begin(permit, Duration::from_millis(105), Duration::from_millis(5));
        }
    }
    let after = fill(&admission, row('a')).len();
    assert!(after < before * 3 / 4 && after > before / 5, "{before} {after}");
}

#[test]
fn batches_that_run_at_a_time_let_in_as_many_times_the_work() {
    let one = fill(&admission(15), row('a')).len();
    assert_eq!(fill(&admission(30), row('a')).len(), fill(&admission(15).shared_by(2), row('a')).len());
    assert!(fill(&admission(15).shared_by(2), row('a')).len() > one);
}
