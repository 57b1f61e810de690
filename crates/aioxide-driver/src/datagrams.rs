//! Several datagrams with one system call, into memory that is kept.
//!
//! # Invariants
//! What was received stays readable until the next `receive`. A datagram that fits is never cut.

use std::io::{self, IoSliceMut};
use std::os::fd::RawFd;

use crate::{SocketAddrAny, sys};

/// Received datagrams and the memory that they stand in. One serves all sockets of a host; memory that no
/// datagram ever reached costs nothing.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// Empty until the first use.
    memory: Vec<u8>,
    received: Vec<Received>,
}

/// How long a datagram is, and who sent it, where the socket type tells.
pub(crate) type Received = (usize, Option<SocketAddrAny>);

impl Datagrams {
    /// How many datagrams one call receives at the most.
    pub const CAPACITY: usize = sys::MESSAGES_PER_CALL;

    /// Receives at most `limit` datagrams of an internet socket, forgetting those of the call before; at most
    /// one of any other, where a datagram may be larger than 64 KiB. Without any this is `WouldBlock`.
    pub fn receive(&mut self, socket: RawFd, limit: usize) -> io::Result<()> {
        self.received.clear();
        if self.memory.is_empty() {
            self.memory = vec![0; Self::CAPACITY * SLOT + PAGE];
        }
        // Memory that begins a few bytes past a page's start is slow to copy to, see `buffer.rs`.
        let start = self.memory.as_ptr().align_offset(PAGE);
        let memory = &mut self.memory[start..];
        if limit <= 1 {
            let received = sys::receive_message(socket, &mut memory[..LARGEST])?;
            self.received.push(received);
            return Ok(());
        }
        let mut slots: Vec<IoSliceMut<'_>> =
            memory.chunks_exact_mut(SLOT).take(limit.min(Self::CAPACITY)).map(IoSliceMut::new).collect();
        sys::receive_messages(socket, &mut slots, &mut self.received)
    }

    /// How many datagrams the last call received.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether the last call received none.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// The bytes of a datagram of the last call, and who sent it.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn get(&self, index: usize) -> (&[u8], Option<&SocketAddrAny>) {
        let (length, source) = &self.received[index];
        let start = self.memory.as_ptr().align_offset(PAGE) + index * SLOT;
        (&self.memory[start..start + length], source.as_ref())
    }
}

/// What the largest datagram of an internet socket needs (udp(7), raw(7): less than 64 KiB). Slots do not
/// begin at the same place of their pages, because then their first bytes would share few lines of the cache.
const SLOT: usize = 64 * 1024 + 64;

/// How much of a single datagram is received.
const LARGEST: usize = 256 * 1024;

const PAGE: usize = 4096;
