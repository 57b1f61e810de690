//! Bytes on stream sockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use aioxide_driver::{Op, Outcome};
use rustix::io::Errno;

use crate::harness::{errno, number, on_every_backend, pattern, tcp_pair};

fn receive_repeatedly(socket: &impl std::os::fd::AsRawFd) -> Op {
    Op::ReceiveRepeatedly { socket: number(socket) }
}

on_every_backend! {
    fn bytes_arrive_until_end_of_file(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, receive_repeatedly(&ours));
        for message in [&b"first"[..], b"second", b"third"] {
            peer.write_all(message).unwrap();
            assert_eq!(harness.receive_exactly(1, message.len()), message);
        }
        drop(peer);
        match harness.finish(1) {
            Outcome::Received(end) => assert!(end.is_empty()),
            other => panic!("{other:?}"),
        }
        harness.assert_silent(1);
        harness.assert_idle();
    }

    /// Also bytes that were there before the op.
    fn bytes_and_an_end_from_before_the_op_arrive(mut harness: Harness) {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.write_all(b"early").unwrap();
        drop(peer);
        harness.start(1, receive_repeatedly(&ours));
        assert_eq!(harness.receive_exactly(1, 5), b"early");
        assert!(matches!(harness.finish(1), Outcome::Received(end) if end.is_empty()));
    }

    /// Clause 10, and every way of receiving: small and bulk transfers alternate, while more bytes
    /// wait than all provided buffers hold.
    fn large_transfers_arrive_whole_and_in_order(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let bytes = pattern(3 << 20);
        let sent = bytes.clone();
        let sender = thread::spawn(move || {
            let (bulk, rest) = sent.split_at(2 << 20);
            peer.write_all(bulk).unwrap();
            for piece in rest.chunks(700) {
                peer.write_all(piece).unwrap();
            }
            peer
        });
        harness.start(1, receive_repeatedly(&ours));
        assert!(harness.receive_exactly(1, bytes.len()) == bytes);
        drop(sender.join().unwrap());
        assert!(matches!(harness.finish(1), Outcome::Received(end) if end.is_empty()));
        harness.assert_idle();
    }

    /// A calm stream after a busy one: back to small buffers, nothing lost on the way.
    fn single_messages_follow_a_bulk_transfer(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, receive_repeatedly(&ours));
        for round in 0..3 {
            let bulk = pattern(200_000 + round);
            let sent = bulk.clone();
            let mut writer = peer.try_clone().unwrap();
            let sender = thread::spawn(move || writer.write_all(&sent).unwrap());
            assert!(harness.receive_exactly(1, bulk.len()) == bulk);
            sender.join().unwrap();
            for byte in 0..20 {
                peer.write_all(&[byte]).unwrap();
                assert_eq!(harness.receive_exactly(1, 1), [byte]);
            }
        }
        harness.cancel(1);
        harness.assert_idle();
    }

    fn many_streams_share_the_buffers(mut harness: Harness) {
        let mut pairs: Vec<_> = (0..300).map(|_| tcp_pair()).collect();
        for (token, (ours, _)) in pairs.iter().enumerate() {
            harness.start(token as u64, receive_repeatedly(ours));
        }
        // More streams are ready at once than there are provided buffers.
        for (token, (_, peer)) in pairs.iter_mut().enumerate() {
            peer.write_all(&[token as u8; 100]).unwrap();
        }
        for token in 0..pairs.len() {
            assert_eq!(harness.receive_exactly(token as u64, 100), [token as u8; 100]);
        }
        for token in 0..pairs.len() {
            harness.cancel(token as u64);
        }
        harness.assert_idle();
    }

    /// Clause 10: the host holds whatever it wants for as long as it wants.
    fn held_buffers_do_not_stop_a_stream(mut harness: Harness) {
        harness.reopen(|options| options.receive_blocks = 4);
        let (ours, mut peer) = tcp_pair();
        harness.start(1, receive_repeatedly(&ours));
        let mut held = Vec::new();
        for byte in 0..50 {
            peer.write_all(&[byte]).unwrap();
            match harness.next(1).outcome {
                Outcome::Received(buffer) => held.push(buffer),
                other => panic!("{other:?}"),
            }
        }
        let bytes: Vec<u8> = held.iter().flat_map(|buffer| buffer.to_vec()).collect();
        assert_eq!(bytes, (0..50).collect::<Vec<u8>>());
        assert!(harness.driver.statistics().buffers_lent >= held.len());
        harness.cancel(1);
        drop(held);
        harness.assert_idle();
    }

    fn buffers_may_be_dropped_on_another_thread(mut harness: Harness) {
        harness.reopen(|options| options.receive_blocks = 2);
        let (ours, mut peer) = tcp_pair();
        harness.start(1, receive_repeatedly(&ours));
        for byte in 0..20 {
            peer.write_all(&[byte]).unwrap();
            let completion = harness.next(1);
            thread::spawn(move || match completion.outcome {
                Outcome::Received(buffer) => assert_eq!(*buffer, [byte]),
                other => panic!("{other:?}"),
            })
            .join()
            .unwrap();
        }
        harness.cancel(1);
        harness.assert_idle();
    }

    /// Clause 1: the lent memory comes back, filled from its start.
    fn a_single_receive_fills_the_callers_memory(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let buffer = vec![0; 64];
        let address = buffer.as_ptr();
        harness.start(1, Op::Receive { socket: number(&ours), buffer });
        peer.write_all(b"hello").unwrap();
        match harness.finish(1) {
            Outcome::ReceivedInto { buffer, length } => {
                assert_eq!(buffer.as_ptr(), address);
                assert_eq!(&buffer[..length], b"hello");
            }
            other => panic!("{other:?}"),
        }
        drop(peer);
        harness.submit(2, Op::Receive { socket: number(&ours), buffer: vec![0; 64] });
        assert!(matches!(harness.finish(2), Outcome::ReceivedInto { length: 0, .. }));
        harness.assert_idle();
    }

    fn a_send_starts_where_it_is_told(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let buffer = b"skip this, send this".to_vec();
        harness.submit(1, Op::Send { socket: number(&ours), buffer, start: 11 });
        match harness.finish(1) {
            Outcome::Sent { buffer, length } => {
                assert_eq!(length, 9);
                assert_eq!(buffer, b"skip this, send this");
            }
            other => panic!("{other:?}"),
        }
        let mut received = [0; 9];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"send this");
    }

    /// Partial sends add up, though the peer reads slower than we send.
    fn a_large_send_goes_out_in_pieces(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        let bytes = pattern(8 << 20);
        let length = bytes.len();
        let reader = thread::spawn(move || {
            let mut received = vec![0; length];
            peer.read_exact(&mut received).unwrap();
            received
        });
        let (mut buffer, mut start) = (bytes.clone(), 0);
        while start < length {
            harness.submit(1, Op::Send { socket: number(&ours), buffer, start });
            match harness.finish(1) {
                Outcome::Sent { buffer: returned, length } => {
                    assert!(length > 0);
                    start += length;
                    buffer = returned;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(reader.join().unwrap() == bytes);
        harness.assert_idle();
    }

    fn sending_to_a_closed_peer_fails_without_a_signal(mut harness: Harness) {
        let (ours, peer) = UnixStream::pair().unwrap();
        drop(peer);
        harness.submit(1, Op::Send { socket: number(&ours), buffer: b"x".to_vec(), start: 0 });
        assert_eq!(errno(harness.finish(1)), Errno::PIPE.raw_os_error());
        harness.assert_idle();
    }

    /// The peer resets while a send waits for room.
    fn a_reset_ends_a_waiting_send_and_receive(mut harness: Harness) {
        let (ours, peer) = tcp_pair();
        let mut token = 1;
        // Fill what the kernel takes, until a send has to wait.
        let waiting = loop {
            harness.submit(token, Op::Send { socket: number(&ours), buffer: vec![0; 1 << 20], start: 0 });
            if harness.collect().is_empty() {
                break token;
            }
            token += 1;
        };
        harness.start(1000, receive_repeatedly(&ours));
        harness.collect();
        // Unread bytes and a zero linger make the close a reset.
        rustix::net::sockopt::set_socket_linger(&peer, Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        // Which op the one pending error goes to, the kernel decides; the other sees the aftermath.
        let failures = [harness.finish(waiting), harness.finish(1000)];
        let resets = failures.iter().filter(|outcome| {
            matches!(outcome, Outcome::Failed(error) if error.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()))
        });
        assert!(resets.count() >= 1, "{failures:?}");
        harness.assert_idle();
    }

    /// Each half ends by itself.
    fn a_half_closed_peer_still_gets_bytes(mut harness: Harness) {
        let (ours, mut peer) = tcp_pair();
        harness.start(1, receive_repeatedly(&ours));
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(harness.finish(1), Outcome::Received(end) if end.is_empty()));
        harness.submit(2, Op::Send { socket: number(&ours), buffer: b"still".to_vec(), start: 0 });
        assert!(matches!(harness.finish(2), Outcome::Sent { length: 5, .. }));
        let mut received = [0; 5];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"still");
    }

    fn a_descriptor_that_is_not_open_is_an_error(mut harness: Harness) {
        for (token, socket) in [(1, -1), (2, 900_000), (3, i32::MAX)] {
            harness.submit(token, Op::ReceiveRepeatedly { socket });
            assert_eq!(errno(harness.finish(token)), Errno::BADF.raw_os_error());
            harness.submit(token, Op::Send { socket, buffer: vec![1], start: 0 });
            assert_eq!(errno(harness.finish(token)), Errno::BADF.raw_os_error());
        }
        harness.assert_idle();
    }
}
