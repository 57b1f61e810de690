//! What `call_soon_threadsafe` returns from Python 3.14 on (asyncio's `_ThreadSafeHandle`).
//!
//! Who cancels it from another thread, or asks whether it was cancelled, waits for the end of a callback that has begun. That
//! takes a lock only where anybody has the handle when the callback begins: most programs let go of it at once.
//!
//! # Invariant
//! The lock is there while the callback runs, held by the thread that runs it, and at no other time.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::{ffi, intern};

use super::running::{run, run_known};
use super::{Common, KeptHandles, Scheduled, methods};
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::collector;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::reuse::Kept;
use crate::imports::imports;

/// A callback that another thread may have handed in.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct ThreadsafeHandle {
    common: Common,
    /// A `threading.RLock`, so that the callback may cancel its own handle.
    lock: GilCell<Option<Py<PyAny>>>,
}

impl Scheduled for ThreadsafeHandle {
    fn empty(common: Common) -> Self {
        Self { common, lock: GilCell::new(None) }
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn kept_by(kept: &KeptHandles) -> &Kept<Self> {
        &kept.threadsafe
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
    }
}

/// Hold a lock during `body`.
fn locked<R, E: From<PyErr>>(lock: &Bound<'_, PyAny>, body: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    lock.call_method0(intern!(lock.py(), "acquire"))?;
    let result = body();
    lock.call_method0(intern!(lock.py(), "release"))?;
    result
}

impl ThreadsafeHandle {
    /// Run the callback unless it was cancelled.
    pub fn run(slf: Py<Self>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
        let py = event_loop.py();
        let handle = slf.bind(py);
        if !collector::is_known(handle) {
            return run(slf, event_loop);
        }
        let lock = imports(py)?.reentrant_lock.bind(py).call0()?;
        locked(&lock, || {
            *handle.get().lock.borrow_mut(py) = Some(lock.clone().unbind());
            let ran = run_known(handle, event_loop);
            let ours = handle.get().lock.borrow_mut(py).take();
            drop(ours);
            ran
        })
    }

    /// Do something that waits for the end of a callback that has begun on another thread.
    fn after_the_callback<R>(slf: &Bound<'_, Self>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        let py = slf.py();
        let lock = slf.get().lock.borrow(py).as_ref().map(|lock| lock.bind(py).clone());
        let Some(lock) = lock else { return body() };
        locked(&lock, body)
    }
}

handle_methods!(ThreadsafeHandle, threadsafe_handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::after_the_callback(slf, || Ok(slf.get()._cancelled()))
    }

    /// Cancel the callback. Cancelling twice, or after it ran, does nothing.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::after_the_callback(slf, || methods::cancel(slf).map(drop))
    }
]);
