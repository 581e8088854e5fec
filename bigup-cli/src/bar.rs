//! What a terminal shows while a push is at work. Without a terminal there is nothing, and nothing here does anything.

use crate::picture::Picture;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::stderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is drawn anew.
const TICK: Duration = Duration::from_millis(250);

/// Columns of a terminal that does not say how many it has.
const USUAL_WIDTH: u16 = 80;

/// The lines of a [`Picture`] on a terminal. Drawing takes the picture's lock, so nobody who holds that may call this.
pub struct Bar(ProgressBar);

impl Bar {
    /// Shows nothing.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    /// Shows `picture` on standard error, as wide as that is each time.
    pub fn of(picture: Arc<Mutex<Picture>>) -> Bar {
        let lines = move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let lines = picture.lock().unwrap_or_else(PoisonError::into_inner).lines(width(), Instant::now());
            // The library asks for no outcome.
            let _ = out.write_str(&lines.join("\n"));
        };
        let style = ProgressStyle::with_template("{lines}").expect("the template is well-formed");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style.with_key("lines", lines));
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Prints `line` to standard error, above the bar where there is one.
    pub fn print(&self, line: &str) {
        self.pause(|| crate::report::eprint_line(line));
    }

    /// Prints by `print`, with the bar out of the way.
    pub fn pause(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn width() -> usize {
    usize::from(terminal_size::terminal_size_of(stderr()).map_or(USUAL_WIDTH, |(width, _)| width.0))
}
