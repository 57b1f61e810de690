//! The endless stream of bytes every connection sends and expects back.
//!
//! A connection's stream is a window sliding over one shared block, so messages of any size need no
//! memory of their own, sending copies nothing in this process, and checking an echo is one
//! comparison of slices. Connections start at different places: bytes that end up on the wrong
//! connection, or in the wrong order, differ.
//!
//! # Invariants
//! - The block is periodic: its last [`WINDOW`] bytes repeat its first ones, so any window that
//!   starts within the period is contiguous.
//! - The period is prime: no message size divides it, so equal messages do not follow each other.

/// The shared block.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// Fills the block by a fixed rule: two runs send the same bytes.
    pub fn new() -> Self {
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            // Marsaglia's xorshift: any generator without a short cycle will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[7]
        })
        .take(PERIOD)
        .collect();
        for index in 0..WINDOW {
            bytes.push(bytes[index]);
        }
        Self { bytes }
    }

    /// The bytes at `position` of the stream of `connection`: `length` of them, or [`WINDOW`] if
    /// that is less.
    pub fn window(&self, connection: usize, position: u64, length: u64) -> &[u8] {
        let start = (connection as u64 * STRIDE + position) % PERIOD as u64;
        let length = length.min(WINDOW as u64);
        &self.bytes[start as usize..(start + length) as usize]
    }
}

/// The longest slice sent or checked at once.
pub const WINDOW: usize = 256 * 1024;
/// Small enough to stay in the cache, and prime.
const PERIOD: usize = 65_521;
/// Distance between the starting places of neighbouring connections.
const STRIDE: u64 = 7_919;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_continues_where_the_previous_one_ended() {
        let pattern = Pattern::new();
        let whole = pattern.window(5, 0, WINDOW as u64).to_vec();
        let pieces: Vec<u8> =
            (0..64).flat_map(|index| pattern.window(5, index * 4096, 4096).to_vec()).collect();
        assert!(whole == pieces);
    }

    #[test]
    fn neighbours_and_successive_messages_differ() {
        let pattern = Pattern::new();
        assert_ne!(pattern.window(0, 0, 64), pattern.window(1, 0, 64));
        assert_ne!(pattern.window(0, 0, 64), pattern.window(0, 64, 64));
    }

    #[test]
    fn a_window_is_never_longer_than_the_limit() {
        assert_eq!(Pattern::new().window(3, PERIOD as u64 * 9 - 1, u64::MAX).len(), WINDOW);
    }
}
