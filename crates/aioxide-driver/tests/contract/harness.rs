//! A driver under test, with the few steps that every test takes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use aioxide_driver::{Choice, Completion, Driver, Op, Options, Outcome, Submitted, Token};

/// Makes one test per backend of each function: `file::epoll::name` and `file::uring::name`.
macro_rules! on_every_backend {
    ($($(#[$meta:meta])* fn $name:ident($($harness:ident)+: Harness) $body:block)*) => {
        $(
            $(#[$meta])*
            fn $name($($harness)+: crate::harness::Harness) $body
        )*

        mod epoll {
            $(
                #[test]
                fn $name() {
                    super::$name(crate::harness::Harness::new(aioxide_driver::Choice::Epoll));
                }
            )*
        }

        mod uring {
            $(
                #[test]
                fn $name() {
                    if crate::harness::uring_is_allowed() {
                        super::$name(crate::harness::Harness::new(aioxide_driver::Choice::Uring));
                    }
                }
            )*
        }
    };
}
pub(crate) use on_every_backend;

/// Whether this kernel grants io_uring. A machine that must have it says so with
/// `AIOXIDE_REQUIRE_URING`, and then a refusal fails the test instead of skipping it.
pub fn uring_is_allowed() -> bool {
    match Driver::open(&Options::new(Choice::Uring)) {
        Ok(_) => true,
        Err(error) if std::env::var_os("AIOXIDE_REQUIRE_URING").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

pub struct Harness {
    pub driver: Driver,
    pub options: Options,
    /// Collected, not yet looked at.
    completions: Vec<Completion>,
}

impl Harness {
    pub fn new(choice: Choice) -> Harness {
        Harness::with(Options::new(choice))
    }

    pub fn with(options: Options) -> Harness {
        let driver = Driver::open(&options).unwrap();
        Harness { driver, options, completions: Vec::new() }
    }

    /// The same backend with other options.
    pub fn reopen(&mut self, change: impl FnOnce(&mut Options)) {
        let mut options = self.options.clone();
        change(&mut options);
        *self = Harness::with(options);
    }

    /// Submits what is expected to stay in flight.
    #[track_caller]
    pub fn start(&mut self, token: u64, op: Op) {
        match self.driver.submit(op, Token(token)) {
            Submitted::Pending => {}
            Submitted::Done(outcome) => panic!("answered at once: {outcome:?}"),
        }
    }

    /// Submits, and brings a direct answer into the form of a completion.
    pub fn submit(&mut self, token: u64, op: Op) {
        if let Submitted::Done(outcome) = self.driver.submit(op, Token(token)) {
            self.completions.push(Completion { token: Token(token), outcome, more: false });
        }
    }

    /// One wait that does not sleep, and everything that was collected.
    pub fn collect(&mut self) -> Vec<Completion> {
        self.turn();
        std::mem::take(&mut self.completions)
    }

    /// One wait that does not sleep; what it collects is kept.
    pub fn turn(&mut self) {
        self.driver.wait(Some(Duration::ZERO), &mut self.completions).unwrap();
    }

    /// Waits for the next completion of `token`; others are kept.
    #[track_caller]
    pub fn next(&mut self, token: u64) -> Completion {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(index) = self.completions.iter().position(|done| done.token == Token(token)) {
                return self.completions.remove(index);
            }
            self.driver.wait(Some(PATIENCE), &mut self.completions).unwrap();
        }
        panic!("no completion of {token}; {:?}, others: {:?}", self.driver.statistics(), self.completions);
    }

    /// The next completion of `token`, which has to be its final one.
    #[track_caller]
    pub fn finish(&mut self, token: u64) -> Outcome {
        let completion = self.next(token);
        assert!(!completion.more, "not final: {completion:?}");
        completion.outcome
    }

    /// Receives on a stream until `length` bytes came, all with more to come.
    #[track_caller]
    pub fn receive_exactly(&mut self, token: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let completion = self.next(token);
            assert!(completion.more, "ended after {} bytes: {completion:?}", bytes.len());
            match completion.outcome {
                Outcome::Received(buffer) => bytes.extend_from_slice(&buffer),
                other => panic!("after {} bytes: {other:?}", bytes.len()),
            }
        }
        assert_eq!(bytes.len(), length);
        bytes
    }

    /// Receives what the next completion carries.
    #[track_caller]
    pub fn receive_some(&mut self, token: u64) -> Vec<u8> {
        let completion = self.next(token);
        assert!(completion.more, "ended: {completion:?}");
        match completion.outcome {
            Outcome::Received(buffer) => buffer.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Cancels, and drops completions until the final one.
    #[track_caller]
    pub fn cancel(&mut self, token: u64) -> Outcome {
        self.driver.cancel(Token(token));
        loop {
            let completion = self.next(token);
            if !completion.more {
                return completion.outcome;
            }
        }
    }

    /// Asserts that nothing more is said about `token`: clause 2, "exactly one".
    #[track_caller]
    pub fn assert_silent(&mut self, token: u64) {
        for _ in 0..3 {
            self.turn();
        }
        let said: Vec<_> = self.completions.iter().filter(|done| done.token == Token(token)).collect();
        assert!(said.is_empty(), "{said:?}");
    }

    /// Asserts that the driver holds nothing any more.
    #[track_caller]
    pub fn assert_idle(&mut self) {
        self.completions.clear();
        let statistics = self.driver.statistics();
        assert_eq!((statistics.in_flight, statistics.buffers_lent), (0, 0), "{statistics:?}");
    }
}

/// A listener on a port of the kernel's choice.
pub fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connected pair: ours does not block, the peer does.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    (ours, peer)
}

pub fn accepted(outcome: Outcome) -> OwnedFd {
    match outcome {
        Outcome::Accepted(socket) => socket,
        other => panic!("not accepted: {other:?}"),
    }
}

#[track_caller]
pub fn errno(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Failed(error) => error.raw_os_error().unwrap(),
        other => panic!("not failed: {other:?}"),
    }
}

pub fn number(source: &impl AsRawFd) -> RawFd {
    source.as_raw_fd()
}

/// Bytes in which a lost, doubled or moved piece shows.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position ^ (position >> 8) ^ (position >> 16)) as u8).collect()
}

/// How long a completion may take; a test that needs so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
