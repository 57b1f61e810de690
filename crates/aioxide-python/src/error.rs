//! The one way from a Rust error to a Python exception, and to a warning; and exceptions as they are passed on where
//! that happens often.

use std::io;

use pyo3::PyTypeInfo;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::imports::imports;

/// An exception in one word, where a [`PyErr`] has eight. Whatever runs callbacks hands its result on through many
/// functions; one that is written word by word and then copied in larger pieces keeps the processor waiting for longer
/// than the rest takes.
#[derive(Debug)]
pub struct ThinErr(Box<PyErr>);

/// What can fail with a [`ThinErr`]; `?` makes either error of the other.
pub type ThinResult<T> = Result<T, ThinErr>;

impl From<PyErr> for ThinErr {
    #[cold]
    fn from(error: PyErr) -> Self {
        Self(Box::new(error))
    }
}

impl From<ThinErr> for PyErr {
    fn from(ThinErr(error): ThinErr) -> Self {
        *error
    }
}

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
