//! What goes over a stream that relays a client's connection. The client's own frames go to the
//! leader as they are.

use bytes::Bytes;
use quorate_core::codec::{DecodeError, Reader, Writer};

use super::Error;

/// The body of the envelope that opens the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayBegin {
    /// The client's address, for operators.
    pub remote: String,
}

impl RelayBegin {
    /// The body.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.bytes(self.remote.as_bytes());
        out.finish().into()
    }

    /// What [`RelayBegin::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let remote = input.text()?.to_owned();
        input.finish()?;
        Ok(Self { remote })
    }
}

/// What the leader answers. A stream that ends without [`RelayAnswer::Close`] says nothing of the
/// client: its session goes on, at the next leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayAnswer {
    /// For the client.
    Frame(Bytes),
    /// The leader closes the client's connection.
    Close,
}

const FRAME: u8 = 1;
const CLOSE: u8 = 2;

impl RelayAnswer {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Self::Frame(frame) => out.u8(FRAME).raw(frame),
            Self::Close => out.u8(CLOSE),
        };
        out.finish().into()
    }

    /// What [`RelayAnswer::encode`] encoded.
    ///
    /// # Errors
    /// If it is not that.
    pub fn decode(answer: &Bytes) -> Result<Self, Error> {
        match Reader::new(answer).u8()? {
            FRAME => Ok(Self::Frame(answer.slice(1..))),
            CLOSE => Ok(Self::Close),
            other => Err(DecodeError::Unknown {
                what: "relayed answer",
                value: other.into(),
            }
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_relayed_comes_back() {
        let begin = RelayBegin {
            remote: "10.0.0.9:40001".to_owned(),
        };
        assert_eq!(RelayBegin::decode(&begin.encode()).unwrap(), begin);
        for answer in [
            RelayAnswer::Frame(Bytes::from_static(b"zraft\x01\x05")),
            RelayAnswer::Frame(Bytes::new()),
            RelayAnswer::Close,
        ] {
            assert_eq!(RelayAnswer::decode(&answer.encode()).unwrap(), answer);
        }
        assert!(RelayAnswer::decode(&Bytes::new()).is_err());
        assert!(RelayAnswer::decode(&Bytes::from_static(&[3])).is_err());
    }
}
