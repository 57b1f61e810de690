//! The memory of objects that offer the buffer protocol, as slices; and slices as such objects.
#![expect(unsafe_code, reason = "a slice over another object's memory cannot be made safely")]

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::{ffi, intern};

use super::memory::Memory;

/// A C-contiguous view of an object's memory, exported for as long as this lives.
pub struct Contiguous(PyUntypedBuffer);

impl Contiguous {
    /// Take the buffer of `object`; TypeError where it has none, BufferError where it is scattered.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("memoryview: underlying buffer is not C-contiguous"));
        }
        Ok(Self(buffer))
    }

    /// How many bytes the view has.
    pub fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Lend the bytes to `read`, which must not call Python.
    pub fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        if self.len() == 0 {
            return read(&[]);
        }
        // SAFETY: the exporter keeps `len_bytes` contiguous bytes in place while the buffer is held;
        // the GIL is held and `read` runs no Python, so nobody writes to them meanwhile.
        read(unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.len()) })
    }

    /// Lend the bytes to `write` for filling, which must not call Python.
    ///
    /// TypeError where the object is read-only.
    pub fn write<R>(&mut self, write: impl FnOnce(&mut [u8]) -> R) -> PyResult<R> {
        if self.0.readonly() {
            return Err(PyTypeError::new_err("a read-write bytes-like object is required"));
        }
        if self.len() == 0 {
            return Ok(write(&mut []));
        }
        // SAFETY: as in `read`, and the exporter declared the memory writable.
        Ok(write(unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.len()) }))
    }

    /// The memory, for C code to fill; TypeError where the object is read-only.
    pub fn memory(&mut self) -> PyResult<Memory<'_>> {
        if self.0.readonly() {
            return Err(PyTypeError::new_err("a read-write bytes-like object is required"));
        }
        // SAFETY: the exporter keeps so many writable bytes in place while the buffer is held; what Python code sees of
        // them is bytes whatever is written.
        Ok(unsafe { Memory::new(self.0.buf_ptr().cast(), self.len()) })
    }
}

/// Call `function` with a read-only memoryview of `data`; it must keep neither the view nor anything made of it.
pub fn with_view<'py, R>(
    py: Python<'py>,
    data: &[u8],
    function: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<R>,
) -> PyResult<R> {
    // SAFETY: the view is read-only and released below, before `data` can go; the caller promises that `function`
    // keeps no export of it.
    let view = unsafe {
        ffi::PyMemoryView_FromMemory(data.as_ptr().cast_mut().cast(), data.len() as isize, ffi::PyBUF_READ)
    };
    // SAFETY: the call returns a new reference or null with an exception set.
    let view = unsafe { Bound::from_owned_ptr_or_err(py, view) }?;
    let result = function(&view);
    view.call_method0(intern!(py, "release"))?;
    result
}
