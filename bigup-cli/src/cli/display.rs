//! The lines that a terminal shows while a push is at work, made for the width that it has. No I/O.
//!
//! A file has a line, and several files have one of all together besides. Where it is narrow the bar goes first, then
//! the sizes, then the end of the name. While nothing moves the reason stands in place of rate and time, with how long
//! the push goes on trying.

use bigup_core::protocol::name::printable;
use bigup_core::protocol::units::show_size;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthChar;

/// The rate is that of the last so much time.
const WINDOW: Duration = Duration::from_secs(10);

/// Shortest time between two samples of the rate.
const SAMPLE: Duration = Duration::from_millis(200);

/// No rate is told before so much time has passed.
const FIRST_RATE: Duration = Duration::from_millis(800);

/// Columns that stay free at the end of a line: for the `^C` that a terminal shows, and so that no line is broken.
const FREE: usize = 3;

/// Columns that a name keeps, however narrow the terminal is.
const LEAST_NAME: usize = 8;

/// Columns of the shortest bar that says anything, with its brackets and the blank before it.
const LEAST_BAR: usize = 9;

/// All that is shown.
#[derive(Default)]
pub struct ProgressDisplay {
    /// The file at work, where it is one.
    pub file: Option<FileLine>,
    /// All files together, where there are several.
    pub all: Option<AllLine>,
    /// Why nothing moves, where nothing does.
    pub waiting: Option<Waiting>,
}

/// A file at work.
pub struct FileLine {
    name: String,
    /// Its progress. `None`: not known yet.
    pub progress: Option<Progress>,
    /// The work besides sending. Empty: there is no other work.
    doing: String,
}

/// All files together.
pub struct AllLine {
    /// Number of files.
    pub files: u64,
    /// Number of files that are over.
    pub over: u64,
    /// Their progress.
    pub progress: Progress,
}

/// Why nothing moves.
pub struct Waiting {
    /// The reason, in few words.
    pub why: String,
    /// When the push gives up.
    pub until: Instant,
}

/// Progress and rate.
pub struct Progress {
    /// Bytes so far.
    pub done: u64,
    /// Bytes in the end. `None`: not known.
    pub total: Option<u64>,
    moved: u64,
    /// When how many bytes had moved, over the last [`WINDOW`].
    samples: VecDeque<(Instant, u64)>,
}

impl FileLine {
    /// A file of which nothing is known yet.
    pub fn new(name: &str) -> FileLine {
        FileLine { name: printable(name), progress: None, doing: String::new() }
    }

    /// Shows `text` in place of rate and time. Empty: rate and time again.
    pub fn doing(&mut self, text: &str) {
        self.doing = printable(text);
    }
}

impl Progress {
    /// `done` bytes of `total` are there already, at `now`.
    pub fn new(done: u64, total: Option<u64>, now: Instant) -> Progress {
        Progress { done, total, moved: 0, samples: VecDeque::from([(now, 0)]) }
    }

    /// So many bytes more are there since a moment ago, by `now`.
    pub fn moved(&mut self, bytes: u64, now: Instant) {
        self.done += bytes;
        self.moved += bytes;
        match self.samples.back_mut() {
            Some((time, moved)) if now.saturating_duration_since(*time) < SAMPLE && *moved > 0 => *moved = self.moved,
            _ => self.samples.push_back((now, self.moved)),
        }
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(time, _)| *time + WINDOW < now) {
            self.samples.pop_front();
        }
    }

    /// Bytes a second of late. `None`: too early to tell.
    fn rate(&self, now: Instant) -> Option<f64> {
        let (time, moved) = *self.samples.front()?;
        let passed = now.saturating_duration_since(time);
        // Before anything is stored there is none to tell: slices are on their way all the same.
        (passed >= FIRST_RATE && self.moved > 0).then(|| (self.moved - moved) as f64 / passed.as_secs_f64())
    }

    /// Time that the rest takes at the recent rate. `None`: nobody can tell.
    fn left(&self, now: Instant) -> Option<Duration> {
        let rest = self.total?.saturating_sub(self.done) as f64;
        let rate = self.rate(now).filter(|rate| *rate >= 1.0)?;
        Duration::try_from_secs_f64(rest / rate).ok()
    }

    /// The share of all bytes that is there. `None`: nobody knows how many there are.
    fn share(&self) -> Option<f64> {
        match self.total? {
            0 => Some(1.0),
            total => Some((self.done as f64 / total as f64).min(1.0)),
        }
    }

    fn sizes(&self) -> String {
        let done = show_size(self.done);
        self.total.map_or(done.clone(), |total| format!("{done}/{}", show_size(total)))
    }

    /// Rate and time left.
    fn pace(&self, now: Instant) -> String {
        let rate = self.rate(now).map(|rate| format!("{}/s", show_size(rate as u64)));
        let left = self.left(now).map(|left| format!("{} left", short_time(left)));
        rate.into_iter().chain(left).collect::<Vec<_>>().join(", ")
    }
}

impl ProgressDisplay {
    /// The lines for a terminal of `width` columns at `now`. No line is wider.
    pub fn lines(&self, width: usize, now: Instant) -> Vec<String> {
        let width = width.saturating_sub(FREE);
        let waiting = self.waiting.as_ref().map(|waiting| {
            let left = short_time(waiting.until.saturating_duration_since(now));
            let why = printable(&waiting.why);
            [format!("{why}, trying {left} more"), format!("{why}, {left} more")]
        });
        let is_one = self.all.is_none();
        let file = self.file.as_ref().map(|file| {
            let pace = || file.progress.as_ref().filter(|_| is_one).map(|progress| progress.pace(now));
            let rest = match &waiting {
                Some(waiting) if is_one => waiting.to_vec(),
                _ if !file.doing.is_empty() => vec![file.doing.clone()],
                _ => vec![pace().unwrap_or_default()],
            };
            line(&file.name, file.progress.as_ref(), &rest, width)
        });
        let all = self.all.as_ref().map(|all| {
            let rest = waiting.as_ref().map_or_else(|| vec![all.progress.pace(now)], |waiting| waiting.to_vec());
            line(&format!("{}/{} files", all.over, all.files), Some(&all.progress), &rest, width)
        });
        file.into_iter().chain(all).collect()
    }
}

/// `NAME [=====>    ]  45% 1.20 GiB/2.60 GiB, REST`, within `width` columns; of `rest` the first that leaves the name
/// its place.
fn line(name: &str, progress: Option<&Progress>, rest: &[String], width: usize) -> String {
    let share = progress.and_then(Progress::share);
    let percent = share.map_or(String::new(), |share| format!(" {:>3.0}%", (share * 100.0).floor()));
    let room = width.saturating_sub(percent.len());
    let for_rest = room.saturating_sub(columns(name).min(LEAST_NAME) + 1);
    let rest = rest.iter().find(|rest| columns(rest) <= for_rest).or(rest.last()).map_or("", String::as_str);
    let rest = shortened(rest, for_rest);
    let rest = if rest.is_empty() { rest } else { format!(" {rest}") };
    let name = shortened(name, room.saturating_sub(columns(&rest)));
    let mut free = room.saturating_sub(columns(&name) + columns(&rest));
    let mut sizes = progress.map_or(String::new(), |progress| format!(" {}", progress.sizes()));
    // A comma goes between them.
    sizes.extend((!rest.is_empty() && !sizes.is_empty()).then_some(','));
    if columns(&sizes) > free {
        sizes.clear();
    }
    free -= columns(&sizes);
    let bar = share.filter(|_| free >= LEAST_BAR).map_or(String::new(), |share| bar(share, free - 3));
    format!("{name}{bar}{percent}{sizes}{rest}")
}

/// ` [====>     ]`, with `cells` cells in it.
fn bar(share: f64, cells: usize) -> String {
    let full = (share * cells as f64) as usize;
    let tip = if full < cells { ">" } else { "" };
    format!(" [{}{tip}{}]", "=".repeat(full), " ".repeat(cells.saturating_sub(full + tip.len())))
}

/// Columns that `text` takes on a terminal.
fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// `text`, or as much of its beginning as fits into `width` columns with an ellipsis.
fn shortened(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// A time in its two largest units: `59s`, `9m58s`, `2h5m`, `3d4h`.
pub fn short_time(time: Duration) -> String {
    // A second that has begun counts: nobody is told that 0 s are left while some are.
    let seconds = time.as_millis().div_ceil(1000) as u64;
    let pair = |large: u64, small: u64, names: [char; 2]| match (seconds / large, seconds % large / small) {
        (large, 0) => format!("{large}{}", names[0]),
        (large, small) => format!("{large}{}{small}{}", names[0], names[1]),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => pair(60, 1, ['m', 's']),
        3600..86_400 => pair(3600, 60, ['h', 'm']),
        _ => pair(86_400, 3600, ['d', 'h']),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::protocol::units::MIB;

    /// A file of which the half was there, at 20 MiB/s for the last 5 s.
    fn at_work(name: &str, now: Instant) -> FileLine {
        let began = now - Duration::from_secs(5);
        let mut progress = Progress::new(500 * MIB, Some(1000 * MIB), began);
        (1..=10).for_each(|half| progress.moved(10 * MIB, began + Duration::from_millis(half * 500)));
        FileLine { progress: Some(progress), ..FileLine::new(name) }
    }

    fn waiting(now: Instant) -> Option<Waiting> {
        Some(Waiting { why: "no answer".to_owned(), until: now + Duration::from_secs(598) })
    }

    #[test]
    fn a_file_takes_the_width_that_there_is() {
        let now = Instant::now();
        let display = ProgressDisplay { file: Some(at_work("big.iso", now)), ..ProgressDisplay::default() };
        let line = |width| display.lines(width, now).remove(0);
        assert_eq!(line(40), "big.iso  60% 20.0 MiB/s, 20s left");
        let at_80 = "big.iso [=============>         ]  60% 600 MiB/0.98 GiB, 20.0 MiB/s, 20s left";
        assert_eq!(line(80), at_80);
        assert_eq!(line(120).len(), 120 - FREE);
    }

    #[test]
    fn the_reason_stands_in_place_of_rate_and_time_and_is_whole() {
        let now = Instant::now();
        let name = "a-rather-long-name-of-a-disk-image.qcow2";
        let display =
            ProgressDisplay { file: Some(at_work(name, now)), waiting: waiting(now), ..ProgressDisplay::default() };
        assert_eq!(display.lines(40, now), ["a-rather-…  60% no answer, 9m58s more"]);
        let line = display.lines(80, now).remove(0);
        assert!(line.starts_with(name) && line.ends_with(" 60% no answer, trying 9m58s more"), "{line}");
        assert!(!line.contains("MiB/s"), "{line}");
        assert!(display.lines(120, now)[0].contains(" 600 MiB/0.98 GiB, no answer, trying"), "{line}");
    }

    #[test]
    fn several_files_have_a_line_of_their_own_that_says_all() {
        let now = Instant::now();
        let mut all = Progress::new(0, Some(4000 * MIB), now - Duration::from_secs(10));
        all.moved(1000 * MIB, now);
        let all = AllLine { files: 40, over: 3, progress: all };
        let mut display = ProgressDisplay { file: Some(at_work("big.iso", now)), all: Some(all), waiting: None };
        let lines = display.lines(80, now);
        assert!(lines[0].starts_with("big.iso [===") && lines[0].ends_with(" 60% 600 MiB/0.98 GiB"), "{lines:?}");
        assert!(lines[1].starts_with("3/40 files [==="), "{lines:?}");
        assert!(lines[1].ends_with(" 25% 0.98 GiB/3.91 GiB, 100 MiB/s, 30s left"), "{lines:?}");
        assert_eq!(display.lines(40, now)[1], "3/40 files  25% 100 MiB/s, 30s left");
        display.waiting = waiting(now);
        assert_eq!(display.lines(40, now)[1], "3/40 files  25% no answer, 9m58s more");
        display.file = None;
        assert_eq!(display.lines(80, now).len(), 1);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let now = Instant::now();
        for name in ["a", "big.iso", &"文".repeat(60), &"x".repeat(300), "e\u{301}\u{1b}[2J"] {
            let all = AllLine { files: 1_000_000, over: 999_999, progress: Progress::new(1, None, now) };
            let mut file = at_work(name, now);
            file.doing("merging, 3 of 10000000 slices");
            let mut display = ProgressDisplay { file: Some(file), all: Some(all), waiting: waiting(now) };
            for _ in 0..2 {
                for width in 0..200 {
                    for line in display.lines(width, now) {
                        assert!(columns(&line) <= width.saturating_sub(FREE).max(5), "{width}: {line:?}");
                        assert!(!line.chars().any(bigup_core::protocol::name::steers), "{line:?}");
                    }
                }
                display = ProgressDisplay { all: None, waiting: None, ..display };
            }
        }
    }

    #[test]
    fn a_rate_is_that_of_late() {
        let now = Instant::now();
        let mut progress = Progress::new(0, Some(10_000), now);
        assert_eq!((progress.rate(now), progress.rate(now + Duration::from_secs(5))), (None, None));
        for second in 1..=20 {
            progress.moved(100, now + Duration::from_secs(second));
        }
        let rate = |after| progress.rate(now + Duration::from_secs(after)).unwrap();
        assert!((90.0..=110.0).contains(&rate(20)), "{}", rate(20));
        assert!(rate(60) < 30.0, "it falls while nothing moves: {}", rate(60));
        assert_eq!(progress.done, 2000);
    }

    #[test]
    fn times_are_short() {
        let times = [0, 1, 59, 60, 598, 3600, 7500, 86_400, 273_600].map(|s| short_time(Duration::from_secs(s)));
        assert_eq!(times, ["0s", "1s", "59s", "1m", "9m58s", "1h", "2h5m", "1d", "3d4h"]);
        assert_eq!(short_time(Duration::from_millis(200)), "1s");
    }
}
