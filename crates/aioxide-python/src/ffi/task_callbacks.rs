//! Recognising the two callbacks that CPython's C `asyncio.Task` hands to `call_soon`: its step and its
//! wake-up. The C code drops the handle that `call_soon` returns, so none needs to be made.
//!
//! The step is an instance of the private type `TaskStepMethWrapper`; the wake-up is a built-in method
//! `task_wakeup` bound to a task (CPython `Modules/_asynciomodule.c`). Neither is importable, so each
//! is recognised by its C name once and by address from then on. On a Python where they are named
//! otherwise nothing is recognised, and every callback gets a handle.
#![expect(unsafe_code, reason = "reads C names and method tables of CPython objects")]

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

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
        return if method == WAKEUP_METHOD.load(Ordering::Relaxed) || learn_wakeup(callback, method) {
            Kind::TaskWakeup
        } else {
            Kind::Other
        };
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
