//! Connecting to a literal address, the usual case of `create_connection`, as work of an
//! [`Awaitable`]: no name to resolve, nothing to choose, no Python socket. Everything else is
//! asyncio's `BaseEventLoop.create_connection`, whose steps and errors these are.
//!
//! | stage        | what ends it                            | when it is cancelled     |
//! |--------------|-----------------------------------------|--------------------------|
//! | `Begin`      | the first step                          | nothing was opened       |
//! | `Connecting` | the socket is writable                  | the socket is closed     |
//! | `Made`       | `connection_made` was called            | the transport is closed  |

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use aioxide_driver::{SocketAddrAny, sys};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;

use super::EventLoop;
use super::socket_calls::Readiness;
use super::watchers::Direction;
use crate::awaitable::waiter::Waiter;
use crate::awaitable::{Awaitable, Step, Work};
use crate::convert::address;
use crate::error::{ThinErr, ThinResult, os_error};
use crate::ffi::call;
use crate::transports::stream::StreamTransport;

/// A connection on its way.
pub struct Connecting {
    address: SocketAddr,
    protocol_factory: Py<PyAny>,
    /// Dropped before the socket in `stage` is closed.
    wait: Readiness,
    stage: Stage,
}

enum Stage {
    Begin,
    Connecting(OwnedFd),
    Made { transport: Py<StreamTransport>, protocol: Py<PyAny>, waiter: Py<Waiter> },
}

impl Connecting {
    /// Make the awaitable; `None` where `host` is no literal address.
    pub fn awaitable(
        event_loop: &Bound<'_, EventLoop>,
        protocol_factory: Py<PyAny>,
        host: &str,
        port: u16,
    ) -> PyResult<Option<Py<Awaitable>>> {
        let Ok(host) = host.parse::<IpAddr>() else { return Ok(None) };
        let connecting = Self {
            address: SocketAddr::new(host, port),
            protocol_factory,
            wait: Readiness::new(event_loop),
            stage: Stage::Begin,
        };
        let work = Work::Connect(Box::new(connecting));
        Awaitable::new(event_loop.py(), "EventLoop.create_connection", work).map(Some)
    }

    /// Go on.
    pub fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        self.wait.end();
        match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Begin => self.begin(py),
            Stage::Connecting(socket) => match sys::take_socket_error(socket.as_raw_fd()) {
                Ok(()) => self.make(py, socket),
                Err(error) => Err(self.failed(py, &error).into()),
            },
            Stage::Made { transport, protocol, waiter } => {
                waiter.call_method0(py, "result")?;
                Ok(Step::Done((transport, protocol).into_pyobject(py)?.into_any().unbind()))
            }
        }
    }

    /// Fail with what was thrown in.
    pub fn throw(&mut self, py: Python<'_>, error: ThinErr) -> ThinResult<Step> {
        if let Stage::Made { transport, .. } = std::mem::replace(&mut self.stage, Stage::Begin) {
            StreamTransport::begin_closing(transport.bind(py))?;
        }
        Err(error)
    }

    /// Whether nothing has happened yet that it waits for.
    pub fn is_waiting(&self, py: Python<'_>) -> bool {
        match &self.stage {
            Stage::Made { waiter, .. } => waiter.get().is_pending(py),
            Stage::Begin | Stage::Connecting(_) => self.wait.is_waiting(py),
        }
    }

    fn begin(&mut self, py: Python<'_>) -> ThinResult<Step> {
        let event_loop = self.wait.event_loop().bind(py).get();
        event_loop._check_closed()?;
        event_loop.check_thread()?;
        let socket = sys::tcp_socket(&self.address).map_err(|error| os_error(py, &error))?;
        match sys::connect(socket.as_raw_fd(), &SocketAddrAny::from(self.address)) {
            Ok(()) => self.make(py, socket),
            // connect(2): interrupted or not, it goes on by itself; writable means it is over.
            Err(error) if sys::is_connecting(&error) => {
                let step = self.wait.begin(py, socket.as_raw_fd(), Direction::Write)?;
                self.stage = Stage::Connecting(socket);
                Ok(step)
            }
            Err(error) => Err(os_error(py, &error).into()),
        }
    }

    fn make(&mut self, py: Python<'_>, socket: OwnedFd) -> ThinResult<Step> {
        let event_loop = self.wait.event_loop().bind(py);
        let protocol = call::call(self.protocol_factory.bind_borrowed(py), &[])?;
        let waiter = Waiter::new(py, event_loop.clone().into_any().unbind())?;
        let made = waiter.clone_ref(py).into_any();
        let transport = StreamTransport::connected(event_loop, socket, protocol.clone(), made)?;
        self.stage = Stage::Made { transport, protocol: protocol.unbind(), waiter: waiter.clone_ref(py) };
        Ok(Step::Yield(waiter.into_any()))
    }

    /// The exception for a connection that the peer or the network refused, in asyncio's words.
    fn failed(&self, py: Python<'_>, error: &std::io::Error) -> PyErr {
        let shown = address::to_python(py, &SocketAddrAny::from(self.address))
            .and_then(|address| address.map(|address| Ok(address.bind(py).repr()?.to_string())).transpose());
        match (error.raw_os_error(), shown) {
            (Some(number), Ok(Some(shown))) => {
                PyOSError::new_err((number, format!("Connect call failed {shown}")))
            }
            _ => os_error(py, error),
        }
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.protocol_factory)?;
        self.wait.traverse(visit)?;
        match &self.stage {
            Stage::Made { transport, protocol, waiter } => {
                visit.call(transport)?;
                visit.call(protocol)?;
                visit.call(waiter)
            }
            Stage::Begin | Stage::Connecting(_) => Ok(()),
        }
    }
}

impl Drop for Connecting {
    /// Closed or forgotten, not cancelled: nobody else knows of the transport.
    fn drop(&mut self) {
        if let Stage::Made { transport, waiter, .. } = &self.stage {
            // Without an interpreter there is nothing to close.
            let _ = Python::try_attach(|py| {
                if waiter.get().is_pending(py)
                    && let Err(error) = StreamTransport::begin_closing(transport.bind(py))
                {
                    error.write_unraisable(py, None);
                }
            });
        }
    }
}
