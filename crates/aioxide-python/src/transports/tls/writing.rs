//! The writing side of a TLS connection: from the protocol's bytes to cipher text for the transport below.
//!
//! Small writes of a turn are gathered and enciphered together at its end: one record, one call, one send. What fills a
//! record is enciphered at once. While the transport below is full, nothing is enciphered: plain text waits.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::engine::{Answer, Outgoing};
use super::transport::{Phase, TlsTransport};
use crate::event_loop::EventLoop;
use crate::ffi::call;
use crate::imports::imports;
use crate::transports::flow_control::WaterMarks;
use crate::transports::write_queue::{Data, Piece, WriteQueue};

/// So many bytes may wait unless the user says otherwise (asyncio `constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE`).
pub const HIGH_WATER: usize = 512 * 1024;

/// A record's worth of plain text, in bytes (RFC 8446, section 5.1): more is not gathered.
const RECORD: usize = 16 * 1024;

/// How much is enciphered before it is handed down, in bytes.
const ENCIPHER_AT_ONCE: usize = 16 * RECORD;

/// More memory than this is not kept for the next connection, in bytes: what is enciphered at once, and the records'
/// headers and tags, which a growing vector may make twice of.
const MEMORY: usize = 4 * ENCIPHER_AT_ONCE;

/// Writes to a lost connection before the log says so (asyncio `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES_BEFORE_WARNING: u32 = 5;

/// The state of the writing side.
pub struct WriteSide {
    backlog: WriteQueue,
    /// How many bytes of plain text wait.
    size: usize,
    /// Whether the transport below asked for a pause.
    pub lower_is_full: bool,
    /// When the protocol is paused and resumed.
    pub marks: WaterMarks,
    /// Whether the connection is in the loop's list of writes to flush.
    listed: bool,
    losses: u32,
}

impl Default for WriteSide {
    fn default() -> Self {
        Self {
            backlog: WriteQueue::default(),
            size: 0,
            lower_is_full: false,
            marks: WaterMarks::with_default(HIGH_WATER),
            listed: false,
            losses: 0,
        }
    }
}

impl WriteSide {
    /// Whether everything was enciphered.
    pub fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// The connection was lost.
    pub fn note_loss(&mut self) {
        self.losses += 1;
    }

    /// Take out what waits.
    #[must_use = "Python objects are dropped with the iterator, so choose where that happens"]
    pub fn clear(&mut self) -> impl Iterator<Item = Piece> + use<> {
        self.size = 0;
        self.backlog.clear()
    }
}

impl TlsTransport {
    /// `write(data)`.
    pub fn write_data(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::check_process(slf)?;
        let data = Data::of(object)?;
        if data.len() == 0 {
            return Ok(());
        }
        if Self::is_foreign(slf) {
            return Self::hand_over(slf, &[data]);
        }
        if !Self::accepts_writes(slf)? {
            return Ok(());
        }
        Self::keep(slf, &data);
        Self::after_accepting(slf)
    }

    /// `writelines(list_of_data)`.
    pub(super) fn write_lines(slf: &Bound<'_, Self>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::check_process(slf)?;
        let lines = lines.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let pieces = lines.iter().map(Data::of).collect::<PyResult<Vec<_>>>()?;
        if pieces.iter().all(|piece| piece.len() == 0) {
            return Ok(());
        }
        if Self::is_foreign(slf) {
            return Self::hand_over(slf, &pieces);
        }
        if !Self::accepts_writes(slf)? {
            return Ok(());
        }
        for piece in pieces.iter().filter(|piece| piece.len() > 0) {
            Self::keep(slf, piece);
        }
        Self::after_accepting(slf)
    }

    /// RuntimeError in a forked child: what it enciphered would break the parent's stream.
    fn check_process(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, _) = Self::parts(slf);
        event_loop.get().check_process()
    }

    /// Whether another thread runs the loop.
    fn is_foreign(slf: &Bound<'_, Self>) -> bool {
        let (event_loop, _) = Self::parts(slf);
        event_loop.get().is_running_elsewhere()
    }

    /// Have the thread of the loop write a copy: an OpenSSL session must never see two threads at once.
    fn hand_over(slf: &Bound<'_, Self>, pieces: &[Data<'_, '_>]) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, _) = Self::parts(slf);
        let copies = pieces.iter().map(|piece| piece.read(|data| PyBytes::new(py, data)));
        let copies = PyList::new(py, copies.collect::<Vec<_>>())?;
        let method = slf.getattr(intern!(py, "writelines"))?;
        event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (method, copies)).map(drop)
    }

    /// Have bytes wait, and nothing else.
    pub(super) fn append_backlog(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::keep(slf, &Data::of(object)?);
        Ok(())
    }

    fn keep(slf: &Bound<'_, Self>, data: &Data<'_, '_>) {
        let mut connection = slf.borrow_mut();
        let writing = &mut connection.writing;
        writing.size += writing.backlog.keep(data, 0, Vec::new);
    }

    /// Whether anybody would get what is written; writing to a closed connection is logged now and then.
    fn accepts_writes(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let warns = {
            let mut connection = slf.borrow_mut();
            if matches!(connection.phase, Phase::Handshake | Phase::Wrapped) {
                return Ok(true);
            }
            let warns = connection.writing.losses >= LOST_WRITES_BEFORE_WARNING;
            connection.writing.losses += 1;
            warns
        };
        if warns {
            let text = "SSL connection is closed";
            call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "warning"), (text,))?;
        }
        Ok(false)
    }

    /// See that what waits will be enciphered, and that a protocol that writes too fast is paused.
    fn after_accepting(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (is_ready, is_urgent, is_full) = {
            let connection = slf.borrow();
            let writing = &connection.writing;
            let is_ready = connection.phase == Phase::Wrapped && !writing.lower_is_full;
            let is_full = writing.size >= writing.marks.high;
            // Without a turn there is no end of one to wait for.
            let is_urgent =
                is_full || writing.size >= RECORD || !connection.event_loop.get().is_running_here();
            (is_ready, is_urgent, is_full)
        };
        if is_ready && is_urgent {
            let result = Self::encipher_backlog(slf);
            return Self::fail_for(slf, result);
        }
        if is_ready {
            return Self::list(slf);
        }
        if is_full { Self::control_protocol_writing(slf) } else { Ok(()) }
    }

    /// Have the backlog enciphered at the end of the turn.
    fn list(slf: &Bound<'_, Self>) -> PyResult<()> {
        if std::mem::replace(&mut slf.borrow_mut().writing.listed, true) {
            return Ok(());
        }
        let (event_loop, _) = Self::parts(slf);
        let entry = slf.clone().unbind();
        event_loop.get().with_core(|core| core.unflushed_tls.push(entry))
    }

    /// The end of the turn.
    pub fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut connection = slf.borrow_mut();
            connection.writing.listed = false;
            // What was written in answer to what came was enciphered after it.
            if connection.writing.is_empty() {
                return Ok(());
            }
        }
        let result = Self::encipher_backlog(slf);
        Self::fail_for(slf, result)
    }

    /// The transport below can take more.
    pub(super) fn go_on_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let result = Self::encipher_backlog(slf);
        Self::fail_for(slf, result)?;
        if slf.borrow().phase == Phase::Flushing { Self::finish_flushing(slf) } else { Ok(()) }
    }

    /// Encipher what waits, as far as the transport below takes it, and send it.
    pub(super) fn encipher_backlog(slf: &Bound<'_, Self>) -> PyResult<()> {
        while let Some(piece) = Self::next_piece(slf) {
            let (piece, wants) = Self::encipher(slf, piece)?;
            let finished = slf.borrow_mut().writing.backlog.put_back_piece(slf.py(), piece);
            drop(finished);
            if wants {
                break;
            }
        }
        Self::send_outgoing(slf)
    }

    fn next_piece(slf: &Bound<'_, Self>) -> Option<Piece> {
        let mut connection = slf.borrow_mut();
        let may_write = matches!(connection.phase, Phase::Wrapped | Phase::Flushing);
        if may_write && !connection.writing.lower_is_full {
            connection.writing.backlog.pop_front()
        } else {
            None
        }
    }

    /// Encipher a piece as far as it goes; returns it, and whether TLS wants to hear from the peer before more.
    fn encipher(slf: &Bound<'_, Self>, mut piece: Piece) -> PyResult<(Piece, bool)> {
        let py = slf.py();
        let (event_loop, engine) = Self::parts(slf);
        loop {
            let rest = piece.rest(py);
            if rest.is_empty() {
                return Ok((piece, false));
            }
            let amount = rest.len().min(ENCIPHER_AT_ONCE);
            let written = match engine.get().write(py, event_loop.get(), &rest[..amount])? {
                Answer::Wants => return Ok((piece, true)),
                Answer::Done(0) => return Err(PyRuntimeError::new_err("TLS wrote nothing")),
                Answer::Done(written) => written,
            };
            piece.advance(written);
            {
                let mut connection = slf.borrow_mut();
                // It may have been lost meanwhile, and the backlog with it.
                connection.writing.size = connection.writing.size.saturating_sub(written);
            }
            if amount == ENCIPHER_AT_ONCE {
                Self::send_outgoing(slf)?;
                if slf.borrow().writing.lower_is_full {
                    return Ok((piece, false));
                }
            }
        }
    }

    /// Hand cipher text down, unless the transport below is full.
    pub(super) fn send_outgoing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, engine) = Self::parts(slf);
        if !slf.borrow().writing.lower_is_full
            && let Some(lower) = Self::lower(slf)
            && let Some(data) = engine.get().take_outgoing(py)?
        {
            let written = lower.write(py, &data);
            if let Outgoing::Memory(memory) = data {
                Self::keep_memory(event_loop.get(), memory);
            }
            written?;
        }
        Self::control_protocol_writing(slf)
    }

    /// Keep memory of cipher text for the next connection that enciphers.
    fn keep_memory(event_loop: &EventLoop, mut memory: Vec<u8>) {
        if memory.capacity() > MEMORY {
            return;
        }
        memory.clear();
        // A loop that is closed enciphers no more.
        let _ = event_loop.with_core(|core| {
            if core.tls_memory.capacity() < memory.capacity() {
                core.tls_memory = memory;
            }
        });
    }

    /// How many bytes wait to be enciphered or to be handed down.
    pub(super) fn write_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
        if slf.borrow().writing.listed {
            let result = Self::encipher_backlog(slf);
            Self::fail_for(slf, result)?;
        }
        let (_, engine) = Self::parts(slf);
        let outgoing = engine.get().outgoing_size(slf.py())?;
        Ok(slf.borrow().writing.size + outgoing)
    }

    /// Pause the protocol where too much waits, and resume it.
    pub(super) fn control_protocol_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (_, engine) = Self::parts(slf);
        let is_watched = {
            let connection = slf.borrow();
            let writing = &connection.writing;
            // What the transport below took does not wait here.
            writing.lower_is_full || writing.size > 0 || writing.marks.protocol_paused
        };
        if !is_watched {
            return Ok(());
        }
        let outgoing = engine.get().outgoing_size(py)?;
        let pauses = {
            let mut connection = slf.borrow_mut();
            let writing = &mut connection.writing;
            let size = writing.size + outgoing;
            let pauses = if size > 0 && size >= writing.marks.high && !writing.marks.protocol_paused {
                true
            } else if size <= writing.marks.low && writing.marks.protocol_paused {
                false
            } else {
                return Ok(());
            };
            writing.marks.protocol_paused = pauses;
            pauses
        };
        let method = if pauses { intern!(py, "pause_writing") } else { intern!(py, "resume_writing") };
        let Err(error) = Self::call_protocol(slf, method, None) else { return Ok(()) };
        let (event_loop, protocol) = {
            let connection = slf.borrow();
            let protocol = connection.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py));
            (connection.event_loop.clone_ref(py), protocol)
        };
        let protocol = protocol.unwrap_or_else(|| py.None());
        let concerning = [("transport", slf.as_any()), ("protocol", protocol.bind(py))];
        let message = format!("protocol.{method}() failed");
        EventLoop::report_error(event_loop.bind(py), &message, error, &concerning)
    }
}
