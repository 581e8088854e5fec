//! Loops that keep processors busy while something is measured.

use std::process::{Child, Command, Stdio};

/// The loops, a process each. They end with this, and after an hour.
pub struct Loops(Vec<Child>);

impl Loops {
    /// Starts one for each processor.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start() -> anyhow::Result<Loops> {
        let mut loops = Loops(vec![]);
        for _ in 0..std::thread::available_parallelism()?.get() {
            // Limited by itself, should this program be killed.
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -t 3600; while :; do :; done"]).stdin(Stdio::null());
            loops.0.push(command.spawn()?);
        }
        Ok(loops)
    }

    /// Their number.
    pub fn number(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended by its limit is no trouble.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
