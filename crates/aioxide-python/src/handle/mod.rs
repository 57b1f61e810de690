//! [`Handle`], [`TimerHandle`] and [`ThreadsafeHandle`]: what `call_soon`, `call_later`, `call_soon_threadsafe` and the
//! watchers return.
//!
//! They are not subclasses of asyncio's (Python classes cannot be extended without losing the inline
//! layout), but `isinstance` holds: their `__class__` says so, and `repr` is asyncio's own.

#[macro_use]
mod methods;
mod record;
mod running;
mod spares;
mod threadsafe;
mod timer;

use std::sync::atomic::AtomicBool;

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, PyClass, PyTraverseError};

pub use self::record::live_handles;
use self::record::{Origins, Record};
pub use self::running::{ends_the_loop, run, run_without_handle};
pub use self::spares::Spares;
pub use self::threadsafe::ThreadsafeHandle;
pub use self::timer::TimerHandle;
use crate::event_loop::EventLoop;
use crate::ffi::collector::new_hidden;
use crate::ffi::gil_cell::GilCell;

/// What every handle is made of.
pub struct Common {
    event_loop: Py<EventLoop>,
    record: GilCell<Record>,
    cancelled: AtomicBool,
}

impl Common {
    /// Of a handle that has nothing to call yet.
    fn new(event_loop: &Bound<'_, EventLoop>) -> Self {
        Self {
            event_loop: event_loop.clone().unbind(),
            record: GilCell::new(Record::empty()),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Show the garbage collector what the handle keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        self.record.look(visit).map_or(Ok(()), |record| record.traverse(visit))
    }
}

/// A class of handles.
pub trait Scheduled: PyClass<Frozen = True> + Sync {
    /// What it has in common with the others.
    fn common(&self) -> &Common;
}

/// A class of handles of which those that nobody has are used again.
pub trait Spared: Scheduled + Into<pyo3::PyClassInitializer<Self>> {
    /// Make one with nothing to call.
    fn empty(common: Common) -> Self;

    /// Those of a loop that are kept.
    fn spares(event_loop: &EventLoop) -> &Spares<Self>;
}

/// Make a handle for `callback(*arguments)` in `context`, or in one with the variables of this moment. The garbage
/// collector does not see it: it is meant for a queue.
#[inline]
pub fn make<T: Spared>(
    event_loop: &Bound<'_, EventLoop>,
    callback: Borrowed<'_, '_, PyAny>,
    arguments: &[Borrowed<'_, '_, PyAny>],
    context: Option<Borrowed<'_, '_, PyAny>>,
) -> PyResult<Py<T>> {
    let py = event_loop.py();
    let origins = Origins::new(event_loop, context)?;
    let spare = T::spares(event_loop.get()).take(py);
    let handle = match spare {
        Some(handle) => handle,
        None => new_hidden(py, T::empty(Common::new(event_loop)))?,
    };
    handle.get().common().record.borrow_mut(py).fill(callback, arguments, origins);
    Ok(handle)
}

/// A callback that waits in the ready queue, or a watcher's.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct Handle {
    common: Common,
}

impl Scheduled for Handle {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Spared for Handle {
    fn empty(common: Common) -> Self {
        Self { common }
    }

    fn spares(event_loop: &EventLoop) -> &Spares<Self> {
        &event_loop.spare_handles
    }
}

handle_methods!(Handle, handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(&self) -> bool {
        self._cancelled()
    }

    /// Cancel the callback. Cancelling twice, or after it ran, does nothing.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        methods::cancel(slf).map(drop)
    }
]);
