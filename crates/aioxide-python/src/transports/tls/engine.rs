//! The byte pipe that speaks TLS, by Python's own objects (`memory_bio.rs`) or by the OpenSSL session inside them
//! (`direct.rs`). Cipher text goes in by `feed` or `with_input` and comes out by `take_outgoing`; plain text comes out by
//! `read_bytes` and `read_into` and goes in by `write`.
//!
//! The handshake and the goodbyes are the Python object's with either: what is once for a connection need not be fast.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{PyTraverseError, intern};

use super::choice;
use super::direct::Direct;
use super::memory_bio::{Ends, MemoryBios};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::openssl::Session;

/// How much is deciphered before it is handed on, in bytes (asyncio `SSLProtocol.max_size`).
pub const SIZE: usize = 256 * 1024;

/// A connection's TLS state.
#[pyclass(module = "aioxide._rust", frozen)]
pub struct Engine {
    /// What the user gets as "ssl_object".
    pub object: Py<PyAny>,
    kind: Kind,
}

enum Kind {
    Python(MemoryBios),
    Direct(Direct),
}

/// How far an operation got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is done.
    Done(T),
    /// It needs more from the peer.
    Wants,
}

/// How deciphering ended.
pub enum End {
    /// Everything that came was read.
    Drained,
    /// The memory is full, and there may be more.
    Full,
    /// The peer said goodbye.
    Goodbye,
    /// What came is no TLS, or was tampered with.
    Failed(PyErr),
}

/// Cipher text for the peer.
pub enum Outgoing<'py> {
    /// As Python's objects make it.
    Bytes(Bound<'py, PyBytes>),
    /// In memory of ours, to be used again.
    Memory(Vec<u8>),
}

/// The names of Python's module that are needed.
pub struct Ssl {
    pub memory_bio: Py<PyAny>,
    context: Py<PyAny>,
    object: Py<PyAny>,
    want_read: Py<PyAny>,
    syscall: Py<PyAny>,
    pub zero_return: Py<PyAny>,
    error: Py<PyAny>,
}

static SSL: PyOnceLock<Ssl> = PyOnceLock::new();

/// Python's module.
pub fn ssl(py: Python<'_>) -> PyResult<&'static Ssl> {
    SSL.get_or_try_init(py, || {
        let module = py.import("ssl")?;
        let name = |name: &str| module.getattr(name).map(Bound::unbind);
        Ok(Ssl {
            memory_bio: name("MemoryBIO")?,
            context: name("SSLContext")?,
            object: name("SSLObject")?,
            want_read: name("SSLWantReadError")?,
            syscall: name("SSLSyscallError")?,
            zero_return: name("SSLZeroReturnError")?,
            error: name("SSLError")?,
        })
    })
}

/// The context that `ssl=True` stands for.
pub fn default_context(py: Python<'_>, server_side: bool, verifies_name: bool) -> PyResult<Bound<'_, PyAny>> {
    if server_side {
        return Err(PyValueError::new_err("Server side SSL needs a valid SSLContext"));
    }
    let context = py.import("ssl")?.call_method0("create_default_context")?;
    if !verifies_name {
        context.setattr(intern!(py, "check_hostname"), false)?;
    }
    Ok(context)
}

/// Whether an error is `ssl.SSLError`: the peer's or the connection's fault.
pub fn is_tls_error(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.matches(py, &ssl(py)?.error)?)
}

/// Tell waiting from failing.
pub fn classify<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Answer<T>> {
    match result {
        Ok(value) => Ok(Answer::Done(value)),
        Err(error) => {
            let ssl = ssl(py)?;
            if error.matches(py, &ssl.want_read)? || error.matches(py, &ssl.syscall)? {
                return Ok(Answer::Wants);
            }
            Err(error)
        }
    }
}

impl Engine {
    /// Begin a session.
    pub fn new(
        py: Python<'_>,
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Self>> {
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let ends = Ends::new(py)?;
        let wrap = || {
            let arguments = (&ends.incoming, &ends.outgoing);
            call::call_object(&context.getattr(intern!(py, "wrap_bio"))?, arguments, Some(&keywords))
        };
        let (object, session) = match choice::library(py)? {
            Some(library) => Session::of(library, wrap, |object| {
                let inner = inner_object(context, object)?;
                let needs_python = inner.as_ref().map_or(Ok(true), choice::needs_python)?;
                Ok(inner.filter(|_| !needs_python))
            })?,
            None => (wrap()?, None),
        };
        let kind = match session {
            Some(session) => Kind::Direct(Direct::new(session)),
            None => {
                let inner = inner_object(context, &object)?.unwrap_or_else(|| object.clone());
                Kind::Python(MemoryBios::new(ends, inner.unbind()))
            }
        };
        Py::new(py, Self { object: object.unbind(), kind })
    }

    /// Take cipher text from the peer.
    pub fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        match &self.kind {
            Kind::Python(bios) => bios.feed(py, data),
            Kind::Direct(direct) => {
                direct.feed(data);
                Ok(())
            }
        }
    }

    /// Take cipher text from the peer for as long as `body` runs, which deciphers it: what of it is left then is kept. It
    /// is not copied where that can be avoided.
    pub fn with_input<R>(
        &self,
        py: Python<'_>,
        data: &[u8],
        body: impl FnOnce() -> PyResult<R>,
    ) -> PyResult<R> {
        match &self.kind {
            Kind::Python(bios) => {
                bios.feed(py, data)?;
                body()
            }
            Kind::Direct(direct) => direct.lending(data, body),
        }
    }

    /// How many bytes from the peer are undeciphered.
    pub fn incoming_size(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.kind {
            Kind::Python(bios) => bios.incoming_size(py),
            Kind::Direct(direct) => Ok(direct.incoming_size()),
        }
    }

    /// How many bytes for the peer were not taken yet.
    pub fn outgoing_size(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.kind {
            Kind::Python(bios) => bios.outgoing_size(py),
            Kind::Direct(direct) => Ok(direct.outgoing_size()),
        }
    }

    /// Take the cipher text for the peer, if there is any.
    pub fn take_outgoing<'py>(&self, py: Python<'py>) -> PyResult<Option<Outgoing<'py>>> {
        match &self.kind {
            Kind::Python(bios) => Ok(bios.take_outgoing(py)?.map(Outgoing::Bytes)),
            Kind::Direct(direct) => Ok(direct.take_outgoing().map(Outgoing::Memory)),
        }
    }

    /// Go on with the handshake.
    pub fn shake_hands(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        classify(
            py,
            call::call_method(self.object.bind_borrowed(py), intern!(py, "do_handshake"), &[]).map(drop),
        )
    }

    /// Decipher what came, up to `SIZE` bytes.
    pub fn read_bytes<'py>(
        &self,
        py: Python<'py>,
        event_loop: &EventLoop,
    ) -> PyResult<(Option<Bound<'py, PyBytes>>, End)> {
        match &self.kind {
            Kind::Python(bios) => bios.read_bytes(py, event_loop),
            Kind::Direct(direct) => direct.read_bytes(py),
        }
    }

    /// The same into the memory of an object; returns how many bytes.
    pub fn read_into(&self, py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<(usize, End)> {
        match &self.kind {
            Kind::Python(bios) => bios.read_into(py, memory),
            Kind::Direct(direct) => direct.read_into(py, memory),
        }
    }

    /// Decipher all that came and forget it.
    pub fn discard(&self, py: Python<'_>, event_loop: &EventLoop) -> PyResult<()> {
        match &self.kind {
            Kind::Python(bios) => bios.discard(py, event_loop),
            Kind::Direct(direct) => direct.discard(py),
        }
    }

    /// Encipher `data`; returns how many bytes of it were taken.
    pub fn write(&self, py: Python<'_>, event_loop: &EventLoop, data: &[u8]) -> PyResult<Answer<usize>> {
        match &self.kind {
            Kind::Python(bios) => bios.write(py, data),
            Kind::Direct(direct) => direct.write(py, event_loop, data),
        }
    }

    /// Say goodbye and wait for the peer's (RFC 8446, section 6.1).
    pub fn unwrap(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        classify(py, call::call_method(self.object.bind_borrowed(py), intern!(py, "unwrap"), &[]).map(drop))
    }
}

/// The C object inside an `ssl.SSLObject`; `None` where it is a user's own, who may have overridden what he likes.
pub fn inner_object<'py>(
    context: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let ssl = ssl(py)?;
    if object.get_type().is(&ssl.object) && context.is_instance(ssl.context.bind(py))? {
        return object.getattr_opt(intern!(py, "_sslobj"));
    }
    Ok(None)
}

#[pymethods]
impl Engine {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        match &self.kind {
            Kind::Python(bios) => bios.traverse(&visit),
            Kind::Direct(direct) => direct.traverse(&visit),
        }
    }
}
