//! Applies entries one after another to a state in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_core::apply::{Applied, Skip, apply_skipping, read};
use quorate_core::context::MODULE_DATA;
use quorate_core::entry::{Entry, Operation};
use quorate_core::keys;
use quorate_core::limits::Limits;
use quorate_core::meter::{Meter, Part};
use quorate_core::query;
use quorate_core::records::{Progress, Timer};
use quorate_core::result::OperationResult;
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_protocol::RequestId;

use super::memory::Memory;
use super::module::{Code, Scripted};
use super::{Action, activate, chunks, command, create, id, invariants, put};

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) state: Arc<Memory>,
    pub(crate) modules: Scripted,
    /// Of the newest entry.
    pub(crate) index: u64,
    /// Every entry so far.
    pub(crate) log: Vec<Vec<u8>>,
}

/// How many parts have begun and not ended.
#[derive(Debug, Default)]
struct OpenParts(AtomicUsize);

impl Meter for OpenParts {
    fn begin(&self, _: Part) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        assert!(self.0.fetch_sub(1, Ordering::Relaxed) > 0);
    }
}

impl Machine {
    /// With data, a session, a request and a timer.
    pub(crate) fn in_use() -> Self {
        let mut machine = Self::new();
        let actions = [
            put(b"k", b"v"),
            Action::Request(vec![1], b"r".to_vec()),
            Action::SetTimer(9, b"t".to_vec(), Vec::new()),
        ];
        machine.apply(vec![create(1), command(1, 1, &actions)]);
        machine
    }

    /// Nothing applied yet.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// After genesis, with default limits.
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// After genesis: entries 1 to 4.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        let mut machine = Self::empty();
        let code = Self::first_module();
        machine.one(Operation::SetLimits(limits));
        machine.apply(chunks(&code));
        let activated = machine.one(activate(None, &code));
        assert_eq!(activated, OperationResult::Activated { hash: code.hash() });
        machine.one(Operation::GenesisMark { genesis: [1; 32] });
        machine.modules.take_calls();
        machine
    }

    pub(crate) fn first_module() -> Code {
        Code::new("1.0.0", 1)
    }

    /// The time of the entry at `index`.
    pub(crate) fn time_us(index: u64) -> u64 {
        1_000_000 * index
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, operations: Vec<Operation>) -> Applied {
        let index = self.index + 1;
        self.apply_entry(&Entry {
            time_us: Self::time_us(index),
            seed: [index as u8; 16],
            operations,
        })
    }

    /// The bytes of the entry that comes next, of these operations.
    pub(crate) fn next_entry(&self, operations: Vec<Operation>) -> Vec<u8> {
        let index = self.index + 1;
        Entry {
            time_us: Self::time_us(index),
            seed: [index as u8; 16],
            operations,
        }
        .encode()
    }

    #[track_caller]
    pub(crate) fn apply_entry(&mut self, entry: &Entry) -> Applied {
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).as_ref(), Ok(entry));
        self.apply_bytes(bytes)
    }

    #[track_caller]
    pub(crate) fn apply_bytes(&mut self, bytes: Vec<u8>) -> Applied {
        self.try_apply(bytes, &[]).unwrap()
    }

    /// Applies the next entry, or leaves everything as it was.
    pub(crate) fn try_apply(&mut self, bytes: Vec<u8>, skips: &[Skip]) -> Result<Applied, Fault> {
        let base: Arc<dyn Read> = Arc::clone(&self.state) as _;
        let index = self.index + 1;
        let open = Arc::new(OpenParts::default());
        let meter: Arc<dyn Meter> = Arc::clone(&open) as _;
        let applied = apply_skipping(&base, &self.modules, index, &bytes, skips, Some(meter));
        // Also after a panic, every part that began has ended.
        assert_eq!(open.0.load(Ordering::Relaxed), 0);
        let applied = applied?;
        self.index = index;
        Arc::make_mut(&mut self.state).write(applied.writes.clone());
        self.log.push(bytes);
        invariants::check(&self.state);
        assert_eq!(query::meta(&*self.state).unwrap().hash, applied.hash);
        assert_eq!(applied.migration_step, self.next_step());
        Ok(applied)
    }

    #[track_caller]
    pub(crate) fn one(&mut self, operation: Operation) -> OperationResult {
        self.apply(vec![operation]).results.remove(0)
    }

    #[track_caller]
    pub(crate) fn results(&mut self, operations: Vec<Operation>) -> Vec<OperationResult> {
        self.apply(operations).results
    }

    /// The module's value under `key`.
    pub(crate) fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = [&[MODULE_DATA], key].concat();
        self.state.get(&key).unwrap().map(|value| value.to_vec())
    }

    /// All of the module's data.
    pub(crate) fn data(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let data = self.state.0.range(vec![MODULE_DATA]..);
        data.map(|(key, value)| (key[1..].to_vec(), value.to_vec()))
            .collect()
    }

    /// The module's data as queries see it.
    pub(crate) fn visible_data(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let visible = query::visible(Arc::clone(&self.state) as _).unwrap();
        let (start, end) = ([MODULE_DATA], [MODULE_DATA + 1]);
        let mut data = BTreeMap::new();
        let mut visit = |key: &[u8], value: &Value| {
            data.insert(key[1..].to_vec(), value.to_vec());
            Visit::More
        };
        visible
            .scan(&start, Some(&end), Order::Ascending, &mut visit)
            .unwrap();
        data
    }

    /// The number of the step that a migration wants next.
    pub(crate) fn next_step(&self) -> Option<u32> {
        let migration = query::migration(&*self.state).unwrap();
        migration.map(|migration| migration.number)
    }

    /// Ids and payloads of a session's unacknowledged requests.
    pub(crate) fn outbox(&self, session: u8) -> Vec<(u64, Vec<u8>)> {
        let Some((_, progress)) = query::session(&*self.state, id(session)).unwrap() else {
            return Vec::new();
        };
        let first = progress.first_unacknowledged();
        let requests =
            query::outbox(&*self.state, id(session), first, usize::MAX, usize::MAX).unwrap();
        requests
            .iter()
            .map(|request| (request.id.0, request.payload.to_vec()))
            .collect()
    }

    pub(crate) fn progress(&self, session: u8) -> Progress {
        let found = query::session(&*self.state, id(session)).unwrap();
        found.expect("the session exists").1
    }

    pub(crate) fn exists(&self, session: u8) -> bool {
        query::session(&*self.state, id(session)).unwrap().is_some()
    }

    /// Whether a response is cached.
    pub(crate) fn caches(&self, session: u8, request: u64) -> bool {
        let key = keys::response(id(session), RequestId(request));
        self.state.get(&key).unwrap().is_some()
    }

    pub(crate) fn timer(&self, key: &[u8]) -> Option<Timer> {
        read(&*self.state, &keys::timer_by_key(key)).unwrap()
    }

    /// The state without what every entry changes.
    pub(crate) fn state_without_meta(&self) -> Memory {
        let mut state = (*self.state).clone();
        state.0.remove(keys::META);
        state
    }
}
