//! Applying alone: no network, no log, no wait for a disk. Commands per second on one core, and where the time goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use quorate_core::apply::{Applied, apply_skipping};
use quorate_core::entry::{CHUNK_BYTES_MAX, Entry, Operation, Sequence};
use quorate_core::memory::Memory;
use quorate_core::meter::{Meter, Part};
use quorate_core::module::ModuleHash;
use quorate_core::result::{OperationResult, Response};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::Engine;
use quorate_host::drive::Driver;
use quorate_host::store::file_disk::FileDisk;
use quorate_host::store::state::{Options, StateStore};
use quorate_host::store::{BoxFuture, Identity, LogDurability, LogPosition};
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};
use sha2::{Digest, Sha256};

/// Bytes of a value that is set.
const VALUE_BYTES: usize = 128;
/// Sessions that the commands of an entry come from.
const SESSIONS: u8 = 8;
/// Entries made before they are applied, so that making them is not measured.
const ENTRIES_AHEAD: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What the commands do
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "counter,kv-set,kv-get,work-queue"
    )]
    work: Vec<Work>,
    /// Commands in an entry; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1,16,256,1024")]
    batch: Vec<usize>,
    /// Keys of the module kv, all set before anything is measured
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of applying in each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// What holds the state
    #[arg(long, value_enum, value_delimiter = ',', default_value = "map,store")]
    state: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    Counter,
    KvSet,
    KvGet,
    /// Submit a job, and say that it is done
    WorkQueue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A map in memory
    Map,
    /// The store of a node, in a temporary folder, which folds on a thread of its own
    Store,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "{:<12}{:<7}{:>6}{:>10}{:>11}{:>9}   us a command: decode, core, instance, guest, host-calls, state, hash; waits for folds",
        "work", "state", "batch", "keys", "ops/s", "us/op"
    );
    for kind in &arguments.state {
        for work in &arguments.work {
            let mut bench = Bench::new(*work, *kind, arguments.keys).await?;
            bench.fill().await?;
            for batch in &arguments.batch {
                bench.measure(*batch, arguments.seconds).await?;
            }
            bench.state.close().await;
        }
    }
    Ok(())
}

/// What holds the state.
enum State {
    Map(Arc<Map>),
    Store(StateStore, tempfile::TempDir),
}

impl State {
    fn view(&self) -> Arc<dyn Read> {
        match self {
            Self::Map(map) => Arc::clone(map) as Arc<dyn Read>,
            Self::Store(store, _) => store.view(),
        }
    }

    fn commit(&self, index: u64, writes: BTreeMap<Vec<u8>, Option<Value>>) {
        match self {
            Self::Map(map) => map.write(writes),
            Self::Store(store, _) => store.commit(LogPosition { term: 1, index }, writes, None),
        }
    }

    async fn room(&self) -> Result<()> {
        match self {
            Self::Map(_) => Ok(()),
            Self::Store(store, _) => store.room().await.context("the state has room"),
        }
    }

    async fn close(self) {
        if let Self::Store(store, folder) = self {
            store.close().await;
            drop(folder);
        }
    }
}

#[derive(Debug, Default)]
struct Map(RwLock<Memory>);

impl Map {
    fn write(&self, writes: BTreeMap<Vec<u8>, Option<Value>>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.write(writes);
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.read().get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        self.read().scan(start, end, order, visit)
    }
}

/// A log that is always durable: only applying is measured.
#[derive(Debug)]
struct NoLog;

impl LogDurability for NoLog {
    fn newest_sequence(&self) -> u64 {
        0
    }

    fn wait_durable(&self, _: u64) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Bench {
    work: Work,
    kind: Kind,
    state: State,
    engine: Arc<Engine>,
    index: u64,
    keys: u64,
    /// Ids of the newest commands, by session.
    sent: [u64; SESSIONS as usize + 1],
    drawn: u64,
    jobs: u64,
}

/// The session of the worker.
const WORKER: u8 = SESSIONS;

impl Bench {
    async fn new(work: Work, kind: Kind, keys: u64) -> Result<Self> {
        let state = match kind {
            Kind::Map => State::Map(Arc::default()),
            Kind::Store => {
                let folder = tempfile::tempdir()?;
                let disk = Arc::new(FileDisk::open(folder.path())?);
                let identity = Identity {
                    cluster: [1; 16],
                    node: 1,
                    incarnation: [1; 16],
                };
                let (log, options) = (Arc::new(NoLog), Options::default());
                let store = StateStore::open(disk, Driver::node()?, log, identity, options)?;
                State::Store(store, folder)
            }
        };
        let mut bench = Self {
            work,
            kind,
            state,
            engine: Arc::new(Engine::new(quorate_engine::Config::default())?),
            index: 0,
            keys,
            sent: [0; SESSIONS as usize + 1],
            drawn: 0,
            jobs: 0,
        };
        bench.begin()?;
        Ok(bench)
    }

    /// Genesis and the sessions.
    fn begin(&mut self) -> Result<()> {
        let module: &[u8] = match self.work {
            Work::Counter => include_bytes!("../../modules/prebuilt/counter.wasm"),
            Work::KvSet | Work::KvGet => include_bytes!("../../modules/prebuilt/kv.wasm"),
            Work::WorkQueue => include_bytes!("../../modules/prebuilt/work-queue.wasm"),
        };
        let hash = ModuleHash(Sha256::digest(module).into());
        let chunks: Vec<_> = module.chunks(CHUNK_BYTES_MAX).collect();
        for (number, bytes) in chunks.iter().enumerate() {
            self.apply_now(vec![Operation::ModuleChunk {
                hash,
                number: u32::try_from(number)?,
                total: u32::try_from(chunks.len())?,
                bytes: bytes.to_vec(),
            }])?;
        }
        let activated = self.apply_now(vec![Operation::Activate {
            expected: None,
            hash,
            argument: Vec::new(),
        }])?;
        if activated.results != [(OperationResult::Activated { hash })] {
            bail!("the module is not put in force: {:?}", activated.results);
        }
        self.apply_now(vec![Operation::GenesisMark { genesis: [1; 32] }])?;
        let sessions = (0..=WORKER).map(|session| Operation::CreateSession {
            session: id(session),
            creation_key: CreationKey([0; 16]),
            secret_hash: [0; 32],
            timeout_ms: 0,
            sequence: Sequence::Consecutive,
            capabilities: match (self.work, session) {
                (Work::WorkQueue, WORKER) => [("bench".to_owned(), "v1".to_owned())].into(),
                _ => BTreeMap::new(),
            },
        });
        let sessions = sessions.collect();
        self.apply_now(sessions)?;
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        if !matches!(self.work, Work::KvSet | Work::KvGet) {
            return Ok(());
        }
        let mut next = 0;
        while next < self.keys {
            let until = (next + 1024).min(self.keys);
            let operations = (next..until).map(|key| self.command((key % 8) as u8, set(key), 128));
            let operations = operations.collect();
            self.apply_now(operations)?;
            self.state.room().await?;
            next = until;
        }
        Ok(())
    }

    async fn measure(&mut self, batch: usize, seconds: f64) -> Result<()> {
        // Once without a meter, for how long it takes, and once with one, for what takes how long.
        self.pass(batch, seconds / 4.0, None).await?;
        let whole = self.pass(batch, seconds, None).await?;
        let meter = Arc::new(Stopwatch::default());
        let parts = self.pass(batch, seconds / 2.0, Some(&meter)).await?;
        let commands = whole.commands as f64;
        let micros = whole.applying.as_secs_f64() * 1e6 / commands;
        let keys = match self.work {
            Work::KvSet | Work::KvGet => self.keys,
            _ => 0,
        };
        let share: Vec<String> = meter
            .micros(&parts)
            .iter()
            .map(|micros| format!("{micros:.2}"))
            .collect();
        println!(
            "{:<12}{:<7}{:>6}{:>10}{:>11.0}{:>9.2}   {}; {:.0} ms",
            name(self.work),
            name(self.kind),
            batch,
            keys,
            1e6 / micros,
            micros,
            share.join(" "),
            whole.waiting.as_secs_f64() * 1e3,
        );
        Ok(())
    }

    async fn pass(
        &mut self,
        batch: usize,
        seconds: f64,
        meter: Option<&Arc<Stopwatch>>,
    ) -> Result<Pass> {
        let mut pass = Pass::default();
        while pass.applying.as_secs_f64() < seconds {
            let ahead = ENTRIES_AHEAD.min(65_536 / batch.max(1)).max(1);
            let entries: Vec<_> = (0..ahead)
                .map(|_| {
                    let operations = self.operations(batch);
                    let entry = Entry {
                        time_us: 0,
                        seed: [7; 16],
                        operations,
                    };
                    entry.encode()
                })
                .collect();
            for bytes in &entries {
                let began = Instant::now();
                if meter.is_some() {
                    drop(Entry::decode(bytes).context("an entry decodes")?);
                    pass.decoding += began.elapsed();
                }
                let began = Instant::now();
                let applied = self.apply(bytes, meter)?;
                pass.applying += began.elapsed();
                pass.commands += check(&applied)?;
                let began = Instant::now();
                self.state.room().await?;
                pass.waiting += began.elapsed();
            }
        }
        Ok(pass)
    }

    fn apply_now(&mut self, operations: Vec<Operation>) -> Result<Applied> {
        let entry = Entry {
            time_us: 0,
            seed: [7; 16],
            operations,
        };
        self.apply(&entry.encode(), None)
    }

    fn apply(&mut self, bytes: &[u8], meter: Option<&Arc<Stopwatch>>) -> Result<Applied> {
        self.index += 1;
        let view = self.state.view();
        let view = match meter {
            Some(meter) => Arc::new(Reading {
                state: view,
                meter: Arc::clone(meter),
            }) as Arc<dyn Read>,
            None => view,
        };
        if let Some(meter) = meter {
            meter.enter(CORE);
        }
        let meter_of_core = meter.map(|meter| Arc::clone(meter) as Arc<dyn Meter>);
        let mut applied =
            apply_skipping(&view, &*self.engine, self.index, bytes, &[], meter_of_core)?;
        drop(view);
        let writes = std::mem::take(&mut applied.writes);
        match meter {
            Some(meter) => {
                meter.within(STATE, || self.state.commit(self.index, writes));
                meter.leave();
            }
            None => self.state.commit(self.index, writes),
        }
        Ok(applied)
    }

    fn operations(&mut self, batch: usize) -> Vec<Operation> {
        // About what a client has under way when so many are in an entry.
        let window = (2 * batch / usize::from(SESSIONS)).max(4) as u64;
        let mut operations = Vec::with_capacity(batch + 1);
        for n in 0..batch {
            let session = (n % usize::from(SESSIONS)) as u8;
            let operation = match self.work {
                Work::Counter => self.command(session, br#"{"add":1}"#.to_vec(), window),
                Work::KvSet => {
                    let key = self.draw();
                    self.command(session, set(key), window)
                }
                Work::KvGet => {
                    let key = self.draw();
                    self.command(session, get(key), window)
                }
                Work::WorkQueue if self.jobs.is_multiple_of(2) => {
                    self.jobs += 1;
                    let job = br#"{"submit":{"capability":"bench","version":"v1","payload":"p"}}"#;
                    self.command(session, job.to_vec(), window)
                }
                Work::WorkQueue => {
                    let job = self.jobs.div_ceil(2);
                    self.jobs += 1;
                    let done = format!(r#"{{"done":{{"job":"{job}","attempt":1,"result":"r"}}}}"#);
                    self.command(WORKER, done.into_bytes(), 8 * window)
                }
            };
            operations.push(operation);
        }
        if self.work == Work::WorkQueue {
            operations.push(Operation::Acknowledge {
                session: id(WORKER),
                generation: Generation(1),
                up_to: RequestId(self.jobs / 2),
            });
        }
        operations
    }

    fn command(&mut self, session: u8, payload: Vec<u8>, window: u64) -> Operation {
        let sent = &mut self.sent[usize::from(session)];
        *sent += 1;
        Operation::Command {
            session: id(session),
            generation: Generation(1),
            request: RequestId(*sent),
            lowest_pending: RequestId((*sent).saturating_sub(window).max(1)),
            payload,
        }
    }

    /// A key, in a fixed pseudo-random order.
    fn draw(&mut self) -> u64 {
        self.drawn = self
            .drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.drawn >> 33) % self.keys
    }
}

fn id(session: u8) -> SessionId {
    SessionId([session + 1; 16])
}

fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn text(payload: &mut Vec<u8>, text: &[u8]) {
    payload.extend_from_slice(&(text.len() as u32).to_be_bytes());
    payload.extend_from_slice(text);
}

fn set(key: u64) -> Vec<u8> {
    let mut payload = vec![b'S'];
    text(&mut payload, format!("key-{key:09}").as_bytes());
    text(&mut payload, &[b'v'; VALUE_BYTES]);
    payload
}

fn get(key: u64) -> Vec<u8> {
    let mut payload = vec![b'G'];
    text(&mut payload, format!("key-{key:09}").as_bytes());
    payload
}

/// How many commands succeeded: all of them.
fn check(applied: &Applied) -> Result<u64> {
    let mut commands = 0;
    for result in &applied.results {
        match result {
            OperationResult::Responded {
                response: Response::Success(_),
                ..
            } => commands += 1,
            OperationResult::Acknowledged { .. } => {}
            other => bail!("entry {}: {other:?}", applied.index),
        }
    }
    Ok(commands)
}

#[derive(Debug, Default)]
struct Pass {
    commands: u64,
    applying: Duration,
    decoding: Duration,
    waiting: Duration,
}

const CORE: usize = 0;
const STATE: usize = 4;

/// The parts of applying. One inside another stops its time.
#[derive(Debug, Default)]
struct Stopwatch(Mutex<Laps>);

#[derive(Debug, Default)]
struct Laps {
    running: Vec<usize>,
    since: Option<Instant>,
    spent: [Duration; 6],
}

impl Stopwatch {
    fn enter(&self, part: usize) {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.lap();
        laps.running.push(part);
    }

    fn leave(&self) {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.lap();
        laps.running.pop();
    }

    fn within<T>(&self, part: usize, work: impl FnOnce() -> T) -> T {
        self.enter(part);
        let done = work();
        self.leave();
        done
    }

    /// Of one command: decoding, core without it, instance, guest, host calls, state, hash.
    fn micros(&self, pass: &Pass) -> [f64; 7] {
        let laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |duration: Duration| duration.as_secs_f64() * 1e6 / pass.commands as f64;
        let [core, instance, guest, calls, state, hash] = laps.spent;
        [
            of(pass.decoding),
            of(core.saturating_sub(pass.decoding)),
            of(instance),
            of(guest),
            of(calls),
            of(state),
            of(hash),
        ]
    }
}

impl Laps {
    fn lap(&mut self) {
        let now = Instant::now();
        if let (Some(part), Some(since)) = (self.running.last(), self.since) {
            self.spent[*part] += now - since;
        }
        self.since = Some(now);
    }
}

impl Meter for Stopwatch {
    fn begin(&self, part: Part) {
        self.enter(match part {
            Part::Instance => 1,
            Part::Guest => 2,
            Part::HostCalls => 3,
            Part::Hash => 5,
        });
    }

    fn end(&self) {
        self.leave();
    }
}

/// The state, with a stopwatch beside it.
#[derive(Debug)]
struct Reading {
    state: Arc<dyn Read>,
    meter: Arc<Stopwatch>,
}

impl Read for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        self.meter.within(STATE, || self.state.get(key))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        self.meter
            .within(STATE, || self.state.scan(start, end, order, visit))
    }
}
