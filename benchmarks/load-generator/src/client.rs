//! One client of the server under load, whatever it speaks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::Visitor;
use crate::pattern::Pattern;

/// The closed set of clients.
#[derive(Debug)]
pub enum Client {
    Echo(Connection),
    Http(Visitor),
}

impl Client {
    /// Puts one more message of `bytes`, or a request, in flight; `send` does the sending.
    pub fn start(&mut self, bytes: usize, now: Instant) {
        match self {
            Self::Echo(connection) => connection.start(bytes, now),
            Self::Http(visitor) => visitor.start(now),
        }
    }

    /// Sends what is started until the socket is full.
    pub fn send(&mut self, bytes: usize, pattern: &Pattern) -> io::Result<()> {
        match self {
            Self::Echo(connection) => connection.send(bytes, pattern),
            Self::Http(visitor) => visitor.send(),
        }
    }

    /// Receives until the socket is empty, checks what came, and appends the latency of what is complete.
    /// Returns how many bytes came. `hung_up` tells that the peer has closed its side.
    pub fn receive(
        &mut self,
        bytes: usize,
        hung_up: bool,
        pattern: &Pattern,
        scratch: &mut [u8],
        latencies: &mut Vec<Duration>,
    ) -> Result<usize, Failure> {
        match self {
            Self::Echo(connection) => connection.receive(bytes, hung_up, pattern, scratch, latencies),
            Self::Http(visitor) => visitor.receive(scratch, latencies),
        }
    }

    /// What was started and is not complete.
    pub fn in_flight(&self) -> usize {
        match self {
            Self::Echo(connection) => connection.in_flight(),
            Self::Http(visitor) => visitor.in_flight(),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Echo(connection) => connection.as_fd(),
            Self::Http(visitor) => visitor.as_fd(),
        }
    }
}
