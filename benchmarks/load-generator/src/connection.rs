//! One connection to an echo server: what it has started, sent and received, and whether the echo is right.
//!
//! # Invariants
//! - `received ≤ sent ≤ started`, all in bytes of the connection's stream. With datagrams each message is one.
//! - `start_times` holds one entry per message in flight, oldest first.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::pattern::Pattern;
use crate::socket::Socket;

/// A client of the echo server.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    index: usize,
    started: u64,
    sent: u64,
    received: u64,
    start_times: VecDeque<Instant>,
}

impl Connection {
    /// Takes over a socket that is connected. `index` chooses the bytes it sends.
    pub fn new(socket: Socket, index: usize) -> Self {
        Self { socket, index, started: 0, sent: 0, received: 0, start_times: VecDeque::new() }
    }

    /// Puts one more message of `bytes` in flight; `send` does the sending.
    pub fn start(&mut self, bytes: usize, now: Instant) {
        self.started += bytes as u64;
        self.start_times.push_back(now);
    }

    /// Sends what is started, in messages of `bytes`, until the socket is full.
    pub fn send(&mut self, bytes: usize, pattern: &Pattern) -> io::Result<()> {
        match self.send_until_full(bytes, pattern) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    fn send_until_full(&mut self, bytes: usize, pattern: &Pattern) -> io::Result<()> {
        self.socket.flush()?;
        while self.sent < self.started {
            let length = if self.socket.has_boundaries() { bytes as u64 } else { self.started - self.sent };
            let window = pattern.window(self.index, self.sent, length);
            match self.socket.write(window) {
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives until the socket is empty, checks every byte, and appends the latency of each
    /// message of `bytes` that is now complete. Returns how many bytes came. `hung_up` tells that
    /// the peer has closed its side.
    pub fn receive(
        &mut self,
        bytes: usize,
        hung_up: bool,
        pattern: &Pattern,
        scratch: &mut [u8],
        latencies: &mut Vec<Duration>,
    ) -> Result<usize, Failure> {
        let mut total = 0;
        loop {
            let count = match self.socket.read(scratch) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.check(&scratch[..count], pattern)?;
            self.received += count as u64;
            total += count;
            // The end of the stream may have come with the edge already taken.
            let may_be_empty = self.socket.is_empty_after_short_read() && count < scratch.len();
            if may_be_empty && !hung_up {
                break;
            }
        }
        self.complete(bytes, latencies);
        Ok(total)
    }

    /// Messages started whose echo is not complete.
    pub fn in_flight(&self) -> usize {
        self.start_times.len()
    }

    /// Compares an echoed chunk with what was sent.
    fn check(&self, chunk: &[u8], pattern: &Pattern) -> Result<(), Failure> {
        let mismatch = |position| Failure::Mismatch { connection: self.index, position };
        if self.received + chunk.len() as u64 > self.sent {
            return Err(mismatch(self.sent));
        }
        let expected = pattern.window(self.index, self.received, chunk.len() as u64);
        if chunk == expected {
            return Ok(());
        }
        let same = chunk.iter().zip(expected).take_while(|(left, right)| left == right).count();
        Err(mismatch(self.received + same as u64))
    }

    /// Takes the messages that are complete out of flight.
    fn complete(&mut self, bytes: usize, latencies: &mut Vec<Duration>) {
        let unfinished = (self.started - self.received).div_ceil(bytes as u64) as usize;
        let finished = self.start_times.len().saturating_sub(unfinished);
        if finished > 0 {
            let now = Instant::now();
            latencies.extend(self.start_times.drain(..finished).map(|start| now - start));
        }
    }

    fn closed(&self) -> Failure {
        Failure::Closed { connection: self.index, missing: self.started - self.received }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
