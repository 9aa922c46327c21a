//! Keys as bytes whose order is the order of the keys.

use crate::session::{SessionId, Timestamp};

/// What a key is looked up by: `str` finds a `String`.
///
/// The encoding keeps the order, and no encoding of one type is the beginning of another of the same type, so that
/// tuples need nothing between their parts:
///
/// - unsigned integers: big-endian; signed ones: the same with the sign bit flipped; `bool`: one byte
/// - byte arrays, session ids, UUIDs: as they are
/// - text and byte strings: as they are, with `00` written as `00 ff`, ended by `00 01`
/// - tuples: their parts, one after the other
pub trait EncodeKey {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A type of keys.
pub trait Key: EncodeKey + Sized {
    /// Takes one key off the front of `encoded`; `None` if there is none of this type.
    fn decode(encoded: &mut &[u8]) -> Option<Self>;
}

/// A tuple of keys that can be searched by its first part, of which `Q` is a form.
pub trait HasPrefix<Q: ?Sized>: Key {}

impl<A: Key + std::borrow::Borrow<Q>, B: Key, Q: ?Sized> HasPrefix<Q> for (A, B) {}
impl<A: Key + std::borrow::Borrow<Q>, B: Key, C: Key, Q: ?Sized> HasPrefix<Q> for (A, B, C) {}

fn take<const N: usize>(encoded: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = encoded.split_first_chunk()?;
    *encoded = rest;
    Some(*taken)
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl EncodeKey for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl Key for $type {
            fn decode(encoded: &mut &[u8]) -> Option<Self> {
                take(encoded).map(Self::from_be_bytes)
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64, u128);

macro_rules! signed {
    ($($type:ty),*) => {$(
        impl EncodeKey for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(self ^ Self::MIN).to_be_bytes());
            }
        }

        impl Key for $type {
            fn decode(encoded: &mut &[u8]) -> Option<Self> {
                take(encoded).map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }
        }
    )*};
}

signed!(i8, i16, i32, i64, i128);

impl EncodeKey for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Key for bool {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        match take(encoded)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl<const N: usize> EncodeKey for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Key for [u8; N] {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        take(encoded)
    }
}

impl EncodeKey for SessionId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.to_bytes().encode(out);
    }
}

impl Key for SessionId {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        take(encoded).map(Self::from_bytes)
    }
}

#[cfg(feature = "uuid")]
impl EncodeKey for crate::Uuid {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode(out);
    }
}

#[cfg(feature = "uuid")]
impl Key for crate::Uuid {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        take(encoded).map(Self::from_bytes)
    }
}

impl EncodeKey for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_micros().encode(out);
    }
}

impl Key for Timestamp {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        u64::decode(encoded).map(Self::from_micros)
    }
}

impl EncodeKey for [u8] {
    fn encode(&self, out: &mut Vec<u8>) {
        for &byte in self {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
        out.extend_from_slice(&[0, 1]);
    }
}

impl EncodeKey for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_slice().encode(out);
    }
}

impl Key for Vec<u8> {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        let mut bytes = Vec::new();
        loop {
            match take(encoded)? {
                [0] => match take(encoded)? {
                    [0xff] => bytes.push(0),
                    [1] => return Some(bytes),
                    _ => return None,
                },
                [byte] => bytes.push(byte),
            }
        }
    }
}

impl EncodeKey for str {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode(out);
    }
}

impl EncodeKey for String {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_bytes().encode(out);
    }
}

impl Key for String {
    fn decode(encoded: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::decode(encoded)?).ok()
    }
}

impl<T: EncodeKey + ?Sized> EncodeKey for &T {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

macro_rules! tuple {
    ($($part:ident),*) => {
        impl<$($part: EncodeKey),*> EncodeKey for ($($part,)*) {
            fn encode(&self, out: &mut Vec<u8>) {
                #[allow(non_snake_case, reason = "a part's value is named as its type")]
                let ($($part,)*) = self;
                $($part.encode(out);)*
            }
        }

        impl<$($part: Key),*> Key for ($($part,)*) {
            fn decode(encoded: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode(encoded)?,)*))
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fmt::Debug;

    use super::*;

    #[track_caller]
    fn keeps_order<K: Key + Ord + Debug>(keys: impl IntoIterator<Item = K>) {
        let mut keys: Vec<K> = keys.into_iter().collect();
        keys.sort();
        let encoded: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| {
                let mut out = Vec::new();
                key.encode(&mut out);
                out
            })
            .collect();
        assert!(encoded.is_sorted(), "{keys:?} became {encoded:02x?}");
        for (at, bytes) in encoded.iter().enumerate() {
            let rest = &mut bytes.as_slice();
            assert_eq!(K::decode(rest).as_ref(), Some(&keys[at]));
            assert!(rest.is_empty());
            for (other_at, other) in encoded.iter().enumerate() {
                let distinct = keys[at] != keys[other_at];
                assert!(!(distinct && other.starts_with(bytes)), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn encodings_keep_the_order_and_decode() {
        let texts = [
            "", "a", "a\0", "a\0b", "a\u{1}", "aa", "b", "\0", "\0\0", "ÿ",
        ];
        keeps_order(texts.map(str::to_owned));
        keeps_order([
            vec![],
            vec![0],
            vec![0, 0xff],
            vec![0, 1],
            vec![0xff],
            vec![1],
        ]);
        keeps_order([0, 1, 255, 256, u64::MAX]);
        keeps_order([i64::MIN, -256, -1, 0, 1, i64::MAX]);
        keeps_order([false, true]);
        keeps_order(texts.iter().flat_map(|text| {
            [0_u16, 0x00ff, 0x0100, 0xff00].map(|number| ((*text).to_owned(), number))
        }));
        keeps_order(
            texts.iter().flat_map(|first| {
                texts.map(|second| (true, (*first).to_owned(), second.to_owned()))
            }),
        );
    }

    #[test]
    fn what_no_key_encodes_to_is_refused() {
        for bad in [&b""[..], b"a", b"a\0", b"a\0\x02", b"\xff\0\x01"] {
            assert_eq!(String::decode(&mut &*bad), None);
        }
        assert_eq!(bool::decode(&mut &[2][..]), None);
        assert_eq!(u32::decode(&mut &[0, 0, 0][..]), None);
    }
}
