//! Asking whether a method is still the one we know what it does.
#![expect(unsafe_code, reason = "PyO3 has no wrapper of PyMethod_Function")]

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};

unsafe extern "C" {
    static mut PyMethod_Type: ffi::PyTypeObject;
    fn PyMethod_Function(method: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Whether `object.name(…)` calls `function`, a Python function: neither a subclass nor the instance has another.
pub fn is_function(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    function: Borrowed<'_, '_, PyAny>,
) -> bool {
    let Ok(method) = object.getattr(name) else { return false };
    // SAFETY: `method` is a live object.
    let kind = unsafe { ffi::Py_TYPE(method.as_ptr()) };
    if kind != &raw mut PyMethod_Type {
        return false;
    }
    // SAFETY: checked above; the result is borrowed from `method`.
    unsafe { PyMethod_Function(method.as_ptr()) == function.as_ptr() }
}
