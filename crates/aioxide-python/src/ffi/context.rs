//! Entering and leaving `contextvars.Context` objects without `Context.run`'s argument handling.
#![expect(unsafe_code, reason = "PyO3 has no safe wrapper of PyContext_Enter, _Exit and _CopyCurrent")]

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::call;
use crate::error::ThinResult;

/// Return a copy of the current context, as `contextvars.copy_context()`.
pub fn copy_current(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: the thread is attached; the call returns a new reference or null with an exception.
    let context = unsafe { ffi::PyContext_CopyCurrent() };
    // SAFETY: as above, the reference is new and handed over.
    unsafe { Bound::from_owned_ptr_or_err(py, context) }.map(Bound::unbind)
}

/// Return a copy of `context`, as `context.copy()`; TypeError where it is not a `contextvars.Context`.
pub fn copy(context: Borrowed<'_, '_, PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: `context` is a live object; the call checks its type and returns a new reference or null.
    let copy = unsafe { ffi::PyContext_Copy(context.as_ptr()) };
    // SAFETY: as above, the reference is new and handed over.
    unsafe { Bound::from_owned_ptr_or_err(context.py(), copy) }.map(Bound::unbind)
}

/// Whether `object` is a `contextvars.Context`.
pub fn is_context(object: Borrowed<'_, '_, PyAny>) -> bool {
    // SAFETY: `object` is a live object.
    unsafe { ffi::PyContext_CheckExact(object.as_ptr()) != 0 }
}

/// Call `callback(*arguments)` inside `context`, for what it does; fails as [`run_in`], and with what the callback raises.
#[inline]
pub fn call_in(
    py: Python<'_>,
    context: &Py<PyAny>,
    callback: &Py<PyAny>,
    arguments: &[Py<PyAny>],
) -> ThinResult<()> {
    run_in(context.bind_borrowed(py), || call::run(callback.bind_borrowed(py), arguments))
}

/// Run `body` inside `context`, as `context.run`.
///
/// Fails with RuntimeError where the context is entered already, and with TypeError where `context`
/// is not a `contextvars.Context`.
pub fn run_in<'py, R, E: From<PyErr>>(
    context: Borrowed<'_, 'py, PyAny>,
    body: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    let py = context.py();
    // SAFETY: `context` is a live object; the call checks its type and reports errors.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(py).into());
    }
    let result = body();
    // SAFETY: the context was entered above on this thread and is left exactly once.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0 {
        let error = PyErr::fetch(py);
        return result.and(Err(error.into()));
    }
    result
}
