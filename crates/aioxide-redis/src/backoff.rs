//! How long to wait between attempts to connect: twice as long each time, with full jitter, so that many clients do not
//! come back at the same moment.

use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the second attempt.
    pub base: Duration,
    /// The longest wait at all.
    pub cap: Duration,
    /// How many attempts follow a failed one before who waits is told.
    pub retries: u32,
}

impl Default for Backoff {
    /// As redis-py: ten more attempts, within 10 ms at first and 1 s at most.
    fn default() -> Self {
        Self { base: Duration::from_millis(10), cap: Duration::from_secs(1), retries: 10 }
    }
}

impl Backoff {
    /// The wait after the attempt number `failed` (from zero) failed; `random` is a number in 0..1.
    #[must_use]
    pub fn wait(&self, failed: u32, random: f64) -> Duration {
        let longest = self.base.saturating_mul(1_u32.checked_shl(failed).unwrap_or(u32::MAX)).min(self.cap);
        longest.mul_f64(random.clamp(0.0, 1.0))
    }
}

/// Random enough for jitter.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number in 0..1 (xorshift64*).
    pub(crate) fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Jitter};

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(65), retries: 9 };
        let waits: Vec<_> = (0..5).map(|failed| backoff.wait(failed, 1.0).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 65, 65]);
        assert_eq!(backoff.wait(4_000_000_000, 0.5), Duration::from_micros(32_500));
    }

    #[test]
    fn jitter_stays_between_zero_and_one_and_differs() {
        let mut jitter = Jitter::new(7);
        let numbers: Vec<_> = (0..1000).map(|_| jitter.next()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        let mean = numbers.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
