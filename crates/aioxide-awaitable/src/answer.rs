//! Results of futures as they cross: a reference to a Python object, or an exception that is set.
#![expect(unsafe_code, reason = "is called by who holds the interpreter's lock, and says so")]

use std::ptr;

use aioxide_awaitable_abi::{Answers, Payload, RawAnswer, Status};
use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;
use pyo3::{IntoPyObject, IntoPyObjectExt};

/// Makes Python objects of outputs. Whoever polls holds the interpreter's lock.
pub struct ToPython;

// SAFETY: the functions of a future and of the interface are called with the interpreter's lock held, by the interface's
// contract (4), and futures are erased for the latter, by who has a `Python` token. An interpreter without a lock
// has no such memory.
unsafe impl<T> Answers<PyResult<T>> for ToPython
where
    T: for<'py> IntoPyObject<'py>,
{
    const UNDER_ONE_LOCK: bool = cfg!(not(Py_GIL_DISABLED));

    fn answer(output: PyResult<T>) -> RawAnswer {
        // SAFETY: whoever polls holds the interpreter's lock, by the interface's contract (4).
        let py = unsafe { Python::assume_attached() };
        match output.and_then(|value| value.into_py_any(py)) {
            Ok(object) => RawAnswer { status: Status::DONE, value: object.into_ptr().cast() },
            Err(error) => failed(py, error),
        }
    }

    fn panicked(payload: Payload) -> RawAnswer {
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = format!("a Rust future panicked: {}", message.unwrap_or("(no message)"));
        Python::attach(|py| failed(py, PySystemError::new_err(text)))
    }
}

fn failed(py: Python<'_>, error: PyErr) -> RawAnswer {
    error.restore(py);
    RawAnswer { status: Status::FAILED, value: ptr::null_mut() }
}
