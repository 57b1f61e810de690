//! Calls on plain sockets that may wait (asyncio docs, "Working with socket objects directly"), as work of an
//! [`Awaitable`].
//!
//! A call is tried at once; if it would block, the task waits until the descriptor is ready and tries again itself.
//! Nothing is received or sent on the task's behalf while it waits, so a cancelled call loses no data.
//!
//! # Invariants
//! - A waiting call has exactly one operation in the driver, which is cancelled when the call ends, however it ends.
//! - The socket object is held, so its descriptor keeps its meaning unless the program closes it.

use std::io;
use std::os::fd::RawFd;

use aioxide_driver::{Op, Outcome, Token, sys};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::PyVisit;
use pyo3::types::PyBytes;

use super::watchers::Direction;
use super::{EventLoop, Interest, Submission};
use crate::awaitable::waiter::Waiter;
use crate::awaitable::{Awaitable, Step, Work};
use crate::error::{ThinResult, os_error};
use crate::ffi::buffer::Contiguous;
use crate::ffi::call;

/// A call on a socket.
pub struct SocketCall {
    socket: Py<PyAny>,
    descriptor: RawFd,
    action: Action,
    wait: Readiness,
    has_begun: bool,
}

/// What is to be done.
pub enum Action {
    /// `sock_recv`: receive at most so many bytes.
    Receive(usize),
    /// `sock_recv_into`.
    ReceiveInto(Contiguous),
    /// `sock_sendall`: the bytes, and how many of them have left.
    SendAll(Contiguous, usize),
    /// Nothing but to wait.
    Wait(Direction),
}

/// What an attempt brought.
enum Attempt {
    Done(Py<PyAny>),
    Wait(Direction),
}

impl SocketCall {
    /// Make the awaitable of a call; `name` is the method's.
    pub fn awaitable(
        event_loop: &Bound<'_, EventLoop>,
        name: &'static str,
        socket: &Bound<'_, PyAny>,
        action: Action,
    ) -> PyResult<Py<Awaitable>> {
        let py = event_loop.py();
        let descriptor = call::call_method(socket.as_borrowed(), intern!(py, "fileno"), &[])?.extract()?;
        let call = Self {
            socket: socket.clone().unbind(),
            descriptor,
            action,
            wait: Readiness::new(event_loop),
            has_begun: false,
        };
        Awaitable::new(py, name, Work::Socket(call))
    }

    /// Go on.
    pub fn advance(&mut self, py: Python<'_>) -> ThinResult<Step> {
        self.wait.end();
        if !std::mem::replace(&mut self.has_begun, true) {
            self.check(py)?;
        }
        match self.attempt(py)? {
            Attempt::Done(value) => Ok(Step::Done(value)),
            Attempt::Wait(direction) => self.wait.begin(py, self.descriptor, direction),
        }
    }

    /// Whether nothing has happened yet that it waits for.
    pub fn is_waiting(&self, py: Python<'_>) -> bool {
        self.wait.is_waiting(py)
    }

    /// What asyncio refuses, in its words.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.descriptor < 0 {
            return Err(PyValueError::new_err(format!("Invalid file descriptor: {}", self.descriptor)));
        }
        let event_loop = self.wait.event_loop.bind(py);
        event_loop.get()._check_closed()?;
        event_loop.get().check_thread()?;
        let is_transports = event_loop.get().transports().get(&self.descriptor) == Some(&true);
        if is_transports {
            call::call_method_of(event_loop, intern!(py, "_ensure_fd_no_transport"), (&self.socket,))?;
        }
        Ok(())
    }

    fn attempt(&mut self, py: Python<'_>) -> PyResult<Attempt> {
        let descriptor = self.descriptor;
        let (result, direction) = match &mut self.action {
            Action::Receive(most) => {
                let most = *most;
                let received = self.wait.event_loop.get().with_core(|core| {
                    let scratch = core.scratch.bytes();
                    let most = most.min(scratch.len());
                    sys::receive(descriptor, &mut scratch[..most])
                        .map(|length| PyBytes::new(py, &scratch[..length]).unbind().into_any())
                })?;
                (received, Direction::Read)
            }
            Action::ReceiveInto(memory) if memory.len() == 0 => {
                return Ok(Attempt::Done(0_usize.into_pyobject(py)?.into_any().unbind()));
            }
            Action::ReceiveInto(memory) => {
                let received = memory.write(|memory| sys::receive(descriptor, memory))?;
                let count = match received {
                    Ok(count) => Ok(count.into_pyobject(py)?.into_any().unbind()),
                    Err(error) => Err(error),
                };
                (count, Direction::Read)
            }
            Action::SendAll(data, sent) => (send_all(py, descriptor, data, sent), Direction::Write),
            Action::Wait(direction) => {
                let direction = *direction;
                // Once: who waits tries again by itself.
                return Ok(match self.wait.times {
                    0 => Attempt::Wait(direction),
                    _ => Attempt::Done(py.None()),
                });
            }
        };
        match result {
            Ok(value) => Ok(Attempt::Done(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::Wait(direction)),
            Err(error) => Err(os_error(py, &error)),
        }
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.socket)?;
        self.wait.traverse(visit)
    }
}

/// Send until everything has left or the kernel takes no more.
fn send_all(py: Python<'_>, descriptor: RawFd, data: &Contiguous, sent: &mut usize) -> io::Result<Py<PyAny>> {
    loop {
        *sent += data.read(|data| sys::send(descriptor, &data[*sent..]))?;
        if *sent >= data.len() {
            return Ok(py.None());
        }
    }
}

/// Waiting until a descriptor is ready.
pub struct Readiness {
    event_loop: Py<EventLoop>,
    /// The operation and who waits for it.
    pending: Option<(Token, Py<Waiter>)>,
    /// How often it waited.
    times: u32,
}

impl Readiness {
    /// Of descriptors of `event_loop`.
    pub fn new(event_loop: &Bound<'_, EventLoop>) -> Self {
        Self { event_loop: event_loop.clone().unbind(), pending: None, times: 0 }
    }

    /// Begin to wait: the step to answer with.
    pub fn begin(&mut self, py: Python<'_>, descriptor: RawFd, direction: Direction) -> ThinResult<Step> {
        let op = match direction {
            Direction::Read => Op::WaitReadable { descriptor, repeat: false },
            Direction::Write => Op::WaitWritable { descriptor, repeat: false },
        };
        let waiter = Waiter::new(py, self.event_loop.clone_ref(py).into_any())?;
        let interest = Interest::Call(waiter.clone_ref(py));
        self.times += 1;
        let submitted = self.event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                self.pending = Some((token, waiter.clone_ref(py)));
                Ok(Step::Yield(waiter.into_any()))
            }
            Submission::Done(Outcome::Failed(error), _interest) => Err(os_error(py, &error).into()),
            // Ready already: as `sleep(0)`.
            Submission::Done(..) => Ok(Step::Yield(py.None())),
        }
    }

    /// Wait no longer.
    pub fn end(&mut self) {
        if let Some((token, waiter)) = self.pending.take() {
            // Refused on a foreign thread and after the loop's end: the operation then finds nobody to wake.
            let interest = self.event_loop.get().with_core(|core| core.cancel(token));
            drop((interest, waiter));
        }
    }

    /// The loop.
    pub fn event_loop(&self) -> &Py<EventLoop> {
        &self.event_loop
    }

    /// Whether it waits still.
    pub fn is_waiting(&self, py: Python<'_>) -> bool {
        self.pending.as_ref().is_some_and(|(_, waiter)| waiter.get().is_pending(py))
    }

    /// Show the garbage collector what this keeps alive.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        match &self.pending {
            Some((_, waiter)) => visit.call(waiter),
            None => Ok(()),
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.end();
    }
}
