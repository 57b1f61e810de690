//! First in, first out: what is ready to run.
//!
//! The simplest of the three containers that both hosts of a turn are made of (see also
//! [`Timers`](crate::Timers) and [`Inbox`](crate::Inbox)). It knows nothing of what it holds.
//!
//! # Invariants
//! - No method drops a `T`: dropping one may run foreign code that reaches the same queue again,
//!   while it is still borrowed. Values leave by return only.

use std::collections::VecDeque;

/// A growing first-in-first-out queue.
///
/// ```
/// use aioxide_runtime::Queue;
///
/// let mut queue = Queue::new();
/// queue.push("first");
/// queue.push("second");
/// assert_eq!(queue.pop(), Some("first"));
/// assert_eq!(queue.len(), 1);
/// ```
#[derive(Debug)]
pub struct Queue<T> {
    items: VecDeque<T>,
}

impl<T> Queue<T> {
    /// Makes an empty queue; it allocates with the first push.
    pub const fn new() -> Self {
        Self { items: VecDeque::new() }
    }

    /// Appends a value.
    #[inline]
    pub fn push(&mut self, value: T) {
        self.items.push_back(value);
    }

    /// Takes the oldest value.
    #[inline]
    #[must_use = "a value that leaves the queue is the caller's to run or to drop"]
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Takes everything, oldest first. The iterator does not borrow the queue, so that dropping its
    /// values may push new ones.
    #[must_use = "the values are dropped with the iterator, so choose where that happens"]
    pub fn clear(&mut self) -> impl ExactSizeIterator<Item = T> + use<T> {
        std::mem::take(&mut self.items).into_iter()
    }

    /// How many values wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Visits every value, oldest first.
    pub fn for_each(&self, visit: impl FnMut(&T)) {
        self.items.iter().for_each(visit);
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Extend<T> for Queue<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        self.items.extend(values);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::Queue;

    #[test]
    fn values_leave_in_the_order_they_came() {
        let mut queue = Queue::new();
        (0..5).for_each(|number| queue.push(number));
        assert_eq!(queue.pop(), Some(0));
        queue.push(5);
        let mut seen = Vec::new();
        queue.for_each(|number| seen.push(*number));
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_cleared_value_may_push_to_the_queue_while_it_is_dropped() {
        struct PushesWhenDropped(Rc<RefCell<Queue<PushesWhenDropped>>>, usize);
        impl Drop for PushesWhenDropped {
            fn drop(&mut self) {
                if self.1 > 0 {
                    self.0.borrow_mut().push(PushesWhenDropped(Rc::clone(&self.0), self.1 - 1));
                }
            }
        }
        let queue = Rc::new(RefCell::new(Queue::new()));
        queue.borrow_mut().push(PushesWhenDropped(Rc::clone(&queue), 2));
        let mut rounds = 0;
        while !queue.borrow().is_empty() {
            let values = queue.borrow_mut().clear();
            drop(values);
            rounds += 1;
        }
        assert_eq!(rounds, 3);
        assert_eq!(Rc::strong_count(&queue), 1);
    }
}
