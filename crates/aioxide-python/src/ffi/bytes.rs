//! A `bytes` object that is filled before anybody knows how long it will be.
#![expect(unsafe_code, reason = "PyO3 makes bytes objects of a known length only")]

use std::ffi::c_int;
use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyErr, ffi};

use super::memory::Memory;

unsafe extern "C" {
    fn _PyBytes_Resize(object: *mut *mut ffi::PyObject, length: isize) -> c_int;
}

/// A `bytes` object in the making. Nobody else knows of it.
pub struct BytesBuilder<'py> {
    py: Python<'py>,
    object: NonNull<ffi::PyObject>,
    capacity: usize,
}

impl<'py> BytesBuilder<'py> {
    /// Make room for `capacity` bytes, at least for one.
    pub fn with_capacity(py: Python<'py>, capacity: usize) -> PyResult<Self> {
        // The object of no bytes is shared by everybody.
        let capacity = capacity.max(1);
        // SAFETY: the thread is attached; a null pointer says that the bytes are filled in later.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity as isize) };
        match NonNull::new(object) {
            Some(object) => Ok(Self { py, object, capacity }),
            None => Err(PyErr::fetch(py)),
        }
    }

    /// The room, for filling.
    pub fn memory(&mut self) -> Memory<'_> {
        // SAFETY: the object is a `bytes` object of ours.
        let start = unsafe { ffi::PyBytes_AsString(self.object.as_ptr()) };
        // SAFETY: it has `capacity` bytes, which nobody else knows of while the builder is borrowed.
        unsafe { Memory::new(start.cast(), self.capacity) }
    }

    /// The object, of the first `length` bytes, which must have been filled; `None` where there are none.
    pub fn finish(self, length: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (py, capacity) = (self.py, self.capacity);
        assert!(length <= capacity, "more bytes were filled than there was room for");
        if length == 0 {
            return Ok(None);
        }
        let mut object = self.object.as_ptr();
        std::mem::forget(self);
        if length < capacity {
            // SAFETY: the only reference is ours. Where it fails, the object is gone and null is left.
            unsafe { _PyBytes_Resize(&raw mut object, length as isize) };
        }
        // SAFETY: a new reference, or null with an exception set.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
        Ok(Some(object.cast_into::<PyBytes>()?))
    }
}

impl Drop for BytesBuilder<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and `finish` forgets the builder that it takes it from.
        unsafe { ffi::Py_DECREF(self.object.as_ptr()) };
    }
}
