//! The writing side of a stream transport.
//!
//! Small writes of a turn are gathered and leave together at its end; what is large and finds the queue empty
//! is sent at once, because by the end of the turn its bytes have left the cache. The water marks see only
//! what the kernel did not take: before a protocol is paused, what was gathered is sent.
//!
//! # Invariants
//! - Bytes leave in the order of the calls; `size` is what was written and has not left.
//! - While the driver sends (`Sending`) or waits for room (`Waiting`), nothing is sent past it.

use std::io;

use aioxide_driver::{Op, Outcome, Token, sys};
use pyo3::exceptions::PyBrokenPipeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::flow_control::WaterMarks;
use super::reading::is_not_ready;
use super::sendfile::FileInProgress;
use super::stream::{Borrow, Event, Kind, Phase, State, StreamTransport, after_eof};
use super::write_queue::{Data, WriteQueue};
use crate::error::{ThinResult, os_error};
use crate::event_loop::{Interest, Submission};
use crate::ffi::call;
use crate::imports::imports;

/// At least so many bytes are sent at once rather than at the end of the turn.
const SEND_AT_ONCE: usize = 8 * 1024;

/// So many gathered bytes wait no longer for the end of the turn, but are sent directly.
const SEND_DIRECTLY: usize = 64 * 1024;

/// Writes to a lost connection before the log says so (asyncio `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOST_WRITES_BEFORE_WARNING: u32 = 5;

/// The state of the writing side.
#[derive(Default)]
pub struct WriteSide {
    queue: WriteQueue,
    /// How many bytes were written and have not left.
    pub size: usize,
    operation: Operation,
    /// Whether the transport is in the loop's list of writes to flush.
    listed: bool,
    /// Whether write_eof() was called.
    eof: bool,
    pub marks: WaterMarks,
    /// The file that is sent between writes.
    pub file: FileInProgress,
    writes_after_loss: u32,
}

/// What the driver was asked for.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
enum Operation {
    /// Nothing.
    #[default]
    Idle,
    /// To send a buffer from `start`.
    Sending { token: Token, start: usize },
    /// To say when there is room.
    Waiting(Token),
}

/// How far sending got.
enum Progress {
    /// There was nothing to do, or the driver does it.
    Nothing,
    /// Everything has left.
    Emptied,
    /// The kernel takes no more for now.
    Full,
    /// It failed.
    Failed(io::Error),
}

impl WriteSide {
    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.is_at_rest() && !self.file.is_active()
    }

    /// Whether everything that was written has left; a file may still be on its way.
    pub fn is_at_rest(&self) -> bool {
        self.size == 0 && self.operation == Operation::Idle
    }

    /// Whether what waits to be sent was given to a single write.
    pub fn is_single(&self) -> bool {
        self.queue.is_single()
    }

    /// Whether more waits to be sent than a protocol may write unpaused.
    pub fn is_above_high(&self) -> bool {
        self.size > self.marks.high
    }

    /// Whether the driver sends or waits for room.
    pub fn is_waiting(&self) -> bool {
        self.operation != Operation::Idle
    }
}

impl State {
    /// Whether [`StreamTransport::after_sending`] would find something to do.
    fn is_anything_due_after_sending(&self) -> bool {
        let writing = &self.writing;
        self.phase != Phase::Open
            || writing.eof
            || writing.marks.protocol_paused
            || writing.file.is_active()
            || writing.file.waiter().is_some()
    }
}

impl StreamTransport {
    /// `write(data)`.
    pub fn write_data(slf: &Bound<'_, Self>, object: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().check_writes()?;
        Self::write_piece(slf, &Data::of(object)?)
    }

    /// Write bytes, wherever they lie.
    pub(super) fn write_piece(slf: &Bound<'_, Self>, data: &Data<'_, '_>) -> PyResult<()> {
        if slf.state().writing.eof && slf.get().kind == Kind::Socket {
            return Err(after_eof());
        }
        slf.state().writing.file.check()?;
        if data.len() == 0 {
            return Ok(());
        }
        if !Self::accepts_writes(slf)? {
            return Ok(());
        }
        Self::accept_data(slf, data)?;
        Self::after_accepting(slf)
    }

    /// `writelines(list_of_data)`.
    pub(super) fn write_lines(slf: &Bound<'_, Self>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().check_writes()?;
        if slf.state().writing.eof && slf.get().kind == Kind::Socket {
            return Err(after_eof());
        }
        slf.state().writing.file.check()?;
        let lines = lines.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let pieces = lines.iter().map(Data::of).collect::<PyResult<Vec<_>>>()?;
        if pieces.iter().all(|piece| piece.len() == 0) || !Self::accepts_writes(slf)? {
            return Ok(());
        }
        {
            let mut transport = slf.state_mut();
            for piece in pieces.iter().filter(|piece| piece.len() > 0) {
                let kept =
                    transport.writing.queue.keep(piece, 0, || slf.get().event_loop.get().spare_buffer());
                transport.writing.size += kept;
            }
        }
        if slf.state().writing.size >= SEND_AT_ONCE {
            Self::write_out(slf)?;
        }
        Self::after_accepting(slf)
    }

    /// Whether anybody would get what is written; writing to a lost connection is logged now and then.
    fn accepts_writes(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let warns = {
            let mut transport = slf.state_mut();
            let lost = match slf.get().kind {
                Kind::WritePipe => transport.phase != Phase::Open,
                Kind::Socket | Kind::ReadPipe => matches!(transport.phase, Phase::Lost | Phase::Closed),
            };
            if !lost {
                return Ok(true);
            }
            transport.writing.writes_after_loss += 1;
            transport.writing.writes_after_loss > LOST_WRITES_BEFORE_WARNING
        };
        if warns {
            let text = match slf.get().kind {
                Kind::Socket => "socket.send() raised exception.",
                Kind::ReadPipe | Kind::WritePipe => {
                    "pipe closed by peer or os.write(pipe, data) raised exception."
                }
            };
            call::call_method_of(imports(py)?.logger.bind(py), intern!(py, "warning"), (text,))?;
        }
        Ok(false)
    }

    /// Send at once what is large, if it may; keep the rest.
    fn accept_data(slf: &Bound<'_, Self>, data: &Data<'_, '_>) -> PyResult<()> {
        Self::check_process(slf)?;
        let failed = {
            let mut transport = slf.state_mut();
            let (kind, descriptor) = (slf.get().kind, transport.descriptor.number());
            let writing = &mut transport.writing;
            let mut start = 0;
            let mut failed = None;
            if data.len() >= SEND_AT_ONCE && writing.is_empty() {
                let sent = data.read(|data| match kind {
                    Kind::Socket => sys::send(descriptor, data),
                    Kind::ReadPipe | Kind::WritePipe => sys::write(descriptor, data),
                });
                match sent {
                    Ok(sent) => start = sent,
                    Err(error) if is_not_ready(&error) => {}
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_none() && start < data.len() {
                writing.size += writing.queue.keep(data, start, || slf.get().event_loop.get().spare_buffer());
            }
            failed
        };
        match failed {
            Some(error) => Self::write_failed(slf, error),
            None => Ok(()),
        }
    }

    /// See that what is queued will leave, and that a protocol that writes faster than the peer reads is
    /// paused.
    fn after_accepting(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (is_queued, is_urgent, is_full) = {
            let transport = slf.state();
            let writing = &transport.writing;
            let is_idle = writing.operation == Operation::Idle;
            // Without a turn there is no end of one to wait for.
            let is_urgent = writing.size >= SEND_DIRECTLY || !slf.get().event_loop.get().is_running_here();
            (writing.size > 0 && is_idle, is_urgent, writing.is_above_high())
        };
        if is_queued {
            if is_urgent || is_full {
                Self::write_out(slf)?;
            } else {
                Self::list(slf)?;
            }
        }
        if is_full { Self::pause_protocol_if_full(slf) } else { Ok(()) }
    }

    /// Have the transport flushed at the end of the turn.
    fn list(slf: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = {
            let mut transport = slf.state_mut();
            if transport.writing.listed {
                return Ok(());
            }
            transport.writing.listed = true;
            &slf.get().event_loop
        };
        let entry = slf.clone().unbind();
        event_loop.get().with_core(|core| core.unflushed.push(entry))
    }

    /// Send what the turn gathered: through the driver where a batch of transports saves system calls, else
    /// directly.
    pub fn flush(slf: &Bound<'_, Self>, in_batch: bool) -> ThinResult<()> {
        slf.state_mut().writing.listed = false;
        let progress = Self::flush_listed(slf, in_batch);
        // The context is not entered where nothing follows: that costs as much as all the rest of a small write.
        let is_over = match &progress {
            Ok(Progress::Nothing) => true,
            Ok(Progress::Emptied) => !slf.state().is_anything_due_after_sending(),
            _ => false,
        };
        if is_over { Ok(()) } else { Self::run_as_event(slf, || Ok(Self::conclude(slf, progress?)?)) }
    }

    fn flush_listed(slf: &Bound<'_, Self>, in_batch: bool) -> PyResult<Progress> {
        let (event_loop, op) = {
            let mut transport = slf.state_mut();
            let socket = transport.descriptor.number();
            let is_socket = slf.get().kind == Kind::Socket;
            let event_loop = &slf.get().event_loop;
            let writing = &mut transport.writing;
            if writing.queue.is_empty() || writing.operation != Operation::Idle {
                return Ok(Progress::Nothing);
            }
            let by_driver = in_batch && is_socket && event_loop.get().is_completion_based();
            let buffer = if by_driver { writing.queue.take_only_buffer() } else { None };
            let op = buffer.map(|(buffer, start)| (Op::Send { socket, buffer, start }, start));
            (event_loop, op)
        };
        let Some((op, start)) = op else { return Self::send(slf) };
        let interest = Interest::Writing(slf.clone().unbind());
        let submitted = event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                slf.state_mut().writing.operation = Operation::Sending { token, start };
                Ok(Progress::Nothing)
            }
            Submission::Done(Outcome::Sent { buffer, length }, _interest) => {
                Self::note_sent(slf, buffer, start, length);
                Self::send(slf)
            }
            Submission::Done(Outcome::Failed(error), _interest) => Ok(Progress::Failed(error)),
            Submission::Done(..) => Ok(Progress::Nothing),
        }
    }

    /// Send directly whatever may be sent now, and ask to be told when there is room for the rest.
    pub(super) fn write_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        let progress = Self::send(slf)?;
        Self::conclude(slf, progress)
    }

    /// Send directly whatever may be sent now.
    fn send(slf: &Bound<'_, Self>) -> PyResult<Progress> {
        let py = slf.py();
        Self::check_process(slf)?;
        let (attempt, is_empty) = {
            let mut transport = slf.state_mut();
            if transport.writing.operation != Operation::Idle || transport.writing.queue.is_empty() {
                return Ok(Progress::Nothing);
            }
            let (kind, descriptor) = (slf.get().kind, transport.descriptor.number());
            let attempt = transport.writing.queue.send(py, kind, descriptor);
            transport.writing.size -= attempt.sent;
            (attempt, transport.writing.queue.is_empty())
        };
        if let Some(buffer) = attempt.emptied {
            slf.get().event_loop.get().keep_buffer(buffer);
        }
        for object in attempt.finished {
            call::release(py, object);
        }
        Ok(match attempt.result {
            Err(error) => Progress::Failed(error),
            Ok(()) if is_empty => Progress::Emptied,
            Ok(()) => Progress::Full,
        })
    }

    /// Do what follows from sending; this is what may call Python.
    fn conclude(slf: &Bound<'_, Self>, progress: Progress) -> PyResult<()> {
        // A collection of garbage, which the context may need, may have ended the connection.
        let is_lost = matches!(slf.state().phase, Phase::Lost | Phase::Closed);
        match progress {
            Progress::Nothing => Ok(()),
            Progress::Full if is_lost => Ok(()),
            Progress::Emptied => Self::after_sending(slf),
            Progress::Full => {
                Self::wait_for_room(slf)?;
                Self::resume_protocol_if_drained(slf)
            }
            Progress::Failed(error) => Self::write_failed(slf, error),
        }
    }

    pub(super) fn wait_for_room(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, descriptor) = {
            let transport = slf.state();
            (&slf.get().event_loop, transport.descriptor.number())
        };
        if event_loop.get().check_thread().is_err() {
            return Self::schedule(slf, Event::WriteMore);
        }
        let interest = Interest::Writing(slf.clone().unbind());
        let op = Op::WaitWritable { descriptor, repeat: false };
        let submitted = event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                slf.state_mut().writing.operation = Operation::Waiting(token);
                Ok(())
            }
            Submission::Done(Outcome::Failed(error), _interest) => Self::write_failed(slf, error),
            // There is room already: the end of the turn tries again.
            Submission::Done(..) => Self::list(slf),
        }
    }

    /// The driver sent everything, and nothing follows from it: no event is needed, and the buffer is free. Else it comes
    /// back as an error. Calls no Python.
    pub fn note_sent_in_passing(
        slf: &Bound<'_, Self>,
        buffer: Vec<u8>,
        length: usize,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let mut transport = slf.state_mut();
        let is_all = match transport.writing.operation {
            Operation::Sending { start, .. } => start + length == buffer.len(),
            Operation::Idle | Operation::Waiting(_) => false,
        };
        if !is_all || !transport.writing.queue.is_empty() || transport.is_anything_due_after_sending() {
            return Err(buffer);
        }
        transport.writing.operation = Operation::Idle;
        transport.writing.size -= length;
        Ok(buffer)
    }

    /// The driver sent, and something follows: see [`StreamTransport::note_sent_in_passing`].
    pub(super) fn handle_sent(slf: &Bound<'_, Self>, buffer: Vec<u8>, length: usize) -> PyResult<()> {
        let start = {
            let mut transport = slf.state_mut();
            match std::mem::take(&mut transport.writing.operation) {
                Operation::Sending { start, .. } => start,
                // Discarded meanwhile.
                other => {
                    transport.writing.operation = other;
                    return Ok(());
                }
            }
        };
        Self::note_sent(slf, buffer, start, length);
        let is_empty = slf.state().writing.queue.is_empty();
        if is_empty {
            return Self::after_sending(slf);
        }
        Self::list(slf)?;
        Self::resume_protocol_if_drained(slf)
    }

    fn note_sent(slf: &Bound<'_, Self>, buffer: Vec<u8>, start: usize, length: usize) {
        let emptied = {
            let mut transport = slf.state_mut();
            let writing = &mut transport.writing;
            writing.size -= length;
            writing.queue.put_back(buffer, start + length)
        };
        if let Some(buffer) = emptied {
            slf.get().event_loop.get().keep_buffer(buffer);
        }
    }

    /// There is room again.
    pub(super) fn handle_write_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.state_mut();
            if matches!(transport.phase, Phase::Lost | Phase::Closed) {
                return Ok(());
            }
            transport.writing.operation = Operation::Idle;
        }
        Self::write_out(slf)?;
        Self::tell_of_room(slf)
    }

    /// Ask no longer for room that nothing is there to fill.
    pub(super) fn stop_waiting_for_nothing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (token, event_loop) = {
            let mut transport = slf.state_mut();
            let event_loop = &slf.get().event_loop;
            let writing = &mut transport.writing;
            let Operation::Waiting(token) = writing.operation else { return Ok(()) };
            if !writing.queue.is_empty() {
                return Ok(());
            }
            writing.operation = Operation::Idle;
            (token, event_loop)
        };
        let interest = event_loop.get().with_core(|core| core.cancel(token))?;
        drop(interest);
        Ok(())
    }

    /// The driver could not send.
    pub(super) fn handle_write_failed(slf: &Bound<'_, Self>, error: io::Error) -> PyResult<()> {
        slf.state_mut().writing.operation = Operation::Idle;
        Self::write_failed(slf, error)
    }

    fn write_failed(slf: &Bound<'_, Self>, error: io::Error) -> PyResult<()> {
        let message = match slf.get().kind {
            Kind::Socket => "Fatal write error on socket transport",
            Kind::ReadPipe | Kind::WritePipe => "Fatal write error on pipe transport",
        };
        Self::fail(slf, os_error(slf.py(), &error), message)
    }

    /// Everything has left: go on with what waited for that.
    pub(super) fn after_sending(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::resume_protocol_if_drained(slf)?;
        Self::tell_of_room(slf)?;
        let (phase, eof, kind, is_empty) = {
            let transport = slf.state();
            let writing = &transport.writing;
            (transport.phase, writing.eof, slf.get().kind, writing.is_empty())
        };
        if !is_empty {
            return Ok(());
        }
        if phase == Phase::Closing {
            return Self::finish_closing(slf);
        }
        if phase == Phase::Open && eof && kind == Kind::Socket {
            return Self::half_close(slf);
        }
        Ok(())
    }

    fn half_close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let descriptor = slf.state().descriptor.number();
        match sys::shutdown_write(descriptor) {
            // The peer reset the connection before; reading will tell.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Err(error) => Self::write_failed(slf, error),
            Ok(()) => Ok(()),
        }
    }

    /// `write_eof()`: a socket half-closes, a pipe closes.
    pub(super) fn end_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let kind = slf.get().kind;
        if kind == Kind::WritePipe {
            return Self::begin_closing(slf);
        }
        {
            let mut transport = slf.state_mut();
            if transport.phase != Phase::Open || transport.writing.eof {
                return Ok(());
            }
            transport.writing.eof = true;
        }
        let is_drained = slf.state().writing.is_empty();
        if is_drained { Self::half_close(slf) } else { Self::write_out(slf) }
    }

    /// Drop what was not sent, for a connection that is lost.
    pub(super) fn discard_writes(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (pieces, operation, event_loop) = {
            let mut transport = slf.state_mut();
            let event_loop = &slf.get().event_loop;
            let writing = &mut transport.writing;
            writing.size = 0;
            (writing.queue.clear(), std::mem::take(&mut writing.operation), event_loop)
        };
        drop(pieces);
        if let Operation::Sending { token, .. } | Operation::Waiting(token) = operation {
            let interest = event_loop.get().with_core(|core| core.cancel(token))?;
            drop(interest);
        }
        Ok(())
    }

    /// The reading end of our pipe was closed (asyncio `_UnixWritePipeTransport._read_ready`).
    pub(super) fn handle_reader_gone(slf: &Bound<'_, Self>) -> PyResult<()> {
        let pending = !slf.state().writing.is_empty();
        let error = pending.then(|| PyBrokenPipeError::new_err(()));
        Self::force_close(slf, error)
    }
}
