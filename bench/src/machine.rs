//! The replicated state machine in this process: no network, no log, no wait for a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use quorate_core::apply::{Applied, apply_skipping};
use quorate_core::entry::{Entry, Operation};
use quorate_core::library;
use quorate_core::limits::Limits;
use quorate_core::memory::Memory;
use quorate_core::meter::Meter;
use quorate_core::module::{ModuleHash, Modules};
use quorate_core::result::OperationResult;
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::Engine;
use quorate_host::drive::Driver;
use quorate_host::store::file_disk::FileDisk;
use quorate_host::store::state::{Options, StateStore};
use quorate_host::store::{BoxFuture, Identity, LogDurability, LogPosition};

use crate::meter::{CORE, Reading, STATE, Stopwatch};

/// What holds the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A map in memory
    Map,
    /// The store of a node, in a temporary folder, which folds on a thread of its own
    Store,
}

/// Core over an engine and a state, one entry after the other.
pub(crate) struct Machine {
    state: State,
    engine: Arc<Engine>,
    index: u64,
}

impl Machine {
    /// Without a module.
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        Ok(Self {
            state: State::new(kind)?,
            engine: Arc::new(Engine::new(quorate_engine::Config::default())?),
            index: 0,
        })
    }

    /// Puts `code` into the state, and compiles it, as a node does before it is put in force.
    pub(crate) fn store_module(&mut self, code: &[u8]) -> Result<ModuleHash> {
        let hash = library::hash_of(code);
        for chunk in (0..).map_while(|number| library::store_chunk(hash, code, number)) {
            self.apply_now(vec![chunk])?;
        }
        match self.engine.load(hash, code, &Limits::default().module)? {
            Ok(_) => Ok(hash),
            Err(rejected) => bail!("the module is refused: {rejected:?}"),
        }
    }

    /// Puts the first module in force, and ends genesis.
    pub(crate) fn begin(&mut self, code: &[u8]) -> Result<ModuleHash> {
        let hash = self.store_module(code)?;
        let activated = self.apply_now(vec![Operation::Activate {
            expected: None,
            hash,
            argument: Vec::new(),
        }])?;
        if activated.results != [(OperationResult::Activated { hash })] {
            bail!("the module is not put in force: {:?}", activated.results);
        }
        self.apply_now(vec![Operation::GenesisMark { genesis: [1; 32] }])?;
        Ok(hash)
    }

    /// Applies an entry of these operations.
    pub(crate) fn apply_now(&mut self, operations: Vec<Operation>) -> Result<Applied> {
        self.apply(&entry(operations), None)
    }

    /// Applies the next entry, which is `bytes`, and takes what it wrote out of the result.
    pub(crate) fn apply(
        &mut self,
        bytes: &[u8],
        meter: Option<&Arc<Stopwatch>>,
    ) -> Result<Applied> {
        self.index += 1;
        let view = self.state.view();
        let view = match meter {
            Some(meter) => Arc::new(Reading::new(view, meter)) as Arc<dyn Read>,
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

    /// Waits until the state takes another entry.
    pub(crate) async fn room(&self) -> Result<()> {
        self.state.room().await
    }

    pub(crate) async fn close(self) {
        self.state.close().await;
    }
}

/// The bytes of an entry.
pub(crate) fn entry(operations: Vec<Operation>) -> Vec<u8> {
    let entry = Entry {
        time_us: 0,
        seed: [7; 16],
        operations,
    };
    entry.encode()
}

/// The name of a value on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// What holds the state.
enum State {
    Map(Arc<Map>),
    Store(StateStore, tempfile::TempDir),
}

impl State {
    fn new(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Map => Self::Map(Arc::default()),
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
                Self::Store(store, folder)
            }
        })
    }

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
