//! The handle of a callback that waits for its time.

use std::cmp::Ordering;

use aioxide_runtime::TimerKey;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::PyInt;
use pyo3::{Borrowed, IntoPyObjectExt};

use super::record::Origins;
use super::running::{run_known, run_sole};
use super::{Common, Scheduled, methods};
use crate::event_loop::EventLoop;
use crate::ffi::collector;
use crate::ffi::collector::new_hidden;
use crate::ffi::free_list::{FreeList, Recycled};
use crate::ffi::gil_cell::GilCell;

/// A callback that waits for its time.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct TimerHandle {
    common: Common,
    when: f64,
    /// The same as the program gave it, where that was an `int`.
    given: Option<Py<PyInt>>,
    /// Its place in the loop's heap while it waits there.
    key: GilCell<Option<TimerKey>>,
}

impl TimerHandle {
    /// Make a handle for `callback(*arguments)`, as [`make`](super::make), due at `when`, in seconds of the loop's
    /// clock; `given` is the number that was given for it, if it was an `int`.
    pub fn make(
        event_loop: &Bound<'_, EventLoop>,
        (when, given): (f64, Option<Py<PyInt>>),
        callback: Borrowed<'_, '_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        context: Option<Borrowed<'_, '_, PyAny>>,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let origins = Origins::new(event_loop, context)?;
        let common = Common::new(event_loop);
        let handle = new_hidden(py, Self { common, when, given, key: GilCell::new(None) })?;
        handle.get().common.record.borrow_mut(py).fill(callback, arguments, origins);
        Ok(handle)
    }

    /// Remember the place in the heap.
    pub fn set_key(&self, py: Python<'_>, key: TimerKey) {
        *self.key.borrow_mut(py) = Some(key);
    }

    /// The time at which it is due, in seconds of the loop's clock.
    pub fn due(&self) -> f64 {
        self.when
    }

    /// Run the callback unless it was cancelled.
    pub fn run(slf: &Bound<'_, Self>, event_loop: &Bound<'_, EventLoop>) -> PyResult<()> {
        *slf.get().key.borrow_mut(slf.py()) = None;
        if collector::is_known(slf) { run_known(slf, event_loop) } else { run_sole(slf, event_loop) }
    }
}

impl Scheduled for TimerHandle {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Recycled for TimerHandle {
    fn free_list() -> &'static FreeList {
        static LIST: FreeList = FreeList::new();
        &LIST
    }
}

handle_methods!(TimerHandle, timer_handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(&self) -> bool {
        self._cancelled()
    }

    /// Return the time at which the callback is due, in seconds of the loop's clock.
    fn when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.given {
            Some(given) => Ok(given.clone_ref(py).into_any()),
            None => self.when.into_py_any(py),
        }
    }

    /// Order by deadline; equal are those with the same deadline and callback (asyncio `TimerHandle`).
    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, operator: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let order = slf.get().when.partial_cmp(&other.get().when);
        let answer = match order {
            Some(Ordering::Equal) => {
                let content = |handle: &Bound<'_, Self>| {
                    let handle = handle.get();
                    let arguments = handle._args(py)?.map(Bound::unbind);
                    PyResult::Ok((handle._callback(py), arguments, handle._cancelled()))
                };
                let ours = content(slf)?.into_pyobject(py)?;
                let is_equal = ours.eq(content(other)?)?;
                match operator {
                    CompareOp::Eq | CompareOp::Le | CompareOp::Ge => is_equal,
                    CompareOp::Ne => !is_equal,
                    CompareOp::Lt | CompareOp::Gt => false,
                }
            }
            Some(order) => operator.matches(order),
            None => matches!(operator, CompareOp::Ne),
        };
        Ok(answer.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __hash__(&self) -> u64 {
        self.when.to_bits()
    }

    #[getter]
    fn _when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.when(py)
    }

    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> bool {
        self.key.borrow(py).is_some()
    }

    /// Cancel the callback and leave the loop's heap.
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let key = this.key.borrow_mut(slf.py()).take();
        // From another thread the entry stays in the heap until it is due, and is skipped then.
        if let Some(key) = key {
            drop(this.common.event_loop.get().with_core(|core| core.timers.cancel(key)));
        }
        methods::cancel(slf).map(drop)
    }
]);
