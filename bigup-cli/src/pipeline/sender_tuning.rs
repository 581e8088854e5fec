//! The number of senders of a push: more while more carry more, fewer where fewer carry as much. No I/O, no clock.
//!
//! A single connection over a long or lossy line carries only so much, whatever the line could; many side by side fill
//! it. On a short line a few fill it, and more only cost. Nobody can tell beforehand, so it is tried: the rate is
//! measured at one width, then at another, and the better of the two stays. A measurement leaves out what was under way
//! when the width changed. After a trial in vain there is a rest, longer each time, since lines do change.

use std::time::Duration;

/// Most senders where nobody says how many.
pub const MOST: usize = 128;

/// Shortest time of a measurement: below it the luck of single slices counts for too much.
const SHORTEST: Duration = Duration::from_millis(400);

/// A wider push must carry so much more to stay.
const GAIN: f64 = 1.05;

/// A narrower one must carry so much to stay.
const KEPT: f64 = 0.97;

/// If the rate falls to so much of what it was, the line has changed: more are tried at once.
const FALLEN: f64 = 0.7;

/// Measurements between two trials, at first and at most.
const RESTS: (u32, u32) = (3, 16);

/// The number of senders, and what was found out about it.
#[derive(Debug)]
pub struct SenderTuning {
    now: usize,
    most: usize,
    state: State,
    /// The rate of the present width when its rest began, in bytes a second. 0: it has not rested yet.
    settled: f64,
    /// Measurements of the next rest.
    rest: u32,
    /// True if the next trial after a rest is to be wider.
    is_wider_next: bool,
    /// Nothing was in vain yet: steps are large.
    is_young: bool,
    measure: Measure,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many measurements until the next trial.
    Rests(u32),
    /// Another width than before is tried.
    Tries {
        /// The width before.
        before: usize,
        /// The rate of that width, in bytes a second.
        rate: f64,
    },
}

/// A measurement under way.
#[derive(Clone, Copy, Debug, Default)]
struct Measure {
    /// Slices until it begins.
    skip: usize,
    /// Time of its begin. `None`: not yet.
    since: Option<Duration>,
    slices: usize,
    bytes: u64,
}

impl SenderTuning {
    /// Begins with `first` senders; there may be up to `most` of them, at least 1.
    pub fn new(first: usize, most: usize) -> SenderTuning {
        let most = most.max(1);
        let now = first.clamp(1, most);
        let state = State::Rests(0);
        let measure = Measure { skip: now, ..Measure::default() };
        SenderTuning { now, most, state, settled: 0.0, rest: RESTS.0, is_wider_next: true, is_young: true, measure }
    }

    /// Begins with `first` senders after all, if nothing was measured yet.
    pub fn begin_with(&mut self, first: usize) {
        if self.is_young && self.measure.since.is_none() && matches!(self.state, State::Rests(_)) {
            *self = SenderTuning::new(first, self.most);
        }
    }

    /// The intended number of senders.
    pub fn now(&self) -> usize {
        self.now
    }

    /// A slice of `len` bytes was stored at the time `at`, counted from any fixed moment.
    pub fn stored(&mut self, at: Duration, len: u64) {
        if let Some(rate) = self.measure.note(at, len, self.now) {
            let before = self.now;
            self.decide(rate);
            log::debug!("{before} senders carry {rate:.0} bytes a second; {} from now on", self.now);
            self.measure = Measure { skip: self.now, ..Measure::default() };
        }
    }

    /// The width at hand carries `rate` bytes a second.
    fn decide(&mut self, rate: f64) {
        match self.state {
            State::Rests(_) if rate < FALLEN * self.settled => {
                (self.rest, self.is_wider_next) = (RESTS.0, true);
                self.try_another(rate);
            }
            State::Rests(0) => self.try_another(rate),
            State::Rests(left) => self.state = State::Rests(left - 1),
            State::Tries { before, rate: was } => {
                let is_wider = self.now > before;
                if rate >= was * if is_wider { GAIN } else { KEPT } {
                    self.rest = RESTS.0;
                    self.is_wider_next = is_wider;
                    return self.try_another(rate);
                }
                (self.now, self.is_young) = (before, false);
                self.is_wider_next = !is_wider;
                self.take_rest(was);
            }
        }
    }

    /// Rests at a width that carries `rate` bytes a second.
    fn take_rest(&mut self, rate: f64) {
        self.settled = rate;
        self.state = State::Rests(self.rest);
        self.rest = (self.rest * 2).min(RESTS.1);
    }

    fn try_another(&mut self, rate: f64) {
        let step = if self.is_young { self.now } else { (self.now / 3).max(1) };
        let next = if self.is_wider_next { (self.now + step).min(self.most) } else { (self.now - step).max(1) };
        if next == self.now {
            self.is_wider_next = !self.is_wider_next;
            self.is_young = false;
            return self.take_rest(rate);
        }
        self.state = State::Tries { before: self.now, rate };
        self.now = next;
    }
}

impl Measure {
    /// Notes a slice; the rate, in bytes a second, once it is known.
    fn note(&mut self, at: Duration, len: u64, width: usize) -> Option<f64> {
        let Some(since) = self.since else {
            if self.skip > 0 {
                self.skip -= 1;
            } else {
                self.since = Some(at);
            }
            return None;
        };
        self.slices += 1;
        self.bytes += len;
        let time = at.saturating_sub(since);
        (self.slices >= width.max(4) && time >= SHORTEST).then(|| self.bytes as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    const MIB: u64 = 1 << 20;

    /// A line: what it carries in all and by one connection, in bytes a second, and how long an answer takes.
    #[derive(Clone, Copy)]
    struct Line {
        all: f64,
        each: f64,
        answer: Duration,
    }

    /// Sends slices of a mebibyte for a while; the width at the end, and what was carried in the last third, in bytes a
    /// second.
    fn push(width: &mut SenderTuning, line: Line, time: Duration) -> (usize, f64) {
        let mut ends = BinaryHeap::new();
        let (mut now, mut late) = (Duration::ZERO, 0);
        while now < time {
            while ends.len() < width.now() {
                let rate = line.each.min(line.all / width.now() as f64);
                ends.push(Reverse(now + line.answer + Duration::from_secs_f64(MIB as f64 / rate)));
            }
            now = ends.pop().expect("there is at least one sender").0;
            late += if now > time * 2 / 3 { MIB } else { 0 };
            width.stored(now, MIB);
        }
        (width.now(), late as f64 / (time / 3).as_secs_f64())
    }

    fn mbit(rate: f64) -> f64 {
        rate * 1e6 / 8.0
    }

    #[test]
    fn a_lossy_line_is_filled_by_many() {
        let line = Line { all: mbit(500.0), each: mbit(15.0), answer: Duration::from_millis(100) };
        let mut width = SenderTuning::new(4, MOST);
        let (ends, carried) = push(&mut width, line, Duration::from_secs(20));
        assert!(ends >= 32 && carried >= 0.85 * line.all, "{ends} senders carry {carried}");
    }

    #[test]
    fn a_line_that_one_fills_keeps_few() {
        let line = Line { all: mbit(400.0), each: mbit(400.0), answer: Duration::ZERO };
        let mut width = SenderTuning::new(4, MOST);
        let (ends, carried) = push(&mut width, line, Duration::from_secs(120));
        assert!(ends <= 4 && carried >= 0.95 * line.all, "{ends} senders carry {carried}");
    }

    #[test]
    fn a_line_that_gets_better_is_noticed() {
        let line = Line { all: mbit(100.0), each: mbit(25.0), answer: Duration::from_millis(20) };
        let mut width = SenderTuning::new(4, MOST);
        let (before, _) = push(&mut width, line, Duration::from_secs(60));
        let (after, carried) = push(&mut width, Line { all: mbit(400.0), ..line }, Duration::from_secs(120));
        assert!(before <= 6 && after >= 12 && carried >= 0.8 * mbit(400.0), "{before}, {after} carry {carried}");
    }

    #[test]
    fn a_line_that_gets_worse_for_each_gets_more_at_once() {
        let line = Line { all: mbit(500.0), each: mbit(60.0), answer: Duration::from_millis(100) };
        let mut width = SenderTuning::new(32, MOST);
        push(&mut width, line, Duration::from_secs(10));
        // What slow start had carried ends with the first losses.
        let (ends, carried) = push(&mut width, Line { each: mbit(6.0), ..line }, Duration::from_secs(30));
        assert!(ends >= 64 && carried >= 0.75 * line.all, "{ends} senders carry {carried}");
    }

    #[test]
    fn it_stays_between_one_and_the_most() {
        for (first, most) in [(0, 0), (9, 3), (1, 1)] {
            let mut width = SenderTuning::new(first, most);
            let line = Line { all: mbit(100.0), each: mbit(1.0), answer: Duration::ZERO };
            push(&mut width, line, Duration::from_secs(600));
            assert!((1..=most.max(1)).contains(&width.now()), "{first} {most}");
        }
    }

    #[test]
    fn nothing_is_decided_by_what_was_under_way() {
        let mut width = SenderTuning::new(4, MOST);
        // The first senders' slices take the time that it takes to get up to speed.
        for i in 0..8 {
            width.stored(Duration::from_secs(10 + i), MIB);
        }
        assert_eq!(width.now(), 4);
        width.stored(Duration::from_secs(18), MIB);
        assert_eq!(width.now(), 8);
    }
}
