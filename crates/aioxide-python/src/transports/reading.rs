//! The reading side of a stream transport.
//!
//! Two ways to read. *Buffers*: the driver receives into its own small buffers and hands them over; best
//! for many connections with small messages, where the driver offers it (io_uring, sockets). *Readiness*: the
//! driver says that there is something, and we read it directly into large memory or the protocol's own; best
//! for large messages, and the only way for pipes and on epoll. A connection that keeps filling whole
//! buffers moves to readiness, and back when its messages are small again.
//!
//! # Invariants
//! - A cancelled *buffers* operation may still hand over bytes that came before; the next operation starts
//!   only after its end (`Draining`), so bytes are delivered in order.
//! - What comes while reading is paused is held and delivered first afterwards.

use std::io;

use aioxide_driver::{Buffer, Op, Outcome, Token, sys};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::protocol::Manner;
use super::rare_queue::RareQueue;
use super::stream::{Borrow, Event, Kind, Phase, StreamTransport};
use crate::error::os_error;
use crate::event_loop::{Interest, Submission};

/// So many large reads in a row, and the connection moves to readiness.
const LARGE_READS_TO_LEAVE: u32 = 8;

/// So many small reads in a row, and it moves back.
const SMALL_READS_TO_RETURN: u32 = 32;

/// A read of at most this many bytes is small, in bytes.
const SMALL_READ: usize = 2048;

/// A read of at least this many bytes is large: the driver's small buffers hold no more, its large ones do.
const LARGE_READ: usize = 4096;

/// The state of the reading side.
#[derive(Default)]
pub struct ReadSide {
    operation: Operation,
    /// Whether the user paused reading.
    pub paused: bool,
    /// Whether the end of file was seen.
    pub ended: bool,
    /// What came while reading was paused; an empty entry is the end of file.
    pub held: RareQueue<Vec<u8>>,
    /// How reading failed while it was paused, after what is held.
    failure: Option<io::Error>,
    /// Whether this connection reads large messages.
    large: bool,
    streak: u32,
    /// Whether a read of an `Unpolled` descriptor is scheduled.
    scheduled: bool,
}

/// What the driver was asked for.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
enum Operation {
    /// Nothing.
    #[default]
    Idle,
    /// To receive into its buffers.
    Buffers(Token),
    /// To receive no longer; the end is still to come.
    Draining,
    /// To say when reading would not block.
    Readiness(Token),
    /// Nothing: a device such as /dev/zero, which never blocks, cannot be polled. It is read once a turn.
    Unpolled,
}

impl ReadSide {
    /// Of a descriptor that is only written.
    pub fn ended() -> Self {
        Self { ended: true, ..Self::default() }
    }

    /// Whether something waits for reading to be resumed.
    fn holds(&self) -> bool {
        !self.held.is_empty() || self.failure.is_some()
    }

    /// Whether the driver watches for bytes.
    pub fn is_active(&self) -> bool {
        !matches!(self.operation, Operation::Idle | Operation::Draining)
    }
}

impl StreamTransport {
    /// Ask the driver for bytes, unless it was asked already or nobody wants them.
    pub(super) fn start_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, op, uses_buffers) = {
            let transport = slf.state();
            let reading = &transport.reading;
            let wanted = transport.phase == Phase::Open && !reading.paused && !reading.ended;
            if !wanted || reading.operation != Operation::Idle {
                return Ok(());
            }
            let descriptor = transport.descriptor.number();
            let event_loop = &slf.get().event_loop;
            let uses_buffers =
                slf.get().kind == Kind::Socket && !reading.large && event_loop.get().is_completion_based();
            let op = if uses_buffers {
                Op::ReceiveRepeatedly { socket: descriptor }
            } else {
                Op::WaitReadable { descriptor, repeat: true }
            };
            (event_loop, op, uses_buffers)
        };
        let interest = Interest::Reading(slf.clone().unbind());
        let submitted = event_loop.get().with_core(|core| core.submit(op, interest))?;
        match submitted {
            Submission::Pending(token) => {
                let operation =
                    if uses_buffers { Operation::Buffers(token) } else { Operation::Readiness(token) };
                slf.state_mut().reading.operation = operation;
                Ok(())
            }
            Submission::Done(Outcome::Failed(error), _interest) if sys::never_blocks(&error) => {
                slf.state_mut().reading.operation = Operation::Unpolled;
                Self::schedule_read(slf)
            }
            Submission::Done(Outcome::Failed(error), _interest) => Self::handle_read_failed(slf, error),
            Submission::Done(..) => Ok(()),
        }
    }

    /// Read an `Unpolled` descriptor in the next turn.
    fn schedule_read(slf: &Bound<'_, Self>) -> PyResult<()> {
        let was_scheduled = std::mem::replace(&mut slf.state_mut().reading.scheduled, true);
        if was_scheduled { Ok(()) } else { Self::schedule(slf, Event::ReadReady) }
    }

    /// Lose interest in bytes for good.
    pub(super) fn stop_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (operation, event_loop, held) = {
            let mut transport = slf.state_mut();
            let event_loop = &slf.get().event_loop;
            let held = std::mem::take(&mut transport.reading.held);
            (std::mem::take(&mut transport.reading.operation), event_loop, held)
        };
        drop(held);
        if let Operation::Buffers(token) | Operation::Readiness(token) = operation {
            let interest = event_loop.get().with_core(|core| core.cancel(token))?;
            drop(interest);
        }
        Ok(())
    }

    /// End the current operation; the next one may differ.
    pub(super) fn suspend_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (operation, event_loop) = {
            let transport = slf.state();
            (transport.reading.operation, &slf.get().event_loop)
        };
        match operation {
            Operation::Buffers(token) => {
                slf.state_mut().reading.operation = Operation::Draining;
                event_loop.get().with_core(|core| core.cancel_and_wait(token))
            }
            Operation::Readiness(token) => {
                slf.state_mut().reading.operation = Operation::Idle;
                let interest = event_loop.get().with_core(|core| core.cancel(token))?;
                drop(interest);
                Ok(())
            }
            Operation::Unpolled => {
                slf.state_mut().reading.operation = Operation::Idle;
                Ok(())
            }
            Operation::Idle | Operation::Draining => Ok(()),
        }
    }

    /// `pause_reading()`.
    pub(super) fn pause(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut transport = slf.state_mut();
            if transport.phase != Phase::Open || transport.reading.paused {
                return Ok(());
            }
            transport.reading.paused = true;
        }
        Self::suspend_reading(slf)
    }

    /// `resume_reading()`.
    pub(super) fn resume(slf: &Bound<'_, Self>) -> PyResult<()> {
        let holds = {
            let mut transport = slf.state_mut();
            if transport.phase != Phase::Open || !transport.reading.paused {
                return Ok(());
            }
            transport.reading.paused = false;
            transport.reading.holds()
        };
        if holds { Self::schedule(slf, Event::DeliverHeld) } else { Self::start_reading(slf) }
    }

    /// Bytes, or the end of file, from the driver's buffers.
    pub(super) fn handle_received(slf: &Bound<'_, Self>, buffer: Buffer, last: bool) -> PyResult<()> {
        let changes_mode = {
            let mut transport = slf.state_mut();
            let is_open = transport.phase == Phase::Open;
            let reading = &mut transport.reading;
            if last {
                reading.operation = Operation::Idle;
            }
            if !is_open {
                return Ok(());
            }
            if reading.paused || !reading.held.is_empty() {
                reading.held.push_back(buffer.to_vec());
                return Ok(());
            }
            reading.note_received(buffer.len())
        };
        if changes_mode {
            Self::suspend_reading(slf)?;
        }
        let delivered = Self::deliver(slf, &buffer);
        drop(buffer);
        let started = if last { Self::start_reading(slf) } else { Ok(()) };
        delivered.and(started)
    }

    /// The driver's receiving ended as we asked: begin again, perhaps in the other way.
    pub(super) fn handle_reading_ended(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.state_mut().reading.operation = Operation::Idle;
        let holds = slf.state().reading.holds();
        if holds { Ok(()) } else { Self::start_reading(slf) }
    }

    /// Deliver what came while reading was paused, for as long as it is not paused again.
    pub(super) fn deliver_held(slf: &Bound<'_, Self>) -> PyResult<()> {
        loop {
            let held = {
                let mut transport = slf.state_mut();
                if transport.phase != Phase::Open || transport.reading.paused {
                    return Ok(());
                }
                transport.reading.held.pop_front()
            };
            match held {
                Some(held) => {
                    if let Err(error) = Self::deliver(slf, &held) {
                        // It ends the loop; who runs it again gets the rest.
                        Self::schedule(slf, Event::DeliverHeld)?;
                        return Err(error);
                    }
                }
                None => {
                    let failure = slf.state_mut().reading.failure.take();
                    return match failure {
                        Some(failure) => Self::handle_read_failed(slf, failure),
                        None => Self::start_reading(slf),
                    };
                }
            }
        }
    }

    /// Reading failed.
    pub(super) fn handle_read_failed(slf: &Bound<'_, Self>, error: io::Error) -> PyResult<()> {
        let kind = {
            let mut transport = slf.state_mut();
            transport.reading.operation = Operation::Idle;
            if transport.phase != Phase::Open {
                return Ok(());
            }
            if transport.reading.paused || transport.reading.holds() {
                transport.reading.failure = Some(error);
                return Ok(());
            }
            slf.get().kind
        };
        let exception = os_error(slf.py(), &error);
        match kind {
            Kind::Socket => Self::fail(slf, exception, "Fatal read error on socket transport"),
            Kind::ReadPipe | Kind::WritePipe if sys::is_hang_up(&error) => {
                Self::fail(slf, exception, "Fatal read error on pipe transport")
            }
            Kind::ReadPipe | Kind::WritePipe => {
                Self::report(slf, "Fatal read error on pipe transport", exception.clone_ref(slf.py()))?;
                Self::force_close(slf, Some(exception))
            }
        }
    }

    /// Reading would not block.
    pub(super) fn handle_read_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (kind, manner) = {
            let mut transport = slf.state_mut();
            transport.reading.scheduled = false;
            let is_watching =
                matches!(transport.reading.operation, Operation::Readiness(_) | Operation::Unpolled);
            if transport.phase != Phase::Open || !is_watching {
                return Ok(());
            }
            (slf.get().kind, transport.manner())
        };
        let read = match kind {
            Kind::WritePipe => Self::handle_reader_gone(slf),
            Kind::Socket | Kind::ReadPipe if manner == Manner::Buffered => Self::read_into_protocol(slf),
            Kind::Socket | Kind::ReadPipe if manner.takes_slices() => Self::read_and_deliver(slf),
            Kind::Socket | Kind::ReadPipe => Self::read_into_scratch(slf),
        };
        let is_unpolled = slf.state().reading.operation == Operation::Unpolled;
        let scheduled = if is_unpolled { Self::schedule_read(slf) } else { Ok(()) };
        read.and(scheduled).and(Self::send_answer(slf))
    }

    /// Send what the protocol answered in a single write: it has nothing to be gathered with, and without a ring nothing
    /// is saved by waiting for the answers of others, while its peer could work.
    fn send_answer(slf: &Bound<'_, Self>) -> PyResult<()> {
        let is_single = slf.state().writing.is_single();
        if is_single && !slf.get().event_loop.get().is_completion_based() {
            Self::write_out(slf)
        } else {
            Ok(())
        }
    }

    fn read_into_scratch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (event_loop, descriptor, kind) = {
            let transport = slf.state();
            (&slf.get().event_loop, transport.descriptor.number(), slf.get().kind)
        };
        let read = event_loop.get().with_core(|core| {
            let memory = core.scratch.bytes();
            match read_from(kind, descriptor, memory) {
                Ok(length) => Ok(PyBytes::new(py, &memory[..length]).unbind()),
                Err(error) => Err(error),
            }
        })?;
        match read {
            Ok(data) => {
                let data = data.into_bound(py);
                if Self::note_direct_read(slf, data.as_bytes().len()) {
                    Self::suspend_reading(slf)?;
                    let delivered = Self::deliver_bytes(slf, data);
                    return Self::start_reading(slf).and(delivered);
                }
                Self::deliver_bytes(slf, data)
            }
            Err(error) if is_not_ready(&error) => Ok(()),
            Err(error) => Self::handle_read_error(slf, error),
        }
    }

    /// As `read_into_scratch`, for a protocol that takes bytes where they lie.
    fn read_and_deliver(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (event_loop, descriptor, kind) = {
            let transport = slf.state();
            (&slf.get().event_loop, transport.descriptor.number(), slf.get().kind)
        };
        // Taken out, for the protocol calls Python; who needs scratch memory meanwhile makes its own.
        let mut scratch = event_loop.get().with_core(|core| std::mem::take(&mut core.scratch))?;
        let (delivered, returns) = match read_from(kind, descriptor, scratch.bytes()) {
            Ok(0) => (Self::handle_end_of_file(slf), false),
            Ok(length) => {
                let returns = Self::note_direct_read(slf, length);
                let suspended = if returns { Self::suspend_reading(slf) } else { Ok(()) };
                let delivered = Self::deliver(slf, &scratch.bytes()[..length]);
                (suspended.and(delivered), returns)
            }
            Err(error) if is_not_ready(&error) => (Ok(()), false),
            Err(error) => (Self::handle_read_error(slf, error), false),
        };
        event_loop.get().with_core(|core| core.scratch = scratch)?;
        if returns { Self::start_reading(slf).and(delivered) } else { delivered }
    }

    fn read_into_protocol(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (descriptor, kind) = {
            let transport = slf.state();
            (transport.descriptor.number(), slf.get().kind)
        };
        let Some(mut memory) = Self::protocol_memory(slf)? else { return Ok(()) };
        let read = memory.write(|memory| read_from(kind, descriptor, memory));
        drop(memory);
        match read {
            Err(error) => Self::fail(slf, error, "Fatal error: protocol.get_buffer() call failed."),
            Ok(Ok(0)) => Self::handle_end_of_file(slf),
            Ok(Ok(length)) => {
                if Self::note_direct_read(slf, length) {
                    Self::suspend_reading(slf)?;
                    let told = Self::tell_updated(slf, length);
                    return Self::start_reading(slf).and(told);
                }
                Self::tell_updated(slf, length)
            }
            Ok(Err(error)) if is_not_ready(&error) => Ok(()),
            Ok(Err(error)) => Self::handle_read_error(slf, error),
        }
    }

    fn handle_read_error(slf: &Bound<'_, Self>, error: io::Error) -> PyResult<()> {
        Self::suspend_reading(slf)?;
        Self::handle_read_failed(slf, error)
    }

    /// Count a direct read; `true` where the connection should go back to the driver's buffers.
    fn note_direct_read(slf: &Bound<'_, Self>, length: usize) -> bool {
        let mut transport = slf.state_mut();
        let reading = &mut transport.reading;
        if !reading.large || length > SMALL_READ {
            reading.streak = 0;
            return false;
        }
        reading.streak += 1;
        if reading.streak < SMALL_READS_TO_RETURN {
            return false;
        }
        reading.streak = 0;
        reading.large = false;
        true
    }
}

impl ReadSide {
    /// Count what was received; `true` where the connection should read directly from now on.
    fn note_received(&mut self, length: usize) -> bool {
        if length < LARGE_READ {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        if self.streak < LARGE_READS_TO_LEAVE || self.large {
            return false;
        }
        self.streak = 0;
        self.large = true;
        true
    }
}

/// Read once; an empty read is the end of file.
fn read_from(kind: Kind, descriptor: std::os::fd::RawFd, memory: &mut [u8]) -> io::Result<usize> {
    match kind {
        Kind::Socket => sys::receive(descriptor, memory),
        Kind::ReadPipe | Kind::WritePipe => sys::read(descriptor, memory),
    }
}

/// Whether a call would have blocked or was interrupted: nothing is wrong.
pub(super) fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
