//! A connection while a file is sent on it (`loop.sendfile`).
//!
//! The file's bytes do not pass through here: the coroutine in `_sendfile.py` calls sendfile(2). The transport
//! keeps its own bytes out of the way and tells when there is room.
//!
//! # Invariants
//! - What was written before leaves before the file begins, and nothing is written until the file ends.
//! - A file that is being sent counts as not sent yet: `close()` and `write_eof()` take effect after it.
//! - Who waits for room hears of it once, or of the end of the connection.

use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;

use super::lifetime::settle;
use super::stream::{Borrow, Phase, StreamTransport};

/// Whether a file is being sent, and who waits to go on with it.
#[derive(Default)]
pub struct FileInProgress {
    active: bool,
    /// A future.
    waiter: Option<Py<PyAny>>,
}

impl FileInProgress {
    /// Whether a file is being sent.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// RuntimeError for `write()` and its like while a file is being sent.
    pub fn check(&self) -> PyResult<()> {
        if self.active {
            return Err(PyRuntimeError::new_err("unable to write; sendfile is in progress"));
        }
        Ok(())
    }

    /// Who waits, for the garbage collector.
    pub fn waiter(&self) -> Option<&Py<PyAny>> {
        self.waiter.as_ref()
    }

    /// Take out who waits.
    #[must_use]
    pub fn take_waiter(&mut self) -> Option<Py<PyAny>> {
        self.waiter.take()
    }
}

impl StreamTransport {
    /// A file is to be sent: refuse to write anything else from now on.
    pub(super) fn begin_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut transport = slf.state_mut();
        transport.writing.file.check()?;
        transport.writing.file.active = true;
        Ok(())
    }

    /// Set the result of `waiter` when everything written before has left and the kernel takes more.
    pub(super) fn await_room(slf: &Bound<'_, Self>, waiter: Py<PyAny>) -> PyResult<()> {
        let phase = slf.state().phase;
        let previous = slf.state_mut().writing.file.waiter.replace(waiter);
        drop(previous);
        if matches!(phase, Phase::Lost | Phase::Closed) {
            return Self::tell_no_more_room(slf, None);
        }
        Self::write_out(slf)?;
        if !slf.state().writing.is_at_rest() {
            return Ok(());
        }
        Self::wait_for_room(slf)?;
        // Told at once?
        Self::tell_of_room(slf)
    }

    /// The file was sent, or will not be: do what waited for that.
    pub(super) fn end_file(slf: &Bound<'_, Self>) -> PyResult<()> {
        let waiter = {
            let mut transport = slf.state_mut();
            std::mem::take(&mut transport.writing.file).waiter
        };
        drop(waiter);
        Self::stop_waiting_for_nothing(slf)?;
        let is_empty = slf.state().writing.is_empty();
        if is_empty { Self::after_sending(slf) } else { Ok(()) }
    }

    /// Let who waits to send more of a file know that it can, if it can.
    pub(super) fn tell_of_room(slf: &Bound<'_, Self>) -> PyResult<()> {
        let waiter = {
            let mut transport = slf.state_mut();
            if !transport.writing.is_at_rest() {
                return Ok(());
            }
            transport.writing.file.take_waiter()
        };
        match waiter {
            Some(waiter) => settle(slf.py(), &waiter, None),
            None => Ok(()),
        }
    }

    /// Let who waits to send more of a file know that the connection is over.
    pub(super) fn tell_no_more_room(slf: &Bound<'_, Self>, cause: Option<&PyErr>) -> PyResult<()> {
        let py = slf.py();
        let Some(waiter) = slf.state_mut().writing.file.take_waiter() else { return Ok(()) };
        let error = PyConnectionError::new_err("Connection is closed by peer");
        error.set_cause(py, cause.map(|cause| cause.clone_ref(py)));
        settle(py, &waiter, Some(error))
    }
}
