//! What an instance and a call cost on this machine: `cargo run --release --example call_cost`.

use std::hint::black_box;
use std::time::Instant;

use quorate_core::context::{Access, Context};
use quorate_core::library;
use quorate_core::module::{Export, ModuleLimits, Modules as _};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::{Config, Engine};

const ROUNDS: u32 = 100_000;
const FUEL: u64 = 1_000_000_000;

/// Echoes its input; with a first byte 1 it puts and gets a key before.
const WAT: &str = r#"(module
  (import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "quorate" "store_put" (func $put (param i32 i32 i32 i32)))
  (memory (export "memory") 17 1024)
  (func (export "quorate_abi_v1"))
  (func (export "quorate_alloc") (param i32) (result i32) (i32.const 1025))
  (func (export "quorate_apply") (param i32 i32) (result i64)
    (if (i32.load8_u (local.get 0)) (then
      (call $put (local.get 0) (i32.const 16) (local.get 0) (local.get 1))
      (drop (call $get (local.get 0) (i32.const 16) (i32.const 4096) (i32.const 256)))))
    (i64.or (i64.shl (i64.const 1024) (i64.const 32))
            (i64.extend_i32_u (i32.add (local.get 1) (i32.const 1)))))
  (@custom "quorate_manifest"
    "{\"name\":\"cost\",\"version\":\"0.1.0\",\"abi\":1,\"state-version\":1,\"codec\":\"raw\"}"))"#;

#[derive(Debug)]
struct Empty;

impl Read for Empty {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
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

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The main thread's stack is enough, so that no call needs a thread of its own.
    let engine = Engine::new(Config::default())?;
    let code = wat::parse_str(WAT)?;
    let hash = library::hash_of(&code);
    let limits = ModuleLimits::default();
    engine
        .load(hash, &code, &limits)?
        .map_err(|rejected| rejected.detail)?;
    let mut context = Context::new(std::sync::Arc::new(Empty), Access::Writes, limits.clone());
    let plain = [0_u8; 128];
    let storing = [1_u8; 128];

    measure("instance", || {
        black_box(engine.instantiate(hash, &limits)?);
        Ok(())
    })?;
    let mut instance = engine.instantiate(hash, &limits)?;
    measure("call, 128 bytes in and out", || {
        black_box(instance.call(Export::Apply, &plain, FUEL, &mut context)?);
        Ok(())
    })?;
    measure("call with a put and a get", || {
        black_box(instance.call(Export::Apply, &storing, FUEL, &mut context)?);
        context.roll_back();
        Ok(())
    })?;
    measure("instance and one call", || {
        let mut instance = engine.instantiate(hash, &limits)?;
        black_box(instance.call(Export::Apply, &plain, FUEL, &mut context)?);
        Ok(())
    })?;
    Ok(())
}

fn measure(what: &str, mut round: impl FnMut() -> Result<(), Fault>) -> Result<(), Fault> {
    for _ in 0..ROUNDS / 10 {
        round()?;
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        round()?;
    }
    println!("{what}: {:?}", start.elapsed() / ROUNDS);
    Ok(())
}
