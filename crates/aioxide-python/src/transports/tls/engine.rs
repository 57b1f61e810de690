//! The byte pipe that speaks TLS: an `ssl.SSLObject` between two `ssl.MemoryBIO`s. Cipher text goes in by `feed` and
//! comes out by `take_outgoing`; plain text comes out by `read_into` and goes in by `write`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{PyTraverseError, intern};

use crate::ffi::buffer::with_view;
use crate::ffi::call;

/// A connection's TLS state.
#[pyclass(module = "aioxide._rust", frozen)]
pub struct Engine {
    /// What the user gets as "ssl_object".
    pub object: Py<PyAny>,
    /// What reads and writes: the C object inside `object`, which saves a Python frame, or `object` itself.
    inner: Py<PyAny>,
    incoming: Py<PyAny>,
    outgoing: Py<PyAny>,
}

/// How far an operation got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// It is done.
    Done(T),
    /// It needs more from the peer.
    Wants,
}

struct Ssl {
    memory_bio: Py<PyAny>,
    context: Py<PyAny>,
    object: Py<PyAny>,
    want_read: Py<PyAny>,
    syscall: Py<PyAny>,
    zero_return: Py<PyAny>,
    error: Py<PyAny>,
}

static SSL: PyOnceLock<Ssl> = PyOnceLock::new();

fn ssl(py: Python<'_>) -> PyResult<&'static Ssl> {
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

impl Engine {
    /// Begin a session.
    pub fn new(
        py: Python<'_>,
        context: &Bound<'_, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Self>> {
        let ssl = ssl(py)?;
        let incoming = ssl.memory_bio.bind(py).call0()?;
        let outgoing = ssl.memory_bio.bind(py).call0()?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "server_side"), server_side)?;
        keywords.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let object = call::call_object(
            &context.getattr(intern!(py, "wrap_bio"))?,
            (&incoming, &outgoing),
            Some(&keywords),
        )?;
        // A user's own subclass may override what it likes.
        let is_plain = object.get_type().is(&ssl.object) && context.is_instance(ssl.context.bind(py))?;
        let inner = match object.getattr_opt(intern!(py, "_sslobj"))? {
            Some(inner) if is_plain => inner,
            _ => object.clone(),
        };
        let engine = Self {
            object: object.unbind(),
            inner: inner.unbind(),
            incoming: incoming.unbind(),
            outgoing: outgoing.unbind(),
        };
        Py::new(py, engine)
    }

    /// Take cipher text from the peer.
    pub fn feed(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        // A MemoryBIO copies what it is given.
        with_view(py, data, |view| self.incoming.bind(py).call_method1(intern!(py, "write"), (view,)))?;
        Ok(())
    }

    /// How many bytes from the peer are undeciphered.
    pub fn incoming_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.incoming.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// How many bytes for the peer were not taken yet.
    pub fn outgoing_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.outgoing.bind(py).getattr(intern!(py, "pending"))?.extract()
    }

    /// Take the cipher text for the peer, if there is any.
    pub fn take_outgoing<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let data = self.outgoing.bind(py).call_method0(intern!(py, "read"))?.cast_into::<PyBytes>()?;
        Ok(Some(data).filter(|data| !data.as_bytes().is_empty()))
    }

    /// Go on with the handshake.
    pub fn shake_hands(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        classify(
            py,
            call::call_method(self.object.bind_borrowed(py), intern!(py, "do_handshake"), &[]).map(drop),
        )
    }

    /// Decipher up to `length` bytes into `memory`; zero says that the peer will send no more.
    pub fn read_into(
        &self,
        py: Python<'_>,
        length: usize,
        memory: &Bound<'_, PyAny>,
    ) -> PyResult<Answer<usize>> {
        let length = length.into_pyobject(py)?;
        let read = call::call_method(
            self.inner.bind_borrowed(py),
            intern!(py, "read"),
            &[length.as_any().as_borrowed(), memory.as_borrowed()],
        );
        match classify(py, read.and_then(|length| length.extract())) {
            // Python says it so once we have said goodbye ourselves.
            Err(error) if error.matches(py, &ssl(py)?.zero_return)? => Ok(Answer::Done(0)),
            answer => answer,
        }
    }

    /// Whether a read may yield more. Asking costs a tenth of the exception that says no.
    pub fn may_have_more(&self, py: Python<'_>) -> PyResult<bool> {
        if self.incoming_size(py)? > 0 {
            return Ok(true);
        }
        Ok(self.inner.bind(py).call_method0(intern!(py, "pending"))?.extract::<usize>()? > 0)
    }

    /// Encipher `data`; returns how many bytes of it were taken.
    pub fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<Answer<usize>> {
        // OpenSSL copies into a record; where it wants to be called again, it is given the same bytes again.
        let written = with_view(py, data, |view| {
            call::call_method(self.inner.bind_borrowed(py), intern!(py, "write"), &[view.as_borrowed()])
        });
        classify(py, written.and_then(|length| length.extract()))
    }

    /// Say goodbye and wait for the peer's (RFC 8446, section 6.1).
    pub fn unwrap(&self, py: Python<'_>) -> PyResult<Answer<()>> {
        classify(py, call::call_method(self.object.bind_borrowed(py), intern!(py, "unwrap"), &[]).map(drop))
    }
}

fn classify<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Answer<T>> {
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

#[pymethods]
impl Engine {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        visit.call(&self.inner)?;
        visit.call(&self.incoming)?;
        visit.call(&self.outgoing)
    }
}
