//! What a future needs of its runtime: the state behind a shared handle, and which runtime is current.
//!
//! [`Runtime`](crate::Runtime) owns the state; net types, timers and join handles hold a [`Handle`].
//! Tasks hold handles and the state holds tasks, a cycle that the runtime's end breaks: it cancels
//! every task and takes the driver out. A handle that outlives it finds `driver` empty.
//!
//! # Invariants
//! - No borrow of a field is held while foreign code may run: wakers are called, and futures, wakers
//!   and outcomes dropped, after the borrow ended.
//! - Only this file and `runtime.rs` read the clock, through [`Handle::now`].

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::thread::ThreadId;
use std::time::Duration;

use aioxide_driver::{Driver, Op, Outcome, Submitted, Token, sys};

use crate::blocking::Pool;
use crate::operation::Slot;
use crate::slots::Slots;
use crate::tasks::{Door, Entry, JoinError, Runnable};
use crate::{Deadline, Queue, Timers};

/// Where a runtime takes the time from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The system's monotonic clock.
    Monotonic,
    /// Whatever the last [`Runtime::collect`](crate::Runtime::collect) was told, and zero before.
    /// [`Runtime::block_on`](crate::Runtime::block_on) lets it jump to the next deadline whenever
    /// nothing else can happen.
    Simulated,
}

/// A shared reference to a runtime's state. `!Send`, like everything it leads to.
#[derive(Clone)]
pub(crate) struct Handle(Rc<State>);

pub(crate) struct State {
    /// `None` once the runtime is gone.
    pub(crate) driver: RefCell<Option<Driver>>,
    pub(crate) operations: RefCell<Slots<Slot>>,
    pub(crate) timers: RefCell<Timers<Waker>>,
    pub(crate) tasks: RefCell<Slots<Entry>>,
    pub(crate) ready: RefCell<Queue<Runnable>>,
    /// Panics that are left for the host.
    pub(crate) panics: RefCell<Vec<JoinError>>,
    /// How other threads reach the ready queue.
    pub(crate) door: Arc<Door>,
    pub(crate) pool: Pool,
    /// How many more operations may succeed at once before the running task has to yield.
    pub(crate) patience: Cell<u32>,
    /// Counts spawned tasks, which orders them.
    pub(crate) spawned: Cell<u64>,
    /// The thread that the latest task was spawned on.
    pub(crate) home: Cell<Option<ThreadId>>,
    /// Whether `block_on` is running.
    pub(crate) is_running: Cell<bool>,
    clock: Clock,
    /// The time of the latest turn.
    turn: Cell<Deadline>,
}

/// Operations that may succeed without waiting in one run of a task. A socket that is always ready
/// would else keep its task running for ever.
pub(crate) const PATIENCE: u32 = 128;

thread_local! {
    static CURRENT: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

impl Handle {
    pub(crate) fn new(driver: Driver, clock: Clock) -> Self {
        let door = Arc::new(Door::new(driver.waker()));
        Self(Rc::new(State {
            driver: RefCell::new(Some(driver)),
            operations: RefCell::new(Slots::new()),
            timers: RefCell::new(Timers::new()),
            tasks: RefCell::new(Slots::new()),
            ready: RefCell::new(Queue::new()),
            panics: RefCell::default(),
            door,
            pool: Pool::new(),
            patience: Cell::new(PATIENCE),
            spawned: Cell::new(0),
            home: Cell::new(None),
            is_running: Cell::new(false),
            clock,
            turn: Cell::new(Deadline(0)),
        }))
    }

    /// The runtime that this thread has entered.
    ///
    /// # Panics
    /// Outside of every runtime.
    #[track_caller]
    pub(crate) fn current() -> Self {
        CURRENT.with_borrow(Clone::clone).unwrap_or_else(|| {
            panic!(
                "no aioxide runtime runs on this thread: call this from inside `aioxide_runtime::run`, \
                 `Runtime::block_on` or while a `Runtime::enter` guard lives"
            )
        })
    }

    /// Makes this the current runtime, or none; returns what was current before.
    pub(crate) fn replace_current(handle: Option<Self>) -> Option<Self> {
        CURRENT.replace(handle)
    }

    /// Calls `visit` with the state behind `door` if that is this thread's current runtime.
    #[inline]
    pub(crate) fn if_current<R>(door: &Arc<Door>, visit: impl FnOnce(&State) -> R) -> Option<R> {
        let look = |current: &RefCell<Option<Handle>>| match &*current.borrow() {
            Some(handle) if Arc::ptr_eq(&handle.door, door) => Some(visit(handle)),
            _ => None,
        };
        // A waker may be called while its thread ends and takes its thread-locals down.
        CURRENT.try_with(look).ok().flatten()
    }

    pub(crate) fn now(&self) -> Deadline {
        match self.clock {
            Clock::Monotonic => Deadline(sys::monotonic_now()),
            Clock::Simulated => self.turn.get(),
        }
    }

    /// The time after a wait that began at `before`; `slept` is its timeout if nothing ended it early.
    pub(crate) fn after_wait(&self, before: Deadline, slept: Option<Duration>) -> Deadline {
        match self.clock {
            Clock::Monotonic => self.now(),
            Clock::Simulated => before.after(slept.unwrap_or_default()),
        }
    }

    pub(crate) fn begin_turn(&self, now: Deadline) {
        self.turn.set(now);
        self.patience.set(PATIENCE);
    }

    /// Asks the driver; without one the operation fails.
    pub(crate) fn submit(&self, op: Op, token: Token) -> Submitted {
        match &mut *self.driver.borrow_mut() {
            Some(driver) => driver.submit(op, token),
            None => Submitted::Done(Outcome::Failed(io::Error::other("the runtime of this socket is gone"))),
        }
    }

    /// Cancels an operation. Whether its final completion is still to come: not without a driver.
    pub(crate) fn cancel(&self, token: Token) -> bool {
        match &mut *self.driver.borrow_mut() {
            Some(driver) => {
                driver.cancel(token);
                true
            }
            None => false,
        }
    }
}

impl std::ops::Deref for Handle {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handle").finish_non_exhaustive()
    }
}
