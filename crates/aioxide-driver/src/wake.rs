//! Waking a waiting driver from any thread.
//!
//! An eventfd is a counter in the kernel that can be polled. The backend polls it edge-triggered, so
//! it is written to wake and never read: every write is a new edge, and the counter would need
//! centuries to fill. A flag keeps writes rare: only a wake that meets a sleeper makes the syscall.
//!
//! | state    | `notify`             | `prepare_sleep`    | `finish`          |
//! |----------|----------------------|--------------------|-------------------|
//! | Awake    | Notified             | Asleep, may sleep  | Awake             |
//! | Asleep   | Notified, must write | (impossible)       | Awake             |
//! | Notified | Notified             | stays, no sleeping | Awake             |
//!
//! # Invariants
//! Only the waiting thread calls `prepare_sleep` and `finish`, in that order, once per wait. A wake
//! between two waits leaves Notified, so the next wait does not sleep (clause 5). A write that comes
//! late, after `finish`, ends some later wait early, which clause 3 allows.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys;

/// Ends a driver's `wait` from any thread, also one that has not begun (contract clause 5).
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flag: WakeFlag,
    counter: OwnedFd,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let counter = sys::event_counter()?;
        Ok(Waker { shared: Arc::new(Shared { flag: WakeFlag::new(), counter }) })
    }

    /// Ends the wait that goes on, or else the next one.
    pub fn wake(&self) {
        if self.shared.flag.notify() {
            // The only possible error is a full counter, whose sleeper has unseen edges enough.
            let _ = sys::write(self.descriptor(), &1_u64.to_ne_bytes());
        }
    }

    /// What the backend polls, edge-triggered.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.counter.as_raw_fd()
    }

    /// Before sleeping: whether the waiting thread may.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.shared.flag.prepare_sleep()
    }

    /// At the end of every wait, slept or not: uses up the wakes so far.
    pub(crate) fn finish(&self) {
        self.shared.flag.finish();
    }
}

/// The state of the table above.
#[derive(Debug)]
struct WakeFlag {
    state: AtomicU8,
}

impl WakeFlag {
    fn new() -> WakeFlag {
        WakeFlag { state: AtomicU8::new(AWAKE) }
    }

    /// Whether the sleeper has to be woken by a write.
    fn notify(&self) -> bool {
        self.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }

    fn prepare_sleep(&self) -> bool {
        let change = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        debug_assert_ne!(change, Err(ASLEEP), "two threads wait on one driver");
        change.is_ok()
    }

    fn finish(&self) {
        // A swap, not a store: it reads what the wakers wrote, so what they did before is visible.
        self.state.swap(AWAKE, Ordering::AcqRel);
    }
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

#[cfg(all(test, loom))]
mod model {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::WakeFlag;

    /// The eventfd as the backends use it: a write is an edge that ends the sleep.
    struct Counter {
        edges: Mutex<usize>,
        changed: Condvar,
    }

    struct World {
        flag: WakeFlag,
        counter: Counter,
        mail: AtomicUsize,
        writes: AtomicUsize,
    }

    impl World {
        fn new() -> Arc<World> {
            Arc::new(World {
                flag: WakeFlag::new(),
                counter: Counter { edges: Mutex::new(0), changed: Condvar::new() },
                mail: AtomicUsize::new(0),
                writes: AtomicUsize::new(0),
            })
        }

        fn post_and_wake(&self) {
            self.mail.fetch_add(1, Ordering::Relaxed);
            if self.flag.notify() {
                self.writes.fetch_add(1, Ordering::Relaxed);
                *self.counter.edges.lock().unwrap() += 1;
                self.counter.changed.notify_one();
            }
        }

        /// One `Driver::wait` without a timeout: a lost wake would sleep here for ever, which loom
        /// reports as a deadlock.
        fn wait(&self) {
            if self.flag.prepare_sleep() {
                let mut edges = self.counter.edges.lock().unwrap();
                while *edges == 0 {
                    edges = self.counter.changed.wait(edges).unwrap();
                }
                *edges = 0;
            }
            self.flag.finish();
        }
    }

    #[test]
    fn no_wake_is_lost_and_what_it_announced_is_seen() {
        loom::model(|| {
            let world = World::new();
            let other = world.clone();
            let poster = thread::spawn(move || other.post_and_wake());
            while world.mail.load(Ordering::Relaxed) == 0 {
                world.wait();
            }
            poster.join().unwrap();
        });
    }

    #[test]
    fn two_wakers_write_at_most_once_per_wait() {
        let mut model = loom::model::Builder::new();
        // Three threads have too many interleavings to walk them all.
        model.preemption_bound = Some(2);
        model.check(|| {
            let world = World::new();
            let posters: Vec<_> = (0..2)
                .map(|_| {
                    let other = world.clone();
                    thread::spawn(move || other.post_and_wake())
                })
                .collect();
            let mut waits = 0;
            while world.mail.load(Ordering::Relaxed) < 2 {
                world.wait();
                waits += 1;
            }
            for poster in posters {
                poster.join().unwrap();
            }
            assert!(world.writes.load(Ordering::Relaxed) <= waits);
        });
    }
}
