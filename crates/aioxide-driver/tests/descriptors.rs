//! Running out of descriptors while accepting, and giving them all back.
//!
//! A process of its own, with one test: the limit and the count are the whole process's.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test panics")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use aioxide_driver::{Choice, Completion, Driver, Op, Options, Outcome, Submitted, Token};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_connection_outlasts_a_lack_of_descriptors_and_none_leaks() {
    for choice in [Choice::Epoll, Choice::Uring] {
        let open_before = open_descriptors();
        for _ in 0..20 {
            match Driver::open(&Options::new(choice)) {
                Ok(mut driver) => accept_with_too_few_descriptors(&mut driver),
                Err(error) => eprintln!("skipped: {error}"),
            }
        }
        // The last accept of each round was in flight when its driver was dropped.
        assert_eq!(open_descriptors(), open_before, "{choice:?}");
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn accept_with_too_few_descriptors(driver: &mut Driver) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // The lowest free number is the first that the limit forbids.
    let lowest_free = rustix::io::dup(&listener).unwrap().as_raw_fd() as u64;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..limit }).unwrap();
    let refused = accept(driver, 1, listener.as_raw_fd());
    setrlimit(Resource::Nofile, limit).unwrap();
    match refused {
        Completion { outcome: Outcome::Failed(error), more: false, .. } => {
            assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(driver.statistics().in_flight, 0);
    let completion = accept(driver, 2, listener.as_raw_fd());
    assert!(completion.more);
    match completion.outcome {
        Outcome::Accepted(socket) => {
            assert_eq!(TcpStream::from(socket).peer_addr().unwrap(), peer.local_addr().unwrap());
        }
        other => panic!("{other:?}"),
    }
}

/// The first answer to a fresh accept.
fn accept(driver: &mut Driver, token: u64, listener: i32) -> Completion {
    assert!(matches!(driver.submit(Op::Accept { listener }, Token(token)), Submitted::Pending));
    let mut completions = Vec::new();
    for _ in 0..10 {
        driver.wait(Some(Duration::from_secs(1)), &mut completions).unwrap();
        if let Some(completion) = completions.pop() {
            return completion;
        }
    }
    panic!("no answer; {:?}", driver.statistics());
}
