//! The lines that a terminal shows while a push is at work. Without a terminal there is nothing, and nothing here does
//! anything.

use crate::cli::display::ProgressDisplay;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};
use std::fmt;
use std::io::{self, Write as _, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(250);

/// Columns and lines of a terminal that does not say how many it has.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// Most drawings a second.
const DRAWN_A_SECOND: u8 = 20;

/// Standard error. The library fills each line with blanks up to the edge and leaves it to the terminal to begin the
/// next one. There the `^C` that a terminal shows would begin another line, which nobody takes away. So lines end where
/// their text does.
#[derive(Debug, Default)]
struct Terminal(Mutex<Drawing>);

/// The text to be written, and the number of lines in it.
#[derive(Debug, Default)]
struct Drawing {
    text: String,
    /// Lines, and the blanks behind each.
    parts: usize,
}

/// The lines of a [`ProgressDisplay`] on a terminal. Drawing takes the lock of the display: a thread that holds it
/// must not call this.
pub struct Bar(ProgressBar);

impl Bar {
    /// Shows nothing.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    /// Shows `display` on standard error, as wide as that is each time.
    pub fn of(display: Arc<Mutex<ProgressDisplay>>) -> Bar {
        let lines = move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let lines =
                display.lock().unwrap_or_else(PoisonError::into_inner).lines(usize::from(size().0), Instant::now());
            // The library asks for no outcome.
            let _ = out.write_str(&lines.join("\n"));
        };
        let style = ProgressStyle::with_template("{lines}").expect("the template is well-formed");
        let target = ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), DRAWN_A_SECOND);
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style.with_key("lines", lines));
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// True if anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Prints `line` to standard error, above the bar where there is one.
    pub fn print(&self, line: &str) {
        self.pause(|| crate::cli::print::eprint_line(line));
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

fn size() -> (u16, u16) {
    terminal_size::terminal_size_of(stderr()).map_or(USUAL_SIZE, |(width, height)| (width.0, height.0))
}

impl Terminal {
    fn drawing(&self) -> MutexGuard<'_, Drawing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the cursor by `n`; by 0 the sequence would move it too (ECMA-48, section 8.3.22).
    fn moved(&self, n: usize, direction: char) -> io::Result<()> {
        if n > 0 {
            self.drawing().text += &format!("\u{1b}[{n}{direction}");
        }
        Ok(())
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        size().0
    }

    fn height(&self) -> u16 {
        size().1
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.drawing().text += &format!("{text}\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut drawing = self.drawing();
        if drawing.parts.is_multiple_of(2) {
            let is_first = drawing.parts == 0;
            drawing.text += if is_first { "" } else { "\n" };
            drawing.text += text;
        }
        drawing.parts += 1;
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.drawing().text += "\r\u{1b}[2K";
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let drawing = std::mem::take(&mut *self.drawing());
        stderr().lock().write_all(drawing.text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_their_text_does() {
        let terminal = Terminal::default();
        for text in ["one", "     ", "two", "     "] {
            terminal.write_str(text).unwrap();
        }
        terminal.move_cursor_up(0).unwrap();
        terminal.move_cursor_up(1).unwrap();
        assert_eq!(std::mem::take(&mut *terminal.drawing()).text, "one\ntwo\u{1b}[1A");
        terminal.write_str(" ").unwrap();
        assert_eq!(terminal.drawing().text, " ");
    }
}
