//! The transport of datagrams: UDP, Unix datagram sockets and whatever else keeps message borders (asyncio docs,
//! "Transports and Protocols", "Datagram Transports").
//!
//! Its life is that of a stream (`stream.rs`), only that an error of the network ends nothing: the protocol is told
//! (`error_received`) and goes on. Receiving is in `receiving.rs`, sending in `sending.rs`, the addresses of those we
//! talk to in `correspondents.rs`.
//!
//! # Invariants
//! - No Python is called and no Python object dropped while a transport is borrowed.
//! - The driver knows of at most one wait for reading and one for writing.
//! - `connection_lost` is called exactly once, after `connection_made`, and the descriptor is closed after it.

mod correspondents;
mod queue;
mod receiving;
mod sending;

use aioxide_driver::sys;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyDict, PyString};
use pyo3::{Borrowed, PyTraverseError, intern};

use self::correspondents::Correspondents;
use self::receiving::ReceiveSide;
use self::sending::SendSide;
use super::descriptor::Descriptor;
use super::extra::ask_replacement;
use super::flow_control::DEFAULT_HIGH;
use super::lifetime::{log_expected, reason, settle, warn_unclosed};
use super::stream::Phase;
use crate::callback::Callback;
use crate::convert::address::Family;
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::ffi::collector::new_with_dictionary;
use crate::ffi::{call, context};
use crate::imports::imports;

/// What happens to a transport, in its turn of the ready queue.
pub enum Event {
    /// It was made: tell the protocol, begin to receive, then wake who waits for it.
    Made(Option<Py<PyAny>>),
    /// Receiving would not block.
    ReadReady,
    /// What was received and could not be delivered then can be delivered.
    DeliverHeld,
    /// Sending would not block.
    WriteReady,
    /// Something waits to be sent that another thread sent.
    SendMore,
    /// The descriptor cannot be waited for.
    WaitFailed(std::io::Error),
    /// A wait was cancelled and is over.
    WaitEnded,
    /// The end. (Boxed, as every callback of the loop is as large as the largest.)
    ConnectionLost(Option<Box<PyErr>>),
}

/// A datagram transport. `isinstance(transport, asyncio.DatagramTransport)` holds.
#[pyclass(module = "aioxide", weakref, dict)]
pub struct DatagramTransport {
    pub(super) event_loop: Py<EventLoop>,
    context: Py<PyAny>,
    phase: Phase,
    descriptor: Descriptor,
    protocol: Option<Py<PyAny>>,
    /// How addresses are written; `None` for families that the `socket` module must write itself.
    family: Option<Family>,
    /// Whether the socket has a peer, to whom everything goes.
    is_connected: bool,
    /// The only destination the user may name, where they named one before.
    remote: Option<Py<PyAny>>,
    correspondents: Correspondents,
    receiving: ReceiveSide,
    sending: SendSide,
    extra: Py<PyDict>,
}

impl DatagramTransport {
    /// Make the transport of a Python socket.
    pub fn open(
        event_loop: &Bound<'_, EventLoop>,
        socket: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        address: Option<Bound<'_, PyAny>>,
        waiter: Option<Py<PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        event_loop.get()._check_closed()?;
        call::call_method_of(event_loop, intern!(py, "_ensure_fd_no_transport"), (&socket,))?;
        let remote = match address {
            Some(address) if address.is_truthy()? => Some(address.unbind()),
            _ => None,
        };
        let extra = extra.unwrap_or_else(|| PyDict::new(py));
        let sockname = intern!(py, "sockname");
        let peername = intern!(py, "peername");
        extra.set_item(sockname, address_or_none(&socket, intern!(py, "getsockname"))?)?;
        if !extra.contains(peername)? {
            extra.set_item(peername, address_or_none(&socket, intern!(py, "getpeername"))?)?;
        }
        let descriptor = Descriptor::of(socket.clone())?;
        let number = descriptor.number();
        let transport = new_with_dictionary(
            py,
            Self {
                event_loop: event_loop.clone().unbind(),
                context: context::copy_current(py)?,
                phase: Phase::Open,
                descriptor,
                protocol: Some(protocol.unbind()),
                family: sys::local_name(number).ok().and_then(|name| Family::of(&name)),
                // An unnamed peer of a socket pair is a peer.
                is_connected: matches!(sys::peer_name(number), Ok(Some(_))),
                remote,
                correspondents: Correspondents::default(),
                receiving: ReceiveSide::default(),
                sending: SendSide::new(imports(py)?.datagram_header),
                extra: extra.clone().unbind(),
            },
        )?;
        let face = call::call_method_of(event_loop, intern!(py, "_face_of_socket"), (socket, &transport))?;
        extra.set_item(intern!(py, "socket"), face)?;
        event_loop.get().transports().insert(number, true);
        Self::schedule(&transport, Event::Made(waiter))?;
        Ok(transport.unbind())
    }

    /// Have an event handled in the next turn.
    fn schedule(slf: &Bound<'_, Self>, event: Event) -> PyResult<()> {
        let event_loop = slf.borrow().event_loop.clone_ref(slf.py());
        Ok(EventLoop::enqueue(event_loop.bind(slf.py()), Callback::Datagram(slf.clone().unbind(), event))?)
    }

    /// Handle an event; an error is one that must end the loop.
    pub fn handle_event(slf: &Bound<'_, Self>, event: Event) -> PyResult<()> {
        Self::run_as_event(slf, || match event {
            Event::Made(waiter) => Self::handle_made(slf, waiter),
            Event::ReadReady => Self::handle_read_ready(slf),
            Event::DeliverHeld => Self::deliver_held(slf),
            Event::WriteReady => Self::handle_write_ready(slf),
            Event::SendMore => Self::send_queued(slf),
            Event::WaitFailed(error) => {
                Self::fail(slf, os_error(slf.py(), &error), "Fatal error on datagram transport")
            }
            Event::WaitEnded => Ok(()),
            Event::ConnectionLost(error) => Self::handle_connection_lost(slf, error.map(|error| *error)),
        })
    }

    /// Run `body` in the transport's context. Its error is reported, unless it must end the loop.
    fn run_as_event(slf: &Bound<'_, Self>, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        let py = slf.py();
        let run_context = slf.borrow().context.clone_ref(py);
        context::run_in(run_context.bind_borrowed(py), body)
            .or_else(|error| Self::report(slf, "Exception in a datagram transport", error))
    }

    fn handle_made(slf: &Bound<'_, Self>, waiter: Option<Py<PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let made = Self::call_protocol(slf, intern!(py, "connection_made"), &[slf.as_any().as_borrowed()]);
        let told = made
            .or_else(|error| Self::report(slf, "Exception in callback protocol.connection_made()", error));
        // Also when the protocol ends the loop: who runs it again finds the endpoint at work.
        Self::start_receiving(slf)?;
        if let Some(waiter) = waiter {
            settle(py, &waiter, None)?;
        }
        told
    }

    fn handle_connection_lost(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = slf.py();
        let error = reason(py, error);
        let told = Self::call_protocol(slf, intern!(py, "connection_lost"), &[error.as_borrowed()])
            .or_else(|error| Self::report(slf, "Exception in callback protocol.connection_lost()", error));
        let (descriptor, protocol, event_loop) = {
            let mut transport = slf.borrow_mut();
            transport.phase = Phase::Closed;
            (transport.descriptor.take(), transport.protocol.take(), transport.event_loop.clone_ref(py))
        };
        event_loop.get().transports().remove(&descriptor.number());
        let closed = descriptor.close(py);
        drop(protocol);
        told.and(closed)
    }

    /// Close for an error that is not one of the network, as asyncio's `_fatal_error` does. What must end the loop is
    /// handed back.
    fn fail(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        if error.is_instance_of::<PyOSError>(py) {
            let event_loop = slf.borrow().event_loop.clone_ref(py);
            log_expected(event_loop.get(), slf, message, &error)?;
        } else {
            Self::report(slf, message, error.clone_ref(py))?;
        }
        Self::force_close(slf, Some(error))
    }

    /// Drop what was not sent yet and schedule `connection_lost`.
    fn force_close(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        if matches!(slf.borrow().phase, Phase::Lost | Phase::Closed) {
            return Ok(());
        }
        Self::stop_receiving(slf)?;
        Self::discard_queued(slf)?;
        Self::enter(slf, Phase::Lost);
        Self::schedule(slf, Event::ConnectionLost(error.map(Box::new)))
    }

    /// Begin to close: no more receiving; `connection_lost` follows once everything is sent.
    fn begin_closing(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.borrow().phase != Phase::Open {
            return Ok(());
        }
        Self::enter(slf, Phase::Closing);
        Self::stop_receiving(slf)?;
        Self::send_queued(slf)?;
        Self::finish_closing(slf)
    }

    /// Schedule `connection_lost` of a closing transport that has sent everything.
    fn finish_closing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let finished = {
            let transport = slf.borrow();
            transport.phase == Phase::Closing && transport.sending.is_empty()
        };
        if !finished {
            return Ok(());
        }
        Self::enter(slf, Phase::Lost);
        Self::schedule(slf, Event::ConnectionLost(None))
    }

    /// Enter a phase after `Open`: the descriptor may be watched by others from now on.
    fn enter(slf: &Bound<'_, Self>, phase: Phase) {
        let mut transport = slf.borrow_mut();
        transport.phase = phase;
        let number = transport.descriptor.number();
        if let Some(is_open) = transport.event_loop.get().transports().get_mut(&number) {
            *is_open = false;
        }
    }

    /// Call a method of the protocol, if there is one still, in the caller's context (see `protocol.rs`).
    fn call_protocol<'py>(
        slf: &Bound<'py, Self>,
        method: &Bound<'py, PyString>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> PyResult<()> {
        let py = slf.py();
        let protocol = match &slf.borrow().protocol {
            Some(protocol) => protocol.clone_ref(py),
            None => return Ok(()),
        };
        call::call_method(protocol.bind_borrowed(py), method, arguments).map(drop)
    }

    /// Tell the protocol of an error of the network.
    fn tell_error(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        let error = error.into_value(py).into_any();
        Self::call_protocol(slf, intern!(py, "error_received"), &[error.bind_borrowed(py)])
    }

    /// Report an exception with the transport and its protocol.
    fn report(slf: &Bound<'_, Self>, message: &str, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, protocol) = {
            let transport = slf.borrow();
            let protocol = transport.protocol.as_ref().map(|protocol| protocol.clone_ref(py));
            (transport.event_loop.clone_ref(py), protocol)
        };
        let protocol = protocol.unwrap_or_else(|| py.None());
        let concerning = [("transport", slf.as_any()), ("protocol", protocol.bind(py))];
        EventLoop::report_error(event_loop.bind(py), message, error, &concerning)
    }

    /// RuntimeError on another thread than the one that runs the loop. `sendto` needs no such check: it works there,
    /// as it does with asyncio by accident.
    fn check_thread(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.borrow().event_loop.get().check_thread()
    }

    /// RuntimeError in a forked child: the parent sends what is queued, and owns the socket.
    fn check_process(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.borrow().event_loop.get().check_process()
    }

    fn describe(&self) -> String {
        let mut parts = vec!["DatagramTransport".to_owned()];
        match self.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Lost => parts.push("closing".to_owned()),
            Phase::Closed => parts.push("closed".to_owned()),
        }
        parts.push(format!("fd={}", self.descriptor.number()));
        if self.phase == Phase::Open && self.event_loop.get().is_closed() {
            parts.push("open".to_owned());
        } else if self.phase != Phase::Closed {
            parts.push(format!("read={}", if self.receiving.is_active() { "polling" } else { "idle" }));
            let state = if self.sending.is_waiting() { "polling" } else { "idle" };
            parts.push(format!("write=<{state}, bufsize={}>", self.sending.size));
        }
        format!("<{}>", parts.join(" "))
    }
}

#[pymethods]
impl DatagramTransport {
    /// The class that the transport is an instance of, for `isinstance`.
    #[getter]
    fn __class__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(imports(py)?.datagram_transport.bind(py).clone())
    }

    /// The loop that the transport belongs to.
    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<EventLoop> {
        self.event_loop.clone_ref(py)
    }

    // BaseTransport.

    /// Return what is known of the transport under a name, such as "sockname" or "socket".
    #[pyo3(signature = (name, default=None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let class = slf.borrow().__class__(slf.py())?;
        if let Some(answer) = ask_replacement(slf, &class, &name, default.as_ref())? {
            return Ok(Some(answer));
        }
        let extra = slf.borrow().extra.bind(slf.py()).clone();
        Ok(extra.get_item(name)?.or(default))
    }

    /// Return whether the transport is closing or closed.
    fn is_closing(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Close the transport once what was sent has left.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::begin_closing(slf)
    }

    /// Set a new protocol.
    fn set_protocol(slf: &Bound<'_, Self>, protocol: Py<PyAny>) {
        let previous = slf.borrow_mut().protocol.replace(protocol);
        drop(previous);
    }

    /// Return the current protocol.
    fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.protocol.as_ref().map(|protocol| protocol.clone_ref(py))
    }

    // What asyncio's datagram transports can besides.

    /// Return whether the transport is receiving.
    fn is_reading(&self) -> bool {
        self.phase == Phase::Open && !self.receiving.paused
    }

    /// Stop delivering datagrams until resume_reading().
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::pause(slf)
    }

    /// Deliver datagrams again.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::resume(slf)
    }

    // DatagramTransport.

    /// Close at once; what waits to be sent is lost.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::check_thread(slf)?;
        Self::send_queued(slf)?;
        Self::force_close(slf, None)
    }

    // Flow control.

    /// Return how many bytes wait to be sent.
    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        Self::check_process(slf)?;
        Self::send_queued(slf)?;
        Ok(slf.borrow().sending.size)
    }

    /// Return the low- and the high-water mark, in bytes.
    fn get_write_buffer_limits(&self) -> (usize, usize) {
        (self.sending.marks.low, self.sending.marks.high)
    }

    /// Set the high- and the low-water mark, in bytes.
    #[pyo3(signature = (high=None, low=None))]
    fn set_write_buffer_limits(
        slf: &Bound<'_, Self>,
        high: Option<isize>,
        low: Option<isize>,
    ) -> PyResult<()> {
        Self::check_process(slf)?;
        slf.borrow_mut().sending.marks.set(high, low, DEFAULT_HIGH)?;
        // The marks look at what the kernel did not take.
        Self::send_queued(slf)?;
        Self::pause_protocol_if_full(slf)
    }

    /// Send again after a while in which the kernel took nothing, though it said it would.
    fn _send_again(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::handle_event(slf, Event::WriteReady)
    }

    fn __repr__(&self) -> String {
        self.describe()
    }

    // Garbage collection.

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.context)?;
        visit.call(&self.protocol)?;
        visit.call(&self.remote)?;
        visit.call(&self.extra)?;
        self.sending.traverse(&visit)?;
        match &self.descriptor {
            Descriptor::Object(object, _) => visit.call(object),
            _ => Ok(()),
        }
    }

    fn __clear__(&mut self) {
        // Taken first and dropped last: dropping may run code that looks at this transport.
        let taken = (self.protocol.take(), self.remote.take(), self.sending.take_queue());
        drop(taken);
    }
}

impl Drop for DatagramTransport {
    /// Warn of a transport that nobody closed, as asyncio's `__del__` does.
    fn drop(&mut self) {
        if self.descriptor.is_closed() {
            return;
        }
        let description = self.describe();
        warn_unclosed(&self.event_loop, &description, Some(self.descriptor.take()));
    }
}

/// What `getsockname` or `getpeername` answers; None where it is refused.
fn address_or_none<'py>(
    socket: &Bound<'py, PyAny>,
    method: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = socket.py();
    match call::call_method(socket.as_borrowed(), method, &[]) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(py.None().into_bound(py)),
        answered => answered,
    }
}
