//! [`Handle`], [`TimerHandle`] and [`ThreadsafeHandle`]: what `call_soon`, `call_later`, `call_soon_threadsafe` and the
//! watchers return.
//!
//! They are not subclasses of asyncio's (Python classes cannot be extended without losing the inline
//! layout), but `isinstance` holds: their `__class__` says so, and `repr` is asyncio's own.

#[macro_use]
mod methods;
mod record;
mod running;
mod threadsafe;
mod timer;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, PyClass, PyTraverseError, ffi};

pub use self::record::live_handles;
use self::record::{Origins, Record};
pub use self::running::{ends_the_loop, run, run_without_handle};
pub use self::threadsafe::ThreadsafeHandle;
pub use self::timer::TimerHandle;
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::collector::new_hidden;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::method::add_plain_method;
use crate::ffi::reuse::{Kept, Reused};

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
pub trait Scheduled: PyClass<Frozen = True> + Sync + Into<pyo3::PyClassInitializer<Self>> {
    /// Make one with nothing to call.
    fn empty(common: Common) -> Self;

    /// What it has in common with the others.
    fn common(&self) -> &Common;

    /// Its place among those that are kept.
    fn kept_by(kept: &KeptHandles) -> &Kept<Self>;

    /// See [`Reused`].
    fn deallocator() -> &'static OnceLock<ffi::destructor>;
}

/// Handles of one loop to use again, those of each class by themselves. There are some only while the loop runs: they hold
/// it.
pub struct KeptHandles {
    handles: Kept<Handle>,
    timers: Kept<TimerHandle>,
    threadsafe: Kept<ThreadsafeHandle>,
}

impl KeptHandles {
    /// None yet.
    pub const fn new() -> Self {
        Self { handles: Kept::new(), timers: Kept::new(), threadsafe: Kept::new() }
    }

    /// Let go of all.
    pub fn clear(&self, py: Python<'_>) {
        self.handles.clear(py);
        self.timers.clear(py);
        self.threadsafe.clear(py);
    }
}

/// Add the methods that are called too often for PyO3's way of calling. Called once, at import.
pub fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    add_plain_method::<timer::Cancel>(&py.get_type::<TimerHandle>())
}

impl<T: Scheduled> Reused for T {
    fn kept(&self) -> Option<&Kept<Self>> {
        let event_loop = self.common().event_loop.get();
        event_loop.is_running().then(|| T::kept_by(&event_loop.kept_handles))
    }

    fn is_over(&self, py: Python<'_>) -> bool {
        self.common().record.borrow(py).is_empty()
    }

    fn note_kept(&self, is_kept: bool) {
        if is_kept { Record::count_no_more() } else { Record::count_again() }
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        <T as Scheduled>::deallocator()
    }
}

/// Make a handle for `callback(*arguments)` in `context`, or in one with the variables of this moment. The garbage
/// collector does not see it: it is meant for a queue.
#[inline]
pub fn make<T: Scheduled>(
    event_loop: &Bound<'_, EventLoop>,
    callback: Borrowed<'_, '_, PyAny>,
    arguments: &[Borrowed<'_, '_, PyAny>],
    context: Option<Borrowed<'_, '_, PyAny>>,
) -> ThinResult<Py<T>> {
    let py = event_loop.py();
    let origins = Origins::new(event_loop, context)?;
    let handle = match T::kept_by(&event_loop.get().kept_handles).take(py) {
        Some(handle) => {
            handle.get().common().cancelled.store(false, Relaxed);
            handle
        }
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
    fn empty(common: Common) -> Self {
        Self { common }
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn kept_by(kept: &KeptHandles) -> &Kept<Self> {
        &kept.handles
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
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
