use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use canet_domain::Flops;
use canet_model::threads_allowed_here;

/// Work that is worth a thread of its own: a ten thousandth of a second of a core, several times what starting one takes.
const WORTH_A_THREAD: Flops = 16_000_000;

/// How many of `most` threads a piece of work is worth.
pub(crate) fn threads_for(most: usize, work: Flops) -> usize {
    let worth = usize::try_from(work / WORTH_A_THREAD).unwrap_or(usize::MAX);
    threads_allowed_here(most).min(worth).max(1)
}

/// Runs the tasks, each on a thread of its own but the first, which the calling thread runs, as it does those that the
/// system has no thread for; their results in order.
pub(crate) fn spread<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut tasks = tasks.into_iter();
    let Some(first) = tasks.next() else { return Vec::new() };
    std::thread::scope(|scope| {
        let work = &work;
        let start = |task: Mutex<Option<T>>| {
            let task = Arc::new(task);
            let own = Arc::clone(&task);
            let spawned = Builder::new().spawn_scoped(scope, move || taken(&own).map(work));
            spawned.map_err(|_refused| task)
        };
        let others: Vec<_> = tasks.map(|task| start(Mutex::new(Some(task)))).collect();
        let mut done = vec![work(first)];
        for other in others {
            let result = match other {
                // A panic goes on as if it had happened here.
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(task) => taken(&task).map(work),
            };
            done.extend(result);
        }
        done
    })
}

fn taken<T>(task: &Mutex<Option<T>>) -> Option<T> {
    task.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Cuts items into neighbouring groups of about equal cost, at most `count` of them.
pub(crate) fn shares<T>(items: Vec<T>, count: usize, cost: impl Fn(&T) -> Flops) -> Vec<Vec<T>> {
    let all: Flops = items.iter().map(&cost).sum();
    let share = all.div_ceil(count.max(1) as Flops).max(1);
    let (mut groups, mut spent, mut group) = (Vec::<Vec<T>>::new(), 0, None);
    for item in items {
        // The group in whose share of the whole the item begins.
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
