//! An echo server on the driver alone: the limit of what a loop on this driver can reach.
//!
//! It does what the Python loop's transports do, by the same policies, and nothing else: what arrived in a turn is
//! gathered per connection and leaves with one send at the turn's end. It understands the jobs of the benchmarks'
//! measuring processes that make sense for it:
//!
//! ```text
//! bare-echo describe
//! bare-echo serve protocol MESSAGE_BYTES
//! ```
//!
//! # Invariants
//! - A connection has at most one send in flight; what arrives meanwhile waits in `gathered`.
//! - Token 0 is the listener's; a connection's tokens are twice its number, and one more for its send.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use aioxide_driver::{Completion, Driver, Op, Options, Outcome, Submitted, Token, sys};
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() -> io::Result<()> {
    bind_to_core()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["describe"] => describe(),
        ["serve", "protocol", _] => serve(),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("unknown job {words:?}"))),
    }
}

/// Prints version and driver.
fn describe() -> io::Result<()> {
    let driver = Driver::open(&Options::from_env()?)?;
    let name = format!("{:?}", driver.backend()).to_lowercase();
    println!("{{\"version\": \"{}\", \"driver\": \"{name}\", \"build\": {{}}}}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Stays on the core that the benchmark chose.
fn bind_to_core() -> io::Result<()> {
    if let Some(core) = std::env::var("BENCHMARK_CORES").ok().and_then(|text| text.parse().ok()) {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    Ok(())
}

/// Announces its port and echoes until it is killed.
fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // The backlog of std is 128; listen(2) may be repeated to change it.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    println!("{{\"port\": {}}}", listener.local_addr()?.port());
    let mut server = Server {
        driver: Driver::open(&Options::from_env()?)?,
        connections: HashMap::new(),
        next: 1,
        answering: Vec::new(),
    };
    let accept = Op::Accept { listener: listener.as_raw_fd() };
    if let Submitted::Done(outcome) = server.driver.submit(accept, LISTENER) {
        return Err(io::Error::other(format!("accepting ended with {outcome:?}")));
    }
    let mut completions = Vec::new();
    loop {
        server.driver.wait(None, &mut completions)?;
        for completion in completions.drain(..) {
            server.handle(completion)?;
        }
        server.flush();
    }
}

struct Server {
    driver: Driver,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// Connections that gathered something in this turn.
    answering: Vec<u64>,
}

struct Connection {
    socket: OwnedFd,
    gathered: Vec<u8>,
    /// Memory for the next `gathered`, while the other one is on its way.
    spare: Vec<u8>,
    is_sending: bool,
    /// Bytes of the send in flight that have left before.
    left: usize,
}

impl Server {
    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        let number = completion.token.0 / 2;
        match completion.outcome {
            Outcome::Accepted(socket) => self.begin(socket)?,
            Outcome::Received(bytes) if !bytes.is_empty() => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    if connection.gathered.is_empty() {
                        self.answering.push(number);
                    }
                    connection.gathered.extend_from_slice(&bytes);
                }
            }
            Outcome::Sent { buffer, length } => self.sent(number, buffer, length),
            // The end of the connection; the driver has let go of the other operation before the number is reused.
            _ if number > 0 => {
                if self.connections.remove(&number).is_some() {
                    self.driver.cancel(Token(number * 2));
                    self.driver.cancel(Token(number * 2 + 1));
                }
            }
            outcome => return Err(io::Error::other(format!("accepting ended with {outcome:?}"))),
        }
        Ok(())
    }

    fn begin(&mut self, socket: OwnedFd) -> io::Result<()> {
        sys::set_nodelay(socket.as_raw_fd(), true)?;
        let number = self.next;
        self.next += 1;
        let receive = Op::ReceiveRepeatedly { socket: socket.as_raw_fd() };
        let connection =
            Connection { socket, gathered: Vec::new(), spare: Vec::new(), is_sending: false, left: 0 };
        self.connections.insert(number, connection);
        if let Submitted::Done(outcome) = self.driver.submit(receive, Token(number * 2)) {
            self.handle(Completion { token: Token(number * 2), outcome, more: false })?;
        }
        Ok(())
    }

    /// Sends what was gathered in this turn.
    fn flush(&mut self) {
        for number in std::mem::take(&mut self.answering) {
            if let Some(connection) = self.connections.get_mut(&number)
                && !connection.is_sending
            {
                let buffer =
                    std::mem::replace(&mut connection.gathered, std::mem::take(&mut connection.spare));
                self.send(number, buffer, 0);
            }
        }
    }

    fn send(&mut self, number: u64, buffer: Vec<u8>, start: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        (connection.is_sending, connection.left) = (true, start);
        let send = Op::Send { socket: connection.socket.as_raw_fd(), buffer, start };
        match self.driver.submit(send, Token(number * 2 + 1)) {
            Submitted::Pending => {}
            Submitted::Done(Outcome::Sent { buffer, length }) => self.sent(number, buffer, length),
            Submitted::Done(_) => drop(self.connections.remove(&number)),
        }
    }

    /// Takes the memory back when all bytes of it have left, and goes on with the rest otherwise.
    fn sent(&mut self, number: u64, mut buffer: Vec<u8>, length: usize) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let left = connection.left + length;
        if left < buffer.len() {
            self.send(number, buffer, left);
            return;
        }
        connection.is_sending = false;
        buffer.clear();
        connection.spare = buffer;
        if !connection.gathered.is_empty() {
            self.answering.push(number);
        }
    }
}

const LISTENER: Token = Token(0);
const BACKLOG: i32 = 1024;
