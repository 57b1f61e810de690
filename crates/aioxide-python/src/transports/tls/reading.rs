//! The reading side of a TLS connection: from cipher text of the transport below to the protocol's bytes.
//!
//! The records that came are deciphered and handed on together, or straight into the memory of a buffered protocol.

use pyo3::intern;
use pyo3::prelude::*;

use super::engine::End;
use super::transport::{Phase, TlsTransport, Told};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;
use crate::transports::flow_control::WaterMarks;
use crate::transports::protocol::Manner;
use crate::transports::streams;

/// So many bytes of cipher text may wait for a protocol that paused reading (asyncio
/// `constants.FLOW_CONTROL_HIGH_WATER_SSL_READ`).
pub const HIGH_WATER: usize = 256 * 1024;

/// The state of the reading side.
pub struct ReadSide {
    /// Whether the user paused reading.
    pub paused: bool,
    /// Whether the transport below will receive no more.
    pub ended: bool,
    /// When the transport below is paused and resumed; `protocol_paused` says that it is.
    pub marks: WaterMarks,
}

impl Default for ReadSide {
    fn default() -> Self {
        Self { paused: false, ended: false, marks: WaterMarks::with_default(HIGH_WATER) }
    }
}

impl TlsTransport {
    /// Cipher text came from below.
    pub fn handle_data(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<()> {
        let (_, engine) = Self::parts(slf);
        engine.get().with_input(slf.py(), data, || Self::go_on(slf))
    }

    /// Go on with what the phase is about.
    pub(super) fn go_on(slf: &Bound<'_, Self>) -> PyResult<()> {
        let phase = slf.borrow().phase;
        match phase {
            Phase::Unwrapped => Ok(()),
            Phase::Handshake => Self::shake_hands(slf),
            Phase::Wrapped => Self::read_available(slf),
            Phase::Flushing => Self::finish_flushing(slf),
            Phase::Shutdown => Self::say_goodbye(slf),
        }
    }

    /// Hand everything that came to the protocol, unless it paused.
    pub(super) fn read_available(slf: &Bound<'_, Self>) -> PyResult<()> {
        let result = Self::deliver_available(slf);
        Self::fail_for(slf, result)
    }

    fn deliver_available(slf: &Bound<'_, Self>) -> PyResult<()> {
        while Self::wants_data(slf) {
            let manner = slf.borrow().protocol.as_ref().map(|protocol| protocol.manner);
            let end = if manner == Some(Manner::Buffered) {
                Self::deliver_into_protocol(slf)
            } else {
                Self::deliver_bytes(slf)
            };
            let end = match end {
                Ok(end) => end,
                Err(error) => {
                    if EventLoop::must_end(slf.py(), &error) {
                        // Who runs it again gets the rest.
                        Self::call_soon(slf, intern!(slf.py(), "_go_on"))?;
                    }
                    return Err(error);
                }
            };
            match end {
                End::Full => {}
                End::Drained => break,
                End::Goodbye => {
                    Self::tell_eof(slf)?;
                    Self::start_shutdown(slf)?;
                    break;
                }
                End::Failed(error) => return Err(error),
            }
        }
        // Reading may have produced an answer of TLS's own, or have made writing possible again.
        Self::encipher_backlog(slf)?;
        Self::control_lower_reading(slf)
    }

    fn wants_data(slf: &Bound<'_, Self>) -> bool {
        let connection = slf.borrow();
        matches!(connection.phase, Phase::Wrapped | Phase::Flushing) && !connection.reading.paused
    }

    fn deliver_bytes(slf: &Bound<'_, Self>) -> PyResult<End> {
        let py = slf.py();
        let (event_loop, engine) = Self::parts(slf);
        let (data, end) = engine.get().read_bytes(py, event_loop.get())?;
        let Some(data) = data else { return Ok(end) };
        let streams = {
            let connection = slf.borrow();
            let protocol = connection.protocol.as_ref();
            let streams = protocol.filter(|protocol| protocol.manner == Manner::Streams);
            streams.map(|protocol| protocol.object.clone_ref(py))
        };
        if let Some(protocol) = streams
            && streams::feed(protocol.bind(py), data.as_bytes())?
        {
            return Ok(end);
        }
        Self::call_protocol(slf, intern!(py, "data_received"), Some(data.as_any().as_borrowed()))?;
        Ok(end)
    }

    fn deliver_into_protocol(slf: &Bound<'_, Self>) -> PyResult<End> {
        let py = slf.py();
        let (_, engine) = Self::parts(slf);
        let hint = engine.get().incoming_size(py)?.into_pyobject(py)?;
        let memory = Self::call_protocol(slf, intern!(py, "get_buffer"), Some(hint.as_any().as_borrowed()))?;
        let (length, end) = engine.get().read_into(py, &memory)?;
        if length > 0 {
            let length = length.into_pyobject(py)?;
            let argument = length.as_any().as_borrowed();
            Self::call_protocol(slf, intern!(py, "buffer_updated"), Some(argument))?;
        }
        Ok(end)
    }

    /// The protocol's turn to hear of the end. TLS has no half-open connections, so its answer changes nothing.
    pub(super) fn tell_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        {
            let mut connection = slf.borrow_mut();
            if connection.told != Told::Made {
                return Ok(());
            }
            connection.told = Told::Eof;
        }
        let answer = Self::call_protocol(slf, intern!(py, "eof_received"), None);
        match answer.and_then(|answer| answer.is_truthy()) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = "returning true from eof_received() has no effect when using ssl";
                call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "warning"), (text,))?;
                Ok(())
            }
            Err(error) => {
                if EventLoop::must_end(py, &error) {
                    return Err(error);
                }
                Self::fatal_error(slf, error, "Error calling eof_received()")
            }
        }
    }

    /// Read and forget: the peer may still be sending when we have said goodbye.
    pub(super) fn discard_available(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, engine) = Self::parts(slf);
        engine.get().discard(slf.py(), event_loop.get())
    }

    /// Pause the transport below while too much waits, and resume it.
    pub(super) fn control_lower_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (_, engine) = Self::parts(slf);
        let size = engine.get().incoming_size(slf.py())?;
        let (lower, reads) = {
            let mut connection = slf.borrow_mut();
            let marks = &mut connection.reading.marks;
            let reads = if size >= marks.high && !marks.protocol_paused && size > 0 {
                false
            } else if size <= marks.low && marks.protocol_paused {
                true
            } else {
                return Ok(());
            };
            marks.protocol_paused = !reads;
            (connection.lower.as_ref().map(|lower| lower.clone_ref(slf.py())), reads)
        };
        lower.map_or(Ok(()), |lower| lower.set_reading(slf.py(), reads))
    }
}
