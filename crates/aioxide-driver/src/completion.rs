//! What the kernel answered: typed outcomes that own what they carry.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::SocketAddrAny;

use crate::{Buffer, Token};

/// One answer. Plain `Send` data; dropping it closes or frees what it carries.
#[derive(Debug)]
pub struct Completion {
    /// The op this answers.
    pub token: Token,
    /// What happened.
    pub outcome: Outcome,
    /// Whether the same op will answer again. `false`: this was its final completion.
    pub more: bool,
}

/// What became of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// A new connection.
    Accepted(OwnedFd),
    /// The socket is connected.
    Connected,
    /// Bytes from a stream; empty means end of file.
    Received(Buffer),
    /// Bytes in the caller's memory; `length == 0` means end of file on a stream.
    ReceivedInto {
        /// The memory that was lent.
        buffer: Vec<u8>,
        /// How many bytes of it were filled.
        length: usize,
    },
    /// A datagram.
    ReceivedMessage {
        /// The memory that was lent.
        buffer: Vec<u8>,
        /// How many bytes of it were filled.
        length: usize,
        /// Who sent it, where the socket type tells. Boxed: an address is larger than all the rest of a
        /// completion.
        source: Option<Box<SocketAddrAny>>,
    },
    /// Bytes were sent.
    Sent {
        /// The memory that was lent.
        buffer: Vec<u8>,
        /// How many bytes left, counted from the op's `start`.
        length: usize,
    },
    /// The descriptor is ready.
    Ready,
    /// The op was cancelled before it did anything.
    Cancelled,
    /// The kernel refused; the error carries its errno.
    Failed(io::Error),
}
