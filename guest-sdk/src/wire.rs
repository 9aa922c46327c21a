//! The bytes of docs/module-abi.md: inputs in, outcomes and effects out.

use crate::error::Error;
use crate::migration::{MigrationStep, Progress};
use crate::session::{Capabilities, SessionEnd, SessionId, Timestamp};

/// What every call begins with.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) time: Timestamp,
    pub(crate) index: u64,
    pub(crate) position: u32,
    pub(crate) seed: [u8; 16],
    pub(crate) session: Option<SessionId>,
}

/// A call, after its header.
#[derive(Debug, Clone)]
pub(crate) enum Call<'a> {
    Command {
        payload: &'a [u8],
    },
    SessionCreated {
        capabilities: Capabilities,
    },
    SessionExpired {
        reason: SessionEnd,
        capabilities: Capabilities,
    },
    RequestAcknowledged {
        up_to: u64,
    },
    Timer {
        due: Timestamp,
        key: &'a [u8],
        payload: &'a [u8],
    },
    Init {
        argument: &'a [u8],
    },
    Query {
        payload: &'a [u8],
    },
    Migrate(MigrationStep<'a>),
}

/// Reads fields off the front of an input.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn capabilities(&mut self) -> Option<Capabilities> {
        let count = self.u32()?;
        (0..count)
            .map(|_| Some((self.text()?, self.text()?)))
            .collect()
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Decodes what the host hands over. `None` is a host that does not keep to the ABI.
pub(crate) fn decode_input(input: &[u8]) -> Option<(Header, Call<'_>)> {
    let mut reader = Reader(input);
    let time = Timestamp::from_micros(reader.u64()?);
    let index = reader.u64()?;
    let position = reader.u32()?;
    let seed = reader.array()?;
    let session = SessionId::from_bytes(reader.array()?);
    let session = (reader.u8()? == 1).then_some(session);
    let tag = reader.u8()?;
    let _flags = reader.u64()?;
    let header = Header {
        time,
        index,
        position,
        seed,
        session,
    };
    let call = match tag {
        1 => Call::Command {
            payload: reader.rest(),
        },
        2 => Call::SessionCreated {
            capabilities: reader.capabilities()?,
        },
        3 => Call::SessionExpired {
            reason: match reader.u8()? {
                1 => SessionEnd::Expired,
                2 => SessionEnd::ClosedByClient,
                3 => SessionEnd::ClosedByModule,
                4 => SessionEnd::TooSlow,
                _ => return None,
            },
            capabilities: reader.capabilities()?,
        },
        4 => Call::RequestAcknowledged {
            up_to: reader.u64()?,
        },
        5 => Call::Timer {
            due: Timestamp::from_micros(reader.u64()?),
            key: reader.bytes()?,
            payload: reader.rest(),
        },
        6 => Call::Init {
            argument: reader.rest(),
        },
        7 => Call::Query {
            payload: reader.rest(),
        },
        8 => Call::Migrate(MigrationStep {
            from: reader.u32()?,
            to: reader.u32()?,
            number: 0,
            cursor: &[],
            argument: reader.rest(),
        }),
        9 => Call::Migrate(MigrationStep {
            from: reader.u32()?,
            to: reader.u32()?,
            number: reader.u32()?,
            cursor: reader.bytes()?,
            argument: reader.rest(),
        }),
        _ => return None,
    };
    Some((header, call))
}

/// What a call that succeeded returns.
#[derive(Debug)]
pub(crate) enum Returned {
    /// The response, or nothing.
    Response(Vec<u8>),
    /// A migration wants another step, with this cursor.
    More(Vec<u8>),
}

impl From<Progress> for Returned {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Done => Self::Response(Vec::new()),
            Progress::More(cursor) => Self::More(cursor),
        }
    }
}

/// The outcome's bytes.
pub(crate) fn encode_outcome(outcome: Result<Returned, Error>) -> Vec<u8> {
    match outcome {
        Ok(Returned::Response(mut payload)) => {
            payload.insert(0, 0);
            payload
        }
        Ok(Returned::More(mut cursor)) => {
            cursor.insert(0, 2);
            cursor
        }
        Err(error) => {
            let mut bytes = vec![1];
            bytes.extend_from_slice(&error.code().to_le_bytes());
            bytes.extend_from_slice(error.message().as_bytes());
            bytes
        }
    }
}

pub(crate) fn request_effect(sessions: &[SessionId], payload: &[u8]) -> Vec<u8> {
    let mut effect = Vec::with_capacity(5 + 16 * sessions.len() + payload.len());
    effect.push(1);
    effect.extend_from_slice(&(sessions.len() as u32).to_le_bytes());
    for session in sessions {
        effect.extend_from_slice(&session.to_bytes());
    }
    effect.extend_from_slice(payload);
    effect
}

pub(crate) fn set_timer_effect(due: Timestamp, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut effect = vec![2];
    effect.extend_from_slice(&due.as_micros().to_le_bytes());
    effect.extend_from_slice(&(key.len() as u32).to_le_bytes());
    effect.extend_from_slice(key);
    effect.extend_from_slice(payload);
    effect
}

pub(crate) fn cancel_timer_effect(key: &[u8]) -> Vec<u8> {
    [&[3], key].concat()
}

pub(crate) fn close_session_effect(session: SessionId) -> Vec<u8> {
    [&[4][..], &session.to_bytes()].concat()
}
