//! Applying alone: no network, no log, no wait for a disk. Commands per second on one core, and where the time goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use quorate_core::apply::Applied;
use quorate_core::entry::{Entry, Operation, Sequence};
use quorate_core::result::{OperationResult, Response};
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::machine::{Kind, Machine, entry, name};
use crate::meter::Stopwatch;

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
    #[value(name = "work-queue")]
    Queue,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "{:<12}{:<7}{:>6}{:>10}{:>11}{:>9}   us a command: decode, core, instance, guest, host-calls, state, hash; waits for folds",
        "work", "state", "batch", "keys", "ops/s", "us/op"
    );
    for kind in &arguments.state {
        for work in &arguments.work {
            let mut bench = Bench::new(*work, *kind, arguments.keys)?;
            bench.fill().await?;
            for batch in &arguments.batch {
                bench.measure(*batch, arguments.seconds).await?;
            }
            bench.machine.close().await;
        }
    }
    Ok(())
}

struct Bench {
    work: Work,
    kind: Kind,
    machine: Machine,
    keys: u64,
    /// Ids of the newest commands, by session.
    sent: [u64; SESSIONS as usize + 1],
    drawn: u64,
    jobs: u64,
}

/// The session of the worker.
const WORKER: u8 = SESSIONS;

impl Bench {
    fn new(work: Work, kind: Kind, keys: u64) -> Result<Self> {
        let mut bench = Self {
            work,
            kind,
            machine: Machine::new(kind)?,
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
            Work::Queue => include_bytes!("../../modules/prebuilt/work-queue.wasm"),
        };
        self.machine.begin(module)?;
        let sessions = (0..=WORKER).map(|session| Operation::CreateSession {
            session: id(session),
            creation_key: CreationKey([0; 16]),
            secret_hash: [0; 32],
            timeout_ms: 0,
            sequence: Sequence::Consecutive,
            capabilities: match (self.work, session) {
                (Work::Queue, WORKER) => [("bench".to_owned(), "v1".to_owned())].into(),
                _ => BTreeMap::new(),
            },
        });
        let sessions = sessions.collect();
        self.machine.apply_now(sessions)?;
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
            self.machine.apply_now(operations)?;
            self.machine.room().await?;
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
        let share: Vec<String> = parts
            .micros(&meter)
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
            let entries: Vec<_> = (0..ahead).map(|_| entry(self.operations(batch))).collect();
            for bytes in &entries {
                let began = Instant::now();
                if meter.is_some() {
                    drop(Entry::decode(bytes).context("an entry decodes")?);
                    pass.decoding += began.elapsed();
                }
                let began = Instant::now();
                let applied = self.machine.apply(bytes, meter)?;
                pass.applying += began.elapsed();
                pass.commands += check(&applied)?;
                let began = Instant::now();
                self.machine.room().await?;
                pass.waiting += began.elapsed();
            }
        }
        Ok(pass)
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
                Work::Queue if self.jobs.is_multiple_of(2) => {
                    self.jobs += 1;
                    let job = br#"{"submit":{"capability":"bench","version":"v1","payload":"p"}}"#;
                    self.command(session, job.to_vec(), window)
                }
                Work::Queue => {
                    let job = self.jobs.div_ceil(2);
                    self.jobs += 1;
                    let done = format!(r#"{{"done":{{"job":"{job}","attempt":1,"result":"r"}}}}"#);
                    self.command(WORKER, done.into_bytes(), 8 * window)
                }
            };
            operations.push(operation);
        }
        if self.work == Work::Queue {
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

impl Pass {
    /// Of one command, in microseconds: decoding, core without it, instance, guest, host calls, state,
    /// hash.
    fn micros(&self, meter: &Stopwatch) -> [f64; 7] {
        let of = |duration: Duration| duration.as_secs_f64() * 1e6 / self.commands as f64;
        let [core, instance, guest, calls, state, hash] = meter.spent();
        [
            of(self.decoding),
            of(core.saturating_sub(self.decoding)),
            of(instance),
            of(guest),
            of(calls),
            of(state),
            of(hash),
        ]
    }
}
