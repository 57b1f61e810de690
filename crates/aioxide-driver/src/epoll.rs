//! The backend on epoll(7): tries the syscall, waits for readiness, tries again.
//!
//! Level-triggered, with one registration per descriptor whose interest is the union of what its
//! operations wait for. Several operations of one direction on one descriptor queue up in order.
//!
//! # Invariants
//! - The kernel's interest in a descriptor equals `armed`, and `armed` equals what the queues want,
//!   whenever `submit`, `cancel` or `wait` returns. So a descriptor without operations is not
//!   registered, and its owner may close it (clause 8).
//! - A registration's user data holds a generation, which changes with every registration, so that a
//!   report collected before a cancel is not taken for one about a reused number.
//! - The host never runs during `wait`, so a descriptor in `touched` is still the one it was.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::buffer::Pool;
use crate::op::Direction;
use crate::slots::{Key, Slots};
use crate::{Completion, Op, Outcome, Statistics, Submitted, Token, Waker, attempt, sys};

/// See the module's docs.
#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: OwnedFd,
    operations: Slots<Operation>,
    /// By descriptor number: numbers are small, the kernel gives out the lowest.
    registrations: Vec<Registration>,
    /// Descriptors whose queues changed during this `wait`.
    touched: Vec<RawFd>,
    /// Completions that are due without the kernel: those of cancelled operations.
    early: Vec<Completion>,
    /// Whether operations began that no `wait` has asked about.
    has_unasked: bool,
    pool: Pool,
    /// How many events the next wait asks for: fewer while they bring much data, see `adapt`.
    batch: usize,
    waker: Waker,
    counts: Statistics,
}

#[derive(Debug)]
struct Operation {
    token: Token,
    op: Op,
}

#[derive(Debug, Default)]
struct Registration {
    generation: u32,
    /// What the kernel was told; empty: not registered.
    armed: Interest,
    readers: Vec<Key>,
    writers: Vec<Key>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interest {
    read: bool,
    write: bool,
}

impl Epoll {
    pub(crate) fn open() -> io::Result<Epoll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(WAKE);
        epoll::add(&epoll, sys::borrow(waker.descriptor())?, data, flags)?;
        Ok(Epoll {
            epoll,
            operations: Slots::new(),
            registrations: Vec::new(),
            touched: Vec::new(),
            early: Vec::new(),
            has_unasked: false,
            pool: Pool::new(),
            batch: LARGEST_BATCH,
            waker,
            counts: Statistics::default(),
        })
    }

    pub(crate) fn submit(&mut self, mut op: Op, token: Token) -> Submitted {
        self.counts.submitted += 1;
        let descriptor = op.descriptor();
        if let Err(error) = self.make_room(descriptor) {
            return Submitted::Done(Outcome::Failed(error));
        }
        // A first try must not overtake operations that wait in the same direction.
        if self.queue(descriptor, op.direction()).is_empty()
            && let Some(outcome) = attempt::begin(&mut op)
        {
            return Submitted::Done(outcome);
        }
        let direction = op.direction();
        let key = self.operations.insert(token, Operation { token, op });
        self.queue(descriptor, direction).push(key);
        match self.arm(descriptor) {
            Ok(()) => {
                self.has_unasked = true;
                Submitted::Pending
            }
            Err(error) => {
                self.queue(descriptor, direction).pop();
                // Dropped here with its memory: an answered op has no completion (clause 2).
                drop(self.operations.remove(key, token));
                Submitted::Done(Outcome::Failed(error))
            }
        }
    }

    pub(crate) fn has_unasked(&self) -> bool {
        self.has_unasked
    }

    pub(crate) fn cancel(&mut self, token: Token) {
        let Some(key) = self.operations.find(token) else { return };
        let Some(Operation { op, .. }) = self.operations.remove(key, token) else { return };
        let descriptor = op.descriptor();
        let queue = self.queue(descriptor, op.direction());
        queue.retain(|waiting| *waiting != key);
        self.disarm(descriptor);
        self.early.push(Completion { token, outcome: Outcome::Cancelled, more: false });
    }

    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.counts.waits += 1;
        self.has_unasked = false;
        let before = completions.len();
        let may_sleep =
            timeout != Some(Duration::ZERO) && self.early.is_empty() && self.waker.prepare_sleep();
        let timeout = if may_sleep { timeout } else { Some(Duration::ZERO) };
        // A duration beyond what the kernel can count is for ever.
        let timeout = timeout.and_then(|duration| Timespec::try_from(duration).ok());
        // On the stack: rustix's events are not `Send`, and the driver is.
        let mut events = [MaybeUninit::uninit(); LARGEST_BATCH];
        let result = epoll::wait(&self.epoll, &mut events[..self.batch], timeout.as_ref());
        self.waker.finish();
        completions.append(&mut self.early);
        let events = match result {
            Ok((events, _)) => events,
            // A signal: the host looks at it (clause 3).
            Err(Errno::INTR) => &mut [],
            Err(errno) => return Err(errno.into()),
        };
        let count = events.len();
        for event in events {
            self.handle_event(*event, completions);
        }
        self.adapt(count, &completions[before..]);
        while let Some(descriptor) = self.touched.pop() {
            self.disarm(descriptor);
        }
        self.pool.shrink();
        self.counts.completed += (completions.len() - before) as u64;
        Ok(())
    }

    pub(crate) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        Statistics { in_flight: self.operations.len(), buffers_lent: self.pool.lent(), ..self.counts }
    }

    /// Keeps what one wait receives small enough to be still in the cache when the host looks at it.
    /// What is not asked for stays first in the kernel's list, so nobody starves (epoll_wait(2)).
    fn adapt(&mut self, count: usize, completions: &[Completion]) {
        let received: usize = completions
            .iter()
            .map(|completion| match &completion.outcome {
                Outcome::Received(buffer) => buffer.len(),
                _ => 0,
            })
            .sum();
        if received > attempt::BYTES_PER_WAIT {
            self.batch = (count / 2).max(SMALLEST_BATCH);
        } else if count == self.batch && received < attempt::BYTES_PER_WAIT / 2 {
            self.batch = (count * 2).min(LARGEST_BATCH);
        }
    }

    fn handle_event(&mut self, event: epoll::Event, completions: &mut Vec<Completion>) {
        let (data, flags) = (event.data.u64(), event.flags);
        if data == WAKE {
            return;
        }
        let descriptor = data as u32 as RawFd;
        let is_current = self
            .registrations
            .get(descriptor as usize)
            .is_some_and(|registration| registration.generation == (data >> 32) as u32);
        if !is_current {
            return;
        }
        // Errors and hang-ups concern both directions: the syscall tells which.
        let broken = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if flags.intersects(epoll::EventFlags::IN | broken) {
            self.advance(descriptor, Direction::Read, completions);
        }
        if flags.intersects(epoll::EventFlags::OUT | broken) {
            self.advance(descriptor, Direction::Write, completions);
        }
    }

    /// Lets the operations of one direction try again, in order.
    fn advance(&mut self, descriptor: RawFd, direction: Direction, completions: &mut Vec<Completion>) {
        let mut queue = std::mem::take(self.queue(descriptor, direction));
        let waiting = queue.len();
        queue.retain(|key| {
            let is_finished = self.try_again(*key, completions);
            !is_finished
        });
        if queue.len() < waiting {
            self.touched.push(descriptor);
        }
        *self.queue(descriptor, direction) = queue;
    }

    /// One try of one operation; whether that was its final answer.
    fn try_again(&mut self, key: Key, completions: &mut Vec<Completion>) -> bool {
        let Some(operation) = self.operations.get_mut(key) else {
            unreachable!("{key:?} is queued but not in flight");
        };
        let token = operation.token;
        let mut report = |outcome, more| completions.push(Completion { token, outcome, more });
        let is_finished = match &mut operation.op {
            Op::WaitReadable { repeat, .. } | Op::WaitWritable { repeat, .. } => {
                report(Outcome::Ready, *repeat);
                !*repeat
            }
            Op::Accept { listener } => accept_some(*listener, report),
            Op::ReceiveRepeatedly { socket } => receive_once(*socket, &mut self.pool, report),
            single => match attempt::resume(single) {
                Some(outcome) => {
                    report(outcome, false);
                    true
                }
                None => false,
            },
        };
        if is_finished {
            drop(self.operations.remove(key, token));
        }
        is_finished
    }

    /// Makes the table reach `descriptor`.
    fn make_room(&mut self, descriptor: RawFd) -> io::Result<()> {
        let index = usize::try_from(descriptor).map_err(|_| Errno::BADF)?;
        if index >= self.registrations.len() {
            // Not for a number that cannot be open: the table would become as large as it.
            rustix::io::fcntl_getfd(sys::borrow(descriptor)?)?;
            self.registrations.resize_with(index + 1, Registration::default);
        }
        Ok(())
    }

    fn queue(&mut self, descriptor: RawFd, direction: Direction) -> &mut Vec<Key> {
        let registration = &mut self.registrations[descriptor as usize];
        match direction {
            Direction::Read => &mut registration.readers,
            Direction::Write => &mut registration.writers,
        }
    }

    /// Tells the kernel what a descriptor's queues want, if it does not know yet.
    fn arm(&mut self, descriptor: RawFd) -> io::Result<()> {
        let registration = &mut self.registrations[descriptor as usize];
        let wanted =
            Interest { read: !registration.readers.is_empty(), write: !registration.writers.is_empty() };
        if wanted == registration.armed {
            return Ok(());
        }
        let source = sys::borrow(descriptor)?;
        if wanted == Interest::default() {
            registration.armed = wanted;
            return Ok(epoll::delete(&self.epoll, source)?);
        }
        let was_armed = registration.armed != Interest::default();
        if !was_armed {
            registration.generation = registration.generation.wrapping_add(1) & GENERATION_BITS;
        }
        let word = (u64::from(registration.generation) << 32) | descriptor as u64;
        let data = epoll::EventData::new_u64(word);
        let mut result = Err(Errno::NOENT);
        if was_armed {
            result = epoll::modify(&self.epoll, source, data, wanted.flags());
        }
        // ENOENT: its owner closed it without a cancel, and the number was given out again.
        if result == Err(Errno::NOENT) {
            result = epoll::add(&self.epoll, source, data, wanted.flags());
        }
        // EEXIST: closed behind our back too, but a duplicate kept the registration alive.
        if result == Err(Errno::EXIST) {
            result = epoll::modify(&self.epoll, source, data, wanted.flags());
        }
        result?;
        registration.armed = wanted;
        Ok(())
    }

    /// `arm` after queues became shorter.
    fn disarm(&mut self, descriptor: RawFd) {
        if self.arm(descriptor).is_err() {
            // Only a descriptor that its owner closed behind our back refuses (EBADF, ENOENT, EPERM
            // for another file under the number). The kernel has forgotten it by itself then.
            self.registrations[descriptor as usize].armed = Interest::default();
        }
    }
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// Accepts what is there, up to a bound that keeps one listener from starving the rest; whether the
/// operation is over.
fn accept_some(listener: RawFd, mut report: impl FnMut(Outcome, bool)) -> bool {
    for _ in 0..ACCEPTS_PER_WAIT {
        match sys::accept(listener) {
            Ok(socket) => report(Outcome::Accepted(socket), true),
            Err(error) if sys::would_block(&error) => return false,
            Err(error) if sys::is_lost_connection(&error) => {}
            Err(error) => {
                report(Outcome::Failed(error), false);
                return true;
            }
        }
    }
    false
}

/// Receives once; whether the operation is over. What is left makes the descriptor ready again.
fn receive_once(socket: RawFd, pool: &mut Pool, mut report: impl FnMut(Outcome, bool)) -> bool {
    match attempt::receive(socket, pool) {
        Ok(buffer) if !buffer.is_empty() => {
            report(Outcome::Received(buffer), true);
            return false;
        }
        Ok(end) => report(Outcome::Received(end), false),
        Err(error) if sys::would_block(&error) => return false,
        Err(error) => report(Outcome::Failed(error), false),
    }
    true
}

/// The waker's user data: no generation is that large.
const WAKE: u64 = u64::MAX;
const GENERATION_BITS: u32 = u32::MAX >> 1;
/// What does not fit is reported by the next wait.
const LARGEST_BATCH: usize = 512;
const SMALLEST_BATCH: usize = 4;
const ACCEPTS_PER_WAIT: usize = 64;
