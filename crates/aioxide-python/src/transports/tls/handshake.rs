//! The beginning of a TLS connection, and its end when the transport below is gone.

use pyo3::exceptions::{PyConnectionAbortedError, PyConnectionResetError, PyException};
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::{Answer, is_tls_error};
use super::transport::{Phase, TlsTransport, Told};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;
use crate::transports::lifetime::settle;

impl TlsTransport {
    /// Send the first message, or wait for the peer's.
    pub(super) fn start_handshake(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, _) = Self::parts(slf);
        let began = if event_loop.get().debug() {
            let text = "%r starts SSL handshake";
            call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "debug"), (text, slf))?;
            Some(crate::event_loop::now())
        } else {
            None
        };
        let seconds = {
            let mut connection = slf.borrow_mut();
            connection.phase = Phase::Handshake;
            connection.closed = false;
            connection.handshake_began = began;
            connection.handshake_timeout
        };
        Self::start_timer(slf, seconds, intern!(py, "_handshake_timed_out"))?;
        Self::shake_hands(slf)
    }

    /// Go on with the handshake as far as what the peer sent allows.
    pub(super) fn shake_hands(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (_, engine) = Self::parts(slf);
        match engine.get().shake_hands(py) {
            Ok(Answer::Wants) => Self::send_outgoing(slf),
            Ok(Answer::Done(())) => Self::complete_handshake(slf),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                // An alert tells the peer why, if it leaves before the connection is torn down.
                if is_tls_error(py, &error)? {
                    Self::send_outgoing(slf)?;
                    Self::lower(slf).map_or(Ok(()), |lower| lower.flush(py))?;
                }
                Self::fail_handshake(slf, error)
            }
            Err(error) => Err(error),
        }
    }

    fn complete_handshake(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        Self::cancel_timer(slf)?;
        let (began, is_new) = {
            let mut connection = slf.borrow_mut();
            connection.phase = Phase::Wrapped;
            let is_new = connection.told == Told::Nothing;
            connection.told = Told::Made;
            (connection.handshake_began.take(), is_new)
        };
        if let Some(began) = began {
            let took = (crate::event_loop::now() - began) * 1e3;
            let text = "%r: SSL handshake took %.1f ms";
            call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "debug"), (text, slf, took))?;
        }
        if is_new {
            Self::call_protocol(slf, intern!(py, "connection_made"), Some(slf.as_any().as_borrowed()))?;
        }
        Self::wake_waiter(slf, None)?;
        Self::read_available(slf)
    }

    /// The handshake failed: close, and tell whoever waits for it.
    pub(super) fn fail_handshake(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        Self::cancel_timer(slf)?;
        {
            let mut connection = slf.borrow_mut();
            connection.phase = Phase::Unwrapped;
            connection.closed = true;
        }
        let is_certificate = error.matches(py, py.import("ssl")?.getattr("CertificateError")?)?;
        let message = if is_certificate {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        Self::fatal_error(slf, error.clone_ref(py), message)?;
        Self::wake_waiter(slf, Some(error))
    }

    /// The handshake took too long.
    pub(super) fn handle_handshake_timeout(slf: &Bound<'_, Self>) -> PyResult<()> {
        let seconds = {
            let connection = slf.borrow();
            if connection.phase != Phase::Handshake {
                return Ok(());
            }
            connection.handshake_timeout
        };
        let seconds = seconds.into_pyobject(slf.py())?;
        let error = PyConnectionAbortedError::new_err(format!(
            "SSL handshake is taking longer than {seconds} seconds: aborting the connection"
        ));
        Self::fail_handshake(slf, error)
    }

    /// Tell whoever waits for the handshake how it ended. A server's connection has nobody who waits; there,
    /// debug mode reports.
    pub(super) fn wake_waiter(slf: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = slf.py();
        let (waiter, accepted, protocol, event_loop) = {
            let mut connection = slf.borrow_mut();
            let accepted = std::mem::take(&mut connection.accepted);
            let protocol = connection.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py));
            (connection.waiter.take(), accepted, protocol, connection.event_loop.clone_ref(py))
        };
        if let (true, Some(error)) = (accepted, &error)
            && event_loop.get().debug()
        {
            let protocol = protocol.unwrap_or_else(|| py.None());
            return EventLoop::report_error(
                event_loop.bind(py),
                "Error on transport creation for incoming connection",
                error.clone_ref(py),
                &[("protocol", protocol.bind(py)), ("transport", slf.as_any())],
            );
        }
        waiter.map_or(Ok(()), |waiter| settle(py, &waiter, error))
    }

    /// The transport below is gone: tell the protocol, or whoever waits for the handshake.
    pub(super) fn handle_connection_lost(
        slf: &Bound<'_, Self>,
        exception: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let (lower, tells, was_awaited, engine) = {
            let mut connection = slf.borrow_mut();
            connection.closed = true;
            connection.writing.note_loss();
            let was_shaking = connection.phase == Phase::Handshake;
            let tells = matches!(connection.told, Told::Made | Told::Eof) && !was_shaking;
            if tells {
                connection.told = Told::Lost;
            }
            connection.phase = Phase::Unwrapped;
            (
                connection.lower.take(),
                tells,
                (was_shaking || connection.waiter.is_some()) && !connection.is_upgrade,
                connection.engine.clone_ref(py),
            )
        };
        let backlog = slf.borrow_mut().writing.clear();
        drop((lower, backlog));
        engine.get().take_outgoing(py)?;
        Self::cancel_timer(slf)?;
        let error = match &exception {
            Some(exception) => Some(PyErr::from_value(exception.clone())),
            // Closed below by somebody else, say a server that was told to close its clients. `start_tls` answers as
            // asyncio's: there is no transport.
            None if was_awaited => {
                Some(PyConnectionResetError::new_err("Connection lost during SSL handshake"))
            }
            None => None,
        };
        Self::wake_waiter(slf, error)?;
        // Not before: debug mode reports whose handshake failed.
        let protocol = slf.borrow_mut().protocol.take();
        match protocol.filter(|_| tells) {
            Some(protocol) => {
                call::call_method_of(protocol.object.bind(py), intern!(py, "connection_lost"), (exception,))
                    .map(drop)
            }
            None => Ok(()),
        }
    }
}
