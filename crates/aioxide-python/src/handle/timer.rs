//! The handle of a callback that waits for its time.

use std::cmp::Ordering;
use std::ffi::CStr;
use std::sync::OnceLock;

use aioxide_runtime::TimerKey;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::PyInt;
use pyo3::{Borrowed, IntoPyObjectExt, ffi};

use super::running::run;
use super::{Common, KeptHandles, Scheduled, make, methods};
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::ffi::call::release;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::method::PlainMethod;
use crate::ffi::reuse::Kept;

/// A callback that waits for its time.
#[pyclass(module = "aioxide", weakref, frozen)]
pub struct TimerHandle {
    common: Common,
    time: GilCell<Time>,
}

/// When it is due.
#[derive(Default)]
struct Time {
    /// In seconds of the loop's clock.
    when: f64,
    /// The same as the program gave it, where that was an `int`.
    given: Option<Py<PyInt>>,
    /// Its place in the loop's heap while it waits there.
    key: Option<TimerKey>,
}

impl TimerHandle {
    /// Make a handle for `callback(*arguments)`, as [`make`], due at `when`, in seconds of the loop's
    /// clock; `given` is the number that was given for it, if it was an `int`.
    pub fn make(
        event_loop: &Bound<'_, EventLoop>,
        (when, given): (f64, Option<Py<PyInt>>),
        callback: Borrowed<'_, '_, PyAny>,
        arguments: &[Borrowed<'_, '_, PyAny>],
        context: Option<Borrowed<'_, '_, PyAny>>,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let handle = make::<Self>(event_loop, callback, arguments, context)?;
        let previous = handle.get().time.with(py, |time| {
            (time.when, time.key) = (when, None);
            std::mem::replace(&mut time.given, given)
        });
        drop(previous);
        Ok(handle)
    }

    /// Remember the place in the heap.
    pub fn set_key(&self, py: Python<'_>, key: TimerKey) {
        self.time.borrow_mut(py).key = Some(key);
    }

    /// The time at which it is due, in seconds of the loop's clock.
    pub fn due(&self, py: Python<'_>) -> f64 {
        self.time.borrow(py).when
    }

    /// Run the callback unless it was cancelled.
    pub fn run(slf: Py<Self>, event_loop: &Bound<'_, EventLoop>) -> ThinResult<()> {
        slf.get().time.borrow_mut(event_loop.py()).key = None;
        run(slf, event_loop)
    }
}

impl Scheduled for TimerHandle {
    fn empty(common: Common) -> Self {
        Self { common, time: GilCell::default() }
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn kept_by(kept: &KeptHandles) -> &Kept<Self> {
        &kept.timers
    }

    fn deallocator() -> &'static OnceLock<ffi::destructor> {
        static DEALLOCATOR: OnceLock<ffi::destructor> = OnceLock::new();
        &DEALLOCATOR
    }
}

handle_methods!(TimerHandle, timer_handle, [
    /// Return whether the callback was cancelled.
    fn cancelled(&self) -> bool {
        self._cancelled()
    }

    /// Return the time at which the callback is due, in seconds of the loop's clock.
    fn when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let time = self.time.borrow(py);
        match &time.given {
            Some(given) => Ok(given.clone_ref(py).into_any()),
            None => time.when.into_py_any(py),
        }
    }

    /// Order by deadline; equal are those with the same deadline and callback (asyncio `TimerHandle`).
    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, operator: CompareOp) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let order = slf.get().due(py).partial_cmp(&other.get().due(py));
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

    fn __hash__(&self, py: Python<'_>) -> u64 {
        self.due(py).to_bits()
    }

    #[getter]
    fn _when(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.when(py)
    }

    #[getter]
    fn _scheduled(&self, py: Python<'_>) -> bool {
        self.time.borrow(py).key.is_some()
    }
]);

/// `TimerHandle.cancel()`.
pub struct Cancel;

impl PlainMethod for Cancel {
    type Class = TimerHandle;
    const NAME: &'static CStr = c"cancel";
    const DOCUMENTATION: &'static CStr =
        c"cancel($self, /)\n--\n\nCancel the callback and leave the loop's heap.";

    fn call(handle: &Bound<'_, TimerHandle>) -> ThinResult<Py<PyAny>> {
        let (py, this) = (handle.py(), handle.get());
        let key = this.time.borrow_mut(py).key.take();
        // From another thread the entry stays in the heap until it is due, and is skipped then.
        if let Some(key) = key
            && let Ok(Some(entry)) = this.common.event_loop.get().with_core(|core| core.timers.cancel(key))
        {
            release(py, entry);
        }
        methods::cancel(handle)?;
        Ok(py.None())
    }
}
