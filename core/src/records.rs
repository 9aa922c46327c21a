//! Values of the replicated state and their bytes. The encodings are final, like the keys.

use std::collections::BTreeMap;

use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::Sequence;
use crate::limits::Limits;
use crate::module::{Manifest, ModuleHash, Rejected};
use crate::result::Response;

pub use migration::{Before, Migration, MigrationDirection, MigrationPhase, WaitingEvent};

mod migration;

/// A value with an encoding.
pub trait Record: Sized {
    /// Appends the value's bytes.
    fn encode(&self, out: &mut Writer);

    /// Takes the value off `input`.
    ///
    /// # Errors
    /// If the bytes are not such a value.
    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value's bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.encode(&mut out);
        out.finish()
    }

    /// The value of exactly these bytes.
    ///
    /// # Errors
    /// If the bytes are not such a value.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let value = Self::decode(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// Written by every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Replicated time of the newest entry, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Rolling hash over every entry so far and what it did.
    pub hash: [u8; 32],
    /// Sessions that exist.
    pub sessions: u64,
    /// Module hooks that failed since genesis.
    pub hook_failures: u64,
}

impl Record for Meta {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.time_us)
            .raw(&self.hash)
            .u64(self.sessions)
            .u64(self.hook_failures);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            time_us: input.u64()?,
            hash: input.array()?,
            sessions: input.u64()?,
            hook_failures: input.u64()?,
        })
    }
}

impl Record for Limits {
    fn encode(&self, out: &mut Writer) {
        Self::encode(self, out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::decode(input)
    }
}

/// What versions of behaviour are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Core's behaviour and the operations' encoding.
    pub core: u32,
    /// The engine's configuration, cost table and limits.
    pub engine: u32,
}

impl Default for Levels {
    /// Of a cluster that never raised them; the same for every binary, whatever it speaks.
    fn default() -> Self {
        Self { core: 1, engine: 1 }
    }
}

impl Record for Levels {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.core).u32(self.engine);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            core: input.u32()?,
            engine: input.u32()?,
        })
    }
}

/// What a session was created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Replicated time of its creation.
    pub created_us: u64,
    /// Its timeout in milliseconds, within the cluster's bounds.
    pub timeout_ms: u32,
    /// Zeros: none.
    pub creation_key: CreationKey,
    /// Zeros: none.
    pub secret_hash: [u8; 32],
    /// What its client says it can do.
    pub capabilities: BTreeMap<String, String>,
}

impl Record for Profile {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.created_us).u32(self.timeout_ms);
        out.raw(&self.creation_key.0)
            .raw(&self.secret_hash)
            .pairs(self.capabilities.iter());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            created_us: input.u64()?,
            timeout_ms: input.u32()?,
            creation_key: CreationKey(input.array()?),
            secret_hash: input.array()?,
            capabilities: input.pairs()?,
        })
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How its commands are numbered.
    pub sequence: Sequence,
    /// Grows with create and continue.
    pub generation: Generation,
    /// The greatest command id executed or made void.
    pub last_executed: RequestId,
    /// The greatest `lowest_pending` seen: responses below it are gone.
    pub lowest_pending: RequestId,
    /// Responses in the cache.
    pub cached: u32,
    /// Bytes of those responses.
    pub cached_bytes: u64,
    /// Id of the newest request to this session.
    pub last_request: RequestId,
    /// Requests in the outbox.
    pub outbox: u32,
    /// Bytes of their payloads.
    pub outbox_bytes: u64,
}

impl Progress {
    /// A session that has done nothing yet.
    pub fn new(sequence: Sequence) -> Self {
        Self {
            sequence,
            generation: Generation(1),
            last_executed: RequestId(0),
            lowest_pending: RequestId(0),
            cached: 0,
            cached_bytes: 0,
            last_request: RequestId(0),
            outbox: 0,
            outbox_bytes: 0,
        }
    }

    /// The oldest request not yet acknowledged; one above the newest if there is none.
    pub fn first_unacknowledged(&self) -> RequestId {
        RequestId(self.last_request.0 + 1 - u64::from(self.outbox))
    }
}

impl Record for Progress {
    fn encode(&self, out: &mut Writer) {
        self.sequence.encode(out);
        out.u64(self.generation.0)
            .u64(self.last_executed.0)
            .u64(self.lowest_pending.0)
            .u32(self.cached)
            .u64(self.cached_bytes)
            .u64(self.last_request.0)
            .u32(self.outbox)
            .u64(self.outbox_bytes);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sequence: Sequence::decode(input)?,
            generation: Generation(input.u64()?),
            last_executed: RequestId(input.u64()?),
            lowest_pending: RequestId(input.u64()?),
            cached: input.u32()?,
            cached_bytes: input.u64()?,
            last_request: RequestId(input.u64()?),
            outbox: input.u32()?,
            outbox_bytes: input.u64()?,
        })
    }
}

/// A response kept for a command that is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedResponse {
    /// First half of the BLAKE3 of the command's payload; zeros for a void id.
    pub payload_hash: [u8; 16],
    /// Index at which the command was executed.
    pub index: u64,
    /// What was answered.
    pub response: Response,
}

impl Record for CachedResponse {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.payload_hash).u64(self.index);
        self.response.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            payload_hash: input.array()?,
            index: input.u64()?,
            response: Response::decode(input)?,
        })
    }
}

/// A request in a session's outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Replicated time at which it was emitted.
    pub created_us: u64,
    /// Where its payload is kept: index, position and number of the emit.
    pub payload: (u64, u32, u32),
    /// Length of the payload.
    pub bytes: u32,
}

impl Record for OutboxEntry {
    fn encode(&self, out: &mut Writer) {
        let (index, position, number) = self.payload;
        out.u64(self.created_us)
            .u64(index)
            .u32(position)
            .u32(number)
            .u32(self.bytes);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            created_us: input.u64()?,
            payload: (input.u64()?, input.u32()?, input.u32()?),
            bytes: input.u32()?,
        })
    }
}

/// How many outboxes hold a payload, if more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct References(pub u32);

impl Record for References {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(input.u32()?))
    }
}

impl Record for SessionId {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(input.array()?))
    }
}

/// A timer, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Microseconds of replicated time.
    pub due_us: u64,
    /// Handed to the module.
    pub payload: Vec<u8>,
}

impl Record for Timer {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.due_us).raw(&self.payload);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            due_us: input.u64()?,
            payload: input.rest().to_vec(),
        })
    }
}

impl Record for Manifest {
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.name.as_bytes())
            .bytes(self.version.as_bytes())
            .u32(self.state_version);
        for versions in [&self.migrates_from, &self.migrates_down_to] {
            out.u32(u32::try_from(versions.len()).expect("a manifest is at most 64 KiB"));
            versions.iter().for_each(|version| {
                out.u32(*version);
            });
        }
        out.bytes(self.codec.as_bytes());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        fn versions(input: &mut Reader<'_>) -> Result<Vec<u32>, DecodeError> {
            let count = input.u32()?;
            (0..count).map(|_| input.u32()).collect()
        }
        Ok(Self {
            name: input.text()?.to_owned(),
            version: input.text()?.to_owned(),
            state_version: input.u32()?,
            migrates_from: versions(input)?,
            migrates_down_to: versions(input)?,
            codec: input.text()?.to_owned(),
        })
    }
}

/// The module in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveModule {
    /// Its code.
    pub hash: ModuleHash,
    /// Index of its activation.
    pub index: u64,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Record for ActiveModule {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.hash.0).u64(self.index);
        self.manifest.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            hash: ModuleHash(input.array()?),
            index: input.u64()?,
            manifest: Manifest::decode(input)?,
        })
    }
}

/// How a module came to be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// As the first one, by its `init`.
    Install = 1,
    /// Over the data of another version of it.
    Change = 2,
    /// Over no data: what was there was dropped.
    Reinstall = 3,
}

/// What was put in force by an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// The module.
    pub hash: ModuleHash,
    /// Replicated time, microseconds since the Unix epoch.
    pub time_us: u64,
    /// How.
    pub manner: Manner,
    /// What was in force before.
    pub replaced: Option<ModuleHash>,
    /// What the module says of itself.
    pub manifest: Manifest,
}

impl Record for Activation {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.hash.0)
            .u64(self.time_us)
            .u8(self.manner as u8)
            .u8(u8::from(self.replaced.is_some()))
            .raw(&self.replaced.map_or([0; 32], |replaced| replaced.0));
        self.manifest.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unknown = |what, value: u8| DecodeError::Unknown {
            what,
            value: value.into(),
        };
        Ok(Self {
            hash: ModuleHash(input.array()?),
            time_us: input.u64()?,
            manner: match input.u8()? {
                1 => Manner::Install,
                2 => Manner::Change,
                3 => Manner::Reinstall,
                other => return Err(unknown("manner of activation", other)),
            },
            replaced: match (input.u8()?, ModuleHash(input.array()?)) {
                (0, ModuleHash(zeros)) if zeros == [0; 32] => None,
                (1, replaced) => Some(replaced),
                (other, _) => return Err(unknown("mark of a replaced module", other)),
            },
            manifest: Manifest::decode(input)?,
        })
    }
}

/// A module whose chunks arrive, or have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRecord {
    /// How many chunks it has.
    pub total: u32,
    /// How many are here.
    pub present: u32,
    /// Bytes of those.
    pub bytes: u64,
}

impl Record for ModuleRecord {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.total).u32(self.present).u64(self.bytes);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            total: input.u32()?,
            present: input.u32()?,
            bytes: input.u64()?,
        })
    }
}

/// Why a module was not put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotActivated {
    /// Another module is in force than the proposer thought.
    NotExpected,
    /// Chunks are missing, or their bytes do not have the hash.
    Incomplete,
    /// The admission rules refuse it.
    Rejected(Rejected),
    /// Another name than that of the module in force.
    OtherName,
    /// No migration leads from the state's version to the module's.
    NoMigration {
        /// The state's version.
        from: u32,
        /// The module's.
        to: u32,
    },
    /// `init` or `migrate` failed; the state is what it was.
    Failed(Response),
    /// There is data, and it was not to be dropped.
    NotEmpty,
    /// More of it is to be dropped than one entry may.
    DataTooLarge {
        /// Keys and timers that one entry drops.
        keys_max: u64,
    },
}

impl NotActivated {
    /// A stable slug.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::NotExpected => "module-not-expected",
            Self::Incomplete => "module-incomplete",
            Self::Rejected(rejected) => rejected.code,
            Self::OtherName => "module-name",
            Self::NoMigration { .. } => "module-state-version",
            Self::Failed(_) => "module-migration-failed",
            Self::NotEmpty => "module-not-empty",
            Self::DataTooLarge { .. } => "module-data-too-large",
        }
    }

    /// What happened, for operators, on one line. `hook` names what failed, if a hook did: the
    /// export, or what it is for.
    pub fn explain(&self, hook: &str) -> String {
        match self {
            Self::NotExpected => "another module is in force than was thought".to_owned(),
            Self::Incomplete => "not all of its bytes are there".to_owned(),
            Self::Rejected(Rejected { code, detail }) => format!("{detail} ({code})"),
            Self::OtherName => "it has another name than the module in force".to_owned(),
            Self::NoMigration { from, to } => {
                format!("no migration leads from state version {from} to {to}")
            }
            Self::NotEmpty => "the module in force has data by now, or a timer".to_owned(),
            Self::DataTooLarge { keys_max } => {
                format!("its data has more than {keys_max} keys, and is not dropped at once")
            }
            Self::Failed(Response::Trapped(trap)) => format!("{hook} trapped: {}", trap.slug()),
            Self::Failed(Response::ApplicationError { code, payload }) => {
                let text = String::from_utf8_lossy(payload);
                let text: String = text.escape_debug().take(EXPLAINED_CHARS_MAX).collect();
                format!("{hook} answered error {code}: {text}")
            }
            Self::Failed(Response::Success(_) | Response::Void) => format!("{hook} failed"),
        }
    }
}

/// Characters of a module's own error that [`NotActivated::explain`] shows.
const EXPLAINED_CHARS_MAX: usize = 200;
