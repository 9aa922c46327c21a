//! The optional member id that ends two server messages. scodec packs it by bits: one presence
//! bit, then a u16 length and UTF-8, all shifted right by that bit and padded to a whole byte.

use crate::{
    DecodeError, EncodeError,
    wire::{Reader, Writer},
};

pub(super) fn read_member(reader: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    let offset = reader.offset();
    let packed = reader.rest();
    let first = reader.u8()?;
    if first & 0x80 == 0 {
        return Ok(None);
    }
    let [high, low] = [shifted(packed, 0), shifted(packed, 1)].map(|byte| {
        byte.ok_or(DecodeError::Truncated {
            offset,
            needed: 3,
            left: packed.len(),
        })
    });
    let length = usize::from(u16::from_be_bytes([high?, low?]));
    let text: Option<Vec<u8>> = if packed.len() >= length + 3 {
        (2..length + 2).map(|at| shifted(packed, at)).collect()
    } else {
        None
    };
    let text = text.ok_or_else(|| DecodeError::LengthBeyondEnd {
        offset: offset + 2,
        length,
        left: packed.len().saturating_sub(3),
    })?;
    String::from_utf8(text)
        .map(Some)
        .map_err(|_| DecodeError::BadUtf8 { offset: offset + 2 })
}

/// Byte `at` of what follows the presence bit: the low seven bits of one byte, the high bit of the
/// next.
fn shifted(packed: &[u8], at: usize) -> Option<u8> {
    Some((packed.get(at)? << 1) | (packed.get(at + 1)? >> 7))
}

pub(super) fn write_member(writer: &mut Writer, member: Option<&str>) -> Result<(), EncodeError> {
    let Some(member) = member else {
        writer.u8(0);
        return Ok(());
    };
    let length = crate::wire::length_u16("member id", member.len())?;
    let mut carry = 0x80;
    for byte in length.to_be_bytes().into_iter().chain(member.bytes()) {
        writer.u8(carry | (byte >> 1));
        carry = byte << 7;
    }
    writer.u8(carry);
    Ok(())
}
