//! Modules, states and calls that the tests share.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use quorate_core::context::{Access, Context};
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Outcome, Ran, Rejected, Trap,
};
use quorate_core::state::{Fault, Order, Read, Value, Visit};
use quorate_engine::{Config, Diagnostic, Diagnostics, Engine, Origin};

pub const FUEL: u64 = 1_000_000_000;
pub const MANIFEST: &str =
    r#"{"name":"test","version":"0.1.0","abi":1,"state-version":1,"codec":"raw"}"#;

/// One engine for all tests of a binary.
pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Config::default()).unwrap());

/// A map as state; keys are the module's own.
#[derive(Debug, Default)]
pub struct MapState(pub BTreeMap<Vec<u8>, Value>);

impl MapState {
    pub fn of(pairs: &[(&str, &str)]) -> Arc<Self> {
        let pairs = pairs.iter().map(|(key, value)| {
            let key = [b"\x40", key.as_bytes()].concat();
            (key, Value::from(value.as_bytes()))
        });
        Arc::new(Self(pairs.collect()))
    }
}

impl Read for MapState {
    fn get(&self, key: &[u8]) -> Result<Option<Value>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        let mut found: Vec<_> = self.0.iter().filter(|(key, _)| inside(key)).collect();
        if order == Order::Descending {
            found.reverse();
        }
        for (key, value) in found {
            if visit(key, value) == Visit::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// A state whose disk is broken.
#[derive(Debug)]
pub struct BrokenState;

impl Read for BrokenState {
    fn get(&self, _: &[u8]) -> Result<Option<Value>, Fault> {
        Err(Fault::new("the disk is broken"))
    }

    fn scan(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut dyn FnMut(&[u8], &Value) -> Visit,
    ) -> Result<(), Fault> {
        Err(Fault::new("the disk is broken"))
    }
}

#[derive(Debug, Default)]
pub struct Collected(pub Mutex<Vec<Diagnostic>>);

impl Diagnostics for Collected {
    fn report(&self, _: Origin, diagnostic: Diagnostic) {
        self.0.lock().unwrap().push(diagnostic);
    }
}

pub fn writes() -> Context {
    writes_over(MapState::of(&[]))
}

pub fn writes_over(state: Arc<dyn Read>) -> Context {
    Context::new(state, Access::Writes, ModuleLimits::default())
}

/// A module with the required exports, and `body`. `quorate_alloc` always returns 1024.
pub fn module(body: &str) -> String {
    parts("", "(memory (export \"memory\") 1 1024)", body)
}

pub fn parts(imports: &str, memory: &str, body: &str) -> String {
    let manifest = MANIFEST.replace('"', "\\\"");
    format!(
        "(module {imports} {memory}
           (func (export \"quorate_abi_v1\"))
           (func (export \"quorate_alloc\") (param i32) (result i32) (i32.const 1024))
           {body}
           (@custom \"quorate_manifest\" \"{manifest}\"))"
    )
}

/// `quorate_apply` with this body.
pub fn apply(body: &str) -> String {
    module(&apply_function(body))
}

pub fn apply_function(body: &str) -> String {
    format!(
        "(func $apply (export \"quorate_apply\") (param $pointer i32) (param $length i32) \
         (result i64) {body})"
    )
}

/// The pair of an outcome.
pub fn pair(pointer: u32, length: u32) -> String {
    format!(
        "(i64.const {:#x})",
        u64::from(pointer) << 32 | u64::from(length)
    )
}

#[track_caller]
pub fn assemble(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

pub fn hash(code: &[u8]) -> ModuleHash {
    quorate_core::library::hash_of(code)
}

pub fn check(code: &[u8]) -> Result<Manifest, Rejected> {
    ENGINE.check(code, &ModuleLimits::default())
}

#[track_caller]
pub fn load(engine: &Engine, wat: &str) -> ModuleHash {
    let code = assemble(wat);
    let hash = hash(&code);
    let verdict = engine.load(hash, &code, &ModuleLimits::default()).unwrap();
    verdict.expect("the module is admitted");
    hash
}

#[track_caller]
pub fn instance(wat: &str) -> Box<dyn Instance> {
    let hash = load(&ENGINE, wat);
    ENGINE.instantiate(hash, &ModuleLimits::default()).unwrap()
}

/// One call of `quorate_apply` in a fresh instance.
#[track_caller]
pub fn run(wat: &str) -> Ran {
    instance(wat)
        .call(Export::Apply, b"", FUEL, &mut writes())
        .unwrap()
}

#[track_caller]
pub fn trap(wat: &str) -> Trap {
    let ran = run(wat);
    assert!(ran.spent);
    ran.outcome.unwrap_err()
}

#[track_caller]
pub fn response(ran: &Ran) -> &[u8] {
    match &ran.outcome {
        Ok(Outcome::Success(response)) => response,
        other => panic!("{other:?}"),
    }
}

/// Operations of `wat/probe.wat`.
pub mod probe {
    use super::*;

    pub const WAT: &str = include_str!("../wat/probe.wat");
    pub const GET: u32 = 0;
    pub const PUT: u32 = 1;
    pub const DELETE: u32 = 2;
    pub const DELETE_RANGE: u32 = 3;
    pub const SCAN: u32 = 4;
    pub const EMIT: u32 = 5;
    pub const LOG: u32 = 6;
    pub const ABORT: u32 = 7;
    /// Where the input's data stands in memory.
    pub const DATA: u32 = 1064;
    /// Where the returned bytes begin.
    pub const OUT: u32 = 16393;

    pub fn input(operation: u32, parameters: &[u32], returned: u32, data: &[u8]) -> Vec<u8> {
        let mut words = [0; 8];
        words[..parameters.len()].copy_from_slice(parameters);
        let mut input = operation.to_le_bytes().to_vec();
        for word in words.into_iter().chain([returned]) {
            input.extend(word.to_le_bytes());
        }
        input.extend(data);
        input
    }

    /// A fresh instance over a context.
    pub struct Probe {
        pub instance: Box<dyn Instance>,
        pub context: Context,
    }

    impl Probe {
        pub fn new(context: Context) -> Self {
            let instance = super::instance(WAT);
            Self { instance, context }
        }

        pub fn call(&mut self, operation: u32, parameters: &[u32], out: u32, data: &[u8]) -> Ran {
            let input = input(operation, parameters, out, data);
            self.instance
                .call(Export::Apply, &input, FUEL, &mut self.context)
                .unwrap()
        }

        /// The import's result and the bytes after it.
        #[track_caller]
        pub fn ok(
            &mut self,
            operation: u32,
            parameters: &[u32],
            out: u32,
            data: &[u8],
        ) -> (i64, Vec<u8>) {
            let ran = self.call(operation, parameters, out, data);
            let (result, bytes) = response(&ran).split_first_chunk().unwrap();
            (i64::from_le_bytes(*result), bytes.to_vec())
        }

        #[track_caller]
        pub fn put(&mut self, key: &str, value: &str) {
            let (key_len, value_len) = (key.len() as u32, value.len() as u32);
            let parameters = [DATA, key_len, DATA + key_len, value_len];
            self.ok(PUT, &parameters, 0, format!("{key}{value}").as_bytes());
        }

        #[track_caller]
        pub fn get(&mut self, key: &str, room: u32) -> (i64, Vec<u8>) {
            let parameters = [DATA, key.len() as u32, OUT, room];
            self.ok(GET, &parameters, room, key.as_bytes())
        }

        #[track_caller]
        pub fn delete(&mut self, key: &str) {
            self.ok(DELETE, &[DATA, key.len() as u32], 0, key.as_bytes());
        }

        #[track_caller]
        pub fn scan(
            &mut self,
            start: &str,
            end: &str,
            flags: u32,
            limit: u32,
            room: u32,
        ) -> (i64, Vec<(String, String)>) {
            let (start_len, end_len) = (start.len() as u32, end.len() as u32);
            let parameters = [
                DATA,
                start_len,
                DATA + start_len,
                end_len,
                flags,
                limit,
                OUT,
                room,
            ];
            let (result, bytes) =
                self.ok(SCAN, &parameters, room, format!("{start}{end}").as_bytes());
            if result < 0 {
                return (result, Vec::new());
            }
            let written = (result >> 32) as usize;
            let entries = i64::from(result as u32);
            (entries, decode(&bytes[..written]))
        }
    }

    fn decode(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let key_len = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            let value_len = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
            let (key, rest) = bytes[8..].split_at(key_len);
            let (value, rest) = rest.split_at(value_len);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            entries.push((text(key), text(value)));
            bytes = rest;
        }
        entries
    }
}
