//! Setting an object's attributes as `object.__setattr__` and `object.__delattr__` do, for a class that listens.
#![expect(unsafe_code, reason = "PyO3 has no wrapper of PyObject_GenericSetAttr")]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Set an attribute to a value, or delete it.
pub fn set(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: all are live objects, the name a string; null deletes.
    match unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } {
        0 => Ok(()),
        _ => Err(PyErr::fetch(object.py())),
    }
}
