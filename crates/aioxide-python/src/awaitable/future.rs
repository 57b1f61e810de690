//! Rust futures inside an [`Awaitable`], and the wakers they get.
//!
//! A future need not be `Send`: it is made, polled and dropped by the thread that runs its loop. The loop's runtime is the
//! current one there for as long as the loop runs. A waker may be used by any thread. On the loop's own it puts the
//! waiting task on the ready queue, from elsewhere it goes through the inbox, without touching Python.
//!
//! A future must not own Python objects that can reach the awaitable: the collector cannot see into it.
//!
//! # Invariants
//! - A future is polled by the thread that made it, while that runs the loop; elsewhere it is refused, not polled.
//! - A future that wakes itself while it is polled goes on in the next turn, after whatever else is ready.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use aioxide_awaitable_abi::waker::{Lazy, Wake};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use super::waiter::Waiter;
use super::{Awaitable, Step, Work};
use crate::callback::Callback;
use crate::error::{ThinErr, ThinResult};
use crate::event_loop::EventLoop;
use crate::event_loop::running::runs_here;
use crate::ffi::call;
use crate::ffi::extension::ForeignFuture;
use crate::loop_cell::ThreadBound;

/// What a future looks like to the loop.
pub enum AnyFuture {
    /// One of ours.
    Own(Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>>>>),
    /// One of an extension's.
    Foreign(ForeignFuture),
    /// None any more.
    Over,
}

impl AnyFuture {
    /// Put one of ours where it stays.
    pub fn new(future: impl Future<Output = PyResult<Py<PyAny>>> + 'static) -> Self {
        Self::Own(Box::pin(future))
    }

    #[inline(always)]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ThinResult<Py<PyAny>>> {
        match self {
            Self::Own(future) => future.as_mut().poll(context).map_err(ThinErr::from),
            Self::Foreign(future) => future.poll_thin(context),
            Self::Over => Poll::Pending,
        }
    }
}

/// A Rust future and who waits for it.
pub struct RustFuture {
    /// `None` once it was dropped.
    future: Option<ThreadBound<AnyFuture>>,
    /// What its wakers wake; taken once it is over.
    waking: Lazy<Waking>,
}

impl RustFuture {
    /// Make a Python awaitable of the future that `future` gives, on the thread that is to poll it; `name` is what a
    /// coroutine of the same purpose would be called.
    ///
    /// Where it fails, `future` was not called.
    #[inline(always)]
    pub fn awaitable(
        event_loop: Bound<'_, EventLoop>,
        name: &'static str,
        future: impl FnOnce() -> AnyFuture,
    ) -> PyResult<Py<Awaitable>> {
        event_loop.get().check_process()?;
        Awaitable::of_made(event_loop.py(), name, || {
            Work::Future(Self {
                future: Some(ThreadBound::new(future())),
                waking: Lazy::new(Waking {
                    event_loop: event_loop.unbind(),
                    state: Mutex::new(Wakefulness::Polled),
                }),
            })
        })
    }

    /// Poll it.
    pub fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let waking = self.waking.get();
        let future = waking
            .zip(self.future.as_mut())
            .and_then(|(waking, future)| waking.event_loop.get().bound_to_thread(future));
        let Some(future) = future else {
            return Err(PyRuntimeError::new_err(
                "a Rust future is awaited on another loop or thread than it was made for, which does not run here",
            )
            .into());
        };
        if let Some(waking) = self.waking.get_unshared() {
            waking.begin_unshared_poll();
        } else if let Some(waking) = self.waking.get() {
            waking.begin_poll();
        }
        let polled = self.waking.with_waker(|waker| future.poll(&mut Context::from_waker(waker)));
        let Poll::Ready(result) = polled else { return self.fall_asleep(py) };
        // Here and not by `finish`, which would have to find out again that this is its thread.
        if let AnyFuture::Own(_) = future {
            drop_quietly(mem::replace(future, AnyFuture::Over));
        }
        self.future = None;
        result.map(Step::Done)
    }

    /// Have the task wait, unless the future was woken meanwhile.
    fn fall_asleep(&mut self, py: Python<'_>) -> ThinResult<Step> {
        // As `sleep(0)`: the task's step goes to the end of the queue.
        let go_on = Ok(Step::Yield(py.None()));
        let Some(waking) = self.waking.get() else { return go_on };
        if waking.was_woken() {
            return go_on;
        }
        let waiter = Waiter::new(py, waking.event_loop.clone_ref(py).into_any())?;
        let mut state = waking.lock();
        if matches!(*state, Wakefulness::Woken) {
            return go_on;
        }
        // Perhaps there is no waker, and nothing will wake it; but the task may be cancelled.
        *state = Wakefulness::Asleep(waiter.clone_ref(py));
        Ok(Step::Yield(waiter.into_any()))
    }

    /// Whether it was not woken since it was polled.
    pub fn is_waiting(&mut self) -> bool {
        self.waking.get().is_some_and(|waking| matches!(*waking.lock(), Wakefulness::Asleep(_)))
    }

    /// Drop the future, of which no more is wanted. Wakers that are left wake nobody. It holds nothing after that.
    #[inline]
    pub fn finish(&mut self, py: Python<'_>) {
        if let Some(Waking { event_loop, .. }) = self.waking.take_unshared() {
            self.release_future(&event_loop);
            call::release(py, event_loop);
        } else if let Some(waking) = self.waking.take_shared() {
            let state = mem::replace(&mut *waking.lock(), Wakefulness::Woken);
            drop(state);
            self.release_future(&waking.event_loop);
        }
    }

    fn release_future(&mut self, event_loop: &Py<EventLoop>) {
        if let Some(future) = self.future.take() {
            event_loop.get().release(future);
        }
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&mut self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // What wakers hold is not this one's alone: who waits for them is not garbage, whatever else has forgotten it.
        let Some(waking) = self.waking.get_unheld() else { return Ok(()) };
        visit.call(&waking.event_loop)?;
        match waking.state.try_lock().as_deref() {
            Ok(Wakefulness::Asleep(waiter)) => visit.call(waiter),
            _ => Ok(()),
        }
    }
}

impl Drop for RustFuture {
    /// One that nobody awaited, on any thread.
    fn drop(&mut self) {
        if self.waking.get().is_some() {
            Python::attach(|py| self.finish(py));
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
    /// As `begin_poll`, while nobody else knows of it.
    fn begin_unshared_poll(&mut self) {
        *self.state.get_mut().unwrap_or_else(PoisonError::into_inner) = Wakefulness::Polled;
    }

    fn begin_poll(&self) {
        let previous = mem::replace(&mut *self.lock(), Wakefulness::Polled);
        drop(previous);
    }

    fn was_woken(&self) -> bool {
        matches!(*self.lock(), Wakefulness::Woken)
    }

    fn lock(&self) -> MutexGuard<'_, Wakefulness> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waking {
    fn wake(&self) {
        let previous = mem::replace(&mut *self.lock(), Wakefulness::Woken);
        let Wakefulness::Asleep(waiter) = previous else { return };
        self.event_loop.get().hand_in(Callback::Wake(waiter), runs_here(&self.event_loop));
    }
}
