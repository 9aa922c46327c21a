//! Randomness that is equal on every node.

/// A generator over the operation's seed: xoroshiro128++. Not for secrets: whoever reads the log can repeat it.
///
/// ```
/// # use quorate_guest::prelude::*;
/// # use quorate_guest::native::Native;
/// /// Throws as many dice as are asked for.
/// fn throw(cx: &mut Context<Dice>, dice: u32) -> Result<Vec<u64>> {
///     let random = cx.random();
///     Ok((0..dice.min(100)).map(|_| 1 + random.below(6)).collect())
/// }
/// # struct Dice;
/// # impl Module for Dice {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = u32;
/// #     type Response = Vec<u64>;
/// #     type Query = ();
/// #     type Answer = ();
/// #     type Request = ();
/// #     fn command(cx: &mut Context<Self>, dice: u32) -> Result<Vec<u64>> { throw(cx, dice) }
/// #     fn query(_: &ReadContext, _: ()) -> Result<()> { Ok(()) }
/// # }
/// let mut host = Native::<Dice>::new();
/// let session = host.create_session(&[]).unwrap();
/// let thrown = host.command(session, &50).unwrap();
/// assert!(thrown.iter().all(|dice| (1..=6).contains(dice)));
/// assert_ne!(thrown, host.command(session, &50).unwrap());
/// ```
#[derive(Debug, Clone)]
pub struct Random {
    low: u64,
    high: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        let seed = u128::from_le_bytes(seed);
        // The generator stays at zero if it starts there.
        let state = if seed == 0 {
            0x9e37_79b9_7f4a_7c15
        } else {
            seed
        };
        Self {
            low: state as u64,
            high: (state >> 64) as u64,
        }
    }

    /// Any number, all equally likely.
    pub fn next_u64(&mut self) -> u64 {
        let (low, mut high) = (self.low, self.high);
        let result = low.wrapping_add(high).rotate_left(17).wrapping_add(low);
        high ^= low;
        self.low = low.rotate_left(49) ^ high ^ (high << 21);
        self.high = high.rotate_left(28);
        result
    }

    /// A number below `bound`, all equally likely.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        // Numbers from the incomplete last multiple of `bound` would favour small results.
        let unbiased = u64::MAX - u64::MAX % bound;
        loop {
            let number = self.next_u64();
            if number < unbiased {
                return number % bound;
            }
        }
    }

    /// A UUID of version 4: random, so that two are equal only by an accident that does not happen. Not a secret.
    #[cfg(feature = "uuid")]
    pub fn uuid(&mut self) -> crate::Uuid {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_others_do_not() {
        let numbers = |seed| {
            let mut random = Random::new([seed; 16]);
            [(); 4].map(|()| random.next_u64())
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
        assert_ne!(numbers(0)[0], numbers(0)[1]);
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new([7; 16]);
        let mut seen = [false; 3];
        for _ in 0..200 {
            seen[random.below(3) as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(random.below(1), 0);
    }
}
