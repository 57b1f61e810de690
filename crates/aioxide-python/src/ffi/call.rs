//! Calling Python with arguments that lie in Rust memory: no tuple is built.
#![expect(unsafe_code, reason = "PyO3 offers vectorcall for tuples only")]

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};

/// Call `callable(*arguments)` by vectorcall.
pub fn call<'py>(callable: Borrowed<'_, 'py, PyAny>, arguments: &[Py<PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `Py<PyAny>` is a transparent pointer to a live object, so the slice is an array of
    // `arguments.len()` valid object pointers; no offset flag is claimed.
    let result = unsafe {
        ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            arguments.as_ptr().cast(),
            arguments.len(),
            std::ptr::null_mut(),
        )
    };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// Call `callable(*arguments[..positional], **keywords)`, the values of `keyword_names` being the rest of
/// `arguments`.
pub fn call_with_keywords<'py>(
    callable: Borrowed<'_, 'py, PyAny>,
    arguments: &[Borrowed<'_, 'py, PyAny>],
    keyword_names: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(positional) = arguments.len().checked_sub(keyword_names.len()) else {
        return Err(pyo3::exceptions::PySystemError::new_err("more keyword names than arguments"));
    };
    // SAFETY: `Borrowed` is a transparent pointer to a live object; the slice holds `positional`
    // arguments followed by one value for each keyword name, as vectorcall wants.
    let result = unsafe {
        ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            arguments.as_ptr().cast(),
            positional,
            keyword_names.as_ptr(),
        )
    };
    // SAFETY: the call returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}
