//! What a peer can do wrong.

/// Why a peer's bytes were refused. Every variant ends the connection.
///
/// Text that a peer sent is kept as escaped ASCII of bounded length, fit for a log line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first ten bytes are not those of a ZMTP greeting.
    #[error("the peer does not speak ZMTP")]
    NotZmtp,
    /// A ZMTP peer of another major version.
    #[error("the peer speaks ZMTP {major}, only 3 is served")]
    Version {
        /// The major version in the peer's greeting.
        major: u8,
    },
    /// A security mechanism that is not configured.
    #[error("the peer asks for mechanism {name}, which is not configured")]
    Mechanism {
        /// The name in the peer's greeting.
        name: String,
    },
    /// Bits of a frame's flags that the specification reserves.
    #[error("a frame has the reserved flags {flags:#04x}")]
    ReservedFlags {
        /// The whole flags byte.
        flags: u8,
    },
    /// A command frame that says more frames follow.
    #[error("a command frame has the MORE flag")]
    CommandWithMore,
    /// A frame longer than its kind may be here.
    #[error("a frame announces {bytes} bytes, the limit is {bytes_max}")]
    FrameTooLarge {
        /// Body length as announced.
        bytes: u64,
        /// The limit that applied.
        bytes_max: u64,
    },
    /// A message frame before the handshake was complete.
    #[error("a message came before the handshake was complete")]
    EarlyMessage,
    /// A command frame whose name is missing, cut off or not made of letters.
    #[error("a command has no valid name")]
    CommandName,
    /// A command that has no place at this point, or in this protocol.
    #[error("command {name} is not expected here")]
    UnexpectedCommand {
        /// Name of the command.
        name: String,
    },
    /// A PING shorter than its TTL, or a PING or PONG with too long a context.
    #[error("a {name} has a body of {bytes} bytes")]
    HeartbeatLength {
        /// PING or PONG.
        name: &'static str,
        /// Body length.
        bytes: usize,
    },
    /// The peer sent an ERROR command.
    #[error("the peer reports an error: {reason}")]
    PeerError {
        /// What it said.
        reason: String,
    },
    /// A property name that is empty or has bytes that are not allowed in one.
    #[error("READY has a property without a valid name")]
    PropertyName,
    /// READY ends inside a property.
    #[error("READY is cut off inside a property")]
    MetadataTruncated,
    /// A property that occurs twice.
    #[error("READY has property {name} twice")]
    PropertyTwice {
        /// Name of the property.
        name: String,
    },
    /// An Identity longer than the specification allows.
    #[error("Identity has {bytes} bytes, the limit is 255")]
    IdentityTooLong {
        /// Its length.
        bytes: usize,
    },
    /// READY without the one property that must be there.
    #[error("READY has no Socket-Type")]
    SocketTypeMissing,
    /// A socket type that is not served here.
    #[error("socket type {name} is not served, only CLIENT and DEALER")]
    SocketType {
        /// What the peer announced.
        name: String,
    },
    /// A CLIENT's message is exactly one frame.
    #[error("a CLIENT sent a message of several frames")]
    ClientMultipart,
    /// The first of several frames of a DEALER's message is not empty.
    #[error("a DEALER's message of several frames does not begin with an empty one")]
    Envelope,
    /// An empty frame and one is the most a DEALER's message may have.
    #[error("a DEALER's message has more than two frames")]
    TooManyParts,
}

/// Bytes of a peer's text that are worth a log line.
const TEXT_BYTES_MAX: usize = 64;

/// Renders a peer's bytes for an error or a log: ASCII, escaped, cut at a fixed length.
pub(super) fn text(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
