//! What `call_soon_threadsafe` returns from Python 3.14 on (asyncio's `_ThreadSafeHandle`).
//!
//! Who cancels it from another thread, or asks whether it was cancelled, waits for the end of a callback that has begun. That
//! takes a lock only where anybody has the handle when the callback begins: most programs let go of it at once.
//!
//! # Invariant
//! The lock is there while the callback runs, held by the thread that runs it, and at no other time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, intern};

use super::{Record, own_context, run};
use crate::event_loop::EventLoop;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;
use crate::ffi::{call, collector};
use crate::imports::imports;

/// A callback that another thread may have handed in.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct ThreadsafeHandle {
    event_loop: Py<EventLoop>,
    record: GilCell<Record>,
    cancelled: AtomicBool,
    /// A `threading.RLock`, so that the callback may cancel its own handle.
    lock: GilCell<Option<Py<PyAny>>>,
}

impl ThreadsafeHandle {
    /// Wrap a record.
    pub fn new(event_loop: &Bound<'_, EventLoop>, record: Record) -> Self {
        let event_loop = event_loop.clone().unbind();
        let (record, cancelled) = (GilCell::new(record), AtomicBool::new(false));
        Self { event_loop, record, cancelled, lock: GilCell::new(None) }
    }

    /// Run the callback unless it was cancelled.
    pub fn run(slf: &Bound<'_, Self>, event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
        if !collector::is_shared(slf) {
            return run(slf, &slf.get().record, event_loop);
        }
        let py = slf.py();
        let lock = imports(py)?.reentrant_lock.bind(py).call0()?;
        lock.call_method0(intern!(py, "acquire"))?;
        *slf.get().lock.borrow_mut(py) = Some(lock.clone().unbind());
        let ran = run(slf, &slf.get().record, event_loop);
        let ours = slf.get().lock.borrow_mut(py).take();
        drop(ours);
        lock.call_method0(intern!(py, "release"))?;
        ran
    }

    /// Do something that waits for the end of a callback that has begun on another thread.
    fn after_the_callback<R>(slf: &Bound<'_, Self>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        let py = slf.py();
        let lock = slf.get().lock.borrow(py).as_ref().map(|lock| lock.bind(py).clone());
        let Some(lock) = lock else { return body() };
        lock.call_method0(intern!(py, "acquire"))?;
        let result = body();
        lock.call_method0(intern!(py, "release"))?;
        result
    }
}

impl Recycled for ThreadsafeHandle {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

handle_methods!(ThreadsafeHandle, threadsafe_handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::after_the_callback(slf, || Ok(slf.get()._cancelled()))
    }

    /// Cancel the callback. Cancelling twice, or after it ran, does nothing.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::after_the_callback(slf, || {
            if !Self::mark_cancelled(slf)? {
                return Ok(());
            }
            let taken = slf.get().record.borrow_mut(slf.py()).clear();
            drop(taken);
            Ok(())
        })
    }
]);
