//! How the state machine sees a module: code that can be instantiated and called.
//!
//! `engine` implements these traits over wasmtime; the simulator and unit tests over native Rust.

use std::fmt;

use crate::context::Context;
use crate::state::Fault;

/// SHA-256 of a module's bytes: what names it in the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleHash(pub [u8; 32]);

impl fmt::Display for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which export is called; see docs/module-abi.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// `quorate_init`
    Init,
    /// `quorate_apply`
    Apply,
    /// `quorate_query`
    Query,
    /// `quorate_migrate`
    Migrate,
    /// `quorate_migrate_down`
    MigrateDown,
    /// `quorate_payload_from_json`
    PayloadFromJson,
    /// `quorate_payload_to_json`
    PayloadToJson,
}

/// Why a call of the module did not return an outcome. The discriminant is replicated and hashed: a
/// number, once given, keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Trap {
    /// A wasm trap: unreachable, division by zero, access outside memory, bad indirect call.
    Wasm = 1,
    /// The guest called `abort`: it panicked.
    Panicked = 2,
    /// The operation's fuel is used up.
    OutOfFuel = 3,
    /// The native wasm stack is used up.
    StackOverflow = 4,
    /// The outcome is empty, lies outside memory or begins with an unknown byte.
    BadOutcome = 5,
    /// A pointer and length handed to the host leave memory.
    BadPointer = 6,
    /// An effect that cannot be decoded, an unknown flag, an unknown level.
    BadArgument = 7,
    /// A key, value or timer over its size, or too many bytes written.
    WriteLimit = 8,
    /// Too many effects, or too many bytes of them.
    EffectLimit = 9,
    /// The response is too large.
    ResponseLimit = 10,
    /// A write or an effect where only reads are allowed, or a store call without a store.
    NotAllowed = 11,
    /// `quorate_alloc` returned 0 or a range outside memory.
    AllocFailed = 12,
    /// The export does not exist.
    NoSuchExport = 13,
    /// The wall-clock deadline of a query. Never the result of an operation of the log.
    Deadline = 14,
    /// The module was not called: an operator had the operation skipped, since this node's code
    /// panics at it.
    Skipped = 15,
}

impl Trap {
    /// Every trap, in the order of its number.
    pub const ALL: [Self; 15] = [
        Self::Wasm,
        Self::Panicked,
        Self::OutOfFuel,
        Self::StackOverflow,
        Self::BadOutcome,
        Self::BadPointer,
        Self::BadArgument,
        Self::WriteLimit,
        Self::EffectLimit,
        Self::ResponseLimit,
        Self::NotAllowed,
        Self::AllocFailed,
        Self::NoSuchExport,
        Self::Deadline,
        Self::Skipped,
    ];

    /// The trap of this number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|trap| *trap as u8 == code)
    }

    /// A stable slug, for operators.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Wasm => "wasm-trap",
            Self::Panicked => "panicked",
            Self::OutOfFuel => "out-of-fuel",
            Self::StackOverflow => "stack-overflow",
            Self::BadOutcome => "bad-outcome",
            Self::BadPointer => "bad-pointer",
            Self::BadArgument => "bad-argument",
            Self::WriteLimit => "write-limit",
            Self::EffectLimit => "effect-limit",
            Self::ResponseLimit => "response-limit",
            Self::NotAllowed => "not-allowed",
            Self::AllocFailed => "alloc-failed",
            Self::NoSuchExport => "no-such-export",
            Self::Deadline => "deadline",
            Self::Skipped => "skipped",
        }
    }
}

/// What the module returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Success, with the response or answer.
    Success(Vec<u8>),
    /// An application error: its code and payload.
    ApplicationError {
        /// The module's own number.
        code: u32,
        /// The module's own payload.
        payload: Vec<u8>,
    },
    /// A migration has done one step and wants another, which is handed this cursor.
    More(Vec<u8>),
}

/// One call's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it returned, or why it did not.
    pub outcome: Result<Outcome, Trap>,
    /// Fuel used by guest and host calls. Equal on nodes of one engine level; never shown to a client.
    pub fuel: u64,
    /// The instance must not serve another operation: it trapped, or its memory grew by 16 MiB.
    pub spent: bool,
}

/// Loaded code, of which instances are made.
pub trait Modules: fmt::Debug + Send + Sync {
    /// Checks `code` against the admission rules and the limits, and compiles it, so that
    /// [`Modules::instantiate`] finds it. Loading what is loaded is cheap.
    ///
    /// The inner result is the verdict, a function of code and limits alone: equal on every node.
    ///
    /// # Errors
    /// A [`Fault`] if this node failed, which says nothing of the module.
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault>;

    /// Loads what will be needed later, on a thread that may be slow: nobody who calls
    /// [`Modules::load`] waits for it.
    ///
    /// # Errors
    /// As [`Modules::load`].
    fn load_ahead(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.load(hash, code, limits)
    }

    /// Whether `hash` is loaded.
    fn is_loaded(&self, hash: ModuleHash) -> bool;

    /// The newest engine level (configuration, cost table, limits) that this can run at. At equal
    /// levels results are equal, down to fuel.
    fn level_max(&self) -> u32;

    /// A fresh instance of loaded code.
    ///
    /// # Errors
    /// A [`Fault`] if the code is not loaded, or the instance cannot be made.
    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault>;
}

/// A module's memory and globals, made for one log entry.
pub trait Instance: fmt::Debug + Send {
    /// Calls `export` with `input` (docs/module-abi.md), with at most `fuel`.
    ///
    /// `context` is what the call may touch; on return it holds what the call wrote and emitted,
    /// whatever the outcome: dropping or merging it is the caller's.
    ///
    /// # Errors
    /// A [`Fault`] of the host; the instance must not be used again.
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault>;
}

/// What a module says of itself in its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// 1 to 64 of `a-z 0-9 -`.
    pub name: String,
    /// A semantic version.
    pub version: String,
    /// The version of the state's layout that it reads and writes; at least 1.
    pub state_version: u32,
    /// State versions that `quorate_migrate` accepts.
    pub migrates_from: Vec<u32>,
    /// State versions that `quorate_migrate_down` can go back to.
    pub migrates_down_to: Vec<u32>,
    /// `json`, `postcard` or `raw`.
    pub codec: String,
}

/// Why a module was not admitted. The slug is replicated, the detail is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// A stable slug, such as `module-import`.
    pub code: &'static str,
    /// What is wrong and where.
    pub detail: String,
}

/// Replicated limits on modules and on one operation of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Largest module, in bytes.
    pub module_bytes_max: u64,
    /// Fuel of one operation.
    pub fuel_per_command: u64,
    /// Guest memory, in bytes.
    pub memory_bytes_max: u64,
    /// Bytes of keys and values written by one operation.
    pub write_bytes_max: u64,
    /// Largest response, in bytes.
    pub response_bytes_max: u64,
    /// Effects of one operation.
    pub effects_max: u64,
    /// Bytes of effects of one operation.
    pub effect_bytes_max: u64,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self {
            module_bytes_max: 8 << 20,
            fuel_per_command: 1_000_000_000,
            memory_bytes_max: 64 << 20,
            write_bytes_max: 16 << 20,
            response_bytes_max: 1 << 20,
            effects_max: 10_000,
            effect_bytes_max: 16 << 20,
        }
    }
}
