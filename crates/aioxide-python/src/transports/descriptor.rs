//! Who owns a transport's file descriptor: the transport, or the Python object it was made from.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi::call;
use crate::imports::imports;

/// A descriptor and what closes it.
pub enum Descriptor {
    /// An accepted connection that no Python object stands for yet.
    Native(OwnedFd),
    /// A socket or file object with its descriptor.
    Object(Py<PyAny>, RawFd),
    /// Closed; the number is kept for `repr`.
    Closed(RawFd),
}

impl Descriptor {
    /// Take a Python object's descriptor.
    pub fn of(object: Bound<'_, PyAny>) -> PyResult<Self> {
        let number = object.call_method0(intern!(object.py(), "fileno"))?.extract()?;
        Ok(Self::Object(object.unbind(), number))
    }

    /// The number.
    pub fn number(&self) -> RawFd {
        match self {
            Self::Native(descriptor) => descriptor.as_raw_fd(),
            Self::Object(_, number) | Self::Closed(number) => *number,
        }
    }

    /// The Python object, where one owns it.
    pub fn object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self {
            Self::Object(object, _) => Some(object.clone_ref(py)),
            Self::Native(_) | Self::Closed(_) => None,
        }
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Take out what owns the descriptor.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let number = self.number();
        std::mem::replace(self, Self::Closed(number))
    }

    /// Close it, as the owner does.
    pub fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Object(object, _) => {
                call::call_method(object.bind_borrowed(py), intern!(py, "close"), &[]).map(drop)
            }
            Self::Native(_) | Self::Closed(_) => Ok(()),
        }
    }

    /// Close it, unless that was done: the collector lets the sockets and files of a cycle close themselves, and
    /// takes away their attributes, before it drops the transport.
    pub fn close_if_open(self, py: Python<'_>) -> PyResult<()> {
        if let Self::Object(object, _) = &self {
            match object.call_method0(py, intern!(py, "fileno")) {
                Ok(number) if number.extract::<RawFd>(py)? < 0 => return Ok(()),
                // A closed file; a closed socket has the number -1.
                Err(error) if error.is_instance_of::<PyValueError>(py) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        self.close(py)
    }

    /// Make a non-blocking `socket.socket` of a native descriptor.
    pub fn into_socket(py: Python<'_>, descriptor: OwnedFd) -> PyResult<Self> {
        let number = descriptor.as_raw_fd();
        let keywords = [("fileno", number)];
        let keywords = pyo3::types::IntoPyDict::into_py_dict(keywords, py)?;
        let socket = call::call_object(imports(py)?.socket.bind(py), (), Some(&keywords))?;
        // The socket object owns the number from here on.
        let _ = descriptor.into_raw_fd();
        call::call_method_of(&socket, intern!(py, "setblocking"), (false,))?;
        Ok(Self::Object(socket.unbind(), number))
    }
}
