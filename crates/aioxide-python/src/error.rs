//! The one way from a Rust error to a Python exception, and to a warning.

use std::io;

use pyo3::PyTypeInfo;
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

/// Warn of what an object finds when it is dropped, perhaps while an exception is on its way.
pub fn warn<Category: PyTypeInfo>(py: Python<'_>, text: &str) {
    let present = PyErr::take(py);
    let warned = imports(py).and_then(|imports| imports.warn.call1(py, (text, py.get_type::<Category>())));
    if let Err(error) = warned {
        error.write_unraisable(py, None);
    }
    if let Some(present) = present {
        present.restore(py);
    }
}
