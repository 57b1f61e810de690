//! Recognising the two callbacks that CPython's C `asyncio.Task` hands to `call_soon`: its step and its
//! wake-up. The C code drops the handle that `call_soon` returns, so none needs to be made. And making the wake-up
//! that our own task leaves with futures of other classes, which is recognised likewise.
//!
//! The step is an instance of the private type `TaskStepMethWrapper`; the wake-up is a built-in method
//! `task_wakeup` bound to a task (CPython `Modules/_asynciomodule.c`). Neither is importable, so each
//! is recognised by its C name once and by address from then on. On a Python where they are named
//! otherwise nothing is recognised, and every callback gets a handle.
#![expect(
    unsafe_code,
    reason = "reads C names and method tables of CPython objects, and makes such a method"
)]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;
use pyo3::{Borrowed, PyTypeInfo, ffi};

use crate::error::ThinResult;

/// What a callback is to the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A task's step: called without arguments.
    TaskStep,
    /// A task's wake-up: called with the future it waited for.
    TaskWakeup,
    /// Anything else.
    Other,
}

/// A task whose wake-up is a built-in method.
pub trait Woken: PyTypeInfo {
    /// Go on: `future` is done.
    fn wake_up(task: &Bound<'_, Self>, future: &Bound<'_, PyAny>) -> ThinResult<()>;
}

static OUR_WAKEUP_METHOD: AtomicPtr<ffi::PyMethodDef> = AtomicPtr::new(ptr::null_mut());

/// Make the callback that wakes `task` up, a built-in method named as that of the C task.
pub fn wakeup_of<'py, T: Woken>(task: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    if OUR_WAKEUP_METHOD.load(Ordering::Acquire).is_null() {
        let definition = Box::into_raw(Box::new(ffi::PyMethodDef {
            ml_name: c"task_wakeup".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: wake_up::<T> },
            ml_flags: ffi::METH_O,
            ml_doc: ptr::null(),
        }));
        // Another thread may have been faster; then its definition is used and ours is never freed.
        let _ = OUR_WAKEUP_METHOD.compare_exchange(
            ptr::null_mut(),
            definition,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
    let definition = OUR_WAKEUP_METHOD.load(Ordering::Acquire);
    // SAFETY: the definition is never freed; the function keeps the task alive.
    let function = unsafe { ffi::PyCFunction_NewEx(definition, task.as_ptr(), ptr::null_mut()) };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(task.py(), function) }
}

/// The C function behind a wake-up.
///
/// # Safety
/// To be called by the interpreter only, as a METH_O function that is bound to a `T`.
unsafe extern "C" fn wake_up<T: Woken>(
    task: *mut ffi::PyObject,
    future: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls functions on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter holds a reference during the call.
    let task = unsafe { Borrowed::from_ptr(py, task) };
    // SAFETY: `wakeup_of` bound the function to a T.
    let task = unsafe { task.cast_unchecked::<T>() };
    // SAFETY: the interpreter holds a reference during the call.
    let future = unsafe { Borrowed::from_ptr(py, future) };
    match catch_unwind(AssertUnwindSafe(|| T::wake_up(&task, &future))) {
        Ok(Ok(())) => py.None().into_ptr(),
        Ok(Err(error)) => {
            PyErr::from(error).restore(py);
            ptr::null_mut()
        }
        Err(_panic) => {
            PySystemError::new_err("aioxide panicked; please report this as a bug").restore(py);
            ptr::null_mut()
        }
    }
}

static STEP_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static WAKEUP_METHOD: AtomicPtr<ffi::PyMethodDef> = AtomicPtr::new(ptr::null_mut());

/// Say what `callback` is.
pub fn kind_of(callback: Borrowed<'_, '_, PyAny>) -> Kind {
    // SAFETY: `callback` is a live object, so its type pointer is valid.
    let callback_type = unsafe { ffi::Py_TYPE(callback.as_ptr()) };
    if callback_type == STEP_TYPE.load(Ordering::Relaxed) {
        return Kind::TaskStep;
    }
    if callback_type == &raw mut ffi::PyCFunction_Type {
        let method = method_table(callback);
        let is_wakeup = method == WAKEUP_METHOD.load(Ordering::Relaxed)
            || method == OUR_WAKEUP_METHOD.load(Ordering::Relaxed)
            || learn_wakeup(callback, method);
        return if is_wakeup { Kind::TaskWakeup } else { Kind::Other };
    }
    if STEP_TYPE.load(Ordering::Relaxed).is_null() && learn_step(callback_type) {
        return Kind::TaskStep;
    }
    Kind::Other
}

fn method_table(function: Borrowed<'_, '_, PyAny>) -> *mut ffi::PyMethodDef {
    let function: *mut ffi::PyCFunctionObject = function.as_ptr().cast();
    // SAFETY: the caller saw that the type is exactly PyCFunction_Type, whose layout this is.
    unsafe { (*function).m_ml }
}

fn learn_wakeup(function: Borrowed<'_, '_, PyAny>, method: *mut ffi::PyMethodDef) -> bool {
    if !WAKEUP_METHOD.load(Ordering::Relaxed).is_null() {
        return false;
    }
    // SAFETY: a built-in function's method table is a valid, static PyMethodDef.
    let name = unsafe { (*method).ml_name };
    // SAFETY: method names are NUL-terminated C strings.
    if unsafe { CStr::from_ptr(name) } != c"task_wakeup" {
        return false;
    }
    // SAFETY: the type is exactly PyCFunction_Type; the result is borrowed from `function` or null.
    let bound_to = unsafe { ffi::PyCFunction_GetSelf(function.as_ptr()) };
    if bound_to.is_null() {
        return false;
    }
    // SAFETY: checked for null above; alive as long as `function`.
    if type_name(unsafe { ffi::Py_TYPE(bound_to) }) != c"_asyncio.Task" {
        return false;
    }
    WAKEUP_METHOD.store(method, Ordering::Relaxed);
    true
}

fn learn_step(callback_type: *mut ffi::PyTypeObject) -> bool {
    let name = type_name(callback_type);
    if name != c"_asyncio.TaskStepMethWrapper" && name != c"TaskStepMethWrapper" {
        return false;
    }
    STEP_TYPE.store(callback_type, Ordering::Relaxed);
    true
}

fn type_name<'a>(object_type: *mut ffi::PyTypeObject) -> &'a CStr {
    // SAFETY: `object_type` is the type of a live object.
    let name = unsafe { (*object_type).tp_name };
    // SAFETY: type names are NUL-terminated C strings that live as long as the type.
    unsafe { CStr::from_ptr(name) }
}
