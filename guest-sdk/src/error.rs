//! Application errors: what a module answers instead of a response.

use std::fmt;

use crate::codec::Malformed;

/// The result of a module's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An application error. The operation that returns it leaves no trace: its writes and effects are dropped. The
/// client receives code and message, and gets the same again when it asks again under the same request id.
///
/// The code is the module's own and is what clients decide on: once given, it keeps its meaning. Codes from
/// [`Error::RESERVED`] up are this crate's. On the wire the error's payload is the message in UTF-8.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::{Failure, Native};
/// const BALANCE: Item<u64> = Item::new("balance");
///
/// /// The numbers of this module's errors.
/// mod code {
///     pub const NOT_ENOUGH: u32 = 1;
/// }
///
/// fn take(cx: &mut Context<Purse>, amount: u64) -> Result<u64> {
///     let balance = BALANCE.get(cx)?.unwrap_or(10);
///     let left = balance.checked_sub(amount).ok_or_else(|| {
///         Error::new(code::NOT_ENOUGH, format!("there are only {balance}"))
///     })?;
///     BALANCE.set(cx, &left)?;
///     Ok(left)
/// }
/// # struct Purse;
/// # impl Module for Purse {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = u64;
/// #     type Response = u64;
/// #     type Query = ();
/// #     type Answer = ();
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, amount: u64) -> Result<u64> { take(cx, amount) }
/// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
/// # }
/// let mut host = Native::<Purse>::new();
/// let session = host.create_session(&[]).unwrap();
/// assert_eq!(host.command(session, &4), Ok(6));
/// match host.command(session, &7) {
///     Err(Failure::Error(error)) => assert_eq!(error.code(), code::NOT_ENOUGH),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: u32,
    message: String,
}

impl Error {
    /// The first of the codes that this crate gives.
    pub const RESERVED: u32 = 0xffff_0000;
    /// A command, query or other payload does not decode.
    pub const MALFORMED_PAYLOAD: u32 = 0xffff_0001;
    /// A stored key or value does not decode: the module's types changed without a migration.
    pub const MALFORMED_STATE: u32 = 0xffff_0002;
    /// A value cannot be encoded.
    pub const NOT_ENCODABLE: u32 = 0xffff_0003;
    /// A key is longer than the store takes (1024 bytes, encoded).
    pub const KEY_TOO_LONG: u32 = 0xffff_0004;
    /// A value is larger than the store takes (1 MiB, encoded).
    pub const VALUE_TOO_LARGE: u32 = 0xffff_0005;
    /// There is no migration from or to that state version.
    pub const NO_MIGRATION: u32 = 0xffff_0006;
    /// A [`Sequence`](crate::Sequence) has given all its numbers.
    pub const SEQUENCE_EXHAUSTED: u32 = 0xffff_0007;

    /// An error with a code of the module's own, below [`Error::RESERVED`].
    ///
    /// # Panics
    /// If `code` is reserved.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        assert!(code < Self::RESERVED, "error code {code:#x} is reserved");
        Self::reserved(code, message)
    }

    pub(crate) fn reserved(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn malformed_payload(what: &str, malformed: &Malformed) -> Self {
        Self::reserved(
            Self::MALFORMED_PAYLOAD,
            format!("malformed {what}: {malformed}"),
        )
    }

    pub(crate) fn malformed_state(collection: &str, malformed: &Malformed) -> Self {
        Self::reserved(
            Self::MALFORMED_STATE,
            format!("malformed state in {collection:?}: {malformed}"),
        )
    }

    /// What clients decide on.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// What people read.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for Error {}
