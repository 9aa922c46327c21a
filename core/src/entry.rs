//! A log entry: a batch of operations with the time and the seed that they share.
//!
//! The encoding is final: a log written today must be readable by every later release. A new kind of
//! operation, or a new field, is a new core level.
//!
//! ```text
//! entry      format u8 = 1 | time u64 (us since the Unix epoch) | seed [16] | count u32 | operations
//! operation  kind u8 | fields; integers big-endian, byte strings with a u32 length
//! ```

use std::collections::BTreeMap;

use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::Limits;
use crate::module::ModuleHash;

/// First byte of every entry.
pub const ENTRY_FORMAT: u8 = 1;
/// Most bytes of a module in one chunk.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The leader's replicated time, microseconds since the Unix epoch.
    pub time_us: u64,
    /// Source of the operations' seeds.
    pub seed: [u8; 16],
    /// Applied in this order.
    pub operations: Vec<Operation>,
}

/// What an operation that begins anew may drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drops {
    /// Nothing: if there is data or a timer at its index, it is a no-op.
    Nothing,
    /// The module's data and timers.
    Data,
}

impl Drops {
    fn encode(self, out: &mut Writer) {
        out.u8(match self {
            Self::Nothing => 1,
            Self::Data => 2,
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            1 => Ok(Self::Nothing),
            2 => Ok(Self::Data),
            other => Err(DecodeError::Unknown {
                what: "drops",
                value: other.into(),
            }),
        }
    }
}

/// How the ids of a session's commands arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// Version 1: from 0 or 1, in any order.
    Any,
    /// Version 2: 1, 2, 3, ... without gaps; an id out of order is refused.
    Consecutive,
}

impl Sequence {
    pub(crate) fn encode(self, out: &mut Writer) {
        out.u8(match self {
            Self::Any => 1,
            Self::Consecutive => 2,
        });
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            1 => Ok(Self::Any),
            2 => Ok(Self::Consecutive),
            other => Err(DecodeError::Unknown {
                what: "sequence",
                value: other.into(),
            }),
        }
    }
}

/// What an entry asks the state machine to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Creates a session, or finds the one that this key created.
    CreateSession {
        /// Chosen by the leader.
        session: SessionId,
        /// Chosen by the client, kept over retries; zeros: none (version 1).
        creation_key: CreationKey,
        /// BLAKE3 of the session's secret; zeros: none (version 1).
        secret_hash: [u8; 32],
        /// What the client asks for, in milliseconds; 0: the cluster's default.
        timeout_ms: u32,
        /// How its commands are numbered.
        sequence: Sequence,
        /// What the client says it can do.
        capabilities: BTreeMap<String, String>,
    },
    /// A client goes on with a session over a new connection.
    ContinueSession {
        /// The session.
        session: SessionId,
    },
    /// A client ends its session.
    CloseSession {
        /// The session.
        session: SessionId,
        /// The connection's generation.
        generation: Generation,
    },
    /// The leader ends a session that was silent for its timeout.
    ExpireSession {
        /// The session.
        session: SessionId,
        /// The generation that was silent; the session survives if it has moved on.
        generation: Generation,
    },
    /// A client's command.
    Command {
        /// The session.
        session: SessionId,
        /// The connection's generation.
        generation: Generation,
        /// Names the command within the session.
        request: RequestId,
        /// The smallest id that the client still waits for.
        lowest_pending: RequestId,
        /// For the module.
        payload: Vec<u8>,
    },
    /// A client has every request up to this id.
    Acknowledge {
        /// The session.
        session: SessionId,
        /// The connection's generation.
        generation: Generation,
        /// Cumulative.
        up_to: RequestId,
    },
    /// A client gives up an id that it sent: answered as executed, or made void for ever.
    Void {
        /// The session.
        session: SessionId,
        /// The connection's generation.
        generation: Generation,
        /// The id given up.
        request: RequestId,
        /// The smallest id that the client still waits for.
        lowest_pending: RequestId,
    },
    /// A timer is due.
    FireTimer {
        /// Names the timer.
        key: Vec<u8>,
        /// When it was set to fire; one set anew since is left alone.
        due_us: u64,
    },
    /// A piece of a module's bytes.
    ModuleChunk {
        /// SHA-256 of the whole module.
        hash: ModuleHash,
        /// From 0; all but the last are [`CHUNK_BYTES_MAX`] long.
        number: u32,
        /// How many chunks there are.
        total: u32,
        /// This chunk.
        bytes: Vec<u8>,
    },
    /// Puts a module in force.
    Activate {
        /// The module in force when this was decided; with another one this is a no-op.
        expected: Option<ModuleHash>,
        /// The module to put in force; its chunks are complete.
        hash: ModuleHash,
        /// For `init` or `migrate`.
        argument: Vec<u8>,
    },
    /// Goes on with a migration in steps.
    MigrationStep {
        /// The step that is next; of any other one this is a no-op.
        number: u32,
    },
    /// Puts a module in force over no data, of whatever name.
    Reinstall {
        /// The module in force when this was decided; with another one this is a no-op.
        expected: ModuleHash,
        /// The module to put in force; its chunks are complete.
        hash: ModuleHash,
        /// Whether there may be data of the one in force, which is dropped then.
        drops: Drops,
        /// For `init`.
        argument: Vec<u8>,
    },
    /// Replaces the replicated limits.
    SetLimits(Limits),
    /// Raises the levels.
    RaiseLevels {
        /// Of core's behaviour.
        core: u32,
        /// Of the engine's configuration.
        engine: u32,
    },
    /// Names the index as one at which nodes compare what they have stored, in a range of keys.
    Checkpoint {
        /// First key.
        start: Vec<u8>,
        /// The key after the last one; empty: to the end of all keys.
        end: Vec<u8>,
    },
    /// Genesis is complete: sessions are served from here on.
    GenesisMark {
        /// Hash of the genesis that every node was configured with.
        genesis: [u8; 32],
    },
    /// Drops the chunks of a module that is not in force, and of an upload that went wrong.
    RemoveModule {
        /// The module.
        hash: ModuleHash,
    },
}

impl Entry {
    /// The entry's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(ENTRY_FORMAT).u64(self.time_us).raw(&self.seed);
        out.u32(u32::try_from(self.operations.len()).expect("a batch is limited to 1024"));
        for operation in &self.operations {
            operation.encode(&mut out);
        }
        out.finish()
    }

    /// The entry of these bytes.
    ///
    /// # Errors
    /// If they are not an entry of this core level.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        match input.u8()? {
            ENTRY_FORMAT => {}
            other => {
                return Err(DecodeError::Unknown {
                    what: "entry format",
                    value: other.into(),
                });
            }
        }
        let time_us = input.u64()?;
        let seed = input.array()?;
        let count = input.u32()?;
        let operations = (0..count)
            .map(|_| Operation::decode(&mut input))
            .collect::<Result<_, _>>()?;
        input.finish()?;
        Ok(Self {
            time_us,
            seed,
            operations,
        })
    }
}

impl Operation {
    /// Whether it must be the only operation of its entry; in company it is refused.
    pub fn is_alone(&self) -> bool {
        matches!(
            self,
            Self::Activate { .. }
                | Self::MigrationStep { .. }
                | Self::Reinstall { .. }
                | Self::SetLimits(_)
                | Self::RaiseLevels { .. }
                | Self::Checkpoint { .. }
                | Self::GenesisMark { .. }
                | Self::RemoveModule { .. }
        )
    }

    /// About how many bytes it encodes to, never less.
    pub fn bytes_bound(&self) -> usize {
        const FIXED: usize = 256;
        FIXED
            + match self {
                Self::CreateSession { capabilities, .. } => capabilities
                    .iter()
                    .map(|(key, value)| key.len() + value.len() + 8)
                    .sum(),
                Self::Command { payload, .. } => payload.len(),
                Self::FireTimer { key, .. } => key.len(),
                Self::ModuleChunk { bytes, .. } => bytes.len(),
                Self::Activate { argument, .. } | Self::Reinstall { argument, .. } => {
                    argument.len()
                }
                Self::Checkpoint { start, end } => start.len() + end.len(),
                _ => 0,
            }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::CreateSession {
                session,
                creation_key,
                secret_hash,
                timeout_ms,
                sequence,
                capabilities,
            } => {
                out.u8(1)
                    .raw(&session.0)
                    .raw(&creation_key.0)
                    .raw(secret_hash)
                    .u32(*timeout_ms);
                sequence.encode(out);
                out.pairs(capabilities.iter());
            }
            Self::ContinueSession { session } => {
                out.u8(2).raw(&session.0);
            }
            Self::CloseSession {
                session,
                generation,
            } => {
                out.u8(3).raw(&session.0).u64(generation.0);
            }
            Self::ExpireSession {
                session,
                generation,
            } => {
                out.u8(4).raw(&session.0).u64(generation.0);
            }
            Self::Command {
                session,
                generation,
                request,
                lowest_pending,
                payload,
            } => {
                out.u8(5).raw(&session.0).u64(generation.0);
                out.u64(request.0).u64(lowest_pending.0).bytes(payload);
            }
            Self::Acknowledge {
                session,
                generation,
                up_to,
            } => {
                out.u8(6).raw(&session.0).u64(generation.0).u64(up_to.0);
            }
            Self::Void {
                session,
                generation,
                request,
                lowest_pending,
            } => {
                out.u8(7).raw(&session.0).u64(generation.0);
                out.u64(request.0).u64(lowest_pending.0);
            }
            Self::FireTimer { key, due_us } => {
                out.u8(8).bytes(key).u64(*due_us);
            }
            Self::ModuleChunk {
                hash,
                number,
                total,
                bytes,
            } => {
                out.u8(9).raw(&hash.0).u32(*number).u32(*total).bytes(bytes);
            }
            Self::Activate {
                expected,
                hash,
                argument,
            } => {
                out.u8(10).u8(u8::from(expected.is_some()));
                out.raw(&expected.map_or([0; 32], |expected| expected.0))
                    .raw(&hash.0);
                out.bytes(argument);
            }
            Self::SetLimits(limits) => {
                out.u8(11);
                limits.encode(out);
            }
            Self::RaiseLevels { core, engine } => {
                out.u8(12).u32(*core).u32(*engine);
            }
            Self::Checkpoint { start, end } => {
                out.u8(13).bytes(start).bytes(end);
            }
            Self::GenesisMark { genesis } => {
                out.u8(14).raw(genesis);
            }
            Self::RemoveModule { hash } => {
                out.u8(15).raw(&hash.0);
            }
            Self::MigrationStep { number } => {
                out.u8(20).u32(*number);
            }
            Self::Reinstall {
                expected,
                hash,
                drops,
                argument,
            } => {
                out.u8(21).raw(&expected.0).raw(&hash.0);
                drops.encode(out);
                out.bytes(argument);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            1 => Self::CreateSession {
                session: SessionId(input.array()?),
                creation_key: CreationKey(input.array()?),
                secret_hash: input.array()?,
                timeout_ms: input.u32()?,
                sequence: Sequence::decode(input)?,
                capabilities: input.pairs()?,
            },
            2 => Self::ContinueSession {
                session: SessionId(input.array()?),
            },
            3 => Self::CloseSession {
                session: SessionId(input.array()?),
                generation: Generation(input.u64()?),
            },
            4 => Self::ExpireSession {
                session: SessionId(input.array()?),
                generation: Generation(input.u64()?),
            },
            5 => Self::Command {
                session: SessionId(input.array()?),
                generation: Generation(input.u64()?),
                request: RequestId(input.u64()?),
                lowest_pending: RequestId(input.u64()?),
                payload: input.bytes()?.to_vec(),
            },
            6 => Self::Acknowledge {
                session: SessionId(input.array()?),
                generation: Generation(input.u64()?),
                up_to: RequestId(input.u64()?),
            },
            7 => Self::Void {
                session: SessionId(input.array()?),
                generation: Generation(input.u64()?),
                request: RequestId(input.u64()?),
                lowest_pending: RequestId(input.u64()?),
            },
            8 => Self::FireTimer {
                key: input.bytes()?.to_vec(),
                due_us: input.u64()?,
            },
            9 => Self::ModuleChunk {
                hash: ModuleHash(input.array()?),
                number: input.u32()?,
                total: input.u32()?,
                bytes: input.bytes()?.to_vec(),
            },
            10 => {
                let has_expected = input.u8()?;
                let expected = ModuleHash(input.array()?);
                Self::Activate {
                    expected: match has_expected {
                        0 => None,
                        1 => Some(expected),
                        other => {
                            return Err(DecodeError::Unknown {
                                what: "mode of activation",
                                value: other.into(),
                            });
                        }
                    },
                    hash: ModuleHash(input.array()?),
                    argument: input.bytes()?.to_vec(),
                }
            }
            11 => Self::SetLimits(Limits::decode(input)?),
            12 => Self::RaiseLevels {
                core: input.u32()?,
                engine: input.u32()?,
            },
            13 => Self::Checkpoint {
                start: input.bytes()?.to_vec(),
                end: input.bytes()?.to_vec(),
            },
            14 => Self::GenesisMark {
                genesis: input.array()?,
            },
            15 => Self::RemoveModule {
                hash: ModuleHash(input.array()?),
            },
            20 => Self::MigrationStep {
                number: input.u32()?,
            },
            21 => Self::Reinstall {
                expected: ModuleHash(input.array()?),
                hash: ModuleHash(input.array()?),
                drops: Drops::decode(input)?,
                argument: input.bytes()?.to_vec(),
            },
            other => {
                return Err(DecodeError::Unknown {
                    what: "operation",
                    value: other.into(),
                });
            }
        })
    }
}
