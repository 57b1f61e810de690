//! Everything that can happen to one stream, in any order: no byte is lost, doubled or moved, and
//! every op ends once.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;

use aioxide_driver::{Buffer, Choice, Completion, Op, Outcome, Token};
use proptest::prelude::*;

use crate::harness::{Harness, number, tcp_pair, uring_is_allowed};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The peer writes so many bytes, or what fits.
    Write(usize),
    /// Receiving is cancelled; it starts again when that is confirmed.
    Cancel,
    /// Received buffers are held from here on, or given back.
    Hold(bool),
    /// One wait that does not sleep.
    Wait,
    /// The same on a thread of its own, which ends.
    WaitElsewhere,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..200_usize).prop_map(Step::Write),
        2 => (1..60_000_usize).prop_map(Step::Write),
        2 => Just(Step::Cancel),
        1 => any::<bool>().prop_map(Step::Hold),
        8 => Just(Step::Wait),
        1 => Just(Step::WaitElsewhere),
    ]
}

/// One stream, and what is known about it.
struct Stream {
    harness: Harness,
    ours: TcpStream,
    /// The op in flight, if there is one.
    token: u64,
    ended: HashSet<u64>,
    received: Vec<u8>,
    is_at_end: bool,
    is_holding: bool,
    held: Vec<Buffer>,
}

impl Stream {
    fn start(&mut self) {
        self.token += 1;
        self.harness.start(self.token, Op::ReceiveRepeatedly { socket: number(&self.ours) });
    }

    fn handle(&mut self, completions: Vec<Completion>) {
        for Completion { token, outcome, more } in completions {
            assert_eq!(token, Token(self.token), "an answer for an op that has ended");
            match outcome {
                Outcome::Received(buffer) => {
                    self.is_at_end |= buffer.is_empty();
                    self.received.extend_from_slice(&buffer);
                    if self.is_holding {
                        self.held.push(buffer);
                    }
                }
                Outcome::Cancelled => assert!(!more),
                other => panic!("{other:?}"),
            }
            if !more {
                assert!(self.ended.insert(token.0));
            }
        }
        if self.ended.contains(&self.token) && !self.is_at_end {
            self.start();
        }
    }
}

fn check(choice: Choice, steps: &[Step]) {
    let mut harness = Harness::new(choice);
    harness.reopen(|options| {
        options.receive_blocks = 8;
        options.completion_entries = 16;
        options.submission_entries = 2;
    });
    let (ours, mut peer) = tcp_pair();
    peer.set_nonblocking(true).unwrap();
    let mut stream = Stream {
        harness,
        ours,
        token: 0,
        ended: HashSet::new(),
        received: Vec::new(),
        is_at_end: false,
        is_holding: false,
        held: Vec::new(),
    };
    stream.start();
    let mut written = Vec::new();
    for step in steps {
        match *step {
            Step::Write(length) => {
                let bytes: Vec<u8> =
                    (written.len()..written.len() + length).map(|n| (n ^ (n >> 8)) as u8).collect();
                match peer.write(&bytes) {
                    Ok(length) => written.extend_from_slice(&bytes[..length]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            Step::Cancel => stream.harness.driver.cancel(Token(stream.token)),
            Step::Hold(is_holding) => {
                stream.is_holding = is_holding;
                stream.held.clear();
            }
            Step::Wait => {
                let completions = stream.harness.collect();
                stream.handle(completions);
            }
            Step::WaitElsewhere => {
                let harness = &mut stream.harness;
                let completions = thread::scope(|scope| scope.spawn(|| harness.collect()).join().unwrap());
                stream.handle(completions);
            }
        }
    }
    drop(peer);
    while !stream.is_at_end {
        let completion = stream.harness.next(stream.token);
        stream.handle(vec![completion]);
    }
    assert!(stream.received == written, "{} of {} bytes", stream.received.len(), written.len());
    stream.held.clear();
    stream.harness.assert_idle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_on_epoll_is_whole(steps in prop::collection::vec(step(), 1..120)) {
        check(Choice::Epoll, &steps);
    }

    #[test]
    fn a_stream_on_uring_is_whole(steps in prop::collection::vec(step(), 1..120)) {
        if uring_is_allowed() {
            check(Choice::Uring, &steps);
        }
    }
}
