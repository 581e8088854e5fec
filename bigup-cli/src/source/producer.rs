//! A command whose output is pushed. Its end tells whether that is all of it, which the end of a pipe cannot.

use crate::source::error::SourceError;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running command. Reading its output ends in an error unless it ends with 0.
pub struct Producer {
    child: Child,
    output: ChildStdout,
}

impl Producer {
    /// Starts the program that is the first of `words`, with the others as its arguments. It has our standard input and
    /// standard error.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(words: &[PathBuf]) -> Result<Producer, SourceError> {
        let (program, arguments) = words.split_first().ok_or(SourceError::NoCommand)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|cause| SourceError::Io { action: "start", path: program.clone(), cause })?;
        let output = child.stdout.take().expect("its standard output is a pipe");
        Ok(Producer { child, output })
    }
}

impl Read for Producer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = self.output.read(bytes)?;
        if len > 0 || bytes.is_empty() {
            return Ok(len);
        }
        let status = self.child.wait()?;
        if status.success() { Ok(0) } else { Err(io::Error::other(format!("the command ended with {status}"))) }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // After its end both do nothing; else nobody reads any more what it would write.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn read(command: &str) -> (Vec<u8>, io::Result<usize>) {
        let words = ["sh", "-c", command].map(PathBuf::from);
        let mut bytes = vec![];
        let ended = Producer::start(&words).unwrap().read_to_end(&mut bytes);
        (bytes, ended)
    }

    #[test]
    fn output_counts_only_if_the_command_succeeds() {
        let (bytes, ended) = read("echo all");
        assert_eq!((&bytes[..], ended.unwrap()), (&b"all\n"[..], 4));
        let (bytes, ended) = read("echo half; exit 3");
        assert_eq!(bytes, b"half\n");
        assert!(ended.unwrap_err().to_string().contains('3'));
        assert!(read("kill -9 $$").1.is_err());
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let words = [PathBuf::from("/nonexistent/x")];
        assert!(Producer::start(&words).err().unwrap().to_string().contains("/nonexistent/x"));
    }
}
