//! Queries and conversions: bounded by epochs, without effect on the state.

use quorate_core::context::{Access, Context};
use quorate_core::module::{ModuleHash, ModuleLimits, Trap};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::{Config, Engine, PayloadKind, QueryError};
use std::sync::{Arc, Barrier};

use crate::common::probe::{DATA, GET, OUT, PUT, input};
use crate::common::{ENGINE, MapState, apply_function, load, module, pair, probe, response};

fn reads() -> Context {
    let state = MapState::of(&[("a", "1")]);
    Context::new(state, Access::Reads, ModuleLimits::default())
}

fn query(hash: ModuleHash, input: &[u8], ticks: u64) -> quorate_core::module::Ran {
    let limits = ModuleLimits::default();
    ENGINE
        .call_query(hash, &limits, input, &mut reads(), ticks)
        .unwrap()
}

#[test]
fn query_reads() {
    let hash = load(&ENGINE, probe::WAT);
    let ran = query(hash, &input(GET, &[DATA, 1, OUT, 1], 1, b"a"), 1_000);
    assert_eq!(response(&ran), b"\x01\0\0\0\0\0\0\x001");
}

#[test]
fn deadline_may_be_never_or_now() {
    ENGINE.advance_epoch();
    let hash = load(&ENGINE, probe::WAT);
    let input = input(GET, &[DATA, 1, OUT, 1], 1, b"a");
    assert!(query(hash, &input, u64::MAX).outcome.is_ok());
    assert_eq!(query(hash, &input, 0).outcome, Err(Trap::Deadline));
}

/// FAULTS 57.
#[test]
fn query_cannot_write() {
    let hash = load(&ENGINE, probe::WAT);
    let ran = query(hash, &input(PUT, &[DATA, 1, DATA, 1], 0, b"a"), 1_000);
    assert_eq!(ran.outcome, Err(Trap::NotAllowed));
}

/// Advances the epoch from within the query: no clock, no second thread.
#[derive(Debug)]
struct Tick;

impl Read for Tick {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
        ENGINE.advance_epoch();
        Ok(None)
    }

    fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn query_ends_at_its_deadline() {
    let body = format!(
        "{} (func (export \"quorate_query\") (param i32 i32) (result i64)
             (loop $again
                 (drop (call $get (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
                 (br $again))
             unreachable)",
        apply_function("(i64.const 0)")
    );
    let import =
        r#"(import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))"#;
    let wat = crate::common::parts(import, "(memory (export \"memory\") 1 1)", &body);
    let hash = load(&ENGINE, &wat);
    let mut context = Context::new(Arc::new(Tick), Access::Reads, ModuleLimits::default());
    let limits = ModuleLimits::default();
    let ran = ENGINE
        .call_query(hash, &limits, b"", &mut context, 1_000)
        .unwrap();
    assert_eq!(ran.outcome, Err(Trap::Deadline));
}

#[test]
fn module_without_a_query_says_so() {
    let hash = load(&ENGINE, &module(&apply_function(&pair(0, 1))));
    assert_eq!(query(hash, b"", 1).outcome, Err(Trap::NoSuchExport));
    let unknown = ENGINE.call_query(
        ModuleHash([9; 32]),
        &ModuleLimits::default(),
        b"",
        &mut reads(),
        1,
    );
    assert!(matches!(unknown, Err(QueryError::Fault(_))), "{unknown:?}");
}

#[test]
fn payloads_are_converted_with_their_kind_and_without_a_store() {
    // The outcome is what stands before the input: one byte 0, the kind, the payload.
    let echo = "(i64.or (i64.shl (i64.const 1023) (i64.const 32))
                        (i64.extend_i32_u (i32.add (local.get $length) (i32.const 1))))";
    let body = format!(
        "{} (func (export \"quorate_payload_from_json\") (param i32) (param $length i32) (result i64) {echo})
            (func (export \"quorate_payload_to_json\") (param i32 i32) (result i64)
                (drop (call $get (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
                (i64.const 0))",
        apply_function("(i64.const 0)")
    );
    let import =
        r#"(import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))"#;
    let memory = "(memory (export \"memory\") 64 64)";
    let hash = load(&ENGINE, &crate::common::parts(import, memory, &body));
    let limits = ModuleLimits::default();
    let json = "x".repeat(2 << 20);
    let ran = ENGINE
        .payload_from_json(hash, &limits, PayloadKind::Answer, &json, 1_000)
        .unwrap();
    assert_eq!(response(&ran)[..3], *b"\x04xx");
    assert_eq!(response(&ran).len(), 1 + json.len());
    let ran = ENGINE
        .payload_to_json(hash, &limits, PayloadKind::Command, b"", 1_000)
        .unwrap();
    assert_eq!(ran.outcome, Err(Trap::NotAllowed));
}

/// Waits in a read until the test goes on.
#[derive(Debug)]
struct Wait(Arc<Barrier>, Arc<Barrier>);

impl Read for Wait {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
        self.0.wait();
        self.1.wait();
        Ok(None)
    }

    fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

#[test]
fn more_queries_than_allowed_are_busy() {
    let config = Config {
        queries_max: 1,
        ..Config::default()
    };
    let engine = Engine::new(config).unwrap();
    let hash = load(&engine, probe::WAT);
    let limits = ModuleLimits::default();
    let input = input(GET, &[DATA, 1, OUT, 1], 0, b"a");
    let (inside, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let waiting = Arc::new(Wait(inside.clone(), go_on.clone()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut context = Context::new(waiting, Access::Reads, ModuleLimits::default());
            engine
                .call_query(hash, &limits, &input, &mut context, 1_000)
                .unwrap();
        });
        inside.wait();
        let busy = engine.call_query(hash, &limits, &input, &mut reads(), 1_000);
        assert_eq!(busy, Err(QueryError::Busy { queries_max: 1 }));
        go_on.wait();
    });
    assert!(
        engine
            .call_query(hash, &limits, &input, &mut reads(), 1_000)
            .is_ok()
    );
}

/// Answers how often its instance was asked, and traps when that is more than `times`.
fn counting(times: u32) -> String {
    let query = format!(
        "(global $asked (mut i32) (i32.const 0))
         (func (export \"quorate_query\") (param i32 i32) (result i64)
             (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
             (if (i32.gt_u (global.get $asked) (i32.const {times})) (then (unreachable)))
             (i32.store8 (i32.const 17) (global.get $asked))
             {})",
        pair(16, 2)
    );
    module(&format!("{} {query}", apply_function("(i64.const 0)")))
}

/// What three queries, one after the other, are answered.
fn three(module: &str) -> Vec<Vec<u8>> {
    let hash = load(&ENGINE, module);
    let mut queries = ENGINE.queries(hash, &ModuleLimits::default()).unwrap();
    let mut ask = || queries.call(b"", &mut reads(), 1_000).unwrap();
    (0..3).map(|_| response(&ask()).to_vec()).collect()
}

#[test]
fn queries_one_after_the_other_share_an_instance() {
    assert_eq!(three(&counting(100)), [[1], [2], [3]]);
}

/// The rule for the operations of an entry: neighbours decide nothing.
#[test]
fn query_that_traps_in_a_used_instance_is_asked_again_in_a_fresh_one() {
    assert_eq!(three(&counting(1)), [[1], [1], [1]]);
    assert_eq!(three(&counting(2)), [[1], [2], [1]]);
    let hash = load(&ENGINE, &counting(0));
    let mut queries = ENGINE.queries(hash, &ModuleLimits::default()).unwrap();
    for _ in 0..2 {
        let ran = queries.call(b"", &mut reads(), 1_000).unwrap();
        assert_eq!(ran.outcome, Err(Trap::Wasm));
    }
}

#[test]
fn query_whose_time_is_up_is_not_asked_again() {
    let hash = load(&ENGINE, &counting(100));
    let mut queries = ENGINE.queries(hash, &ModuleLimits::default()).unwrap();
    assert!(
        queries
            .call(b"", &mut reads(), 1_000)
            .unwrap()
            .outcome
            .is_ok()
    );
    ENGINE.advance_epoch();
    let late = queries.call(b"", &mut reads(), 0).unwrap();
    assert_eq!(late.outcome, Err(Trap::Deadline));
    let next = queries.call(b"", &mut reads(), 1_000).unwrap();
    assert_eq!(response(&next), [1]);
}

#[test]
fn queries_are_one_of_as_many_as_allowed() {
    let config = Config {
        queries_max: 1,
        ..Config::default()
    };
    let engine = Engine::new(config).unwrap();
    let hash = load(&engine, &counting(1));
    let limits = ModuleLimits::default();
    let queries = engine.queries(hash, &limits).unwrap();
    let busy = engine.queries(hash, &limits).map(drop);
    assert_eq!(busy, Err(QueryError::Busy { queries_max: 1 }));
    drop(queries);
    assert!(engine.queries(hash, &limits).is_ok());
}
