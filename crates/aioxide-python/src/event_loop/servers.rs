//! Accepting connections for `asyncio.Server` (asyncio docs, "Creating network servers").
//!
//! asyncio's own `Server` keeps the sockets and the counts; it calls `_start_serving` and `_stop_serving`.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use aioxide_driver::{Op, Outcome, sys};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::{PyTraverseError, intern};

use super::{EventLoop, Interest, Submission};
use crate::error::{ThinResult, os_error};
use crate::ffi::{call, context};
use crate::imports::imports;
use crate::transports::clients::Clients;
use crate::transports::event_context::EventContext;
use crate::transports::stream::StreamTransport;
use crate::transports::tls::transport::{Settings, TlsTransport};

/// Seconds to wait before accepting again after the system ran out of resources (asyncio
/// `constants.ACCEPT_RETRY_DELAY`).
const ACCEPT_RETRY_DELAY: f64 = 1.0;

/// What a server says of the TLS of its connections.
pub struct Tls {
    /// An `ssl.SSLContext`.
    pub context: Py<PyAny>,
    /// Seconds.
    pub handshake_timeout: Option<f64>,
    /// Seconds.
    pub shutdown_timeout: Option<f64>,
}

/// A listening socket that is being accepted from.
#[pyclass(module = "aioxide._rust", frozen)]
pub struct Listener {
    event_loop: Py<EventLoop>,
    protocol_factory: Py<PyAny>,
    /// In copies of this the factory and the connections' protocols run.
    context: Py<PyAny>,
    socket: Py<PyAny>,
    server: Option<Py<PyAny>>,
    descriptor: RawFd,
    tls: Option<Tls>,
}

impl Tls {
    fn settings<'py>(&self, py: Python<'py>) -> Settings<'py> {
        Settings {
            context: Some(self.context.bind(py).clone()),
            waiter: None,
            server_side: true,
            server_hostname: None,
            call_connection_made: true,
            handshake_timeout: self.handshake_timeout,
            shutdown_timeout: self.shutdown_timeout,
            accepted: true,
        }
    }
}

impl Listener {
    /// Listen and accept until stopped.
    pub fn start(
        event_loop: &Bound<'_, EventLoop>,
        protocol_factory: Py<PyAny>,
        socket: Bound<'_, PyAny>,
        server: Option<Py<PyAny>>,
        backlog: i32,
        tls: Option<Tls>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        event_loop.get()._check_closed()?;
        if let Some(server) = &server {
            Clients::serve(server.bind(py))?;
        }
        call::call_method_of(&socket, intern!(py, "listen"), (backlog,))?;
        let descriptor = socket.call_method0(intern!(py, "fileno"))?.extract()?;
        let listener = Self {
            event_loop: event_loop.clone().unbind(),
            protocol_factory,
            context: context::copy_current(py)?,
            socket: socket.unbind(),
            server,
            descriptor,
            tls,
        };
        Self::accept(&Bound::new(py, listener)?)
    }

    /// Stop accepting and close the socket. A socket that is not being accepted from is just closed.
    pub fn stop(event_loop: &Bound<'_, EventLoop>, socket: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let descriptor: RawFd = socket.call_method0(intern!(py, "fileno"))?.extract()?;
        if !event_loop.get().is_closed() {
            let interest = event_loop.get().with_core(|core| {
                let token = core.listeners.remove(&descriptor)?;
                core.cancel(token)
            })?;
            drop(interest);
        }
        call::call_method(socket.as_borrowed(), intern!(py, "close"), &[])?;
        Ok(())
    }

    /// A connection came: make its protocol and transport.
    pub fn handle_accepted(slf: &Bound<'_, Self>, connection: OwnedFd) -> ThinResult<()> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop.bind(py);
        if !this.is_listening()? {
            // Accepted in the same turn in which the server was closed.
            return Ok(());
        }
        let run_context = EventContext::new(this.context.clone_ref(py));
        let mut protocol = None;
        let made = run_context.run(py, || {
            let made = call::call(this.protocol_factory.bind_borrowed(py), &[])?;
            protocol = Some(match &this.tls {
                Some(tls) => TlsTransport::open(event_loop, made, tls.settings(py))?.into_any(),
                None => made,
            });
            Ok(())
        });
        let made = made.and_then(|()| {
            let Some(protocol) = protocol else { return Ok(()) };
            let server = this.server.as_ref().map(|server| server.clone_ref(py));
            StreamTransport::accepted(event_loop, connection, protocol, server, run_context)?;
            Ok(())
        });
        let Err(error) = made else { return Ok(()) };
        Ok(EventLoop::report_error(
            event_loop,
            "Error on transport creation for incoming connection",
            error.into(),
            &[("socket", this.socket.bind(py))],
        )?)
    }

    /// The kernel refused: tell it, and try again later where time may help (asyncio
    /// `BaseSelectorEventLoop._accept_connection`).
    pub fn handle_failure(slf: &Bound<'_, Self>, error: io::Error) -> ThinResult<()> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop.bind(py);
        if !this.is_listening()? {
            return Ok(());
        }
        if sys::is_lost_connection(&error) {
            return Ok(Self::accept(slf)?);
        }
        let socket = call::call_object(imports(py)?.transport_socket.bind(py), (&this.socket,), None)?;
        let resume = slf.getattr(intern!(py, "_resume"))?;
        event_loop.call_method1(intern!(py, "call_later"), (ACCEPT_RETRY_DELAY, resume))?;
        let message = if sys::is_out_of_resources(&error) {
            "socket.accept() out of system resource"
        } else {
            "socket.accept() failed"
        };
        Ok(EventLoop::report_error(event_loop, message, os_error(py, &error), &[("socket", &socket)])?)
    }

    fn is_listening(&self) -> PyResult<bool> {
        self.event_loop.get().with_core(|core| core.listeners.contains_key(&self.descriptor))
    }

    fn accept(slf: &Bound<'_, Self>) -> PyResult<()> {
        let descriptor = slf.get().descriptor;
        let interest = Interest::Listener(slf.clone().unbind());
        let event_loop = slf.get().event_loop.bind(slf.py());
        let submitted = event_loop.get().with_core(|core| {
            let submitted = core.submit(Op::Accept { listener: descriptor }, interest);
            if let Submission::Pending(token) = submitted {
                core.listeners.insert(descriptor, token);
            }
            submitted
        })?;
        match submitted {
            Submission::Done(Outcome::Failed(error), _interest) => Err(os_error(slf.py(), &error)),
            _ => Ok(()),
        }
    }
}

/// Return the inode of the socket file at a path; None where another kind of file is there. FileNotFoundError and its
/// like where there is none.
#[pyfunction]
pub fn socket_inode(py: Python<'_>, path: PathBuf) -> PyResult<Option<u64>> {
    let status = std::fs::metadata(path).map_err(|error| os_error(py, &error))?;
    Ok(status.file_type().is_socket().then(|| status.ino()))
}

/// Remove the socket file at a path, if it is of this inode or that does not matter (None). OSError as `os.unlink` raises it.
///
/// Natively, because detectors of blocking calls (blockbuster) allow `os.unlink` for asyncio's own servers only.
#[pyfunction]
pub fn remove_socket_file(py: Python<'_>, path: PathBuf, inode: Option<u64>) -> PyResult<()> {
    let removed = std::fs::metadata(&path).and_then(|status| {
        let is_meant = status.file_type().is_socket() && inode.is_none_or(|inode| status.ino() == inode);
        if is_meant { std::fs::remove_file(path) } else { Ok(()) }
    });
    removed.map_err(|error| os_error(py, &error))
}

#[pymethods]
impl Listener {
    /// Accept again, after a pause for want of resources.
    fn _resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        // A server that was stopped meanwhile closed its socket, and another may have got the number.
        let number: RawFd =
            this.socket.call_method0(slf.py(), intern!(slf.py(), "fileno"))?.extract(slf.py())?;
        if number == this.descriptor && this.is_listening()? { Self::accept(slf) } else { Ok(()) }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(tls) = &self.tls {
            visit.call(&tls.context)?;
        }
        visit.call(&self.event_loop)?;
        visit.call(&self.protocol_factory)?;
        visit.call(&self.context)?;
        visit.call(&self.socket)?;
        visit.call(&self.server)
    }
}
