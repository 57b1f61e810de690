//! Spawned futures: running, joining, aborting them.
//!
//! `async-task` keeps a task's future, state and output in one allocation and makes its wakers sound;
//! this file decides where a woken task goes, and how a task ends.
//!
//! - A waker called on the thread that has entered the task's runtime puts the task at the end of the
//!   ready queue; anywhere else the task goes through the [`Door`], and the driver is woken.
//! - A task ends by itself, by panicking, or by being aborted. Aborting sets a flag and wakes the task;
//!   its next run drops the future instead of polling it. So every future is dropped inside a poll,
//!   where a panic of a destructor is caught too and fails that task only.
//! - A panic goes to who awaits the task. Where nobody does, it is kept for the runtime's host.
//! - All tasks end in the reverse order of spawning: a task may use what was spawned before it (a
//!   client's connection, say), also while it is dropped.
//!
//! # Invariants
//! - Every task that has not ended is in `State::tasks`, which keeps a waker and so the task alive.
//! - A task runs and ends on the thread that spawned it (`async-task` panics otherwise). So all tasks
//!   that live at the same time are of one thread, and what ends the runtime on another leaks them.
//! - No panic leaves a task's body: `async-task` would abort the process over some of them.

use std::any::{Any, type_name};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use async_task::{Builder, FallibleTask};

use crate::Inbox;
use crate::handle::{Handle, PATIENCE};
use crate::slots::{SlotKey, Slots};

/// A task that is to run. Its metadata is its place in the order of spawning.
pub(crate) type Runnable = async_task::Runnable<u64>;

/// The registry's record of a task.
pub(crate) struct Entry {
    waker: Waker,
    name: Cow<'static, str>,
    order: u64,
    is_aborted: bool,
    /// Nobody has the join handle any more.
    is_detached: bool,
}

/// How tasks woken on other threads come in.
pub(crate) struct Door {
    pub(crate) inbox: Inbox<Runnable>,
    pub(crate) waker: aioxide_driver::Waker,
}

impl Door {
    pub(crate) fn new(waker: aioxide_driver::Waker) -> Self {
        Self { inbox: Inbox::new(), waker }
    }
}

/// Makes a task of a future. It first runs in a later batch.
pub(crate) fn spawn<F>(handle: &Handle, name: Cow<'static, str>, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let order = handle.spawned.replace(handle.spawned.get() + 1);
    assert!(is_at_home(handle), "a task is spawned on another thread than those that live");
    handle.home.set(Some(thread::current().id()));
    // The task needs its key to look up the flag, the registry its waker: the key comes first.
    let waker = Waker::noop().clone();
    let entry = Entry { waker, name, order, is_aborted: false, is_detached: false };
    let key = handle.tasks.borrow_mut().insert(entry);
    let registration = Registration { handle: handle.clone(), key };
    let body = async move {
        let registration = registration;
        let mut future = pin!(Some(future));
        let ended = poll_fn(|context| {
            let Some(running) = future.as_mut().as_pin_mut() else {
                unreachable!("a task is polled after it ended");
            };
            if registration.is_aborted() {
                return Poll::Ready(Ok(None));
            }
            match caught(|| running.poll(context)) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(output)) => Poll::Ready(Ok(Some(output))),
                Err(payload) => Poll::Ready(Err(payload)),
            }
        })
        .await;
        // What is dropped may panic as well; the first panic is the one to tell of.
        let dropped = caught(|| future.set(None));
        registration.end(ended.and_then(|output| dropped.map(|()| output)))
    };
    let door = Arc::clone(&handle.door);
    let schedule = move |runnable| schedule(&door, runnable);
    let (runnable, task) = Builder::new().metadata(order).spawn_local(move |_| body, schedule);
    if let Some(entry) = handle.tasks.borrow_mut().get_mut(key) {
        entry.waker = runnable.waker();
    }
    handle.ready.borrow_mut().push(runnable);
    JoinHandle { task: Some(task.fallible()), handle: handle.clone(), key }
}

/// Whether the tasks that live are this thread's, or there are none.
pub(crate) fn is_at_home(handle: &Handle) -> bool {
    handle.tasks.borrow().len() == 0 || handle.home.get() == Some(thread::current().id())
}

/// What a future is called that was given no name: its type, which says where it was written.
pub(crate) fn default_name<F>() -> Cow<'static, str> {
    Cow::Borrowed(type_name::<F>())
}

/// The names of the tasks that have not ended, in the order of spawning.
pub(crate) fn names(handle: &Handle) -> Vec<String> {
    let tasks = handle.tasks.borrow();
    let mut entries: Vec<_> = tasks.keys().into_iter().filter_map(|key| tasks.get(key)).collect();
    entries.sort_unstable_by_key(|entry| entry.order);
    entries.into_iter().map(|entry| entry.name.to_string()).collect()
}

/// Runs code that must not unwind further.
fn caught<R>(run: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(run))
}

/// What a panic carries.
type Payload = Box<dyn Any + Send>;

fn schedule(door: &Arc<Door>, runnable: Runnable) {
    let mut runnable = Some(runnable);
    Handle::if_current(door, |state| state.ready.borrow_mut().extend(runnable.take()));
    let Some(runnable) = runnable else { return };
    match door.inbox.push(runnable) {
        Ok(true) => door.waker.wake(),
        Ok(false) => {}
        // The runtime ended while this very task was running, so it could not be cancelled. Its
        // future must not be dropped here, perhaps on a foreign thread: leak it.
        Err(runnable) => std::mem::forget(runnable),
    }
}

/// Runs tasks that were ready when it began, at most `budget` of them.
pub(crate) fn run(handle: &Handle, budget: usize) -> usize {
    let count = budget.min(handle.ready.borrow().len());
    for done in 0..count {
        let runnable = handle.ready.borrow_mut().pop();
        // Fewer than there were: a task ran the runtime itself, or shut it down.
        let Some(runnable) = runnable else { return done };
        handle.patience.set(PATIENCE);
        runnable.run();
    }
    count
}

/// Moves what other threads woke to the ready queue.
pub(crate) fn open_mail(handle: &Handle) {
    if !handle.door.inbox.is_empty() {
        let mut mail = Vec::new();
        handle.door.inbox.take(&mut mail);
        handle.ready.borrow_mut().extend(mail);
    }
}

/// Aborts every task, the last spawned first, and lets each drop its future. Tasks that destructors
/// spawn meanwhile are aborted as well.
pub(crate) fn abort_all(handle: &Handle) {
    loop {
        let keys = handle.tasks.borrow().keys();
        for key in keys {
            abort(handle, key);
        }
        open_mail(handle);
        let mut runnables: Vec<_> = handle.ready.borrow_mut().clear().collect();
        if runnables.is_empty() {
            return;
        }
        runnables.sort_by_key(|runnable| Reverse(*runnable.metadata()));
        for runnable in runnables {
            runnable.run();
        }
    }
}

/// Leaves the tasks of another thread to the process: they can neither run nor be dropped here.
pub(crate) fn abandon_all(handle: &Handle) {
    let mut mail = Vec::new();
    handle.door.inbox.take(&mut mail);
    std::mem::forget(mail);
    std::mem::forget(handle.ready.borrow_mut().clear().collect::<Vec<_>>());
    std::mem::forget(handle.tasks.replace(Slots::new()));
}

fn abort(handle: &Handle, key: SlotKey) {
    let waker = handle.tasks.borrow_mut().get_mut(key).map(|entry| {
        entry.is_aborted = true;
        entry.waker.clone()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Takes the task out of the registry when its body ends, however it ends.
struct Registration {
    handle: Handle,
    key: SlotKey,
}

impl Registration {
    fn is_aborted(&self) -> bool {
        self.handle.tasks.borrow().get(self.key).is_some_and(|entry| entry.is_aborted)
    }

    /// The result for the join handle, of a body that ended, was aborted (`None`) or panicked. Without
    /// a handle nothing of it may be left, for it would be dropped where no panic is caught.
    fn end<T>(self, ended: Result<Option<T>, Payload>) -> Result<T, JoinError> {
        let entry = self.handle.tasks.borrow_mut().remove(self.key);
        let Some(Entry { name, is_detached, .. }) = entry else {
            unreachable!("a task ends twice");
        };
        let panicked = |payload| JoinError { reason: Reason::Panicked { task: name, payload } };
        if !is_detached {
            return ended.map_err(panicked)?.ok_or(JoinError::CANCELLED);
        }
        if let Err(payload) = ended.and_then(|output| caught(|| drop(output))) {
            self.handle.panics.borrow_mut().push(panicked(payload));
        }
        Err(JoinError::CANCELLED)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.handle.tasks.borrow_mut().remove(self.key);
        drop(entry);
    }
}

/// Waits for a spawned task. Dropping it lets the task run on its own.
///
/// ```
/// use aioxide_runtime::spawn;
///
/// aioxide_runtime::run(async {
///     let task = spawn(std::future::pending::<()>());
///     task.abort();
///     assert!(task.await.is_err_and(|error| error.is_cancelled()));
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "a task runs on its own when its handle is dropped; say so with `drop`"]
pub struct JoinHandle<T> {
    /// `None` while it is being dropped.
    task: Option<FallibleTask<Result<T, JoinError>, u64>>,
    handle: Handle,
    key: SlotKey,
}

impl<T> JoinHandle<T> {
    /// Asks the task to end at its next turn, its future dropped where it waits. Nothing happens if it
    /// has ended. Awaiting the handle then tells [`JoinError::is_cancelled`].
    pub fn abort(&self) {
        abort(&self.handle, self.key);
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.task else {
            unreachable!("a join handle is polled while it is dropped");
        };
        Pin::new(task).poll(context).map(|ended| ended.unwrap_or(Err(JoinError::CANCELLED)))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let Some(mut task) = self.task.take() else { return };
        if let Some(entry) = self.handle.tasks.borrow_mut().get_mut(self.key) {
            entry.is_detached = true;
        }
        if task.is_finished() {
            // Unless it was taken, the result is here; nobody else will ask for it.
            let taken = Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(Some(Err(error))) = taken
                && error.is_panic()
            {
                self.handle.panics.borrow_mut().push(error);
            }
        }
        task.detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}

/// Why a task has no result.
pub struct JoinError {
    reason: Reason,
}

enum Reason {
    Cancelled,
    Panicked { task: Cow<'static, str>, payload: Payload },
}

impl JoinError {
    const CANCELLED: Self = Self { reason: Reason::Cancelled };

    /// Whether the task was aborted, or its runtime ended.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.reason, Reason::Cancelled)
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.reason, Reason::Panicked { .. })
    }

    /// The name of a task that panicked.
    pub fn task_name(&self) -> Option<&str> {
        match &self.reason {
            Reason::Cancelled => None,
            Reason::Panicked { task, .. } => Some(task),
        }
    }

    /// The panic's payload, for [`std::panic::resume_unwind`]; the error itself if there was none.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self.reason {
            Reason::Panicked { payload, .. } => Ok(payload),
            Reason::Cancelled => Err(self),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Cancelled => formatter.write_str("the task was cancelled"),
            Reason::Panicked { payload, .. } => {
                let message = payload.downcast_ref::<&str>().copied();
                let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(formatter, "the task panicked: {}", message.unwrap_or("(no message)"))
            }
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> Self {
        // `JoinError` is not `Sync`, because a payload is not.
        Self::other(error.to_string())
    }
}
