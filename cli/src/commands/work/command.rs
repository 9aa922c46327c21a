//! A user's command: the payload in, the result out.
//!
//! It runs in a process group of its own, so that Ctrl-C of a terminal reaches it by way of this worker only, and so that
//! what it has started ends with it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use super::job::Job;
use crate::failure::Failure;

/// Longest result that is read. The module takes less if JSON must escape something.
const RESULT_BYTES_MAX: u64 = 256 << 10;
/// What a command has to end in after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// What came of a command.
pub(super) enum Ran {
    /// It ended with 0 and wrote this.
    Succeeded(String),
    /// It did not, for this reason.
    Failed(String),
    /// The worker stops, and it was not finished.
    Stopped,
}

/// Why its output is no result.
enum Bad {
    TooLong,
    Unreadable(io::Error),
}

/// Runs `exec` for `job`. Dropped, it kills what runs.
pub(super) async fn run(
    exec: &str,
    job: &Job,
    mut stopping: watch::Receiver<()>,
) -> Result<Ran, Box<Failure>> {
    let mut child = start(exec, job)?;
    let group = Group::of(&child);
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::host("a command was started without pipes"));
    };
    let work = async {
        let (output, ()) = tokio::join!(read(stdout), write(stdin, &job.payload));
        if output.is_err() {
            // It may wait for ever to be read.
            group.signal(Signal::KILL);
        }
        let status = child.wait().await;
        group.has_ended();
        (output, status)
    };
    tokio::pin!(work);
    let (output, status) = tokio::select! {
        ended = &mut work => ended,
        _ = stopping.changed() => {
            group.signal(Signal::TERM);
            match tokio::time::timeout(GRACE, work).await {
                Ok((Ok(output), Ok(status))) if status.success() => (Ok(output), Ok(status)),
                _ => return Ok(Ran::Stopped),
            }
        }
    };
    let status =
        status.map_err(|error| Failure::host(format!("cannot wait for a command: {error}")))?;
    Ok(judge(output, status))
}

fn start(exec: &str, job: &Job) -> Result<Child, Box<Failure>> {
    Command::new("sh")
        .arg("-c")
        .arg(exec)
        .env("QUORATE_JOB", &job.job)
        .env("QUORATE_ATTEMPT", job.attempt.to_string())
        .env("QUORATE_CAPABILITY", &job.capability)
        .env("QUORATE_VERSION", &job.version)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::host(format!("cannot run sh: {error}")))
}

/// A command need not read all of its input, or any.
async fn write(mut stdin: ChildStdin, payload: &str) {
    if let Err(error) = stdin.write_all(payload.as_bytes()).await
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!("cannot write a payload to the command: {error}");
    }
}

async fn read(stdout: ChildStdout) -> Result<Vec<u8>, Bad> {
    let mut output = Vec::new();
    let mut stdout = stdout.take(RESULT_BYTES_MAX + 1);
    let read = stdout.read_to_end(&mut output).await;
    read.map_err(Bad::Unreadable)?;
    match output.len() as u64 > RESULT_BYTES_MAX {
        true => Err(Bad::TooLong),
        false => Ok(output),
    }
}

fn judge(output: Result<Vec<u8>, Bad>, status: ExitStatus) -> Ran {
    let output = match output {
        Ok(output) => output,
        Err(Bad::TooLong) => {
            let text = format!("the output is longer than {RESULT_BYTES_MAX} bytes");
            return Ran::Failed(text);
        }
        Err(Bad::Unreadable(error)) => {
            return Ran::Failed(format!("the output cannot be read: {error}"));
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => match String::from_utf8(output) {
            Ok(result) => Ran::Succeeded(result),
            Err(_) => Ran::Failed("the output is not UTF-8".to_owned()),
        },
        (Some(code), _) => Ran::Failed(format!("exit code {code}")),
        (None, Some(signal)) => Ran::Failed(format!("ended by signal {signal}")),
        (None, None) => Ran::Failed("ended in an unknown way".to_owned()),
    }
}

/// A command and what it has started; killed when this is dropped.
struct Group {
    leader: Option<Pid>,
    /// It has ended; its number may become another's.
    ended: AtomicBool,
}

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: id.and_then(Pid::from_raw),
            ended: AtomicBool::new(false),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader
            && !self.ended.load(Ordering::Relaxed)
        {
            // Who is gone needs no signal.
            let _ = kill_process_group(leader, signal);
        }
    }

    fn has_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
