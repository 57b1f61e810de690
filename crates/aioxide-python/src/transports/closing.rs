//! The end of a stream transport: asked for, once everything is written; or forced, by an error or by `abort()`.
//!
//! # Invariants
//! - `connection_lost` is scheduled once, by whatever leaves `Open` or `Closing` for `Lost`.
//! - The descriptor is closed after `connection_lost`, and the server is told last.

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;

use super::lifetime::{log_expected, reason};
use super::stream::{Borrow, Event, Phase, StreamTransport};
use crate::ffi::call;

impl StreamTransport {
    pub(super) fn handle_connection_lost(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = slf.py();
        let error = reason(py, error);
        let told = Self::call_protocol(slf, intern!(py, "connection_lost"), Some(error.as_borrowed()));
        let told = told
            .map(drop)
            .or_else(|error| Self::report(slf, "Exception in callback protocol.connection_lost()", error));
        let released = Self::release(slf);
        told.and(released)
    }

    /// Close the descriptor and let go of everything.
    fn release(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (descriptor, protocol, server, event_loop) = {
            let mut transport = slf.state_mut();
            transport.phase = Phase::Closed;
            let descriptor = transport.descriptor.take();
            let event_loop = &slf.get().event_loop;
            (descriptor, transport.protocol.take(), transport.server.take(), event_loop)
        };
        let number = descriptor.number();
        event_loop.get().transports().remove(&number);
        let closed = descriptor.close(py);
        if let Some(protocol) = protocol {
            call::release(py, protocol.object);
        }
        if let Some(server) = server {
            Self::tell_server(slf, &server, intern!(py, "_detach"))?;
        }
        closed
    }

    /// End the connection for an error of the network or of the protocol (asyncio `_fatal_error`): errors of
    /// the network are expected, so only debug mode logs them. What must end the loop is handed back, and the
    /// connection stays.
    pub(super) fn fail(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        if error.is_instance_of::<PyOSError>(py) {
            let event_loop = &slf.get().event_loop;
            log_expected(event_loop.get(), slf, message, &error)?;
        } else {
            Self::report(slf, message, error.clone_ref(py))?;
        }
        Self::force_close(slf, Some(error))
    }

    /// Drop what was not written yet and schedule `connection_lost`.
    pub(super) fn force_close(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        if matches!(slf.state().phase, Phase::Lost | Phase::Closed) {
            return Ok(());
        }
        Self::stop_reading(slf)?;
        Self::discard_writes(slf)?;
        Self::enter(slf, Phase::Lost);
        Self::tell_no_more_room(slf, error.as_ref())?;
        Self::schedule(slf, Event::ConnectionLost(error.map(Box::new)))
    }

    /// Schedule `connection_lost` of a transport that has written everything.
    pub(super) fn finish_closing(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::enter(slf, Phase::Lost);
        Self::schedule(slf, Event::ConnectionLost(None))
    }

    /// Enter a phase after `Open`: the descriptor may be watched by others from now on.
    fn enter(slf: &Bound<'_, Self>, phase: Phase) {
        let mut transport = slf.state_mut();
        transport.phase = phase;
        let number = transport.descriptor.number();
        if let Some(is_open) = slf.get().event_loop.get().transports().get_mut(&number) {
            *is_open = false;
        }
    }

    /// Begin to close: no more reading; `connection_lost` follows once everything is written.
    pub fn begin_closing(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.state().phase != Phase::Open {
            return Ok(());
        }
        Self::enter(slf, Phase::Closing);
        Self::stop_reading(slf)?;
        Self::write_out(slf)?;
        let finished = {
            let transport = slf.state();
            transport.phase == Phase::Closing && transport.writing.is_empty()
        };
        if finished { Self::finish_closing(slf) } else { Ok(()) }
    }
}
