//! The one source of everything random in a client: nonces, creation keys, jitter.

use std::time::Duration;

use quorate_protocol::{CreationKey, Nonce};

/// Random bytes. A client asks for few of them and owns its source.
pub trait Randomness: Send + 'static {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The operating system's randomness, the default.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsRandomness;

impl Randomness for OsRandomness {
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("an operating system that runs this has randomness");
    }
}

/// The same bytes for the same seed (splitmix64). For simulations: whoever guesses a creation key
/// gets the session it made.
#[derive(Debug, Clone)]
pub struct SeededRandomness(
    /// The seed, and then the state.
    pub u64,
);

impl Randomness for SeededRandomness {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) fn nonce(randomness: &mut dyn Randomness) -> Nonce {
    loop {
        let mut bytes = [0; 8];
        randomness.fill(&mut bytes);
        if let Some(nonce) = Nonce::new(i64::from_be_bytes(bytes)) {
            return nonce;
        }
    }
}

pub(crate) fn creation_key(randomness: &mut dyn Randomness) -> CreationKey {
    let mut key = CreationKey([0; 16]);
    randomness.fill(&mut key.0);
    key
}

/// A pause that doubles with each use, with a jitter of a quarter either way.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    pause_max: Duration,
}

impl Backoff {
    pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);

    pub(crate) fn new(pause_max: Duration) -> Self {
        Self {
            pause: Self::PAUSE_MIN,
            pause_max,
        }
    }

    /// Pauses no longer than this from now on, but for the jitter.
    pub(crate) fn limit(&mut self, pause_max: Duration) {
        self.pause_max = pause_max.max(Self::PAUSE_MIN);
        self.pause = self.pause.min(self.pause_max);
    }

    pub(crate) fn next(&mut self, randomness: &mut dyn Randomness) -> Duration {
        let mut bytes = [0; 2];
        randomness.fill(&mut bytes);
        // 0.75 to 1.25, in steps of 1 / 131072.
        let factor = 0.75 + f64::from(u16::from_be_bytes(bytes)) / 131_072.0;
        let pause = self.pause.mul_f64(factor);
        self.pause = (self.pause * 2).min(self.pause_max);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.pause = Self::PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_limit_within_its_jitter() {
        let mut randomness = SeededRandomness(1);
        let mut backoff = Backoff::new(Duration::from_secs(30));
        for expected in [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
        ] {
            let pause = backoff.next(&mut randomness);
            let expected = Duration::from_millis(expected);
            assert!(
                pause >= expected.mul_f64(0.75) && pause <= expected.mul_f64(1.25),
                "{pause:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&mut randomness) <= Duration::from_millis(125));
    }

    #[test]
    fn a_seed_decides_everything() {
        let keys = |seed| {
            let mut randomness = SeededRandomness(seed);
            (creation_key(&mut randomness), nonce(&mut randomness))
        };
        assert_eq!(keys(7), keys(7));
        assert_ne!(keys(7), keys(8));
    }
}
