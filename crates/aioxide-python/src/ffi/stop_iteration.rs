//! How an awaitable returns a value: as the argument of a StopIteration.

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The exception that returns `value` to who iterates.
pub fn returned(py: Python<'_>, value: Py<PyAny>) -> PyErr {
    // An exception or a tuple would be taken for what the exception is to be made of.
    match PyTuple::new(py, [value]).and_then(|arguments| py.get_type::<PyStopIteration>().call1(arguments)) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
