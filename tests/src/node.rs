//! One `quorate serve` process.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_protocol::NodeId;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};

/// A node of a cluster, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) client: SocketAddr,
    pub(crate) raft: SocketAddr,
    pub(crate) admin: SocketAddr,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// What makes it fail.
    pub(crate) failpoint: Option<String>,
    process: Option<Child>,
}

/// How a node ended that was asked to.
#[derive(Debug, Clone, Copy)]
pub struct Stopped {
    /// Exit status of its process.
    pub status: ExitStatus,
    /// From the signal to the end, as far as it was observed.
    pub took: Duration,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Memory that is resident now.
    pub resident_bytes: u64,
    /// The most that was, since its start.
    pub peak_bytes: u64,
    /// CPU time since its start, all threads, user and system.
    pub cpu: Duration,
}

/// The fields of a `stat` in /proc after the name, which is in parentheses and may hold blanks.
fn after_name(stat: &str) -> Result<&str> {
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    Ok(fields)
}

impl Usage {
    /// Of the process with this id.
    ///
    /// # Errors
    /// There is none, or the operating system does not tell.
    pub fn of(process: u32) -> Result<Self> {
        let folder = format!("/proc/{process}");
        let stat = fs::read_to_string(format!("{folder}/stat"))?;
        // utime and stime are fields 14 and 15.
        let ticks = after_name(&stat)?
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        let per_second = rustix::param::clock_ticks_per_second();
        let pages = fs::read_to_string(format!("{folder}/statm"))?;
        let resident = pages
            .split(' ')
            .nth(1)
            .context("statm without resident pages")?;
        let status = fs::read_to_string(format!("{folder}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let peak = peak.context("status without VmHWM")?;
        Ok(Self {
            peak_bytes: peak.parse::<u64>()? << 10,
            resident_bytes: resident.parse::<u64>()? * rustix::param::page_size() as u64,
            cpu: Duration::from_secs(ticks) / u32::try_from(per_second)?,
        })
    }
}

impl Node {
    /// A node that does not run yet. `addresses`: client, raft, admin.
    pub(crate) fn new(
        id: NodeId,
        folder: &Path,
        binary: &Path,
        addresses: [SocketAddr; 3],
    ) -> Self {
        let [client, raft, admin] = addresses;
        Self {
            id,
            client,
            raft,
            admin,
            binary: binary.to_path_buf(),
            config: folder.join(format!("node-{id}.toml")),
            log: folder.join(format!("node-{id}.log")),
            failpoint: None,
            process: None,
        }
    }

    pub(crate) fn configure(&self, text: &str) -> Result<()> {
        fs::write(&self.config, text).with_context(|| format!("write {}", self.config.display()))
    }

    /// Starts the process; its output is appended to its log. `wrapper` is a program that becomes the
    /// node, with its arguments; empty: none.
    pub(crate) fn start(&mut self, wrapper: &[String]) -> Result<()> {
        if self.is_running() {
            bail!("node {} runs already", self.id);
        }
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        writeln!(log, "{START}{}", self.config.display())?;
        let mut command = match wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.args(["serve", "--config"]).arg(&self.config);
        // Settings of whoever runs the tests are none of the node's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(name);
            }
        }
        if let Some(failpoint) = &self.failpoint {
            command.env("QUORATE_FAILPOINT", failpoint);
        }
        let output: File = log.try_clone().context("share the node's log")?;
        let process = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        self.process = Some(process);
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.ended(), Ok(None))
    }

    /// Its exit status, if it has ended by itself.
    ///
    /// # Errors
    /// It was never started, or was killed.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let id = self.id;
        let process = self
            .process
            .as_mut()
            .with_context(|| format!("node {id} does not run"))?;
        Ok(process.try_wait()?)
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self
            .process
            .take()
            .with_context(|| format!("node {} does not run", self.id))?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// SIGTERM; returns at once.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::TERM)?)
    }

    /// SIGSTOP: it runs no more until [`Node::release`].
    pub(crate) fn hold(&mut self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Whether each of its threads stands still. One inside a call of the operating system, such as an
    /// fsync, does so only when that has returned.
    pub(crate) fn is_held(&self) -> Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.process_id()?))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            // The state follows the name.
            if !after_name(&stat)?.trim_start().starts_with('T') {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// SIGCONT.
    pub(crate) fn release(&mut self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Open sockets of the process.
    pub(crate) fn open_sockets(&self) -> Result<usize> {
        crate::sockets::open(self.process_id()?)
    }

    /// Open descriptors of the process, of any kind.
    pub(crate) fn open_descriptors(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.process_id()?);
        Ok(fs::read_dir(folder)?.count())
    }

    /// Sets how many descriptors the process may have.
    pub(crate) fn limit_descriptors(&self, most: u64) -> Result<()> {
        let pid = self.pid()?;
        let current = Some(most);
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        rustix::process::prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum })?;
        Ok(())
    }

    /// Memory and CPU of the process.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.process_id()?)
    }

    /// The id of the process.
    pub(crate) fn process_id(&self) -> Result<u32> {
        Ok(self.pid()?.as_raw_nonzero().get().unsigned_abs())
    }

    fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref();
        process
            .and_then(|process| Pid::from_raw(i32::try_from(process.id()).ok()?))
            .with_context(|| format!("node {} does not run", self.id))
    }

    /// What it has written since its last start.
    pub(crate) fn said(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let last = text.rsplit(START).next().unwrap_or_default();
        last.split_once('\n')
            .map_or("", |(_, said)| said)
            .to_owned()
    }

    /// The end of its log, at most `lines` lines.
    pub(crate) fn log_end(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Begins a line of the log that the harness writes before each start.
const START: &str = "--- quorate serve --config ";

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
