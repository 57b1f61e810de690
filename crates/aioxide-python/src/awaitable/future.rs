//! Rust futures inside an [`Awaitable`], and the wakers they get.
//!
//! A future need not be `Send`: it is made, polled and dropped by the thread that runs its loop, with the runtime of
//! that loop as the current one. A waker may be used by any thread. On the loop's own it puts the waiting task on the
//! ready queue, from elsewhere it goes through the inbox, without touching Python.
//!
//! A future must not own Python objects that can reach the awaitable: the collector cannot see into it.
//!
//! # Invariants
//! - A future is polled by the thread that made it, while that runs the loop; elsewhere it is refused, not polled.
//! - A future that wakes itself while it is polled goes on in the next turn, after whatever else is ready.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use super::waiter::Waiter;
use super::{Awaitable, Step, Work};
use crate::callback::Callback;
use crate::event_loop::EventLoop;
use crate::loop_cell::ThreadBound;

/// What a future of ours looks like to the loop.
pub type BoxedFuture = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>>>>;

/// A Rust future and who waits for it.
pub struct RustFuture {
    event_loop: Py<EventLoop>,
    /// `None` once it was dropped.
    future: Option<ThreadBound<BoxedFuture>>,
    waking: Arc<Waking>,
}

impl RustFuture {
    /// Make a Python awaitable of a future; `name` is what a coroutine of the same purpose would be called.
    pub fn awaitable(
        event_loop: &Bound<'_, EventLoop>,
        name: &'static str,
        future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
    ) -> PyResult<Py<Awaitable>> {
        let py = event_loop.py();
        event_loop.get().check_thread()?;
        let waking = Waking {
            event_loop: event_loop.clone().unbind(),
            thread: std::thread::current().id(),
            state: Mutex::new(Wakefulness::Polled),
        };
        let future = Self {
            event_loop: event_loop.clone().unbind(),
            future: Some(ThreadBound::new(Box::pin(future))),
            waking: Arc::new(waking),
        };
        Awaitable::new(py, name, Work::Future(future))
    }

    /// Poll it.
    pub fn advance(&mut self, py: Python<'_>) -> PyResult<Step> {
        let event_loop = self.event_loop.get();
        let future = self.future.as_mut().and_then(|future| event_loop.bound_to_thread(future));
        let Some(future) = future else {
            return Err(PyRuntimeError::new_err(
                "a Rust future is awaited on another loop or thread than it was made for, which does not run here",
            ));
        };
        *self.waking.lock() = Wakefulness::Polled;
        let runtime = event_loop.with_core(|core| core.runtime.clone())?;
        let polled = {
            let _current = runtime.enter();
            let waker = Waker::from(Arc::clone(&self.waking));
            future.as_mut().poll(&mut Context::from_waker(&waker))
        };
        if let Poll::Ready(result) = polled {
            return result.map(Step::Done);
        }
        let waiter = Waiter::new(py, self.event_loop.clone_ref(py).into_any())?;
        let mut state = self.waking.lock();
        if matches!(*state, Wakefulness::Woken) {
            drop(state);
            // As `sleep(0)`: the task's step goes to the end of the queue.
            return Ok(Step::Yield(py.None()));
        }
        *state = Wakefulness::Asleep(waiter.clone_ref(py));
        Ok(Step::Yield(waiter.into_any()))
    }

    /// Whether it was not woken since it was polled.
    pub fn is_waiting(&self) -> bool {
        matches!(*self.waking.lock(), Wakefulness::Asleep(_))
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        match self.waking.state.try_lock().as_deref() {
            Ok(Wakefulness::Asleep(waiter)) => visit.call(waiter),
            _ => Ok(()),
        }
    }
}

impl Drop for RustFuture {
    /// On any thread. Wakers that are left wake nobody.
    fn drop(&mut self) {
        let state = mem::replace(&mut *self.waking.lock(), Wakefulness::Woken);
        drop(state);
        if let Some(future) = self.future.take() {
            self.event_loop.get().release(future);
        }
    }
}

/// Drop a value, a future say; what its `drop` panics with concerns nobody else.
pub fn drop_quietly<T>(value: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        // The panic hook has told of it.
    }
}

/// What the wakers of a future share.
struct Waking {
    event_loop: Py<EventLoop>,
    /// The thread on which it was made.
    thread: ThreadId,
    state: Mutex<Wakefulness>,
}

/// Where a future is between two polls.
enum Wakefulness {
    /// It is being polled, or was not polled yet.
    Polled,
    /// It was woken, or is gone.
    Woken,
    /// A task waits.
    Asleep(Py<Waiter>),
}

impl Waking {
    fn lock(&self) -> MutexGuard<'_, Wakefulness> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let previous = mem::replace(&mut *self.lock(), Wakefulness::Woken);
        let Wakefulness::Asleep(waiter) = previous else { return };
        let event_loop = self.event_loop.get();
        let is_here = std::thread::current().id() == self.thread;
        event_loop.hand_in(Callback::Wake(waiter), is_here);
    }
}
