//! Digests of what nodes have stored at a checkpoint.
//!
//! ```text
//! question   index u64
//! answer     kind u8: 0 not known yet | 1 lost | 2 and the digest [32]
//! ```

use bytes::Bytes;
use quorate_core::codec::{DecodeError, Reader, Writer};

use super::super::machine::checkpoints::Digest;
use super::Error;

pub(in crate::consensus) fn encode_digest_index(index: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.u64(index);
    out.finish()
}

pub(in crate::consensus) fn decode_digest_index(body: &[u8]) -> Result<u64, Error> {
    let mut input = Reader::new(body);
    let index = input.u64()?;
    input.finish()?;
    Ok(index)
}

pub(in crate::consensus) fn encode_digest(digest: Digest) -> Bytes {
    let mut out = Writer::new();
    match digest {
        Digest::Unknown => out.u8(0),
        Digest::Lost => out.u8(1),
        Digest::Of(digest) => out.u8(2).raw(&digest),
    };
    out.finish().into()
}

pub(in crate::consensus) fn decode_digest(body: &[u8]) -> Result<Digest, Error> {
    let mut input = Reader::new(body);
    let digest = match input.u8()? {
        0 => Digest::Unknown,
        1 => Digest::Lost,
        2 => Digest::Of(input.array()?),
        other => {
            return Err(DecodeError::Unknown {
                what: "kind of digest",
                value: other.into(),
            }
            .into());
        }
    };
    input.finish()?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written_and_nothing_else_is() {
        for digest in [Digest::Unknown, Digest::Lost, Digest::Of([7; 32])] {
            let bytes = encode_digest(digest);
            assert_eq!(decode_digest(&bytes).unwrap(), digest);
            for length in 0..bytes.len() {
                assert!(decode_digest(&bytes[..length]).is_err());
            }
            assert!(decode_digest(&[&bytes[..], &[0]].concat()).is_err());
        }
        assert!(decode_digest(&[3]).is_err());
        assert_eq!(decode_digest_index(&encode_digest_index(9)).unwrap(), 9);
        assert!(decode_digest_index(&[0; 7]).is_err());
    }
}
