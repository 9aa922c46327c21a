//! The rolling hash of one entry.

/// Takes what is hashed, in pieces of any length. An entry has thousands of short ones, and BLAKE3 is
/// several times as fast over many kilobytes at once as over as many a few bytes at a time; the hash
/// is the same.
pub(super) struct EntryHash {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

/// What is gathered before it is hashed.
const GATHERED_BYTES_MAX: usize = 64 << 10;

impl EntryHash {
    pub(super) fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            gathered: Vec::new(),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHERED_BYTES_MAX {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        if bytes.len() > GATHERED_BYTES_MAX {
            self.hasher.update(bytes);
        } else {
            self.gathered.extend_from_slice(bytes);
        }
    }

    /// Its length and itself: two fields never hash as two others. Every field is below 4 GiB by far.
    pub(super) fn field(&mut self, field: &[u8]) {
        self.bytes(&(field.len() as u32).to_be_bytes());
        self.bytes(field);
    }

    /// The place of a value that is deleted: as long as no field is.
    pub(super) fn deletion(&mut self) {
        self.bytes(&u32::MAX.to_be_bytes());
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.gathered);
        *self.hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where pieces end does not matter.
    #[test]
    fn it_is_the_hash_of_all_pieces_together() {
        let bytes: Vec<u8> = (0..4 * GATHERED_BYTES_MAX).map(|n| n as u8).collect();
        let expected = blake3::hash(&bytes);
        for piece in [
            7,
            100,
            GATHERED_BYTES_MAX - 1,
            GATHERED_BYTES_MAX,
            GATHERED_BYTES_MAX + 1,
        ] {
            let mut hash = EntryHash::new();
            bytes.chunks(piece).for_each(|piece| hash.bytes(piece));
            assert_eq!(hash.finish(), *expected.as_bytes(), "{piece}");
        }
        let mut hash = EntryHash::new();
        hash.bytes(&bytes[..3]);
        hash.bytes(&bytes[3..]);
        assert_eq!(hash.finish(), *expected.as_bytes());
    }
}
