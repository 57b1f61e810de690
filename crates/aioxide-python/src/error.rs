//! The one way from a Rust error to a Python exception.

use std::io;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::imports::imports;

/// Make the OSError of an errno, as Python's own calls raise it: of the subclass that fits, with `errno` and
/// `strerror`. (PyO3's conversion keeps the text alone.)
pub fn os_error(py: Python<'_>, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else { return PyOSError::new_err(error.to_string()) };
    match imports(py).and_then(|imports| imports.strerror.call1(py, (errno,))) {
        Ok(text) => PyOSError::new_err((errno, text)),
        Err(error) => error,
    }
}
