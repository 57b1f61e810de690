//! What shall happen when: values ordered by deadline, cheap to cancel.
//!
//! Most timers are cancelled before they fire (time-outs), so cancelling must not search or move
//! anything. Values live in a slab, the binary heap holds only `(deadline, sequence, index)`.
//! Cancelling takes the value out of its slot and leaves the heap entry behind as a *stale* one; stale
//! entries are skipped when they reach the top, and swept out together as soon as they are the
//! majority, so that the heap never grows beyond twice the live timers and a cancellation costs O(1)
//! amortised.
//!
//! # Invariants
//! - A heap entry is live if and only if its slot holds the same sequence number. Sequence numbers are
//!   never reused, so a key that outlived its timer finds nothing.
//! - `stale` is the number of heap entries that are not live.
//! - Timers with the same deadline leave in the order they were inserted.
//! - No method drops a `T` (see [`Queue`](crate::Queue)). There is no clock here: time is an argument.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::Duration;

/// A point in time: nanoseconds of the system's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub u64);

impl Deadline {
    /// The moment `duration` later; the end of time where that does not fit.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long it is from `now` until this moment; zero if it has passed.
    #[must_use]
    pub fn remaining(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }
}

/// Names one timer, also after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    sequence: NonZeroU64,
    index: u32,
}

/// Values that wait for their deadline.
///
/// ```
/// use aioxide_runtime::{Deadline, Timers};
///
/// let mut timers = Timers::new();
/// timers.insert(Deadline(20), "late");
/// let key = timers.insert(Deadline(10), "early");
/// assert_eq!(timers.cancel(key), Some("early"));
/// assert_eq!(timers.next_deadline(), Some(Deadline(20)));
/// assert_eq!(timers.pop_expired(Deadline(19)), None);
/// assert_eq!(timers.pop_expired(Deadline(20)), Some("late"));
/// ```
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Entry>,
    slots: Vec<Slot<T>>,
    /// The first of the free slots, which are chained through [`Slot::Free`].
    free: Option<u32>,
    live: usize,
    stale: usize,
    /// The sequence number of the next timer.
    sequence: NonZeroU64,
}

/// Below this many entries to be removed a sweep is not worth its set-up.
const SWEEP_THRESHOLD: usize = 64;

impl<T> Timers<T> {
    /// Makes an empty set of timers.
    pub const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: None,
            live: 0,
            stale: 0,
            sequence: NonZeroU64::MIN,
        }
    }

    /// Adds a value that expires at `deadline`.
    ///
    /// # Panics
    /// With 2³² live timers.
    pub fn insert(&mut self, deadline: Deadline, value: T) -> TimerKey {
        let sequence = self.sequence;
        // One timer per nanosecond would take five centuries to get there.
        self.sequence = sequence.saturating_add(1);
        let occupied = Slot::Occupied { sequence, value };
        let index = match self.free {
            Some(index) => {
                match std::mem::replace(&mut self.slots[index as usize], occupied) {
                    Slot::Free { next } => self.free = next,
                    Slot::Occupied { .. } => unreachable!("an occupied slot in the chain of free slots"),
                }
                index
            }
            None => {
                let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 timers are live");
                self.slots.push(occupied);
                index
            }
        };
        self.live += 1;
        self.heap.push(Entry { deadline, sequence, index });
        TimerKey { sequence, index }
    }

    /// Takes a timer out before it expires; `None` if it expired, was cancelled or cleared.
    #[must_use = "a cancelled value is the caller's to drop"]
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let value = self.take(key)?;
        self.stale += 1;
        if self.stale > SWEEP_THRESHOLD && self.stale > self.live {
            let slots = &self.slots;
            self.heap.retain(|entry| is_live(slots, entry));
            self.stale = 0;
        }
        Some(value)
    }

    /// The value of a timer that has not expired.
    pub fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Occupied { sequence, value }) if *sequence == key.sequence => Some(value),
            _ => None,
        }
    }

    /// When the next timer expires. It needs `&mut` to forget cancelled ones.
    #[inline]
    pub fn next_deadline(&mut self) -> Option<Deadline> {
        self.skip_stale();
        self.heap.peek().map(|entry| entry.deadline)
    }

    /// Takes the earliest timer whose deadline is not after `now`.
    #[must_use = "an expired value is the caller's to run or to drop"]
    pub fn pop_expired(&mut self, now: Deadline) -> Option<T> {
        if self.next_deadline()? > now {
            return None;
        }
        let Entry { sequence, index, .. } = self.heap.pop()?;
        self.take(TimerKey { sequence, index })
    }

    /// Takes every timer whose deadline is not after `now`, the earliest first; `visit` gets each.
    pub fn expire(&mut self, now: Deadline, mut visit: impl FnMut(T)) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) && self.many_are_due(now) {
            return self.expire_in_bulk(now, visit);
        }
        while let Some(value) = self.pop_expired(now) {
            visit(value);
        }
    }

    /// Whether, by a sample, some eighth of a great number is due.
    fn many_are_due(&self, now: Deadline) -> bool {
        const SAMPLE: usize = 16;
        let entries = self.heap.as_slice();
        if entries.len() < SWEEP_THRESHOLD {
            return false;
        }
        let sample = entries.iter().step_by(entries.len() / SAMPLE);
        sample.filter(|entry| entry.deadline <= now).count() > SAMPLE / 8
    }

    /// As [`Timers::expire`], where so many are due that it is cheaper to look at all and sort those than to take one after
    /// the other out of the heap. What was inserted in order is in order there.
    fn expire_in_bulk(&mut self, now: Deadline, mut visit: impl FnMut(T)) {
        let mut due = Vec::new();
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|entry| {
            let stays = entry.deadline > now;
            if !stays {
                due.push(*entry);
            }
            stays
        });
        self.heap = entries.into();
        due.sort_unstable_by_key(|entry| (entry.deadline, entry.sequence));
        for Entry { sequence, index, .. } in due {
            match self.take(TimerKey { sequence, index }) {
                Some(value) => visit(value),
                None => self.stale -= 1,
            }
        }
    }

    /// Takes everything, in no particular order. The iterator does not borrow the timers.
    #[must_use = "the values are dropped with the iterator, so choose where that happens"]
    pub fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.heap.clear();
        self.free = None;
        self.live = 0;
        self.stale = 0;
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| match slot {
            Slot::Occupied { value, .. } => Some(value),
            Slot::Free { .. } => None,
        })
    }

    /// How many timers wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no timer waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Visits every value that waits, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&T)) {
        for slot in &self.slots {
            if let Slot::Occupied { value, .. } = slot {
                visit(value);
            }
        }
    }

    /// Empties a timer's slot.
    #[inline]
    fn take(&mut self, key: TimerKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if !slot.holds(key.sequence) {
            return None;
        }
        let Slot::Occupied { value, .. } = std::mem::replace(slot, Slot::Free { next: self.free }) else {
            unreachable!("a free slot that holds a sequence number");
        };
        self.free = Some(key.index);
        self.live -= 1;
        Some(value)
    }

    #[inline]
    fn skip_stale(&mut self) {
        while self.stale > 0 && self.heap.peek().is_some_and(|entry| !is_live(&self.slots, entry)) {
            self.heap.pop();
            self.stale -= 1;
        }
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn is_live<T>(slots: &[Slot<T>], entry: &Entry) -> bool {
    slots[entry.index as usize].holds(entry.sequence)
}

#[derive(Debug)]
enum Slot<T> {
    Occupied { sequence: NonZeroU64, value: T },
    Free { next: Option<u32> },
}

impl<T> Slot<T> {
    #[inline]
    fn holds(&self, wanted: NonZeroU64) -> bool {
        matches!(self, Slot::Occupied { sequence, .. } if *sequence == wanted)
    }
}

/// What the heap orders: the greatest entry is the one that expires first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    deadline: Deadline,
    sequence: NonZeroU64,
    index: u32,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.sequence).cmp(&(self.deadline, self.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::{Deadline, SWEEP_THRESHOLD, Timers};

    #[test]
    fn timers_with_one_deadline_expire_in_the_order_of_insertion() {
        let mut timers = Timers::new();
        for number in 0..100 {
            timers.insert(Deadline(7), number);
        }
        let expired: Vec<_> = std::iter::from_fn(|| timers.pop_expired(Deadline(7))).collect();
        assert_eq!(expired, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_key_that_outlived_its_timer_cancels_nothing() {
        let mut timers = Timers::new();
        let expired = timers.insert(Deadline(1), 'a');
        assert_eq!(timers.pop_expired(Deadline(1)), Some('a'));
        let successor = timers.insert(Deadline(1), 'b');
        assert_eq!(timers.cancel(expired), None);
        assert_eq!(timers.get_mut(expired), None);
        assert_eq!(timers.cancel(successor), Some('b'));
        assert_eq!(timers.cancel(successor), None);
        assert_eq!(timers.next_deadline(), None);

        let cleared = timers.insert(Deadline(2), 'c');
        assert_eq!(timers.clear().collect::<Vec<_>>(), ['c']);
        timers.insert(Deadline(2), 'd');
        assert_eq!(timers.cancel(cleared), None);
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn cancelled_timers_do_not_accumulate() {
        let rounds = if cfg!(miri) { 1_000 } else { 1_000_000 };
        let mut timers = Timers::new();
        let early = timers.insert(Deadline(0), 0);
        for round in 0..rounds {
            let key = timers.insert(Deadline(1_000 + round), round);
            assert_eq!(timers.cancel(key), Some(round));
        }
        assert!(timers.heap.len() <= SWEEP_THRESHOLD + 2, "{} entries", timers.heap.len());
        assert!(timers.slots.len() <= 2, "{} slots", timers.slots.len());
        assert_eq!(timers.cancel(early), Some(0));
        assert_eq!(timers.next_deadline(), None);
        assert_eq!((timers.heap.len(), timers.stale), (0, 0));
    }

    #[test]
    fn deadlines_saturate() {
        use std::time::Duration;
        assert_eq!(Deadline(u64::MAX - 1).after(Duration::from_secs(1)), Deadline(u64::MAX));
        assert_eq!(Deadline(1).after(Duration::MAX), Deadline(u64::MAX));
        assert_eq!(Deadline(1).remaining(Deadline(5)), Duration::ZERO);
        assert_eq!(Deadline(5).remaining(Deadline(1)), Duration::from_nanos(4));
    }
}
