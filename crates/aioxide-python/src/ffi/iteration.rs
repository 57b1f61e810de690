//! The slots of `await`, `am_await`, `tp_iternext` and `am_send`, without PyO3's detours: it has none of the last, and where
//! an iteration ends with a value it makes, wraps and unwraps an exception.
//!
//! What `await` gets is the object itself, which so needs no iterator beside it. The attribute `__await__`, where Python
//! code asks for it, is what the class says.
#![expect(unsafe_code, reason = "a type's slots are C functions that get and return raw objects")]

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyStopIteration, PySystemError};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo, ffi};

use super::references::another;
use super::stop_iteration;
use crate::error::ThinResult;

/// What one step came to.
pub enum Step {
    /// It goes on later; this is for who iterates.
    Yield(Py<PyAny>),
    /// It is over, with this value.
    Done(Py<PyAny>),
}

/// A class whose objects are iterated by `await`.
pub trait Steps: PyTypeInfo {
    /// Go on with the value that was sent, None if there is none.
    fn step(object: &Bound<'_, Self>, sent: Option<Borrowed<'_, '_, PyAny>>) -> ThinResult<Step>;

    /// Clean up after a step that panicked, and say what it fails with.
    fn panicked(_object: &Bound<'_, Self>) -> PyErr {
        panicked()
    }
}

/// Set the slots of a class, which is T or derived from it. Called once per class, when the module is imported.
pub fn install<T: Steps>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let object = class.as_type_ptr();
    // SAFETY: the class is alive, and nobody uses it before the module is there.
    let methods = unsafe { (*object).tp_as_async };
    if methods.is_null() {
        return Err(PySystemError::new_err("the class has no __await__"));
    }
    // SAFETY: a heap type owns this table, which is not null.
    let methods = unsafe { &mut *methods };
    methods.am_await = Some(itself);
    methods.am_send = Some(send::<T>);
    // SAFETY: as above.
    unsafe { (*object).tp_iternext = Some(next::<T>) };
    // SAFETY: as above; the interpreter forgets what it knew of the class.
    unsafe { ffi::PyType_Modified(object) };
    Ok(())
}

/// Make a step of an object in whatever way; a panic becomes an error.
#[inline(always)]
pub fn caught<T: Steps>(object: &Bound<'_, T>, step: impl FnOnce() -> ThinResult<Step>) -> ThinResult<Step> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|payload| Err(after_panic(object, payload).into()))
}

/// What a panic becomes, also where cleaning up after it panics, too.
#[cold]
fn after_panic<T: Steps>(object: &Bound<'_, T>, payload: Box<dyn Any + Send>) -> PyErr {
    let cleaned = catch_unwind(AssertUnwindSafe(|| {
        drop(payload);
        T::panicked(object)
    }));
    cleaned.unwrap_or_else(|second| {
        mem::forget(second);
        panicked()
    })
}

fn panicked() -> PyErr {
    PySystemError::new_err("aioxide panicked; please report this as a bug")
}

/// Make a step; an error is left with the interpreter.
#[inline(always)]
fn step<T: Steps>(object: &Bound<'_, T>, sent: Option<Borrowed<'_, '_, PyAny>>) -> Option<Step> {
    match caught(object, || T::step(object, sent)) {
        Ok(step) => Some(step),
        Err(error) => {
            PyErr::from(error).restore(object.py());
            None
        }
    }
}

/// # Safety
/// To be called by the interpreter only, as `am_await` of a class whose objects iterate themselves.
unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference to `self` during the call.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    another(&object).into_ptr()
}

/// # Safety
/// To be called by the interpreter only, as `tp_iternext` of `T`.
unsafe extern "C" fn next<T: Steps>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference to `self` during the call.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the slot is that of the class, or inherited from it.
    let object = unsafe { object.cast_unchecked::<T>() };
    match step(&object, None) {
        Some(Step::Yield(yielded)) => yielded.into_ptr(),
        Some(Step::Done(value)) => {
            set_stop_iteration(value.into_bound(py));
            std::ptr::null_mut()
        }
        None => std::ptr::null_mut(),
    }
}

/// # Safety
/// To be called by the interpreter only, as `am_send` of `T`.
unsafe extern "C" fn send<T: Steps>(
    object: *mut ffi::PyObject,
    sent: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: the interpreter calls slots on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference to `self` during the call.
    let object = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: the slot is that of the class, or inherited from it.
    let object = unsafe { object.cast_unchecked::<T>() };
    // SAFETY: as for `self`; null is allowed and means None.
    let sent = unsafe { Borrowed::from_ptr_or_opt(py, sent) };
    let (value, answer) = match step(&object, sent) {
        Some(Step::Yield(yielded)) => (yielded.into_ptr(), ffi::PySendResult::PYGEN_NEXT),
        Some(Step::Done(value)) => (value.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
        None => (std::ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR),
    };
    // SAFETY: the caller passes the place for the result.
    unsafe { *result = value };
    answer
}

/// Return `value` as iterators do: nothing at all is None, anything else the argument of a StopIteration.
fn set_stop_iteration(value: Bound<'_, PyAny>) {
    let py = value.py();
    if value.is_none() || stop_iteration::lend(&value) {
        return;
    }
    // SAFETY: the value is alive.
    let is_exception = unsafe { ffi::PyExceptionInstance_Check(value.as_ptr()) } != 0;
    if is_exception || value.is_instance_of::<PyTuple>() {
        // These would be taken for the exception itself, or for its arguments.
        returned(py, value.unbind()).restore(py);
        return;
    }
    let class = PyStopIteration::type_object(py);
    // SAFETY: both objects are alive; the call takes references of its own.
    unsafe { ffi::PyErr_SetObject(class.as_ptr(), value.as_ptr()) };
}

/// The exception that returns `value`.
pub fn returned(py: Python<'_>, value: Py<PyAny>) -> PyErr {
    match PyTuple::new(py, [value]).and_then(|arguments| py.get_type::<PyStopIteration>().call1(arguments)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
