//! Clause 10: what is full delays, it loses nothing.

use std::io::{Read, Write};

use aioxide_driver::{Op, Outcome};

use crate::harness::{number, on_every_backend, tcp_pair};

on_every_backend! {
    /// More operations at once than the submission queue takes, more answers than the completion
    /// queue holds.
    fn small_queues_lose_nothing(mut harness: Harness) {
        harness.reopen(|options| {
            options.submission_entries = 4;
            options.completion_entries = 8;
            options.receive_blocks = 8;
        });
        let mut pairs: Vec<_> = (0..100).map(|_| tcp_pair()).collect();
        for (index, (ours, _)) in pairs.iter().enumerate() {
            harness.start(index as u64, Op::ReceiveRepeatedly { socket: number(ours) });
        }
        assert!(harness.collect().is_empty());
        for round in 0..5_u8 {
            for (index, (ours, peer)) in pairs.iter_mut().enumerate() {
                peer.write_all(&[round, index as u8]).unwrap();
                let buffer = vec![round, index as u8];
                harness.submit(1000 + index as u64, Op::Send { socket: number(ours), buffer, start: 0 });
            }
            for (index, (_, peer)) in pairs.iter_mut().enumerate() {
                let expected = [round, index as u8];
                assert_eq!(harness.receive_exactly(index as u64, 2), expected);
                assert!(matches!(harness.finish(1000 + index as u64), Outcome::Sent { length: 2, .. }));
                let mut received = [0; 2];
                peer.read_exact(&mut received).unwrap();
                assert_eq!(received, expected);
            }
        }
        for index in 0..pairs.len() {
            harness.cancel(index as u64);
        }
        harness.assert_idle();
    }

    /// Repeated readiness too: every descriptor is heard of, though not all fit.
    fn a_full_completion_queue_hides_no_readiness(mut harness: Harness) {
        harness.reopen(|options| {
            options.submission_entries = 2;
            options.completion_entries = 4;
        });
        let mut pairs: Vec<_> = (0..50).map(|_| tcp_pair()).collect();
        for (index, (ours, peer)) in pairs.iter_mut().enumerate() {
            harness.start(index as u64, Op::WaitReadable { descriptor: number(ours), repeat: true });
            peer.write_all(b"x").unwrap();
        }
        for index in 0..pairs.len() {
            assert!(harness.next(index as u64).more);
        }
        for index in 0..pairs.len() {
            harness.cancel(index as u64);
        }
        harness.assert_idle();
    }

    fn counters_count(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, Op::ReceiveRepeatedly { socket: number(&ours) });
        peer.write_all(b"x").unwrap();
        let completion = harness.next(1);
        let statistics = harness.driver.statistics();
        assert_eq!((statistics.in_flight, statistics.buffers_lent), (1, 1));
        assert_eq!((statistics.submitted, statistics.completed), (1, 1));
        assert!(statistics.waits >= 1);
        drop(completion);
        assert_eq!(harness.driver.statistics().buffers_lent, 0);
        harness.cancel(1);
        assert_eq!(harness.driver.statistics().completed, 2);
        harness.assert_idle();
    }
}
