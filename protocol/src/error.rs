//! Why bytes are not a message, or a message not bytes.

/// Why a frame could not be decoded. Offsets count from the start of the frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame is longer than [`crate::limits::FRAME_BYTES_MAX`].
    #[error("frame is {bytes} bytes, at most {bytes_max} are read")]
    FrameTooLong {
        /// Length of the frame.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The frame ends inside a field of fixed length.
    #[error("frame ends at offset {offset}: {needed} bytes expected, {left} left")]
    Truncated {
        /// Where the field starts.
        offset: usize,
        /// Its length.
        needed: usize,
        /// What is left of the frame.
        left: usize,
    },
    /// A length points beyond the end of the frame.
    #[error("length {length} at offset {offset} is more than the {left} bytes left")]
    LengthBeyondEnd {
        /// Where the counted bytes would start.
        offset: usize,
        /// The length read.
        length: usize,
        /// What is left of the frame.
        left: usize,
    },
    /// A length of version 1 is below zero.
    #[error("negative length {length} before offset {offset}")]
    NegativeLength {
        /// Where the counted bytes would start.
        offset: usize,
        /// The length read.
        length: i32,
    },
    /// The frame does not start with `zraft`.
    #[error("frame does not start with the protocol's signature")]
    BadSignature,
    /// A version that is neither 1 nor 2, or not the one that was asked to be decoded.
    #[error("protocol version {version} is not supported here")]
    UnsupportedVersion {
        /// The version read.
        version: u8,
    },
    /// No message of this direction and version has this tag.
    #[error("unknown message tag {tag} in version {version}")]
    UnknownTag {
        /// The protocol version.
        version: u8,
        /// The tag read.
        tag: u8,
    },
    /// An enumeration has no such value.
    #[error("unknown {field} {value}")]
    UnknownValue {
        /// What was read.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// A text is not UTF-8.
    #[error("text at offset {offset} is not UTF-8")]
    BadUtf8 {
        /// Where the text starts.
        offset: usize,
    },
    /// A request id of version 1 is below zero.
    #[error("negative request id {id}")]
    NegativeId {
        /// The id read.
        id: i64,
    },
    /// A nonce is 0.
    #[error("nonce is zero")]
    ZeroNonce,
    /// Version 1 asks for at least one capability.
    #[error("capabilities are empty")]
    EmptyCapabilities,
    /// Version 2 refuses a capability that is given twice (in version 1 the last one counts).
    #[error("a capability is given twice")]
    DuplicateCapability,
    /// A correlation id of version 1 is empty.
    #[error("correlation id is empty")]
    EmptyCorrelation,
    /// A list has more entries than are read.
    #[error("{count} {field}, at most {count_max} are read")]
    TooMany {
        /// What the list holds.
        field: &'static str,
        /// Entries announced.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// Version 2 allows nothing after a message (version 1 ignores it).
    #[error("{bytes} bytes after the end of the message")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// Why a message has no encoding. What came out of decoding can always be encoded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A text, a payload or a list is longer than its length field or its limit.
    #[error("{field} has length {length}, at most {length_max} can be sent")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its length in bytes or entries.
        length: usize,
        /// The limit.
        length_max: usize,
    },
    /// A request id of version 1 is beyond 2^63 - 1.
    #[error("request id {id} is beyond the range of version 1")]
    IdOutOfRange {
        /// The id.
        id: u64,
    },
    /// Version 1 asks for at least one capability.
    #[error("version 1 needs at least one capability")]
    EmptyCapabilities,
    /// A correlation id of version 1 is empty.
    #[error("correlation id is empty")]
    EmptyCorrelation,
}
