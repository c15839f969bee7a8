use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use canet_domain::Flops;
use canet_model::threads_allowed_here;

/// The least work for which a thread is started: about 0.1 ms of a core, several times the cost of the start.
const FLOPS_PER_THREAD: Flops = 16_000_000;

/// How many of `most` threads to use for `work`.
pub(crate) fn threads_for(most: usize, work: Flops) -> usize {
    let worth = usize::try_from(work / FLOPS_PER_THREAD).unwrap_or(usize::MAX);
    threads_allowed_here(most).min(worth).max(1)
}

/// Runs each task on a thread of its own and returns the results in order.
///
/// The calling thread runs the first task, and every task for which the system has no thread.
pub(crate) fn run_parallel<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut tasks = tasks.into_iter();
    let Some(first) = tasks.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let work = &work;
        let start = |task: Mutex<Option<T>>| {
            let task = Arc::new(task);
            let own = Arc::clone(&task);
            let spawned = Builder::new().spawn_scoped(scope, move || take(&own).map(work));
            spawned.map_err(|_refused| task)
        };
        let others: Vec<_> = tasks.map(|task| start(Mutex::new(Some(task)))).collect();
        let mut results = vec![work(first)];
        for other in others {
            let result = match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(task) => take(&task).map(work),
            };
            results.extend(result);
        }
        results
    })
}

fn take<T>(task: &Mutex<Option<T>>) -> Option<T> {
    task.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Splits items into at most `count` neighbouring groups of about equal cost.
pub(crate) fn split_by_cost<T>(items: Vec<T>, count: usize, cost: impl Fn(&T) -> Flops) -> Vec<Vec<T>> {
    let all: Flops = items.iter().map(&cost).sum();
    let share = all.div_ceil(count.max(1) as Flops).max(1);
    let (mut groups, mut spent, mut group) = (Vec::<Vec<T>>::new(), 0, None);
    for item in items {
        // An item belongs to the group in whose share of the total it begins.
        let own = spent / share;
        spent += cost(&item);
        match groups.last_mut().filter(|_| group == Some(own)) {
            Some(last) => last.push(item),
            None => groups.push(vec![item]),
        }
        group = Some(own);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_tasks() {
        assert_eq!(run_parallel((0..9).collect(), |task: u32| task * task), [0, 1, 4, 9, 16, 25, 36, 49, 64]);
        assert_eq!(run_parallel(Vec::new(), |task: u32| task), Vec::<u32>::new());
    }

    #[test]
    fn groups_have_about_equal_cost() {
        let cost = |item: &Flops| *item;
        assert_eq!(split_by_cost(vec![1, 1, 1, 3, 2, 1], 3, cost), [vec![1, 1, 1], vec![3], vec![2, 1]]);
        assert_eq!(split_by_cost(vec![9, 1, 1], 2, cost), [vec![9], vec![1, 1]]);
        assert_eq!(split_by_cost(vec![1, 1], 1, cost), [vec![1, 1]]);
    }
}
