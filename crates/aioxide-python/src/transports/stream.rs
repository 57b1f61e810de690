//! The transport of byte streams: sockets and the ends of pipes (asyncio docs, "Transports").
//!
//! Its life: `Open` → `Closing` (what was written still leaves) → `Lost` (`connection_lost` is scheduled) →
//! `Closed`. Reading is in `reading.rs` and `delivery.rs`, writing in `writing.rs`, the end in `closing.rs`.
//!
//! # Invariants
//! - No Python is called and no Python object dropped while a transport is borrowed.
//! - The driver knows of at most one reading and one writing operation of a transport.
//! - `connection_lost` is called exactly once, after `connection_made`, and the descriptor is closed after it.

use std::cell::{Ref, RefMut};
use std::os::fd::OwnedFd;

use aioxide_driver::{Buffer, sys};
use pyo3::exceptions::{PyAttributeError, PyNotImplementedError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, intern};

use super::clients::Clients;
use super::descriptor::Descriptor;
use super::event_context::EventContext;
use super::extra::{self, Extra};
use super::flow_control::DEFAULT_HIGH;
use super::lifetime::{settle, warn_unclosed};
use super::protocol::{Manner, Protocol};
use super::reading::ReadSide;
use super::writing::WriteSide;
use crate::callback::Callback;
use crate::error::{ThinResult, os_error};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::ffi::collector::new_with_dictionary;
use crate::ffi::gil_cell::GilCell;
use crate::ffi::snapshot;
use crate::imports::imports;

/// What the descriptor is, and with it how it is read, written and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connected stream socket.
    Socket,
    /// The end of a pipe that is read.
    ReadPipe,
    /// The end of a pipe that is written.
    WritePipe,
}

/// Where a transport is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading and writing.
    Open,
    /// No longer reading; what was written still leaves.
    Closing,
    /// `connection_lost` is scheduled.
    Lost,
    /// `connection_lost` was called, the descriptor is closed.
    Closed,
}

/// What happens to a transport, in its turn of the ready queue.
pub enum Event {
    /// It was made: tell the protocol, begin to read, then wake who waits for it.
    Made(Option<Py<PyAny>>),
    /// Bytes, or the end of file. `last`: the operation ended with them.
    Received {
        /// Empty for the end of file.
        buffer: Buffer,
        /// Whether it was the operation's final completion.
        last: bool,
    },
    /// Reading would not block.
    ReadReady,
    /// Reading failed.
    ReadFailed(std::io::Error),
    /// The reading operation was cancelled and is over.
    ReadingEnded,
    /// What came while reading was paused can be delivered.
    DeliverHeld,
    /// Bytes left by the driver.
    Sent {
        /// The memory the driver was lent.
        buffer: Vec<u8>,
        /// How many bytes of it left.
        length: usize,
    },
    /// Writing would not block.
    WriteReady,
    /// Something waits to be sent that another thread wrote.
    WriteMore,
    /// Writing failed.
    WriteFailed(std::io::Error),
    /// The writing operation was cancelled and is over.
    WritingEnded,
    /// The connection is over.
    ConnectionLost(Option<Box<PyErr>>),
}

/// A stream transport. `isinstance(transport, asyncio.Transport)` holds.
#[pyclass(module = "aioxide", weakref, dict, frozen)]
pub struct StreamTransport {
    pub(super) event_loop: Py<EventLoop>,
    context: EventContext,
    pub(super) kind: Kind,
    state: GilCell<State>,
}

/// What changes in a transport's life.
pub struct State {
    pub(super) phase: Phase,
    pub(super) descriptor: Descriptor,
    pub(super) protocol: Option<Protocol>,
    pub(super) reading: ReadSide,
    pub(super) writing: WriteSide,
    pub(super) extra: Extra,
    pub(super) server: Option<Py<PyAny>>,
    /// In which the server finds the transport.
    clients: Option<Py<Clients>>,
}

impl State {
    /// How the protocol wants its bytes.
    pub(super) fn manner(&self) -> Manner {
        self.protocol.as_ref().map_or(Manner::Plain, |protocol| protocol.manner)
    }

    /// What `repr` shows.
    fn describe(&self, kind: Kind, event_loop: &EventLoop) -> String {
        let mut parts = vec!["StreamTransport".to_owned()];
        match self.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Lost => parts.push("closing".to_owned()),
            Phase::Closed => parts.push("closed".to_owned()),
        }
        parts.push(format!("fd={}", self.descriptor.number()));
        if self.phase == Phase::Open && event_loop.is_closed() {
            parts.push("open".to_owned());
        } else if self.phase != Phase::Closed {
            if kind != Kind::WritePipe {
                parts.push(format!("read={}", if self.reading.is_active() { "polling" } else { "idle" }));
            }
            if kind != Kind::ReadPipe {
                let waits = if self.writing.is_waiting() { "polling" } else { "idle" };
                parts.push(format!("write=<{waits}, bufsize={}>", self.writing.size));
            }
        }
        format!("<{}>", parts.join(" "))
    }
}

/// Borrowing a transport's state.
pub trait Borrow {
    /// Look at it.
    fn state(&self) -> Ref<'_, State>;
    /// Change it.
    fn state_mut(&self) -> RefMut<'_, State>;
}

impl Borrow for Bound<'_, StreamTransport> {
    fn state(&self) -> Ref<'_, State> {
        self.get().state.borrow(self.py())
    }

    fn state_mut(&self) -> RefMut<'_, State> {
        self.get().state.borrow_mut(self.py())
    }
}

impl StreamTransport {
    /// Make the transport of a Python socket or pipe object.
    pub fn open(
        event_loop: &Bound<'_, EventLoop>,
        kind: Kind,
        object: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
        server: Option<Py<PyAny>>,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        event_loop.get()._check_closed()?;
        let descriptor = Descriptor::of(object.clone())?;
        let extra = if kind == Kind::Socket {
            call::call_method_of(event_loop, intern!(py, "_ensure_fd_no_transport"), (&object,))?;
            disable_nagle(&descriptor);
            Extra::of_socket(&descriptor, extra)
        } else {
            let number = descriptor.number();
            if !sys::is_pipe_like(number).map_err(|error| os_error(py, &error))? {
                return Err(PyValueError::new_err(match kind {
                    Kind::WritePipe => "Pipe transport is only for pipes, sockets and character devices",
                    Kind::ReadPipe | Kind::Socket => "Pipe transport is for pipes/sockets only.",
                }));
            }
            sys::set_nonblocking(number).map_err(|error| os_error(py, &error))?;
            let dictionary = extra.unwrap_or_else(|| PyDict::new(py));
            dictionary.set_item("pipe", object)?;
            Extra::of_file(dictionary)
        };
        let run_context = EventContext::new(snapshot::current(py)?);
        Self::make(event_loop, kind, descriptor, protocol, waiter, extra, server, run_context)
    }

    /// Make the transport of a connection that the driver accepted; its events are handled in `run_context`.
    pub fn accepted(
        event_loop: &Bound<'_, EventLoop>,
        connection: OwnedFd,
        protocol: Bound<'_, PyAny>,
        server: Option<Py<PyAny>>,
        run_context: EventContext,
    ) -> PyResult<Py<Self>> {
        let descriptor = Descriptor::Native(connection);
        disable_nagle(&descriptor);
        let extra = Extra::of_socket(&descriptor, None);
        Self::make(event_loop, Kind::Socket, descriptor, protocol, None, extra, server, run_context)
    }

    /// Make the transport of a connection that we made; `waiter` is woken when the protocol was told.
    pub fn connected(
        event_loop: &Bound<'_, EventLoop>,
        connection: OwnedFd,
        protocol: Bound<'_, PyAny>,
        waiter: Py<PyAny>,
    ) -> PyResult<Py<Self>> {
        let descriptor = Descriptor::Native(connection);
        disable_nagle(&descriptor);
        let extra = Extra::of_socket(&descriptor, None);
        let run_context = EventContext::new(snapshot::current(event_loop.py())?);
        Self::make(event_loop, Kind::Socket, descriptor, protocol, Some(waiter), extra, None, run_context)
    }

    #[expect(clippy::too_many_arguments, reason = "all that differs between the kinds")]
    fn make(
        event_loop: &Bound<'_, EventLoop>,
        kind: Kind,
        descriptor: Descriptor,
        protocol: Bound<'_, PyAny>,
        waiter: Option<Py<PyAny>>,
        extra: Extra,
        server: Option<Py<PyAny>>,
        run_context: EventContext,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let number = descriptor.number();
        // A terminal that can be read says nothing of its other end; a pipe or socket does.
        let is_deaf = kind == Kind::WritePipe
            && sys::is_character_device(number).map_err(|error| os_error(py, &error))?;
        let transport = new_with_dictionary(
            py,
            Self {
                event_loop: event_loop.clone().unbind(),
                context: run_context,
                kind,
                state: GilCell::new(State {
                    phase: Phase::Open,
                    descriptor,
                    protocol: Some(Protocol::new(protocol)?),
                    reading: if is_deaf { ReadSide::ended() } else { ReadSide::default() },
                    writing: WriteSide::default(),
                    extra,
                    server: None,
                    clients: None,
                }),
            },
        )?;
        if let Some(server) = server {
            Self::tell_server(&transport, &server, intern!(py, "_attach"))?;
            transport.state_mut().server = Some(server);
        }
        // As with asyncio, others may watch a pipe: the two transports of a terminal may share a descriptor.
        event_loop.get().transports().insert(number, kind == Kind::Socket);
        Self::schedule(&transport, Event::Made(waiter))?;
        Ok(transport.unbind())
    }

    /// Call `_attach` or `_detach` of `asyncio.Server`, which takes the transport since Python 3.13.
    pub(super) fn tell_server(
        slf: &Bound<'_, Self>,
        server: &Py<PyAny>,
        method: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let py = slf.py();
        if imports(py)?.server_knows_transports {
            call::call_method(server.bind_borrowed(py), method, &[slf.as_any().as_borrowed()])?;
        } else {
            call::call_method(server.bind_borrowed(py), method, &[])?;
        }
        Ok(())
    }

    /// Keep the map of a server's connections that the transport is about to be entered in, and be in no other.
    pub(super) fn enter_clients(slf: &Bound<'_, Self>, clients: Py<Clients>) {
        slf.get().leave_clients(slf.py());
        slf.state_mut().clients = Some(clients);
    }

    /// Be no longer in such a map.
    pub(super) fn leave_clients_of(slf: &Bound<'_, Self>, clients: &Bound<'_, Clients>) {
        let is_there = slf.state().clients.as_ref().is_some_and(|known| known.is(clients));
        if is_there {
            slf.get().leave_clients(slf.py());
        }
    }

    fn leave_clients(&self, py: Python<'_>) {
        let clients = self.state.with(py, |state| state.clients.take());
        if let Some(clients) = clients {
            clients.get().forget(py, self);
        }
    }

    /// Have an event handled in the next turn.
    pub(super) fn schedule(slf: &Bound<'_, Self>, event: Event) -> PyResult<()> {
        let event_loop = &slf.get().event_loop;
        Ok(EventLoop::enqueue(event_loop.bind(slf.py()), Callback::Transport(slf.clone().unbind(), event))?)
    }

    /// Handle an event; an error is one that must end the loop.
    pub fn handle_event(slf: &Bound<'_, Self>, event: Event) -> ThinResult<()> {
        Self::run_as_event(slf, || Ok(Self::dispatch(slf, event)?))
    }

    /// Run `body` in the transport's context. Its error is reported, unless it must end the loop.
    pub(super) fn run_as_event(
        slf: &Bound<'_, Self>,
        body: impl FnOnce() -> ThinResult<()>,
    ) -> ThinResult<()> {
        let py = slf.py();
        slf.get()
            .context
            .run(py, body)
            .or_else(|error| Ok(Self::report(slf, "Exception in a transport", error.into())?))
    }

    fn dispatch(slf: &Bound<'_, Self>, event: Event) -> PyResult<()> {
        match event {
            Event::Made(waiter) => Self::handle_made(slf, waiter),
            Event::Received { buffer, last } => Self::handle_received(slf, buffer, last),
            Event::ReadReady => Self::handle_read_ready(slf),
            Event::ReadFailed(error) => Self::handle_read_failed(slf, error),
            Event::ReadingEnded => Self::handle_reading_ended(slf),
            Event::DeliverHeld => Self::deliver_held(slf),
            Event::Sent { buffer, length } => Self::handle_sent(slf, buffer, length),
            Event::WriteReady => Self::handle_write_ready(slf),
            Event::WriteMore => Self::write_out(slf),
            Event::WriteFailed(error) => Self::handle_write_failed(slf, error),
            Event::WritingEnded => Ok(()),
            Event::ConnectionLost(error) => Self::handle_connection_lost(slf, error.map(|error| *error)),
        }
    }

    fn handle_made(slf: &Bound<'_, Self>, waiter: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let made = Self::call_protocol(slf, intern!(py, "connection_made"), Some(slf.as_any().as_borrowed()));
        let told = made
            .map(drop)
            .or_else(|error| Self::report(slf, "Exception in callback protocol.connection_made()", error));
        // Also when the protocol ends the loop: who runs it again finds the connection at work.
        Self::start_reading(slf)?;
        if let Some(waiter) = waiter {
            settle(py, &waiter, None)?;
        }
        told
    }

    /// RuntimeError on another thread than the one that runs the loop. `write` needs no such check: it works there,
    /// as it does with asyncio by accident.
    fn check_thread(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().event_loop.get().check_thread()
    }

    /// RuntimeError in a forked child: the parent sends what is queued, and owns the connection.
    pub(super) fn check_process(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().event_loop.get().check_process()
    }

    /// Whether the transport is closing or closed.
    pub fn is_closing(slf: &Bound<'_, Self>) -> bool {
        slf.state().phase != Phase::Open
    }

    /// NotImplementedError, as of asyncio's abstract class, on the writing end of a pipe.
    fn check_reads(&self) -> PyResult<()> {
        if self.kind == Kind::WritePipe { Err(PyNotImplementedError::new_err(())) } else { Ok(()) }
    }

    /// AttributeError on the reading end of a pipe: no transport of asyncio's that only reads has such methods.
    pub(super) fn check_writes(&self) -> PyResult<()> {
        if self.kind != Kind::ReadPipe {
            return Ok(());
        }
        Err(PyAttributeError::new_err("this end of a pipe is read, not written"))
    }
}

#[pymethods]
impl StreamTransport {
    /// The class that the transport is an instance of, for `isinstance`.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let imports = imports(py)?;
        let class = match self.kind {
            Kind::Socket | Kind::WritePipe => &imports.flow_control_mixin,
            Kind::ReadPipe => &imports.read_transport,
        };
        Ok(class.bind(py).clone())
    }

    /// Whether `start_tls` takes the transport: connections, not pipes.
    #[getter]
    fn _start_tls_compatible(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// How `loop.sendfile` treats the transport.
    #[getter]
    fn _sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mode = if self.kind == Kind::Socket { "TRY_NATIVE" } else { "UNSUPPORTED" };
        py.import("asyncio.constants")?.getattr("_SendfileMode")?.getattr(mode)
    }

    /// Whether the protocol was asked to pause writing; asyncio's `sendfile` fallback asks.
    #[getter]
    fn _protocol_paused(slf: &Bound<'_, Self>) -> bool {
        slf.state().writing.marks.protocol_paused
    }

    /// A file is to be sent: refuse to write anything else until `_end_file`.
    fn _begin_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::begin_file(slf)
    }

    /// Set the result of a future when everything written before has left and the kernel takes more; its exception
    /// when the connection is lost.
    fn _await_room(slf: &Bound<'_, Self>, waiter: Py<PyAny>) -> PyResult<()> {
        Self::await_room(slf, waiter)
    }

    /// The file was sent, or will not be.
    fn _end_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::end_file(slf)
    }

    /// The loop that the transport belongs to.
    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<EventLoop> {
        self.event_loop.clone_ref(py)
    }

    // BaseTransport. `is_closing` and `write` are in `methods.rs`.

    /// Return what is known of the transport under a name, such as "peername" or "socket".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: Bound<'py, PyString>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let class = slf.get().__class__(slf.py())?;
        match extra::ask_replacement(slf, &class, &name, default.as_ref())? {
            Some(answer) => Ok(answer.unbind()),
            None => Self::extra_info(slf, name.to_str()?, default.map(Bound::unbind)),
        }
    }

    /// Close the transport once what was written has left.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::begin_closing(slf)
    }

    /// Set a new protocol.
    fn set_protocol(slf: &Bound<'_, Self>, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let protocol = Protocol::new(protocol)?;
        let previous = slf.state_mut().protocol.replace(protocol);
        drop(previous);
        Ok(())
    }

    /// Return the current protocol.
    fn get_protocol(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.state().protocol.as_ref().map(|protocol| protocol.object.clone_ref(slf.py()))
    }

    // ReadTransport.

    /// Return whether the transport is receiving.
    fn is_reading(slf: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().check_reads()?;
        let transport = slf.state();
        Ok(transport.phase == Phase::Open && !transport.reading.paused)
    }

    /// Whether the user paused reading, under asyncio's private name: CPython's tests wait for it.
    #[getter]
    fn _paused(slf: &Bound<'_, Self>) -> bool {
        slf.state().reading.paused
    }

    /// Stop delivering data until resume_reading().
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_reads()?;
        Self::check_thread(slf)?;
        Self::pause(slf)
    }

    /// Deliver data again.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_reads()?;
        Self::check_thread(slf)?;
        Self::resume(slf)
    }

    // WriteTransport.

    /// Write several pieces of bytes.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::write_lines(slf, list_of_data)
    }

    /// Close the writing half once what was written has left.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_writes()?;
        Self::check_thread(slf)?;
        Self::end_writing(slf)
    }

    /// Return whether the transport supports write_eof(): it does.
    fn can_write_eof(&self) -> bool {
        true
    }

    /// Close at once; what was not sent is lost.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::write_out(slf)?;
        Self::force_close(slf, None)
    }

    /// Close at once, for a reason that the protocol is told; asyncio's own transports have it.
    #[pyo3(signature = (exception=None))]
    fn _force_close(slf: &Bound<'_, Self>, exception: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::force_close(slf, exception.map(PyErr::from_value))
    }

    /// Return how many bytes wait to be sent.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Self::write_out(slf)?;
        Ok(slf.state().writing.size)
    }

    /// Return the low- and the high-water mark, in bytes.
    fn get_write_buffer_limits(slf: &Bound<'_, Self>) -> (usize, usize) {
        let transport = slf.state();
        (transport.writing.marks.low, transport.writing.marks.high)
    }

    /// Set the high- and the low-water mark, in bytes.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<isize>,
        low: Option<isize>,
    ) -> PyResult<()> {
        slf.state_mut().writing.marks.set(high, low, DEFAULT_HIGH)?;
        // The marks look at what the kernel did not take.
        if slf.state().writing.is_above_high() {
            Self::write_out(slf)?;
        }
        Self::pause_protocol_if_full(slf)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        slf.state().describe(slf.get().kind, slf.get().event_loop.get())
    }

    // Garbage collection.

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        self.context.traverse(&visit)?;
        let Some(state) = self.state.look(&visit) else { return Ok(()) };
        if let Some(protocol) = &state.protocol {
            visit.call(&protocol.object)?;
        }
        if let Descriptor::Object(object, _) = &state.descriptor {
            visit.call(object)?;
        }
        visit.call(&state.extra.dictionary)?;
        visit.call(state.writing.file.waiter())?;
        visit.call(&state.clients)?;
        visit.call(&state.server)
    }

    fn __clear__(&self) {
        // Taken first and dropped last: dropping may run code that looks at this transport.
        let taken = Python::attach(|py| {
            self.leave_clients(py);
            let mut state = self.state.borrow_mut(py);
            let waiter = state.writing.file.take_waiter();
            (state.protocol.take(), state.server.take(), state.extra.dictionary.take(), waiter)
        });
        drop(taken);
    }
}

impl Drop for StreamTransport {
    /// Warn of a transport that nobody closed, as asyncio's `__del__` does.
    fn drop(&mut self) {
        if self.state.get_mut().clients.is_some() {
            // Where the interpreter is gone nobody will look for it.
            let _ = Python::try_attach(|py| self.leave_clients(py));
        }
        if self.state.get_mut().descriptor.is_closed() {
            return;
        }
        let descriptor = self.state.get_mut().descriptor.take();
        let description = self.state.get_mut().describe(self.kind, self.event_loop.get());
        warn_unclosed(&self.event_loop, &description, Some(descriptor));
    }
}

/// Have small writes leave without waiting for an acknowledgement, as asyncio does.
fn disable_nagle(descriptor: &Descriptor) {
    // Only TCP has the option; every other family answers that it has not.
    let _ = sys::set_nodelay(descriptor.number(), true);
}

/// The exception for a method that needs an open writing side.
pub(super) fn after_eof() -> PyErr {
    PyRuntimeError::new_err("Cannot call write() after write_eof()")
}
