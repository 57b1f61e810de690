//! The TLS connection as one object: the transport of the user's protocol, and the protocol of the transport below.
//!
//! # Invariants
//! - No Python is called and no Python object dropped while a connection is borrowed.
//! - The user's protocol hears `connection_made` once, after the handshake, and `connection_lost` once, after
//!   it; a handshake that fails is told to whoever waits for it and to nobody else.
//! - The transport below is let go of in its `connection_lost`, whatever happened before.

use pyo3::exceptions::{PyException, PyNotImplementedError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyString};
use pyo3::{Borrowed, PyTraverseError, intern};

use super::engine::{Engine, default_context};
use super::lower::Lower;
use super::reading::{self, ReadSide};
use super::writing::{self, WriteSide};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;
use crate::transports::lifetime::warn_unclosed;
use crate::transports::protocol::Protocol;

/// Seconds that a handshake may take (asyncio `constants.SSL_HANDSHAKE_TIMEOUT`).
const HANDSHAKE_TIMEOUT: f64 = 60.0;

/// Seconds that the exchange of goodbyes may take (asyncio `constants.SSL_SHUTDOWN_TIMEOUT`).
const SHUTDOWN_TIMEOUT: f64 = 30.0;

/// Where the connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the handshake, or after the end.
    Unwrapped,
    /// Shaking hands.
    Handshake,
    /// Reading and writing.
    Wrapped,
    /// Closing: what was written is still enciphered.
    Flushing,
    /// Exchanging goodbyes.
    Shutdown,
}

/// What the user's protocol has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// `connection_made`.
    Made,
    /// `eof_received`.
    Eof,
    /// `connection_lost`.
    Lost,
}

/// What `create_connection`, `create_server` and `start_tls` say of a connection.
pub struct Settings<'py> {
    /// The context; `None` stands for the default one.
    pub context: Option<Bound<'py, PyAny>>,
    /// Who waits for the handshake.
    pub waiter: Option<Py<PyAny>>,
    /// Whether we are the server.
    pub server_side: bool,
    /// The name that the server must prove.
    pub server_hostname: Option<Bound<'py, PyAny>>,
    /// Whether the protocol is still to hear `connection_made`.
    pub call_connection_made: bool,
    /// Seconds.
    pub handshake_timeout: Option<f64>,
    /// Seconds.
    pub shutdown_timeout: Option<f64>,
    /// Whether a server accepted the connection, where nobody waits for the handshake.
    pub accepted: bool,
}

/// A TLS connection. `isinstance(transport, asyncio.Transport)` holds.
#[pyclass(module = "aioxide", weakref)]
pub struct TlsTransport {
    pub(in crate::transports) event_loop: Py<EventLoop>,
    pub(super) engine: Py<Engine>,
    pub(super) lower: Option<Lower>,
    pub(super) protocol: Option<Protocol>,
    pub(super) phase: Phase,
    pub(super) told: Told,
    pub(super) waiter: Option<Py<PyAny>>,
    pub(super) accepted: bool,
    /// Whether `start_tls` made it.
    pub(super) is_upgrade: bool,
    /// Whether the user closed, or nobody need.
    pub(super) closed: bool,
    pub(super) handshake_timeout: f64,
    pub(super) shutdown_timeout: f64,
    /// What limits the handshake or the shutdown.
    pub(super) timer: Option<Py<PyAny>>,
    pub(super) handshake_began: Option<f64>,
    pub(super) reading: ReadSide,
    pub(super) writing: WriteSide,
    extra: Option<Py<PyDict>>,
}

impl TlsTransport {
    /// Make a connection that has no transport below it yet.
    pub fn open<'py>(
        event_loop: &Bound<'py, EventLoop>,
        protocol: Bound<'py, PyAny>,
        settings: Settings<'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let handshake_timeout =
            positive("ssl_handshake_timeout", settings.handshake_timeout, HANDSHAKE_TIMEOUT)?;
        let shutdown_timeout = positive("ssl_shutdown_timeout", settings.shutdown_timeout, SHUTDOWN_TIMEOUT)?;
        let hostname = match settings.server_hostname {
            Some(name) if !settings.server_side && name.is_truthy()? => Some(name),
            _ => None,
        };
        let context = match settings.context {
            Some(context) if context.is_truthy()? => context,
            _ => default_context(py, settings.server_side, hostname.is_some())?,
        };
        let engine = Engine::new(py, &context, settings.server_side, hostname.as_ref())?;
        let extra = PyDict::new(py);
        extra.set_item("sslcontext", context)?;
        Bound::new(
            py,
            Self {
                event_loop: event_loop.clone().unbind(),
                engine,
                lower: None,
                protocol: Some(Protocol::new(protocol)?),
                phase: Phase::Unwrapped,
                told: if settings.call_connection_made { Told::Nothing } else { Told::Made },
                waiter: settings.waiter,
                accepted: settings.accepted,
                is_upgrade: !settings.call_connection_made,
                // Nothing to close before there is a connection.
                closed: true,
                handshake_timeout,
                shutdown_timeout,
                timer: None,
                handshake_began: None,
                reading: ReadSide::default(),
                writing: WriteSide::default(),
                extra: Some(extra.unbind()),
            },
        )
    }

    /// What nearly every step needs: the loop and the engine.
    pub(super) fn parts(slf: &Bound<'_, Self>) -> (Py<EventLoop>, Py<Engine>) {
        let connection = slf.borrow();
        (connection.event_loop.clone_ref(slf.py()), connection.engine.clone_ref(slf.py()))
    }

    /// The transport below, as long as there is one.
    pub(super) fn lower(slf: &Bound<'_, Self>) -> Option<Lower> {
        slf.borrow().lower.as_ref().map(|lower| lower.clone_ref(slf.py()))
    }

    /// Call a method of the user's protocol, if there is one still.
    pub(super) fn call_protocol<'py>(
        slf: &Bound<'py, Self>,
        method: &Bound<'py, PyString>,
        argument: Option<Borrowed<'_, 'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let protocol = match &slf.borrow().protocol {
            Some(protocol) => protocol.object.clone_ref(py),
            None => return Ok(py.None().into_bound(py)),
        };
        call::call_method(protocol.bind_borrowed(py), method, argument.as_slice())
    }

    /// Have a method of this object called in the next turn.
    pub(super) fn call_soon(slf: &Bound<'_, Self>, method: &Bound<'_, PyString>) -> PyResult<()> {
        let (event_loop, _) = Self::parts(slf);
        let method = slf.getattr(method)?;
        event_loop.call_method1(slf.py(), intern!(slf.py(), "call_soon"), (method,)).map(drop)
    }

    /// Have a method of this object called after some seconds, unless the timer is cancelled before.
    pub(super) fn start_timer(
        slf: &Bound<'_, Self>,
        seconds: f64,
        method: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, _) = Self::parts(slf);
        let timer =
            event_loop.call_method1(py, intern!(py, "call_later"), (seconds, slf.getattr(method)?))?;
        let previous = slf.borrow_mut().timer.replace(timer);
        drop(previous);
        Ok(())
    }

    /// Cancel what `start_timer` started.
    pub(super) fn cancel_timer(slf: &Bound<'_, Self>) -> PyResult<()> {
        let timer = slf.borrow_mut().timer.take();
        match timer {
            Some(timer) => timer.call_method0(slf.py(), intern!(slf.py(), "cancel")).map(drop),
            None => Ok(()),
        }
    }

    /// Have an error of a step end the connection, unless it must end the loop.
    pub(super) fn fail_for(slf: &Bound<'_, Self>, result: PyResult<()>) -> PyResult<()> {
        match result {
            Err(error) if error.is_instance_of::<PyException>(slf.py()) => {
                Self::fatal_error(slf, error, "Fatal error on SSL protocol")
            }
            other => other,
        }
    }

    /// End the connection for an error. Errors of the network and of TLS are expected, so only debug mode logs them.
    pub(super) fn fatal_error(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, _) = Self::parts(slf);
        let lower = Self::lower(slf);
        slf.borrow_mut().phase = Phase::Unwrapped;
        if let Some(lower) = &lower {
            lower.force_close(py, Some(error.clone_ref(py)))?;
        }
        if error.is_instance_of::<PyOSError>(py) {
            if event_loop.get().debug() {
                let keywords = PyDict::new(py);
                keywords.set_item("exc_info", error)?;
                let arguments = ("%r: %s", slf, message);
                let log = imports(py)?.logger.bind(py).getattr(intern!(py, "debug"))?;
                call::call_object(&log, arguments, Some(&keywords))?;
            }
            return Ok(());
        }
        if !error.is_instance_of::<PyException>(py) {
            return Ok(());
        }
        let transport = lower.map_or_else(|| py.None().into_bound(py), |lower| lower.object(py));
        let concerning = [("transport", &transport), ("protocol", slf.as_any())];
        EventLoop::report_error(event_loop.bind(py), message, error, &concerning)
    }

    /// Drop everything and end the connection below.
    pub(super) fn abort_for(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let lower = {
            let mut connection = slf.borrow_mut();
            connection.closed = true;
            connection.phase = Phase::Unwrapped;
            connection.lower.as_ref().map(|lower| lower.clone_ref(slf.py()))
        };
        lower.map_or(Ok(()), |lower| lower.force_close(slf.py(), error))
    }

    fn debug_log(slf: &Bound<'_, Self>, text: &str) -> PyResult<()> {
        let (event_loop, _) = Self::parts(slf);
        if event_loop.get().debug() {
            let logger = imports(slf.py())?.logger.bind(slf.py());
            call::call_method_of(logger, intern!(slf.py(), "debug"), (text, slf))?;
        }
        Ok(())
    }

    /// `get_extra_info`: what only the handshake knows is asked of the engine, and once.
    fn extra_info(slf: &Bound<'_, Self>, name: &str) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let extra = slf.borrow().extra.as_ref().map(|extra| extra.clone_ref(py));
        let Some(extra) = extra else { return Ok(None) };
        let extra = extra.bind(py);
        if let Some(known) = extra.get_item(name)? {
            return Ok(Some(known.unbind()));
        }
        let (_, engine) = Self::parts(slf);
        let object = engine.get().object.bind(py);
        let shook_hands = matches!(slf.borrow().told, Told::Made | Told::Eof | Told::Lost)
            && slf.borrow().phase != Phase::Handshake;
        let found = match name {
            "ssl_object" if shook_hands => object.clone(),
            "peercert" if shook_hands => object.call_method0(intern!(py, "getpeercert"))?,
            "cipher" | "compression" if shook_hands => object.call_method0(name)?,
            _ => return Ok(None),
        };
        extra.set_item(name, &found)?;
        Ok(Some(found.unbind()))
    }

    fn describe(&self) -> String {
        let state = match self.phase {
            Phase::Unwrapped if self.closed => " closed",
            Phase::Unwrapped | Phase::Wrapped => "",
            Phase::Handshake => " handshaking",
            Phase::Flushing | Phase::Shutdown => " closing",
        };
        format!("<TlsTransport{state}>")
    }
}

fn positive(name: &str, given: Option<f64>, default: f64) -> PyResult<f64> {
    match given {
        Some(seconds) if seconds <= 0.0 => {
            Err(PyValueError::new_err(format!("{name} should be a positive number, got {seconds}")))
        }
        given => Ok(given.unwrap_or(default)),
    }
}

#[pymethods]
impl TlsTransport {
    /// Make a connection for `start_tls`, to be set as the protocol of the transport below.
    #[new]
    #[pyo3(signature = (
        event_loop, protocol, sslcontext, waiter, *, server_side=false, server_hostname=None,
        call_connection_made=true, ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "asyncio's own")]
    fn new<'py>(
        event_loop: &Bound<'py, EventLoop>,
        protocol: Bound<'py, PyAny>,
        sslcontext: Option<Bound<'py, PyAny>>,
        waiter: Option<Py<PyAny>>,
        server_side: bool,
        server_hostname: Option<Bound<'py, PyAny>>,
        call_connection_made: bool,
        ssl_handshake_timeout: Option<f64>,
        ssl_shutdown_timeout: Option<f64>,
    ) -> PyResult<Bound<'py, Self>> {
        let settings = Settings {
            context: sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            handshake_timeout: ssl_handshake_timeout,
            shutdown_timeout: ssl_shutdown_timeout,
            accepted: false,
        };
        Self::open(event_loop, protocol, settings)
    }

    /// The class that the transport is an instance of, for `isinstance`: one that knows flow control.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("asyncio.sslproto")?.getattr("_SSLProtocolTransport")
    }

    /// Whether `start_tls` takes the transport: TLS inside TLS works.
    #[getter]
    fn _start_tls_compatible(&self) -> bool {
        true
    }

    /// The loop that the transport belongs to.
    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<EventLoop> {
        self.event_loop.clone_ref(py)
    }

    /// The protocol of the transport below: this object.
    #[getter]
    fn _ssl_protocol(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The context, where users look for it in asyncio's protocol of TLS.
    #[getter]
    fn _sslcontext(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::get_extra_info(slf, "sslcontext", None)
    }

    // BaseTransport.

    /// Return what is known of the connection under a name, such as "ssl_object" or "peername".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info(slf: &Bound<'_, Self>, name: &str, default: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if let Some(found) = Self::extra_info(slf, name)? {
            return Ok(found);
        }
        let default = default.unwrap_or_else(|| py.None());
        match Self::lower(slf) {
            Some(lower) => {
                let found =
                    call::call_method_of(&lower.object(py), intern!(py, "get_extra_info"), (name, default))?;
                Ok(found.unbind())
            }
            None => Ok(default),
        }
    }

    /// Set a new protocol.
    fn set_protocol(slf: &Bound<'_, Self>, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let protocol = Protocol::new(protocol)?;
        let previous = slf.borrow_mut().protocol.replace(protocol);
        drop(previous);
        Ok(())
    }

    /// Return the current protocol.
    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py))
    }

    /// Return whether the transport is closing or closed.
    fn is_closing(&self) -> bool {
        self.closed
    }

    /// Close the connection once what was written has left and goodbyes were said.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::start_shutdown(slf)
    }

    /// Close at once; what was not sent is lost.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::abort_for(slf, None)
    }

    /// Close at once, for a reason that the protocol is told.
    #[pyo3(signature = (exception=None))]
    fn _force_close(slf: &Bound<'_, Self>, exception: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        Self::abort_for(slf, exception.map(PyErr::from_value))
    }

    // ReadTransport.

    /// Return whether the transport is receiving.
    fn is_reading(&self) -> bool {
        !self.closed && !self.reading.paused
    }

    /// Stop delivering data until resume_reading().
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        slf.borrow_mut().reading.paused = true;
        Ok(())
    }

    /// Deliver data again.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        let was_paused = std::mem::take(&mut slf.borrow_mut().reading.paused);
        if was_paused { Self::call_soon(slf, intern!(slf.py(), "_go_on")) } else { Ok(()) }
    }

    /// Set how much may wait to be deciphered before the transport below is paused, in bytes.
    #[pyo3(signature = (high=None, low=None))]
    fn set_read_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<isize>,
        low: Option<isize>,
    ) -> PyResult<()> {
        slf.borrow_mut().reading.marks.set(high, low, reading::HIGH_WATER)?;
        Self::control_lower_reading(slf)
    }

    /// Return the low- and the high-water mark of reading, in bytes.
    fn get_read_buffer_limits(&self) -> (usize, usize) {
        (self.reading.marks.low, self.reading.marks.high)
    }

    /// Return how many bytes wait to be deciphered.
    fn get_read_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let (_, engine) = Self::parts(slf);
        engine.get().incoming_size(slf.py())
    }

    // WriteTransport. `write` is in `transports/methods.rs`.

    /// Write several pieces of bytes.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::write_lines(slf, list_of_data)
    }

    /// Refuse: TLS connections cannot be closed by halves.
    fn write_eof(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// Return whether the transport supports write_eof(): it does not.
    fn can_write_eof(&self) -> bool {
        false
    }

    /// Return how many bytes wait to be enciphered or handed to the transport below.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Self::write_size(slf)
    }

    /// Return the low- and the high-water mark of writing, in bytes.
    fn get_write_buffer_limits(&self) -> (usize, usize) {
        (self.writing.marks.low, self.writing.marks.high)
    }

    /// Set the high- and the low-water mark of writing, in bytes.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<isize>,
        low: Option<isize>,
    ) -> PyResult<()> {
        slf.borrow_mut().writing.marks.set(high, low, writing::HIGH_WATER)?;
        Self::control_protocol_writing(slf)
    }

    /// Whether the protocol was asked to pause writing; asyncio's `sendfile` fallback asks.
    #[getter]
    fn _protocol_paused(&self) -> bool {
        self.writing.marks.protocol_paused
    }

    /// How asyncio's `sendfile` treats the transport: by reading and writing.
    #[getter]
    fn _sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("asyncio.constants")?.getattr("_SendfileMode")?.getattr("FALLBACK")
    }

    /// Have bytes wait as if they could not be enciphered yet: CPython's own tests fill the backlog so.
    #[pyo3(name = "_test__append_write_backlog")]
    fn append_write_backlog(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::append_backlog(slf, data)
    }

    // The protocol of the transport below.

    /// The transport below is connected: begin the handshake.
    fn connection_made(slf: &Bound<'_, Self>, transport: Bound<'_, PyAny>) -> PyResult<()> {
        if slf.borrow().protocol.is_none() {
            // An upgrade of a transport that was lost before it began.
            return Ok(());
        }
        let lower = Lower::new(transport);
        let previous = slf.borrow_mut().lower.replace(lower);
        drop(previous);
        Self::start_handshake(slf)
    }

    /// The transport below is gone.
    #[pyo3(signature = (exception))]
    fn connection_lost(slf: &Bound<'_, Self>, exception: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        Self::handle_connection_lost(slf, exception)
    }

    /// Cipher text came, from a transport that is not ours.
    fn data_received(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = crate::ffi::buffer::Contiguous::of(data)?.read(<[u8]>::to_vec);
        Self::handle_data(slf, &data)
    }

    /// The transport below will receive no more; true keeps it open.
    fn eof_received(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::debug_log(slf, "%r received EOF")?;
        Self::handle_eof(slf)
    }

    /// The transport below can take no more for now.
    fn pause_writing(&mut self) {
        self.writing.lower_is_full = true;
    }

    /// The transport below can take more.
    fn resume_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.borrow_mut().writing.lower_is_full = false;
        Self::go_on_writing(slf)
    }

    // Timers and later turns.

    fn _handshake_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::handle_handshake_timeout(slf)
    }

    fn _shutdown_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::handle_shutdown_timeout(slf)
    }

    /// Go on with what the phase is about.
    fn _go_on(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::go_on(slf)
    }

    /// Hand over cipher text that was received before TLS began.
    fn _feed(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = crate::ffi::buffer::Contiguous::of(data)?.read(<[u8]>::to_vec);
        let (_, engine) = Self::parts(slf);
        engine.get().feed(slf.py(), &data)
    }

    fn __repr__(&self) -> String {
        self.describe()
    }

    // Garbage collection.

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.engine)?;
        if let Some(lower) = &self.lower {
            lower.traverse(&visit)?;
        }
        if let Some(protocol) = &self.protocol {
            visit.call(&protocol.object)?;
            visit.call(&protocol.reader)?;
        }
        visit.call(&self.waiter)?;
        visit.call(&self.timer)?;
        visit.call(&self.extra)
    }

    fn __clear__(&mut self) {
        // Taken first and dropped last: dropping may run code that looks at this object.
        let taken = (
            self.protocol.take(),
            self.lower.take(),
            self.waiter.take(),
            self.timer.take(),
            self.extra.take(),
        );
        drop(taken);
    }
}

impl TlsTransport {
    /// RuntimeError on another thread than the one that runs the loop.
    fn check_thread(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, _) = Self::parts(slf);
        event_loop.get().check_thread()
    }
}

impl Drop for TlsTransport {
    /// Warn of a connection that nobody closed, as asyncio's `__del__` does.
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        warn_unclosed(&self.event_loop, &self.describe(), None);
    }
}

/// The exception for memory that holds nothing.
pub(super) fn empty_buffer() -> PyErr {
    PyRuntimeError::new_err("get_buffer() returned an empty buffer")
}
