//! What programs, and asyncio's own tasks and futures, ask of a loop all the time.

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat};

use super::{EventLoop, clock};
use crate::error::ThinResult;
use crate::ffi::method::PlainMethod;

/// `get_debug()`, which each C task and future asks when it is made.
pub struct GetDebug;

impl PlainMethod for GetDebug {
    type Class = EventLoop;
    const NAME: &'static CStr = c"get_debug";
    const DOCUMENTATION: &'static CStr = c"get_debug($self, /)\n--\n\nReturn whether debug mode is on.";

    fn call(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Py<PyAny>> {
        Ok(answer(event_loop.py(), event_loop.get().debug()))
    }
}

/// `is_running()`, which a C task asks that is to start eagerly.
pub struct IsRunning;

impl PlainMethod for IsRunning {
    type Class = EventLoop;
    const NAME: &'static CStr = c"is_running";
    const DOCUMENTATION: &'static CStr =
        c"is_running($self, /)\n--\n\nReturn whether the event loop is running.";

    fn call(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Py<PyAny>> {
        Ok(answer(event_loop.py(), event_loop.get().is_running()))
    }
}

/// `is_closed()`.
pub struct IsClosed;

impl PlainMethod for IsClosed {
    type Class = EventLoop;
    const NAME: &'static CStr = c"is_closed";
    const DOCUMENTATION: &'static CStr =
        c"is_closed($self, /)\n--\n\nReturn whether the event loop was closed.";

    fn call(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Py<PyAny>> {
        Ok(answer(event_loop.py(), event_loop.get().is_closed()))
    }
}

/// `time()`.
pub struct Time;

impl PlainMethod for Time {
    type Class = EventLoop;
    const NAME: &'static CStr = c"time";
    const DOCUMENTATION: &'static CStr =
        c"time($self, /)\n--\n\nReturn the time of the loop's clock in seconds.";

    fn call(event_loop: &Bound<'_, EventLoop>) -> ThinResult<Py<PyAny>> {
        Ok(PyFloat::new(event_loop.py(), clock::now()).into_any().unbind())
    }
}

/// True or False.
#[inline(always)]
pub fn answer(py: Python<'_>, is_so: bool) -> Py<PyAny> {
    PyBool::new(py, is_so).to_owned().into_any().unbind()
}
