//! Up to which levels a node can go.
//!
//! ```text
//! question   nothing
//! answer     core u32 | engine u32
//! ```

use bytes::Bytes;
use quorate_core::codec::{Reader, Writer};
use quorate_core::records::Levels;

use super::Error;

pub(in crate::consensus) fn encode_levels(levels: Levels) -> Bytes {
    let mut out = Writer::new();
    out.u32(levels.core).u32(levels.engine);
    out.finish().into()
}

pub(in crate::consensus) fn decode_levels(body: &[u8]) -> Result<Levels, Error> {
    let mut input = Reader::new(body);
    let levels = Levels {
        core: input.u32()?,
        engine: input.u32()?,
    };
    input.finish()?;
    Ok(levels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn levels_are_read_as_they_are_written_and_nothing_else_is() {
        let levels = Levels { core: 3, engine: 9 };
        let bytes = encode_levels(levels);
        assert_eq!(decode_levels(&bytes).unwrap(), levels);
        for length in 0..bytes.len() {
            assert!(decode_levels(&bytes[..length]).is_err());
        }
        assert!(decode_levels(&[&bytes[..], &[0]].concat()).is_err());
    }
}
