//! The sending side of a datagram transport.
//!
//! The first datagram of a turn leaves at once, those that follow it in the same turn leave together at its end. The
//! water marks see only what the kernel did not take: before a protocol is paused, what was gathered is sent.
//!
//! A connected socket gathers nothing: its peer's refusals (ICMP) come as errors of later sends, one each, and in a
//! batch some would be lost.
//!
//! # Invariants
//! - Datagrams leave in the order of the calls; `size` is what was given to `sendto` and has not left.
//! - While there is a wait for room, nothing is sent past it.

use std::collections::VecDeque;

use aioxide_driver::{Datagrams, Op, Outcome, Token};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use pyo3::{PyTraverseError, intern};

use super::queue::{self, Datagram, Destination};
use super::receiving::would_block;
use super::{DatagramTransport, Event};
use crate::convert::address;
use crate::error::os_error;
use crate::event_loop::{Interest, Submission};
use crate::ffi::call;
use crate::imports::imports;
use crate::transports::flow_control::WaterMarks;
use crate::transports::reading::is_not_ready;
use crate::transports::stream::Phase;
use crate::transports::write_queue::Data;

/// Sends to a closed endpoint before the log says so (asyncio `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_SENDS_BEFORE_WARNING: u32 = 5;

/// Seconds to wait where the kernel reports room and takes nothing: an unconnected Unix socket is writable also while
/// the receiver's queue is full (unix(7)).
const PAUSE_OF_FALSE_ROOM: f64 = 0.001;

/// The state of the sending side.
pub struct SendSide {
    queue: VecDeque<Datagram>,
    /// How many bytes wait to be sent, each datagram counted with its header.
    pub size: usize,
    /// How many bytes a header counts.
    header: usize,
    wait: Wait,
    /// Whether the kernel reported room and nothing was sent since.
    room_was_reported: bool,
    /// Whether the transport is in the loop's list of transports to flush: something was sent in this turn.
    listed: bool,
    pub marks: WaterMarks,
    sends_after_loss: u32,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    None,
    /// For the driver to say that there is room.
    Room(Token),
    /// For time to pass.
    Pause,
}

impl SendSide {
    /// An empty queue, for datagrams that count `header` bytes more than they have.
    pub fn new(header: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            size: 0,
            header,
            wait: Wait::None,
            room_was_reported: false,
            listed: false,
            marks: WaterMarks::default(),
            sends_after_loss: 0,
        }
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is a wait for room.
    pub fn is_waiting(&self) -> bool {
        self.wait != Wait::None
    }

    /// Take out the queue, to be dropped unborrowed.
    #[must_use]
    pub fn take_queue(&mut self) -> VecDeque<Datagram> {
        self.size = 0;
        std::mem::take(&mut self.queue)
    }

    /// Show the garbage collector what the queue keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        queue::traverse(&self.queue, visit)
    }
}

/// Why `sendto` could not send at once.
enum Refusal {
    /// There is no room.
    NotNow,
    /// An error of the network, for the protocol to hear.
    Network(PyErr),
    /// Anything else: the data or the address is none.
    Fatal(PyErr),
}

impl DatagramTransport {
    /// `sendto(data, addr)`.
    pub fn send_to(
        slf: &Bound<'_, Self>,
        object: &Bound<'_, PyAny>,
        address: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        Self::check_process(slf)?;
        let data = match data_of(object)? {
            Ok(data) => data,
            Err(scattered) => return Self::fail(slf, scattered, FATAL),
        };
        if data.len() == 0 && !imports(py)?.sends_empty_datagrams {
            return Ok(());
        }
        let remote = slf.borrow().remote.as_ref().map(|remote| remote.clone_ref(py));
        if let Some(remote) = &remote {
            let remote = remote.bind(py);
            if let Some(address) = address
                && !address.is_none()
                && !address.eq(remote)?
            {
                let text = format!("Invalid address: must be None or {}", remote.str()?);
                return Err(PyValueError::new_err(text));
            }
        }
        if !Self::accepts_datagrams(slf)? {
            return Ok(());
        }
        let destination = Self::destination(slf, remote.as_ref().map(|remote| remote.bind(py)).or(address));
        if matches!(destination, Destination::Object(_)) {
            // In order, but with its errors told at once: most are errors of the caller.
            Self::send_queued(slf)?;
        }
        let (may_leave, is_listed) = {
            let transport = slf.borrow();
            let sending = &transport.sending;
            let may_gather = sending.listed && matches!(destination, Destination::Address(_));
            let is_open = matches!(transport.phase, Phase::Open | Phase::Closing);
            (sending.queue.is_empty() && !(may_gather && is_open), sending.listed)
        };
        if !may_leave {
            return Self::queue(slf, Datagram::new(&data, destination), true);
        }
        match Self::send_now(slf, object, &data, &destination) {
            Ok(()) if is_listed || !matches!(destination, Destination::Address(_)) => Ok(()),
            Ok(()) => Self::list(slf),
            Err(Refusal::NotNow) => {
                let is_open = matches!(slf.borrow().phase, Phase::Open | Phase::Closing);
                if !is_open {
                    return Ok(());
                }
                Self::queue(slf, Datagram::new(&data, destination), false)
            }
            Err(Refusal::Network(error)) => Self::tell_error(slf, error),
            Err(Refusal::Fatal(error)) => Self::fail(slf, error, FATAL),
        }
    }

    /// Whether anybody would send it. Sending to an endpoint that is lost is logged now and then; one without a remote
    /// address sends until its socket is closed, as asyncio's does.
    fn accepts_datagrams(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let warns = {
            let mut transport = slf.borrow_mut();
            let is_lost = match transport.phase {
                Phase::Open | Phase::Closing => false,
                Phase::Lost => transport.remote.is_some(),
                Phase::Closed => true,
            };
            if !is_lost {
                return Ok(true);
            }
            transport.sending.sends_after_loss += 1;
            transport.sending.sends_after_loss > LOST_SENDS_BEFORE_WARNING
        };
        if warns {
            let text = "socket.send() raised exception.";
            call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "warning"), (text,))?;
        }
        Ok(false)
    }

    fn destination(slf: &Bound<'_, Self>, address: Option<&Bound<'_, PyAny>>) -> Destination {
        let transport = slf.borrow();
        if transport.is_connected {
            return Destination::Peer;
        }
        let Some(address) = address else { return Destination::Object(slf.py().None()) };
        if let Some(known) = transport.correspondents.address_of(address) {
            return Destination::Address(known.clone());
        }
        match transport.family.and_then(|family| address::from_python(address, family)) {
            Some(converted) => Destination::Address(converted),
            None => Destination::Object(address.clone().unbind()),
        }
    }

    /// Hand a datagram to the kernel.
    fn send_now(
        slf: &Bound<'_, Self>,
        object: &Bound<'_, PyAny>,
        data: &Data<'_, '_>,
        destination: &Destination,
    ) -> Result<(), Refusal> {
        let py = slf.py();
        let address = match destination {
            Destination::Peer => None,
            Destination::Address(address) => Some(address),
            Destination::Object(address) => return Self::send_by_socket(slf, object, address.bind(py)),
        };
        let descriptor = slf.borrow().descriptor.number();
        match data.read(|bytes| aioxide_driver::sys::send_message(descriptor, bytes, address)) {
            Ok(_) => Ok(()),
            Err(error) if is_not_ready(&error) => Err(Refusal::NotNow),
            Err(error) => Err(Refusal::Network(os_error(py, &error))),
        }
    }

    /// Let the `socket` module send, to an address that it may refuse or must resolve.
    fn send_by_socket(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyAny>,
        address: &Bound<'_, PyAny>,
    ) -> Result<(), Refusal> {
        let py = slf.py();
        let Some(socket) = Self::python_socket(slf) else { return Ok(()) };
        let sent = call::call_method(
            socket.bind_borrowed(py),
            intern!(py, "sendto"),
            &[data.as_borrowed(), address.as_borrowed()],
        );
        match sent {
            Ok(_) => Ok(()),
            Err(error) if would_block(py, &error) => Err(Refusal::NotNow),
            Err(error) if error.is_instance_of::<PyOSError>(py) => Err(Refusal::Network(error)),
            Err(error) => Err(Refusal::Fatal(error)),
        }
    }

    /// Keep a datagram. `gathers`: it waits for the end of the turn, not for room.
    fn queue(slf: &Bound<'_, Self>, datagram: Datagram, gathers: bool) -> PyResult<()> {
        let (is_full, is_above_high) = {
            let mut transport = slf.borrow_mut();
            let sending = &mut transport.sending;
            sending.size += datagram.len(slf.py()) + sending.header;
            sending.queue.push_back(datagram);
            let is_full = sending.queue.len() >= Datagrams::CAPACITY;
            (is_full, sending.size > sending.marks.high)
        };
        if !gathers {
            Self::wait_for_room(slf)?;
        } else if is_full || is_above_high {
            Self::send_queued(slf)?;
        }
        if is_above_high { Self::pause_protocol_if_full(slf) } else { Ok(()) }
    }

    /// Have the transport flushed at the end of the turn, where there is one.
    fn list(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = slf.borrow().event_loop.clone_ref(slf.py());
        if !event_loop.get().is_running_here() {
            return Ok(());
        }
        slf.borrow_mut().sending.listed = true;
        let entry = slf.clone().unbind();
        event_loop.get().with_core(|core| core.unflushed_datagrams.push(entry))
    }

    /// The end of a turn in which something was sent.
    pub fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let is_empty = {
            let mut transport = slf.borrow_mut();
            transport.sending.listed = false;
            transport.sending.queue.is_empty()
        };
        if is_empty { Ok(()) } else { Self::run_as_event(slf, || Self::send_queued(slf)) }
    }

    /// Send what is queued, unless there is a wait for room.
    pub(super) fn send_queued(slf: &Bound<'_, Self>) -> PyResult<()> {
        // What a protocol sends while it is told of errors waits for its own turn.
        let mut budget = match slf.borrow().sending {
            SendSide { wait: Wait::None, ref queue, .. } => queue.len(),
            _ => 0,
        };
        if budget == 0 {
            return Ok(());
        }
        let mut told = Ok(());
        while budget > 0 && told.is_ok() {
            match Self::send_some(slf, budget) {
                // Somebody else sent the rest, or dropped it.
                Ok(0) => break,
                Ok(sent) => budget -= sent.min(budget),
                Err(Refusal::NotNow) => {
                    told = Self::wait_for_room(slf);
                    break;
                }
                Err(Refusal::Network(error)) => {
                    budget -= 1;
                    told = Self::report_callback(slf, "error_received", Self::tell_error(slf, error));
                }
                Err(Refusal::Fatal(error)) => return Self::fail(slf, error, FATAL),
            }
        }
        let is_left = {
            let transport = slf.borrow();
            !transport.sending.is_empty() && !transport.sending.is_waiting()
        };
        if is_left {
            Self::schedule(slf, Event::SendMore)?;
        }
        told?;
        Self::resume_protocol_if_drained(slf)?;
        Self::finish_closing(slf)
    }

    /// Send the first of what is queued, at most `limit`. What was refused for good is taken out of the queue.
    fn send_some(slf: &Bound<'_, Self>, limit: usize) -> Result<usize, Refusal> {
        let py = slf.py();
        let (result, gone) = {
            let mut transport = slf.borrow_mut();
            let descriptor = transport.descriptor.number();
            let sending = &mut transport.sending;
            let limit = limit.min(Datagrams::CAPACITY);
            let result = queue::send_first(py, &sending.queue, descriptor, limit);
            let count = match &result {
                Ok(count) => *count,
                Err(error) if is_not_ready(error) => 0,
                Err(_) => 1,
            };
            (result, sending.take_first(py, count))
        };
        drop(gone);
        match result {
            Ok(0) => Self::send_first_by_socket(slf),
            Ok(count) => Ok(count),
            Err(error) if is_not_ready(&error) => Err(Refusal::NotNow),
            Err(error) => Err(Refusal::Network(os_error(py, &error))),
        }
    }

    /// Send the first of the queue, to an address that only the `socket` module understands.
    fn send_first_by_socket(slf: &Bound<'_, Self>) -> Result<usize, Refusal> {
        let py = slf.py();
        let Some(first) = slf.borrow_mut().sending.take_first(py, 1).pop() else { return Ok(0) };
        let Datagram { data, destination: Destination::Object(address) } = first else { return Ok(0) };
        let data = data.into_python(py);
        match Self::send_by_socket(slf, data.as_any(), address.bind(py)) {
            Ok(()) => Ok(1),
            Err(Refusal::NotNow) => {
                let datagram = Datagram::new(&Data::Bytes(&data), Destination::Object(address));
                let mut transport = slf.borrow_mut();
                transport.sending.size += data.as_bytes().len() + transport.sending.header;
                transport.sending.queue.push_front(datagram);
                Err(Refusal::NotNow)
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn wait_for_room(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, descriptor, is_false) = {
            let transport = slf.borrow();
            if transport.sending.is_waiting() {
                return Ok(());
            }
            let is_false = transport.sending.room_was_reported;
            (transport.event_loop.clone_ref(py), transport.descriptor.number(), is_false)
        };
        if event_loop.get().check_thread().is_err() {
            return Self::schedule(slf, Event::SendMore);
        }
        if is_false {
            slf.borrow_mut().sending.wait = Wait::Pause;
            let send_again = slf.getattr(intern!(py, "_send_again"))?;
            event_loop.call_method1(py, intern!(py, "call_later"), (PAUSE_OF_FALSE_ROOM, send_again))?;
            return Ok(());
        }
        let interest = Interest::DatagramWriting(slf.clone().unbind());
        let op = Op::WaitWritable { descriptor, repeat: false };
        let submitted = event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                slf.borrow_mut().sending.wait = Wait::Room(token);
                Ok(())
            }
            Submission::Done(Outcome::Failed(error), _interest) => {
                Self::fail(slf, os_error(py, &error), FATAL)
            }
            // There is room already.
            Submission::Done(..) => Self::schedule(slf, Event::SendMore),
        }
    }

    /// There is room again, or it is time to look.
    pub(super) fn handle_write_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.borrow_mut();
            if matches!(transport.phase, Phase::Lost | Phase::Closed) {
                return Ok(());
            }
            transport.sending.wait = Wait::None;
            transport.sending.room_was_reported = true;
        }
        Self::send_queued(slf)
    }

    /// Drop what was not sent.
    pub(super) fn discard_queued(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (queue, wait, event_loop) = {
            let mut transport = slf.borrow_mut();
            let event_loop = transport.event_loop.clone_ref(slf.py());
            let sending = &mut transport.sending;
            (sending.take_queue(), std::mem::replace(&mut sending.wait, Wait::None), event_loop)
        };
        drop(queue);
        if let Wait::Room(token) = wait {
            let interest = event_loop.get().with_core(|core| core.cancel(token))?;
            drop(interest);
        }
        Ok(())
    }

    /// Ask the protocol to send no more, where more waits than the high-water mark.
    pub(super) fn pause_protocol_if_full(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.borrow_mut();
            let sending = &mut transport.sending;
            if sending.marks.protocol_paused || sending.size <= sending.marks.high {
                return Ok(());
            }
            sending.marks.protocol_paused = true;
        }
        let told = Self::call_protocol(slf, intern!(slf.py(), "pause_writing"), &[]);
        told.or_else(|error| Self::report(slf, "protocol.pause_writing() failed", error))
    }

    /// Let the protocol send again, where what waits fell to the low-water mark.
    fn resume_protocol_if_drained(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.borrow_mut();
            let sending = &mut transport.sending;
            if !sending.marks.protocol_paused || sending.size > sending.marks.low {
                return Ok(());
            }
            sending.marks.protocol_paused = false;
        }
        let told = Self::call_protocol(slf, intern!(slf.py(), "resume_writing"), &[]);
        told.or_else(|error| Self::report(slf, "protocol.resume_writing() failed", error))
    }
}

impl SendSide {
    /// Take out the first datagrams, which have left or never will.
    fn take_first(&mut self, py: Python<'_>, count: usize) -> Vec<Datagram> {
        if count > 0 {
            self.room_was_reported = false;
        }
        let gone: Vec<_> = self.queue.drain(..count.min(self.queue.len())).collect();
        let bytes: usize = gone.iter().map(|datagram| datagram.len(py) + self.header).sum();
        self.size -= bytes;
        gone
    }
}

/// Look at what `sendto` was given: the bytes; or the error of a view that is not contiguous, which closes the transport;
/// or the TypeError of anything that asyncio does not take for bytes.
fn data_of<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<Result<Data<'a, 'py>, PyErr>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Ok(Data::Bytes(bytes)));
    }
    if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
        return Ok(Data::of(object));
    }
    Err(PyTypeError::new_err(format!(
        "data argument must be a bytes-like object, not {}",
        object.get_type().name()?.repr()?
    )))
}

const FATAL: &str = "Fatal write error on datagram transport";
