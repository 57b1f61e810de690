//! What carries the cipher text: our own stream transport, called directly, or any other transport.

use pyo3::PyTraverseError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyBytes;

use crate::ffi::call;
use crate::transports::stream::StreamTransport;

/// A transport below TLS.
pub enum Lower {
    /// Ours.
    Stream(Py<StreamTransport>),
    /// Any other: TLS inside TLS, or a user's own.
    Other(Py<PyAny>),
}

impl Lower {
    /// Look at what kind of transport an object is.
    pub fn new(transport: Bound<'_, PyAny>) -> Self {
        match transport.cast_into::<StreamTransport>() {
            Ok(stream) => Self::Stream(stream.unbind()),
            Err(error) => Self::Other(error.into_inner().unbind()),
        }
    }

    /// Another reference to the same transport.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.clone_ref(py)),
            Self::Other(other) => Self::Other(other.clone_ref(py)),
        }
    }

    /// The transport as an object.
    pub fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Stream(stream) => stream.bind(py).clone().into_any(),
            Self::Other(other) => other.bind(py).clone(),
        }
    }

    /// Write cipher text.
    pub fn write(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        match self {
            Self::Stream(stream) => StreamTransport::write_data(stream.bind(py), data),
            Self::Other(other) => call::call_method(
                other.bind_borrowed(py),
                intern!(py, "write"),
                &[data.as_any().as_borrowed()],
            )
            .map(drop),
        }
    }

    /// Have what was written leave now, as far as the kernel takes it.
    pub fn flush(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Stream(stream) => StreamTransport::write_out(stream.bind(py)),
            Self::Other(_) => Ok(()),
        }
    }

    /// Stop or go on reading.
    pub fn set_reading(&self, py: Python<'_>, reads: bool) -> PyResult<()> {
        match self {
            Self::Stream(stream) if reads => StreamTransport::resume(stream.bind(py)),
            Self::Stream(stream) => StreamTransport::pause(stream.bind(py)),
            Self::Other(other) => {
                let method = if reads { intern!(py, "resume_reading") } else { intern!(py, "pause_reading") };
                call::call_method(other.bind_borrowed(py), method, &[]).map(drop)
            }
        }
    }

    /// End the connection at once, for a reason or for none.
    pub fn force_close(&self, py: Python<'_>, error: Option<PyErr>) -> PyResult<()> {
        match self {
            Self::Stream(stream) => StreamTransport::force_close(stream.bind(py), error),
            Self::Other(other) => {
                let other = other.bind(py);
                let error = error.map(|error| error.into_value(py));
                match other.getattr_opt(intern!(py, "_force_close"))? {
                    Some(force_close) => call::call_object(&force_close, (error,), None).map(drop),
                    None => call::call_method(other.as_borrowed(), intern!(py, "abort"), &[]).map(drop),
                }
            }
        }
    }

    /// Show the garbage collector what is kept alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Stream(stream) => visit.call(stream),
            Self::Other(other) => visit.call(other),
        }
    }
}
