//! What both versions share: five signature bytes, a version, a tag.

use crate::{DecodeError, limits::FRAME_BYTES_MAX, wire::Reader};

/// The first five bytes of every frame, "zraft".
pub const SIGNATURE: [u8; 5] = *b"zraft";

/// A version of the session protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// zio-raft's, see [`crate::v1`].
    V1,
    /// Ours, see [`crate::v2`].
    V2,
}

impl Version {
    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// Which version a frame speaks; looks at its first six bytes only.
///
/// # Errors
/// [`DecodeError::FrameTooLong`], [`DecodeError::Truncated`], [`DecodeError::BadSignature`] and
/// [`DecodeError::UnsupportedVersion`].
///
/// ```
/// use quorate_protocol::{DecodeError, Version, peek_version};
/// assert_eq!(peek_version(b"zraft\x01\x07"), Ok(Version::V1));
/// assert_eq!(
///     peek_version(b"zraft\xff\x07"),
///     Err(DecodeError::UnsupportedVersion { version: 255 })
/// );
/// ```
pub fn peek_version(frame: &[u8]) -> Result<Version, DecodeError> {
    read_version(frame).map(|(version, _)| version)
}

/// Reads the header of a frame of `version` and returns its tag and a reader behind it.
pub(crate) fn read_header(frame: &[u8], version: Version) -> Result<(u8, Reader<'_>), DecodeError> {
    let (found, mut reader) = read_version(frame)?;
    if found != version {
        return Err(DecodeError::UnsupportedVersion {
            version: found.byte(),
        });
    }
    let tag = reader.u8()?;
    Ok((tag, reader))
}

fn read_version(frame: &[u8]) -> Result<(Version, Reader<'_>), DecodeError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::FrameTooLong {
            bytes: frame.len(),
            bytes_max: FRAME_BYTES_MAX,
        });
    }
    let mut reader = Reader::new(frame);
    if reader.array::<5>()? != SIGNATURE {
        return Err(DecodeError::BadSignature);
    }
    match reader.u8()? {
        1 => Ok((Version::V1, reader)),
        2 => Ok((Version::V2, reader)),
        version => Err(DecodeError::UnsupportedVersion { version }),
    }
}
