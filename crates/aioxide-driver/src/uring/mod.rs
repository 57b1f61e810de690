//! The backend on io_uring(7), Linux 6.1 or newer.
//!
//! One ring, entered by one thread, which runs its deferred work only inside `wait`: so nothing
//! completes behind our back, and whether something could is a flag in memory. Operations queue in a
//! vector of ours and become entries in the next `wait`, all with the one syscall that also collects
//! (`io_uring_enter`). So a cancel before that is no more than forgetting, and the descriptor may be
//! closed at once.
//!
//! | an operation is | in `queue` | known to the kernel | `cancel`                              |
//! |-----------------|------------|---------------------|---------------------------------------|
//! | Queued          | yes        | no                  | forgets it, Cancelled at the next wait|
//! | Submitted       | no         | yes                 | asks the kernel, becomes Cancelling   |
//! | Restarting      | no         | yes                 | becomes Cancelling                    |
//! | Cancelling      | no         | yes                 | nothing                               |
//!
//! A repeating operation that the kernel ended by itself (its completion queue or the provided
//! buffers were full, a readiness was reported) becomes Queued again; the host does not notice.
//!
//! # Invariants
//! - The kernel knows an operation exactly in the last three stages; then its memory stays.
//! - Entries pushed to the submission queue are submitted before `wait` returns, so a descriptor's
//!   number is never read by the kernel after `cancel` returned (clause 8).
//! - After `wait` the completion queue has not overflowed: a later move to another thread finds all
//!   that happened in the memory it shares with the kernel.

mod answer;
mod buffers;
mod entry;
mod ring;

use std::fmt;
use std::io;
use std::time::Duration;

use io_uring::cqueue;
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use self::answer::{Answer, interpret};
use self::entry::{Operation, Reception, Stage};
use self::ring::Ring;
use crate::buffer::Pool;
use crate::choice::Options;
use crate::slots::{Key, Slots};
use crate::{Completion, Op, Outcome, Statistics, Submitted, Token, Waker, attempt, sys};

/// See the module's docs. The fields are dropped in this order: the ring is closed, and with it the
/// kernel's hold on memory ends, before any memory goes (clause 6).
pub(crate) struct Uring {
    ring: Ring,
    operations: Slots<Operation>,
    pool: Pool,
    /// To be lowered by the next wait. Keys of operations that are gone are passed over.
    queue: Vec<Key>,
    /// To be cancelled by the next wait, before `queue` is looked at.
    cancels: Vec<Key>,
    /// Whether something in `queue` was submitted since the last wait, other than what only goes on.
    has_new: bool,
    /// Completions found outside of `wait`, or due without the kernel.
    early: Vec<Completion>,
    waker: Waker,
    is_waker_watched: bool,
    /// A ring is shared with a forked child, which must leave it alone.
    process: Pid,
    options: Options,
    counts: Statistics,
}

impl Uring {
    pub(crate) fn open(options: &Options) -> io::Result<Uring> {
        Ok(Uring {
            ring: Ring::open(options)?,
            operations: Slots::new(),
            pool: Pool::new(),
            queue: Vec::new(),
            cancels: Vec::new(),
            has_new: false,
            early: Vec::new(),
            waker: Waker::new()?,
            is_waker_watched: false,
            process: getpid(),
            options: options.clone(),
            counts: Statistics::default(),
        })
    }

    pub(crate) fn submit(&mut self, mut op: Op, token: Token) -> Submitted {
        self.counts.submitted += 1;
        match &op {
            Op::Connect { .. } | Op::ReceiveMessage { .. } | Op::SendMessage { .. } => {
                if let Some(outcome) = attempt::begin(&mut op) {
                    return Submitted::Done(outcome);
                }
            }
            Op::WaitReadable { descriptor, .. } | Op::WaitWritable { descriptor, .. } => {
                if let Err(error) = sys::check_pollable(*descriptor) {
                    return Submitted::Done(Outcome::Failed(error));
                }
            }
            Op::Accept { .. } | Op::Receive { .. } | Op::ReceiveRepeatedly { .. } | Op::Send { .. } => {}
        }
        let operation = Operation { token, op, stage: Stage::Queued, reception: Reception::START };
        let key = self.operations.insert(token, operation);
        self.queue.push(key);
        self.has_new = true;
        Submitted::Pending
    }

    pub(crate) fn cancel(&mut self, token: Token) {
        let Some(key) = self.operations.find(token) else { return };
        let Some(operation) = self.operations.get_mut(key) else { return };
        match operation.stage {
            Stage::Queued => {
                // With its memory: nobody else knows it.
                drop(self.operations.remove(key, token));
                self.early.push(Completion { token, outcome: Outcome::Cancelled, more: false });
            }
            Stage::Submitted | Stage::Restarting => {
                operation.stage = Stage::Cancelling;
                let may_bind = matches!(operation.op, Op::Accept { .. } | Op::WaitReadable { .. });
                if may_bind {
                    self.release(key);
                } else {
                    self.cancels.push(key);
                }
            }
            Stage::Cancelling => {}
        }
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.counts.waits += 1;
        let before = completions.len();
        self.ring.enable()?;
        self.ring.buffers.give_back();
        let result = self.flush().and_then(|()| {
            let may_sleep = timeout != Some(Duration::ZERO)
                && self.early.is_empty()
                && !self.ring.has_completions()
                && self.waker.prepare_sleep();
            if may_sleep { self.ring.sleep(timeout) } else { self.ring.look() }
        });
        self.waker.finish();
        let result = result.or_else(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            // The timeout; a signal, which the host looks at; no room for now, which collecting makes.
            Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
            Some(Errno::EXIST) => self.move_to_this_thread(completions),
            _ => Err(error),
        });
        completions.append(&mut self.early);
        self.collect(completions, attempt::BYTES_PER_WAIT);
        self.pool.shrink();
        self.counts.completed += (completions.len() - before) as u64;
        result
    }

    pub(crate) fn has_unsubmitted(&self) -> bool {
        self.has_new || !self.cancels.is_empty()
    }

    /// Whether `wait` would find something: completions in memory, or work that only waits for us. Of what goes on but is
    /// not with the kernel only the kernel knows.
    pub(crate) fn ready_hint(&self) -> Option<bool> {
        if !self.early.is_empty() || self.ring.is_ready() {
            Some(true)
        } else if self.queue.is_empty() {
            Some(false)
        } else {
            None
        }
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let buffers_lent = self.ring.buffers.lent() + self.pool.lent();
        Statistics { in_flight: self.operations.len(), buffers_lent, ..self.counts }
    }

    /// Turns everything queued into entries. On an error the rest stays queued.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_waker_watched {
            self.ring.push(&entry::watch(self.waker.descriptor()))?;
            self.is_waker_watched = true;
        }
        while let Some(key) = self.cancels.last() {
            let entry = entry::cancel(*key);
            self.ring.push(&entry)?;
            self.cancels.pop();
        }
        let mut queue = std::mem::take(&mut self.queue);
        let mut flushed = 0;
        let result = queue.iter().try_for_each(|key| {
            self.start(*key)?;
            flushed += 1;
            Ok(())
        });
        queue.drain(..flushed);
        self.queue = queue;
        self.has_new &= result.is_err();
        result
    }

    /// Turns one queued operation into an entry.
    fn start(&mut self, key: Key) -> io::Result<()> {
        let Some(operation) = self.operations.get_mut(key) else { return Ok(()) };
        let is_provided = matches!(operation.reception, Reception::Provided { .. });
        if matches!(operation.op, Op::ReceiveRepeatedly { .. })
            && is_provided
            && self.ring.buffers.is_exhausted()
        {
            // The host holds every provided buffer. Bytes must not wait for it (clause 10).
            operation.reception = Reception::DIRECT;
        }
        let entry = entry::lower(operation, key);
        operation.stage = Stage::Submitted;
        let result = self.ring.push(&entry);
        if result.is_err()
            && let Some(operation) = self.operations.get_mut(key)
        {
            operation.stage = Stage::Queued;
        }
        result
    }

    /// Takes completions out of the queue, and out of the kernel's list where the queue was full.
    /// Stops when `limit` bytes were received directly, so that they are still in the cache when the
    /// host looks at them; the rest keeps its place.
    fn collect(&mut self, completions: &mut Vec<Completion>, limit: usize) {
        let mut received = 0;
        loop {
            while let Some(entry) = self.ring.next_entry() {
                received += self.handle(&entry, completions);
                if received >= limit && !self.ring.has_overflowed() {
                    return;
                }
            }
            if !self.ring.has_overflowed() || self.ring.look().is_err() {
                // A refused look leaves the list where it is, for the next wait.
                return;
            }
        }
    }

    /// Returns how many bytes were received directly.
    fn handle(&mut self, entry: &cqueue::Entry, completions: &mut Vec<Completion>) -> usize {
        let has_ended = !cqueue::more(entry.flags());
        match entry.user_data() {
            entry::CANCEL => return 0,
            entry::WAKE => {
                self.is_waker_watched &= !has_ended;
                return 0;
            }
            _ => {}
        }
        let key = Key::from_word(entry.user_data());
        let Some(operation) = self.operations.get_mut(key) else {
            unreachable!("{key:?} is not in flight, and the kernel answered {entry:?}");
        };
        let is_cancelling = operation.stage == Stage::Cancelling;
        let token = operation.token;
        let (outcome, is_over) = match interpret(operation, &mut self.ring.buffers, &mut self.pool, entry) {
            Answer::Again if is_cancelling && has_ended => (Some(Outcome::Cancelled), true),
            Answer::Again => (None, false),
            Answer::More(outcome) => (Some(outcome), is_cancelling && has_ended),
            Answer::Last(outcome) => (Some(outcome), true),
        };
        let is_direct = matches!(operation.reception, Reception::Direct { .. });
        let received = match &outcome {
            Some(Outcome::Received(buffer)) if is_direct => buffer.len(),
            _ => 0,
        };
        if let Some(outcome) = outcome {
            completions.push(Completion { token, outcome, more: !is_over });
        }
        if is_over {
            assert!(has_ended, "the last answer to {key:?}, and the kernel goes on: {entry:?}");
            drop(self.operations.remove(key, token));
        } else if has_ended {
            operation.reception.adapt();
            operation.stage = Stage::Queued;
            self.queue.push(key);
        } else if operation.stage == Stage::Submitted && operation.reception.is_unsuited() {
            operation.stage = Stage::Restarting;
            self.cancels.push(key);
        }
        received
    }

    /// Lets the kernel let go of a socket now. Its port would stay taken until the next wait, also when the descriptor is
    /// closed, and its peer would not see the end; a server may well be restarted before that.
    fn release(&mut self, key: Key) {
        if self.ring.push(&entry::cancel(key)).is_err() {
            self.cancels.push(key);
            return;
        }
        // On another thread than the ring's (EEXIST), or out of memory, the entry waits in the submission queue for the
        // next wait; the kernel finds operations by key, never by number. What completes waits in the completion queue.
        drop(self.ring.look());
    }

    /// The ring belongs to another thread, which no longer waits (clause 7). What it has not answered
    /// has had no effect: all its work is done inside `io_uring_enter`, on that thread. So collect
    /// the answers, close it, and start the rest on a new ring.
    fn move_to_this_thread(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if getpid() != self.process {
            return Err(io::Error::other("a driver cannot be used in a forked child: open another one"));
        }
        self.collect(completions, usize::MAX);
        self.ring = Ring::open(&self.options)?;
        self.is_waker_watched = false;
        self.cancels.clear();
        self.queue.clear();
        let mut cancelled = Vec::new();
        for (key, operation) in self.operations.iter_mut() {
            if operation.stage == Stage::Cancelling {
                cancelled.push((key, operation.token));
            } else {
                operation.stage = Stage::Queued;
                self.queue.push(key);
            }
        }
        // The new ring knows none of them.
        self.has_new = !self.queue.is_empty();
        for (key, token) in cancelled {
            drop(self.operations.remove(key, token));
            completions.push(Completion { token, outcome: Outcome::Cancelled, more: false });
        }
        Ok(())
    }
}

impl Drop for Uring {
    /// Ends what is in flight and waits for that, so that sockets and ports are free when the driver
    /// is gone. Where this thread may not enter the ring, closing it has to do: that ends the
    /// kernel's use of our memory at once, and of descriptors soon.
    fn drop(&mut self) {
        if !self.ring.is_enabled() || getpid() != self.process {
            return;
        }
        self.queue.clear();
        self.cancels.clear();
        let queued: Vec<_> = self
            .operations
            .iter_mut()
            .filter_map(|(key, operation)| {
                let was_queued = operation.stage == Stage::Queued;
                operation.stage = Stage::Cancelling;
                was_queued.then_some((key, operation.token))
            })
            .collect();
        for (key, token) in queued {
            drop(self.operations.remove(key, token));
        }
        if self.operations.len() == 0 || self.ring.push(&entry::cancel_all()).is_err() {
            return;
        }
        let mut discarded = Vec::new();
        for _ in 0..PARTING_WAITS {
            let result = self.ring.sleep(Some(PARTING_TIMEOUT));
            self.collect(&mut discarded, usize::MAX);
            if self.operations.len() == 0 || result.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("operations", &self.operations)
            .field("queue", &self.queue)
            .field("cancels", &self.cancels)
            .finish_non_exhaustive()
    }
}

/// Cancelling takes the kernel microseconds; after so long something is wrong, and closing is left.
const PARTING_TIMEOUT: Duration = Duration::from_millis(100);
const PARTING_WAITS: usize = 10;
