//! The exception that carries the value of an `await` from a future to the coroutine, made once.
//!
//! From Python 3.12 on an iterator that ends with a value makes a StopIteration, which the interpreter takes apart at once:
//! a tenth of what a task costs. So one is kept, and lent to the interpreter whenever nobody else has it.
//!
//! # Invariants
//! - It is lent only while a native step runs, and its value is taken away when the step ends: no result lives longer
//!   because of it.
//! - Who keeps it (a tracer, say) has it for himself: it is not lent again.
#![expect(unsafe_code, reason = "sets the field of an exception, and the exception as the current one")]

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::{PyTypeInfo, ffi};

use super::gil_cell::GilCell;

unsafe extern "C" {
    // PyO3 advises against it from 3.12 on, where the function that it advises came.
    fn PyErr_Restore(class: *mut ffi::PyObject, exception: *mut ffi::PyObject, traceback: *mut ffi::PyObject);
}

struct Lending {
    exception: Option<Py<PyAny>>,
    /// How many steps run, on all threads.
    steps: usize,
}

static LENDING: GilCell<Lending> = GilCell::new(Lending { exception: None, steps: 0 });

/// Make the exception, where one that is made for each value costs more.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    if !cfg!(Py_GIL_DISABLED) && py.version_info() >= (3, 12) {
        let exception = PyStopIteration::type_object(py).call0()?.unbind();
        let previous = LENDING.with(py, |lending| lending.exception.replace(exception));
        drop(previous);
    }
    Ok(())
}

/// Run a step, in which values may travel by the exception.
pub fn lent<R>(py: Python<'_>, step: impl FnOnce() -> R) -> R {
    LENDING.with(py, |lending| lending.steps += 1);
    let result = step();
    let value = LENDING.with(py, |lending| {
        lending.steps -= 1;
        let exception = lending.exception.as_ref()?.bind(py);
        if is_shared(exception) { None } else { replace_value(exception, None) }
    });
    drop(value);
    result
}

/// End an iteration with a value, by the exception that is lent; false where it cannot be.
pub fn lend(value: &Bound<'_, PyAny>) -> bool {
    let py = value.py();
    let lent = LENDING.with(py, |lending| {
        let exception = lending.exception.as_ref()?.bind(py);
        if lending.steps == 0 || is_shared(exception) {
            return None;
        }
        let exception = exception.clone();
        let previous = replace_value(&exception, Some(value.clone().unbind()));
        Some((exception, previous))
    });
    let Some((exception, previous)) = lent else { return false };
    drop(previous);
    restore(exception);
    true
}

fn is_shared(exception: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_REFCNT(exception.as_ptr()) > 1 }
}

/// Set the exception's value, and return the one it had, for the caller to drop.
#[must_use]
fn replace_value(exception: &Bound<'_, PyAny>, value: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
    let py = exception.py();
    let object = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
    let value = value.map_or(std::ptr::null_mut(), Py::into_ptr);
    // SAFETY: `prepare` made an object of exactly this type; the field owns its reference, or is null.
    let previous = unsafe { std::mem::replace(&mut (*object).value, value) };
    // SAFETY: as above, the reference is ours now.
    unsafe { Bound::from_owned_ptr_or_opt(py, previous) }.map(Bound::unbind)
}

/// Make an exception the current one, without the context and the traceback that raising adds.
fn restore(exception: Bound<'_, PyAny>) {
    let class = exception.get_type();
    // SAFETY: the call takes over both references, which are of an exception and its class.
    unsafe { PyErr_Restore(class.into_ptr(), exception.into_ptr(), std::ptr::null_mut()) };
}
