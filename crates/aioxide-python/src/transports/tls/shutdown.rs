//! The end of a TLS connection: what was written leaves, both sides say goodbye (close_notify), then the transport
//! below is closed. A peer that says nothing is waited for no longer than `ssl_shutdown_timeout`.

use pyo3::exceptions::{PyException, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::Answer;
use super::transport::{Phase, TlsTransport};

impl TlsTransport {
    /// Begin to close.
    pub(super) fn start_shutdown(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (phase, is_limited) = {
            let mut connection = slf.borrow_mut();
            connection.closed = true;
            (connection.phase, connection.timer.is_some())
        };
        match phase {
            Phase::Handshake => Self::abort_for(slf, None),
            Phase::Wrapped => {
                slf.borrow_mut().phase = Phase::Flushing;
                Self::finish_flushing(slf)
            }
            // The peer ended first, while reading was paused.
            Phase::Flushing if !is_limited => Self::finish_flushing(slf),
            Phase::Unwrapped | Phase::Flushing | Phase::Shutdown => Ok(()),
        }
    }

    /// See to it that the end takes no longer than the user allows, whichever side began it: a peer that says
    /// nothing or reads nothing would delay it for ever.
    fn limit_shutdown(slf: &Bound<'_, Self>) -> PyResult<()> {
        let seconds = {
            let connection = slf.borrow();
            if connection.timer.is_some() {
                return Ok(());
            }
            connection.shutdown_timeout
        };
        Self::start_timer(slf, seconds, intern!(slf.py(), "_shutdown_timed_out"))
    }

    /// Hand on what came, encipher what waits, and say goodbye once nothing does.
    pub(super) fn finish_flushing(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::limit_shutdown(slf)?;
        Self::read_available(slf)?;
        if slf.borrow().phase != Phase::Flushing {
            return Ok(());
        }
        let result = Self::encipher_backlog(slf);
        Self::fail_for(slf, result)?;
        {
            let mut connection = slf.borrow_mut();
            if connection.phase != Phase::Flushing || !connection.writing.is_empty() {
                return Ok(());
            }
            connection.phase = Phase::Shutdown;
        }
        Self::say_goodbye(slf)
    }

    /// Say goodbye, and close once the peer has.
    pub(super) fn say_goodbye(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (_, engine) = Self::parts(slf);
        if !slf.borrow().reading.ended {
            let unwrapped = Self::discard_available(slf).and_then(|()| engine.get().unwrap(py));
            match unwrapped {
                Ok(Answer::Wants) => return Self::send_outgoing(slf),
                Ok(Answer::Done(())) => {}
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    Self::cancel_timer(slf)?;
                    return Self::fatal_error(slf, error, "Fatal error on transport");
                }
                Err(error) => return Err(error),
            }
        }
        Self::send_outgoing(slf)?;
        Self::tell_eof(slf)?;
        // The timer stays: the transport below first sends what it has.
        let Some(lower) = Self::lower(slf) else { return Ok(()) };
        let (event_loop, _) = Self::parts(slf);
        let close = lower.object(py).getattr(intern!(py, "close"))?;
        event_loop.call_method1(py, intern!(py, "call_soon"), (close,)).map(drop)
    }

    /// The peer did not say goodbye in time.
    pub(super) fn handle_shutdown_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        let phase = slf.borrow().phase;
        if !matches!(phase, Phase::Flushing | Phase::Shutdown) {
            return Ok(());
        }
        let error = PyTimeoutError::new_err("SSL shutdown timed out");
        Self::lower(slf).map_or(Ok(()), |lower| lower.force_close(slf.py(), Some(error)))
    }

    /// The transport below will receive no more; `true` keeps it open for what is still to be sent.
    pub(super) fn handle_eof(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (phase, paused) = {
            let mut connection = slf.borrow_mut();
            connection.reading.ended = true;
            (connection.phase, connection.reading.paused)
        };
        let result = match phase {
            Phase::Unwrapped => Ok(()),
            Phase::Handshake => {
                Self::fail_handshake(slf, pyo3::exceptions::PyConnectionResetError::new_err(()))
            }
            Phase::Wrapped => {
                slf.borrow_mut().phase = Phase::Flushing;
                if paused {
                    return Ok(true);
                }
                Self::finish_flushing(slf)
            }
            Phase::Flushing => Self::finish_flushing(slf),
            Phase::Shutdown => Self::say_goodbye(slf),
        };
        result?;
        let connection = slf.borrow();
        Ok(connection.phase == Phase::Flushing && !connection.writing.is_empty())
    }
}
