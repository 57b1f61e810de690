//! The operations in flight: by slot for the kernel's answers, by token for the host's cancels.
//!
//! A slot is named by a [`Key`]: index and generation in one word, which travels through the kernel
//! as user data. A late answer to an operation that is gone finds another generation and is told
//! apart. Slots are reused, the last freed first, so the steady state neither allocates nor spreads.
//!
//! # Invariants
//! `by_token` holds exactly the occupied slots. A generation changes whenever a slot is emptied.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Token;

/// Names one occupied slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// As the kernel carries it.
    pub(crate) fn to_word(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    pub(crate) fn from_word(word: u64) -> Key {
        Key { index: word as u32, generation: (word >> 32) as u32 }
    }

    /// No key has this index or a larger one, so words with them are free for other uses.
    pub(crate) const RESERVED_INDEX: u32 = u32::MAX - 15;
}

/// A table of operations in flight.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
    by_token: HashMap<u64, Key, BuildHasherDefault<TokenHasher>>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    content: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), vacant: Vec::new(), by_token: HashMap::default() }
    }

    /// Stores an operation under the host's token.
    pub(crate) fn insert(&mut self, token: Token, content: T) -> Key {
        let key = match self.vacant.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                slot.content = Some(content);
                Key { index, generation: slot.generation }
            }
            None => {
                let index = self.slots.len() as u32;
                assert!(index < Key::RESERVED_INDEX, "four billion operations in flight");
                self.slots.push(Slot { generation: 0, content: Some(content) });
                Key { index, generation: 0 }
            }
        };
        let earlier = self.by_token.insert(token.0, key);
        debug_assert!(earlier.is_none(), "clause 4: {token:?} is already in flight");
        key
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.content.as_mut() } else { None }
    }

    /// Empties a slot. The token is the one given to `insert`.
    #[must_use]
    pub(crate) fn remove(&mut self, key: Key, token: Token) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let content = slot.content.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(key.index);
        // A host that broke clause 4 has overwritten the entry: then it is the other operation's.
        if self.by_token.get(&token.0) == Some(&key) {
            self.by_token.remove(&token.0);
        }
        Some(content)
    }

    pub(crate) fn find(&self, token: Token) -> Option<Key> {
        self.by_token.get(&token.0).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// The occupied slots, in no order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let key = Key { index: index as u32, generation: slot.generation };
            slot.content.as_mut().map(|content| (key, content))
        })
    }
}

/// Spreads tokens, which hosts number from zero, over the table. They are the host's own numbers,
/// never an outsider's, so nobody can aim at collisions.
#[derive(Debug, Default)]
pub(crate) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the table looks at the top bits and at the bottom ones.
        let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::{Key, Slots};
    use crate::Token;

    #[test]
    fn a_key_of_an_emptied_slot_finds_nothing() {
        let mut slots = Slots::new();
        let old = slots.insert(Token(1), "old");
        assert_eq!(slots.remove(old, Token(1)), Some("old"));
        let new = slots.insert(Token(1), "new");
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.get_mut(new), Some(&mut "new"));
        assert_eq!(slots.remove(old, Token(1)), None);
        assert_eq!(slots.len(), 1);
    }

    proptest! {
        #[test]
        fn slots_behave_like_a_map(steps in prop::collection::vec((any::<bool>(), 0..20_u64), 0..300)) {
            let mut slots = Slots::new();
            let mut model = std::collections::BTreeMap::new();
            for (adding, number) in steps {
                let token = Token(number);
                if adding && !model.contains_key(&number) {
                    model.insert(number, slots.insert(token, number));
                } else if let Some(key) = model.remove(&number) {
                    prop_assert_eq!(slots.find(token), Some(key));
                    prop_assert_eq!(slots.remove(key, token), Some(number));
                }
                prop_assert_eq!(slots.len(), model.len());
                prop_assert_eq!(slots.iter_mut().count(), model.len());
                for (number, key) in &model {
                    prop_assert_eq!(slots.get_mut(Key::from_word(key.to_word())), Some(&mut number.clone()));
                }
            }
        }
    }
}
