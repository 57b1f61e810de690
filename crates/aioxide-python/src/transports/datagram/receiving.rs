//! The receiving side of a datagram transport.
//!
//! The driver says that there is something; then one system call receives as many datagrams as there are, up to a
//! limit that follows the traffic: a lone datagram costs one plain receive, a crowd few calls.
//!
//! # Invariants
//! - Datagrams are delivered one by one, in order. A protocol that pauses reading gets the rest of a batch when it
//!   resumes; one that closes gets none of it.
//! - What raises out of a protocol is reported and ends neither the batch nor the transport, unless it must end the
//!   loop; then the rest is delivered when the loop runs again.

use std::collections::VecDeque;

use aioxide_driver::{Datagrams, Op, Outcome, SocketAddrAny, Token};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::{DatagramTransport, Event};
use crate::convert::address;
use crate::error::os_error;
use crate::event_loop::{Interest, Submission};
use crate::ffi::call;
use crate::transports::reading::is_not_ready;
use crate::transports::stream::Phase;

/// So many lone datagrams in a row, and the next receive looks whether there are more: looking costs a lone
/// datagram about as much as receiving it.
const LONE_BEFORE_LOOKING: u32 = 8;

/// As asyncio's `max_size`, in bytes.
const LARGEST: usize = 256 * 1024;

/// The state of the receiving side.
#[derive(Default)]
pub struct ReceiveSide {
    /// The wait for something to receive.
    wait: Option<Token>,
    /// Whether the user paused reading.
    pub paused: bool,
    /// What was received and could not be delivered.
    held: VecDeque<(Py<PyBytes>, Py<PyAny>)>,
    /// How many datagrams came at once the last time, and how often in a row it was one.
    crowd: usize,
    lone: u32,
}

impl ReceiveSide {
    /// Whether the driver watches for datagrams.
    pub fn is_active(&self) -> bool {
        self.wait.is_some()
    }

    /// How many datagrams to ask for.
    fn limit(&self) -> usize {
        match self.crowd {
            0 | 1 if self.lone < LONE_BEFORE_LOOKING => 1,
            crowd => (crowd * 2).clamp(4, Datagrams::CAPACITY),
        }
    }

    fn note(&mut self, asked: usize, received: usize) {
        self.crowd = received;
        self.lone = if received > 1 || asked > 1 { 0 } else { self.lone + 1 };
    }
}

impl DatagramTransport {
    /// Ask the driver to say when there is something, unless it was asked already or nobody wants it.
    pub(super) fn start_receiving(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, descriptor) = {
            let transport = slf.borrow();
            if transport.phase != Phase::Open
                || transport.receiving.paused
                || transport.receiving.wait.is_some()
            {
                return Ok(());
            }
            (transport.event_loop.clone_ref(py), transport.descriptor.number())
        };
        let interest = Interest::DatagramReading(slf.clone().unbind());
        let op = Op::WaitReadable { descriptor, repeat: true };
        let submitted = event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                slf.borrow_mut().receiving.wait = Some(token);
                Ok(())
            }
            Submission::Done(Outcome::Failed(error), _interest) => {
                Self::fail(slf, os_error(py, &error), "Fatal read error on datagram transport")
            }
            Submission::Done(..) => Ok(()),
        }
    }

    /// Lose interest in datagrams for good.
    pub(super) fn stop_receiving(slf: &Bound<'_, Self>) -> PyResult<()> {
        let held = std::mem::take(&mut slf.borrow_mut().receiving.held);
        drop(held);
        Self::suspend_receiving(slf)
    }

    fn suspend_receiving(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (wait, event_loop) = {
            let mut transport = slf.borrow_mut();
            (transport.receiving.wait.take(), transport.event_loop.clone_ref(slf.py()))
        };
        if let Some(token) = wait {
            let interest = event_loop.get().with_core(|core| core.cancel(token))?;
            drop(interest);
        }
        Ok(())
    }

    /// `pause_reading()`.
    pub(super) fn pause(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.borrow_mut();
            if transport.phase != Phase::Open || transport.receiving.paused {
                return Ok(());
            }
            transport.receiving.paused = true;
        }
        Self::suspend_receiving(slf)
    }

    /// `resume_reading()`.
    pub(super) fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let holds = {
            let mut transport = slf.borrow_mut();
            if transport.phase != Phase::Open || !transport.receiving.paused {
                return Ok(());
            }
            transport.receiving.paused = false;
            !transport.receiving.held.is_empty()
        };
        if holds { Self::schedule(slf, Event::DeliverHeld) } else { Self::start_receiving(slf) }
    }

    /// Receiving would not block.
    pub(super) fn handle_read_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, family, descriptor, limit) = {
            let transport = slf.borrow();
            let receiving = &transport.receiving;
            // The report may be older than a pause, or than the end of one.
            if transport.phase != Phase::Open || receiving.wait.is_none() || !receiving.held.is_empty() {
                return Ok(());
            }
            let limit = if transport.family.is_some_and(|family| family.is_internet()) {
                receiving.limit()
            } else {
                1
            };
            let event_loop = transport.event_loop.clone_ref(slf.py());
            (event_loop, transport.family, transport.descriptor.number(), limit)
        };
        if family.is_none() {
            return Self::receive_by_socket(slf);
        }
        // Out of the core while protocols run: they may come here again, through a loop that runs inside of one.
        let mut datagrams = event_loop.get().with_core(|core| core.datagrams.take())?.unwrap_or_default();
        let received = datagrams.receive(descriptor, limit);
        slf.borrow_mut().receiving.note(limit, datagrams.len());
        let delivered = match received {
            Ok(()) => Self::deliver(slf, &datagrams),
            Err(error) if is_not_ready(&error) => Ok(()),
            Err(error) => Self::report_callback(
                slf,
                "error_received",
                Self::tell_error(slf, os_error(slf.py(), &error)),
            ),
        };
        // A protocol may have closed the loop that it was called from inside of another turn: then nobody needs it.
        let _ = event_loop.get().with_core(|core| core.datagrams = Some(datagrams));
        delivered
    }

    /// Give each datagram of a batch to the protocol.
    fn deliver(slf: &Bound<'_, Self>, datagrams: &Datagrams) -> PyResult<()> {
        let py = slf.py();
        for index in 0..datagrams.len() {
            let (bytes, source) = datagrams.get(index);
            let data = PyBytes::new(py, bytes);
            let source = Self::source_to_python(slf, source)?;
            if let Err(error) = Self::deliver_one(slf, &data, source.bind(py)) {
                // It ends the loop; who runs it again gets the rest.
                Self::hold(slf, datagrams, index + 1)?;
                Self::schedule(slf, Event::DeliverHeld)?;
                return Err(error);
            }
            let (phase, paused) = {
                let transport = slf.borrow();
                (transport.phase, transport.receiving.paused)
            };
            if phase != Phase::Open {
                return Ok(());
            }
            if paused {
                return Self::hold(slf, datagrams, index + 1);
            }
        }
        Ok(())
    }

    fn deliver_one(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyBytes>,
        source: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let arguments = [data.as_any().as_borrowed(), source.as_borrowed()];
        let told = Self::call_protocol(slf, intern!(slf.py(), "datagram_received"), &arguments);
        Self::report_callback(slf, "datagram_received", told)
    }

    /// Keep the datagrams of a batch from `first`.
    fn hold(slf: &Bound<'_, Self>, datagrams: &Datagrams, first: usize) -> PyResult<()> {
        let py = slf.py();
        for index in first..datagrams.len() {
            let (bytes, source) = datagrams.get(index);
            let data = PyBytes::new(py, bytes).unbind();
            let source = Self::source_to_python(slf, source)?;
            slf.borrow_mut().receiving.held.push_back((data, source));
        }
        Ok(())
    }

    /// Deliver what is held, for as long as reading is not paused again.
    pub(super) fn deliver_held(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        loop {
            let held = {
                let mut transport = slf.borrow_mut();
                if transport.phase != Phase::Open || transport.receiving.paused {
                    return Ok(());
                }
                transport.receiving.held.pop_front()
            };
            let Some((data, source)) = held else { return Self::start_receiving(slf) };
            if let Err(error) = Self::deliver_one(slf, data.bind(py), source.bind(py)) {
                Self::schedule(slf, Event::DeliverHeld)?;
                return Err(error);
            }
        }
    }

    /// Report what a protocol's method raised; lets through what must end the loop.
    pub(super) fn report_callback(slf: &Bound<'_, Self>, method: &str, told: PyResult<()>) -> PyResult<()> {
        told.or_else(|error| Self::report(slf, &format!("Exception in callback protocol.{method}()"), error))
    }

    fn source_to_python(slf: &Bound<'_, Self>, source: Option<&SocketAddrAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        // An unbound Unix socket sent it.
        let Some(source) = source else { return Ok(py.None()) };
        if let Some(known) = slf.borrow_mut().correspondents.find(py, source) {
            return Ok(known);
        }
        let Some(converted) = address::to_python(py, source)? else { return Ok(py.None()) };
        let remembered = converted.clone_ref(py);
        let displaced = slf.borrow_mut().correspondents.remember(source, remembered);
        drop(displaced);
        Ok(converted)
    }

    /// Receive from a socket whose addresses only the `socket` module can write.
    fn receive_by_socket(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Some(socket) = Self::python_socket(slf) else { return Ok(()) };
        match call::call_method_of(socket.bind(py), intern!(py, "recvfrom"), (LARGEST,)) {
            Ok(received) => {
                let received = received.cast::<PyTuple>()?;
                let data = received.get_item(0)?.cast_into::<PyBytes>()?;
                Self::deliver_one(slf, &data, &received.get_item(1)?)
            }
            Err(error) if would_block(py, &error) => Ok(()),
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                Self::report_callback(slf, "error_received", Self::tell_error(slf, error))
            }
            Err(error) => Self::fail(slf, error, "Fatal read error on datagram transport"),
        }
    }

    /// The socket that the transport was made from, until it is closed.
    pub(super) fn python_socket(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.borrow().descriptor.object(slf.py())
    }
}

/// Whether a call of the `socket` module would have blocked or was interrupted: nothing is wrong.
pub(super) fn would_block(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}
