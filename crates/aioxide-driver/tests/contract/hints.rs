//! What can be known without a syscall.

use std::io::Write;
use std::thread;
use std::time::Instant;

use aioxide_driver::{Backend, Op, Outcome, Token};

use crate::harness::{PATIENCE, number, on_every_backend, tcp_pair};

on_every_backend! {
    fn operations_are_unsubmitted_until_the_next_wait(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        assert!(!harness.driver.has_unsubmitted());
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        assert!(harness.driver.has_unsubmitted());
        harness.collect();
        assert!(!harness.driver.has_unsubmitted());
        harness.driver.cancel(Token(1));
        assert_eq!(harness.driver.has_unsubmitted(), harness.driver.backend() == Backend::Uring);
        assert!(matches!(harness.finish(1), Outcome::Cancelled));
        assert!(!harness.driver.has_unsubmitted());
    }

    /// What goes on by itself is no reason to ask the kernel at once.
    fn an_operation_that_repeats_is_submitted_once(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, Op::WaitReadable { descriptor: number(&ours), repeat: true });
        peer.write_all(b"x").unwrap();
        assert!(matches!(harness.next(1).outcome, Outcome::Ready));
        assert!(!harness.driver.has_unsubmitted());
        assert!(matches!(harness.next(1).outcome, Outcome::Ready));
        harness.cancel(1);
        harness.assert_idle();
    }

    fn the_hint_tells_of_a_cancel_that_is_due(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        harness.driver.cancel(Token(1));
        assert_eq!(harness.driver.ready_hint(), Some(true));
        assert!(matches!(harness.finish(1), Outcome::Cancelled));
        assert_ne!(harness.driver.ready_hint(), Some(true));
    }

    /// io_uring knows from memory; epoll would have to ask.
    fn the_hint_tells_of_bytes(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        harness.collect();
        let quiet = harness.driver.ready_hint();
        peer.write_all(b"x").unwrap();
        if harness.driver.backend() == Backend::Epoll {
            assert_eq!((quiet, harness.driver.ready_hint()), (None, None));
        } else {
            assert_eq!(quiet, Some(false));
            let deadline = Instant::now() + PATIENCE;
            while harness.driver.ready_hint() != Some(true) {
                assert!(Instant::now() < deadline, "the hint never told");
                thread::yield_now();
            }
        }
        assert_eq!(harness.receive_exactly(1, 1), b"x");
        harness.cancel(1);
        harness.assert_idle();
    }
}
