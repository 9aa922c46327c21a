//! What drives the node's loops: time, randomness, tasks and threads.
//!
//! The only module that starts a thread or a task or asks a clock (a lint sees to it). A node runs
//! over the operating system's clocks and threads; a simulation runs every node of a cluster on one
//! thread, over tokio's paused clock, each with its own seeded randomness and its own wall clock.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use tokio::task::{AbortHandle, JoinHandle};

/// A point on the node's monotonic clock.
pub type Instant = tokio::time::Instant;

/// Drives one node. Cheap to clone.
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    mode: Mode,
    random: Mutex<ChaCha12Rng>,
}

enum Mode {
    Node {
        background: OnceLock<Option<rayon::ThreadPool>>,
    },
    Simulation {
        start: Instant,
        wall_start_us: u64,
        wall_offset_us: AtomicI64,
        sync_max_ms: AtomicU64,
        apply_max_ms: AtomicU64,
        tasks: Tasks,
    },
}

/// Stack of the background thread: the compiler recurses.
const BACKGROUND_STACK_BYTES: usize = 8 << 20;
/// Its niceness: about a tenth of what a thread of the node's own work gets beside it.
const BACKGROUND_NICE: i32 = 10;

/// How long a simulated disk takes for a sync, at most, unless told otherwise.
const SYNC_MAX: Duration = Duration::from_millis(4);

tokio::task_local! {
    /// The simulated node that the current task belongs to.
    static TASKS: Tasks;
}

/// The tasks of a simulated node: those that its driver started, and whatever these started.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Alive>>);

#[derive(Default)]
struct Alive {
    is_off: bool,
    is_paused: bool,
    /// The tasks that were to go on while paused.
    parked: Vec<Waker>,
    handles: Vec<AbortHandle>,
    /// Length at which ended tasks are swept out.
    sweep_at: usize,
}

/// A task that [`Driver::task`] or a loop that [`Driver::thread`] started. Dropping it detaches it.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
}

#[derive(Debug)]
enum Handle {
    Task(tokio::task::JoinHandle<()>),
    Thread(tokio::sync::oneshot::Receiver<()>),
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.mode {
            Mode::Node { .. } => "Driver(node)",
            Mode::Simulation { .. } => "Driver(simulation)",
        })
    }
}

impl Driver {
    /// Drives a real node: the operating system's clocks, threads and randomness.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn node() -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::from)?;
        let background = OnceLock::new();
        Ok(Self::with_mode(Mode::Node { background }, seed))
    }

    /// Drives a simulated node. The caller runs everything on one current-thread runtime whose clock
    /// is paused; `wall_start_us` is the wall clock (microseconds since the Unix epoch) of now.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that asks the clock"
    )]
    pub fn simulation(seed: u64, wall_start_us: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let wall_offset_us = AtomicI64::new(0);
        let mode = Mode::Simulation {
            start: Instant::now(),
            wall_start_us,
            wall_offset_us,
            sync_max_ms: AtomicU64::new(SYNC_MAX.as_millis() as u64),
            apply_max_ms: AtomicU64::new(0),
            tasks: Tasks::default(),
        };
        Self::with_mode(mode, bytes)
    }

    fn with_mode(mode: Mode, seed: [u8; 32]) -> Self {
        let random = Mutex::new(ChaCha12Rng::from_seed(seed));
        Self(Arc::new(Inner { mode, random }))
    }

    /// The monotonic clock.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that asks the clock"
    )]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The wall clock, in microseconds since the Unix epoch. It may jump and go back.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that asks the clock"
    )]
    pub fn wall_us(&self) -> u64 {
        match &self.0.mode {
            Mode::Node { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
                since_epoch.map_or(0, |elapsed| elapsed.as_micros() as u64)
            }
            Mode::Simulation {
                start,
                wall_start_us,
                wall_offset_us,
                ..
            } => {
                let elapsed = self.now().duration_since(*start).as_micros() as u64;
                let offset = wall_offset_us.load(Ordering::Relaxed);
                (wall_start_us + elapsed).saturating_add_signed(offset)
            }
        }
    }

    /// Moves a simulated node's wall clock. Without effect on a real one.
    pub fn shift_wall_clock(&self, by_us: i64) {
        if let Mode::Simulation { wall_offset_us, .. } = &self.0.mode {
            wall_offset_us.fetch_add(by_us, Ordering::Relaxed);
        }
    }

    /// Waits. Cancel-safe.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Fills `bytes` with randomness that is good enough for secrets on a real node.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.0
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(bytes);
    }

    /// Random bytes, as [`Driver::fill_random`].
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill_random(&mut bytes);
        bytes
    }

    /// Whether this node is simulated.
    pub fn is_simulation(&self) -> bool {
        matches!(self.0.mode, Mode::Simulation { .. })
    }

    /// Runs `future` as a task of the current runtime.
    pub fn task(&self, future: impl Future<Output = ()> + Send + 'static) -> Running {
        let task = match &self.0.mode {
            Mode::Node { .. } => spawn(future),
            Mode::Simulation { tasks, .. } => tasks.spawn(future),
        };
        Running {
            handle: Handle::Task(task),
        }
    }

    /// Switches a simulated node off: ends every task of it at its next await, and waits until the
    /// last one is gone. A task that it starts from now on ends at once. Without effect on a real
    /// node, whose process ends instead. Not to be awaited by a task of this node.
    pub async fn switch_off(&self) {
        let Mode::Simulation { tasks, .. } = &self.0.mode else {
            return;
        };
        for task in tasks.switch_off() {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Stops a simulated node, as `SIGSTOP` does: no task of it goes on, and time passes. Without
    /// effect on a real one.
    pub fn pause(&self) {
        if let Mode::Simulation { tasks, .. } = &self.0.mode {
            tasks.alive().is_paused = true;
        }
    }

    /// Lets a node go on that was [paused](Driver::pause).
    pub fn resume(&self) {
        if let Mode::Simulation { tasks, .. } = &self.0.mode {
            let parked = {
                let mut alive = tasks.alive();
                alive.is_paused = false;
                std::mem::take(&mut alive.parked)
            };
            for task in parked {
                task.wake();
            }
        }
    }

    /// To be awaited before what was written is made durable. Returns at once on a real node, whose
    /// disk takes its time by itself; a simulated one takes some, drawn from its seed, so that it can
    /// lose power while something is not durable yet. Cancel-safe.
    pub async fn before_sync(&self) {
        if let Mode::Simulation { sync_max_ms, .. } = &self.0.mode {
            self.sleep_at_most(sync_max_ms.load(Ordering::Relaxed))
                .await;
        }
    }

    /// To be awaited before an entry is applied. Returns at once on a real node; a simulated one
    /// takes some time if it was told to. Cancel-safe.
    pub async fn before_apply(&self) {
        if let Mode::Simulation { apply_max_ms, .. } = &self.0.mode {
            match apply_max_ms.load(Ordering::Relaxed) {
                0 => {}
                ms_max => self.sleep_at_most(ms_max).await,
            }
        }
    }

    async fn sleep_at_most(&self, ms_max: u64) {
        let draw = u64::from(u32::from_be_bytes(self.random()));
        self.sleep(Duration::from_millis(draw % (ms_max + 1))).await;
    }

    /// Makes a simulated node take up to `apply_max` to apply an entry: no time otherwise. Without
    /// effect on a real one.
    pub fn slow_apply(&self, apply_max: Duration) {
        if let Mode::Simulation { apply_max_ms, .. } = &self.0.mode {
            apply_max_ms.store(apply_max.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Makes a simulated disk take up to `sync_max` for a sync: 4 ms otherwise. Without effect on a
    /// real one.
    pub fn slow_disk(&self, sync_max: Duration) {
        if let Mode::Simulation { sync_max_ms, .. } = &self.0.mode {
            sync_max_ms.store(sync_max.as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Runs a loop that blocks (on a disk, on a module) on a thread of its own, named `name`; in a
    /// simulation as a task. `stack_bytes` is the thread's stack.
    ///
    /// # Errors
    /// If the operating system starts no thread.
    pub fn thread(
        &self,
        name: &str,
        stack_bytes: usize,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Running> {
        if self.is_simulation() {
            return Ok(self.task(future));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (ended, wait) = tokio::sync::oneshot::channel();
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(stack_bytes)
            .spawn(move || {
                runtime.block_on(future);
                // Nobody may be waiting for the end of the loop.
                let _ = ended.send(());
            })?;
        Ok(Running {
            handle: Handle::Thread(wait),
        })
    }

    /// Runs `work`, which blocks, away from the tasks of a real node; in a simulation at once.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that starts threads"
    )]
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if self.is_simulation() {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down: whoever waits for this is being dropped as well.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Runs `work`, which needs the processor for seconds, such as compiling, where it takes little from
    /// a real node's own work: on one thread of lower priority, after what was handed in before; what
    /// it does in parallel has that thread too. In a simulation at once. Not cancel-safe: `work` goes
    /// on, and others wait for it.
    pub async fn background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let Mode::Node { background } = &self.0.mode else {
            return work();
        };
        let Some(pool) = background.get_or_init(background_pool) else {
            return self.blocking(work).await;
        };
        let (done, wait) = tokio::sync::oneshot::channel();
        pool.spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        match wait.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            // The pool ends with the driver, which `self` holds.
            Err(_) => std::future::pending().await,
        }
    }
}

/// One thread, or none if there cannot be another.
fn background_pool() -> Option<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .stack_size(BACKGROUND_STACK_BYTES)
        .thread_name(|_| "quorate-back".to_owned())
        .start_handler(|_| {
            // On Linux this is the thread's own niceness; elsewhere it would be the process's.
            #[cfg(target_os = "linux")]
            if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
                tracing::warn!(%error, "compiling has the priority of everything else");
            }
        })
        .build();
    pool.inspect_err(|error| tracing::warn!(%error, "no thread for compiling in the background"))
        .ok()
}

/// Starts a task that belongs to the same simulated node as the current one, if that belongs to
/// any.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the module that starts tasks"
)]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match TASKS.try_with(Clone::clone) {
        Ok(tasks) => tasks.spawn(future),
        Err(_) => tokio::spawn(future),
    }
}

impl Tasks {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the module that starts tasks"
    )]
    fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = tokio::spawn(TASKS.scope(self.clone(), self.clone().gate(future)));
        let mut alive = self.alive();
        if alive.is_off {
            task.abort();
        }
        if alive.handles.len() >= alive.sweep_at {
            alive.handles.retain(|task| !task.is_finished());
            alive.sweep_at = 64 + 2 * alive.handles.len();
        }
        alive.handles.push(task.abort_handle());
        task
    }

    /// The future, which does not go on while paused.
    async fn gate<F: Future>(self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            {
                let mut alive = self.alive();
                if alive.is_paused {
                    alive.parked.push(context.waker().clone());
                    return Poll::Pending;
                }
            }
            future.as_mut().poll(context)
        })
        .await
    }

    fn switch_off(&self) -> Vec<AbortHandle> {
        let mut alive = self.alive();
        alive.is_off = true;
        alive.parked.clear();
        for task in &alive.handles {
            task.abort();
        }
        std::mem::take(&mut alive.handles)
    }

    fn alive(&self) -> MutexGuard<'_, Alive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Waits for the end of the task or loop, also an end by panic.
    pub async fn ended(self) {
        match self.handle {
            // A panic was reported by the panic hook; here only the end matters.
            Handle::Task(task) => drop(task.await),
            Handle::Thread(ended) => drop(ended.await),
        }
    }

    /// Ends a task at its next await; a thread goes on.
    pub fn abort(&self) {
        if let Handle::Task(task) = &self.handle {
            task.abort();
        }
    }
}

#[cfg(test)]
#[path = "drive_test.rs"]
mod tests;
