//! Connections that come and go: each is opened, ended by this side at once, and closed when the server has ended it
//! too.
//!
//! # Invariants
//! - Between spans no connection is open.
//! - A visit counts when the server has closed its end: it was accepted, seen and paid for.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::load::{Measurement, STALL};

/// Opens and closes connections to `address` for `duration`, `at_once` at a time.
pub fn run(address: SocketAddr, at_once: usize, duration: Duration) -> Result<Measurement, Failure> {
    let start = Instant::now();
    let mut latencies = Vec::new();
    loop {
        let visits = (0..at_once)
            .map(|_| {
                let begin = Instant::now();
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(STALL))?;
                stream.shutdown(Shutdown::Write)?;
                Ok((begin, stream))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let in_flight = visits.len();
        for (index, (begin, mut stream)) in visits.into_iter().enumerate() {
            match stream.read(&mut [0]) {
                Ok(0) => latencies.push(begin.elapsed()),
                Ok(_) => return Err(Failure::Mismatch { connection: index, position: 0 }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Failure::Stalled { in_flight: in_flight - index });
                }
                Err(error) => return Err(error.into()),
            }
        }
        if start.elapsed() >= duration {
            return Ok(Measurement { latencies, elapsed: start.elapsed() });
        }
    }
}
