//! The ready queue: the callbacks of the next turn, which takes all of them at once.
#![expect(unsafe_code, reason = "writes a callback into the place that it will have")]

use crate::callback::Callback;

/// Callbacks in the order they came.
#[derive(Default)]
pub struct Ready {
    callbacks: Vec<Callback>,
}

impl Ready {
    /// Append one.
    pub fn push(&mut self, callback: Callback) {
        self.callbacks.push(callback);
    }

    /// Append what `make` makes, in the place that it will have: so large a value is better not moved (see
    /// `Record::fill`).
    #[inline(always)]
    pub fn push_made(&mut self, make: impl FnOnce() -> Callback) {
        let length = self.callbacks.len();
        if length == self.callbacks.capacity() {
            self.callbacks.reserve(1);
        }
        // Named once, so that it is not called but made here.
        if let Some(place) = self.callbacks.spare_capacity_mut().first_mut() {
            place.write(make());
            // SAFETY: the element after the last one has just been written.
            unsafe { self.callbacks.set_len(length + 1) };
        }
    }

    /// Append all of `callbacks`, which is empty then.
    pub fn append(&mut self, callbacks: &mut Vec<Callback>) {
        if self.callbacks.is_empty() {
            std::mem::swap(&mut self.callbacks, callbacks);
        } else {
            self.callbacks.append(callbacks);
        }
    }

    /// Have these before those that are there.
    pub fn prepend(&mut self, mut callbacks: Vec<Callback>) {
        callbacks.append(&mut self.callbacks);
        self.callbacks = callbacks;
    }

    /// Take all; `running`, which is empty, lends its memory.
    pub fn swap(&mut self, running: &mut Vec<Callback>) {
        debug_assert!(running.is_empty(), "they would run again");
        std::mem::swap(&mut self.callbacks, running);
    }

    /// Take all, and forget the memory.
    #[must_use]
    pub fn take(&mut self) -> Vec<Callback> {
        std::mem::take(&mut self.callbacks)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.callbacks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.callbacks.is_empty()
    }

    /// Look at each.
    pub fn iter(&self) -> impl Iterator<Item = &Callback> {
        self.callbacks.iter()
    }
}
