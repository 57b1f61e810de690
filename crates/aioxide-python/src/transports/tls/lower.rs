//! What carries the cipher text: our own stream transport, called directly, or any other transport.

use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyBytes;
use pyo3::{Borrowed, PyTraverseError, intern};

use super::engine::Outgoing;
use crate::ffi::call;
use crate::transports::stream::StreamTransport;
use crate::transports::write_queue::Data;

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
    pub fn write(&self, py: Python<'_>, data: &Outgoing<'_>) -> PyResult<()> {
        match (self, data) {
            (Self::Stream(stream), Outgoing::Bytes(bytes)) => {
                StreamTransport::write_piece(stream.bind(py), &Data::Bytes(bytes))
            }
            (Self::Stream(stream), Outgoing::Memory(memory)) => {
                StreamTransport::write_piece(stream.bind(py), &Data::Slice(memory))
            }
            (Self::Other(other), Outgoing::Bytes(bytes)) => write_bytes(other.bind_borrowed(py), bytes),
            (Self::Other(other), Outgoing::Memory(memory)) => {
                write_bytes(other.bind_borrowed(py), &PyBytes::new(py, memory))
            }
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

fn write_bytes(transport: Borrowed<'_, '_, PyAny>, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
    let name = intern!(transport.py(), "write");
    call::call_method(transport, name, &[bytes.as_any().as_borrowed()]).map(drop)
}
