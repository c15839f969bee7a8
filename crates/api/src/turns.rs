use std::time::{Duration, Instant};

/// How long building an answer keeps a thread of the runtime before other tasks get their turn.
const TURN: Duration = Duration::from_millis(1);

/// Steps between two looks at the clock, which costs as much as a step.
const STEPS: usize = 64;

/// Divides long work of one task into turns, so that the other tasks of its thread wait a millisecond and not the whole time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    steps: usize,
    /// `None` before the first look at the clock: short work takes none.
    began: Option<Instant>,
    worked: Duration,
}

impl Turns {
    /// Begins the first turn before the first step, for steps that may be long.
    pub(crate) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }

    /// Ends a step that may have been long: the clock is looked at each time.
    pub(crate) async fn long_step(&mut self) {
        self.steps = STEPS;
        self.step().await;
    }

    /// Ends a step. If the turn is over, lets other tasks run first.
    pub(crate) async fn step(&mut self) {
        self.steps += 1;
        if self.steps < STEPS {
            return;
        }
        self.steps = 0;
        let turn = self.began.get_or_insert_with(Instant::now).elapsed();
        if turn >= TURN {
            self.worked += turn;
            tokio::task::yield_now().await;
            self.began = Some(Instant::now());
        }
    }

    /// How long the work took, without the time of other tasks. `None` if it was too short to be timed.
    pub(crate) fn worked(&self) -> Option<Duration> {
        self.began.map(|began| self.worked + began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use super::Turns;

    #[tokio::test]
    async fn other_tasks_run_while_one_works_for_long() {
        let (is_done, others_ran) = (Cell::new(false), Cell::new(false));
        let long = async {
            let (mut turns, began) = (Turns::default(), Instant::now());
            // Ends only because the other task gets its turn.
            while !others_ran.get() {
                assert!(began.elapsed() < Duration::from_secs(60));
                turns.step().await;
            }
            is_done.set(true);
            assert!(turns.worked().is_some());
        };
        let other = async {
            assert!(!is_done.get());
            others_ran.set(true);
        };
        tokio::join!(long, other);
        assert!(Turns::default().worked().is_none());
    }
}
