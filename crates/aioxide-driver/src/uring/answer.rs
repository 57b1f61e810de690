//! What a completion means.

use std::io;

use io_uring::cqueue;
use rustix::io::Errno;

use super::buffers::BufferRing;
use super::entry::{Operation, Reception, Stage};
use crate::buffer::{Buffer, Pool};
use crate::{Op, Outcome, attempt, sys};

/// What a completion means for the host.
pub(super) enum Answer {
    /// Nothing happened: to be tried again.
    Again,
    /// Something happened, and the operation goes on.
    More(Outcome),
    /// This is how it ended.
    Last(Outcome),
}

/// Takes out of the operation and the buffers what the answer carries.
pub(super) fn interpret(
    operation: &mut Operation,
    buffers: &mut BufferRing,
    pool: &mut Pool,
    entry: &cqueue::Entry,
) -> Answer {
    let is_cancelling = operation.stage == Stage::Cancelling;
    let length = match usize::try_from(entry.result()) {
        Ok(length) => length,
        Err(_) => return interpret_failure(operation, Errno::from_raw_os_error(-entry.result())),
    };
    match &mut operation.op {
        Op::Accept { .. } => Answer::More(Outcome::Accepted(sys::own(entry.result()))),
        Op::ReceiveRepeatedly { .. } if matches!(operation.reception, Reception::Provided { .. }) => {
            // At end of file the kernel may have picked a buffer, which goes back.
            let block = cqueue::buffer_select(entry.flags()).map(|index| buffers.claim(index));
            operation.reception.note(length);
            match block {
                Some(block) if length > 0 => Answer::More(Outcome::Received(Buffer::new(block, length))),
                _ => Answer::Last(Outcome::Received(Buffer::empty())),
            }
        }
        Op::Receive { buffer, .. } => {
            Answer::Last(Outcome::ReceivedInto { buffer: std::mem::take(buffer), length })
        }
        Op::Send { buffer, .. } => Answer::Last(Outcome::Sent { buffer: std::mem::take(buffer), length }),
        // From here on the completion is one of a poll. After a cancel the descriptor may be
        // another file's (clause 8), so it is not touched.
        _ if is_cancelling => Answer::Again,
        Op::ReceiveRepeatedly { socket } => match attempt::receive(*socket, pool) {
            Ok(buffer) if buffer.is_empty() => Answer::Last(Outcome::Received(buffer)),
            Ok(buffer) => {
                operation.reception.note(buffer.len());
                Answer::More(Outcome::Received(buffer))
            }
            Err(error) if sys::would_block(&error) => Answer::Again,
            Err(error) => Answer::Last(Outcome::Failed(error)),
        },
        Op::WaitReadable { repeat: true, .. } | Op::WaitWritable { repeat: true, .. } => {
            Answer::More(Outcome::Ready)
        }
        Op::WaitReadable { .. } | Op::WaitWritable { .. } => Answer::Last(Outcome::Ready),
        Op::Connect { .. } | Op::ReceiveMessage { .. } | Op::SendMessage { .. } => {
            attempt::resume(&mut operation.op).map_or(Answer::Again, Answer::Last)
        }
    }
}

fn interpret_failure(operation: &Operation, errno: Errno) -> Answer {
    let is_nothing = match errno {
        // Not always asked for: the kernel also cancels what a thread leaves behind when it ends.
        Errno::CANCELED | Errno::INTR | Errno::AGAIN => true,
        // No provided buffer was left.
        Errno::NOBUFS => matches!(operation.op, Op::ReceiveRepeatedly { .. }),
        _ => matches!(operation.op, Op::Accept { .. }) && sys::is_lost_connection(&io::Error::from(errno)),
    };
    if is_nothing { Answer::Again } else { Answer::Last(Outcome::Failed(errno.into())) }
}
