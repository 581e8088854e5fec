//! A limit to the bytes that all senders together send a second.
//!
//! Each asks for a small piece at a time and sends it when its turn has come: as if the pieces went over a line of that
//! rate one after the other. So the rate is kept however many there are, and resent bytes count like others. Time in
//! which nobody sends is lost but for a moment's worth, by which late ones catch up.
//!
//! The rate may depend on the time of day ([`Rates`]). It is that of the moment in which a piece is asked for.

use crate::client::rates::{MIN_RATE, Rates};
use crate::stop::{StopSignal, sleep};
use crossbeam_channel::{Receiver, Sender};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most that sending can catch up with after a pause, as time at the rate.
const BURST: Duration = Duration::from_millis(100);

/// Pieces a second at most: each is sent at once.
const PIECES_PER_SECOND: u64 = 50;

/// Smallest and largest piece, in bytes.
const PIECE: std::ops::RangeInclusive<u64> = 256..=(256 << 10);

/// Bytes a second that each slice gets at least, where the limit allows: fewer are sent at a time instead, so that none
/// is too slow for the server.
const SLICE_RATE: u64 = 64 << 10;

/// The limit. Shared by all senders.
pub struct RateLimit {
    line: Mutex<Schedule>,
    rates: Rates,
    began: Instant,
    /// A message for each slice that is being sent.
    enter: Sender<()>,
    leave: Receiver<()>,
}

/// A line over which bytes go one after the other. Times count from any beginning.
#[derive(Default)]
struct Schedule {
    /// When all is sent that was asked for.
    free_at: Duration,
}

/// A slice as it is sent under the limit: reading it waits.
pub struct Paced<'a> {
    limit: &'a RateLimit,
    bytes: &'a [u8],
    stop: &'a StopSignal,
    /// It has entered as one of those that are sent at a time: while there is no limit nobody does.
    has_entered: bool,
}

impl Schedule {
    /// Takes the time for `len` more bytes at `rate` bytes a second, asked for at `now`; how long to wait before they are
    /// sent.
    fn reserve(&mut self, len: u64, rate: u64, now: Duration) -> Duration {
        let begin = self.free_at.max(now.saturating_sub(BURST));
        self.free_at = begin + Duration::from_nanos((u128::from(len) * 1_000_000_000 / u128::from(rate)) as u64);
        self.free_at.saturating_sub(now)
    }
}

impl RateLimit {
    /// Limits to `rates`, of which each is at least [`MIN_RATE`].
    pub fn new(rates: Rates) -> RateLimit {
        let lowest = rates.lowest().unwrap_or(u64::MAX).max(MIN_RATE);
        let at_a_time = usize::try_from(lowest / SLICE_RATE).unwrap_or(usize::MAX).clamp(1, 1 << 16);
        let (enter, leave) = crossbeam_channel::bounded(at_a_time);
        RateLimit { line: Mutex::default(), rates, began: Instant::now(), enter, leave }
    }

    /// Bytes a second that are possible now. `None`: as many as there are.
    fn rate(&self) -> Option<u64> {
        self.rates.now().map(|rate| rate.max(MIN_RATE))
    }

    /// `bytes`, to be read at the rate. Waits until it is not one too many; `None` where `stop` cut that short.
    pub fn pace<'a>(&'a self, bytes: &'a [u8], stop: &'a StopSignal) -> Option<Paced<'a>> {
        let paced = |has_entered| Paced { limit: self, bytes, stop, has_entered };
        if self.rate().is_none() {
            return Some(paced(false));
        }
        crossbeam_channel::select! {
            send(self.enter, ()) -> entered => entered.ok().map(|()| paced(true)),
            recv(stop) -> _ => None,
        }
    }

    /// Waits until `len` more bytes may be sent or read; false where `stop` cut that short.
    pub fn wait(&self, len: usize, stop: &StopSignal) -> bool {
        let Some(rate) = self.rate() else { return true };
        let now = self.began.elapsed();
        let wait = self.line.lock().unwrap_or_else(PoisonError::into_inner).reserve(len as u64, rate, now);
        wait.is_zero() || sleep(stop, wait)
    }
}

/// Bytes that are asked for at a time at this rate.
fn piece(rate: Option<u64>) -> usize {
    let rate = rate.unwrap_or(u64::MAX);
    (rate / PIECES_PER_SECOND).clamp(*PIECE.start(), *PIECE.end()) as usize
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.bytes.len().min(buffer.len()).min(piece(self.limit.rate()));
        if !self.limit.wait(len, self.stop) {
            return Err(io::Error::other("stopped"));
        }
        let (now, later) = self.bytes.split_at(len);
        buffer[..len].copy_from_slice(now);
        self.bytes = later;
        Ok(len)
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        if self.has_entered {
            // Its own message, or one that is as good, is there.
            let _ = self.limit.leave.try_recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;

    const SECOND: Duration = Duration::from_secs(1);

    /// A line of one rate.
    struct Line(Schedule, u64);

    fn line(rate: u64) -> Line {
        Line(Schedule::default(), rate)
    }

    impl Line {
        fn reserve(&mut self, len: u64, now: Duration) -> Duration {
            self.0.reserve(len, self.1, now)
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bytes_wait_for_the_time_that_they_take() {
        let mut line = line(1000);
        assert_eq!(line.reserve(100, ms(0)), ms(100));
        assert_eq!(line.reserve(100, ms(0)), ms(200), "a second sender waits behind the first");
        assert_eq!(line.reserve(100, ms(250)), ms(50));
        assert_eq!(line.reserve(0, ms(250)), ms(50));
    }

    #[test]
    fn a_pause_is_worth_a_tenth_of_a_second_and_no_more() {
        for pause in [ms(100), SECOND, 3600 * SECOND] {
            let mut line = line(1000);
            assert_eq!(line.reserve(100, pause), ms(0), "{pause:?}");
            assert_eq!(line.reserve(10, pause), ms(10), "{pause:?}");
        }
        assert_eq!(line(1000).reserve(100, ms(99)), ms(1));
    }

    #[test]
    fn senders_that_come_late_each_time_still_get_the_whole_rate() {
        for senders in [1, 4, 64] {
            let (mut line, mut clock) = (line(1_000_000), vec![Duration::ZERO; senders]);
            let mut sent = 0;
            while clock.iter().any(|now| *now < 10 * SECOND) {
                // The first sender asks; then waking up takes it 3 ms, and sending 1 ms.
                let first = clock.iter_mut().min().unwrap();
                *first += line.reserve(20_000, *first) + ms(4);
                sent += 20_000;
            }
            let expected = 10_000_000 + senders as u64 * 20_000;
            assert!(sent <= expected && sent >= expected * 95 / 100, "{senders} senders: {sent} of {expected}");
        }
    }

    #[test]
    fn no_window_has_more_than_the_rate_and_a_burst() {
        let (rate, piece) = (1_000_000, 20_000);
        let (mut line, mut now, mut sent) = (line(rate), Duration::ZERO, vec![]);
        for i in 0..2000_u64 {
            // Pauses of all kinds between pieces.
            now += ms(i * 7919 % 41);
            now += line.reserve(piece, now);
            sent.push(now);
        }
        for (i, first) in sent.iter().enumerate() {
            for (j, last) in sent.iter().enumerate().skip(i) {
                let bytes = (j - i + 1) as u64 * piece;
                let allowed = (*last - *first + BURST).as_secs_f64() * rate as f64 + piece as f64;
                assert!(bytes as f64 <= allowed + 1.0, "{bytes} bytes between {first:?} and {last:?}");
            }
        }
    }

    #[test]
    fn great_rates_and_sizes_do_not_overflow() {
        assert_eq!(line(u64::MAX).reserve(1 << 40, SECOND), ms(0));
        assert_eq!(line(MIN_RATE).reserve(1 << 30, ms(0)), 262_144 * SECOND);
    }

    #[test]
    fn pieces_are_small_beside_the_rate() {
        for (rate, piece) in [(0, 256), (MIN_RATE, 256), (50 << 10, 1 << 10), (1 << 40, 256 << 10)] {
            assert_eq!(super::piece(RateLimit::new(rate.into()).rate()), piece, "{rate}");
        }
    }

    #[test]
    fn all_bytes_come_and_take_their_time() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
        let (began, mut read) = (Instant::now(), vec![]);
        let (limit, never) = (RateLimit::new(1_000_000.into()), crossbeam_channel::never());
        limit.pace(&bytes, &never).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes && began.elapsed() >= ms(200), "{:?}", began.elapsed());
    }

    #[test]
    fn only_so_many_slices_are_sent_at_a_time_that_each_is_fast_enough() {
        let (limit, stop) = (RateLimit::new((2 * SLICE_RATE).into()), Stop::new());
        let [first, _second] = [(); 2].map(|()| limit.pace(&[], stop.signal()).unwrap());
        assert!(limit.enter.is_full());
        drop(first);
        let _third = limit.pace(&[], stop.signal()).unwrap();
        stop.stop();
        assert!(limit.pace(&[], stop.signal()).is_none(), "a fourth waits");
    }

    #[test]
    fn a_halt_cuts_the_wait_short() {
        let (limit, stop) = (RateLimit::new(MIN_RATE.into()), Stop::new());
        let bytes = vec![0; 1 << 20];
        let mut paced = limit.pace(&bytes, stop.signal()).unwrap();
        stop.stop();
        let began = Instant::now();
        assert!(paced.read(&mut [0; 64]).is_err());
        assert!(began.elapsed() < SECOND);
    }

    #[test]
    fn without_a_limit_just_now_nobody_waits() {
        let (limit, stop) = (RateLimit::new("00:00=off".parse().unwrap()), Stop::new());
        let bytes = vec![1; 8 << 20];
        let began = Instant::now();
        let mut all = (0..100).map(|_| limit.pace(&bytes, stop.signal()).unwrap()).collect::<Vec<_>>();
        let mut read = vec![];
        all[99].read_to_end(&mut read).unwrap();
        assert!(read == bytes && began.elapsed() < SECOND);
        assert!(limit.enter.is_empty());
    }
}
