//! What can be asked of the kernel: the closed set of operations.

use std::os::fd::RawFd;

use rustix::net::SocketAddrAny;

/// Names one operation in flight. The host chooses it; the driver only carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// One operation. Descriptors are borrowed by contract (clause 8), buffers are owned (clause 1).
#[derive(Debug)]
pub enum Op {
    /// Accepts connections until cancelled or failed, each as [`Outcome::Accepted`]
    /// (non-blocking, close-on-exec). Repeats. A failure such as EMFILE is final: the host decides
    /// when to try again.
    ///
    /// [`Outcome::Accepted`]: crate::Outcome::Accepted
    Accept {
        /// A listening socket.
        listener: RawFd,
    },
    /// Connects a socket: [`Outcome::Connected`](crate::Outcome::Connected). A Unix listener whose
    /// queue is full is a failure (EAGAIN), not something to wait for.
    Connect {
        /// A non-blocking socket.
        socket: RawFd,
        /// The peer. Boxed, as below: the many operations that wait have none, and would all be as large.
        address: Box<SocketAddrAny>,
    },
    /// Receives from a stream socket into the driver's own buffers until end of file (an empty
    /// buffer, final), failure or cancellation. Repeats.
    ReceiveRepeatedly {
        /// A non-blocking stream socket.
        socket: RawFd,
    },
    /// Receives once, into memory that the caller lends: [`Outcome::ReceivedInto`](crate::Outcome::ReceivedInto).
    Receive {
        /// A non-blocking socket.
        socket: RawFd,
        /// Filled from its start, at most to its length.
        buffer: Vec<u8>,
    },
    /// Sends the bytes of `buffer` from `start`; as `send(2)`, possibly fewer than asked
    /// ([`Outcome::Sent`](crate::Outcome::Sent)). Never raises SIGPIPE.
    Send {
        /// A non-blocking stream socket.
        socket: RawFd,
        /// Handed back by the completion, unchanged.
        buffer: Vec<u8>,
        /// Offset of the first byte to send.
        start: usize,
    },
    /// Receives one datagram and its source: [`Outcome::ReceivedMessage`](crate::Outcome::ReceivedMessage).
    ReceiveMessage {
        /// A non-blocking datagram socket.
        socket: RawFd,
        /// Filled from its start, at most to its length.
        buffer: Vec<u8>,
    },
    /// Sends one datagram: [`Outcome::Sent`](crate::Outcome::Sent).
    SendMessage {
        /// A non-blocking datagram socket.
        socket: RawFd,
        /// Handed back by the completion.
        buffer: Vec<u8>,
        /// The destination; `None` for a connected socket.
        address: Option<Box<SocketAddrAny>>,
    },
    /// Waits until reading would not block (data, end of file, error, a new connection, a process
    /// that exited for a pidfd): [`Outcome::Ready`](crate::Outcome::Ready). Regular files,
    /// directories and devices such as /dev/null are refused at once (EPERM): they are never unready.
    WaitReadable {
        /// Anything that can be polled.
        descriptor: RawFd,
        /// Whether to report again and again (clause 9).
        repeat: bool,
    },
    /// Waits until writing would not block (or would fail): [`Outcome::Ready`](crate::Outcome::Ready).
    WaitWritable {
        /// Anything that can be polled.
        descriptor: RawFd,
        /// Whether to report again and again (clause 9).
        repeat: bool,
    },
}

impl Op {
    /// The descriptor it acts on.
    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Op::Accept { listener } => *listener,
            Op::Connect { socket, .. }
            | Op::ReceiveRepeatedly { socket }
            | Op::Receive { socket, .. }
            | Op::Send { socket, .. }
            | Op::ReceiveMessage { socket, .. }
            | Op::SendMessage { socket, .. } => *socket,
            Op::WaitReadable { descriptor, .. } | Op::WaitWritable { descriptor, .. } => *descriptor,
        }
    }

    /// Whether it goes on when the descriptor becomes readable, or writable.
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Op::Accept { .. }
            | Op::ReceiveRepeatedly { .. }
            | Op::Receive { .. }
            | Op::ReceiveMessage { .. }
            | Op::WaitReadable { .. } => Direction::Read,
            Op::Connect { .. } | Op::Send { .. } | Op::SendMessage { .. } | Op::WaitWritable { .. } => {
                Direction::Write
            }
        }
    }
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Readability.
    Read,
    /// Writability.
    Write,
}
