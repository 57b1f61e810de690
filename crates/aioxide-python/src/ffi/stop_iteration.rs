//! The exception that carries the value of an `await` from an awaitable to the coroutine, made once.
//!
//! From Python 3.12 on an iterator that ends with a value makes a StopIteration, which the interpreter takes apart at once:
//! a tenth of what a task costs, a third of an `await` that is answered at once. So one is kept, and lent to the
//! interpreter whenever nobody else has it.
//!
//! # Invariants
//! - No result visibly lives longer because of it. In a native task's step any value travels by it, and is taken away
//!   when the step ends; in the other callbacks of a loop [plain](is_plain) values only, taken away when the turn ends.
//! - Nor does a frame: what raising has added to it (a traceback, a context) is taken away at the same time.
//! - Who keeps it (a tracer, say) has it for himself: another one takes its place.
#![expect(unsafe_code, reason = "sets the fields of an exception, and the exception as the current one")]

use std::{mem, ptr};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyString};
use pyo3::{PyTypeInfo, ffi};

use super::call::release;
use super::collector::is_shared;
use super::gil_cell::GilCell;
use super::references::another;

struct Lending {
    exception: Option<Py<PyAny>>,
    /// How many loops run, on all threads.
    loops: usize,
    /// How many steps of native tasks run, on all threads.
    steps: usize,
    /// Whether it was lent since it was emptied.
    is_used: bool,
}

static LENDING: GilCell<Lending> =
    GilCell::new(Lending { exception: None, loops: 0, steps: 0, is_used: false });

/// Make the exception, where one that is made for each value costs more.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    if !cfg!(Py_GIL_DISABLED) && py.version_info() >= (3, 12) {
        replace_exception(py, Some(PyStopIteration::type_object(py).call0()?.unbind()));
    }
    Ok(())
}

fn replace_exception(py: Python<'_>, exception: Option<Py<PyAny>>) {
    let previous = LENDING.with(py, |lending| mem::replace(&mut lending.exception, exception));
    drop(previous);
}

/// Run a loop, in which plain values may travel by the exception; it [empties](empty) it after each turn.
pub fn lent_to_loop<R>(py: Python<'_>, run: impl FnOnce() -> R) -> R {
    LENDING.with(py, |lending| lending.loops += 1);
    let result = run();
    LENDING.with(py, |lending| lending.loops -= 1);
    result
}

/// Run a step, in which values may travel by the exception.
pub fn lent<R>(py: Python<'_>, step: impl FnOnce() -> R) -> R {
    LENDING.with(py, |lending| lending.steps += 1);
    let result = step();
    LENDING.with(py, |lending| lending.steps -= 1);
    empty(py);
    result
}

/// Take from the exception what it got since it was lent.
#[inline]
pub fn empty(py: Python<'_>) {
    if LENDING.with(py, |lending| mem::take(&mut lending.is_used)) {
        empty_used(py);
    }
}

fn empty_used(py: Python<'_>) {
    let taken = LENDING.with(py, |lending| {
        let exception = lending.exception.as_ref()?.bind(py);
        if is_shared(exception) { None } else { Some(take_all(exception)) }
    });
    if taken.is_none() {
        // Whoever has it may well be held by it, in a cycle that the collector cannot see the whole of with our reference.
        let another = PyStopIteration::type_object(py).call0();
        replace_exception(py, another.ok().map(Bound::unbind));
    }
}

/// End an iteration with a value, by the exception that is lent; false where it cannot be.
pub fn lend(value: &Bound<'_, PyAny>) -> bool {
    let py = value.py();
    let lent = LENDING.with(py, |lending| {
        let exception = lending.exception.as_ref()?.bind(py);
        let may_travel = lending.steps > 0 || (lending.loops > 0 && is_plain(value));
        if !may_travel || is_shared(exception) {
            return None;
        }
        lending.is_used = true;
        let previous = replace(exception, another(value).unbind());
        Some((exception.clone(), previous))
    });
    let Some((exception, previous)) = lent else { return false };
    for object in previous.into_iter().flatten() {
        release(py, object);
    }
    restore(exception);
    true
}

/// Whether nobody can tell how long the value lives: no finalizer runs when it goes, no weak reference points to it, it
/// holds no other object, and it is small.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    const LARGE: usize = 16 * 1024;
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return bytes.as_bytes().len() < LARGE;
    }
    if value.is_exact_instance_of::<PyString>() {
        return value.len().is_ok_and(|length| length < LARGE);
    }
    value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyBool>()
}

/// Set the exception's value, and take what it had and the traceback of its last raising, for the caller to drop.
#[must_use]
fn replace(exception: &Bound<'_, PyAny>, value: Py<PyAny>) -> [Option<Py<PyAny>>; 2] {
    let object = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
    // SAFETY: `prepare` made an object of exactly this type; nobody else has it, so nobody else looks at its fields.
    let object = unsafe { &mut *object };
    let previous = [
        mem::replace(&mut object.value, value.into_ptr()),
        mem::replace(&mut object.traceback, ptr::null_mut()),
    ];
    // SAFETY: each of these fields owns its reference, or is null.
    previous.map(|field| unsafe { Bound::from_owned_ptr_or_opt(exception.py(), field) }.map(Bound::unbind))
}

/// Take what the exception holds: the value, the traceback, the context and the cause, for the caller to drop.
#[must_use]
fn take_all(exception: &Bound<'_, PyAny>) -> [Option<Py<PyAny>>; 4] {
    let object = exception.as_ptr().cast::<ffi::PyStopIterationObject>();
    // SAFETY: as in `replace`.
    let object = unsafe { &mut *object };
    [&mut object.value, &mut object.traceback, &mut object.context, &mut object.cause].map(|field| {
        // SAFETY: each of these fields owns its reference, or is null.
        unsafe { Bound::from_owned_ptr_or_opt(exception.py(), mem::replace(field, ptr::null_mut())) }
            .map(Bound::unbind)
    })
}

/// Make an exception the current one, without the context and the traceback that raising adds.
fn restore(exception: Bound<'_, PyAny>) {
    #[cfg(Py_3_12)]
    // SAFETY: the call takes over the reference, which is of an exception.
    unsafe {
        ffi::PyErr_SetRaisedException(exception.into_ptr());
    }
    #[cfg(not(Py_3_12))]
    {
        let py = exception.py();
        PyErr::from_value(exception).restore(py);
    }
}
