//! Running a program with limits of time, output and inherited descriptors.

use super::{CapturedOutput, HookAnswer, HookQuestion, StopDeadline};
use crate::descriptors;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Time between SIGTERM, for a program whose time limit passed, and SIGKILL.
const TERMINATION_TIME: Duration = Duration::from_secs(5);

/// Time for which processes that a program left running can still hold its output open.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Most of its message that is given to a client, in bytes.
pub(super) const MAX_MESSAGE: usize = 1 << 10;

/// Exit code by which a program says that it cannot tell now (sysexits.h, `EX_TEMPFAIL`).
const TEMPORARY: i32 = 75;

/// Largest exit code of a program's own; shells give the larger ones to programs that they could not run or saw killed.
const LARGEST_OWN: i32 = 125;

/// Names of variables that programs get from our own environment; of those that begin with `LC_` all.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// The end of a program.
#[derive(Debug)]
pub enum ProgramEnd {
    /// By itself.
    Ended(ExitStatus),
    /// It was ended, its time being over: this long.
    TimeOver(Duration),
    /// It was ended, since the daemon stops.
    Stopped,
    /// It could not be started or waited for.
    Impossible(io::Error),
}

/// A program that has ended.
#[derive(Debug)]
pub struct ProgramResult {
    how: ProgramEnd,
    /// Its text on standard output.
    pub out: CapturedOutput,
    /// Its text on standard error.
    pub err: CapturedOutput,
}

impl ProgramResult {
    /// The response that this end stands for.
    pub fn answer(&self) -> HookAnswer {
        match &self.how {
            ProgramEnd::Ended(status) => match (status.code(), status.signal()) {
                (Some(0), _) => HookAnswer::Yes,
                (Some(code), _) if (1..=LARGEST_OWN).contains(&code) && code != TEMPORARY => {
                    HookAnswer::No { how: format!("exit code {code}"), message: self.out.message(MAX_MESSAGE) }
                }
                (Some(code), _) => HookAnswer::Failed(format!("exit code {code}")),
                (None, signal) => HookAnswer::Failed(format!("killed by signal {}", signal.unwrap_or_default())),
            },
            ProgramEnd::TimeOver(time) => {
                HookAnswer::Failed(format!("not done after {:.1} s, and ended", time.as_secs_f64()))
            }
            ProgramEnd::Stopped => HookAnswer::Stopped,
            ProgramEnd::Impossible(e) => HookAnswer::Failed(format!("it cannot be run: {e}")),
        }
    }
}

/// Runs `program` with the arguments and variables of `question` in the folder `folder`, for `time` at most, or until
/// `stop`; then it and all that it started in its process group is ended.
///
/// It inherits no descriptors except standard input, which is empty, and its outputs, which are read to their ends. It
/// can open as many files as the daemon's parent process allowed. Processes of its group that it leaves running end
/// with it.
pub async fn run(
    program: &Path,
    question: &HookQuestion,
    folder: &Path,
    time: Duration,
    stop: StopDeadline,
) -> ProgramResult {
    let (mut out, mut err) = Default::default();
    let mut command = Command::new(program);
    command.args(&question.arguments).current_dir(folder).process_group(0);
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name))).envs(question.variables());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    descriptors::as_at_start(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return ProgramResult { how: ProgramEnd::Impossible(e), out, err },
    };
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw));
    let outputs = (child.stdout.take(), child.stderr.take());
    let how = {
        let reading = async { tokio::join!(keep(outputs.0, &mut out), keep(outputs.1, &mut err)) };
        let waiting = wait(&mut child, &group, time, stop);
        let (mut reading, mut waiting) = (std::pin::pin!(reading), std::pin::pin!(waiting));
        let mut is_read = false;
        let how = loop {
            tokio::select! {
                how = &mut waiting => break how,
                _ = &mut reading, if !is_read => is_read = true,
            }
        };
        group.signal(Signal::SIGKILL);
        if !is_read {
            // A process that left the group can hold them open for ever.
            let _ = tokio::time::timeout(LAST_WORDS_TIME, reading).await;
        }
        how
    };
    ProgramResult { how, out, err }
}

fn is_passed_on(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_"))
}

/// Waits for the end of a program, and makes it end when it must.
async fn wait(child: &mut Child, group: &Group, time: Duration, stop: StopDeadline) -> ProgramEnd {
    let how = tokio::select! {
        ended = child.wait() => return ended.map_or_else(ProgramEnd::Impossible, ProgramEnd::Ended),
        () = tokio::time::sleep(time) => ProgramEnd::TimeOver(time),
        () = stop.asked() => ProgramEnd::Stopped,
    };
    group.signal(Signal::SIGTERM);
    if tokio::time::timeout(TERMINATION_TIME, child.wait()).await.is_err() {
        group.signal(Signal::SIGKILL);
        // Nothing survives that.
        let _ = child.wait().await;
    }
    how
}

/// Reads an output to its end. A read error counts as the end.
async fn keep(output: Option<impl AsyncRead + Unpin>, said: &mut CapturedOutput) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = output.read(&mut buffer).await {
        said.take(&buffer[..len]);
    }
}

/// The process group of a program, which ends when this is dropped. No other process gets its number as long as the
/// group has a process, and numbers come round only after thousands of processes.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // Nothing may be left of it.
            let _ = killpg(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Instant;

    async fn shell(text: &str, time: Duration) -> ProgramResult {
        let question = HookQuestion::new("1".to_owned(), vec![("text", json!(text))], &[]);
        let question = HookQuestion { arguments: vec!["-c".to_owned(), text.to_owned()], ..question };
        run(Path::new("/bin/sh"), &question, Path::new("/"), time, StopDeadline::never()).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn exit_codes_say_yes_no_or_not_now() {
        assert_eq!(shell("exit 0", LONG).await.answer(), HookAnswer::Yes);
        for code in [1, 74, 76, 125] {
            let answer = shell(&format!("echo no; echo way; exit {code}"), LONG).await.answer();
            assert_eq!(answer, HookAnswer::No { how: format!("exit code {code}"), message: "no way".to_owned() });
        }
        for code in [75, 126, 127, 200] {
            let answer = shell(&format!("echo no; exit {code}"), LONG).await.answer();
            assert_eq!(answer, HookAnswer::Failed(format!("exit code {code}")));
        }
        assert_eq!(shell("kill -9 $$", LONG).await.answer(), HookAnswer::Failed("killed by signal 9".to_owned()));
    }

    #[tokio::test]
    async fn what_hangs_is_ended_with_all_that_it_started() {
        let began = Instant::now();
        let ended = shell("sleep 1000 & echo $!; sleep 1000", Duration::from_millis(300)).await;
        assert!(matches!(ended.answer(), HookAnswer::Failed(why) if why.contains("0.3 s")));
        assert!(began.elapsed() < LONG);
        assert_is_gone(&ended.out);
    }

    #[tokio::test]
    async fn what_it_leaves_running_ends_with_it() {
        let ended = shell("sleep 1000 & echo $!", LONG).await;
        assert_eq!(ended.answer(), HookAnswer::Yes);
        assert_is_gone(&ended.out);
    }

    fn assert_is_gone(said: &CapturedOutput) {
        let pid: i32 = said.message(MAX_MESSAGE).parse().unwrap();
        let is_there = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => !stat.contains(") Z"),
            Err(_) => false,
        };
        let deadline = Instant::now() + LONG;
        while is_there() {
            assert!(Instant::now() < deadline, "process {pid} lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test]
    async fn both_outputs_are_kept_apart_and_bounded() {
        let ended = shell("echo out; echo err >&2; head -c 20000000 /dev/zero", LONG).await;
        assert_eq!((ended.out.kept.len(), ended.out.more), (super::super::MAX_SAID, 20_000_004 - 4096));
        assert_eq!(ended.err.kept, b"err\n");
    }
}
