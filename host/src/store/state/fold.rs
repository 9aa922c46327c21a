//! The fold loop: the one writer of `state.redb`.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quorate_core::state::Fault;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Folded;
use super::database::{Base, FILE};
use super::layer::Layer;
use super::marks::Header;
use super::receive::Received;
use super::scrub::Tally;
use super::{Shared, lock};
use crate::drive::Instant;
use crate::store::LogPosition;

/// Where a fold's outcome goes.
pub(super) type FoldAnswer = oneshot::Sender<Result<Option<LogPosition>, Fault>>;

/// What the handles ask of the loop.
#[derive(Debug)]
pub(super) enum Request {
    Fold(FoldAnswer),
    Install(Box<Received>, oneshot::Sender<Result<LogPosition, Fault>>),
    Close,
}

/// While snapshots are out, how often their ages are looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until closed, or until the last handle is gone.
pub(super) async fn run(shared: Arc<Shared>, requests: mpsc::Receiver<Request>) {
    let mut folder = Folder {
        shared,
        requests,
        waiting: Vec::new(),
        fold_at: None,
    };
    let fault = match folder.run_until_failure().await {
        Ok(()) => return,
        Err(fault) => fault,
    };
    folder.shared.fail(fault.clone());
    folder.refuse_all(&fault).await;
}

struct Folder {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    /// Whoever asked for a fold that has not begun.
    waiting: Vec<FoldAnswer>,
    /// When the active layer will be old enough.
    fold_at: Option<Instant>,
}

/// What to do next.
enum Step {
    Fold,
    Install(Box<Received>, oneshot::Sender<Result<LogPosition, Fault>>),
    End,
}

/// How waiting for the log ended.
enum Waited {
    Durable,
    Superseded(Step),
}

impl Folder {
    async fn run_until_failure(&mut self) -> Result<(), Fault> {
        loop {
            let mut step = self.next_step().await;
            // A fold that is interrupted hands on what interrupted it.
            loop {
                step = match step {
                    Step::End => return Ok(()),
                    Step::Fold => match self.fold().await? {
                        Some(next) => next,
                        None => break,
                    },
                    Step::Install(received, answer) => {
                        let installed = self.install(*received).await;
                        let outcome = installed.clone();
                        // Whoever asked may have given up; the state is swapped all the same.
                        let _ = answer.send(installed);
                        outcome?;
                        break;
                    }
                };
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        loop {
            let now = self.shared.driver.now();
            let snapshots_out = self.shared.expire_snapshots(now);
            if !self.waiting.is_empty() || self.is_due(now) {
                return Step::Fold;
            }
            let alarm = self.fold_at.map(|at| at.duration_since(now));
            let alarm = match (alarm, snapshots_out) {
                (Some(fold), true) => Some(fold.min(EXPIRY_INTERVAL)),
                (None, true) => Some(EXPIRY_INTERVAL),
                (fold, false) => fold,
            };
            let sleep = async {
                match alarm {
                    Some(duration) => self.shared.driver.sleep(duration).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                request = self.requests.recv() => match request {
                    Some(Request::Fold(answer)) => self.waiting.push(answer),
                    Some(Request::Install(received, answer)) => {
                        return Step::Install(received, answer);
                    }
                    Some(Request::Close) | None => return Step::End,
                },
                () = self.shared.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Whether the active layer is big or old enough. Notes when it will be old enough.
    fn is_due(&mut self, now: Instant) -> bool {
        let inner = self.shared.inner();
        if inner.ending.is_some() {
            return true;
        }
        if !inner.unfolded {
            self.fold_at = None;
            return false;
        }
        let interval = self.shared.options.fold_interval;
        let fold_at = *self.fold_at.get_or_insert(now + interval);
        inner.active_bytes >= self.shared.options.fold_bytes || fold_at <= now
    }

    /// One fold. Returns what interrupted it, if anything did.
    async fn fold(&mut self) -> Result<Option<Step>, Fault> {
        let shared = self.shared.clone();
        let ending = shared.inner().ending.take();
        // What ends at an entry has not all that was committed since: whoever waits for a fold waits
        // for the next one.
        let answers = match ending {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut self.waiting),
        };
        self.fold_at = None;
        let (frozen, folded) = match ending {
            Some(ending) => (Some((ending.layer, ending.header)), Some(ending.folded)),
            None => (shared.inner().freeze(), None),
        };
        let Some((layer, header)) = frozen else {
            let durable = shared.base().progress().applied;
            answer_all(answers, &Ok(durable));
            return Ok(None);
        };
        // Everything in the layer was handed to the log before it was applied, so it is covered.
        match self.wait_for_log(shared.log.newest_sequence()).await {
            Ok(Waited::Durable) => {}
            Ok(Waited::Superseded(step)) => {
                // If it is an install, it answers these with what it installs.
                self.waiting.splice(0..0, answers);
                return Ok(Some(step));
            }
            Err(fault) => {
                answer_all(answers, &Err(fault.clone()));
                return Err(fault);
            }
        }
        shared.driver.before_sync().await;
        let outcome = write_layer(&shared, &layer, &header).map(|()| header.progress.applied);
        shared.room.notify_waiters();
        answer_all(answers, &outcome);
        if let (Some(folded), Ok(_)) = (folded, &outcome) {
            // Whoever asked may have given up.
            let _ = folded.send(Folded(shared.base()));
        }
        outcome.map(|_| None)
    }

    async fn wait_for_log(&mut self, sequence: u64) -> Result<Waited, Fault> {
        let log = self.shared.log.clone();
        let mut durable = pin!(log.wait_durable(sequence));
        loop {
            tokio::select! {
                biased;
                waited = &mut durable => return match waited {
                    Ok(()) => Ok(Waited::Durable),
                    Err(error) => Err(log_failed(&error)),
                },
                request = self.requests.recv() => match request {
                    Some(Request::Fold(answer)) => self.waiting.push(answer),
                    Some(Request::Install(received, answer)) => {
                        return Ok(Waited::Superseded(Step::Install(received, answer)));
                    }
                    Some(Request::Close) | None => return Ok(Waited::Superseded(Step::End)),
                },
            }
        }
    }

    /// Puts a received state in place of this one, and answers every waiting fold with it.
    async fn install(&mut self, received: Received) -> Result<LogPosition, Fault> {
        let shared = self.shared.clone();
        let position = received.position();
        let applied = shared.inner().progress.applied;
        if applied.is_some_and(|applied| applied.index > position.index) {
            let index = position.index;
            let message = format!("install a snapshot of index {index} over {applied:?}");
            return Err(Fault::new(message));
        }
        // A log write still queued may truncate or belong to what the snapshot replaces.
        let newest = shared.log.newest_sequence();
        let durable = shared.log.wait_durable(newest).await;
        durable.map_err(|error| log_failed(&error))?;
        shared.driver.before_sync().await;
        // What is found in the file that goes says nothing of the one that comes.
        shared.base().belongs_to(Weak::new());
        shared.check_failed()?;
        let renamed = shared.disk.rename(received.file_name(), FILE);
        renamed.map_err(|error| Fault::new(format!("{FILE}: install a snapshot: {error}")))?;
        replace(&shared, received.base());
        shared.snapshots.replace_current();
        shared.room.notify_waiters();
        self.fold_at = None;
        answer_all(std::mem::take(&mut self.waiting), &Ok(Some(position)));
        Ok(position)
    }

    /// After a failure: every request is answered with it, until closed.
    async fn refuse_all(&mut self, fault: &Fault) {
        answer_all(std::mem::take(&mut self.waiting), &Err(fault.clone()));
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Fold(answer) => answer_all(vec![answer], &Err(fault.clone())),
                // Whoever asked may have given up.
                Request::Install(_, answer) => drop(answer.send(Err(fault.clone()))),
                Request::Close => return,
            }
        }
    }
}

/// Puts another state in place of the layers and the file.
fn replace(shared: &Arc<Shared>, base: Arc<Base>) {
    base.belongs_to(Arc::downgrade(shared));
    // Held over both: a scrub never goes on in another file than it began with.
    let mut scrubbed = lock(&shared.scrubbed);
    *scrubbed = Tally::default();
    let replaced = shared.inner().replace(base);
    drop(scrubbed);
    drop(replaced);
}

fn log_failed(error: &std::io::Error) -> Fault {
    Fault::new(format!("{FILE}: the log failed: {error}"))
}

fn answer_all(answers: Vec<FoldAnswer>, outcome: &Result<Option<LogPosition>, Fault>) {
    for answer in answers {
        // Whoever asked may have given up; the fold happened all the same.
        let _ = answer.send(outcome.clone());
    }
}

/// Writes a frozen layer in key order, in one durable transaction, and puts the result below the
/// active layer in place of it.
fn write_layer(shared: &Shared, layer: &Layer, header: &Header) -> Result<(), Fault> {
    let mut scrubbed = lock(&shared.scrubbed);
    // Somebody may have met damage meanwhile: what is beside it stays as it was found.
    shared.check_failed()?;
    let base = shared.base();
    let database = base.database()?;
    let written = database.write(base.contents, header, &mut scrubbed, |writer| {
        layer.try_for_each(|key, write| match write {
            Some(value) => writer.put(key, &shared.options.stored(key, value)),
            None => writer.delete(key),
        })
    });
    // What a pass counted of a transaction that failed is wrong.
    let written = written.inspect_err(|_| *scrubbed = Tally::default())?;
    let folded = shared.inner().thaw(Arc::new(written));
    drop(folded);
    Ok(())
}
