//! `quorate work`: a worker of the work-queue module, until Ctrl-C or SIGTERM.
//!
//! A job is acknowledged when it comes, not when it is done: from then on its lease is what brings it to another worker
//! if this one is lost. A session that ends is replaced by a new one; what ran in it is ended, since its results would
//! come too late.

mod command;
mod job;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, ConnectionState, Requests};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::job::{Job, Outcome, Report, Work};
use crate::args::{self, Options, SLOTS_CAPABILITY};
use crate::failure::{Failure, Slug};
use crate::output::Exit;
use crate::payload::Viewer;
use crate::session::{Session, find};

/// The pause between attempts to open another session.
const PAUSE: Duration = Duration::from_secs(1);

/// Time for commands to end, and for results to be taken, once the worker shall stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// The signals that end a worker.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// Why a session serves no more.
enum Ended {
    /// The user wants it.
    Stopped(Exit),
    /// The cluster has ended it.
    SessionLost,
}

pub(crate) async fn run(arguments: &args::Work, options: &Options) -> Result<Exit, Box<Failure>> {
    check(arguments)?;
    let mut stop = Stop::new()?;
    let mut session = tokio::select! {
        session = open(arguments, options) => session?,
        exit = stop.wait() => return Ok(exit),
    };
    tokio::select! {
        checked = check_module(&session, options) => checked?,
        exit = stop.wait() => {
            session.close().await;
            return Ok(exit);
        }
    }
    eprintln!("waiting for jobs - press Ctrl+C to stop");
    loop {
        match serve(&session.client, arguments, options, &mut stop).await {
            Ok(Ended::Stopped(exit)) => {
                // What is still in hand goes to others at once.
                session.close().await;
                return Ok(exit);
            }
            Ok(Ended::SessionLost) => {
                eprintln!("the session has ended, and its jobs go to others; opening another one");
            }
            Err(failure) => {
                session.close().await;
                return Err(failure);
            }
        }
        session = tokio::select! {
            session = open_again(arguments, options) => session,
            exit = stop.wait() => return Ok(exit),
        };
    }
}

fn check(arguments: &args::Work) -> Result<(), Box<Failure>> {
    let mut names = BTreeSet::new();
    for capability in &arguments.capabilities {
        let name = &capability.name;
        if !names.insert(name) {
            return Err(Failure::input(format!("two versions of capability {name}"))
                .hint("a session has one; run a second worker for the other"));
        }
    }
    Ok(())
}

async fn open(arguments: &args::Work, options: &Options) -> Result<Session, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let viewer = Viewer::new(known.admins());
    Session::open_as(options, &known, viewer, deadline, |mut builder| {
        for args::Capability { name, version } in &arguments.capabilities {
            builder = builder.capability(name, version);
        }
        builder
            .capability(SLOTS_CAPABILITY, arguments.jobs.to_string())
            .session_timeout(arguments.session_timeout)
    })
    .await
}

/// A worker that ran once goes on until it is told to stop.
async fn open_again(arguments: &args::Work, options: &Options) -> Session {
    loop {
        match open(arguments, options).await {
            Ok(session) => return session,
            Err(failure) => failure.report(options.output, options.is_colored()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A worker of another module would wait for ever.
async fn check_module(session: &Session, options: &Options) -> Result<(), Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let client = session.client_until(deadline);
    let answer = match client.query_bytes(br#""totals""#.to_vec()).await {
        Ok(answer) => serde_json::from_slice(&answer.answer).ok(),
        Err(quorate_client::CallError::Rejected { .. }) => None,
        Err(error) => return Err(session.failure(error, deadline).await),
    };
    match answer {
        Some(serde_json::Value::Object(answer)) if answer.contains_key("totals") => Ok(()),
        _ => {
            let text = "the module in force is not work-queue";
            Err(Failure::new(Exit::REFUSED, Slug::NotApplied, text)
                .hint("`quorate cluster status` shows which one is"))
        }
    }
}

/// Does jobs in one session.
async fn serve(
    client: &Client,
    arguments: &args::Work,
    options: &Options,
    stop: &mut Stop,
) -> Result<Ended, Box<Failure>> {
    let mut requests = client.requests().expect("nobody took them before");
    let mut state = client.state();
    let (stopping, stopped) = watch::channel(());
    let work = Arc::new(Work {
        client: client.clone(),
        exec: arguments.exec.clone(),
        format: options.output,
        stopping: stopped,
    });
    // Dropped on every way out, and with it what runs.
    let mut running = JoinSet::new();
    let jobs_max = arguments.jobs as usize;
    loop {
        tokio::select! {
            exit = stop.wait() => {
                // Closed: those that wait for the end of their command see it.
                drop(stopping);
                let deadline = Instant::now() + STOP_TIMEOUT;
                // A result that nobody takes, without a leader, holds up no longer.
                while let Ok(Some(report)) = timeout_at(deadline, running.join_next()).await {
                    show(report, options)?;
                }
                return Ok(Ended::Stopped(exit));
            }
            job = next(&mut requests), if running.len() < jobs_max => match job? {
                Some(job) => drop(running.spawn(Arc::clone(&work).run(job))),
                None => return Ok(Ended::SessionLost),
            },
            Some(report) = running.join_next() => show(report, options)?,
            // Nobody disconnects it, so it has ended: seen here also while all hands are full.
            _ = state.wait_for(|state| *state == ConnectionState::Disconnected) => {
                return Ok(Ended::SessionLost);
            }
        }
    }
}

/// The next job; none once the session has ended.
async fn next(requests: &mut Requests) -> Result<Option<Job>, Box<Failure>> {
    let Some(request) = requests.next().await else {
        return Ok(None);
    };
    let job = Job::read(&request.payload)?;
    request.ack();
    Ok(Some(job))
}

fn show(
    report: Result<Result<Report, Box<Failure>>, tokio::task::JoinError>,
    options: &Options,
) -> Result<(), Box<Failure>> {
    let report = report.map_err(|error| Failure::host(format!("a job's task: {error}")))??;
    match report.outcome {
        // There is nothing to say of it: it goes to another.
        Outcome::GivenBack => Ok(()),
        _ => report.print(options.output),
    }
}

impl Stop {
    fn new() -> Result<Self, Box<Failure>> {
        let handler = |kind| {
            signal(kind).map_err(|error| Failure::host(format!("cannot wait for signals: {error}")))
        };
        Ok(Self {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal; says with which code to end.
    async fn wait(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::INTERRUPTED,
            _ = self.terminate.recv() => Exit::TERMINATED,
        }
    }
}
