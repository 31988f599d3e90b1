//! Everything an evaluation needs besides data: the present, a random source, and limits.
//! All three are given from outside, so a replay with the same environment gives the same values.

use std::time::Duration;

use uuid::Uuid;

/// The time, the randomness and the limits of an evaluation.
///
/// One environment serves the evaluations of one journal entry in order; each draw advances the random source.
#[derive(Debug, Clone)]
pub struct Environment {
    now: i64,
    random: RandomSource,
    limits: Limits,
}

impl Environment {
    /// An environment whose present is `now` (microseconds since the Unix epoch) and whose randomness follows `seed`.
    pub fn new(now: i64, seed: u64) -> Self {
        Self {
            now,
            random: RandomSource::new(seed),
            limits: Limits::default(),
        }
    }

    /// The same environment under other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The present, in microseconds since the Unix epoch: what `$now()` and `$millis()` see.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The random source, which advances with every draw.
    pub fn random(&mut self) -> &mut RandomSource {
        &mut self.random
    }

    /// The limits that evaluations keep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// How much an evaluation may use before it is refused.
///
/// All but `time` depend only on the expression and its data, so they strike at the same place on every replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nested evaluation steps of a JSONata expression; a non-tail recursive call takes about three.
    pub recursion: usize,
    /// Items of one array that a JSONata expression builds.
    pub sequence: usize,
    /// Nesting of a result. Below the 128 levels that JSON parsers accept, so that a stored result can be read again.
    pub depth: usize,
    /// Size of a result, counted as its JSON text would be, roughly.
    pub result_bytes: usize,
    /// Text that a JSONata expression makes by replacing, joining, padding and by appending in loops, all in all.
    pub text_bytes: usize,
    /// The last resort against an expression that would stop the fold. Far above what any sensible one takes,
    /// because it is the only limit that a slower machine reaches earlier.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recursion: 10_000,
            sequence: 200_000,
            depth: 100,
            result_bytes: 16 * 1024 * 1024,
            text_bytes: 256 * 1024 * 1024,
            time: Duration::from_secs(2),
        }
    }
}

/// A small deterministic generator (`SplitMix64`, Steele et al. 2014), the same on every platform.
///
/// It decides nothing that an adversary must not foresee: it spreads jitter and names things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomSource {
    state: u64,
}

impl RandomSource {
    /// A source that repeats itself for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly, so the result never rounds up to 1.
        #[allow(clippy::cast_precision_loss)]
        let numerator = (self.next_u64() >> 11) as f64;
        numerator / 9_007_199_254_740_992.0
    }

    /// A number in `[0, bound)`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift (Lemire 2019): the bias of at most bound / 2^64 is of no concern here.
        #[allow(clippy::cast_possible_truncation)]
        let high = ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64;
        high
    }

    /// An identifier shaped like a version 4 UUID.
    pub fn uuid(&mut self) -> Uuid {
        let bits = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_draws() {
        let mut first = RandomSource::new(42);
        let mut second = RandomSource::new(42);
        for _ in 0..100 {
            assert_eq!(first.next_u64(), second.next_u64());
        }
        // The reference sequence of `SplitMix64` for seed 0, so that no refactoring changes replays.
        let mut reference = RandomSource::new(0);
        assert_eq!(reference.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(reference.next_u64(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut random = RandomSource::new(7);
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&random.unit()));
            assert!(random.below(3) < 3);
        }
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_uuid_has_the_shape_of_version_4() {
        let uuid = RandomSource::new(1).uuid();
        assert_eq!(uuid.get_version_num(), 4);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }
}
