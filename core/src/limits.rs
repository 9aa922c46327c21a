//! Replicated settings: in force at one index on every node.

use crate::codec::{DecodeError, Reader, Writer};
use crate::module::ModuleLimits;

mod named;

pub use named::{Invalid, NAMED, Named, Unit};

/// The version of core's behaviour and of the operations' encoding that this code speaks.
pub const CORE_LEVEL: u32 = 1;

/// Replicated limits. Durations in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// On modules and their operations.
    pub module: ModuleLimits,
    /// A session's timeout when its client asks for none.
    pub session_timeout_ms: u32,
    /// Shortest timeout that a client may ask for; a shorter one is raised to it.
    pub session_timeout_min_ms: u32,
    /// Longest timeout that a client may ask for; a longer one is cut to it.
    pub session_timeout_max_ms: u32,
    /// Sessions at one time; beyond, create is refused.
    pub sessions_max: u64,
    /// Cached responses of a session; beyond, its commands are refused as overloaded.
    pub cached_responses_max: u32,
    /// Bytes of cached responses at which a session's commands are refused as overloaded. The last
    /// one taken may exceed it by its own length.
    pub cached_bytes_max: u64,
    /// Unacknowledged requests to a session; beyond, it is closed as slow.
    pub outbox_requests_max: u32,
    /// Bytes of unacknowledged requests to a session; beyond, it is closed as slow.
    pub outbox_bytes_max: u64,
    /// Largest command.
    pub command_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            module: ModuleLimits::default(),
            session_timeout_ms: 90_000,
            session_timeout_min_ms: 1_000,
            session_timeout_max_ms: 24 * 60 * 60 * 1000,
            sessions_max: 100_000,
            cached_responses_max: 4096,
            cached_bytes_max: 4 << 20,
            outbox_requests_max: 10_000,
            outbox_bytes_max: 16 << 20,
            command_bytes_max: 1 << 20,
        }
    }
}

impl Limits {
    /// The timeout that a session gets whose client asks for `requested_ms` (0: none).
    pub fn session_timeout(&self, requested_ms: u32) -> u32 {
        match requested_ms {
            0 => self.session_timeout_ms,
            asked => asked.clamp(
                self.session_timeout_min_ms,
                self.session_timeout_max_ms.max(self.session_timeout_min_ms),
            ),
        }
    }

    /// Appends the limits' bytes.
    pub fn encode(&self, out: &mut Writer) {
        let module = &self.module;
        out.u64(module.module_bytes_max)
            .u64(module.fuel_per_command)
            .u64(module.memory_bytes_max)
            .u64(module.write_bytes_max)
            .u64(module.response_bytes_max)
            .u64(module.effects_max)
            .u64(module.effect_bytes_max)
            .u32(self.session_timeout_ms)
            .u32(self.session_timeout_min_ms)
            .u32(self.session_timeout_max_ms)
            .u64(self.sessions_max)
            .u32(self.cached_responses_max)
            .u64(self.cached_bytes_max)
            .u32(self.outbox_requests_max)
            .u64(self.outbox_bytes_max)
            .u64(self.command_bytes_max);
    }

    /// Takes limits off `input`.
    ///
    /// # Errors
    /// If it is too short.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            module: ModuleLimits {
                module_bytes_max: input.u64()?,
                fuel_per_command: input.u64()?,
                memory_bytes_max: input.u64()?,
                write_bytes_max: input.u64()?,
                response_bytes_max: input.u64()?,
                effects_max: input.u64()?,
                effect_bytes_max: input.u64()?,
            },
            session_timeout_ms: input.u32()?,
            session_timeout_min_ms: input.u32()?,
            session_timeout_max_ms: input.u32()?,
            sessions_max: input.u64()?,
            cached_responses_max: input.u32()?,
            cached_bytes_max: input.u64()?,
            outbox_requests_max: input.u32()?,
            outbox_bytes_max: input.u64()?,
            command_bytes_max: input.u64()?,
        })
    }
}
