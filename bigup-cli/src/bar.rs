//! The progress bar on a terminal, of one file or of many. Without a terminal there is none, and nothing here does anything.

use bigup_core::name::{FileName, printable};
use bigup_core::units::show_size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// How often a bar moves by itself, so that the clock runs while nothing is stored.
const TICK: Duration = Duration::from_millis(250);

/// A bar.
pub struct Bar(ProgressBar);

impl Bar {
    /// None at all.
    pub fn hidden() -> Bar {
        Bar(ProgressBar::hidden())
    }

    /// A bar on standard error, `held` bytes of `file_size` along.
    pub fn new(name: &FileName, file_size: Option<u64>, held: u64) -> Bar {
        let bar = ProgressBar::with_draw_target(file_size, ProgressDrawTarget::hidden())
            .with_style(style(file_size.is_some()))
            .with_prefix(name.to_string())
            .with_position(held);
        // Unseen, so that what was held does not show as sent in no time: the tick notes it, the reset forgets how fast.
        bar.tick();
        bar.reset_eta();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        if held > 0 {
            bar.set_message(format!("{} held already", show_size(held)));
        }
        Bar(bar)
    }

    /// A bar on standard error of `files` files.
    pub fn of_files(files: u64) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(files), ProgressDrawTarget::stderr()).with_style(style_of_files());
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// So many bytes, or files, are stored by now.
    pub fn stored(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// What is going on.
    pub fn message(&self, text: String) {
        self.0.set_message(printable(&text));
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

fn style(known_size: bool) -> ProgressStyle {
    let template = if known_size {
        "{prefix} [{bar:24}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left {wide_msg}"
    } else {
        "{prefix} {spinner} {bytes}, {bytes_per_sec} {wide_msg}"
    };
    ProgressStyle::with_template(template).expect("both templates are well-formed").progress_chars("=> ")
}

fn style_of_files() -> ProgressStyle {
    let template = "[{bar:24}] {human_pos}/{human_len} files, {per_sec}, {eta} left {wide_msg}";
    ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_steer_no_terminal() {
        let bar = Bar::hidden();
        bar.message("retrying: \u{1b}[2J".to_owned());
        assert_eq!(bar.0.message(), "retrying: \\u{1b}[2J");
    }

    #[test]
    fn the_templates_are_well_formed() {
        style(true);
        style(false);
        style_of_files();
    }
}
