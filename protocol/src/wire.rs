//! Reads and writes the primitives of both versions. Big-endian, checked, never more memory than
//! the frame has bytes.

use crate::{DecodeError, EncodeError, Nonce, SIGNATURE, Version, limits::FRAME_BYTES_MAX};

/// A cursor over a frame.
pub(crate) struct Reader<'a> {
    frame: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(frame: &'a [u8]) -> Self {
        Self { frame, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.frame[self.offset..]
    }

    /// Refuses a frame that goes on.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.rest().len() {
            0 => Ok(()),
            bytes => Err(DecodeError::TrailingBytes { bytes }),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.rest();
        let Some(bytes) = rest.first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                offset: self.offset,
                needed: N,
                left: rest.len(),
            });
        };
        self.offset += N;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn nonce(&mut self) -> Result<Nonce, DecodeError> {
        Nonce::new(self.i64()?).ok_or(DecodeError::ZeroNonce)
    }

    /// A text of `length` bytes.
    pub(crate) fn text(&mut self, length: usize) -> Result<String, DecodeError> {
        let offset = self.offset;
        let bytes = self.slice(length)?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::BadUtf8 { offset }),
        }
    }

    /// Length as u16, then UTF-8.
    pub(crate) fn text16(&mut self) -> Result<String, DecodeError> {
        let length = self.u16()?;
        self.text(usize::from(length))
    }

    /// Length as u32, then bytes.
    pub(crate) fn payload(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.u32()?;
        // A frame is far below 4 GiB: a length that no usize holds is beyond its end as well.
        self.slice(usize::try_from(length).unwrap_or(usize::MAX))
            .map(<[u8]>::to_vec)
    }

    /// Length as i32 that is not negative, then bytes.
    pub(crate) fn payload_signed(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = i32::from_be_bytes(self.array()?);
        match usize::try_from(length) {
            Ok(length) => self.slice(length).map(<[u8]>::to_vec),
            Err(_) => Err(DecodeError::NegativeLength {
                offset: self.offset,
                length,
            }),
        }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        let Some(bytes) = rest.get(..length) else {
            return Err(DecodeError::LengthBeyondEnd {
                offset: self.offset,
                length,
                left: rest.len(),
            });
        };
        self.offset += length;
        Ok(bytes)
    }
}

/// A frame being built.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(version: Version, tag: u8) -> Self {
        let mut frame = Vec::with_capacity(64);
        frame.extend_from_slice(&SIGNATURE);
        frame.push(version.byte());
        frame.push(tag);
        Self(frame)
    }

    /// The frame, if a peer would read one of this length.
    pub(crate) fn finish(self) -> Result<Vec<u8>, EncodeError> {
        let (length, length_max) = (self.0.len(), FRAME_BYTES_MAX);
        if length > length_max {
            return Err(EncodeError::TooLong {
                field: "frame",
                length,
                length_max,
            });
        }
        Ok(self.0)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub(crate) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    /// Length as u16, then UTF-8.
    pub(crate) fn text16(&mut self, field: &'static str, text: &str) -> Result<(), EncodeError> {
        self.u16(length_u16(field, text.len())?);
        self.bytes(text.as_bytes());
        Ok(())
    }

    /// Length in four bytes, then bytes. Far below 2^31, so that it is the same number for version
    /// 1, which reads it as signed.
    pub(crate) fn payload(
        &mut self,
        field: &'static str,
        payload: &[u8],
    ) -> Result<(), EncodeError> {
        match u32::try_from(payload.len()) {
            Ok(length) if payload.len() <= FRAME_BYTES_MAX => self.u32(length),
            _ => {
                return Err(EncodeError::TooLong {
                    field,
                    length: payload.len(),
                    length_max: FRAME_BYTES_MAX,
                });
            }
        }
        self.bytes(payload);
        Ok(())
    }
}

/// A length that fits its two bytes.
pub(crate) fn length_u16(field: &'static str, length: usize) -> Result<u16, EncodeError> {
    u16::try_from(length).map_err(|_| EncodeError::TooLong {
        field,
        length,
        length_max: usize::from(u16::MAX),
    })
}

/// Gives an enumeration without fields its byte on the wire, both ways.
macro_rules! byte_enum {
    ($name:ident, $field:literal, { $($variant:ident = $byte:literal),+ $(,)? }) => {
        impl $name {
            /// The byte on the wire.
            #[must_use]
            pub const fn byte(self) -> u8 {
                match self {
                    $(Self::$variant => $byte,)+
                }
            }

            pub(crate) fn from_byte(value: u8) -> Result<Self, $crate::DecodeError> {
                match value {
                    $($byte => Ok(Self::$variant),)+
                    _ => Err($crate::DecodeError::UnknownValue { field: $field, value }),
                }
            }
        }
    };
}
pub(crate) use byte_enum;
