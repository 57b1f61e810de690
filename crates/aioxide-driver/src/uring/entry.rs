//! Lowering: one operation to one submission queue entry.
//!
//! What gains from the ring goes there: accepting, receiving, sending. What does not (a connect, a
//! datagram, each a syscall that rarely waits) was tried by `submit` and is only polled for.
//!
//! # Invariants
//! An entry points into memory that its operation owns (a `Vec`'s): memory that does not move
//! when the operation does, and that stays until the final completion (clause 1).

#![expect(clippy::cast_possible_truncation, reason = "lengths are clamped to what fits")]

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use rustix::event::PollFlags;
use rustix::net::{SendFlags, SocketFlags};

use super::buffers::{BLOCK_SIZE, GROUP};
use crate::op::Direction;
use crate::slots::Key;
use crate::{Op, Token};

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) token: Token,
    pub(super) op: Op,
    pub(super) stage: Stage,
    /// Of interest to `ReceiveRepeatedly` only.
    pub(super) reception: Reception,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In our queue; the kernel does not know it.
    Queued,
    /// The kernel has it.
    Submitted,
    /// The kernel has it, and was or will be asked to end it so that it can start anew, otherwise.
    Restarting,
    /// The kernel has it, and was or will be asked to end it for good.
    Cancelling,
}

/// How a stream is received. Small messages come through the ring of provided buffers. A stream that
/// keeps filling those is polled, and received from with a syscall into one large block, until it
/// calms down. A stream that waits holds no memory either way.
#[derive(Debug)]
pub(super) enum Reception {
    /// One multishot receive; so many buffers were filled to the brim in a row.
    Provided { full: u8 },
    /// A poll and a receive; so many in a row would have fitted into a provided buffer.
    Direct { small: u8 },
}

impl Reception {
    pub(super) const START: Reception = Reception::Provided { full: 0 };
    pub(super) const DIRECT: Reception = Reception::Direct { small: 0 };

    /// Notes what was received.
    pub(super) fn note(&mut self, length: usize) {
        let (count, is_counted) = match self {
            Reception::Provided { full } => (full, length == BLOCK_SIZE),
            Reception::Direct { small } => (small, length < BLOCK_SIZE),
        };
        *count = if is_counted { count.saturating_add(1) } else { 0 };
    }

    /// Whether the next receive should go the other way.
    pub(super) fn is_unsuited(&self) -> bool {
        match self {
            Reception::Provided { full } => *full >= FULL_UNTIL_DIRECT,
            Reception::Direct { small } => *small >= SMALL_UNTIL_PROVIDED,
        }
    }

    /// Goes the other way if that suits better. Only between two receives.
    pub(super) fn adapt(&mut self) {
        if self.is_unsuited() {
            *self = match self {
                Reception::Provided { .. } => Reception::DIRECT,
                Reception::Direct { .. } => Reception::START,
            };
        }
    }
}

/// The entry that starts `operation`, or goes on with it.
pub(super) fn lower(operation: &mut Operation, key: Key) -> Entry {
    let entry = match &mut operation.op {
        Op::Accept { listener } => {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            opcode::AcceptMulti::new(types::Fd(*listener)).flags(flags.bits() as i32).build()
        }
        Op::ReceiveRepeatedly { socket } => match operation.reception {
            Reception::Provided { .. } => opcode::RecvMulti::new(types::Fd(*socket), GROUP).build(),
            Reception::Direct { .. } => poll(*socket, PollFlags::IN).build(),
        },
        Op::Receive { socket, buffer } => {
            opcode::Recv::new(types::Fd(*socket), buffer.as_mut_ptr(), clamp(buffer.len())).build()
        }
        Op::Send { socket, buffer, start } => {
            let bytes = buffer.get(*start..).unwrap_or(&[]);
            opcode::Send::new(types::Fd(*socket), bytes.as_ptr(), clamp(bytes.len()))
                .flags(SendFlags::NOSIGNAL.bits() as i32)
                .build()
        }
        Op::Connect { .. }
        | Op::ReceiveMessage { .. }
        | Op::SendMessage { .. }
        | Op::WaitReadable { .. }
        | Op::WaitWritable { .. } => {
            let readiness = match operation.op.direction() {
                Direction::Read => PollFlags::IN,
                Direction::Write => PollFlags::OUT,
            };
            poll(operation.op.descriptor(), readiness).build()
        }
    };
    entry.user_data(key.to_word())
}

/// Asks the kernel to end an operation. Only a failure answers: the operation had ended already.
pub(super) fn cancel(key: Key) -> Entry {
    opcode::AsyncCancel::new(key.to_word()).build().flags(Flags::SKIP_SUCCESS).user_data(CANCEL)
}

/// Asks the kernel to end everything it has.
pub(super) fn cancel_all() -> Entry {
    let everything = types::CancelBuilder::any().all();
    opcode::AsyncCancel2::new(everything).build().flags(Flags::SKIP_SUCCESS).user_data(CANCEL)
}

/// Polls the waker's eventfd, edge-triggered as a multishot poll is.
pub(super) fn watch(descriptor: i32) -> Entry {
    poll(descriptor, PollFlags::IN).multi(true).build().user_data(WAKE)
}

fn poll(descriptor: i32, readiness: PollFlags) -> opcode::PollAdd {
    opcode::PollAdd::new(types::Fd(descriptor), u32::from(readiness.bits()))
}

/// The kernel moves at most this much in one call anyway (send(2), MAX_RW_COUNT).
fn clamp(length: usize) -> u32 {
    length.min(i32::MAX as usize) as u32
}

/// User data of the waker's poll and of cancels: no key's.
pub(super) const WAKE: u64 = Key::RESERVED_INDEX as u64;
pub(super) const CANCEL: u64 = WAKE + 1;

/// 16 KiB in a row: by then large memory costs less than many completions.
const FULL_UNTIL_DIRECT: u8 = 4;
const SMALL_UNTIL_PROVIDED: u8 = 4;
