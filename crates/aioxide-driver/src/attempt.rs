//! Operations that are one syscall, tried directly.
//!
//! Both backends use it: epoll for every single-shot operation, io_uring for those that gain nothing
//! from a ring (a connect, a datagram, bulk data). A try answers, or says that it would block; then the backend waits for readiness and
//! tries again.

use std::io;
use std::os::fd::RawFd;

use rustix::io::Errno;

use crate::buffer::{Buffer, Pool};
use crate::{Op, Outcome, sys};

/// The first try. `None`: it would block. Waits and repeating operations have no single answer and
/// always say `None`.
pub(crate) fn begin(op: &mut Op) -> Option<Outcome> {
    match op {
        Op::Connect { socket, address } => match sys::connect(*socket, address) {
            Ok(()) => Some(Outcome::Connected),
            // An interrupted connect goes on by itself, connect(2). EAGAIN is not in this list: a
            // Unix socket says it when the listener's queue is full, and then nothing goes on.
            Err(error) if is_errno(&error, Errno::INPROGRESS) || is_errno(&error, Errno::INTR) => None,
            Err(error) => Some(Outcome::Failed(error)),
        },
        _ => resume(op),
    }
}

/// A later try, once the descriptor was reported ready.
pub(crate) fn resume(op: &mut Op) -> Option<Outcome> {
    let result = match op {
        Op::Connect { socket, .. } => sys::take_socket_error(*socket).map(|()| Outcome::Connected),
        Op::Receive { socket, buffer } => sys::receive(*socket, buffer)
            .map(|length| Outcome::ReceivedInto { buffer: std::mem::take(buffer), length }),
        Op::Send { socket, buffer, start } => sys::send(*socket, buffer.get(*start..).unwrap_or(&[]))
            .map(|length| Outcome::Sent { buffer: std::mem::take(buffer), length }),
        Op::ReceiveMessage { socket, buffer } => {
            sys::receive_message(*socket, buffer).map(|(length, source)| Outcome::ReceivedMessage {
                buffer: std::mem::take(buffer),
                length,
                source: source.map(Box::new),
            })
        }
        Op::SendMessage { socket, buffer, address } => sys::send_message(*socket, buffer, address.as_deref())
            .map(|length| Outcome::Sent { buffer: std::mem::take(buffer), length }),
        Op::Accept { .. }
        | Op::ReceiveRepeatedly { .. }
        | Op::WaitReadable { .. }
        | Op::WaitWritable { .. } => return None,
    };
    match result {
        Ok(outcome) => Some(outcome),
        Err(error) if sys::would_block(&error) => None,
        Err(error) => Some(Outcome::Failed(error)),
    }
}

/// Receives from a stream into a block of the pool; an empty buffer is end of file.
pub(crate) fn receive(socket: RawFd, pool: &mut Pool) -> io::Result<Buffer> {
    let mut block = pool.take()?;
    let length = sys::receive(socket, block.bytes_mut())?;
    Ok(if length == 0 { Buffer::empty() } else { Buffer::new(block, length) })
}

/// How much one wait receives this way, more or less: half of a small second-level cache, so that the
/// bytes are still there when the host looks at them and copies them.
pub(crate) const BYTES_PER_WAIT: usize = 128 * 1024;

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
