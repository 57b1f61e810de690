//! A table whose places are named by index and generation: who waits for which token.
//!
//! A freed place is used again, with another generation, so an old key finds nothing. Keys fit in a
//! driver's token with the highest bit clear; tokens with that bit set belong to the host.
//!
//! # Invariants
//! - A key is honoured only while the value it was made for is in its place.
//! - Generations have 31 bits and wrap. That is sound for tokens: a place stays taken until the
//!   operation's final completion, so no answer for an older generation can still be on its way.
//! - No method drops a `T` (see [`Queue`](crate::Queue)).

use aioxide_driver::Token;

/// Names one value in [`Slots`], also after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    index: u32,
    generation: u32,
}

/// The bit that tells the host's tokens from the runtime's.
const HOST_BIT: u64 = 1 << 63;

const GENERATION_MASK: u32 = u32::MAX >> 1;

/// Makes a token of the host's own: [`Runtime::collect`](crate::Runtime::collect) leaves its
/// completions to the host. The highest bit of `key` carries no information.
#[inline]
#[must_use]
pub const fn host_token(key: u64) -> Token {
    Token(key | HOST_BIT)
}

/// Whether a token was made by [`host_token`].
#[inline]
#[must_use]
pub const fn is_host_token(token: Token) -> bool {
    token.0 & HOST_BIT != 0
}

impl SlotKey {
    pub(crate) fn token(self) -> Token {
        Token(u64::from(self.generation) << 32 | u64::from(self.index))
    }

    /// `None` for a token of the host.
    pub(crate) fn from_token(token: Token) -> Option<Self> {
        if is_host_token(token) {
            return None;
        }
        let [index, generation] = [token.0 & u64::from(u32::MAX), token.0 >> 32];
        Some(Self { index: u32::try_from(index).ok()?, generation: u32::try_from(generation).ok()? })
    }
}

/// Values in numbered places.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Place<T>>,
    /// The places that are free, the next to be used last.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// Puts a value into a free place.
    ///
    /// # Panics
    /// With 2³² values.
    pub(crate) fn insert(&mut self, value: T) -> SlotKey {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.places.len()).expect("fewer than 2^32 places are taken");
            self.places.push(Place { generation: 0, value: None });
            index
        });
        let place = &mut self.places[index as usize];
        debug_assert!(place.value.is_none(), "a taken place in the list of free places");
        place.value = Some(value);
        SlotKey { index, generation: place.generation }
    }

    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    pub(crate) fn get(&self, key: SlotKey) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    /// Empties a place and frees it.
    #[must_use = "a removed value is the caller's to drop"]
    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The keys of all values.
    pub(crate) fn keys(&self) -> Vec<SlotKey> {
        let keys = self.places.iter().zip(0_u32..).filter(|(place, _)| place.value.is_some());
        keys.map(|(place, index)| SlotKey { index, generation: place.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{GENERATION_MASK, SlotKey, Slots, host_token, is_host_token};

    #[test]
    fn a_key_of_an_earlier_generation_finds_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_ne!(first, second);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&'b'));
        assert_eq!((slots.len(), slots.keys()), (1, vec![second]));
    }

    #[test]
    fn tokens_carry_keys_and_never_look_like_the_hosts() {
        for generation in [0, 1, GENERATION_MASK] {
            let key = SlotKey { index: u32::MAX, generation };
            assert!(!is_host_token(key.token()));
            assert_eq!(SlotKey::from_token(key.token()), Some(key));
        }
        assert!(is_host_token(host_token(0)));
        assert_eq!(SlotKey::from_token(host_token(7)), None);
    }

    #[test]
    fn generations_wrap_without_touching_the_hosts_bit() {
        let mut slots = Slots::new();
        let key = slots.insert(1);
        assert_eq!(slots.remove(key), Some(1));
        slots.places[0].generation = GENERATION_MASK;
        let last = slots.insert(2);
        assert_eq!(slots.remove(last), Some(2));
        let wrapped = slots.insert(3);
        assert_eq!(wrapped, key);
    }
}
