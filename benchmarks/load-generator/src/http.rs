//! One connection to a web server: requests that are all the same, one at a time, kept alive.
//!
//! It understands as much of RFC 9112 as the servers under comparison use: a status line, headers, and a body whose
//! length `Content-Length` says. Anything else is a failure, not a guess.
//!
//! # Invariants
//! - `start` is called only when the previous answer is complete.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::socket::Socket;

/// A client of a web server.
#[derive(Debug)]
pub struct Visitor {
    socket: Socket,
    index: usize,
    /// Bytes of the request that have left; all of them while nothing is in flight.
    sent: usize,
    started: Option<Instant>,
    answer: Vec<u8>,
}

impl Visitor {
    /// Takes over a socket that is connected.
    pub fn new(socket: Socket, index: usize) -> Self {
        Self { socket, index, sent: REQUEST.len(), started: None, answer: Vec::new() }
    }

    /// Begins a request; `send` does the sending.
    pub fn start(&mut self, now: Instant) {
        self.sent = 0;
        self.started = Some(now);
    }

    /// Sends what is left of the request, until the socket is full.
    pub fn send(&mut self) -> io::Result<()> {
        while self.sent < REQUEST.len() {
            match self.socket.write(&REQUEST[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives until the socket is empty and appends the latency if the answer is complete. Returns how
    /// many bytes came.
    pub fn receive(&mut self, scratch: &mut [u8], latencies: &mut Vec<Duration>) -> Result<usize, Failure> {
        let mut total = 0;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(Failure::Closed { connection: self.index, missing: 1 }),
                Ok(count) => {
                    self.answer.extend_from_slice(&scratch[..count]);
                    total += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(length) = complete(&self.answer)? {
            let Some(start) = self.started.take().filter(|_| length == self.answer.len()) else {
                return Err(Failure::Answer("more than one answer to one request".to_owned()));
            };
            latencies.push(start.elapsed());
            self.answer.clear();
        }
        Ok(total)
    }

    /// Requests without a complete answer.
    pub fn in_flight(&self) -> usize {
        usize::from(self.started.is_some())
    }
}

impl AsFd for Visitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The length of the answer that `bytes` begin with, once it is complete. It must be the one that is expected.
fn complete(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(Failure::Answer(format!("the server answered {status:?}")));
    }
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| Failure::Answer("the answer has no Content-Length".to_owned()))?;
    let body = &bytes[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    if &body[..length] != BODY {
        return Err(Failure::Answer(format!(
            "a strange body: {:?}",
            String::from_utf8_lossy(&body[..length])
        )));
    }
    Ok(Some(end + 4 + length))
}

/// What is asked, again and again.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load-generator\r\nAccept: */*\r\n\r\n";
/// What every answer has to say.
pub const BODY: &[u8] = b"Hello, world!";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nHello, world!";
        for length in 0..answer.len() {
            assert!(complete(&answer[..length]).is_ok_and(|found| found.is_none()), "{length}");
        }
        assert!(complete(answer).is_ok_and(|found| found == Some(answer.len())));
    }

    #[test]
    fn what_is_not_the_expected_answer_is_a_failure() {
        for answer in [
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nBye",
        ] {
            assert!(complete(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
