//! The runtime: what a host drives turn by turn, and `block_on`, the host for Rust users.
//!
//! A host's turn, in its own words: decide from [`Runtime::has_ready`] and [`Runtime::next_deadline`] how
//! long to sleep; let the driver [`wait`](aioxide_driver::Driver::wait); [`Runtime::collect`] what came;
//! [`Runtime::run_tasks`]. [`Runtime::block_on`] below is exactly that, with one more future beside the
//! tasks.
//!
//! # Invariants
//! - Neither half of a turn starves the other: a batch of tasks is bounded, an expired timer or a
//!   completion only wakes, and an operation that keeps succeeding at once makes its task yield.
//! - The runtime's end aborts the tasks, the last spawned first, then closes the driver, which returns
//!   when the kernel has let go of every buffer.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use aioxide_driver::{Completion, Driver, Options};

use crate::handle::{Clock, Handle, PATIENCE};
use crate::slots::SlotKey;
use crate::tasks::{self, Door, JoinError, JoinHandle};
use crate::{Deadline, blocking, operation};

/// Runs a future, and all it spawns, on this thread until it is done. The driver is chosen by the
/// environment variable `AIOXIDE_DRIVER`.
///
/// ```
/// let answer = aioxide_runtime::run(async {
///     let task = aioxide_runtime::spawn(async { 6 * 7 });
///     task.await
/// })?;
/// assert_eq!(answer.ok(), Some(42));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    Runtime::new(&Options::from_env()?)?.block_on(future)
}

/// Makes a task of a future on the current runtime; it need not be `Send`.
///
/// # Panics
/// Outside of a runtime.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tasks::spawn(&Handle::current(), tasks::default_name::<F>(), future)
}

/// Makes a task of a future on the current runtime, under a name for [`Runtime::tasks`].
///
/// # Panics
/// Outside of a runtime.
#[track_caller]
pub fn spawn_named<F>(name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tasks::spawn(&Handle::current(), name.into(), future)
}

/// Tasks, timers and a driver, on one thread.
///
/// One turn of a host that has nothing of its own:
/// ```
/// use std::time::Duration;
///
/// use aioxide_driver::{Options, sys};
/// use aioxide_runtime::{Deadline, Runtime, sleep};
///
/// let runtime = Runtime::new(&Options::default())?;
/// let task = runtime.spawn(async { sleep(Duration::from_millis(1)).await });
/// let mut completions = Vec::new();
/// while !task.is_finished() {
///     let now = Deadline(sys::monotonic_now());
///     let timeout = match runtime.has_ready() {
///         true => Some(Duration::ZERO),
///         false => runtime.next_deadline().map(|deadline| deadline.remaining(now)),
///     };
///     runtime.with_driver(|driver| driver.wait(timeout, &mut completions))?;
///     runtime.collect(Deadline(sys::monotonic_now()), &mut completions);
///     completions.clear(); // A host would look at those of its own tokens.
///     runtime.run_tasks(64);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
}

/// How many tasks `block_on` runs before it asks the kernel, even while more are ready.
const BATCH: usize = 61;

impl Runtime {
    /// Opens a driver and makes a runtime of it.
    pub fn new(options: &Options) -> io::Result<Self> {
        Ok(Self::from_driver(Driver::open(options)?, Clock::Monotonic))
    }

    /// Makes a runtime of a driver, for tests also one that plays a script, in simulated time.
    #[must_use]
    pub fn from_driver(driver: Driver, clock: Clock) -> Self {
        Self { handle: Handle::new(driver, clock) }
    }

    /// Runs a future, and tasks meanwhile, until it is done. Tasks that are left stay with the runtime.
    ///
    /// An error is the driver's: it cannot wait any more. Completions for host tokens are dropped, and
    /// so are [panics of tasks](Runtime::take_panics), of which the panic hook has told.
    ///
    /// # Panics
    /// Inside of a task, and where `future` panics.
    pub fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        let _guard = self.enter();
        let _running = Running::begin(&self.handle);
        let mut future = pin!(future);
        let main =
            Arc::new(MainWaker { is_woken: AtomicBool::new(true), door: Arc::clone(&self.handle.door) });
        let waker = Waker::from(Arc::clone(&main));
        let mut context = Context::from_waker(&waker);
        let mut completions = Vec::new();
        let mut unasked = 0;
        loop {
            if main.is_woken.swap(false, Ordering::Acquire) {
                self.handle.patience.set(PATIENCE);
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return Ok(output);
                }
            }
            unasked += 1 + self.run_tasks(BATCH);
            drop(self.take_panics());
            let mut now = self.handle.now();
            let is_ready = main.is_woken.load(Ordering::Acquire) || self.has_ready();
            if !is_ready || unasked >= BATCH || self.io_is_ready() {
                let timeout = match is_ready {
                    true => Some(Duration::ZERO),
                    false => self.next_deadline().map(|deadline| deadline.remaining(now)),
                };
                self.with_driver(|driver| driver.wait(timeout, &mut completions))?;
                now = self.handle.after_wait(now, timeout.filter(|_| completions.is_empty()));
                unasked = 0;
            }
            self.collect(now, &mut completions);
            completions.clear();
        }
    }

    /// Makes this the thread's current runtime, the one that [`spawn`], [`sleep`](crate::sleep) and
    /// the net types use, until the guard is dropped. Guards end in reverse order.
    pub fn enter(&self) -> EnterGuard<'_> {
        let previous = Handle::replace_current(Some(self.handle.clone()));
        EnterGuard { previous, runtime: PhantomData }
    }

    /// Makes a task of a future; it need not be `Send`.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tasks::spawn(&self.handle, tasks::default_name::<F>(), future)
    }

    /// Makes a task of a future, under a name for [`Runtime::tasks`].
    pub fn spawn_named<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tasks::spawn(&self.handle, name.into(), future)
    }

    /// Runs `job` on a thread of the pool.
    pub fn spawn_blocking<T, F>(&self, job: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        blocking::spawn(&self.handle, job)
    }

    /// Lends the driver, to wait or to submit operations with host tokens. `visit` must not use the
    /// runtime.
    // The four small ones are asked in every turn: strewn over the program they cost more than what they do.
    #[inline(always)]
    pub fn with_driver<R>(&self, visit: impl FnOnce(&mut Driver) -> R) -> R {
        let mut driver = self.handle.driver.borrow_mut();
        visit(driver.as_mut().expect("the driver lives as long as the runtime"))
    }

    /// What ends the driver's wait from any thread.
    #[must_use]
    pub fn waker(&self) -> aioxide_driver::Waker {
        self.handle.door.waker.clone()
    }

    /// Whether a task is runnable, or one was woken on another thread. Then do not sleep.
    #[inline(always)]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.handle.ready.borrow().is_empty() || !self.handle.door.inbox.is_empty()
    }

    /// When the next timer expires. Do not sleep longer.
    #[inline(always)]
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.handle.timers.borrow_mut().next_deadline()
    }

    /// Takes in what happened until `now`: wakes tasks that other threads woke, then those whose
    /// operations completed, then those whose timers expired. Completions of host tokens stay in
    /// `completions`, in order.
    pub fn collect(&self, now: Deadline, completions: &mut Vec<Completion>) {
        self.handle.begin_turn(now);
        let _guard = self.enter();
        tasks::open_mail(&self.handle);
        // The host's turns mostly bring the host's completions: one scan then, nothing moves.
        if completions.iter().any(|completion| SlotKey::from_token(completion.token).is_some()) {
            for completion in std::mem::take(completions) {
                match SlotKey::from_token(completion.token) {
                    Some(key) => operation::complete(&self.handle, key, completion),
                    None => completions.push(completion),
                }
            }
        }
        loop {
            let expired = self.handle.timers.borrow_mut().pop_expired(now);
            let Some(waker) = expired else { break };
            waker.wake();
        }
    }

    /// Runs tasks that are ready now, at most `budget` of them; those they wake wait for the next call.
    pub fn run_tasks(&self, budget: usize) -> usize {
        if self.handle.ready.borrow().is_empty() {
            return 0;
        }
        let _guard = self.enter();
        tasks::run(&self.handle, budget)
    }

    /// The names of the tasks that have not ended, in the order they were spawned. One that was given
    /// none is called after the type of its future, which says where that was written.
    ///
    /// ```
    /// use std::future::pending;
    ///
    /// use aioxide_driver::Options;
    /// use aioxide_runtime::Runtime;
    ///
    /// let runtime = Runtime::new(&Options::default())?;
    /// drop(runtime.spawn_named("connection", pending::<()>()));
    /// drop(runtime.spawn_named(format!("worker {}", 1), pending::<()>()));
    /// assert_eq!(runtime.tasks(), ["connection", "worker 1"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        tasks::names(&self.handle)
    }

    /// Whether this is the thread of the tasks, or there are none. A host that moved the runtime to
    /// another thread must not let tasks run there.
    #[must_use]
    pub fn is_at_home(&self) -> bool {
        tasks::is_at_home(&self.handle)
    }

    /// Whether a task panicked that nobody awaits: see [`Runtime::take_panics`].
    #[inline(always)]
    #[must_use]
    pub fn has_panics(&self) -> bool {
        !self.handle.panics.borrow().is_empty()
    }

    /// The panics of tasks whose handles were dropped, before the panic or after, for the host to tell
    /// of; [`JoinError::task_name`] says whose they are. A panic that was awaited is not among them.
    #[must_use = "a panic is to be told of"]
    pub fn take_panics(&self) -> Vec<JoinError> {
        self.handle.panics.take()
    }

    /// What is alive. All of it is zero when nothing runs and nothing leaked.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            tasks: self.handle.tasks.borrow().len(),
            timers: self.handle.timers.borrow().len(),
            operations: self.handle.operations.borrow().len(),
            blocking_threads: self.handle.pool.threads(),
        }
    }

    /// Aborts all tasks, the last spawned first, and drops their futures now, so that a task is gone
    /// before what it may use; drops blocking jobs that have not begun; cancels the operations of futures that are not tasks, which a later
    /// [`Runtime::collect`] tells them. Dropping the runtime does this too.
    ///
    /// The tasks of another thread cannot be dropped on this one: they are leaked.
    pub fn shutdown(&self) {
        let _guard = self.enter();
        match self.is_at_home() {
            true => tasks::abort_all(&self.handle),
            false => tasks::abandon_all(&self.handle),
        }
        self.handle.pool.close();
        let keys = self.handle.operations.borrow().keys();
        for key in keys {
            self.handle.cancel(key.token());
        }
    }

    /// Whether asking the driver would bring something, as far as can be told without a syscall.
    fn io_is_ready(&self) -> bool {
        self.with_driver(|driver| driver.ready_hint() == Some(true))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shutdown();
        let _guard = self.enter();
        let refused = self.handle.door.inbox.close();
        debug_assert!(refused.is_empty(), "a task outlived the shutdown");
        let driver = self.handle.driver.take();
        drop(driver);
        operation::clear(&self.handle);
        let wakers = self.handle.timers.borrow_mut().clear();
        drop(wakers);
    }
}

/// Ends [`Runtime::enter`].
#[derive(Debug)]
#[must_use = "the runtime is current only while the guard lives"]
pub struct EnterGuard<'runtime> {
    previous: Option<Handle>,
    runtime: PhantomData<&'runtime Runtime>,
}

impl Drop for EnterGuard<'_> {
    fn drop(&mut self) {
        let own = Handle::replace_current(self.previous.take());
        drop(own);
    }
}

/// What is alive in a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Spawned tasks that have not ended.
    pub tasks: usize,
    /// Timers that have not expired.
    pub timers: usize,
    /// Driver operations whose final completion has not come.
    pub operations: usize,
    /// Threads of the blocking pool, idle ones included.
    pub blocking_threads: usize,
}

/// Marks the runtime as being blocked on; no turn inside of a turn.
struct Running<'handle>(&'handle Handle);

impl<'handle> Running<'handle> {
    fn begin(handle: &'handle Handle) -> Self {
        assert!(!handle.is_running.replace(true), "`block_on` inside of a future of the same runtime");
        Self(handle)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.set(false);
    }
}

/// Wakes the future of `block_on`.
struct MainWaker {
    is_woken: AtomicBool,
    door: Arc<Door>,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was_woken = self.is_woken.swap(true, Ordering::AcqRel);
        // On its own thread, the flag is looked at before the next wait.
        if !was_woken && Handle::if_current(&self.door, |_| ()).is_none() {
            self.door.waker.wake();
        }
    }
}
