//! Turns of tests that keep the whole machine busy, or measure time on it: as many at once as a small machine bears,
//! whatever the number of test threads is. They count within one test program; those run one after the other.

use std::sync::{Condvar, Mutex, PoisonError};

/// How many tests with a [`turn`] run at once.
const MOST: usize = 2;

/// Turns that are taken.
static TAKEN: Mutex<usize> = Mutex::new(0);

/// Turns are given back.
static GIVEN_BACK: Condvar = Condvar::new();

/// Turns that are held, until this goes.
#[must_use = "they are given back at once"]
pub struct Turns(usize);

/// Waits for a turn.
pub fn turn() -> Turns {
    take(1)
}

/// Waits for all turns: nobody else with a turn runs meanwhile.
pub fn all_turns() -> Turns {
    take(MOST)
}

fn take(turns: usize) -> Turns {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = GIVEN_BACK.wait_while(taken, |taken| *taken + turns > MOST);
    *free.unwrap_or_else(PoisonError::into_inner) += turns;
    Turns(turns)
}

impl Drop for Turns {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}
