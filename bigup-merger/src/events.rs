//! Events for the process that started the merger. That process can stop reading, or die: merging never waits for it.

use bigup_core::merger_events::MergerEvent;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Where events go.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Option<File>>>);

impl Events {
    /// Events that are dropped.
    pub fn none() -> Events {
        Events::default()
    }

    /// To standard output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn on_stdout() -> io::Result<Events> {
        Ok(Events::to(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    fn to(pipe: File) -> Events {
        Events(Arc::new(Mutex::new(Some(pipe))))
    }

    /// Writes an event, unless the reader cannot take it now. Once the reader is gone, no event is written again.
    pub fn tell(&self, event: MergerEvent) {
        let mut to = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Rust's programs get no SIGPIPE but an error, which is the end of telling and of nothing else.
        if to.as_mut().is_some_and(|pipe| write_if_taken(pipe, event.line().as_bytes()).is_err()) {
            *to = None;
        }
    }
}

/// Writes a line if it is taken at once: a pipe that is writable takes PIPE_BUF bytes (pipe(7)), and every line is
/// shorter.
fn write_if_taken(mut pipe: &File, line: &[u8]) -> io::Result<()> {
    let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    // A write tells whether the reader is still there.
    if poll(&mut wanted, PollTimeout::ZERO)? == 0 {
        return Ok(());
    }
    pipe.write_all(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigup_core::merger_events::MergerExit;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    const EVENT: MergerEvent = MergerEvent::Ended { how: MergerExit::Idle };

    fn pipe() -> (io::PipeReader, Events) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Events::to(File::from(OwnedFd::from(writer))))
    }

    #[test]
    fn events_come_as_lines() {
        let (mut reader, events) = pipe();
        events.tell(EVENT);
        events.tell(EVENT);
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, EVENT.line().repeat(2));
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_nobody_waiting() {
        let (mut reader, events) = pipe();
        // A pipe holds 64 KiB (pipe(7)).
        for _ in 0..10_000 {
            events.tell(EVENT);
        }
        drop(events);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() > 4096 && text.len() < 10_000 * EVENT.line().len(), "{}", text.len());
        assert!(text.lines().all(|line| MergerEvent::parse(line) == Some(EVENT)));
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_telling_only() {
        let (reader, events) = pipe();
        drop(reader);
        events.tell(EVENT);
        assert!(events.0.lock().unwrap().is_none());
        events.tell(EVENT);
        Events::none().tell(EVENT);
    }
}
