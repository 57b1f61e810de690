//! Cancelling.

use std::io::Write;

use aioxide_driver::{Op, Outcome, Token};

use crate::harness::{listener, number, on_every_backend, tcp_pair};

on_every_backend! {
    /// Clause 2, for every op that can wait, before and after the kernel has seen it.
    fn every_waiting_op_ends_once_as_cancelled(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        let (listener, _) = listener();
        let datagram = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = number(&ours);
        let ops = || [
            Op::Accept { listener: number(&listener) },
            Op::ReceiveRepeatedly { socket },
            Op::Receive { socket, buffer: vec![0; 10] },
            Op::ReceiveMessage { socket: number(&datagram), buffer: vec![0; 10] },
            Op::WaitReadable { descriptor: socket, repeat: false },
            Op::WaitReadable { descriptor: socket, repeat: true },
        ];
        for was_seen in [false, true] {
            for op in ops() {
                let name = format!("{op:?}, seen by the kernel: {was_seen}");
                harness.start(1, op);
                if was_seen {
                    assert!(harness.collect().is_empty(), "{name}");
                }
                assert!(matches!(harness.cancel(1), Outcome::Cancelled), "{name}");
                harness.assert_silent(1);
                harness.assert_idle();
            }
        }
    }

    fn cancelling_twice_or_too_late_or_nothing_is_ignored(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.driver.cancel(Token(7));
        harness.start(1, Op::WaitReadable { descriptor: number(&ours), repeat: false });
        harness.collect();
        harness.driver.cancel(Token(1));
        harness.driver.cancel(Token(1));
        assert!(matches!(harness.finish(1), Outcome::Cancelled));
        harness.driver.cancel(Token(1));
        harness.assert_silent(1);
        // Nor does it hit the next op of that token.
        harness.start(1, Op::WaitReadable { descriptor: number(&ours), repeat: false });
        peer.write_all(b"x").unwrap();
        assert!(matches!(harness.finish(1), Outcome::Ready));
    }

    /// Clause 8: the number belongs to another socket at once.
    fn a_descriptor_may_be_closed_and_reused_right_after_cancel(mut harness: Harness) {
        for was_seen in [false, true] {
            let (old, _old_peer) = tcp_pair();
            let old_number = number(&old);
            harness.start(1, Op::ReceiveRepeatedly { socket: old_number });
            harness.start(2, Op::WaitReadable { descriptor: old_number, repeat: true });
            if was_seen {
                assert!(harness.collect().is_empty());
            }
            let (new, mut new_peer) = tcp_pair();
            harness.driver.cancel(Token(1));
            harness.driver.cancel(Token(2));
            // Closes the old socket and gives its number to the new one, in one step.
            let mut target = std::os::fd::OwnedFd::from(old);
            rustix::io::dup2(&new, &mut target).unwrap();
            assert_eq!(number(&target), old_number);
            new_peer.write_all(b"for the new op").unwrap();
            harness.start(3, Op::ReceiveRepeatedly { socket: old_number });
            assert!(matches!(harness.finish(1), Outcome::Cancelled));
            assert!(matches!(harness.finish(2), Outcome::Cancelled));
            assert_eq!(harness.receive_exactly(3, 14), b"for the new op");
            harness.cancel(3);
            harness.assert_idle();
        }
    }

    /// Data that was there when the cancel came is delivered or left in the socket, never lost.
    fn no_byte_is_lost_when_receiving_is_paused_and_resumed(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let mut received = Vec::new();
        let mut token = 0;
        for byte in 0..200_u8 {
            harness.start(token, Op::ReceiveRepeatedly { socket: number(&ours) });
            if byte % 3 == 0 {
                harness.turn();
            }
            peer.write_all(&[byte]).unwrap();
            harness.driver.cancel(Token(token));
            loop {
                let completion = harness.next(token);
                if let Outcome::Received(buffer) = completion.outcome {
                    received.extend_from_slice(&buffer);
                }
                if !completion.more {
                    break;
                }
            }
            token += 1;
        }
        harness.start(token, Op::ReceiveRepeatedly { socket: number(&ours) });
        let rest = 200 - received.len();
        received.extend(harness.receive_exactly(token, rest));
        assert_eq!(received, (0..200).collect::<Vec<u8>>());
        harness.cancel(token);
        harness.assert_idle();
    }

    /// A host that breaks clause 8 gets its other ops served all the same.
    fn a_descriptor_closed_without_a_cancel_breaks_nothing_else(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        let (other, mut other_peer) = tcp_pair();
        harness.start(1, Op::WaitReadable { descriptor: number(&ours), repeat: true });
        harness.start(2, Op::ReceiveRepeatedly { socket: number(&other) });
        harness.collect();
        drop(ours);
        other_peer.write_all(b"x").unwrap();
        assert_eq!(harness.receive_exactly(2, 1), b"x");
        assert!(matches!(harness.cancel(1), Outcome::Cancelled));
        harness.cancel(2);
        harness.assert_idle();
    }

    fn a_send_that_waits_for_room_can_be_cancelled(mut harness: Harness) {
        let (ours, _peer) = tcp_pair();
        let mut token = 1;
        let waiting = loop {
            harness.submit(token, Op::Send { socket: number(&ours), buffer: vec![0; 1 << 20], start: 0 });
            if harness.collect().is_empty() {
                break token;
            }
            token += 1;
        };
        assert!(matches!(harness.cancel(waiting), Outcome::Cancelled));
        harness.assert_idle();
    }
}
