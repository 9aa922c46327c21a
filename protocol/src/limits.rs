//! Limits that both ends of the session protocol know. Bytes are plain counts, not units of 1000.

/// Longest frame (one ZeroMQ message body) of any version; a longer one is not decoded.
pub const FRAME_BYTES_MAX: usize = 2 * MIB;

/// Longest payload of a command or query. A longer one is answered `too-large`.
pub const COMMAND_BYTES_MAX: usize = MIB;

/// Longest response, answer or application error payload.
pub const RESPONSE_BYTES_MAX: usize = MIB;

/// Longest payload of a request to a client.
pub const REQUEST_BYTES_MAX: usize = MIB;

/// Most capabilities of a session; more are rejected as invalid.
pub const CAPABILITIES_MAX: usize = 128;

/// Longest key and longest value of a capability.
pub const CAPABILITY_TEXT_BYTES_MAX: usize = KIB;

/// Keys and values of all capabilities of a session together.
pub const CAPABILITIES_BYTES_MAX: usize = 16 * KIB;

/// Commands of a session without an answer, at the client and in a node's queue.
pub const SESSION_PENDING_MAX: usize = 4096;

/// Bytes of commands of a session without an answer, at the client and in a node's queue.
pub const SESSION_PENDING_BYTES_MAX: usize = 4 * MIB;

/// Requests to a client that are in flight without an acknowledgement.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 10;

/// Members in a topology answer; a longer list is not decoded.
pub const MEMBERS_MAX: usize = 256;

/// Longest text of a rejection; a node cuts a longer one.
pub const MESSAGE_BYTES_MAX: usize = KIB;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const _: () = assert!(COMMAND_BYTES_MAX + KIB <= FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX + KIB <= FRAME_BYTES_MAX);
const _: () = assert!(CAPABILITIES_BYTES_MAX + 4 * CAPABILITIES_MAX < FRAME_BYTES_MAX);
