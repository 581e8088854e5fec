//! Counting that takes long: one thread counts for all that wait for it, and no lock is held meanwhile.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The order of threads that want a count.
#[derive(Debug, Default)]
pub struct CountTurns {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_at_work: bool,
    /// Begin of the last count that succeeded, and its duration.
    last: Option<(Instant, Duration)>,
}

/// A turn; over on drop, also where counting panics.
struct Turn<'a>(&'a CountTurns);

impl CountTurns {
    /// Returns once a thread has counted from beginning to end since the moment `since`; calls `count` unless another
    /// thread counts. Counting takes half of the time at most, however often it is asked for.
    ///
    /// # Errors
    /// Those of `count`.
    pub fn count_since(&self, since: Instant, count: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            if state.last.is_some_and(|(began, _)| began >= since) {
                return Ok(());
            }
            if !state.is_at_work {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_at_work = true;
        let rests = state
            .last
            .map_or(Duration::ZERO, |(began, took)| (began + 2 * took).saturating_duration_since(Instant::now()));
        drop(state);
        let turn = Turn(self);
        std::thread::sleep(rests);
        let began = Instant::now();
        count()?;
        self.lock().last = Some((began, began.elapsed()));
        drop(turn);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().is_at_work = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn many_who_ask_at_once_share_two_counts() {
        let (turns, counts) = (CountTurns::default(), AtomicUsize::new(0));
        let (tell, told) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let ask = |first: Option<mpsc::Receiver<()>>| {
                let (turns, counts) = (&turns, &counts);
                scope.spawn(move || {
                    let asked = Instant::now();
                    turns.count_since(asked, || {
                        counts.fetch_add(1, Ordering::Relaxed);
                        first.map(|told| told.recv());
                        Ok(())
                    })
                })
            };
            let first = ask(Some(told));
            while counts.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            // All of these came after the first count began, so it is not good enough for them.
            let asked = Instant::now();
            for _ in 0..20 {
                let (turns, counts) = (&turns, &counts);
                scope.spawn(move || {
                    turns.count_since(asked, || {
                        counts.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    })
                });
            }
            tell.send(()).unwrap();
            first.join().unwrap().unwrap();
        });
        assert_eq!(counts.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_count_that_fails_leaves_the_turn_to_the_next() {
        let turns = CountTurns::default();
        let asked = Instant::now();
        assert!(turns.count_since(asked, || Err(io::ErrorKind::Other.into())).is_err());
        turns.count_since(asked, || Ok(())).unwrap();
        turns.count_since(asked, || panic!("it was counted since")).unwrap();
    }
}
