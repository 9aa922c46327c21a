//! Keeps a node going: an assembly that could not go on is begun anew over the same open files.
//!
//! What failed decides when. A fault of the host (memory, compiler) may have passed a moment later, so
//! it is tried again, each time after a longer pause. An operation at which apply panics will panic
//! again: the node waits until it is told to skip it. A disk that failed is never used again: the node
//! has ended, and a new process may go on with the files. Nor is a state that was found damaged:
//! a new process goes on only if all of it reads right.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use quorate_core::state::{Fault, Poison};
use tokio::sync::{mpsc, watch};

use super::assembly::{Assembly, Environment, Error, Settings};
use super::stores::Stores;
use super::waiting_room;
use crate::consensus::Succession;
use crate::consensus::machine::checkpoints::Outcome;
use crate::consensus::network::{Refused, Service};
use crate::drive::{Driver, Instant, Running};
use crate::gateway::edge::EdgeEvent;
use crate::store::BoxFuture;

/// First and longest pause before a node that could not go on tries again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A node that went on for so long starts again with the shortest pause.
const GOOD_TIME: Duration = Duration::from_secs(60);
/// How long a stop waits for an attempt that is under way.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(15);
/// Events of clients between the edge and a gateway.
const EVENTS_MAX: usize = 1024;

/// What a node is doing.
#[derive(Debug, Clone)]
pub enum Phase {
    /// It takes part.
    Running(Arc<Assembly>),
    /// It takes no part, and will try again, or waits for an operator.
    Down(Fault),
    /// Its disk failed, or its state is damaged.
    Ended(Fault),
}

/// A node that goes on after what may pass.
#[derive(Debug)]
pub struct Keeper {
    driver: Driver,
    stores: Stores,
    phase: watch::Receiver<Phase>,
    service: Arc<Switch>,
    stop: watch::Sender<bool>,
    keeping: Mutex<Option<Running>>,
    waiting_room: Running,
}

impl Keeper {
    /// Opens both files and starts an assembly over them. If what was committed cannot be applied
    /// again, the node is there all the same, and down.
    ///
    /// # Errors
    /// As [`Error`] says, but for that; nothing is left running.
    pub async fn start(settings: Settings, mut environment: Environment) -> Result<Self, Error> {
        let stores = Stores::open(&settings, &environment).await?;
        let (_, no_events) = mpsc::channel(1);
        let events = std::mem::replace(&mut environment.events, no_events);
        let (door, door_seen) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let driver = environment.driver.clone();
        let service = Arc::new(Switch::default());
        let visitors = waiting_room::receive(
            events,
            Arc::clone(&environment.edge),
            stores.state.clone(),
            door_seen,
        );
        let told = stores.skips.watch();
        let mut keeping = Keeping {
            settings,
            environment,
            stores: stores.clone(),
            door,
            service: Arc::clone(&service),
            stopping,
            told,
        };
        let first = keeping.begin().await?;
        let (sender, phase) = watch::channel(first);
        let waiting_room = driver.task(visitors);
        let running = driver.task(keeping.keep(sender));
        Ok(Self {
            driver,
            stores,
            phase,
            service,
            stop,
            keeping: Mutex::new(Some(running)),
            waiting_room,
        })
    }

    /// What serves peers, whatever the node is doing.
    pub fn service(&self) -> Arc<dyn Service> {
        self.service.clone()
    }

    /// What is open.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// What the node is doing.
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Follows what the node is doing.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// The assembly, while the node takes part.
    pub fn assembly(&self) -> Option<Arc<Assembly>> {
        match self.phase() {
            Phase::Running(assembly) => Some(assembly),
            Phase::Down(_) | Phase::Ended(_) => None,
        }
    }

    /// Waits until a leader is known and a module is in force here. Cancel-safe.
    pub async fn ready(&self) {
        let mut phase = self.phase.clone();
        loop {
            let assembly = self.assembly();
            let ready = async {
                match assembly {
                    Some(assembly) => assembly.ready().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ready => return,
                changed = phase.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Waits until the node has ended for good, and says why. Cancel-safe.
    pub async fn ended(&self) -> Fault {
        let mut phase = self.phase.clone();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
        match ended.await.as_deref() {
            Ok(Phase::Ended(fault)) => fault.clone(),
            _ => std::future::pending().await,
        }
    }

    /// Hands leadership over, if the node has it, within `time`, and tells clients that it stops. No
    /// attempt to go on begins any more.
    pub async fn wind_down(&self, time: Duration) {
        self.stop.send_replace(true);
        let keeping = self.keeping.lock();
        let keeping = keeping.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeping) = keeping {
            tokio::select! {
                () = keeping.ended() => {}
                () = self.driver.sleep(ATTEMPT_TIME_MAX) => {
                    tracing::error!("the node stops in the middle of an attempt to go on");
                }
            }
        }
        if let Some(assembly) = self.assembly() {
            assembly.hand_over(time).await;
            assembly.gateway().stop();
            // What clients are told must be queued before the listener closes.
            assembly.gateway().ended().await;
        }
    }

    /// Stops consensus, folds, closes both files. Bounded in time.
    ///
    /// # Errors
    /// If something could not be written, or the node had not been able to go on.
    pub async fn stop(self) -> Result<(), Fault> {
        self.wind_down(Duration::ZERO).await;
        self.service.set(None);
        self.waiting_room.abort();
        match self.phase() {
            Phase::Running(assembly) => assembly.wind_up().await,
            Phase::Down(fault) | Phase::Ended(fault) => {
                let closed = self.stores.close().await;
                closed.and(Err(fault))
            }
        }
    }
}

/// What the keeper's task works with.
struct Keeping {
    settings: Settings,
    /// Without events: each assembly gets its own.
    environment: Environment,
    stores: Stores,
    door: watch::Sender<Option<mpsc::Sender<EdgeEvent>>>,
    service: Arc<Switch>,
    stopping: watch::Receiver<bool>,
    told: watch::Receiver<u64>,
}

impl Keeping {
    async fn keep(mut self, phase: watch::Sender<Phase>) {
        let mut pause = Pause::default();
        loop {
            let current = phase.borrow().clone();
            let next = match current {
                Phase::Running(assembly) => self.until_failed(&assembly, &phase, &mut pause).await,
                Phase::Down(fault) => self.try_again(fault.poison, &mut pause).await,
                Phase::Ended(_) => return,
            };
            let Some(next) = next else { return };
            phase.send_replace(next);
        }
    }

    /// Waits until the assembly fails, and ends it. `None`: the node is to stop.
    async fn until_failed(
        &mut self,
        assembly: &Arc<Assembly>,
        phase: &watch::Sender<Phase>,
        pause: &mut Pause,
    ) -> Option<Phase> {
        let begun = self.environment.driver.now();
        let (fault, succession) = tokio::select! {
            failed = assembly.failure().left_off() => failed,
            () = until(&mut self.stopping) => return None,
        };
        if let Some(fault) = self.stores.failed() {
            return Some(Phase::Ended(fault));
        }
        pause.failed(begun, self.environment.driver.now(), succession);
        // From now on nobody works with it any more.
        phase.send_replace(Phase::Down(fault.clone()));
        self.service.set(None);
        self.door.send_replace(None);
        if let Err(fault) = assembly.leave().await {
            tracing::error!(%fault, "consensus did not stop cleanly");
        }
        Some(self.down(fault))
    }

    /// Waits until it is worth trying, and tries. `None`: the node is to stop.
    async fn try_again(&mut self, poison: Option<Poison>, pause: &mut Pause) -> Option<Phase> {
        if self.differs() {
            // It must not serve what it has stored, nor give it away.
            until(&mut self.stopping).await;
            return None;
        }
        let pause = match poison {
            // It would panic again.
            Some(_) => None,
            None => Some(pause.next()),
        };
        if let Some(pause) = pause {
            tracing::info!(?pause, "the node will try again to go on");
        }
        let driver = self.environment.driver.clone();
        let paused = async {
            match pause {
                Some(pause) => driver.sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = until(&mut self.stopping) => return None,
            _ = self.told.changed() => {}
            // Somebody may still read what is there.
            fault = self.stores.state_failed() => return Some(Phase::Ended(fault)),
            () = paused => {}
        }
        Some(match self.begin().await {
            Ok(phase) => phase,
            Err(error) => self.down(Fault::new(error.to_string())),
        })
    }

    /// Starts an assembly over what is open.
    async fn begin(&mut self) -> Result<Phase, Error> {
        self.told.mark_unchanged();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let environment = self.environment.with_events(events);
        let stores = self.stores.clone();
        match Assembly::start_over(self.settings.clone(), environment, stores).await {
            Ok(assembly) => {
                self.service.set(Some(assembly.service()));
                self.door.send_replace(Some(sender));
                Ok(Phase::Running(Arc::new(assembly)))
            }
            Err(Error::Replay(fault)) => {
                tracing::error!(%fault, "what was committed cannot be applied");
                Ok(self.down(fault))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a majority has stored something else.
    fn differs(&self) -> bool {
        let outcome = self.environment.recent.checkpoints().outcome();
        let differs = matches!(*outcome.borrow(), Outcome::Differs { .. });
        differs
    }

    fn down(&self, fault: Fault) -> Phase {
        match self.stores.failed() {
            Some(fault) => Phase::Ended(fault),
            None => Phase::Down(fault),
        }
    }
}

/// Returns when the node is to stop, also since nobody could say so any more.
async fn until(stopping: &mut watch::Receiver<bool>) {
    // An error means that the keeper itself is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// How long to wait before the next attempt.
#[derive(Debug, Default)]
struct Pause {
    /// Attempts that did not last.
    attempts: u32,
    at_once: bool,
}

impl Pause {
    /// A node failed that had gone on since `begun`.
    fn failed(&mut self, begun: Instant, now: Instant, succession: Succession) {
        if now.saturating_duration_since(begun) >= GOOD_TIME {
            self.attempts = 0;
        }
        // openraft never takes a transfer of leadership back: while no other node leads, only a new
        // beginning can give the cluster a leader.
        self.at_once = succession == Succession::Unled && self.attempts == 0;
    }

    fn next(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        if std::mem::take(&mut self.at_once) {
            return Duration::ZERO;
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.attempts - 1).min(16));
        doubled.min(PAUSE_MAX)
    }
}

/// Answers peers through the assembly that runs.
#[derive(Debug, Default)]
struct Switch {
    current: Mutex<Option<Arc<dyn Service>>>,
}

impl Switch {
    fn set(&self, service: Option<Arc<dyn Service>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }

    fn current(&self) -> Result<Arc<dyn Service>, Refused> {
        let current = self.current.lock();
        let current = current.unwrap_or_else(PoisonError::into_inner).clone();
        current.ok_or_else(|| Refused {
            reason: "this node cannot go on, and takes no part now".to_owned(),
        })
    }
}

impl Service for Switch {
    fn call(self: Arc<Self>, frame: Bytes) -> BoxFuture<'static, Result<Bytes, Refused>> {
        match self.current() {
            Ok(service) => service.call(frame),
            Err(refused) => Box::pin(std::future::ready(Err(refused))),
        }
    }

    fn stream(
        self: Arc<Self>,
        frames: BoxStream<'static, Bytes>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Refused>>, Refused>> {
        match self.current() {
            Ok(service) => service.stream(frames),
            Err(refused) => Box::pin(std::future::ready(Err(refused))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_begin_anew_after_a_good_time() {
        let seconds = |pause: &mut Pause| pause.next().as_secs();
        let driver = Driver::simulation(1, 0);
        let begun = driver.now();
        let mut pause = Pause::default();
        let grown: Vec<u64> = (0..8).map(|_| seconds(&mut pause)).collect();
        assert_eq!(grown, [1, 2, 4, 8, 16, 32, 60, 60]);
        // One that failed again soon, whether or not there is a leader.
        pause.failed(begun, begun + GOOD_TIME / 2, Succession::Unled);
        assert_eq!(seconds(&mut pause), 60);
        pause.failed(begun, begun + GOOD_TIME, Succession::Led);
        assert_eq!(seconds(&mut pause), 1);
    }

    #[test]
    fn a_node_without_successor_tries_at_once_but_only_once() {
        let driver = Driver::simulation(1, 0);
        let begun = driver.now();
        let mut pause = Pause::default();
        pause.failed(begun, begun, Succession::Unled);
        assert_eq!(pause.next(), Duration::ZERO);
        pause.failed(begun, begun, Succession::Unled);
        assert_eq!(pause.next(), 2 * PAUSE_MIN);
    }
}
