//! The one door for other threads: many producers, one consumer.
//!
//! A short lock around a `Vec`, and one flag that says whether it holds anything, so that the
//! consumer, which looks once a turn, pays one load while nothing came. The producer that finds the
//! inbox empty is told to wake the consumer; those after it need not.
//!
//! # Invariants
//! - Under the lock, `has_mail` equals "`items` is not empty"; outside it may lag, but a producer that
//!   was not told to wake pushed after one that was and before the consumer emptied the inbox.
//! - After `close` the inbox stays empty.
//! - No method drops a `T`, and none runs foreign code under the lock (see [`Queue`](crate::Queue)).

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, PoisonError};

/// Values on their way to the thread that runs the turn.
///
/// ```
/// use aioxide_runtime::Inbox;
///
/// let inbox = Inbox::new();
/// assert_eq!(inbox.push(1), Ok(true)); // it was empty: wake the consumer
/// assert_eq!(inbox.push(2), Ok(false));
/// let mut mail = Vec::new();
/// inbox.take(&mut mail);
/// assert_eq!(mail, [1, 2]);
/// assert!(inbox.is_empty());
/// ```
#[derive(Debug)]
pub struct Inbox<T> {
    has_mail: AtomicBool,
    contents: Mutex<Contents<T>>,
}

#[derive(Debug)]
struct Contents<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Inbox<T> {
    /// Makes an empty, open inbox.
    pub fn new() -> Self {
        Self {
            has_mail: AtomicBool::new(false),
            contents: Mutex::new(Contents { items: Vec::new(), closed: false }),
        }
    }

    /// Adds a value. `Ok(true)`: the inbox was empty, the caller must wake the consumer.
    /// `Err(value)`: the inbox is closed, the value comes back.
    #[inline]
    pub fn push(&self, value: T) -> Result<bool, T> {
        let mut contents = self.lock();
        if contents.closed {
            return Err(value);
        }
        contents.items.push(value);
        let was_empty = contents.items.len() == 1;
        if was_empty {
            self.has_mail.store(true, Ordering::Release);
        }
        Ok(was_empty)
    }

    /// Appends everything to `mail`, oldest first. An empty `mail` is swapped in, so that two
    /// vectors used in turn keep their capacity.
    pub fn take(&self, mail: &mut Vec<T>) {
        if self.is_empty() {
            return;
        }
        let mut contents = self.lock();
        self.has_mail.store(false, Ordering::Release);
        if mail.is_empty() {
            std::mem::swap(mail, &mut contents.items);
        } else {
            mail.append(&mut contents.items);
        }
    }

    /// Refuses further values and hands out those that are left.
    #[must_use = "what was left is the caller's to drop"]
    pub fn close(&self) -> Vec<T> {
        let mut contents = self.lock();
        contents.closed = true;
        self.has_mail.store(false, Ordering::Release);
        std::mem::take(&mut contents.items)
    }

    /// Whether nothing waits: one load, meant for every turn. A value being pushed at this moment may
    /// be missed; its producer then wakes the consumer.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.has_mail.load(Ordering::Acquire)
    }

    /// Visits what waits, oldest first. The visitor runs under the lock: it must not touch the inbox.
    pub fn for_each(&self, visit: impl FnMut(&T)) {
        self.lock().items.iter().for_each(visit);
    }

    fn lock(&self) -> MutexGuard<'_, Contents<T>> {
        // Only `for_each` runs foreign code under the lock, and it changes nothing.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::Inbox;

    #[test]
    fn values_keep_their_order_and_only_the_first_wakes() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1), Ok(true));
        assert_eq!(inbox.push(2), Ok(false));
        let mut mail = vec![0];
        inbox.take(&mut mail);
        assert_eq!(mail, [0, 1, 2]);
        assert_eq!(inbox.push(3), Ok(true));
        mail.clear();
        inbox.take(&mut mail);
        assert_eq!(mail, [3]);
    }

    #[test]
    fn a_closed_inbox_hands_values_back() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push("kept"), Ok(true));
        assert_eq!(inbox.close(), ["kept"]);
        assert_eq!(inbox.push("refused"), Err("refused"));
        assert!(inbox.is_empty());
        let mut mail = Vec::new();
        inbox.take(&mut mail);
        assert!(mail.is_empty());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "producers of a test")]
    fn many_threads_lose_nothing() {
        let each = if cfg!(miri) { 20 } else { 10_000 };
        let inbox = Arc::new(Inbox::new());
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || (0..each).map(|number| inbox.push(number)).all(|r| r.is_ok()))
            })
            .collect();
        let mut mail = Vec::new();
        while mail.len() < 4 * each {
            inbox.take(&mut mail);
            std::thread::yield_now();
        }
        for producer in producers {
            assert!(producer.join().is_ok_and(|all_accepted| all_accepted));
        }
        assert_eq!(mail.iter().filter(|number| **number == each - 1).count(), 4);
        assert!(inbox.is_empty());
    }
}
