//! The ready queue: the callbacks of the next turn, which takes all of them at once, as a [`Batch`].
#![expect(unsafe_code, reason = "callbacks are written where they will lie, and taken from there")]

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

    /// Move all into a batch, which is empty and lends its memory.
    #[inline(always)]
    pub fn fill(&mut self, batch: &mut Batch) {
        assert!(batch.len() == 0, "what is in there would be lost");
        std::mem::swap(&mut self.callbacks, &mut batch.memory);
        (batch.next, batch.end) = (0, batch.memory.len());
        // SAFETY: nothing is a length; what lies in the memory now belongs to the range.
        unsafe { batch.memory.set_len(0) };
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

/// The callbacks of one turn, to be taken one by one. (As a draining iterator would do it, whose end is a function call
/// that short turns feel.)
///
/// # Invariant
/// The memory has no elements as a vector; those of the range from `next` to `end` lie in it.
#[derive(Default)]
pub struct Batch {
    memory: Vec<Callback>,
    next: usize,
    end: usize,
}

impl Batch {
    /// How many there are still.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.next
    }

    /// Take the next one.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Callback> {
        if self.next == self.end {
            return None;
        }
        let place = self.memory.spare_capacity_mut().get(self.next)?;
        self.next += 1;
        // SAFETY: it lay in the range, which it has just left.
        Some(unsafe { place.assume_init_read() })
    }

    /// Take all that are left.
    #[must_use]
    pub fn rest(&mut self) -> Vec<Callback> {
        std::iter::from_fn(|| self.take()).collect()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        drop(self.rest());
    }
}
